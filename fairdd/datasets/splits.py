"""Target and protected attribute of face images: chosen by name, crossed into cells, drawn from cell by cell."""

import itertools
import random
from dataclasses import dataclass

import numpy as np
import torch

from fairdd.core.errors import UserError
from fairdd.datasets.base import GroupedImages

TEST_PER_CELL = 100     # where there is no official split, unless the smallest cell has too preview


@dataclass(frozen=True, eq=False)
class Attribute:
    """What is known of N images. values: (N,) int64, counted from 0; names: what each value means.

    parts: where it was crossed from several attributes, the (name, value names) of each.
    """

    values: np.ndarray
    names: tuple
    parts: tuple = ()


@dataclass(frozen=True, eq=False)
class Split:
    """train: a slice, or the places of the training images; test: places; notes: what the user should know."""

    train: slice | np.ndarray
    test: np.ndarray
    notes: tuple = ()


def choose_attributes(request, defaults, known):
    """The names of the target and of the protected attribute. -> two lists of names out of known

    Each is given by name or by its number; several joined by a comma count as one (Male,Pale_Skin: four groups).
    """
    given = (request.target_attr, request.protected_attr)
    target, protected = ([find_name(word, known) for word in str(default if text is None else text).split(",")]
                         for text, default in zip(given, defaults, strict=True))
    check_distinct(request.name, target, protected)
    return target, protected


def check_distinct(title, target, protected):
    """No attribute may be asked for twice. target, protected: lists of names"""
    if set(target) & set(protected):
        raise UserError(f"{title}: the target ({','.join(target)}) and the protected attribute "
                        f"({','.join(protected)}) must differ")
    for names in (target, protected):
        if len(set(names)) < len(names):
            raise UserError(f"{title}: {','.join(names)} names an attribute twice")


def find_name(word, known):
    """The known name meant by a word: itself, in any case, or its number."""
    aliases = {name.lower(): name for name in known} | {str(k): name for k, name in enumerate(known)}
    if word.strip().lower() not in aliases:
        numbered = ", ".join(f"{k} {name}" for k, name in enumerate(known))
        raise UserError(f"unknown attribute {word!r}; known: {numbered}")
    return aliases[word.strip().lower()]


def cross(attributes):
    """Several attributes as one whose values are all their combinations, race=White,gender=male; one stays as it is.

    attributes: name -> Attribute
    """
    if len(attributes) == 1:
        return next(iter(attributes.values()))
    parts = tuple((name, attribute.names) for name, attribute in attributes.items())
    values = np.ravel_multi_index([attribute.values for attribute in attributes.values()],
                                  [len(names) for _, names in parts], mode="clip")      # clipped: dropped later
    words = ([f"{name}={value}" for value in names] for name, names in parts)
    return Attribute(values, tuple(map(",".join, itertools.product(*words))), parts)


def cell_members(target, protected, places):
    """Which of places (N,) lie in each cell, class after class; empty cells are left out. -> up to C * G arrays"""
    values = target.values[places], protected.values[places]
    members = [places[(values[0] == c) & (values[1] == g)]
               for c in range(len(target.names)) for g in range(len(protected.names))]
    if not len(places):
        raise UserError("no image has both attributes: nothing to train or test on")
    return [cell for cell in members if len(cell)]


def draw_from_cells(members, counts, seed):
    """counts[k] members of the k-th cell, without replacement. -> one array per cell"""
    generator = random.Random(seed)
    return [np.array(generator.sample(cell.tolist(), count), np.int64)
            for cell, count in zip(members, counts, strict=True)]


def hold_out_test(members, seed):
    """Draw the test from every cell; the rest trains, cell after cell. -> Split"""
    smallest = min(map(len, members))
    per_cell = TEST_PER_CELL if smallest > TEST_PER_CELL else smallest // 2
    if per_cell == 0:
        raise UserError("a class has only one image of a group: it cannot both train and test; choose other attributes")
    test = draw_from_cells(members, [per_cell] * len(members), seed)
    train = [np.setdiff1d(cell, drawn) for cell, drawn in zip(members, test, strict=True)]
    notes = () if per_cell == TEST_PER_CELL else (
        f"the smallest cell has {smallest} images: the test takes {per_cell} of each, not {TEST_PER_CELL}",)
    return Split(np.concatenate(train), np.concatenate(test), notes)


def select_images(images, index, target, protected, scale):
    """The images at index, a slice or an array. scale: mean and std -> GroupedImages"""
    places = index if isinstance(index, slice) else torch.from_numpy(index)
    return GroupedImages(images[places], torch.from_numpy(target.values[index]),
                         torch.from_numpy(protected.values[index]), target.names, protected.names, *scale,
                         protected.parts)
