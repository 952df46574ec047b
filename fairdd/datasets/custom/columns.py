"""Classes and groups from the columns of a table: values as they are, or numbers cut into ranges.

    Male            every value of the column
    Male,Young      every combination of the values of two columns
    age:20,40       under 20, 20 to 39, 40 and over; numbers after a colon are cuts
"""

import math
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

from fairdd.core.errors import UserError
from fairdd.datasets.base import UNKNOWN
from fairdd.datasets.custom.gray import PROTECTED
from fairdd.datasets.custom.table import ImageTable, match_column
from fairdd.datasets.custom.values import parse_number
from fairdd.datasets.files import preview
from fairdd.datasets.gray import GROUPS
from fairdd.datasets.splits import Attribute, check_distinct, cross


class ColumnChoice(NamedTuple):
    """A column to take as class or group, and where to cut its numbers (no cuts: its values as they are)."""

    name: str
    cuts: tuple[float, ...] = ()


class ChosenColumns(NamedTuple):
    """The columns that are crossed into classes or into groups, and the column whose values stay on one side of a drawn
    split, if any. protected is empty if --skew draws the groups."""

    target: list[ColumnChoice]
    protected: list[ColumnChoice]
    split_by: str | None = None

    @property
    def categories(self) -> list[str]:
        """The columns whose values are classes or groups as they are."""
        return [name for name, cuts in self.target + self.protected if not cuts]

    @property
    def groups(self) -> list[str]:
        """The columns that are crossed into groups."""
        return [name for name, _ in self.protected]

    @property
    def others(self) -> list[str]:
        """The columns whose numbers are cut, and that of ids."""
        names = [name for name, cuts in self.target + self.protected if cuts]
        return names if self.split_by is None else [*names, self.split_by]


def choose_columns(table: ImageTable, request) -> ChosenColumns:
    """Return the columns that --target_attr and --protected_attr name, by default class and group, and --split_by.

    With --skew the groups are drawn: no column is protected.
    """
    target = match_columns(table, request.target_attr, "class", "--target_attr")
    if request.skew is None:
        protected = match_columns(table, request.protected_attr, "group", "--protected_attr")
    else:
        protected = []
        refuse_column(table, PROTECTED)
    check_distinct(table.title, *([choice.name for choice in choices] for choices in (target, protected)))
    if request.split_by is None:
        return ChosenColumns(target, protected)
    return ChosenColumns(target, protected, match_column(table.title, table.data, request.split_by, "--split_by"))


def match_columns(table: ImageTable, text: str | None, default: str, flag: str) -> list[ColumnChoice]:
    """Return the columns that a flag names, or the default, spelled as in the table."""
    return [ColumnChoice(match_column(table.title, table.data, name, flag), cuts)
            for name, cuts in parse_columns(default if text is None else str(text))]


def refuse_column(table: ImageTable, name: str) -> None:
    """Raise UserError if the table has a column with the name of the attribute that --skew draws."""
    if name in table.data:
        raise UserError(f"{table.title} has a column {name!r}, and --skew draws an attribute of this name: rename the "
                        "column, or take it as it is without --skew")


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


def make_attributes(table: ImageTable, columns: ChosenColumns) -> tuple[Attribute, Attribute]:
    """Return the target and the protected attribute of the table's images; an unknown group has the value UNKNOWN.

    A protected attribute that is drawn is constant.
    """
    target = cross_columns(table, columns.target, "classes")
    if not columns.protected:
        return target, Attribute(np.zeros(len(table), np.int64), (" or ".join(GROUPS),))
    protected = cross_columns(table.with_known_groups(), columns.protected, "groups")
    if table.group_unknown is None:
        return target, protected
    values = np.full(len(table), UNKNOWN)
    values[~table.group_unknown] = protected.values
    return target, replace(protected, values=values)


def cross_columns(table: ImageTable, choices: list[ColumnChoice], kind: str) -> Attribute:
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
    column = table.data[name]
    names = sorted(column.unique(), key=lambda text: (parse_number(text) is None, parse_number(text) or 0, text))
    if len(names) == 1:
        raise UserError(f"{table.title}: {name} is {names[0]!r} for every image; choose a column with several values")
    return Attribute(pd.Categorical(column, names).codes.astype(np.int64), tuple(names))


def range_attribute(table: ImageTable, name: str, cuts: tuple[float, ...]) -> Attribute:
    """Return a column of numbers as attribute, one value per range; a cut belongs to the range above it."""
    if any(low >= high for low, high in pairwise(cuts)):
        raise UserError(f"the cuts of {name} must increase: {', '.join(map(format_number, cuts))}")
    column = table.data[name]
    numbers = column.map(parse_number).to_numpy(float)      # None becomes NaN
    if np.isnan(numbers).any():
        row = np.isnan(numbers).argmax()
        raise table.row_error(row, f"{name} is {column.iloc[row]!r}, not a number, so it cannot be cut")
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
