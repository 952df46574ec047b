"""Images are read once: the cache is reused, ignored when files change, rebuilt when damaged; bad images are named."""

import os
import struct
import time
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from fairdd.core.errors import UserError
from fairdd.datasets import DatasetRequest
from fairdd.datasets.image_cache import CACHE, load_images


def write_image(path, color=(0, 0, 0), size=(8, 8), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).convert(mode).save(path)
    return path


def request_for(root, **changes):
    return replace(DatasetRequest("any", root, 30, None, None, None, None, False, False), **changes)


@pytest.fixture
def paths(tmp_path):
    """150 images (three chunks), the k-th of red level k."""
    return [write_image(tmp_path / "images" / f"{k:03}.png", (k, 0, 0)) for k in range(150)]


def cache_files(root):
    return sorted((root / CACHE).glob("*.u8"))


def test_images_keep_the_given_order(paths, tmp_path):
    loaded = load_images(paths[::-1], 4, request_for(tmp_path))
    assert loaded.images.shape == (150, 3, 4, 4) and loaded.images.dtype == torch.uint8
    assert loaded.images[:, 0, 0, 0].tolist() == list(range(149, -1, -1))
    assert loaded.kept.tolist() == list(range(150)) and loaded.notes == ()


def test_a_second_start_reads_no_image(paths, tmp_path, monkeypatch):
    first = load_images(paths, 4, request_for(tmp_path)).images.clone()
    [file] = cache_files(tmp_path)
    before = file.stat()
    monkeypatch.setattr("fairdd.datasets.image_cache.read_image", None)
    second = load_images(paths, 4, request_for(tmp_path)).images
    assert second.equal(first) and cache_files(tmp_path) == [file]
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_changed_file_is_read_again(paths, tmp_path):
    load_images(paths, 4, request_for(tmp_path))
    write_image(paths[7], (250, 0, 0))
    os.utime(paths[7], ns=(1, 1))
    assert load_images(paths, 4, request_for(tmp_path)).images[7, 0, 0, 0] == 250


@pytest.mark.parametrize("how", ["overwritten", "moved onto it"])
def test_an_image_of_the_same_size_and_time_is_read_again(tmp_path, how):
    path = write_image(tmp_path / "images" / "image.bmp", (10, 0, 0))
    stamp = path.stat()
    assert load_images([path], 4, request_for(tmp_path)).images[0, 0, 0, 0] == 10
    other = path if how == "overwritten" else tmp_path / "other.bmp"
    time.sleep(0.05)                                            # the system's clock ticks every few milliseconds
    write_image(other, (250, 0, 0))
    os.utime(other, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    os.replace(other, path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stamp.st_size, stamp.st_mtime_ns)
    assert load_images([path], 4, request_for(tmp_path)).images[0, 0, 0, 0] == 250


def test_a_moved_folder_keeps_its_cache(paths, tmp_path, monkeypatch):
    root = tmp_path / "data"
    root.mkdir()
    (tmp_path / "images").rename(root / "images")
    paths = [root / "images" / path.name for path in paths]
    first = load_images(paths, 4, request_for(root)).images.clone()
    monkeypatch.setattr("fairdd.datasets.image_cache.read_image", None)
    moved = root.rename(tmp_path / "moved")
    assert load_images([moved / path.relative_to(root) for path in paths], 4, request_for(moved)).images.equal(first)


@pytest.mark.parametrize("change", [dict(size=5), dict(square=True), dict(paths=slice(0, 149))])
def test_another_setting_has_another_cache(paths, tmp_path, change):
    load_images(paths, 4, request_for(tmp_path))
    selected = paths[change.get("paths", slice(None))]
    load_images(selected, change.get("size", 4), request_for(tmp_path), change.get("square", False))
    assert len(cache_files(tmp_path)) == 2


@pytest.mark.parametrize("damage", ["cut", "too long", "foreign", "no record", "foreign record"])
def test_a_damaged_cache_is_rebuilt(paths, tmp_path, damage):
    expected = load_images(paths, 4, request_for(tmp_path)).images.clone()
    [file] = cache_files(tmp_path)
    if damage == "cut":
        os.truncate(file, 500)
    elif damage == "too long":
        file.write_bytes(file.read_bytes() + b"x")
    elif damage == "foreign":
        file.write_bytes(bytes(len(file.read_bytes())))
    else:
        file.with_suffix(".json").write_text("{" if damage == "no record" else "[3]")
    assert load_images(paths, 4, request_for(tmp_path)).images.equal(expected)


def test_writing_to_the_images_does_not_reach_the_cache(paths, tmp_path):
    load_images(paths, 4, request_for(tmp_path)).images.fill_(9)
    assert load_images(paths, 4, request_for(tmp_path)).images[:, 0, 0, 0].tolist() == list(range(150))


def test_without_a_writable_cache_images_are_read_into_memory(paths, tmp_path):
    (tmp_path / CACHE).write_text("a file where the folder should be")
    loaded = load_images(paths, 4, request_for(tmp_path))
    assert loaded.images[:, 0, 0, 0].tolist() == list(range(150))
    assert "cannot be written" in loaded.notes[0]


@pytest.mark.parametrize("fault", ["truncated", "no image", "absent"])
def test_an_unreadable_image_is_an_error_or_left_out(paths, tmp_path, fault):
    if fault == "absent":
        paths[100].unlink()
    else:
        paths[100].write_bytes(paths[100].read_bytes()[:45] if fault == "truncated" else b"no image")
    with pytest.raises(UserError, match=r"100\.png.*--skip_bad_images"):
        load_images(paths, 4, request_for(tmp_path))
    assert not cache_files(tmp_path) and not list((tmp_path / CACHE).iterdir())
    for _ in range(2):                                              # the second time from the cache
        loaded = load_images(paths, 4, request_for(tmp_path, skip_bad_images=True))
        good = [k for k in range(150) if k != 100]
        assert loaded.kept.tolist() == good == loaded.images[:, 0, 0, 0].tolist()
        assert loaded.notes == ("1 of 150 images are unreadable and left out: 100.png",)
    with pytest.raises(UserError, match=r"100\.png.*--skip_bad_images"):
        load_images(paths, 4, request_for(tmp_path))


def test_a_signal_does_not_wait_for_the_other_images(paths, tmp_path, monkeypatch):
    calls = []

    def read_slowly(path, size, square):
        calls.append(path)
        time.sleep(0.005)
        return np.zeros((3, 4, 4), np.uint8)

    def interrupt(images, *args, **kwargs):
        yield next(images)
        raise KeyboardInterrupt

    monkeypatch.setattr("fairdd.datasets.image_cache.read_image", read_slowly)
    monkeypatch.setattr("fairdd.datasets.image_cache.tqdm", interrupt)
    monkeypatch.setattr("fairdd.datasets.image_cache.CHUNK", 1)
    with pytest.raises(KeyboardInterrupt):
        load_images(paths, 4, request_for(tmp_path))
    assert len(calls) < 100 and not list((tmp_path / CACHE).iterdir())


def test_a_full_chunk_of_unreadable_images_is_left_out(paths, tmp_path):
    for path in paths[:70]:
        path.write_bytes(b"no image")
    loaded = load_images(paths, 4, request_for(tmp_path, skip_bad_images=True))
    assert loaded.kept.tolist() == list(range(70, 150)) == loaded.images[:, 0, 0, 0].tolist()
    assert loaded.notes[0].endswith("left out: 000.png, 001.png, 002.png, …")


def test_no_readable_image_at_all_is_an_error(tmp_path):
    (tmp_path / "image.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"none of 1 images.*image\.png"):
        load_images([tmp_path / "image.png"], 4, request_for(tmp_path, skip_bad_images=True))


def test_a_decompression_bomb_is_refused(paths, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 63)
    with pytest.raises(UserError, match=r"000\.png.*bomb"):
        load_images(paths, 4, request_for(tmp_path))


def read_image(path, size):
    """Load a square image at its own size through a cache of its own. -> (size, size, 3) integers"""
    [image] = load_images([path], size, request_for(path.parent)).images
    return image.permute(1, 2, 0).long().numpy()


@pytest.mark.parametrize("mode, suffix", [("L", "jpg"), ("LA", "png"), ("P", "png"), ("RGBA", "png"), ("CMYK", "jpg"),
                                          ("1", "png"), ("RGB", "webp"), ("P", "gif"), ("L", "pgm"), ("RGB", "tif"),
                                          ("LAB", "tif"), ("YCbCr", "jpg")])
def test_any_mode_becomes_rgb(tmp_path, mode, suffix):
    path = write_image(tmp_path / f"image.{suffix}", (255, 255, 255), mode=mode)
    assert read_image(path, 8).min() >= 250


RAMP = np.linspace(0, 1, 16).reshape(1, 16).repeat(16, 0)       # black to white
SIXTEEN_BITS = np.round(RAMP * 65535).astype(np.uint16)


def write_pgm(path, levels, white):
    path.write_bytes(b"P5 16 16 %d\n" % white + levels.astype(">u2").tobytes())


def write_16_bit_tiff(path, levels, bits=16):
    """Write a 16-bit TIFF whose header names fewer bits, if asked; Pillow writes none of 12 bits."""
    Image.fromarray(levels).save(path)
    content = path.read_bytes()
    entry = struct.pack("<HHI", 258, 3, 1)                      # BitsPerSample, one SHORT
    assert content.count(entry + b"\x10\0") == 1
    path.write_bytes(content.replace(entry + b"\x10\0", entry + struct.pack("<H", bits)))


@pytest.mark.parametrize("name, write", [
    ("uint16.png", lambda path: Image.fromarray(SIXTEEN_BITS).save(path)),
    ("uint16.tif", lambda path: write_16_bit_tiff(path, SIXTEEN_BITS)),
    ("big_endian.tif", lambda path: Image.fromarray(SIXTEEN_BITS.astype(">u2")).save(path)),
    ("16_bits.pgm", lambda path: write_pgm(path, SIXTEEN_BITS, 65535)),
    ("10_bits.pgm", lambda path: write_pgm(path, np.round(RAMP * 1023), 1023)),
    ("int32.tif", lambda path: Image.fromarray(SIXTEEN_BITS.astype(np.int32)).save(path)),
    ("int32_to_255.tif", lambda path: Image.fromarray(np.round(RAMP * 255).astype(np.int32)).save(path)),
    ("float_to_1.tif", lambda path: Image.fromarray(RAMP.astype(np.float32)).save(path)),
    ("float_to_255.tif", lambda path: Image.fromarray((RAMP * 255).astype(np.float32)).save(path)),
    ("float_to_65535.tif", lambda path: Image.fromarray((RAMP * 65535).astype(np.float32)).save(path))])
def test_deep_grays_reach_from_black_to_white(tmp_path, name, write):
    write(tmp_path / name)
    image = read_image(tmp_path / name, 16)
    assert np.abs(image - 255 * RAMP[..., None]).max() <= 1 and image.min() == 0 and image.max() == 255


def test_dark_16_bit_images_stay_dark(tmp_path):
    levels = np.full((16, 16), 200, np.uint16)                  # 0.3 % of white
    Image.fromarray(levels).save(tmp_path / "dark.png")
    write_pgm(tmp_path / "dark.pgm", levels, 65535)
    write_16_bit_tiff(tmp_path / "dark.tif", levels)
    assert [read_image(path, 16).max() for path in sorted(tmp_path.glob("dark.*"))] == [0, 0, 0]


def test_sixteen_bit_gray_keeps_its_upper_bits(tmp_path):
    Image.fromarray(np.full((8, 8), 200 * 256 + 7, np.uint16)).save(tmp_path / "deep.png")
    assert np.unique(read_image(tmp_path / "deep.png", 8)).tolist() == [200]


@pytest.mark.parametrize("levels", [np.float32([[0, -0.5]]), np.float32([[0, 1e6]]), np.float32([[0, np.nan]]),
                                    np.int32([[0, 2**20]]), np.int32([[-1, 5]])])
def test_gray_levels_without_a_defined_white_are_refused(tmp_path, levels):
    Image.fromarray(levels).save(tmp_path / "image.tif")
    with pytest.raises(UserError, match=r"image\.tif cannot be read \(its gray levels reach from .*8 or 16 bits"):
        read_image(tmp_path / "image.tif", 8)


STORED = {1: lambda image: image, 2: lambda image: image[:, ::-1], 3: lambda image: image[::-1, ::-1],
          4: lambda image: image[::-1], 5: lambda image: image.transpose(1, 0, 2), 6: np.rot90,
          7: lambda image: image[::-1, ::-1].transpose(1, 0, 2), 8: lambda image: np.rot90(image, 3)}


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", STORED)
def test_images_are_shown_upright(tmp_path, suffix, orientation):
    upright = np.zeros((24, 16, 3), np.uint8)
    upright[:8], upright[8:, :8] = (250, 0, 0), (0, 0, 250)     # red above, blue on the lower left
    exif = Image.Exif()
    exif[0x112] = orientation
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(np.ascontiguousarray(STORED[orientation](upright))).save(path, exif=exif, quality=95)
    [full] = load_images([path], 24, request_for(tmp_path)).images.long()
    [square] = load_images([path], 16, request_for(tmp_path), square=True).images.long()
    for image, top in ((full, 8), (square, 4)):
        assert image[0, : top - 2].min() > 200 and image[2, : top - 2].max() < 50
        middle = len(image[0]) // 2
        assert image[2, top + 2 :, : middle - 2].min() > 200 and image[2, :, middle + 2 :].max() < 50


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", [b"", b"MM\0*\0\0\0\x08\0\x05", b"\xff" * 40])
def test_images_with_damaged_exif_are_read(tmp_path, exif):
    Image.new("RGB", (8, 8), (200, 0, 0)).save(tmp_path / "image.jpg", exif=b"Exif\0\0" + exif)
    assert np.abs(read_image(tmp_path / "image.jpg", 8) - (200, 0, 0)).max() < 5


def write_transparent(path, mode):
    """Write green squares whose left half is transparent black, whose right half is opaque."""
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, 4:] = (0, 200, 0, 255)
    image = Image.fromarray(pixels)
    if mode == "RGBA":
        image.save(path)
    elif mode == "LA":
        image.convert("LA").save(path)
    elif mode == "P":
        Image.fromarray(pixels[..., 3] // 255).convert("P").save(path, transparency=bytes([0, 255]))
    elif mode == "I;16":
        Image.fromarray(pixels[..., 1].astype(np.uint16) * 257).save(path)
        content, chunk = path.read_bytes(), b"tRNS\0\0"          # inserted before the pixels
        chunk = struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk))
        start = content.index(b"IDAT") - 4
        path.write_bytes(content[:start] + chunk + content[start:])
    else:
        Image.fromarray(pixels[..., :3]).convert(mode).save(path, transparency=(0, 0, 0) if mode == "RGB" else 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L", "1", "I;16"])
def test_transparent_pixels_show_a_white_background(tmp_path, mode):
    write_transparent(tmp_path / "image.png", mode)
    image = read_image(tmp_path / "image.png", 8)
    assert image[:, :4].min() == 255
    assert mode == "1" or image[:, 4:, 0].max() < 210           # (mode 1 has white only)


def test_half_transparent_pixels_mix_with_the_background(tmp_path):
    image = Image.new("P", (8, 8))
    image.putpalette([10, 20, 30] * 256)
    image.save(tmp_path / "image.png", transparency=bytes([128] * 256))
    expected = np.array([10, 20, 30]) * 128 / 255 + 127
    assert np.abs(read_image(tmp_path / "image.png", 8) - expected).max() <= 1


def test_the_central_square_is_cropped(tmp_path):
    image = Image.new("RGB", (20, 30), (0, 0, 255))
    image.paste((255, 0, 0), (0, 5, 20, 25))
    image.save(tmp_path / "tall.png")
    [square] = load_images([tmp_path / "tall.png"], 8, request_for(tmp_path), square=True).images
    [full] = load_images([tmp_path / "tall.png"], 8, request_for(tmp_path)).images
    assert square[0].min() == 255 and square[2].max() == 0 and full[2].max() > 200
