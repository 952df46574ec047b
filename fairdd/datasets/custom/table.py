"""What is written about a folder of images: a table with a row for each, read from a CSV or from folders class/group/.

Nothing is mended in silence: what is not plainly a table is refused, and the row named.
"""

import csv
import io
import os
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from fairdd.core.errors import UserError
from fairdd.datasets.files import list_images, preview

PATH_NAMES = ("path", "file", "filename", "filepath", "image", "imagepath", "imagename", "imageid", "img", "imgpath")
SPLIT_NAMES = ("split", "part", "partition")
PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test",
         **dict.fromkeys(("val", "valid", "validation"), None)}         # None: neither trains nor tests
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}


@dataclass(frozen=True, eq=False)
class Table:
    """What is written about N images.

    title: where it was read; rows: what a message calls each row; paths: inside the folder; columns: name -> N words;
    parts: "train" or "test" of each, or None where nothing says it; notes: what the user should know.
    """

    title: str
    rows: list
    paths: list
    columns: dict
    parts: list | None = None
    notes: tuple = ()

    def keep(self, places, *notes):
        """The rows at these places, which rise."""
        if len(places) == len(self.rows):
            return replace(self, notes=self.notes + notes)

        def at(values):
            return [values[place] for place in places]

        return replace(self, rows=at(self.rows), paths=at(self.paths), parts=self.parts and at(self.parts),
                       columns={name: at(values) for name, values in self.columns.items()}, notes=self.notes + notes)

    def error(self, place, words):
        """The error of one row."""
        return UserError(f"{self.title}, {self.rows[place]}: {words}")


def read_csv(file, root):
    """The table of a CSV with a line of column names; its images lie in root. -> Table"""
    delimiter, lines = read_lines(file)
    names, records = check_lines(file, lines)
    columns = {name: list(values) for name, values in zip(names, zip(*records.values(), strict=True), strict=True)}
    path_name = find_path_column(file, columns, root)
    split_name = next((name for name in columns if plain(name) in SPLIT_NAMES), None)
    paths, parts = columns.pop(path_name), columns.pop(split_name, None)
    columns.pop("", None)                               # a column without a name cannot be asked for
    note = f"{file}: {len(paths)} images, columns separated by {DELIMITERS[delimiter]}, paths in column {path_name!r}"
    rows = [f"row {number}" for number in records]
    table = Table(str(file), rows, check_paths(file, records, paths), columns, parts, (note,))
    return table if parts is None else read_parts(table, split_name)


def read_lines(file):
    """The delimiter of a CSV, and its lines that hold something. -> str, list of (row number, fields)"""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is not UTF-8 text; save it as CSV in UTF-8") from None
    delimiter = max(DELIMITERS, key=text.lstrip().partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        lines = [(reader.line_num, [field.strip() for field in fields]) for fields in reader]
    except csv.Error as error:
        raise UserError(f"{file}, row {reader.line_num}: {error}") from None
    return delimiter, [(number, fields) for number, fields in lines if any(fields)]


def check_lines(file, lines):
    """The column names, and the fields of each row by its number. Refuses what is no table."""
    if len(lines) < 2:
        raise UserError(f"{file} lists no images: expected a line of column names and a line for each image")
    (_, names), *rest = lines
    twice = {name for name in names if name and names.count(name) > 1}
    if twice:
        raise UserError(f"{file} has two columns named {preview(sorted(twice))}: rename one")
    for number, fields in rest:
        if len(fields) != len(names):
            raise UserError(f"{file}, row {number}: {len(fields)} values under {len(names)} column names")
    return names, dict(rest)


def plain(name):
    """A column's name without case, spaces, hyphens and underscores."""
    return name.lower().translate(str.maketrans("", "", " -_"))


def find_path_column(file, columns, root):
    """The column of the paths: known by its name, else the first whose first value is an image file in root."""
    by_name = {plain(name): name for name in reversed(columns)}
    for name in PATH_NAMES:
        if name in by_name:
            return by_name[name]
    for name, values in columns.items():
        if values[0] and os.path.isfile(root / values[0]):
            return name
    raise UserError(f"{file} has no column of paths: none is named {', '.join(PATH_NAMES)}, and in none is the first "
                    f"value a file in {root}; its columns: {', '.join(columns)}")


def check_paths(file, numbers, paths):
    """The paths in one spelling, a/b.jpg. Refuses those that are empty, leave the folder or come twice."""
    seen = {}
    for number, text in zip(numbers, paths, strict=True):
        path = PurePosixPath(text)
        if not text or path.is_absolute() or ".." in path.parts:
            raise UserError(f"{file}, row {number}: {text!r} is not the path of a file inside the data folder")
        if path in seen:
            raise UserError(f"{file}, rows {seen[path]} and {number}: both name {path}")
        seen[path] = number
    return list(map(str, seen))


def read_parts(table, name):
    """The table with its parts in one spelling, without the rows that neither train nor test."""
    for place, part in enumerate(table.parts):
        if part.lower() not in PARTS:
            raise table.error(place, f"{name} is {part!r}, neither train nor test (val is unused); rename that column "
                                     "if it is no split")
    parts = [PARTS[part.lower()] for part in table.parts]
    used = [place for place, part in enumerate(parts) if part]
    notes = [f"column {name!r} tells training from test images"]
    if len(used) < len(parts):
        notes.append(f"{len(parts) - len(used)} validation images are unused")
    return replace(table, parts=parts).keep(used, *notes)


def read_folders(root):
    """The table that folders class/group/ make, with the columns class and group. -> Table, empty if there are none"""
    paths = [path.relative_to(root) for path in list_images(root, "*/*/*")]
    paths = [path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts)]
    for path in paths:
        if path.encode(errors="replace").decode() != path:
            raise UserError(f"{root}: the name {path!a} is not UTF-8; rename it")
    classes, groups = ([path.split("/")[level] for path in paths] for level in (0, 1))
    if paths and set(map(str.lower, classes)) <= set(PARTS):
        raise UserError(f"{root} holds the folders {preview(sorted(set(classes)))}, expected are folders class/group/: "
                        "list the images in a CSV with a column split")
    others = len(list_images(root, "*")) + len(list_images(root, "*/*"))
    notes = (f"{others} images that lie in no folder class/group/ are left out",) if others else ()
    return Table(str(root), paths, paths, {"class": classes, "group": groups}, None, notes)
