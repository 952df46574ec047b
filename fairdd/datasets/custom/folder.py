"""Load a user's own images: a folder with a CSV that describes them, with folders class/group/, or of parquet files.

Any columns may be class and group (columns.py), or some images are made gray (gray.py). Without a given split one is
drawn (split.py), and returned with the data set, so that a run can write it beside its results.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from fairdd.core.errors import UserError
from fairdd.datasets.base import Dataset
from fairdd.datasets.custom.class_folders import read_class_folders
from fairdd.datasets.custom.columns import ChosenColumns, choose_columns, make_attributes
from fairdd.datasets.custom.csv_files import read_csv_files
from fairdd.datasets.custom.gray import PROTECTED, check_protected, describe_gray, make_gray, show_both_forms
from fairdd.datasets.custom.parquet import list_parquet, read_parquet_files
from fairdd.datasets.custom.paths import ImageFinder, locate_images
from fairdd.datasets.custom.split import check_cells, find_copies, make_split, settle_splits
from fairdd.datasets.custom.table import ImageTable
from fairdd.datasets.custom.values import clean_values
from fairdd.datasets.files import preview
from fairdd.datasets.image_cache import load_images
from fairdd.datasets.splits import Split, select_images

LABELS = "labels.csv"
CHUNK = 1024            # images whose pixels are counted at a time

Normalization = tuple[tuple[float, ...], tuple[float, ...]]     # mean and std of each channel


def load_folder(request) -> Dataset:
    """Return the images that a DatasetRequest asks for, at 64 pixels by default, normalized by the training images."""
    check_protected(request)
    table, columns = prepare_table(request)
    files = [request.data_path / path for path in table.paths]
    loaded = load_images(files, request.im_size or 64, request)
    table, files = table.keep(loaded.kept), [files[row] for row in loaded.kept]
    target, protected = make_attributes(table, columns)
    split = make_split(table, target, protected, find_copies(loaded.images, files), columns.split_by, request)
    notes = ("; ".join(table.notes), *loaded.notes, *split.notes)
    if request.skew is not None:
        protected = make_gray(loaded.images, target, split.train, request)
        notes = (*notes, describe_gray(target.names, request.skew))
    normalization = measure_normalization(loaded.images, split.train)
    is_val = np.array([], bool) if table.splits is None else table.splits == "val"
    train, test, val = (select_images(loaded.images, rows, target, protected, normalization)
                        for rows in (split.train, split.test, np.flatnonzero(is_val)))
    if request.skew is not None:
        test, val = show_both_forms(test), show_both_forms(val)
    mean, std = (", ".join(f"{value:.4f}" for value in values) for values in normalization)
    notes = (*notes, f"normalized with the training images' own mean ({mean}) and std ({std})")
    return Dataset(request.name, train, test, notes, written_split(table, split) if table.splits is None else (),
                   val=val if len(val) else None, train_paths=tuple(table.paths[split.train].tolist()))


def prepare_table(request) -> tuple[ImageTable, ChosenColumns]:
    """Return the table of the images to load, clean and checked, and its columns that are classes and groups."""
    finder = ImageFinder(request.data_path)
    table = read_table(request, finder)
    columns = choose_columns(table, request)
    groups = columns.groups if request.train_unknown_groups else ()
    table = clean_values(table, columns.categories, columns.others, request.unknown, groups)
    table = locate_images(table, finder, request.skip_bad_images, request.follow_links)
    table = drop_repeated_rows(table, columns.categories + columns.others)
    table = settle_splits(table, columns.categories)
    check_cells(table, *make_attributes(table, columns), columns.split_by, request.rare_cells)
    return table, columns


def read_table(request, finder: ImageFinder) -> ImageTable:
    """Read the tables that --labels names, or labels.csv, or the folders class/group/, or parquet files."""
    root = request.data_path
    files = find_labels(root, request.labels)
    if not files and request.protected_attr == PROTECTED and request.skew is None and not list_parquet(root):
        raise UserError(f"--protected_attr {PROTECTED} of images without a table needs --skew, 0.9 in the paper: the "
                        "share of gray images in the first half of the classes, and of images in color in the others")
    if not files:
        table = read_class_folders(root, ("class", "group") if request.skew is None else ("class",))
        if len(table) and request.path_column:
            raise UserError(f"{root}: images in class folders have no --path_column; --labels names a table")
        if len(table):
            return table
        files = list_parquet(root)
    if not files:
        tables = sorted(path.name for path in root.glob("*.[ct]sv"))
        hint = f"; {preview(tables)} there: --labels names the one to read" if tables else ""
        raise UserError(f"no images found in {root}: expected {LABELS} there, images in folders class/group/, or "
                        f"parquet files (--data_path names the folder, --labels another CSV){hint}")
    kinds = {file.suffix == ".parquet" for file in files}
    if len(kinds) > 1:
        raise UserError(f"--labels {request.labels} mixes CSV and parquet files")
    read = read_parquet_files if kinds == {True} else read_csv_files
    return read(files, finder, request)


def find_labels(root: Path, labels: str | None) -> list[Path]:
    """Return the files that --labels names, each below the root or elsewhere; folders stand for their parquet files."""
    if labels is None:
        return [root / LABELS] if os.path.isfile(root / LABELS) else []
    tried = []
    for names in ([labels], [name.strip() for name in labels.split(",")]):      # a name may hold a comma
        options = [[root / name, Path(name).expanduser()] for name in names]
        files = [next(filter(os.path.exists, option), None) for option in options]
        if None not in files:
            files = [path for file in files for path in (list_parquet(file) if file.is_dir() else [file])]
            if not files:
                raise UserError(f"--labels {labels}: there is no parquet file in this folder")
            return files
        tried = [str(path) for option, file in zip(options, files, strict=True) if file is None for path in option]
    raise UserError(f"--labels {labels} not found; looked for {', '.join(tried)}")


def drop_repeated_rows(table: ImageTable, names: list[str]) -> ImageTable:
    """Return the table with each image once. Raises UserError if its rows differ in the named columns or the split."""
    repeated = pd.Series(table.paths).duplicated(keep=False).to_numpy()
    if not repeated.any():
        return table
    facts = table.data[names].assign(**{} if table.splits is None else {"the split": table.splits})
    differs = facts[repeated].groupby(table.paths[repeated]).nunique() > 1
    if differs.any(axis=None):
        path, name = differs.stack().idxmax()
        (first, value), (second, other) = facts.loc[table.paths == path, name].drop_duplicates()[:2].items()
        raise UserError(f"{table.title}, {first} and {second}: both name {path}, but {name} is {value!r} and {other!r}")
    keep = ~pd.Series(table.paths).duplicated().to_numpy()
    return table.keep(keep, f"{(~keep).sum()} rows that repeat an image are left out")


def written_split(table: ImageTable, split: Split) -> tuple[tuple[str, str], ...]:
    """Return (path, "train" or "test") of every image that trains or tests, in the table's order."""
    names = np.full(len(table), "", object)
    names[split.train], names[split.test] = "train", "test"
    return tuple((path, name) for path, name in zip(table.paths, names, strict=True) if name)


def measure_normalization(images: torch.Tensor, rows: np.ndarray) -> Normalization:
    """Return mean and std of each channel over images[rows], (N, C, H, W) uint8, from the counts of the 256 levels."""
    counts = torch.zeros(images.shape[1], 256, dtype=torch.float64)
    for chunk in torch.from_numpy(rows).split(CHUNK):
        channels = images[chunk].transpose(0, 1).flatten(1)
        counts += torch.stack([torch.bincount(levels, minlength=256) for levels in channels])
    shares, levels = counts / counts.sum(1, keepdim=True), torch.arange(256).double() / 255
    mean = shares @ levels
    std = (shares * (levels - mean[:, None]) ** 2).sum(1).sqrt().clamp(min=1 / 255)     # a constant channel: not 0
    return tuple(mean.tolist()), tuple(std.tolist())
