"""CelebA: 202,599 faces with 40 binary attributes; any two may be class and group (Attractive and Male by default).

Liu, Luo, Wang, Tang: Deep Learning Face Attributes in the Wild, ICCV 2015. Only the images, the attribute list and
the partition list are read. Training images come first in the cache, so they are a slice of it and never copied.
"""

import io
from pathlib import Path

import numpy as np
import pandas as pd

from fairdd.core.errors import UserError
from fairdd.datasets.base import Dataset
from fairdd.datasets.files import SUFFIXES, dataset_not_found, download, find_folder, preview
from fairdd.datasets.image_cache import load_images
from fairdd.datasets.splits import (
    Attribute,
    Split,
    cell_members,
    cell_names,
    choose_attributes,
    choose_tested_cells,
    cross,
    draw_equally,
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
HELD_OUT = 5                    # one in five, if the partition list has no test images


def load_celeba(request) -> Dataset:
    """Load CelebA at 64 pixels: the official training images; equally many test images of each cell."""
    images, attribute_list, partition_list = find_files(request.data_path)
    table = read_list(attribute_list)
    chosen = choose_attributes(request, ("Attractive", "Male"), tuple(table.columns))
    partition = read_partition(partition_list, table.index)
    order = np.concatenate([np.flatnonzero(partition == TRAIN), np.flatnonzero(partition == TEST)])
    loaded = load_images([images / name for name in table.index[order]], request.im_size or 64, request, square=True)
    rows = order[loaded.kept]
    target, protected = (cross({name: binary_attribute(table[name].to_numpy()[rows], name, len(names) > 1)
                                for name in names}) for names in chosen)
    split = split_images(target, protected, partition[rows] == TEST, request)
    splits = (select_images(loaded.images, index, target, protected, NORMALIZATION)
              for index in (split.train, split.test))
    return Dataset(request.name, *splits, loaded.notes + split.notes)


def find_files(root: Path) -> list[Path]:
    """Return the paths of the image folder, the attribute list and the partition list; download if all are absent."""
    if find_folder(root, FOLDERS) is None:
        download("CelebA", root, [root / name for name in FOLDERS], TREE, LINK)
    folder = find_folder(root, FOLDERS)
    for names in (IMAGES, ATTRIBUTES, PARTITION):
        if not any((folder / name).exists() for name in names):
            raise dataset_not_found("CelebA", [folder / name for name in names], TREE, LINK)
    return [next(folder / name for name in names if (folder / name).exists())
            for names in (IMAGES, ATTRIBUTES, PARTITION)]


def read_list(path: Path) -> pd.DataFrame:
    """Read a list of CelebA, as published or as CSV: rows of a file name and numbers, under a row of column names.

    -> int8 numbers, indexed by file name. Raises UserError.
    """
    comma = "," if path.suffix == ".csv" else None
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    first = next((k for k, line in enumerate(lines) if line.split(comma, 1)[0].lower().endswith(SUFFIXES)), None)
    if first is None:
        raise UserError(f"{path} lists no images")
    try:
        table = pd.read_csv(io.StringIO("\n".join(lines[first:])), sep=comma or r"\s+", header=None, index_col=0)
        table = table.astype(np.int8)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if not table.shape[1]:
        raise UserError(f"{path} is damaged: no value follows {lines[first]!r}")
    outside = [name for name in table.index if Path(str(name)).name != name]
    if outside:
        raise UserError(f"{path} lists files outside the image folder: {preview(map(str, outside))}")
    header = lines[first - 1].split(comma) if first else []
    return table.set_axis(header[-table.shape[1] :] if header else table.columns, axis=1)


def read_partition(path: Path, names: pd.Index) -> np.ndarray:
    """Return the split (training, validation, test) of every named image, from the partition list. -> (N,) int8"""
    splits = read_list(path).iloc[:, 0]
    absent = names.difference(splits.index)
    if len(absent):
        raise UserError(f"{path} lacks {len(absent)} images of the attribute list: {preview(absent)}")
    return splits[names].to_numpy()


def binary_attribute(values: np.ndarray, name: str, is_crossed: bool) -> Attribute:
    """Return an attribute whose values are -1 and 1; where it is crossed with others they are called 0 and 1."""
    text = name.replace("_", " ").lower()
    names = ("0", "1") if is_crossed else ("female", "male") if name == "Male" else (f"not {text}", text)
    return Attribute((values == 1).astype(np.int64), names)


def split_images(target: Attribute, protected: Attribute, is_test: np.ndarray, request) -> Split:
    """Draw equally many test images of every tested cell. is_test: (N,) bool, after all training images

    If no image is marked as test, a fifth of the smallest tested cell, and as many of the others, are held out.
    """
    is_drawn = not is_test.any()
    members = cell_members(target, protected, np.arange(len(is_test)) if is_drawn else np.flatnonzero(is_test))
    available = [len(cell) // HELD_OUT if is_drawn else len(cell) for cell in members]
    tested, notes = choose_tested_cells(members, available, request.rare_cells,
                                        cell_names(target, protected, members))
    per_cell = min(available[k] for k in tested)
    test = draw_equally([members[k] for k in tested], per_cell, request.data_seed)
    if not is_drawn:
        return Split(slice(0, int((~is_test).sum())), test, notes)
    note = f"the partition lists no test images: {per_cell} images of every tested cell are held out"
    return Split(np.setdiff1d(np.arange(len(is_test)), test), test, (note, *notes))
