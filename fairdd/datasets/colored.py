"""The colored sets: gray images get one of ten colors; in training, most images of a class get the class's own color.

A coloring is a table from (gray level, color) to RGB, so a whole set is colored by look-up. A name without suffix gives
the published images with their two quirks (padding on the top and left only; the background of Fashion-MNIST overflows
8 bits). The suffix _fixed gives centered images and a background without overflow.
"""

import gzip
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F

from fairdd.core.errors import UserError
from fairdd.datasets.base import Dataset, GroupedImages, resize
from fairdd.datasets.files import download

PALETTE = np.array([(255, 0, 0), (255, 128, 0), (255, 255, 0), (255, 255, 128), (0, 255, 0), (0, 255, 255),
                    (0, 0, 255), (128, 0, 255), (255, 0, 255), (255, 255, 255)])
COLOR_NAMES = ("red", "orange", "yellow", "pale yellow", "green", "cyan", "blue", "violet", "magenta", "white")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
GARMENTS = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
LINKS = {"MNIST": "http://yann.lecun.com/exdb/mnist/",
         "FashionMNIST": "https://github.com/zalandoresearch/fashion-mnist"}
FILES = tuple(f"{split}-{kind}" for split in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"))
MAX_IDX_BYTES = 16 + 60_000 * 28 * 28       # size of the largest idx file, unpacked
LEVEL = np.arange(256)[:, None, None]       # gray levels; they broadcast with PALETTE to tables (256, 10, 3)
BINARY_FOREGROUND = np.where(LEVEL >= 128, PALETTE, 0).astype(np.uint8)     # dark pixels are black
BINARY_BACKGROUND = np.where(LEVEL < 128, PALETTE, 0).astype(np.uint8)      # bright pixels are black
SHADED_FOREGROUND = (LEVEL * PALETTE // 255).astype(np.uint8)               # from black to the color
SHADED_BACKGROUND = ((255 - LEVEL) * PALETTE // 255).astype(np.uint8)       # from the color to black
WRITER_BORDER = 1287    # a form begins here (scikit-learn MOOC, "Sample grouping": 0, 130, 256, ..., 1157, 1287, ...)
SKEW = 0.9
MINORITIES = ("equal", "unequal")           # sizes of a class's groups without its own color
PUBLISHED, CENTERED = 4, 2                  # offset of the 28 x 28 pixels from the top and left of 32 x 32


def load_colored(request) -> Dataset:
    """Load the colored set of that name. mean and std are 0.5."""
    spec = COLORING_SPECS[request.name]
    (train, train_labels), (test, test_labels) = spec.read(request)
    generator = np.random.RandomState(request.data_seed)        # one stream: training first, then test
    skew = SKEW if request.skew is None else request.skew
    divide = rising_chunks if request.minorities == "unequal" else spec.divide
    train_draw = assign_colors(train_labels, skew, generator, divide)
    test_draw = spec.draw_test(test_labels, generator)
    return Dataset(request.name, colorize(train, train_labels, *train_draw, spec, request.im_size),
                   colorize(test, test_labels, *test_draw, spec, request.im_size))


def colorize(pixels, labels, index, colors, spec, size) -> GroupedImages:
    """Color the images at index (N,); the number of an image's color, colors (N,), is its group."""
    images = np.moveaxis(spec.table[pixels[index], colors[:, None, None]], -1, 1)
    images = resize(torch.from_numpy(np.ascontiguousarray(images)), size)
    half = (0.5, 0.5, 0.5)
    return GroupedImages(images, torch.from_numpy(labels[index]), torch.from_numpy(colors), spec.class_names,
                         COLOR_NAMES, half, half)


def assign_colors(labels: np.ndarray, skew: float, generator, divide: Callable) -> tuple[np.ndarray, np.ndarray]:
    """Give ⌊skew·n⌋ images of each class its own color and divide the rest among the other nine colors.

    divide: takes the rest and nine, returns the images of each other color; the order of these colors is drawn.
    labels: (N,) -> index (N,) of the images, shuffled, and colors (N,)
    """
    buckets = [[] for _ in PALETTE]
    for label in range(len(PALETTE)):
        members = np.flatnonzero(labels == label)
        others = (label + np.arange(1, len(PALETTE))) % len(PALETTE)
        generator.shuffle(members)
        generator.shuffle(others)
        own = floor_share(skew, len(members))
        buckets[label].append(members[:own])
        for color, share in zip(others, divide(members[own:], len(others)), strict=True):
            buckets[color].append(share)
    colors = np.repeat(np.arange(len(PALETTE)), [sum(map(len, bucket)) for bucket in buckets])
    order = generator.permutation(len(labels))
    return np.concatenate(list(chain(*buckets)))[order], colors[order]


def equal_chunks(rest: np.ndarray, count: int) -> list[np.ndarray]:
    """Divide into count equal chunks, the last one short (or, of few images, the last ones empty), as published."""
    size = math.ceil(len(rest) / count)
    return [rest[k * size : (k + 1) * size] for k in range(count)]


def rising_chunks(rest: np.ndarray, count: int) -> list[np.ndarray]:
    """Divide into count chunks in the ratio 1 : 2 : ... : count, as in FairDD, table 21, by largest remainder."""
    ratio = np.arange(1, count + 1)
    sizes, remainders = np.divmod(len(rest) * ratio, ratio.sum())
    left = len(rest) - sizes.sum()
    sizes[np.argsort(remainders, kind="stable")[count - left :]] += 1
    return np.split(rest, sizes.cumsum()[:-1])


def floor_share(share: float, count: int) -> int:
    """Return ⌊share·count⌋ for the decimal number meant: 0.29 of 100 is 29, although 0.29 * 100 is 28.99…96."""
    return math.floor(share * count + 1e-9)


def nearly_uniform(labels: np.ndarray, generator) -> tuple[np.ndarray, np.ndarray]:
    """Give each color to one tenth of a class, but for the short last chunk. -> index (N,), colors (N,)"""
    return assign_colors(labels, 0.1, generator, equal_chunks)


def every_color(labels: np.ndarray, _generator) -> tuple[np.ndarray, np.ndarray]:
    """Show every image once in every color. labels: (N,) -> index (10 N,), colors (10 N,)"""
    return np.repeat(np.arange(len(labels)), len(PALETTE)), np.tile(np.arange(len(PALETTE)), len(labels))


def overflowing_background() -> np.ndarray:
    """Return the published background of Fashion-MNIST: a blend from the color to 255 times white, cut to 8 bits.

    trunc(c + p (65025 − c) / 255) mod 256, in float32 and in this order, because published pixels show its rounding
    (63 of the 768 values differ by one level from the exact formula). -> (256, 10, 3) uint8
    """
    darkness = np.float32(255 - LEVEL) / np.float32(255)
    value = np.float32(255) + darkness * (np.float32(PALETTE) / np.float32(255) - np.float32(255))
    return (np.trunc(np.float32(255) * value).astype(np.int64) % 256).astype(np.uint8)


def read_digits(_request) -> tuple:
    """Read scikit-learn's 1,797 digits, ordered by writer, at 16 x 16. -> (pixels, labels) of training and test

    The first ten forms train, the last four, filled in by other writers, test.
    """
    from sklearn.datasets import load_digits  # slow to import

    bunch = load_digits()
    small = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16
    large = F.interpolate(small, (16, 16), mode="bilinear", align_corners=False).squeeze(1)
    pixels, labels = (large * 255).round().byte().numpy(), bunch.target.astype(np.int64)
    return (pixels[:WRITER_BORDER], labels[:WRITER_BORDER]), (pixels[WRITER_BORDER:], labels[WRITER_BORDER:])


def read_mnist(source: str, offset: int, request) -> tuple:
    """Read MNIST or FashionMNIST, padded to 32 x 32. -> (pixels, labels) of training and test. Raises UserError."""
    folder = find_idx_files(source, request.data_path)
    train, train_labels, test, test_labels = (read_idx(folder / name) for name in FILES)
    pairs = (train, train_labels), (test, test_labels)
    for images, labels in pairs:
        if images.shape != (*labels.shape, 28, 28) or labels.max(initial=0) > 9:
            raise UserError(f"{folder}: expected images of 28 x 28 pixels, each with a label from 0 to 9; remove the "
                            "files and download them again")
    margins = (0, 0), *[(offset, 4 - offset)] * 2
    return tuple((np.pad(images, margins), labels) for images, labels in pairs)


def find_idx_files(source: str, root: Path) -> Path:
    """Return the folder with the four idx files, plain or .gz; download them if they are absent."""
    folders = [root / source / "raw", root / source]
    for folder in folders:
        if all((folder / name).exists() or (folder / f"{name}.gz").exists() for name in FILES):
            return folder
    tree = f"{root / source}/raw/{{{','.join(FILES)}}}, plain or as .gz"
    download(source, root, folders, tree, LINKS[source])
    return folders[0]


def read_idx(path: Path) -> np.ndarray:
    """Read images or labels from an idx file, or from path.gz if it is absent. Raises UserError if it is damaged."""
    from torchvision.datasets import mnist  # slow to import

    read = mnist.read_image_file if "images" in path.name else mnist.read_label_file
    try:
        if path.exists():
            return read(path).numpy()
        with gzip.open(f"{path}.gz") as packed, TemporaryDirectory() as folder:
            plain = Path(folder, path.name)
            plain.write_bytes(packed.read(MAX_IDX_BYTES + 1))       # a longer file does not match its header
            return read(plain).numpy()
    except Exception as error:      # gzip and torchvision raise many kinds on a damaged file
        raise UserError(f"{path}: not a complete idx file ({error!r}); remove it and download it again") from error


@dataclass(frozen=True)
class ColoringSpec:
    """How to make a colored set: read gray images, color them with a table, divide the colors among them."""

    read: Callable
    table: np.ndarray
    class_names: tuple[str, ...]
    divide: Callable = equal_chunks
    draw_test: Callable = nearly_uniform


def mnist_spec(source: str, offset: int, table: np.ndarray) -> ColoringSpec:
    """Return the spec of a colored MNIST or FashionMNIST."""
    return ColoringSpec(partial(read_mnist, source, offset), table, DIGITS if source == "MNIST" else GARMENTS)


COLORING_SPECS = {
    "Colored_Digits": ColoringSpec(read_digits, BINARY_FOREGROUND, DIGITS, np.array_split, every_color),
    "Colored_MNIST_foreground": mnist_spec("MNIST", PUBLISHED, BINARY_FOREGROUND),
    "Colored_MNIST_foreground_fixed": mnist_spec("MNIST", CENTERED, BINARY_FOREGROUND),
    "Colored_MNIST_background": mnist_spec("MNIST", PUBLISHED, BINARY_BACKGROUND),
    "Colored_MNIST_background_fixed": mnist_spec("MNIST", CENTERED, BINARY_BACKGROUND),
    "Colored_FashionMNIST_foreground": mnist_spec("FashionMNIST", PUBLISHED, SHADED_FOREGROUND),
    "Colored_FashionMNIST_foreground_fixed": mnist_spec("FashionMNIST", CENTERED, SHADED_FOREGROUND),
    "Colored_FashionMNIST_background": mnist_spec("FashionMNIST", PUBLISHED, overflowing_background()),
    "Colored_FashionMNIST_background_fixed": mnist_spec("FashionMNIST", CENTERED, SHADED_BACKGROUND),
}
