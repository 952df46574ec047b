"""Read the table of a user's images from folders: class/group/ or class/, maybe in folders train/ and test/."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fairdd.core.errors import UserError
from fairdd.datasets.custom.paths import count_suffixes, is_image, walk_files
from fairdd.datasets.custom.split import SPLITS
from fairdd.datasets.custom.table import ImageTable
from fairdd.datasets.files import preview

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")


def read_class_folders(root: Path, levels: Sequence[str] = ("class", "group")) -> ImageTable:
    """Return the table that folders tell, with the columns of levels and, where there are deeper folders, subfolder.

    It may be empty. levels: what the folders above an image are, below those of a split: class and group, or class
    """
    files = list(walk_files(root))
    images = [path.split("/") for path in files if is_image(path)]
    tops = sorted({names[0] for names in images if len(names) > len(levels)})
    has_splits = bool(tops) and {top.lower() for top in tops} <= SPLITS.keys()
    depth = len(levels) + has_splits        # folders above an image
    tree = "/".join(levels) + "/"
    images = [names for names in images if len(names) > depth]
    if has_splits and not images:
        raise UserError(f"{root} holds the folders {preview(tops)}, expected folders {tree} in each: add {levels[-1]} "
                        "folders, or list the images in a CSV with a column split")
    paths = ["/".join(names) for names in images]
    check_names(root, paths)
    data = pd.DataFrame([names[has_splits:depth] for names in images], paths, list(levels), dtype=object)
    notes = [f"{root}: {len(paths)} images in folders {'split/' if has_splits else ''}{tree}",
             *note_left_out(files, depth, tree)]
    deeper = [names[depth] if len(names) > depth + 1 else "." for names in images]
    if any(name != "." for name in deeper):
        data["subfolder"] = deeper
        notes.append(f"{sum(name != '.' for name in deeper)} of them in deeper folders")
    splits = np.array([SPLITS[names[0].lower()] for names in images], object) if has_splits else None
    return ImageTable(str(root), data, np.array(paths, object), splits, tuple(notes))


def check_names(root: Path, paths: list[str]) -> None:
    """Raise UserError for a file name that cannot be written to a text file."""
    for path in paths:
        if path.encode(errors="replace").decode() != path:
            raise UserError(f"{root}: the name {path!a} is not UTF-8; rename it")


def note_left_out(files: list[str], depth: int, tree: str) -> list[str]:
    """Return notes on the files that are not used, by reason. tree: the folders expected"""
    stray = sum(is_image(path) and path.count("/") < depth for path in files)
    others = [path for path in files if not is_image(path) and path.count("/") >= depth]
    tables = [path for path in files if path.endswith(TABLE_SUFFIXES)]
    notes = [f"{stray} images that are not in a folder {tree} are left out"] if stray else []
    notes += [f"{len(others)} files that are not images are left out ({count_suffixes(others)})"] if others else []
    return notes + ([f"{preview(tables)} not read (--labels reads tables)"] if tables else [])
