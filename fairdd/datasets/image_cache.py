"""Image files as one uint8 array. The first start fills a file in .fairdd_cache; later starts memory-map it.

The file is named after a hash of every path, size and time stamp and of how images are cropped and resized. So changed,
added or touched images are read again. The time of the last change (ctime, set by the system alone) tells an image
apart that was replaced by another of the same size and modification time; on Windows it is the time of creation.
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
from PIL import ExifTags, Image, TiffImagePlugin
from tqdm import tqdm

from fairdd.core.errors import UserError
from fairdd.core.parallel import chunk_slices
from fairdd.datasets.files import preview

CACHE = ".fairdd_cache"
VERSION = 2         # increase it when reading or resizing changes
CHUNK = 64          # images per task: many keep the threads busy, not too many keep the progress bar smooth

ORIENTATIONS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
                5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
                8: Image.Transpose.ROTATE_90}       # EXIF orientation -> how to turn the image upright


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
    """Hash the paths and stamps of the files, in order, and how they are read: 5 µs a file (contents would take 45)."""
    key, home = hashlib.sha256(repr((VERSION, size, square)).encode()), f"{root}{os.sep}"
    for path in paths:
        try:
            stat = os.stat(path)
            stamp = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        except OSError:
            stamp = None        # reading the image will report the error
        key.update(repr((os.fspath(path).removeprefix(home), stamp)).encode())
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

    bad, pool = [], ThreadPoolExecutor(os.cpu_count())
    hidden = None if request.progress else True         # None: hidden unless stderr is a terminal
    try:
        images = chain.from_iterable(pool.map(read_chunk, chunk_slices(len(paths), CHUNK)))
        for k, image in enumerate(tqdm(images, "reading images once", len(paths), unit="image", disable=hidden)):
            if image is None:
                bad.append(k)
            else:
                write(image)
    finally:
        pool.shutdown(cancel_futures=True)              # a signal does not wait for the other images
    if len(bad) == len(paths):
        raise UserError(f"none of {len(paths)} images can be read; the first is {paths[0]}")
    return bad


def read_image(path: Path, size: int, square: bool) -> np.ndarray:
    """Read an image as viewers show it, resized bilinearly, antialiased. -> (3, size, size) uint8. Raises UserError."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels are a decompression bomb")
            image.load()
            upright = ORIENTATIONS.get(exif_orientation(image))
            image = to_rgb(image) if upright is None else to_rgb(image).transpose(upright)
            if square:
                side = min(image.size)
                left, top = (image.width - side) // 2, (image.height - side) // 2
                image = image.crop((left, top, left + side, top + side))
            pixels = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
            return np.ascontiguousarray(pixels.transpose(2, 0, 1))
    except Exception as error:      # Pillow raises many kinds on a damaged file
        raise unreadable_image(path, error) from error


def exif_orientation(image: Image.Image) -> int | None:
    """Return the orientation that a camera noted; None for TIFF, which Pillow turns upright itself."""
    try:
        return None if image.format == "TIFF" else image.getexif().get(ExifTags.Base.Orientation)
    except Exception:               # damaged EXIF: viewers show the image as it is stored
        return None


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB: deep grays are scaled to 8 bits, transparent pixels are laid over white."""
    if image.mode[0] in "IF":
        return to_8_bits(image).convert("RGB")
    if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def to_8_bits(image: Image.Image) -> Image.Image:
    """Scale gray levels of modes I;16, I and F to 8 bits. Raises ValueError if white is unknown.

    PNG, PPM and 16-bit TIFF define it. Elsewhere it is the end of the smallest usual range that holds all levels of the
    image: 0 to 1 (floats only), 0 to 255, 0 to 65,535.
    """
    levels, bits = np.asarray(image, np.float64), 16
    low, high = levels.min(), levels.max()
    if not 0 <= low <= high <= 65535:           # also if a level is NaN
        raise ValueError(f"its gray levels reach from {low:g} to {high:g}; save it with 8 or 16 bits")
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        levels = np.round(255 * levels) if image.mode == "F" and high <= 1 else levels
        bits = 8 if high <= 255 else 16
    elif image.format == "TIFF":
        bits = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]        # 12 or 16
    gray = (levels * 2.0 ** (8 - bits)).astype(np.uint8)
    gray[levels == image.info.get("transparency")] = 255
    return Image.fromarray(gray)


def unreadable_image(path: Path, reason: object) -> UserError:
    """Return the error of an image that cannot be read."""
    return UserError(f"{path} cannot be read ({reason}); replace it, or leave such files out with --skip_bad_images")
