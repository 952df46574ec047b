"""Attributes chosen by name and crossed into cells (class, group); test images drawn cell by cell."""

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fairdd.core.errors import UserError
from fairdd.datasets.base import GroupedImages

TEST_PER_CELL = 100     # in a drawn test, unless the smallest cell has too few images
HELD_OUT = 5            # one in five, where a published partition has no test images


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


def draw_from_cells(members: Sequence[np.ndarray], counts: Sequence[int], seed: int) -> list[np.ndarray]:
    """Draw counts[k] members of the k-th cell, without replacement. -> one array per cell"""
    generator = random.Random(seed)
    return [np.array(generator.sample(cell.tolist(), count), np.int64)
            for cell, count in zip(members, counts, strict=True)]


def hold_out_test(members: Sequence[np.ndarray], seed: int) -> Split:
    """Draw equally many test images of every cell; the rest trains, cell after cell. Raises UserError."""
    smallest = min(map(len, members))
    per_cell = TEST_PER_CELL if smallest > TEST_PER_CELL else smallest // 2
    if per_cell == 0:
        raise UserError("a class has only one image of a group: it cannot both train and test; choose other attributes")
    test = draw_from_cells(members, [per_cell] * len(members), seed)
    train = [np.setdiff1d(cell, drawn) for cell, drawn in zip(members, test, strict=True)]
    note = f"the smallest cell has {smallest} images: the test takes {per_cell} of each cell, not {TEST_PER_CELL}"
    return Split(np.concatenate(train), np.concatenate(test), () if per_cell == TEST_PER_CELL else (note,))


def balance_test(target: Attribute, protected: Attribute, is_test: np.ndarray, seed: int) -> Split:
    """Draw equally many test images of each cell; all others train. is_test: (N,) bool, after the training images

    Where no image is marked as test, one in five of every cell is held out first.
    """
    everything = np.arange(len(is_test))
    if is_test.any():
        train, pool, notes = slice(0, int((~is_test).sum())), np.flatnonzero(is_test), ()
    else:
        members = cell_members(target, protected, everything)
        pool = np.concatenate(draw_from_cells(members, [len(cell) // HELD_OUT for cell in members], seed))
        train = np.setdiff1d(everything, pool)
        notes = (f"the partition lists no test images: one in {HELD_OUT} training images of every cell is held out",)
    members = cell_members(target, protected, pool)
    smallest = min(map(len, members))
    return Split(train, np.concatenate(draw_from_cells(members, [smallest] * len(members), seed)), notes)


def select_images(images: Tensor, index: slice | np.ndarray, target: Attribute, protected: Attribute,
                  normalization: tuple) -> GroupedImages:
    """Return the images at index, with their classes and groups. normalization: mean and std"""
    rows = index if isinstance(index, slice) else torch.from_numpy(index)
    return GroupedImages(images[rows], torch.from_numpy(target.values[index]),
                         torch.from_numpy(protected.values[index]), target.names, protected.names, *normalization,
                         protected.components)
