"""Target and protected attribute of face images: chosen by name, crossed into cells, drawn from cell by cell."""

import random
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch

from fairdd.datasets.grouped import GroupedImages
from fairdd.errors import UserError


@dataclass(frozen=True, eq=False)
class Attribute:
    """What is known of N images. values: (N,) int64, counted from 0; names: what each value means."""

    values: np.ndarray
    names: tuple


@dataclass(frozen=True, eq=False)
class Split:
    """train: a slice, or the places of the training images; test: places; notes: what the user should know."""

    train: slice | np.ndarray
    test: np.ndarray
    notes: tuple = ()


def choose(request, defaults, known):
    """The names of the target and of the protected attribute. -> two lists of names out of known

    Each is given by name or by its number; several joined by a comma count as one (Male,Pale_Skin: four groups).
    """
    given = (request.target_attr, request.protected_attr)
    target, protected = ([find_name(word, known) for word in str(default if text is None else text).split(",")]
                         for text, default in zip(given, defaults, strict=True))
    if set(target) & set(protected):
        raise UserError(f"{request.name}: the target ({','.join(target)}) and the protected attribute "
                        f"({','.join(protected)}) must differ")
    return target, protected


def find_name(word, known):
    """The known name meant by a word: itself, in any case, or its number."""
    aliases = {name.lower(): name for name in known} | {str(k): name for k, name in enumerate(known)}
    if word.strip().lower() not in aliases:
        numbered = ", ".join(f"{k} {name}" for k, name in enumerate(known))
        raise UserError(f"unknown attribute {word!r}; known: {numbered}")
    return aliases[word.strip().lower()]


def cross(attributes):
    """Several attributes as one whose values are all their combinations."""
    return reduce(lambda first, second: Attribute(
        first.values * len(second.names) + second.values,
        tuple(f"{a}, {b}" for a in first.names for b in second.names)), attributes)


def cells(target, protected, places):
    """Which of places (N,) lie in each cell, class after class; empty cells are left out. -> up to C * G arrays"""
    values = target.values[places], protected.values[places]
    members = [places[(values[0] == c) & (values[1] == g)]
               for c in range(len(target.names)) for g in range(len(protected.names))]
    if not len(places):
        raise UserError("no image has both attributes: nothing to train or test on")
    return [cell for cell in members if len(cell)]


def draw(members, counts, seed):
    """counts[k] members of the k-th cell, without replacement. -> one array per cell"""
    generator = random.Random(seed)
    return [np.array(generator.sample(cell.tolist(), count), np.int64)
            for cell, count in zip(members, counts, strict=True)]


def select(images, index, target, protected, scale):
    """The images at index, a slice or an array. scale: mean and std -> GroupedImages"""
    places = index if isinstance(index, slice) else torch.from_numpy(index)
    return GroupedImages(images[places], torch.from_numpy(target.values[index]),
                         torch.from_numpy(protected.values[index]), target.names, protected.names, *scale)
