"""Classes and groups from the columns of a table: values as they stand, or numbers cut into ranges.

    Male            every value of the column
    Male,Young      every combination of the values of two columns
    age:20,40       under 20, 20 to 39, 40 and over; numbers after a colon are cuts
"""

import math
import re
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

from fairdd.core.errors import UserError
from fairdd.datasets.custom.table import ImageTable
from fairdd.datasets.files import preview
from fairdd.datasets.splits import Attribute, check_distinct, cross

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
DEFAULTS = ("class", "group")     # target and protected attribute


class ColumnChoice(NamedTuple):
    """A column to take as class or group, and where to cut its numbers (no cuts: its values as they stand)."""

    name: str
    cuts: tuple[float, ...] = ()


def select_attributes(table: ImageTable, request) -> tuple[Attribute, Attribute]:
    """Return the target and the protected attribute that the request names, one value per image."""
    target, protected = (match_columns(table, default if text is None else str(text)) for text, default in zip(
        (request.target_attr, request.protected_attr), DEFAULTS, strict=True))
    check_distinct(table.title, *([choice.name for choice in choices] for choices in (target, protected)))
    return combine_columns(table, target, "classes"), combine_columns(table, protected, "groups")


def parse_columns(text: str) -> list[ColumnChoice]:
    """Parse "age:20,40,gender" into [("age", (20.0, 40.0)), ("gender", ())]."""
    choices = []
    for item in text.split(","):
        name, colon, cut = item.rpartition(":")
        if choices and choices[-1].cuts and parse_number(item) is not None:
            choices[-1] = ColumnChoice(choices[-1].name, (*choices[-1].cuts, parse_number(item)))
        elif colon and parse_number(cut) is not None:
            choices.append(ColumnChoice(name.strip(), (parse_number(cut),)))
        else:
            choices.append(ColumnChoice(item.strip()))
    return choices


def parse_number(text: str) -> float | None:
    """Return the finite number that the text spells in plain decimal notation, or None."""
    value = float(text) if NUMBER.fullmatch(text.strip()) else math.inf
    return value if math.isfinite(value) else None


def match_columns(table: ImageTable, text: str) -> list[ColumnChoice]:
    """Return the columns that the text names, spelled as in the table. Case matters only between columns that differ
    in nothing else. Raises UserError for an unknown column."""
    choices, columns = [], list(table.data.columns)
    for name, cuts in parse_columns(text):
        matches = [name] if name in columns else [column for column in columns if column.lower() == name.lower()]
        if len(matches) != 1:
            raise UserError(f"{table.title} has no column {name!r} to take as class or group; its columns: "
                            f"{', '.join(columns) or 'none'} (--target_attr and --protected_attr choose among them)")
        choices.append(ColumnChoice(matches[0], cuts))
    return choices


def combine_columns(table: ImageTable, choices: list[ColumnChoice], kind: str) -> Attribute:
    """Return the attribute whose values are those of a column, or all combinations of several columns.

    kind: "classes" or "groups", for messages. Raises UserError if there are fewer than two images per value.
    """
    attributes = {name: range_attribute(table, name, cuts) if cuts else value_attribute(table, name)
                  for name, cuts in choices}
    count = math.prod(len(attribute.names) for attribute in attributes.values())
    if 2 * count > len(table):
        raise UserError(f"{','.join(attributes)} gives {count} {kind} for {len(table)} images, fewer than two images "
                        "each; cut numbers into ranges (age:20,40) or choose other columns")
    return cross(attributes)


def value_attribute(table: ImageTable, name: str) -> Attribute:
    """Return a column as attribute, one value per distinct string: numbers in numeric order, then other strings."""
    column = require_values(table, name)
    names = sorted(column.unique(), key=lambda text: (parse_number(text) is None, parse_number(text) or 0, text))
    if len(names) == 1:
        raise UserError(f"{table.title}: {name} is {names[0]!r} for every image; choose a column with several values")
    return Attribute(pd.Categorical(column, names).codes.astype(np.int64), tuple(names))


def range_attribute(table: ImageTable, name: str, cuts: tuple[float, ...]) -> Attribute:
    """Return a column of numbers as attribute, one value per range; a cut belongs to the range above it."""
    if any(low >= high for low, high in pairwise(cuts)):
        raise UserError(f"the cuts of {name} must increase: {', '.join(map(format_number, cuts))}")
    column = require_values(table, name)
    numbers = column.map(parse_number).to_numpy(float)      # None becomes NaN
    if np.isnan(numbers).any():
        position = np.isnan(numbers).argmax()
        raise table.row_error(position, f"{name} is {column.iloc[position]!r}, not a number, so it cannot be cut")
    names = range_names(cuts, integers=all(value.is_integer() for value in (*numbers, *cuts)))
    codes = np.digitize(numbers, cuts).astype(np.int64)
    empty = [names[code] for code in np.flatnonzero(np.bincount(codes, minlength=len(names)) == 0)]
    if empty:
        raise UserError(f"{table.title}: no image has {name} {preview(empty)}; choose other cuts")
    return Attribute(codes, names)


def range_names(cuts: tuple[float, ...], integers: bool) -> tuple[str, ...]:
    """Return the names of the len(cuts) + 1 ranges; ranges of integers are named by their first and last."""
    inner = []
    for low, high in pairwise(cuts):
        end = format_number(high - 1) if integers else f"under {format_number(high)}"
        inner.append(format_number(low) if integers and high == low + 1 else f"{format_number(low)} to {end}")
    return (f"under {format_number(cuts[0])}", *inner, f"{format_number(cuts[-1])} and over")


def format_number(value: float) -> str:
    """Return 20 for 20.0, and 39.5 for 39.5."""
    return repr(value).removesuffix(".0")


def require_values(table: ImageTable, name: str) -> pd.Series:
    """Return a column. Raises UserError if a cell is empty."""
    column = table.data[name]
    empty = column.index[column == ""]
    if len(empty):
        raise UserError(f"{table.title}: {len(empty)} images have no {name}: {preview(empty)}; fill in these cells or "
                        "remove the rows")
    return column
