"""Your own images: a folder, and a CSV that says what each image shows, or folders class/group/ that say it.

Any columns may be class and group (columns.py). Where nothing tells training from test images a split is drawn, its
test balanced over cells, and handed on to be written beside the results.
"""

import os
from pathlib import Path

import numpy as np
import torch

from fairdd.core.errors import UserError
from fairdd.datasets.base import Dataset
from fairdd.datasets.custom.columns import read_attributes
from fairdd.datasets.custom.table import read_csv, read_folders
from fairdd.datasets.files import preview
from fairdd.datasets.image_cache import load_images
from fairdd.datasets.splits import Split, cell_members, hold_out_test, select_images

LABELS = "labels.csv"
MISSING_SHARE = 0.01    # of the images may be missing; more means that something else is wrong
CHUNK = 1024            # images whose pixels are counted at a time


def load_folder(request):
    """Own images at 64 pixels, normalized with the mean and std of those that train."""
    root = request.data_path
    table = without_missing(read_table(request), root)
    check_split(table, *read_attributes(table, request))
    decoded = load_images([root / path for path in table.paths], request.im_size or 64, request)
    table = table.keep(decoded.kept)
    target, protected = read_attributes(table, request)
    split = make_split(table, target, protected, request.data_seed)
    scale = scale_of(decoded.images, split.train)
    parts = (select_images(decoded.images, part, target, protected, scale) for part in (split.train, split.test))
    notes = table.notes + decoded.notes + split.notes + (scale_note(scale),)
    return Dataset(request.name, *parts, notes, written_split(table, split) if table.parts is None else ())


def read_table(request):
    """The table of the CSV asked for, of labels.csv, or else of the folders class/group/."""
    root = request.data_path
    tried = [root / (request.labels or LABELS), *([Path(request.labels)] if request.labels else [])]
    file = next(filter(os.path.isfile, tried), None)
    if file is not None:
        return read_csv(file, root)
    if request.labels:
        raise UserError(f"--labels {request.labels} not found; looked for {', '.join(map(str, tried))}")
    table = read_folders(root)
    if not table.rows:
        raise UserError(f"no images of your own in {root}: expected {LABELS} there, or images in folders class/group/ "
                        "(--data_path names the folder, --labels another CSV)")
    return table


def without_missing(table, root):
    """The rows whose image is there. Refuses more than one missing in a hundred, and links that leave the folder."""
    missing = [place for place, path in enumerate(table.paths) if not os.path.isfile(root / path)]
    gone = preview(f"{table.rows[place]} ({table.paths[place]})" for place in missing)
    if len(missing) > MISSING_SHARE * len(table.rows):
        raise UserError(f"{table.title}: {len(missing)} of {len(table.rows)} images are not in {root}: {gone}")
    there = np.setdiff1d(np.arange(len(table.rows)), missing)
    table = table.keep(there, *([f"{len(missing)} images are missing and left out: {gone}"] if missing else []))
    refuse_leaving(table, root)
    return table


def refuse_leaving(table, root):
    """Stop at an image that lies outside the folder, reached through a link."""
    home, inside = root.resolve(), {}
    for place, path in enumerate(table.paths):
        file = root / path
        if file.parent not in inside:
            inside[file.parent] = file.parent.resolve().is_relative_to(home)
        if not inside[file.parent] or (file.is_symlink() and not file.resolve().is_relative_to(home)):
            raise table.error(place, f"{path} is a link to a place outside the data folder {root}")


def check_split(table, target, protected):
    """Stop, before any image is decoded, where nothing is left to train or test on.

    An image that is the only one of its class and group cannot do both.
    """
    if table.parts is not None:
        for part in {"train", "test"} - set(table.parts):
            raise UserError(f"{table.title}: by its split no image is {part}")
        return
    cell = target.values * len(protected.names) + protected.values
    found, counts = np.unique(cell, return_counts=True)
    alone = [divmod(number, len(protected.names)) for number in found[counts == 1]]
    if alone:
        names = [f"({target.names[c]}, {protected.names[g]})" for c, g in alone]
        raise UserError(f"{table.title}: only one image is of (class, group) {preview(names)}, so it cannot both train and "
                        "test; take such images out, choose columns or cuts otherwise, or add a column split")


def make_split(table, target, protected, seed):
    """Training and test images: as the table says, or drawn, the test with as many of every cell. -> Split"""
    if table.parts is None:
        drawn = hold_out_test(cell_members(target, protected, np.arange(len(table.rows))), seed)
        note = f"no split is given: it is drawn with --data_seed {seed} and written to split.csv of the run"
        return Split(drawn.train, drawn.test, (note, *drawn.notes))
    is_test = np.array(table.parts) == "test"
    return Split(np.flatnonzero(~is_test), np.flatnonzero(is_test))


def written_split(table, split):
    """(path, "train" or "test") of every image, in the table's order."""
    part = np.full(len(table.rows), "train")
    part[split.test] = "test"
    return tuple(zip(table.paths, part.tolist(), strict=True))


def scale_of(images, places):
    """mean and std of each channel over the images at places, from how often each of the 256 levels occurs."""
    counts = torch.zeros(images.shape[1], 256, dtype=torch.float64)
    for chunk in torch.from_numpy(places).split(CHUNK):
        channels = images[chunk].transpose(0, 1).flatten(1)
        counts += torch.stack([torch.bincount(levels, minlength=256) for levels in channels])
    share, level = counts / counts.sum(1, keepdim=True), torch.arange(256).double() / 255
    mean = share @ level
    std = (share * (level - mean[:, None]) ** 2).sum(1).sqrt().clamp(min=1 / 255)   # one color only: not 0
    return tuple(mean.tolist()), tuple(std.tolist())


def scale_note(scale):
    """What the images are normalized with, in a sentence."""
    mean, std = (", ".join(f"{value:.4f}" for value in values) for values in scale)
    return f"normalized with the training images' own mean ({mean}) and std ({std})"
