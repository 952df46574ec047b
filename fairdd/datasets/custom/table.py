"""Read the table of a user's images, one row per image: from a CSV, or from folders class/group/.

Nothing is repaired silently: input that is not plainly a table is refused, and the message names the row.
"""

import csv
import io
import os
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from fairdd.core.errors import UserError
from fairdd.datasets.files import list_images, preview

PATH_NAMES = ("path", "file", "filename", "filepath", "image", "imagepath", "imagename", "imageid", "img", "imgpath")
SPLIT_NAMES = ("split", "part", "partition")
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test",
          **dict.fromkeys(("val", "valid", "validation"), "val")}
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}


@dataclass(frozen=True, eq=False)
class ImageTable:
    """What is known of N images, one row each.

    title: where the table was read, for messages; data: attribute columns, strings, indexed by the row's name in
    messages; paths: (N,) str, inside the data folder; splits: (N,) "train" or "test", or None if no split is given;
    notes: messages for the user.
    """

    title: str
    data: pd.DataFrame
    paths: np.ndarray
    splits: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def keep(self, rows: np.ndarray, *notes: str) -> "ImageTable":
        """Return the table of these rows, given by ascending positions or a mask; the notes are added to its own."""
        splits = None if self.splits is None else self.splits[rows]
        return replace(self, data=self.data.iloc[rows], paths=self.paths[rows], splits=splits,
                       notes=self.notes + notes)

    def row_error(self, position: int, message: str) -> UserError:
        """Return an error that names the row."""
        return UserError(f"{self.title}, {self.data.index[position]}: {message}")


def read_csv(file: Path, root: Path) -> ImageTable:
    """Return the table of a CSV whose first line holds column names; its images lie in root."""
    delimiter, ((_, names), *lines) = read_lines(file)
    rows, records = zip(*lines, strict=True)
    data = pd.DataFrame(list(records), index=rows, columns=names, dtype=object)
    data = data.loc[:, ~data.columns.duplicated(keep="last")]       # only columns without a name repeat it
    path_name = find_path_column(file, data, root)
    paths = check_paths(file, data.pop(path_name))
    split_name = next((name for name in data if simplify(name) in SPLIT_NAMES), None)
    splits = None if split_name is None else data.pop(split_name).to_numpy()
    note = f"{file}: {len(data)} images, columns separated by {DELIMITERS[delimiter]}, paths in column {path_name!r}"
    table = ImageTable(str(file), data.drop(columns="", errors="ignore"), paths, splits, (note,))
    return table if splits is None else read_splits(table, split_name)


def read_lines(file: Path) -> tuple[str, list[tuple[str, list[str]]]]:
    """Return the delimiter of a CSV, and the name ("row 9") and fields of every line that is not empty.

    The csv module reads it, as pandas.read_csv accepts short rows and text after a closing quote.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is not UTF-8 text; save it as CSV in UTF-8") from None
    delimiter = max(DELIMITERS, key=text.lstrip().partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        lines = [(f"row {reader.line_num}", [field.strip() for field in fields]) for fields in reader]
    except csv.Error as error:
        raise UserError(f"{file}, row {reader.line_num}: {error}") from None
    lines = [(row, fields) for row, fields in lines if any(fields)]
    check_lines(file, lines)
    return delimiter, lines


def check_lines(file: Path, lines: list[tuple[str, list[str]]]) -> None:
    """Refuse lines that are not a table: no images, two columns of the same name, rows of different lengths."""
    if len(lines) < 2:
        raise UserError(f"{file} lists no images: expected a line of column names and a line for each image")
    names = lines[0][1]
    repeated = {name for name in names if name and names.count(name) > 1}
    if repeated:
        raise UserError(f"{file} has two columns named {preview(sorted(repeated))}: rename either")
    for row, fields in lines:
        if len(fields) != len(names):
            raise UserError(f"{file}, {row}: {len(fields)} values under {len(names)} column names")


def simplify(name: str) -> str:
    """Return a column's name without case, spaces, hyphens and underscores."""
    return name.lower().translate(str.maketrans("", "", " -_"))


def find_path_column(file: Path, data: pd.DataFrame, root: Path) -> str:
    """Return the column of paths: a known name, else the first column whose first value is a file in root."""
    simplified = {simplify(name): name for name in reversed(data.columns)}
    names = [simplified[name] for name in PATH_NAMES if name in simplified]
    names += [name for name in data if data[name].iloc[0] and os.path.isfile(root / data[name].iloc[0])]
    if not names:
        raise UserError(f"{file} has no column of paths: none is named {', '.join(PATH_NAMES)}, and in none is the "
                        f"first value a file in {root}; its columns: {', '.join(data)}")
    return names[0]


def check_paths(file: Path, column: pd.Series) -> np.ndarray:
    """Return the paths in one spelling, a/b.jpg. Refuses paths that are empty, leave the folder or are repeated."""
    paths = column.map(PurePosixPath)
    for row, text, path in zip(column.index, column, paths, strict=True):
        if not text or path.is_absolute() or ".." in path.parts:
            raise UserError(f"{file}, {row}: {text!r} is not the path of a file inside the data folder")
    if paths.duplicated().any():
        rows = paths.index[paths == paths[paths.duplicated()].iloc[0]]
        raise UserError(f"{file}, {rows[0]} and {rows[1]}: both name {paths[rows[0]]}")
    return paths.map(str).to_numpy(object)


def read_splits(table: ImageTable, name: str) -> ImageTable:
    """Return the training and test rows, with splits "train" and "test"; validation rows are left out."""
    splits = pd.Series(table.splits).str.lower().map(SPLITS)
    if splits.isna().any():
        position = splits.isna().argmax()
        raise table.row_error(position, f"{name} is {table.splits[position]!r}, expected train or test (val is "
                                        "unused); rename the column if it is not a split")
    unused = (splits == "val").to_numpy()
    notes = [f"the split is that of column {name!r}"]
    if unused.any():
        notes.append(f"{unused.sum()} validation images are unused")
    return replace(table, splits=splits.to_numpy(object)).keep(~unused, *notes)


def read_class_folders(root: Path) -> ImageTable:
    """Return the table of folders class/group/, with the columns class and group; it may be empty."""
    paths = [path.relative_to(root) for path in list_images(root, "*/*/*")]
    paths = [path.as_posix() for path in paths if not any(name.startswith(".") for name in path.parts)]
    for path in paths:
        if path.encode(errors="replace").decode() != path:
            raise UserError(f"{root}: the name {path!a} is not UTF-8; rename it")
    data = pd.DataFrame([path.split("/")[:2] for path in paths], index=paths, columns=["class", "group"], dtype=object)
    classes = sorted(data["class"].unique())
    if classes and {name.lower() for name in classes} <= SPLITS.keys():
        raise UserError(f"{root} holds the folders {preview(classes)}, expected folders class/group/: list the images "
                        "in a CSV with a column split")
    others = len(list_images(root, "*")) + len(list_images(root, "*/*"))
    notes = (f"{others} images that are not in a folder class/group/ are left out",) if others else ()
    return ImageTable(str(root), data, np.array(paths, object), notes=notes)
