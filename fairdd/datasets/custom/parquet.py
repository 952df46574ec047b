"""Read the table of a user's images from parquet files, as Hugging Face stores image data sets.

The image column holds the bytes of image files. They are written to files below .fairdd_cache once, and read from there
like any others. Needs pyarrow.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from fairdd.core.errors import UserError
from fairdd.datasets.custom.paths import ImageFinder, find_path_column
from fairdd.datasets.custom.split import apply_split_column, split_in_name
from fairdd.datasets.custom.table import ImageTable, match_column
from fairdd.datasets.files import preview
from fairdd.datasets.image_cache import CACHE

BATCH = 64      # images held in memory while their files are written


def list_parquet(folder: Path) -> list[Path]:
    """Return the parquet files below a folder, sorted; hidden ones are left out."""
    paths = (path for path in folder.rglob("*.parquet") if path.is_file())
    return sorted(path for path in paths if not any(name[0] == "." for name in path.relative_to(folder).parts))


def read_parquet_files(files: list[Path], finder: ImageFinder, request) -> ImageTable:
    """Return the table of parquet files that hold the images of one data set, or chunks of its splits."""
    try:
        import pyarrow
    except ImportError as error:
        raise UserError(f"{files[0]} needs pyarrow ({error}): pip install pyarrow") from None
    try:
        frames, paths = zip(*(read_parquet(file, finder.root, request) for file in files), strict=True)
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"the images of {preview(map(str, files))} cannot be read or stored: {error}") from error
    data = pd.concat(frames, join="inner")
    title = os.path.commonpath(files)
    notes = [f"{title}: {len(data)} images in {len(files)} parquet files"]
    if any(chunk is None for chunk in paths):
        path_name = find_path_column(title, data, finder, request.path_column)
        images = data.pop(path_name).to_numpy(object)
        notes.append(f"paths in column {path_name!r}")
    else:
        images = np.concatenate(paths)
    names = splits_of_chunks(files)
    splits = None if names is None else np.repeat(np.array(names, object), [len(frame) for frame in frames])
    if names is not None:
        notes.append(f"split: the names of the files ({preview(dict.fromkeys(names))})")
    return apply_split_column(ImageTable(title, data, images, splits, tuple(notes)))


def splits_of_chunks(files: list[Path]) -> list[str] | None:
    """Return the split that each file holds by its name or folders; None if they tell one split only, or none."""
    folder = os.path.commonpath([file.parent for file in files])
    names = [split_in_name(os.path.relpath(file, folder)) for file in files]
    if len(set(names)) > 1 and None in names:
        raise UserError(f"{files[names.index(None)]}: its name contains no split (train, val, test), but those of "
                        "other files do; --labels names the files to read")
    return names if len(set(names)) > 1 else None


def read_parquet(file: Path, root: Path, request) -> tuple[pd.DataFrame, np.ndarray | None]:
    """Return the label columns of a parquet file as strings, and the paths of its images inside the root, or None if no
    column holds images."""
    from pyarrow import parquet, types

    schema = parquet.read_schema(file)
    features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    labels = [field.name for field in schema if not types.is_nested(field.type) and not types.is_binary(field.type)]
    columns = parquet.read_table(file, columns=labels)
    values = {name: column_text(file, columns[name], features.get(name)) for name in labels}
    data = pd.DataFrame(values, [f"{file.name} row {row}" for row in range(columns.num_rows)], dtype=object)
    if data.empty:
        return data, np.array([], object)
    image = find_image_column(file, schema, request.path_column)
    return data, None if image is None else extract_images(file, image, root, request)


def column_text(file: Path, column: Any, feature: Any) -> list[str]:
    """Return the values of an Arrow column as strings, "" for missing ones; class labels by their names."""
    names = feature.get("names") if isinstance(feature, dict) else None
    if not names:
        return ["" if value is None else str(value).strip() for value in column.to_pylist()]
    by_code = {None: "", -1: "", **dict(enumerate(names))}
    try:
        return [by_code[value] for value in column.to_pylist()]
    except KeyError as error:
        raise UserError(f"{file}: label {error} has no name among {preview(names)}") from None


def find_image_column(file: Path, schema: Any, requested: str | None) -> str | None:
    """Return the column that holds images: the requested one, else the only one with bytes; None if there is none."""
    from pyarrow import types

    names = [field.name for field in schema if types.is_binary(field.type) or types.is_large_binary(field.type) or (
        types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0)]
    if requested is not None:
        name = match_column(str(file), pd.DataFrame(columns=schema.names), requested, "--path_column")
        return name if name in names else None
    if len(names) > 1:
        raise UserError(f"{file}: the columns {', '.join(names)} all hold images; --path_column chooses")
    return names[0] if names else None


def extract_images(file: Path, column: str, root: Path, request) -> np.ndarray:
    """Write the images of a parquet file to files, unless an earlier start did. Return their paths inside the root.

    An image that the file does not hold but names keeps that path. (N,) str
    """
    stat = file.stat()
    key = repr((os.path.relpath(file, root), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, column))
    folder = root / CACHE / f"{file.stem}.{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if not folder.is_dir():
        aside = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
        try:
            aside.mkdir(parents=True)
            paths = []
            for row, (content, path) in enumerate(iterate_images(file, column, None if request.progress else True)):
                if content is not None or not path:
                    (aside / f"{row:08}").write_bytes(content or b"")
                paths.append(path)
            (aside / "paths.json").write_text(json.dumps(paths))
            os.replace(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    extracted = set(os.listdir(folder))
    inside = folder.relative_to(root).as_posix()
    return np.array([f"{inside}/{row:08}" if f"{row:08}" in extracted else path
                     for row, path in enumerate(json.loads((folder / "paths.json").read_text()))], object)


def iterate_images(file: Path, column: str, quiet: bool | None) -> Iterator[tuple[bytes | None, str]]:
    """Yield the bytes and the path of every image of a parquet file, each possibly empty."""
    from pyarrow import parquet

    with parquet.ParquetFile(file) as reader, tqdm(
            total=reader.metadata.num_rows, desc=f"reading {file.name}", unit="image", disable=quiet) as bar:
        for batch in reader.iter_batches(BATCH, columns=[column]):
            for value in batch.column(0).to_pylist():
                image = value if isinstance(value, dict) else {"bytes": value}
                yield image.get("bytes"), image.get("path") or ""
                bar.update()
