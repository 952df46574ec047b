"""What every loader of files needs: find the folder, list the images, and say clearly what is missing."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairdd.core.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def find_folder(root, names, needed=()):
    """The first folder root/name that holds every needed entry, or None."""
    for name in names:
        if (root / name).is_dir() and all((root / name / entry).exists() for entry in needed):
            return root / name
    return None


def list_images(folder, pattern="*"):
    """Image files of the folder, sorted by their path inside it, so that no split depends on the machine."""
    found = [path for path in folder.glob(pattern) if path.name[0] != "." and path.suffix.lower() in SUFFIXES]
    return sorted(found, key=Path.as_posix)


@dataclass(frozen=True, eq=False)
class Labeled:
    """paths: the N files that tell their labels; labels: (N, K) int64; notes: how many others were left out."""

    paths: list
    labels: np.ndarray
    notes: tuple


def by_label(pattern, paths):
    """Read the labels that stand in file names. pattern: its K groups are numbers. -> Labeled"""
    matches = {path: pattern.search(path.name) for path in paths}
    others = [path.name for path in paths if not matches[path]]
    if len(others) == len(paths):
        raise UserError(f"{paths[0].parent}: no file name holds its labels, {paths[0].name} for one")
    labels = np.array([match.groups() for match in matches.values() if match]).astype(np.int64)
    notes = (f"{len(others)} files without labels in their names are left out: {preview(others)}",) if others else ()
    return Labeled([path for path in paths if matches[path]], labels, notes)


def preview(names):
    """The first three names, for a message."""
    names = list(names)
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def dataset_not_found(title, tried, tree, link, reason=""):
    """The error of a data set that is not there: where it was looked for, what was expected, where to get it."""
    places = ", ".join(os.fspath(path) for path in tried)
    because = f" ({reason})" if reason else ""
    return UserError(f"{title} not found{because}; looked for {places}; expected {tree}; get it from {link}")


def download(name, root, tried, tree, link):
    """Let torchvision fetch a data set; whatever stops it (network, disk, the site) becomes one clear sentence."""
    import torchvision  # here, because it takes seconds to import and preview starts need it

    try:
        getattr(torchvision.datasets, name)(root, download=True)
    except Exception as error:      # every downloader has its own kinds of failure
        raise dataset_not_found(name, tried, tree, link, f"download failed: {' '.join(str(error).split())}") from error
