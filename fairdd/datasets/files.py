"""Find folders and image files of a data set, download it, and explain what is missing."""

import os
import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np

from fairdd.core.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif")


def find_entries(folders: Iterable[Path], pattern: str) -> list[Path]:
    """List the entries of folders whose name matches the pattern, in any case; in each folder, short names first."""
    entries = (sorted(folder.iterdir(), key=lambda path: (len(path.name), path.name)) for folder in folders
               if folder.is_dir())
    return [path for path in chain.from_iterable(entries) if re.fullmatch(pattern, path.name, re.IGNORECASE)]


def candidate_folders(root: Path, pattern: str) -> list[Path]:
    """List the folders that may hold a data set: those in root whose name matches, such folders in these, root."""
    named = [path for path in find_entries([root], pattern) if path.is_dir()]
    return [*named, *(path for path in find_entries(named, pattern) if path.is_dir()), root]


def list_images(folder: Path, pattern: str = "*") -> list[Path]:
    """List the image files of a folder, sorted by their path inside it, so that no split depends on the machine."""
    paths = (path for path in folder.glob(pattern) if path.name[0] != "." and path.suffix.lower() in SUFFIXES)
    return sorted(paths, key=Path.as_posix)


def parse_labels(pattern: re.Pattern, paths: list[Path]) -> tuple[list[Path], np.ndarray, tuple[str, ...]]:
    """Read the labels from file names; the K groups of the pattern are numbers. Raises UserError if no name has any.

    -> the N paths with labels, their labels (N, K) int64, a note on the other paths
    """
    matches = {path: pattern.search(path.name) for path in paths}
    labels = np.array([match.groups() for match in matches.values() if match]).astype(np.int64)
    unlabeled = [path.name for path in paths if not matches[path]]
    if len(unlabeled) == len(paths):
        raise UserError(f"{paths[0].parent}: no file name contains labels; the first is {paths[0].name}")
    note = f"{len(unlabeled)} files without labels in their names are left out: {preview(unlabeled)}"
    return [path for path in paths if matches[path]], labels, (note,) if unlabeled else ()


def preview(names: Iterable[str]) -> str:
    """Return the first three names, for a message."""
    names = list(names)
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def dataset_not_found(title: str, tried: Iterable[Path], tree: str, link: str, reason: str = "") -> UserError:
    """Return the error of an absent data set: the paths tried, the files expected, where to get them."""
    because = f" ({reason})" if reason else ""
    return UserError(f"{title} not found{because}; looked for {', '.join(map(os.fspath, tried))}; expected {tree}; "
                     f"get it from {link}")


def download(name: str, root: Path, tried: Iterable[Path], tree: str, link: str) -> None:
    """Let torchvision download a data set into root. Raises UserError for any failure (network, disk, server)."""
    import torchvision  # slow to import, and rarely needed

    try:
        getattr(torchvision.datasets, name)(root, download=True)
    except Exception as error:      # every downloader raises its own kinds of error
        raise dataset_not_found(name, tried, tree, link, f"download failed: {' '.join(str(error).split())}") from error
