"""Images are read once: the cache is reused, ignored when files change, rebuilt when damaged; bad images are named."""

import os
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


def test_a_second_start_reads_no_image(paths, tmp_path):
    first = load_images(paths, 4, request_for(tmp_path)).images.clone()
    [file] = cache_files(tmp_path)
    before = file.stat()
    stamp = paths[7].stat()
    paths[7].write_bytes(b"x" * stamp.st_size)                      # same size and time: not read again
    os.utime(paths[7], ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    second = load_images(paths, 4, request_for(tmp_path)).images
    assert second.equal(first) and cache_files(tmp_path) == [file]
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_changed_file_is_read_again(paths, tmp_path):
    load_images(paths, 4, request_for(tmp_path))
    write_image(paths[7], (250, 0, 0))
    os.utime(paths[7], ns=(1, 1))
    assert load_images(paths, 4, request_for(tmp_path)).images[7, 0, 0, 0] == 250


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


@pytest.mark.parametrize("mode, suffix", [("L", "jpg"), ("LA", "png"), ("P", "png"), ("RGBA", "png"), ("CMYK", "jpg"),
                                          ("1", "png"), ("RGB", "webp")])
def test_any_mode_becomes_rgb(tmp_path, mode, suffix):
    path = write_image(tmp_path / f"image.{suffix}", (255, 255, 255), mode=mode)
    assert load_images([path], 4, request_for(tmp_path)).images.min() >= 250


def test_sixteen_bit_gray_keeps_its_upper_bits(tmp_path):
    Image.fromarray(np.full((8, 8), 200 * 256 + 7, np.uint16)).save(tmp_path / "deep.png")
    assert load_images([tmp_path / "deep.png"], 4, request_for(tmp_path)).images.unique().tolist() == [200]


def test_transparent_palettes_are_read(tmp_path):
    image = Image.new("P", (8, 8))
    image.putpalette([10, 20, 30] * 256)
    image.save(tmp_path / "image.png", transparency=bytes([128] * 256))
    assert load_images([tmp_path / "image.png"], 4, request_for(tmp_path)).images[0, :, 0, 0].tolist() == [10, 20, 30]


def test_the_central_square_is_cropped(tmp_path):
    image = Image.new("RGB", (20, 30), (0, 0, 255))
    image.paste((255, 0, 0), (0, 5, 20, 25))
    image.save(tmp_path / "tall.png")
    [square] = load_images([tmp_path / "tall.png"], 8, request_for(tmp_path), square=True).images
    [full] = load_images([tmp_path / "tall.png"], 8, request_for(tmp_path)).images
    assert square[0].min() == 255 and square[2].max() == 0 and full[2].max() > 200
