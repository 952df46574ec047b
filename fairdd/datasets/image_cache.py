"""Image files as one uint8 array. The first start fills a file in .fairdd_cache; later starts memory-map it.

The file is named after a hash of every path, size and time stamp and of how images are cropped and resized. So changed,
added or touched images are read again, and a cache never serves other images.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from fairdd.core.errors import UserError
from fairdd.core.parallel import chunk_slices
from fairdd.datasets.files import preview

CACHE = ".fairdd_cache"
VERSION = 1         # increase it when reading or resizing changes
CHUNK = 64          # images per task: many keep the threads busy, not too many keep the progress bar smooth


@dataclass(frozen=True, eq=False)
class LoadedImages:
    """images: (K, 3, H, W) uint8; kept: (K,) their indices in the given list; notes: sentences for the user."""

    images: torch.Tensor
    kept: np.ndarray
    notes: tuple[str, ...]


def load_images(paths: Sequence[Path], size: int, request, square: bool = False) -> LoadedImages:
    """Load images as RGB at size x size pixels, in the given order, from the cache if possible. Raises UserError.

    request: data_path holds the cache; skip_bad_images leaves unreadable images out. square: crop the central square
    instead of resizing the full image.
    """
    file = request.data_path / CACHE / f"{cache_key(paths, request.data_path, size, square)}.u8"
    shape = (len(paths), 3, size, size)
    read = partial(read_all, paths, size, request, square)
    rows, bad, *notes = map_cache(file, shape) or fill_cache(file, shape, read)
    if bad and not request.skip_bad_images:
        raise unreadable_image(paths[bad[0]], "by an earlier start")
    if bad:
        names = preview(paths[k].name for k in bad)
        notes.append(f"{len(bad)} of {len(paths)} images are unreadable and left out: {names}")
    return LoadedImages(torch.from_numpy(rows), np.delete(np.arange(len(paths)), bad), tuple(notes))


def cache_key(paths: Sequence[Path], root: Path, size: int, square: bool) -> str:
    """Hash the files, in order, and how they are read."""
    key = hashlib.sha256(repr((VERSION, size, square)).encode())
    for path in paths:
        try:
            stat = os.stat(path)
            stamp = (stat.st_size, stat.st_mtime_ns)
        except OSError:
            stamp = None        # reading the image will report the error
        key.update(repr((os.path.relpath(path, root), stamp)).encode())
    return key.hexdigest()[:32]


def map_cache(file: Path, shape: tuple) -> tuple | None:
    """Map what an earlier start stored, copy-on-write. -> rows (K, 3, H, W) uint8, unreadable; None if damaged"""
    try:
        record, stat = json.loads(file.with_suffix(".json").read_text()), file.stat()
        bad = record["unreadable"]
        if (stat.st_size, stat.st_mtime_ns) != ((shape[0] - len(bad)) * np.prod(shape[1:]), record["written"]):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return np.memmap(file, np.uint8, "c").reshape(-1, *shape[1:]), bad


def fill_cache(file: Path, shape: tuple, read: Callable) -> tuple:
    """Read all images into the cache file, atomically; into memory if it cannot be written. -> as map_cache, a note"""
    temporary = file.with_name(f"{file.stem}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as out:
            bad = read(out.write)
        os.replace(temporary, file)
        temporary.write_text(json.dumps({"unreadable": bad, "written": file.stat().st_mtime_ns}))
        os.replace(temporary, file.with_suffix(".json"))        # last: a cache without it is ignored
        return np.memmap(file, np.uint8, "c").reshape(-1, *shape[1:]), bad
    except OSError as error:
        memory = io.BytesIO()
        bad = read(memory.write)
        note = f"the cache {file.parent} cannot be written ({error}); images are read again at every start"
        return np.frombuffer(memory.getbuffer(), np.uint8).reshape(-1, *shape[1:]), bad, note
    finally:
        if file.parent.is_dir():
            temporary.unlink(missing_ok=True)


def read_all(paths: Sequence[Path], size: int, request, square: bool, write: Callable) -> list[int]:
    """Read images in threads and write the readable ones, in order. -> indices of the unreadable ones"""
    def read_chunk(chunk: slice) -> list[np.ndarray | None]:
        images = []
        for path in paths[chunk]:
            try:
                images.append(read_image(path, size, square))
            except UserError:
                if not request.skip_bad_images:
                    raise
                images.append(None)
        return images

    bad = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        images = chain.from_iterable(pool.map(read_chunk, chunk_slices(len(paths), CHUNK)))
        hidden = None if request.progress else True          # None: hidden unless stderr is a terminal
        for k, image in enumerate(tqdm(images, "reading images once", len(paths), unit="image", disable=hidden)):
            if image is None:
                bad.append(k)
            else:
                write(image)
    if len(bad) == len(paths):
        raise UserError(f"none of {len(paths)} images can be read; the first is {paths[0]}")
    return bad


def read_image(path: Path, size: int, square: bool) -> np.ndarray:
    """Read an image of any mode, resized bilinearly with antialias. -> (3, size, size) uint8. Raises UserError."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            if width * height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError(f"{width} x {height} pixels are a decompression bomb")
            if square:
                side = min(width, height)
                left, top = (width - side) // 2, (height - side) // 2
                image = image.crop((left, top, left + side, top + side))
            pixels = np.asarray(to_rgb(image).resize((size, size), Image.Resampling.BILINEAR))
            return np.ascontiguousarray(pixels.transpose(2, 0, 1))
    except Exception as error:      # Pillow raises many kinds on a damaged file
        raise unreadable_image(path, error) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB; 16-bit grays keep their upper 8 bits, transparency is dropped."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def unreadable_image(path: Path, reason: object) -> UserError:
    """Return the error of an image that cannot be read."""
    return UserError(f"{path} cannot be read ({reason}); replace it, or leave such files out with --skip_bad_images")
