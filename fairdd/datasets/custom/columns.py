"""Columns of a table as class or group: words as they stand, numbers as they stand or cut into ranges.

    Male            the words of the column
    Male,Young      every combination of two columns
    age:20,40       under 20, 20 to 39, 40 and over; numbers after a colon belong to the cut
"""

import math
import re
from itertools import pairwise

import numpy as np

from fairdd.core.errors import UserError
from fairdd.datasets.files import preview
from fairdd.datasets.splits import Attribute, check_distinct, cross

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
DEFAULTS = ("class", "group")


def read_attributes(table, request):
    """The target and the protected attribute asked for. -> two Attributes of the table's images"""
    asked = (request.target_attr, request.protected_attr)
    target, protected = (find_columns(table, split_words(default if text is None else str(text)))
                         for text, default in zip(asked, DEFAULTS, strict=True))
    check_distinct(table.title, *([name for name, _ in chosen] for chosen in (target, protected)))
    return combine(table, target, "classes"), combine(table, protected, "groups")


def split_words(text):
    """What is asked for, in its parts: age:20,40,gender -> [("age", (20.0, 40.0)), ("gender", ())]"""
    found = []
    for word in text.split(","):
        name, colon, cut = word.rpartition(":")
        if found and found[-1][1] and number(word) is not None:
            found[-1] = (found[-1][0], (*found[-1][1], number(word)))
        elif colon and number(cut) is not None:
            found.append((name.strip(), (number(cut),)))
        else:
            found.append((word.strip(), ()))
    return found


def number(text):
    """A number in plain decimal spelling, or None."""
    value = float(text) if NUMBER.fullmatch(text.strip()) else math.inf
    return value if math.isfinite(value) else None


def find_columns(table, asked):
    """The same (name, cuts), each name spelled as in the table; its case does not matter where one column is meant."""
    lower = {}
    for name in table.columns:
        lower.setdefault(name.lower(), []).append(name)
    found = []
    for word, cuts in asked:
        names = [word] if word in table.columns else lower.get(word.lower(), [])
        if len(names) != 1:
            raise UserError(f"{table.title} has no column {word!r} to take as class or group; its columns: "
                            f"{', '.join(table.columns) or 'none'} (--target_attr, --protected_attr choose among them)")
        found.append((names[0], cuts))
    return found


def combine(table, chosen, what):
    """One column, or all combinations of several, as classes or groups. chosen: list of (name, cuts) -> Attribute"""
    attributes = {name: cut(table, name, cuts) if cuts else words(table, name) for name, cuts in chosen}
    count = math.prod(len(attribute.names) for attribute in attributes.values())
    if 2 * count > len(table.rows):
        raise UserError(f"{','.join(attributes)} makes {count} {what} of {len(table.rows)} images, fewer than two for "
                        "each; cut numbers into ranges (age:20,40) or choose other columns")
    return cross(attributes)


def words(table, name):
    """A column whose every different value is a class or group, numbers in their order. -> Attribute"""
    values = filled(table, name)
    names = sorted(set(values), key=lambda word: (number(word) is None, number(word) or 0, word))
    if len(names) == 1:
        raise UserError(f"{table.title}: {name} is {names[0]!r} for every image, so it tells nothing apart")
    place = {word: k for k, word in enumerate(names)}
    return Attribute(np.array([place[word] for word in values], np.int64), tuple(names))


def cut(table, name, cuts):
    """A column of numbers in ranges: a cut belongs to the range above it. cuts: numbers -> Attribute"""
    if any(low >= high for low, high in pairwise(cuts)):
        raise UserError(f"the cuts of {name} must rise: {', '.join(map(spell, cuts))}")
    values = [number(word) for word in filled(table, name)]
    if None in values:
        place = values.index(None)
        raise table.error(place, f"{name} is {table.columns[name][place]!r}, not a number, so it cannot be cut")
    names = range_names(cuts, whole=all(value.is_integer() for value in (*values, *cuts)))
    ranges = np.digitize(values, cuts)
    empty = [names[k] for k in np.flatnonzero(np.bincount(ranges, minlength=len(names)) == 0)]
    if empty:
        raise UserError(f"{table.title}: no image has {name} {preview(empty)}; cut elsewhere")
    return Attribute(ranges.astype(np.int64), names)


def range_names(cuts, whole):
    """What the ranges are called; of whole numbers the last one inside is named. -> len(cuts) + 1 names"""
    last = (lambda high: spell(high - 1)) if whole else (lambda high: f"under {spell(high)}")
    between = (spell(low) if whole and high == low + 1 else f"{spell(low)} to {last(high)}"
               for low, high in pairwise(cuts))
    return (f"under {spell(cuts[0])}", *between, f"{spell(cuts[-1])} and over")


def spell(value):
    """A number as a reader writes it: 20, not 20.0."""
    return repr(value).removesuffix(".0")


def filled(table, name):
    """The values of a column. Refuses empty ones."""
    values = table.columns[name]
    empty = [table.rows[place] for place, value in enumerate(values) if not value]
    if empty:
        raise UserError(f"{table.title}: {len(empty)} images have no {name}: {preview(empty)}; fill it in or take them out")
    return values
