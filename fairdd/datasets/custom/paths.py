"""Find the image files that a table names, however it writes their paths.

A path may lack its extension or its first folders, begin with the data folder's own name, be absolute, or use
backslashes. It is completed only where exactly one image file fits, and never against a folder that the table names.
"""

import os
import posixpath
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from fairdd.core.errors import UserError
from fairdd.datasets.custom.table import ImageTable, match_column, simplify
from fairdd.datasets.files import preview

PATH_NAMES = ("path", "file", "filename", "filepath", "image", "imagepath", "imagename", "imageid", "img", "imgpath",
              "imgname", "imgid", "imgfile", "imgfilename", "imagefile", "imagefilename", "imageindex", "filenames",
              "fname", "isicid", "md5hash", "photo", "photopath", "picture")
SAMPLE = 50             # rows that show whether a column holds paths
MAX_MISSING = 0.01      # share of images that may be missing; more means that something else is wrong
NOT_DECODABLE = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"}   # Pillow recognizes these formats only


@cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes, lower case with their dot, of all formats that Pillow decodes."""
    formats = Image.registered_extensions()
    return frozenset(suffix for suffix, name in formats.items() if name in Image.OPEN and name not in NOT_DECODABLE)


def is_image(path: str) -> bool:
    """Say whether the suffix is that of an image."""
    return posixpath.splitext(path)[1].lower() in image_suffixes()


def walk_files(root: Path) -> Iterator[str]:
    """Yield the paths, relative to the root, of all files below it that are not hidden; links are followed."""
    for folder, subfolders, names in os.walk(root, followlinks=True):
        inside = Path(folder).relative_to(root).as_posix()
        subfolders[:] = sorted(name for name in subfolders
                               if name[0] != "." and name != "__MACOSX" and not is_loop(folder, name))
        yield from (posixpath.normpath(f"{inside}/{name}") for name in sorted(names) if name[0] != ".")


def is_loop(folder: str, name: str) -> bool:
    """Say whether a folder is a link to a folder that holds it."""
    path = os.path.join(folder, name)
    return os.path.islink(path) and Path(folder).resolve().is_relative_to(Path(path).resolve())


class ImageFinder:
    """Maps paths as a table writes them to image files below the root."""

    def __init__(self, root: Path):
        self.root = root
        self.home = root.resolve()
        self.prefixes = {f"{Path(os.path.abspath(root)).as_posix()}/", f"{self.home.as_posix()}/"}

    @cached_property
    def files_by_stem(self) -> dict[str, list[str]]:
        """All image files below the root, by their names without suffix."""
        files: dict[str, list[str]] = {}
        for path in filter(is_image, walk_files(self.root)):
            files.setdefault(posixpath.splitext(posixpath.basename(path))[0], []).append(path)
        return files

    def exists(self, path: str) -> bool:
        """Say whether a path relative to the root is a file."""
        return bool(path) and os.path.isfile(f"{self.root}/{path}")

    def clean(self, text: str) -> str:
        """Return a path as a/b.jpg, relative to the root; "" if it is empty or leads out of the root."""
        if "\\" in text and not self.exists(text):
            text = text.replace("\\", "/")
        for prefix in self.prefixes:
            text = text.removeprefix(prefix)
        return "" if not text or text[0] == "/" or ".." in text.split("/") else posixpath.normpath(text)

    def find(self, text: str) -> list[str]:
        """Return the files that a cleaned path may mean: none, one, or several that fit equally well."""
        options = dict.fromkeys([text, text.removeprefix(f"{self.home.name}/"), text.removesuffix(".0")])
        for path in filter(self.exists, options):
            return [path]
        return sorted({file for path in options for file in self.complete(path)})

    def complete(self, path: str) -> Iterator[str]:
        """Yield the image files that end in the path, with or without their suffix."""
        name = posixpath.basename(path)
        for stem in {name, posixpath.splitext(name)[0]}:
            for file in self.files_by_stem.get(stem, ()):
                if f"/{file}".endswith(f"/{path}") or f"/{posixpath.splitext(file)[0]}".endswith(f"/{path}"):
                    yield file


def locate_images(table: ImageTable, finder: ImageFinder, skip_missing: bool, follow_links: bool) -> ImageTable:
    """Return the rows whose image exists, with the paths of their files.

    Raises UserError for a path that is empty, leaves the folder or may mean several files; for more than 1 % missing
    images unless skip_missing; for links out of the folder unless follow_links.
    """
    cleaned = [finder.clean(text) for text in table.paths]
    if not all(cleaned):
        row = cleaned.index("")
        raise table.row_error(row, f"{table.paths[row]!r} is not the path of a file inside the data folder")
    matches = [finder.find(path) for path in cleaned]
    for row, files in enumerate(matches):
        if len(files) > 1:
            raise table.row_error(row, f"{table.paths[row]!r} may be {preview(files)}: write more of the path")
    exists = np.array([bool(files) for files in matches], bool)
    check_missing(table, finder.root, ~exists, skip_missing)
    completed = sum(files not in ([], [path]) for path, files in zip(cleaned, matches, strict=True))
    notes = [f"{completed} paths completed by the only file that fits"] if completed else []
    if not exists.all():
        notes.append(f"{(~exists).sum()} images are missing and left out: {name_rows(table, ~exists)}")
    paths = np.array([files[0] for files in matches if files], object)
    table = replace(table.keep(exists, *notes), paths=paths)
    if not follow_links:
        refuse_outside_links(table, finder)
    return table


def name_rows(table: ImageTable, mask: np.ndarray) -> str:
    """Return the first rows of a mask with their paths, for a message."""
    return preview(f"{table.data.index[row]} ({table.paths[row]})" for row in np.flatnonzero(mask))


def check_missing(table: ImageTable, root: Path, missing: np.ndarray, skip_missing: bool) -> None:
    """Raise UserError if too many images are missing."""
    count = missing.sum()
    if count == len(table) or (count > MAX_MISSING * len(table) and not skip_missing):
        raise UserError(f"{table.title}: {count} of {len(table)} images are not in {root}: "
                        f"{name_rows(table, missing)}; --path_column names another column, --skip_bad_images leaves "
                        "missing images out")


def refuse_outside_links(table: ImageTable, finder: ImageFinder) -> None:
    """Raise UserError for an image that lies outside the folder, reached through a link."""
    @cache
    def is_inside(path: str) -> bool:
        return Path(finder.root, path).resolve().is_relative_to(finder.home)

    for row, path in enumerate(table.paths):
        if not is_inside(posixpath.dirname(path)) or (os.path.islink(f"{finder.root}/{path}") and not is_inside(path)):
            raise table.row_error(row, f"{path} is a link out of the data folder {finder.root}; "
                                       "--follow_links allows it")


def find_path_column(title: str, data: pd.DataFrame, finder: ImageFinder, requested: str | None) -> str:
    """Return the column of paths: the requested one, else the first that holds paths of files, known names first.

    Where no column holds paths as they are, values that are files' names without suffix or folder count, for an unknown
    name only if no value repeats and no other such column exists. Raises UserError if there is no such column.
    """
    if requested is not None:
        return match_column(title, data, requested, "--path_column")
    known = [name for key in PATH_NAMES for name in data if simplify(name) == key]
    others = [name for name in data if name not in known]
    sample = data.iloc[np.unique(np.linspace(0, len(data) - 1, SAMPLE).astype(int))]
    for finds in (finder.exists, finder.find):
        shares = {name: np.mean([bool(finds(finder.clean(text))) for text in sample[name]]) for name in known + others}
        candidates = [name for name in known if shares[name]] or [
            name for name in others
            if shares[name] > 0.5 and (finds == finder.exists or (name and data[name].is_unique))]
        if len(candidates) > 1 and candidates[0] in others:
            raise UserError(f"{title}: the columns {', '.join(candidates)} all name images; --path_column chooses")
        if candidates:
            return candidates[0]
    if known:
        return known[0]
    raise UserError(f"{title} has no column of paths: none is named path, file, image or the like, and none holds "
                    f"names of files in {finder.root}; its columns: {', '.join(data)} (--path_column names it)")


def count_suffixes(paths: list[str]) -> str:
    """Return how many files have which suffix, for a note: .txt 2, .db 1."""
    return ", ".join(f"{suffix or 'no suffix'} {count}"
                     for suffix, count in Counter(posixpath.splitext(path)[1] for path in paths).most_common(5))
