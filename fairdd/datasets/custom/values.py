"""Clean the values of columns that are classes, groups or ids.

Spellings of an equal value become one value; rows with an unknown value are left out and counted, or train without a
group; a missing value is refused unless the user said what is unknown.
"""

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pandas as pd

from fairdd.core.errors import UserError
from fairdd.datasets.custom.table import ImageTable
from fairdd.datasets.files import preview

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
NO_VALUE = {"", "nan", "<na>", "nat", "null", "#n/a"}       # what programs write for a missing value
MAYBE_UNKNOWN = {"na", "n/a", "none", "unknown", "unk", "undefined", "missing", "?", "-"}
BLANK = "(blank)"

RANGE = re.compile(r"\d+ ?[-–] ?\d+")
MONTHS = {name: month for month, names in enumerate(
    ("jan", "feb", "mar mrz mär", "apr", "may mai", "jun", "jul", "aug", "sep", "oct okt", "nov", "dec dez"), 1)
    for name in names.split()}
MONTH = "|".join(MONTHS)
DATE = re.compile(rf"(\d{{1,2}})[-. ]+({MONTH})|({MONTH})[-. ]+(\d{{1,2}})", re.IGNORECASE)


def parse_number(text: str) -> float | None:
    """Return the finite number that the text spells in plain decimal notation, or None."""
    value = float(text) if NUMBER.fullmatch(text.strip()) else math.inf
    return value if math.isfinite(value) else None


def equality_key(text: str) -> str | Decimal:
    """Return what is the same for all spellings of a value: 1 and 1.0, True and TRUE, nan and a blank."""
    lower = text.lower()
    if lower in NO_VALUE:
        return ""
    number = parse_number(text)
    if number is not None:
        return Decimal(repr(number) if "e" in lower else text)      # exact, however many digits an id has
    return lower if lower in ("true", "false") else text


def unknown_key(text: str) -> str | Decimal:
    """Return the equality key, without case."""
    key = equality_key(text)
    return key.lower() if isinstance(key, str) else key


def clean_values(table: ImageTable, categories: Iterable[str], others: Iterable[str],
                 unknown: tuple[str, ...], groups: Collection[str] = ()) -> ImageTable:
    """Return the table with clean columns, without the rows whose value in one of them is unknown.

    categories: columns whose values are classes or groups as they are; others: columns of numbers to cut, or of ids;
    groups: those of the two whose unknown values leave no training row out: its group is unknown. Raises UserError for
    missing values, and for ranges that a spreadsheet turned into dates.
    """
    categories, others = list(categories), list(others)
    data = table.data.copy()
    for name in [*categories, *others]:
        data[name] = merge_spellings(data[name])
        refuse_dates(table.title, data[name])
    table = drop_unknown(replace(table, data=data), [*categories, *others], unknown, groups)
    if unknown:
        table = name_blanks(table, categories)
    for name in [*categories, *others]:
        refuse_blanks(table.title, known_values(table, name, groups))
    return replace(table, notes=table.notes + tuple(
        f"{name} is {value!r} in {count} images (--unknown={value} leaves them out)"
        for name in categories for value, count in maybe_unknown(known_values(table, name, groups)).items()))


def known_values(table: ImageTable, name: str, groups: Collection[str]) -> pd.Series:
    """Return a column; that of a group without the rows whose group is unknown."""
    return (table.with_known_groups() if name in groups else table).data[name]


def merge_spellings(column: pd.Series) -> pd.Series:
    """Return the column with a single spelling for equal values: the shortest that occurs, "" for a missing value."""
    values = sorted(column.unique(), key=lambda text: (len(text), text), reverse=True)
    spellings = {equality_key(text): text for text in values} | {"": ""}
    return column.map({text: spellings[equality_key(text)] for text in values})


def drop_unknown(table: ImageTable, names: list[str], unknown: tuple[str, ...],
                 groups: Collection[str] = ()) -> ImageTable:
    """Return the rows whose values in the named columns are all known, and count the others by value.

    unknown: values of any of these columns, or of a single one, as race=4; groups: columns whose unknown values make a
    row one of unknown group, which stays unless its split is not train.
    """
    counts, keep, used, group_unknown = [], np.ones(len(table), bool), set(), np.zeros(len(table), bool)
    trains = np.ones(len(table), bool) if table.splits is None else table.splits == "train"
    for name in names:
        column, prefix = table.data[name], f"{name.lower()}="
        given = {unknown_key(text.strip().lower().removeprefix(prefix)): text for text in unknown}
        matches = {text: given[unknown_key(text)] for text in column.unique() if unknown_key(text) in given}
        mask = column.isin(list(matches)).to_numpy()
        used |= set(matches.values())
        if name in groups:
            group_unknown |= mask & trains
            mask = mask & ~trains
        counts += [f"{name} {text or 'blank'} {count}" for text, count in column[mask].value_counts().items()]
        keep &= ~mask
    group_unknown &= keep
    if not (keep & ~group_unknown).any():
        raise UserError(f"{table.title}: every row has an unknown value ({', '.join(counts)})")
    unused = [text for text in unknown if text.strip() and text not in used]
    notes = [f"{(~keep).sum()} rows left out as unknown ({', '.join(counts)})"] if counts else []
    notes += [f"no row has the unknown value {preview(map(repr, unused))}"] if unused else []
    notes += [f"{group_unknown.sum()} rows have an unknown group"] if group_unknown.any() else []
    return replace(table, group_unknown=group_unknown if group_unknown.any() else None).keep(keep, *notes)


def name_blanks(table: ImageTable, names: list[str]) -> ImageTable:
    """Return the table with missing values of the named columns as the value (blank)."""
    data, notes = table.data.copy(), []
    known = np.ones(len(table), bool) if table.group_unknown is None else ~table.group_unknown
    for name in names:
        blank = (data[name] == "") & known
        if blank.any():
            data.loc[blank.to_numpy(), name] = BLANK
            notes.append(f"{name} is blank in {blank.sum()} images: the value {BLANK}")
    return replace(table, data=data, notes=(*table.notes, *notes))


def refuse_blanks(title: str, column: pd.Series) -> None:
    """Raise UserError if values are missing."""
    blank = column.index[column == ""]
    if len(blank):
        raise UserError(f"{title}: {len(blank)} images have no {column.name} (empty or nan): {preview(blank)}; fill in "
                        "these cells, or leave the rows out by --unknown=nan. Any other --unknown, such as -1, keeps "
                        f"them as a class or group called {BLANK}, unless the column is cut or holds ids")


def refuse_dates(title: str, column: pd.Series) -> None:
    """Raise UserError for dates among ranges: spreadsheets read 3-9 as the third of September."""
    values = list(column.unique())
    dates = [text for text in values if DATE.fullmatch(text)]
    if dates and any(RANGE.fullmatch(text) for text in values):
        day, month, other_month, year = DATE.fullmatch(dates[0]).groups()
        numbers = (day, MONTHS[month.lower()]) if month else (MONTHS[other_month.lower()], year)
        raise UserError(f"{title}: {column.name} is {dates[0]!r} in {(column == dates[0]).sum()} images, beside "
                        f"ranges: a spreadsheet turned {int(numbers[0])}-{int(numbers[1])} into a date; restore such "
                        f"values ({preview(dates)}) or use the original file")


def maybe_unknown(column: pd.Series) -> dict[str, int]:
    """Return values that often mean "unknown", with their counts: words such as n/a, and -1 beside 0, 1, 2, ..."""
    counts = column.value_counts()
    numbers = [parse_number(text) for text in counts.index if text != BLANK]
    codes = len(numbers) > 2 and None not in numbers and sum(number < 0 for number in numbers) == 1
    return {text: count for text, count in counts.items()
            if text.lower() in MAYBE_UNKNOWN or (codes and parse_number(text) == -1)}
