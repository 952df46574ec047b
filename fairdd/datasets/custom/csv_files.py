"""Read the table of a user's images from CSV files: one with all images, or one for each of train, val and test.

Nothing is repaired silently: input that is not plainly a table is refused, and the message names the row.
"""

import csv
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from fairdd.core.errors import UserError
from fairdd.datasets.custom.paths import ImageFinder, find_path_column
from fairdd.datasets.custom.split import apply_split_column, split_in_name, splits_of_files
from fairdd.datasets.custom.table import ImageTable
from fairdd.datasets.files import preview

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
SEPARATOR_LINE = re.compile(r"sep=(.)\s*")      # Excel's first line


def read_csv_files(files: list[Path], finder: ImageFinder, request) -> ImageTable:
    """Return the table of one CSV, or of several that hold a split each; their images lie below the finder's root."""
    frames, notes = zip(*map(read_csv, files), strict=True)
    title = ", ".join(map(str, files))
    data, splits = frames[0], None
    if len(files) > 1:
        names = splits_of_files([file.name for file in files])
        data = pd.concat([frame.set_axis([f"{file.name} {row}" for row in frame.index])
                          for file, frame in zip(files, frames, strict=True)], join="inner")
        splits = np.repeat(np.array(names, object), [len(frame) for frame in frames])
        roles = [f"{file.name} is {name}" for file, name in zip(files, names, strict=True)]
        notes = (*notes, f"split: {', '.join(roles)}")
    path_name = find_path_column(title, data, finder, request.path_column)
    paths = data.pop(path_name).to_numpy(object)
    notes = (*notes, f"paths in column {path_name!r}", *note_other_files(files))
    return apply_split_column(ImageTable(title, data.drop(columns="", errors="ignore"), paths, splits, notes))


def note_other_files(files: list[Path]) -> tuple[str, ...]:
    """Return a note on files that lie beside a single one and seem to hold its other splits."""
    [file, *others] = files
    if others or split_in_name(file.name) is None:
        return ()
    siblings = sorted(path.name for path in file.parent.glob(f"*{file.suffix}")
                      if path.is_file() and split_in_name(path.name) not in (None, split_in_name(file.name)))
    return tuple(f"{name} is not read (--labels {file.name},{name} reads both)" for name in siblings[:1])


def read_csv(file: Path) -> tuple[pd.DataFrame, str]:
    """Return the columns of a CSV whose first line holds their names, and a note on how it was read."""
    text, encoding = read_text(file)
    separator = SEPARATOR_LINE.match(text)
    first_line = re.sub(r'"[^"]*"', "", text.lstrip().partition("\n")[0])
    delimiter = separator[1] if separator else max(DELIMITERS, key=first_line.count)
    lines = read_lines(file, text, delimiter)
    if separator:
        next(lines)
    _, names = next(lines, ("", []))
    check_names(file, names)
    rows, columns = [], [[] for _ in names]
    for row, fields in lines:
        if len(fields) != len(names):
            raise UserError(f"{file}, {row}: {len(fields)} values under {len(names)} column names")
        rows.append(row)
        for column, field in zip(columns, fields, strict=True):
            column.append(sys.intern(field))    # equal values are one string: a million rows fit into memory
    if not rows:
        raise UserError(f"{file} lists no images: expected a line of column names and a line for each image")
    data = pd.DataFrame(dict(zip(names, columns, strict=True)), rows, dtype=object)
    return data, f"{file}: {len(data)} images, columns separated by {DELIMITERS.get(delimiter, delimiter)}{encoding}"


def check_names(file: Path, names: list[str]) -> None:
    """Raise UserError for two columns of the same name."""
    repeated = {name for name in names if name and names.count(name) > 1}
    if repeated:
        raise UserError(f"{file} has two columns named {preview(sorted(repeated))}: rename either")


def read_text(file: Path) -> tuple[str, str]:
    """Return the text of a file in UTF-8 or Windows' Latin-1, and a note on the encoding if it is the latter."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff", b"PK")):
        raise UserError(f"{file} is not UTF-8 text but UTF-16 or a workbook; save it as CSV in UTF-8")
    for encoding, note in (("utf-8-sig", ""), ("cp1252", ", text read as Latin-1")):
        try:
            return content.decode(encoding), note
        except UnicodeDecodeError:
            continue
    raise UserError(f"{file} is not UTF-8 text; save it as CSV in UTF-8")


def read_lines(file: Path, text: str, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the name ("row 9") and fields of every line that is not empty.

    The csv module reads it, as pandas.read_csv accepts short rows and text after a closing quote.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    previous = csv.field_size_limit(max(len(text), csv.field_size_limit()))
    try:
        for fields in reader:
            if any(fields):
                yield f"row {reader.line_num}", [field.strip() for field in fields]
    except csv.Error as error:
        raise UserError(f"{file}, row {reader.line_num}: {error}") from None
    finally:
        csv.field_size_limit(previous)
