"""Training, validation and test images: as the user's files say, or drawn so that nothing leaks into the test.

A drawn split keeps copies of a file on one side, and with --split_by all images of a patient, a person or a lesion.
"""

import hashlib
import random
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from fairdd.core.errors import UserError
from fairdd.datasets.base import UNKNOWN
from fairdd.datasets.custom.table import ImageTable, simplify
from fairdd.datasets.custom.values import equality_key
from fairdd.datasets.files import preview
from fairdd.datasets.splits import Attribute, Split, cell_members, cell_names, choose_tested_cells, hold_out_test

SPLIT_COLUMNS = ("split", "part", "partition")
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test", "eval": "test",
          **dict.fromkeys(("val", "valid", "validation", "dev"), "val")}
CODES = {Decimal(0): "train", Decimal(1): "val", Decimal(2): "test"}    # of Waterbirds, CelebA, WILDS, SubpopBench
ID_NAMES = ("patient", "subject", "person", "identity", "individual", "participant", "donor", "lesion", "specimen",
            "burst", "video", "session", "study", "case")
MAX_IMAGES_PER_ID = 50      # on average; more do not look like a person or a lesion
SAMPLED_BYTES = 64          # of each image, to find files that may be copies


def split_in_name(name: str) -> str | None:
    """Return the split that a file or folder name contains as a word, if it is a single one."""
    splits = {SPLITS[token] for token in re.findall("[a-z]+", name.lower()) if token in SPLITS}
    return splits.pop() if len(splits) == 1 else None


def splits_of_files(names: Sequence[str]) -> list[str]:
    """Return the split that each of two or three files holds: by the words in all names, else in the order train, val,
    test. Raises UserError if the names contradict that order."""
    by_name = [split_in_name(name) for name in names]
    if None not in by_name and len(set(by_name)) == len(names):
        return by_name
    by_order = ["train", "val", "test"] if len(names) == 3 else ["train", "test"]
    if len(names) > 3 or any(split not in (None, expected) for split, expected in zip(by_name, by_order, strict=True)):
        raise UserError(f"--labels {','.join(names)}: which of them are train, val and test? Name the files with these "
                        "words, or list them in this order")
    return by_order


def apply_split_column(table: ImageTable) -> ImageTable:
    """Return the table with the splits of its column split, part or partition, if it has one. Raises UserError if they
    contradict the splits of its files."""
    name = next((name for name in table.data if simplify(name) in SPLIT_COLUMNS), None)
    if name is None:
        return table
    column = table.data[name]
    with_splits = read_split_column(replace(table, data=table.data.drop(columns=name)), column)
    if table.splits is not None and (table.splits != with_splits.splits).any():
        row = (table.splits != with_splits.splits).argmax()
        raise table.row_error(row, f"{name} is {column.iloc[row]!r} in the file of {table.splits[row]}; give one file, "
                                   "or remove that column")
    return with_splits


def read_split_column(table: ImageTable, column: pd.Series) -> ImageTable:
    """Return the table with the splits that a column holds as words, or as the codes 0, 1 and 2."""
    name, keys = column.name, column.str.lower().map(equality_key)
    codes = set(keys)
    if codes == set(CODES):
        note = f"split: 0/1/2 of column {name!r} read as train/val/test"
        return replace(table, splits=keys.map(CODES).to_numpy(object), notes=(*table.notes, note))
    splits = keys.map(SPLITS)
    if len(codes) == 2 and (codes == {"true", "false"} or all(isinstance(code, Decimal) for code in codes)):
        raise UserError(f"{table.title}: column {name!r} holds only {' and '.join(sorted(column.unique()))}: which "
                        "is train, which is test? Write these words instead, or rename the column if it is not a split")
    if splits.isna().any():
        row = splits.isna().argmax()
        raise table.row_error(row, f"{name} is {column.iloc[row]!r}, expected train, val or test (or 0, 1 and 2); "
                                   "rename the column if it is not a split")
    return replace(table, splits=splits.to_numpy(object), notes=(*table.notes, f"split as in column {name!r}"))


def settle_splits(table: ImageTable, names: list[str]) -> ImageTable:
    """Return the table with training and test images. Without test images the validation images are the test.

    names: columns whose values are classes or groups. Validation images with values that occur nowhere else are left
    out. Raises UserError if no image trains or tests.
    """
    if table.splits is None:
        return table
    if "test" not in table.splits and "val" in table.splits:
        note = "split: no image is test, so the validation images are the test"
        table = replace(table, splits=np.where(table.splits == "val", "test", table.splits), notes=(*table.notes, note))
    for split in ("train", "test"):
        if split not in table.splits:
            raise UserError(f"{table.title}: by its split no image is {split}")
    is_val = table.splits == "val"
    is_new = np.zeros(len(table), bool)
    for name in names:
        is_new |= is_val & ~table.data[name].isin(table.data[name][~is_val]).to_numpy()
    note = f"{is_new.sum()} validation images with a class or group that no other image has are left out"
    return table.keep(~is_new, note) if is_new.any() else table


def check_cells(table: ImageTable, target: Attribute, protected: Attribute, split_by: str | None, rare: str) -> None:
    """Raise UserError, before any image is decoded, if the only image of a cell would have to train and test."""
    if table.splits is not None:
        return
    members, names = cells_of_units(target, protected, unit_numbers(table, split_by))
    tested, _ = choose_tested_cells(members, [len(cell) // 2 for cell in members], rare, names)
    single = preview(f"({', '.join(names[k])})" for k in tested if len(members[k]) == 1)
    if single:
        raise UserError(f"{table.title}: only one {split_by or 'image'} has (class, group) {single}, so it cannot both "
                        "train and test; remove such images, choose other columns or cuts, or add a column split")


def unit_numbers(table: ImageTable, split_by: str | None) -> np.ndarray:
    """Return a number per image, equal for images that must stay together. -> (N,) int64"""
    return np.arange(len(table)) if split_by is None else pd.factorize(table.data[split_by])[0]


def cell_numbers(target: Attribute, protected: Attribute) -> np.ndarray:
    """Return the number of each image's cell (class, group). -> (N,) int64"""
    return target.values * len(protected.names) + protected.values


def cells_of_units(target: Attribute, protected: Attribute,
                   units: np.ndarray) -> tuple[list[np.ndarray], list[tuple[str, str]]]:
    """Return the images of each cell, only one where all are of the same unit, and the (class, group) of each cell."""
    members = cell_members(target, protected, np.arange(len(units)))
    names = cell_names(target, protected, members)
    return [cell[:1] if (units[cell] == units[cell[0]]).all() else cell for cell in members], names


def make_split(table: ImageTable, target: Attribute, protected: Attribute, copies: np.ndarray, split_by: str | None,
               request) -> Split:
    """Return the given split, or one drawn from units: copies stay together, and the images of one split_by value.

    Images of unknown group train, except for those of a unit that is in the test.
    """
    units = unit_numbers(table, split_by)
    if table.splits is not None:
        split = Split(np.flatnonzero(table.splits == "train"), np.flatnonzero(table.splits == "test"))
        return replace(split, notes=check_given_split(table, split, copies, units, split_by))
    units = join_units(units, copies)
    members, names = cells_of_units(target, protected, units)
    try:
        drawn = hold_out_test(members, request.data_seed, request.rare_cells, names)
    except UserError as error:
        raise UserError("; ".join([str(error), *describe_copies(copies, target, protected)])) from None
    known = np.flatnonzero(protected.values != UNKNOWN)
    test = known[keep_units_together(np.searchsorted(known, drawn.test), cell_numbers(target, protected)[known],
                                     units[known], request.data_seed)]
    cells = cell_members(target, protected, np.arange(len(table)))
    unknown = np.flatnonzero((protected.values == UNKNOWN) & ~np.isin(units, units[test]))
    train = np.concatenate([*(np.setdiff1d(cell, test) for cell in cells), unknown])
    notes = [f"no split is given: it is drawn with --data_seed {request.data_seed} and written to split.csv of the run"]
    if split_by:
        counts = np.unique(cell_numbers(target, protected)[test], return_counts=True)[1]
        notes.append(f"all images of a {split_by} are on one side of the split; the test has {counts.min()} to "
                     f"{counts.max()} images of each cell")
    return Split(train, test, (*notes, *drawn.notes, *describe_copies(copies, target, protected),
                               *(() if split_by else warn_of_ids(table))))


def keep_units_together(drawn: np.ndarray, cells: np.ndarray, units: np.ndarray, seed: int) -> np.ndarray:
    """Return test images that are whole units: those of the drawn images, then others in random order.

    A unit joins the test while one of its cells lacks test images, if all of its cells are tested and keep half of
    their images, or as many as the drawn test leaves, for training. Where that leaves a cell untested, any unit joins
    that does not take all images of a cell. Raises UserError if there is none.
    """
    if len(np.unique(units)) == len(units):
        return drawn
    total, wanted = np.bincount(cells), np.bincount(cells[drawn], minlength=cells.max() + 1)
    rows_of_units = pd.Series(units).groupby(units).indices
    order = list(dict.fromkeys(units[drawn].tolist()))
    others = np.setdiff1d(units[wanted[cells] > 0], order).tolist()
    random.Random(seed).shuffle(others)
    taken, chosen = np.zeros_like(total), []
    for most, lacking in ((np.maximum(total // 2, wanted), wanted), (total - 1, np.minimum(wanted, 1))):
        limit = np.where(wanted > 0, most, 0)
        for unit in order + others:
            if (taken >= lacking).all():
                break
            own_cells, counts = np.unique(cells[rows_of_units[unit]], return_counts=True)
            is_wanted = (taken[own_cells] < lacking[own_cells]).any()
            if is_wanted and (taken[own_cells] + counts <= limit[own_cells]).all():
                taken[own_cells] += counts
                chosen.append(unit)
    if (taken < np.minimum(wanted, 1)).any():
        raise UserError("no split keeps the images of each --split_by value, and copies of a file, on one side and has "
                        "every (class, group) on both; choose other attributes")
    return np.concatenate([rows_of_units[unit] for unit in chosen])


def join_units(units: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """Return numbers that are equal for images connected by equal units or equal copies. -> (N,) int64"""
    if len(np.unique(copies)) == len(copies):
        return units
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = max(units.max(), copies.max()) + 1
    graph = coo_array((np.ones(len(units)), (units, size + copies)), shape=(2 * size, 2 * size))
    return connected_components(graph, directed=False)[1][units].astype(np.int64)


def check_given_split(table: ImageTable, split: Split, copies: np.ndarray, ids: np.ndarray,
                      split_by: str | None) -> tuple[str, ...]:
    """Return a warning of copies of training images in the test. Raises UserError if an id is on both sides."""
    crossing = np.isin(ids[split.test], ids[split.train])
    if crossing.any():
        value = table.data[split_by].iloc[split.test[crossing.argmax()]]
        raise UserError(f"{table.title}: its split has images of {split_by} {value!r} on both sides; remove "
                        "--split_by, or remove the split to have one drawn")
    count = np.isin(copies[split.test], copies[split.train]).sum()
    return (f"warning: {count} test images are copies of training images (same bytes)",) if count else ()


def find_copies(images: torch.Tensor, files: Sequence[Path]) -> np.ndarray:
    """Return a number per file, equal for files with the same bytes. -> (N,) int64

    images: (N, C, H, W) uint8, their pixels; only files with equal pixels are read.
    """
    pixels = images.flatten(1)
    sample = pixels[:, :: max(1, pixels.shape[1] // SAMPLED_BYTES)].numpy()
    keys = [row.tobytes() for row in sample]
    for row in np.flatnonzero(pd.Series(keys).duplicated(keep=False)):
        with suppress(OSError):     # read before, but no longer: its pixels decide
            keys[row] = hashlib.sha256(files[row].read_bytes()).digest()
    return pd.factorize(np.array(keys, object))[0]


def describe_copies(copies: np.ndarray, target: Attribute, protected: Attribute) -> tuple[str, ...]:
    """Return a note on files that are copies of each other."""
    repeated = pd.Series(copies).duplicated().to_numpy()
    if not repeated.any():
        return ()
    known = protected.values != UNKNOWN
    cells = pd.Series(cell_numbers(target, protected)[known]).groupby(copies[known]).nunique()
    return (f"{repeated.sum()} images are copies of another file (same bytes): copies are on one side of the split"
            + (f"; {(cells > 1).sum()} files have copies with another class or group" if (cells > 1).any() else ""),)


def warn_of_ids(table: ImageTable) -> tuple[str, ...]:
    """Return a warning for columns that look like a patient or another id whose images a drawn split separates."""
    names = [name for name in table.data if simplify(name).startswith(ID_NAMES)
             and 1 < len(table) / table.data[name].nunique() <= MAX_IMAGES_PER_ID]
    if not names:
        return ()
    return (f"warning: several images may show the same {names[0]}: --split_by {names[0]!r} keeps them on one side of "
            "the split; without it the accuracy may be too high",)
