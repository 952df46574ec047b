"""Image files to one uint8 array, decoded once: the first start fills a file in .fairdd_cache, later ones map it.

The file's name is a hash of every path, size and time stamp and of how the images are cut and resized, so a changed,
added or touched image is decoded anew, and a cache can never be mistaken for another.
"""

import hashlib
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from fairdd.core.errors import UserError
from fairdd.datasets.files import preview

CACHE = ".fairdd_cache"
VERSION = 1         # raise it when decoding changes
CHUNK = 64          # images per task: enough to keep the threads busy, preview enough for a lively progress bar


@dataclass(frozen=True, eq=False)
class LoadedImages:
    """images: (K, 3, H, W) uint8; kept: (K,) the place in the given list of each; notes: what the user should know."""

    images: torch.Tensor
    kept: np.ndarray
    notes: tuple


@dataclass(frozen=True, eq=False)
class CacheEntry:
    """rows: (K, 3, H, W) uint8, the whole images; bad: places of the others; notes: as of LoadedImages."""

    rows: np.ndarray
    bad: list
    notes: tuple = ()


def load_images(paths, size, request, square=False):
    """All images as RGB at size x size pixels, in the given order. -> LoadedImages

    request: its data_path holds the cache; skip_bad_images leaves broken files out. square: cut the middle square out
    first; otherwise the whole image is resized.
    """
    file = request.data_path / CACHE / f"{cache_key(paths, request.data_path, size, square)}.u8"
    shape = (len(paths), 3, size, size)
    stored = load(file, shape) or build(file, shape, paths, request, square)
    bad, notes = stored.bad, stored.notes
    if bad and not request.skip_bad_images:
        raise unreadable_image(paths[bad[0]], "as an earlier start found")
    if bad:
        notes += (f"{len(bad)} of {len(paths)} images are broken and left out: {preview(paths[k].name for k in bad)}",)
    return LoadedImages(torch.from_numpy(stored.rows), np.delete(np.arange(len(paths)), bad), notes)


def cache_key(paths, root, size, square):
    """A hash of the files, in order, and of what is done to them."""
    key = hashlib.sha256(repr((VERSION, size, square)).encode())
    for path in paths:
        try:
            stat = os.stat(path)
            stamp = (stat.st_size, stat.st_mtime_ns)
        except OSError:
            stamp = None        # decoding will say what is wrong with it
        key.update(repr((os.path.relpath(path, root), stamp)).encode())
    return key.hexdigest()[:32]


def load(file, shape):
    """What an earlier start stored, mapped (writing to it does not reach the file); None if it is absent or damaged."""
    try:
        record, stat = json.loads(file.with_suffix(".json").read_text()), file.stat()
        bad = record["broken"]
        shape = (shape[0] - len(bad), *shape[1:])
        if (stat.st_size, stat.st_mtime_ns) != (math.prod(shape), record["written"]):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return CacheEntry(np.memmap(file, np.uint8, "c", shape=shape), bad)


def build(file, shape, paths, request, square):
    """Decode into the cache file, written aside and then renamed; into memory where the disk refuses. -> CacheEntry"""
    aside = file.with_name(f"{file.stem}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as out:
            bad = decode_all(paths, shape[-1], request, square, out.write)
        os.replace(aside, file)
        aside.write_text(json.dumps({"broken": bad, "written": file.stat().st_mtime_ns}))
        os.replace(aside, file.with_suffix(".json"))        # last: without it the file counts for nothing
    except OSError as error:
        note = f"the cache {file.parent} cannot be written ({error}); images are decoded anew at every start"
        return decode_in_memory(shape, paths, request, square, note)
    finally:
        if file.parent.is_dir():
            aside.unlink(missing_ok=True)
    return load(file, shape)


def decode_in_memory(shape, paths, request, square, note):
    """All whole images in one array, which is written once. -> CacheEntry"""
    rows, filled = np.empty(shape, np.uint8), 0

    def append(images):
        nonlocal filled
        rows[filled : filled + len(images)] = images
        filled += len(images)

    bad = decode_all(paths, shape[-1], request, square, append)
    return CacheEntry(rows[:filled], bad, (note,))


def decode_all(paths, size, request, square, write):
    """Decode in parallel; write takes the whole images, (B, 3, H, W) at a time, in order. -> places of the others"""
    bad = []
    quiet = None if request.progress else True          # None: quiet where there is no terminal
    work = partial(decode_some, size=size, square=square, skip_bad=request.skip_bad_images)
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    with (ThreadPoolExecutor(os.cpu_count()) as pool,
          tqdm(total=len(paths), desc="decoding once", unit="image", disable=quiet) as bar):
        for k, (images, failed) in enumerate(pool.map(work, chunks)):
            write(images)
            bad += [k * CHUNK + place for place in failed]
            bar.update(len(chunks[k]))
    if len(bad) == len(paths):
        raise UserError(f"none of {len(paths)} images can be read, such as {paths[0]}")
    return bad


def decode_some(paths, size, square, skip_bad):
    """The whole images among a preview paths, (B, 3, H, W) uint8, and the places of the others"""
    images, bad = [np.empty((0, 3, size, size), np.uint8)], []
    for place, path in enumerate(paths):
        try:
            images.append(read_image(path, size, square)[None])
        except UserError:
            if not skip_bad:
                raise
            bad.append(place)
    return np.concatenate(images), bad


def read_image(path, size, square):
    """One image of any mode, bilinear with antialias. -> (3, size, size) uint8. Raises UserError if it is broken."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels are a decompression bomb")
            if square:
                image = image.crop(middle_square(*image.size))
            return np.asarray(to_rgb(image).resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    except Exception as error:      # Pillow's decoders raise nearly every kind on a damaged file
        raise unreadable_image(path, error) from error


def middle_square(width, height):
    """The box of the largest square in the middle."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def to_rgb(image):
    """Any mode as RGB; 16-bit greys keep their upper 8 bits, transparency is dropped."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def unreadable_image(path, reason):
    """The error of an image that cannot be read."""
    return UserError(f"{path} cannot be read ({reason}); mend it, or leave such files out with --skip_bad_images")
