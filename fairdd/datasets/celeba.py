"""CelebA: 202,599 faces with 40 binary attributes; any two may be class and group (Attractive and Male by default).

Liu, Luo, Wang, Tang: Deep Learning Face Attributes in the Wild, ICCV 2015. Only the images, the attribute list and the
partition list are read: as published, from Kaggle, or from WILDS. Training images come first in the cache, so they are
a slice of it and never copied.
"""

import io
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from fairdd.core.errors import UserError
from fairdd.datasets import splits
from fairdd.datasets.base import Dataset, GroupedImages
from fairdd.datasets.files import SUFFIXES, candidate_folders, dataset_not_found, download, find_entries, preview
from fairdd.datasets.image_cache import load_images

FOLDERS = r"celeba([-_. ].*)?|archive"
FILES = {"img_align_celeba": (r"img_align_celeba(_png)?",),
         "list_attr_celeba.txt": (r"list_attr_celeba\.txt", r"list_attr_celeba\.csv"),
         "list_eval_partition.txt": (r"list_eval_partition\.txt", r"list_eval_partition\.csv")}
TREE = "img_align_celeba/*.jpg, list_attr_celeba.txt and list_eval_partition.txt (or the two lists as .csv)"
LINK = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (aligned and cropped images)"
NORMALIZATION = (0.5063, 0.4258, 0.3832), (0.2676, 0.2453, 0.2410)
TRAIN, VALIDATION, TEST = 0, 1, 2       # in the partition list
HELD_OUT = 5                            # one in five, if the partition list has no test images


def load_celeba(request) -> Dataset:
    """Load CelebA at 64 pixels: the official training images; equally many test images of each cell.

    The official validation images are read only if they are asked for.
    """
    images, attribute_list, partition_list = find_files(request.data_path)
    table = read_list(attribute_list)
    chosen = splits.choose_attributes(request, ("Attractive", "Male"), tuple(table.columns))
    partition = read_partition(partition_list, table.index)
    order = np.concatenate([np.flatnonzero(partition == TRAIN), np.flatnonzero(partition == TEST)])
    loaded = load_images(image_paths(images, table.index[order]), request.im_size or 64, request, square=True)
    rows = order[loaded.kept]
    target, protected = choose_values(table, rows, chosen)
    split = split_images(target, protected, partition[rows] == TEST, request)
    train, test = (splits.select_images(loaded.images, index, target, protected, NORMALIZATION)
                   for index in (split.train, split.test))
    val = load_validation(images, table, partition, chosen, request) if request.read_validation else None
    return Dataset(request.name, train, test, loaded.notes + split.notes, val=val,
                   train_paths=tuple(table.index[rows][split.train]))


def load_validation(images: Path, table: pd.DataFrame, partition: np.ndarray, chosen: tuple,
                    request) -> GroupedImages | None:
    """Return the official validation images, or None if the partition list has none. They have their own cache."""
    rows = np.flatnonzero(partition == VALIDATION)
    if not len(rows):
        return None
    loaded = load_images(image_paths(images, table.index[rows]), request.im_size or 64, request, square=True)
    attributes = choose_values(table, rows[loaded.kept], chosen)
    return splits.select_images(loaded.images, slice(None), *attributes, NORMALIZATION)


def choose_values(table: pd.DataFrame, rows: np.ndarray, chosen: tuple) -> tuple[splits.Attribute, splits.Attribute]:
    """Return the target and the protected attribute of the images at rows. chosen: the names of each"""
    target, protected = (splits.cross({name: binary_attribute(table[name].to_numpy()[rows], name, len(names) > 1)
                                       for name in names}) for names in chosen)
    return target, protected


def find_files(root: Path) -> list[Path]:
    """Return the image folder, the attribute list and the partition list; download if all are absent."""
    if not any(map(locate_files, candidate_folders(root, FOLDERS))):
        download("CelebA", root, [root / "CelebA"], TREE, LINK)
    paths = max(map(locate_files, candidate_folders(root, FOLDERS)), key=len)
    if len(paths) < len(FILES):
        absent = ", ".join(name for name in FILES if name not in paths)
        present = ", ".join(map(str, paths.values()))
        raise dataset_not_found("CelebA", [root / "CelebA"], TREE, LINK, f"no {absent} beside {present}")
    return list(paths.values())


def locate_files(folder: Path) -> dict[str, Path]:
    """Return those of the FILES that a folder holds, by name."""
    inside, paths = [folder, *find_entries([folder], "anno|eval|img")], {}
    for name, patterns in FILES.items():
        for path in [path for pattern in patterns for path in find_entries(inside, pattern)][:1]:
            nested = path / path.name           # as in Kaggle's copy
            paths[name] = nested if nested.is_dir() else path
    return paths


def image_paths(folder: Path, names: pd.Index) -> list[Path]:
    """Return the paths of the listed images; a listed .jpg may be a .png. Raises UserError if there is none at all."""
    files = sorted(os.listdir(folder))
    exact, by_stem = set(files), {os.path.splitext(file)[0]: file for file in files if file.lower().endswith(SUFFIXES)}
    paths = [name if name in exact else by_stem.get(os.path.splitext(name)[0], name) for name in names]
    if exact.isdisjoint(paths):
        raise UserError(f"{folder} holds none of the {len(names)} listed images ({preview(names)}) but {len(files)} "
                        f"other files ({preview(files)})")
    return [folder / path for path in paths]


def read_list(path: Path) -> pd.DataFrame:
    """Read a list of CelebA: rows of a file name and integers, under a row of column names. Raises UserError.

    A CSV may have row numbers before the names, a byte order mark, semicolons or tabs, and numbers written as 1.0 or
    True. -> integers, indexed by file name
    """
    lines = [line.strip() for line in path.read_text("utf-8-sig", "replace").splitlines() if line.strip()]
    first, separator, column = find_first_row(path, lines)
    try:
        table = pd.read_csv(io.StringIO("\n".join(lines[first:])), sep=separator, header=None, low_memory=False)
        table = table.set_index(table[column].astype(str)).iloc[:, column + 1 :].astype(np.float64)
        if not (table % 1 == 0).all(axis=None):
            raise ValueError("a number is missing, or is not an integer")
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    header = [name.strip(' "') for name in re.split(separator, lines[first - 1])] if first else []
    header = header[column + 1 :] if len(header) == column + 1 + table.shape[1] else header
    if not table.shape[1] or len(header) not in (0, table.shape[1]):
        raise UserError(f"{path} is damaged: {len(header)} column names above {table.shape[1]} numbers a row")
    names = table.index
    for problem, wrong in (("twice", names.duplicated()), ("outside the image folder", names.str.contains(r"[/\\]"))):
        if wrong.any():
            raise UserError(f"{path} lists files {problem}: {preview(names[wrong])}")
    return table.astype(np.int64).set_axis(header or map(str, range(table.shape[1])), axis=1)


def find_first_row(path: Path, lines: list[str]) -> tuple[int, str, int]:
    """Find the first line that lists an image. -> its number, the pattern between its fields, the column of the name"""
    for number, line in enumerate(lines):
        for separator in (",", ";", "\t", r"\s+"):
            for column, field in enumerate(re.split(separator, line)[:2]):
                if field.strip(' "').lower().endswith(SUFFIXES):
                    return number, separator, column
    raise UserError(f"{path} lists no images")


def read_partition(path: Path, names: pd.Index) -> np.ndarray:
    """Return the split (TRAIN, VALIDATION or TEST) of every named image, from the partition list. -> (N,) int64"""
    partition = read_list(path).iloc[:, 0]
    absent = names.difference(partition.index)
    if len(absent):
        raise UserError(f"{path} lacks {len(absent)} images of the attribute list: {preview(absent)}")
    if not partition.isin((TRAIN, VALIDATION, TEST)).all():
        values = preview(map(str, sorted(set(partition))[::-1]))
        raise UserError(f"{path}: expected 0 (training), 1 (validation) and 2 (test), but there is {values}")
    return partition[names].to_numpy()


def binary_attribute(values: np.ndarray, name: str, is_crossed: bool) -> splits.Attribute:
    """Return an attribute given as -1 and 1, or 0 and 1. The values of a crossed attribute are called 0 and 1."""
    if not (set(values) <= {-1, 1} or set(values) <= {0, 1}):
        raise UserError(f"attribute {name}: expected -1 and 1, or 0 and 1, not {preview(map(str, set(values)))}")
    text = name.replace("_", " ").lower()
    names = ("0", "1") if is_crossed else ("female", "male") if name == "Male" else (f"not {text}", text)
    return splits.Attribute((values == 1).astype(np.int64), names)


def split_images(target: splits.Attribute, protected: splits.Attribute, is_test: np.ndarray, request) -> splits.Split:
    """Draw equally many test images of every tested cell. is_test: (N,) bool, after all training images

    If no image is marked as test, a fifth of the smallest tested cell, and as many of the others, are held out.
    """
    is_drawn = not is_test.any()
    members = splits.cell_members(target, protected, np.arange(len(is_test)) if is_drawn else np.flatnonzero(is_test))
    available = [len(cell) // HELD_OUT if is_drawn else len(cell) for cell in members]
    names = splits.cell_names(target, protected, members)
    test, notes = splits.draw_test(members, available, request.data_seed, request.rare_cells, names)
    if not is_drawn:
        return splits.Split(slice(0, int((~is_test).sum())), test, notes)
    note = f"the partition lists no test images: {len(test)} images are held out, equally many of every tested cell"
    return splits.Split(np.setdiff1d(np.arange(len(is_test)), test), test, (note, *notes))
