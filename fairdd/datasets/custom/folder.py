"""Load a user's own images: a folder with a CSV that describes them, or with folders class/group/.

Any columns may be class and group (columns.py). Without a given split one is drawn, with a test balanced over cells,
and returned with the data set, so that a run can write it beside its results.
"""

import os
from pathlib import Path

import numpy as np
import torch

from fairdd.core.errors import UserError
from fairdd.datasets.base import Dataset
from fairdd.datasets.custom.columns import select_attributes
from fairdd.datasets.custom.table import ImageTable, read_class_folders, read_csv
from fairdd.datasets.files import preview
from fairdd.datasets.image_cache import load_images
from fairdd.datasets.splits import Attribute, Split, cell_members, hold_out_test, select_images

LABELS = "labels.csv"
MAX_MISSING = 0.01      # share of images that may be missing; more means that something else is wrong
CHUNK = 1024            # images whose pixels are counted at a time

Normalization = tuple[tuple[float, ...], tuple[float, ...]]     # mean and std of each channel


def load_folder(request) -> Dataset:
    """Return the images that a DatasetRequest asks for, at 64 pixels by default, normalized by the training images."""
    root = request.data_path
    table = drop_missing(read_table(request), root)
    check_split(table, *select_attributes(table, request))
    loaded = load_images([root / path for path in table.paths], request.im_size or 64, request)
    table = table.keep(loaded.kept)
    target, protected = select_attributes(table, request)
    split = make_split(table, target, protected, request.data_seed)
    normalization = measure_normalization(loaded.images, split.train)
    train, test = (select_images(loaded.images, rows, target, protected, normalization)
                   for rows in (split.train, split.test))
    mean, std = (", ".join(f"{value:.4f}" for value in values) for values in normalization)
    note = f"normalized with the training images' own mean ({mean}) and std ({std})"
    return Dataset(request.name, train, test, (*table.notes, *loaded.notes, *split.notes, note),
                   written_split(table, split) if table.splits is None else ())


def read_table(request) -> ImageTable:
    """Read the requested CSV, or labels.csv, or else the folders class/group/."""
    root = request.data_path
    candidates = [root / (request.labels or LABELS), *([Path(request.labels)] if request.labels else [])]
    file = next(filter(os.path.isfile, candidates), None)
    if file is not None:
        return read_csv(file, root)
    if request.labels:
        raise UserError(f"--labels {request.labels} not found; looked for {', '.join(map(str, candidates))}")
    table = read_class_folders(root)
    if not len(table):
        raise UserError(f"no images found in {root}: expected {LABELS} there, or images in folders class/group/ "
                        "(--data_path names the folder, --labels another CSV)")
    return table


def drop_missing(table: ImageTable, root: Path) -> ImageTable:
    """Return the rows whose image exists. Refuses more than 1 % missing, and links that leave the folder."""
    exists = np.array([os.path.isfile(root / path) for path in table.paths], bool)
    absent = np.flatnonzero(~exists)
    names = preview(f"{table.data.index[row]} ({table.paths[row]})" for row in absent)
    if len(absent) > MAX_MISSING * len(table):
        raise UserError(f"{table.title}: {len(absent)} of {len(table)} images are not in {root}: {names}")
    table = table.keep(exists, *([f"{len(absent)} images are missing and left out: {names}"] if len(absent) else []))
    refuse_outside_links(table, root)
    return table


def refuse_outside_links(table: ImageTable, root: Path) -> None:
    """Raise UserError for an image that lies outside the folder, reached through a link."""
    home, is_inside = root.resolve(), {}
    for position, path in enumerate(table.paths):
        file = root / path
        if file.parent not in is_inside:
            is_inside[file.parent] = file.parent.resolve().is_relative_to(home)
        if not is_inside[file.parent] or (file.is_symlink() and not file.resolve().is_relative_to(home)):
            raise table.row_error(position, f"{path} is a link out of the data folder {root}")


def check_split(table: ImageTable, target: Attribute, protected: Attribute) -> None:
    """Raise UserError, before any image is decoded, if nothing is left to train or test on."""
    if table.splits is not None:
        for split in {"train", "test"} - set(table.splits):
            raise UserError(f"{table.title}: by its split no image is {split}")
        return
    cells, counts = np.unique(target.values * len(protected.names) + protected.values, return_counts=True)
    single = [divmod(cell, len(protected.names)) for cell in cells[counts == 1]]
    if single:
        names = preview(f"({target.names[label]}, {protected.names[group]})" for label, group in single)
        raise UserError(f"{table.title}: only one image has (class, group) {names}, so it cannot both train and test; "
                        "remove such images, choose other columns or cuts, or add a column split")


def make_split(table: ImageTable, target: Attribute, protected: Attribute, seed: int) -> Split:
    """Return the given split, or a drawn one whose test has equally many images of every cell."""
    if table.splits is not None:
        return Split(np.flatnonzero(table.splits == "train"), np.flatnonzero(table.splits == "test"))
    split = hold_out_test(cell_members(target, protected, np.arange(len(table))), seed)
    note = f"no split is given: it is drawn with --data_seed {seed} and written to split.csv of the run"
    return Split(split.train, split.test, (note, *split.notes))


def written_split(table: ImageTable, split: Split) -> tuple[tuple[str, str], ...]:
    """Return (path, "train" or "test") of every image, in the table's order."""
    names = np.full(len(table), "train")
    names[split.test] = "test"
    return tuple(zip(table.paths, names.tolist(), strict=True))


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
