"""Groups that another tool found: a CSV of an image's path, or number, and its group."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from fairdd.core.errors import UserError
from fairdd.datasets.base import Dataset, GroupedImages
from fairdd.datasets.files import preview

KEYS = ("path", "index")


def read_groups(path: str, data: Dataset) -> GroupedImages:
    """Return the training images with the groups of a CSV file; rows of other images are ignored. Raises UserError.

    Its columns are the path of the image as the data set names it (data.train_paths), or the index of the image among
    the training images, from 0, and the group, any text.
    """
    table = read_table(path, has_paths=bool(data.train_paths))
    keys = data.train_paths if table.index.name == "path" else map(str, range(len(data.train)))
    groups = table.reindex(pd.Index(keys))
    absent = groups.index[groups.isna() | (groups == "")]
    if len(absent):
        raise UserError(f"{path} lacks the group of {len(absent)} of {len(groups)} training images: {preview(absent)}")
    names = tuple(sorted(groups.unique()))
    return replace(data.train, groups=torch.from_numpy(pd.Categorical(groups, names).codes.astype("int64")),
                   group_names=names, attributes=())


def read_table(path: str, has_paths: bool) -> pd.Series:
    """Return the group of each path or index, all as text. Raises UserError."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"--groups {path} cannot be read: {' '.join(str(error).split())}") from None
    names = [name.strip().lower() for name in table.columns]
    if len(names) != 2 or names[0] not in KEYS:
        raise UserError(f"{path}: expected two columns, path or index first, then the group, not {', '.join(names)}")
    if names[0] == "path" and not has_paths:
        raise UserError(f"{path}: the images of this data set have no paths; the first column must be index, the "
                        "number of the training image, from 0")
    table.columns = [names[0], "group"]
    table = table.map(str.strip).drop_duplicates()
    repeated = table.loc[table[names[0]].duplicated(), names[0]]
    if len(repeated):
        raise UserError(f"{path} gives several groups to {len(repeated)} images: {preview(repeated)}")
    return table.set_index(names[0])["group"]


def file_digest(source: str) -> dict[str, str]:
    """Return the hash of the file that --groups names, so that a run can refuse to resume with another; else nothing.

    Raises UserError if it cannot be read.
    """
    if not source.endswith(".csv"):
        return {}
    try:
        return {"the file of --groups": hashlib.sha256(Path(source).read_bytes()).hexdigest()[:32]}
    except OSError as error:
        raise UserError(f"--groups {source} cannot be read: {error.strerror}") from None
