"""The colored sets: counts, correlation, colored pixels, padding, the published overflow, the files read."""

import gzip
import random
import shutil
from fractions import Fraction

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from fairdd.core.errors import UserError
from fairdd.datasets import get_dataset
from fairdd.datasets.colored import (
    COLOR_NAMES,
    PALETTE,
    SHADED_BACKGROUND,
    SHADED_FOREGROUND,
    overflowing_background,
    rising_chunks,
)

OFFICIAL_TEST = (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
NAMES = [f"Colored_{source}_{position}{suffix}" for source in ("MNIST", "FashionMNIST")
         for position in ("foreground", "background") for suffix in ("", "_fixed")]


def write_idx(path, values):
    header = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    path.write_bytes(header + values.tobytes())


@pytest.fixture(scope="module")
def idx_root(tmp_path_factory):
    """MNIST and Fashion-MNIST in miniature: 20 training images a class; the official number of test images.

    Every image is bright (255) except for its first column, which is black.
    """
    root = tmp_path_factory.mktemp("data")
    for source in ("MNIST", "FashionMNIST"):
        folder = root / source / "raw"
        folder.mkdir(parents=True)
        for split, counts in (("train", [20] * 10), ("t10k", OFFICIAL_TEST)):
            labels = np.random.RandomState(0).permutation(np.repeat(np.arange(10), counts)).astype(np.uint8)
            pixels = np.full((len(labels), 28, 28), 255, np.uint8)
            pixels[:, :, 0] = 0
            write_idx(folder / f"{split}-images-idx3-ubyte", pixels)
            write_idx(folder / f"{split}-labels-idx1-ubyte", labels)
    return root


def test_each_color_has_a_tenth_of_a_test_class_except_the_short_last_chunk(idx_root):
    counts = get_dataset("Colored_MNIST_foreground", idx_root).test.counts()[:, 1].tolist()
    assert counts[1] == 113 and sorted(counts[:1] + counts[2:]) == [110] + [114] * 8


@pytest.mark.parametrize("skew", [0, 0.29, 0.9, 0.97, 1])
def test_the_share_of_the_own_color_is_the_skew_rounded_down(idx_root, skew):
    train = get_dataset("Colored_MNIST_foreground", idx_root, skew=skew).train
    assert train.counts().diagonal().tolist() == [int(100 * skew + 0.5) * 20 // 100] * 10
    assert train.counts().sum(0).tolist() == [20] * 10


@pytest.mark.parametrize("skew", [0, 0.29, 0.9, 1])
def test_unequal_minorities_have_the_ratio_1_to_9_in_the_drawn_order_of_colors(skew):
    data, equal = (get_dataset("Colored_Digits", skew=skew, minorities=kind) for kind in ("unequal", "equal"))
    generator, counts = np.random.RandomState(30), data.train.counts()
    for label, size in enumerate(data.train.class_sizes().tolist()):
        generator.shuffle(np.empty(size))                           # of the images; then the order of the colors
        others = (label + np.arange(1, 10)) % 10
        generator.shuffle(others)
        own = int(100 * skew + 0.5) * size // 100
        assert counts[label, label] == own
        sizes = counts[others, label].tolist()
        assert sizes == sorted(sizes) and sum(sizes) == size - own
        assert all(abs(actual - (size - own) * k / 45) < 1 for k, actual in enumerate(sizes, 1))
    visible = data.train.images.flatten(2).amax(2)
    assert visible.equal(torch.from_numpy(PALETTE)[data.train.groups].byte())
    changed = {name for name, value in data.digest().items() if value != equal.digest()[name]}
    assert changed == ({"train images", "train groups", "train labels"} if skew < 1 else set())


def test_unequal_minorities_use_every_image_once():
    unequal, equal = (get_dataset("Colored_Digits", minorities=kind).train for kind in ("unequal", "equal"))
    shapes, expected = (sorted([label, *shape] for label, shape in zip(
        train.labels.tolist(), (train.images.amax(1) > 0).flatten(1).tolist(), strict=True))
        for train in (unequal, equal))
    assert shapes == expected


@pytest.mark.parametrize("count", range(0, 700, 7))
def test_rising_chunks_divide_by_largest_remainder(count):
    chunks = rising_chunks(np.arange(count), 9)
    assert np.concatenate(chunks).tolist() == list(range(count))
    exact = [Fraction(count * k, 45) for k in range(1, 10)]
    rounded_up = [k for k in range(9) if len(chunks[k]) > exact[k] // 1]
    assert all(len(chunks[k]) - exact[k] // 1 in (0, 1) for k in range(9))
    others = [k for k in range(9) if k not in rounded_up]
    assert min((exact[k] % 1 for k in rounded_up), default=1) >= max((exact[k] % 1 for k in others), default=0)


def test_the_smallest_unequal_minority_of_an_mnist_class_is_that_of_the_paper():
    official = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
    smallest = [len(rising_chunks(np.arange(size - size * 9 // 10), 9)[0]) for size in official]
    assert min(smallest) == 12 and max(smallest) <= 15


@pytest.mark.parametrize("split", ["train", "test"])
def test_images_of_the_named_colors_are_left_out_of_one_split_and_no_others(split):
    full = get_dataset("Colored_Digits")
    data = get_dataset("Colored_Digits", **{f"{split}_without": "Red, pale yellow"})
    before, after = getattr(full, split), getattr(data, split)
    visible = before.images.flatten(2).amax(2)
    kept = ~torch.stack([(visible == torch.tensor(color)).all(1) for color in ((255, 0, 0), (255, 255, 128))]).any(0)
    for field in ("images", "labels", "groups"):
        assert getattr(after, field).equal(getattr(before, field)[kept])
    assert after.group_names == before.group_names and after.counts()[[0, 3]].sum() == 0
    changed = {name for name, value in data.digest().items() if value != full.digest()[name]}
    assert changed == {f"{split} {field}" for field in ("images", "labels", "groups")}
    count = len(before) - int(kept.sum())
    assert data.notes == (f"--{split}_without Red, pale yellow: {count} of {len(before)} images are left out",)


def test_a_class_without_its_own_color_keeps_its_images_in_other_colors():
    full, data = (get_dataset("Colored_Digits", train_without=names).train for names in (None, "blue"))
    assert data.counts()[6].sum() == 0 and data.counts()[:6, 6].equal(full.counts()[:6, 6])


@pytest.mark.parametrize("options, message", [
    (dict(train_without="red,pink"), "--train_without: unknown group 'pink'; known: red, orange, .*, white$"),
    (dict(test_without=""), "--test_without: unknown group ''; known: red"),
    (dict(train_without=",".join(COLOR_NAMES)), "leaves no training image of 10 classes"),
    (dict(train_without="red", skew=1), r"leaves no training image of 1 classes \(zero\); groups: red"),
    (dict(test_without=",".join(COLOR_NAMES)), "leaves 0 of the groups"),
    (dict(test_without=",".join(COLOR_NAMES[1:])), "leaves 1 of the groups red, .*; fairness metrics need 2$")])
def test_groups_that_cannot_be_left_out_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        get_dataset("Colored_Digits", **options)


@pytest.mark.parametrize("name", NAMES)
def test_the_group_is_the_visible_color(idx_root, name):
    data = get_dataset(name, idx_root)
    corner, middle = data.train.images[:, :, 0, 0], data.train.images[:, :, 16, 16]
    colors = torch.from_numpy(PALETTE)[data.train.groups]
    if "background" in name:
        assert corner.equal(colors.byte()) and not middle.equal(colors.byte())
    else:
        assert middle.equal(colors.byte()) and corner.max() == 0


@pytest.mark.parametrize("name", [name for name in NAMES if "foreground" in name])
def test_published_images_are_padded_on_the_top_and_left_only(idx_root, name):
    lit = get_dataset(name, idx_root).train.images.amax((0, 1)) > 0
    start = 2 if "fixed" in name else 4
    rows, columns = lit.any(1).nonzero().flatten(), lit.any(0).nonzero().flatten()
    assert rows.tolist() == list(range(start, start + 28))
    assert columns.tolist() == list(range(start + 1, start + 28))       # the first column is black


def test_the_published_fashion_background_overflows_eight_bits():
    table = overflowing_background().astype(int)
    ramp = [tuple(table[p, 0]) for p in (0, 32, 64, 128, 192, 255)]
    assert ramp == [(255, 0, 0), (191, 224, 224), (127, 192, 192), (255, 128, 128), (127, 64, 64), (1, 1, 1)]
    p, c = np.meshgrid(np.arange(256), (0, 128, 255), indexing="ij")
    formula = (255 * c + p * (65025 - c)) // 255 % 256
    actual = np.stack([table[:, 0, 1], table[:, 1, 1], table[:, 0, 0]], 1)
    gap = (actual - formula) % 256
    assert set(np.unique(gap)) <= {0, 1, 255} and (gap > 0).sum() == 63


def test_the_fixed_fashion_background_fades_from_the_color_to_black():
    table = SHADED_BACKGROUND.astype(int)
    assert (table[0] == PALETTE).all() and (table[255] == 0).all()
    assert (np.diff(table, axis=0) <= 0).all()


def test_the_fashion_foreground_is_the_color_scaled_by_the_pixel():
    exact = np.arange(256)[:, None, None] / 255 * PALETTE
    assert (np.abs(SHADED_FOREGROUND - np.floor(exact + 1e-9)) == 0).all()


def test_training_and_test_digits_are_on_different_writers_forms():
    digits = load_digits()
    runs = [k for k in range(1797) if digits.target[k : k + 10].tolist() == list(range(10))]
    forms = runs[:1]                    # a form begins with 0 to 9 up to three times, then has about 100 other digits
    for start in runs:
        forms += [start] if start - forms[-1] > 100 else []
    assert forms == [0, 130, 256, 386, 516, 646, 776, 915, 1029, 1157, 1287, 1415, 1545, 1667]
    data = get_dataset("Colored_Digits")
    border = len(data.train)
    assert border in forms and len(data.test) == 10 * (1797 - border)
    small = torch.from_numpy(digits.images).float().unsqueeze(1) / 16
    strokes = torch.nn.functional.interpolate(small, (16, 16), mode="bilinear").squeeze(1) * 255 >= 127.5
    train, test = (split.images.amax(1) > 0 for split in (data.train, data.test))
    assert test[::10].equal(strokes[border:]) and data.test.labels[::10].tolist() == digits.target[border:].tolist()
    assert sorted(train.flatten(1).tolist()) == sorted(strokes[:border].flatten(1).tolist())


def test_every_test_digit_appears_once_in_every_color():
    data = get_dataset("Colored_Digits")
    assert (len(data.train), len(data.test)) == (1287, 5100)
    assert data.train.images.shape[1:] == (3, 16, 16)
    assert data.train.counts().min() >= 1
    assert (data.test.counts() == data.test.counts()[0]).all()
    shapes = data.test.images.amax(1).view(510, 10, -1)                 # (digit, color, pixel)
    assert (shapes > 0).eq(shapes[:, :1] > 0).all()
    visible = data.test.images.flatten(2).amax(2)
    assert visible.equal(torch.from_numpy(PALETTE)[data.test.groups].byte())


def test_the_seed_decides_the_colors_and_global_generators_are_unchanged():
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    first, again, other = (get_dataset("Colored_Digits", data_seed=seed).train for seed in (30, 30, 31))
    assert first.images.equal(again.images) and first.groups.equal(again.groups)
    assert not first.images.equal(other.images)
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_resizing_comes_after_coloring():
    small, large = (get_dataset("Colored_Digits", im_size=size).train for size in (None, 32))
    assert large.images.shape == (1287, 3, 32, 32) and large.images.dtype == torch.uint8
    assert large.labels.equal(small.labels) and large.groups.equal(small.groups)
    assert (large.images.float().mean((0, 2, 3)) - small.images.float().mean((0, 2, 3))).abs().max() < 2


def test_gz_files_are_read_like_plain_files(idx_root, tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for path in (idx_root / "MNIST" / "raw").iterdir():
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
    packed, plain = (get_dataset("Colored_MNIST_foreground", root).test for root in (tmp_path, idx_root))
    assert packed.images.equal(plain.images) and packed.groups.equal(plain.groups)


@pytest.mark.parametrize("folder", ["MNIST/raw", "MNIST"])
def test_both_folder_layouts_are_read(idx_root, tmp_path, folder):
    shutil.copytree(idx_root / "MNIST" / "raw", tmp_path / folder)
    test, expected = (get_dataset("Colored_MNIST_foreground", root).test for root in (tmp_path, idx_root))
    assert test.images.equal(expected.images) and test.labels.equal(expected.labels)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b"",
                                    lambda data: b"\0\0\x0d" + data[3:], lambda data: data[:3] + b"\2" + data[4:]])
@pytest.mark.parametrize("is_packed", [False, True])
def test_a_damaged_file_is_named(idx_root, tmp_path, damage, is_packed):
    folder = tmp_path / "MNIST" / "raw"
    shutil.copytree(idx_root / "MNIST" / "raw", folder)
    path = folder / "t10k-images-idx3-ubyte"
    data = damage(path.read_bytes())
    if is_packed:
        path.unlink()
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(data, 1))
    else:
        path.write_bytes(data)
    with pytest.raises(UserError, match="t10k-images-idx3-ubyte: not a complete idx file"):
        get_dataset("Colored_MNIST_foreground", tmp_path)


def test_a_damaged_gz_file_is_named(idx_root, tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    shutil.copytree(idx_root / "MNIST" / "raw", folder)
    path = folder / "train-labels-idx1-ubyte"
    packed = gzip.compress(path.read_bytes())
    path.unlink()
    for content in (packed[:-20], b"no gz file", packed[:15] + b"xxxx" + packed[19:]):
        path.with_name(f"{path.name}.gz").write_bytes(content)
        with pytest.raises(UserError, match="train-labels-idx1-ubyte: not a complete idx file"):
            get_dataset("Colored_MNIST_foreground", tmp_path)


def test_images_and_labels_must_match(idx_root, tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    shutil.copytree(idx_root / "MNIST" / "raw", folder)
    write_idx(folder / "train-labels-idx1-ubyte", np.zeros(199, np.uint8))
    with pytest.raises(UserError, match="expected images of 28 x 28 pixels, each with a label from 0 to 9"):
        get_dataset("Colored_MNIST_foreground", tmp_path)


def test_without_files_and_network_the_error_explains_the_expected_files(tmp_path, monkeypatch):
    def offline(root, download):
        raise OSError("no network")
    monkeypatch.setattr("torchvision.datasets.FashionMNIST", offline)
    with pytest.raises(UserError, match=r"no network.*FashionMNIST/raw.*train-images-idx3-ubyte.*https://"):
        get_dataset("Colored_FashionMNIST_background", tmp_path)
