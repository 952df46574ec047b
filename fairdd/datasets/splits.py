"""Attributes chosen by name and crossed into cells (class, group); test images drawn cell by cell."""

import itertools
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fairdd.core.errors import UserError
from fairdd.datasets.base import GroupedImages
from fairdd.datasets.files import preview

TEST_PER_CELL = 100     # in a drawn test, unless the smallest cell has too few images
MIN_TEST_PER_CELL = 10  # a cell that can test fewer images is rare
RARE_CELLS = ("omit", "refuse", "shrink")


@dataclass(frozen=True, eq=False)
class Attribute:
    """An attribute of N images. values: (N,) int64, starting at 0; names: of the values.

    components: of an attribute crossed from several, the (name, value names) of each.
    """

    values: np.ndarray
    names: tuple[str, ...]
    components: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, eq=False)
class Split:
    """train: the indices of the training images, or a slice; test: indices; notes: sentences for the user."""

    train: slice | np.ndarray
    test: np.ndarray
    notes: tuple[str, ...] = ()


def choose_attributes(request, defaults: tuple[str, str], known: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names, out of known, of the target and of the protected attribute. Raises UserError.

    Each is given by name or by number; several joined by a comma are crossed (Male,Pale_Skin: four groups).
    """
    given = (request.target_attr, request.protected_attr)
    target, protected = ([find_name(text, known) for text in str(default if value is None else value).split(",")]
                         for value, default in zip(given, defaults, strict=True))
    check_distinct(request.name, target, protected)
    return target, protected


def check_distinct(title: str, target: Sequence[str], protected: Sequence[str]) -> None:
    """Raise UserError for an attribute named twice."""
    if set(target) & set(protected):
        raise UserError(f"{title}: the target ({','.join(target)}) and the protected attribute "
                        f"({','.join(protected)}) must differ")
    for names in (target, protected):
        if len(set(names)) < len(names):
            raise UserError(f"{title}: {','.join(names)} names an attribute twice")


def find_name(text: str, known: Sequence[str]) -> str:
    """Return the known name that equals text, in any case, or has that number."""
    aliases = {name.lower(): name for name in known} | {str(k): name for k, name in enumerate(known)}
    if text.strip().lower() not in aliases:
        numbered = ", ".join(f"{k} {name}" for k, name in enumerate(known))
        raise UserError(f"unknown attribute {text!r}; known: {numbered}")
    return aliases[text.strip().lower()]


def cross(attributes: Mapping[str, Attribute]) -> Attribute:
    """Cross named attributes: every combination is a value, race=White,gender=male. A single one stays as it is."""
    if len(attributes) == 1:
        return next(iter(attributes.values()))
    components = tuple((name, attribute.names) for name, attribute in attributes.items())
    values = np.ravel_multi_index([attribute.values for attribute in attributes.values()],
                                  [len(names) for _, names in components], mode="clip")     # clipped: dropped later
    labels = ([f"{name}={value}" for value in names] for name, names in components)
    return Attribute(values, tuple(map(",".join, itertools.product(*labels))), components)


def cell_members(target: Attribute, protected: Attribute, indices: np.ndarray) -> list[np.ndarray]:
    """Return which of the indices (N,) are in each non-empty cell, class after class. -> up to C * G arrays"""
    if not len(indices):
        raise UserError("no image has both attributes: nothing to train or test on")
    labels, groups = target.values[indices], protected.values[indices]
    members = [indices[(labels == c) & (groups == g)]
               for c in range(len(target.names)) for g in range(len(protected.names))]
    return [cell for cell in members if len(cell)]


def cell_names(target: Attribute, protected: Attribute, members: Sequence[np.ndarray]) -> list[tuple[str, str]]:
    """Return the (class, group) of each cell."""
    return [(target.names[target.values[cell[0]]], protected.names[protected.values[cell[0]]]) for cell in members]


def hold_out_test(members: Sequence[np.ndarray], seed: int, rare: str = "omit",
                  names: Sequence[tuple[str, str]] | None = None) -> Split:
    """Hold out 100 test images of every tested cell, or half of the smallest; the rest trains, cell after cell.

    rare, names: as of choose_tested_cells. Raises UserError.
    """
    available = [TEST_PER_CELL if len(cell) > TEST_PER_CELL else len(cell) // 2 for cell in members]
    names = names or [("", f"cell {k}") for k in range(len(members))]
    test, notes = draw_test(members, available, seed, rare, names)
    return Split(np.concatenate([np.setdiff1d(cell, test) for cell in members]), test, notes)


def draw_test(members: Sequence[np.ndarray], available: Sequence[int], seed: int, rare: str,
              names: Sequence[tuple[str, str]]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Draw equally many images of every tested cell: as many as the smallest has available. -> indices, notes"""
    tested, notes = choose_tested_cells(members, available, rare, names)
    count = min(available[k] for k in tested)
    if count == 0:
        raise UserError("too few images of a (class, group) to both train and test; choose other attributes")
    if count < TEST_PER_CELL:
        smallest = min(len(members[k]) for k in tested)
        notes += (f"the smallest tested cell has {smallest} images: the test takes {count} of each tested cell",)
    generator = random.Random(seed)
    return np.concatenate([generator.sample(members[k].tolist(), count) for k in tested]), notes


def choose_tested_cells(members: Sequence[np.ndarray], available: Sequence[int], rare: str,
                        names: Sequence[tuple[str, str]]) -> tuple[list[int], tuple[str, ...]]:
    """Choose the cells that are tested. available: how many images of each cell may test. -> their indices, notes

    A cell is rare if fewer than MIN_TEST_PER_CELL images of it may test. rare: "omit" leaves rare cells out of the test
    unless all cells are rare; "shrink" tests them, and as few images of all others. names: (class, group) of each cell.
    Raises UserError for a rare cell if rare is "refuse", and for a class that is left with fewer than two groups.
    """
    small = [k for k, count in enumerate(available) if count < MIN_TEST_PER_CELL]
    listed = preview(f"({', '.join(names[k])}) has {len(members[k])}" for k in small)
    reason = f"too few images to test {MIN_TEST_PER_CELL} of every (class, group): {listed}"
    if small and rare == "refuse":
        raise UserError(f"{reason}; choose other attributes, or --rare_cells omit or shrink")
    if rare == "shrink" or len(small) in (0, len(available)):
        return list(range(len(available))), ()
    tested = [k for k in range(len(available)) if k not in small]
    groups, tested_groups = Counter(name for name, _ in names), Counter(names[k][0] for k in tested)
    lost = [name for name in groups if tested_groups[name] < min(2, groups[name])]
    if lost:
        raise UserError(f"{reason}; without rare cells, fewer than two groups of {preview(lost)} are tested; choose "
                        "other attributes, or --rare_cells shrink")
    return tested, (f"{reason}; such cells are not tested",)


def select_images(images: Tensor, index: slice | np.ndarray, target: Attribute, protected: Attribute,
                  normalization: tuple) -> GroupedImages:
    """Return the images at index, with their classes and groups. normalization: mean and std"""
    rows = index if isinstance(index, slice) else torch.from_numpy(index)
    return GroupedImages(images[rows], torch.from_numpy(target.values[index]),
                         torch.from_numpy(protected.values[index]), target.names, protected.names, *normalization,
                         protected.components)
