"""CelebA: 202,599 faces with 40 binary attributes; any two may be class and group (Attractive and Male by default).

Liu, Luo, Wang, Tang: Deep Learning Face Attributes in the Wild, ICCV 2015. Only the images, the attribute list and
the partition list are read. Training images are decoded first, so the training part is a slice of the cache and
never copied.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairdd.core.errors import UserError
from fairdd.datasets.base import Dataset
from fairdd.datasets.files import SUFFIXES, dataset_not_found, download, find_folder, preview
from fairdd.datasets.image_cache import load_images
from fairdd.datasets.splits import (
    Attribute,
    Split,
    cell_members,
    choose_attributes,
    cross,
    draw_from_cells,
    select_images,
)

FOLDERS = ("CelebA", "celeba")
IMAGES = ("img_align_celeba/img_align_celeba", "img_align_celeba", "Img/img_align_celeba")
ATTRIBUTES = ("list_attr_celeba.txt", "list_attr_celeba.csv", "Anno/list_attr_celeba.txt")
PARTITION = ("list_eval_partition.txt", "list_eval_partition.csv", "Eval/list_eval_partition.txt")
TREE = "img_align_celeba/*.jpg, list_attr_celeba.txt and list_eval_partition.txt (or the two lists as .csv)"
LINK = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (aligned and cropped images)"
NORMALIZATION = (0.5063, 0.4258, 0.3832), (0.2676, 0.2453, 0.2410)
TRAIN, TEST = 0, 2              # in the partition list; 1 is validation, unused
HELD_OUT = 5                    # one in five, where the list has no test images


def load_celeba(request):
    """CelebA at 64 pixels: official training images; test images reduced to equally many of each cell."""
    images, attribute_list, partition_list = find_parts(request.data_path)
    listed = read_list(attribute_list)
    chosen = choose_attributes(request, ("Attractive", "Male"), listed.columns)
    part = parts_of(listed.names, partition_list)
    order = np.concatenate([np.flatnonzero(part == TRAIN), np.flatnonzero(part == TEST)])
    decoded = load_images([images / listed.names[row] for row in order], request.im_size or 64, request, square=True)
    rows = order[decoded.kept]
    target, protected = (cross({name: binary(listed, name, rows, len(names) == 1) for name in names})
                         for names in chosen)
    split = balance(target, protected, part[rows] == TEST, request.data_seed)
    parts = (select_images(decoded.images, places, target, protected, NORMALIZATION) for places in (split.train, split.test))
    return Dataset(request.name, *parts, decoded.notes + split.notes)


def find_parts(root):
    """Where the images, the attribute list and the partition list are; fetched where there is nothing at all."""
    tried = [root / name for name in FOLDERS]
    if find_folder(root, FOLDERS) is None:
        download("CelebA", root, tried, TREE, LINK)
    folder = find_folder(root, FOLDERS)
    parts = [next((folder / name for name in names if (folder / name).exists()), None)
             for names in (IMAGES, ATTRIBUTES, PARTITION)]
    for found, names in zip(parts, (IMAGES, ATTRIBUTES, PARTITION), strict=True):
        if found is None:
            raise dataset_not_found("CelebA", [folder / name for name in names], TREE, LINK)
    return parts


@dataclass(frozen=True, eq=False)
class AttributeTable:
    """names: of N image files; values: (N, K) int8; columns: the names of the K values."""

    names: list
    values: np.ndarray
    columns: tuple


def read_list(path):
    """A list of CelebA, as published or as CSV: lines of a file name and numbers, under a line of column names."""
    comma = "," if path.suffix == ".csv" else None
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    is_row = [line.split(comma, 1)[0].lower().endswith(SUFFIXES) for line in lines]
    if not any(is_row):
        raise UserError(f"{path} lists no images")
    first = is_row.index(True)
    width = len(lines[first].split(comma))
    if width < 2:
        raise UserError(f"{path} is damaged: no value stands beside {lines[first].strip()!r}")
    try:
        values = np.loadtxt(lines[first:], np.int8, delimiter=comma, usecols=range(1, width), ndmin=2)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    names = [line.split(comma, 1)[0] for line in lines[first:]]
    leaving = [name for name in names if Path(name).name != name]
    if leaving:
        raise UserError(f"{path} names files outside the image folder: {preview(leaving)}")
    header = lines[first - 1].split(comma) if first else []
    return AttributeTable(names, values, tuple(header[1 - width :]))


def parts_of(names, path):
    """The part (training, validation, test) of every named image, from the partition list. -> (N,) int8"""
    listed = read_list(path)
    part_of = dict(zip(listed.names, listed.values[:, 0], strict=True))
    unknown = [name for name in names if name not in part_of]
    if unknown:
        raise UserError(f"{path} lacks {len(unknown)} images of the attribute list: {preview(unknown)}")
    return np.array([part_of[name] for name in names])


def binary(listed, name, rows, in_words):
    """One of the 40 attributes (-1 or 1 in the list) of these rows; its values are called 0 and 1, or words.

    -> Attribute
    """
    words = name.replace("_", " ").lower()
    names = ("female", "male") if name == "Male" else (f"not {words}", words)
    names = names if in_words else ("0", "1")
    return Attribute((listed.values[rows, listed.columns.index(name)] == 1).astype(np.int64), names)


def balance(target, protected, is_test, seed):
    """Equally many test images of each cell; training images as they stand. is_test: (N,) bool -> Split"""
    if is_test.any():
        train, pool, notes = slice(0, int((~is_test).sum())), np.flatnonzero(is_test), ()
    else:
        everything = np.arange(len(is_test))
        members = cell_members(target, protected, everything)
        pool = np.concatenate(draw_from_cells(members, [len(cell) // HELD_OUT for cell in members], seed))
        train = np.setdiff1d(everything, pool)
        notes = (f"the partition lists no test images: one in {HELD_OUT} training images of every cell is held out",)
    members = cell_members(target, protected, pool)
    smallest = min(map(len, members))
    return Split(train, np.concatenate(draw_from_cells(members, [smallest] * len(members), seed)), notes)
