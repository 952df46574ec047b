"""The colored sets: a gray picture gets one of ten colors, which in training goes mostly with the class.

The one idea: every coloring is a table from (pixel value, color) to RGB, so a whole set is colored by look-up.
A name without suffix gives the published images with their two quirks (the picture is padded on the top and left
only; the Fashion background overflows 8 bits); the suffix _fixed gives what was meant.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np
import torch

from fairdd.datasets.base import Dataset, GroupedImages, resize
from fairdd.datasets.grayscale import DIGITS, FASHION, read_digits, read_idx_set

PALETTE = np.array([(255, 0, 0), (255, 128, 0), (255, 255, 0), (255, 255, 128), (0, 255, 0), (0, 255, 255),
                    (0, 0, 255), (128, 0, 255), (255, 0, 255), (255, 255, 255)])
COLOR_NAMES = ("red", "orange", "yellow", "pale yellow", "green", "cyan", "blue", "violet", "magenta", "white")
PIXEL = np.arange(256)[:, None, None]       # broadcasts with PALETTE to a (256, 10, 3) table
SKEW = 0.9


def load_colored(request):
    """Any colored set, by its recipe. mean and std 0.5."""
    recipe = COLORING_SPECS[request.name]
    train, test = recipe.read(request)
    generator = np.random.RandomState(request.data_seed)        # one stream: training first, then test
    skew = SKEW if request.skew is None else request.skew
    train_draw = assign_colors(train.labels, skew, generator, recipe.deal)
    test_draw = recipe.test_draw(test.labels, generator)
    parts = (paint(gray, *draw, recipe, request) for gray, draw in ((train, train_draw), (test, test_draw)))
    return Dataset(request.name, *parts)


def paint(gray, index, colors, recipe, request):
    """The pictures at index (N,), each in its color (N,), whose number is its group. -> GroupedImages"""
    images = color_in(gray.pixels[index], colors, recipe.table())
    half = (0.5, 0.5, 0.5)
    return GroupedImages(resize(torch.from_numpy(images), request.im_size),
                         torch.from_numpy(gray.labels[index]), torch.from_numpy(colors),
                         recipe.class_names, COLOR_NAMES, half, half)


def assign_colors(labels, skew, generator, deal):
    """Give ⌊skew·n⌋ pictures of each class its own color and deal the rest to the other nine.

    labels: (N,) -> order (N,) of the pictures, shuffled, and colors (N,)
    """
    buckets = [[] for _ in PALETTE]
    for label in range(len(PALETTE)):
        members = np.flatnonzero(labels == label)
        others = (label + np.arange(1, len(PALETTE))) % len(PALETTE)
        generator.shuffle(members)
        generator.shuffle(others)
        own = floor_share(skew, len(members))
        buckets[label].append(members[:own])
        for color, share in zip(others, deal(members[own:], len(others)), strict=True):
            buckets[color].append(share)
    colors = np.repeat(np.arange(len(PALETTE)), [sum(map(len, bucket)) for bucket in buckets])
    shuffled = generator.permutation(len(labels))
    return np.concatenate(list(chain(*buckets)))[shuffled], colors[shuffled]


def deal_chunks(rest, count):
    """Equal chunks, the last one short (or, of a small rest, the last ones empty), as published."""
    chunk = math.ceil(len(rest) / count)
    return [rest[place * chunk : (place + 1) * chunk] for place in range(count)]


def floor_share(share, count):
    """⌊share·count⌋ of the decimal number that was meant: 0.29 of 100 is 29, though 0.29 * 100 is 28.99…96."""
    return math.floor(share * count + 1e-9)


def nearly_uniform(labels, generator):
    """One tenth of a class in each color, but for the short last chunk. -> order (N,), colors (N,)"""
    return assign_colors(labels, 0.1, generator, deal_chunks)


def every_color(labels, _generator):
    """Every picture once in every color. labels: (N,) -> order (10 N,), colors (10 N,)"""
    return np.repeat(np.arange(len(labels)), len(PALETTE)), np.tile(np.arange(len(PALETTE)), len(labels))


def color_in(pixels, colors, table):
    """pixels: (N, H, W) uint8; colors: (N,); table: (256, 10, 3) uint8 -> images (N, 3, H, W) uint8"""
    images = np.empty((len(pixels), 3, *pixels.shape[1:]), np.uint8)
    for color in range(len(PALETTE)):
        chosen = colors == color
        images[chosen] = np.moveaxis(table[pixels[chosen], color], -1, 1)
    return images


def binary_foreground():
    """A bright pixel (128 or more) takes the color, a dark one is black. -> (256, 10, 3) uint8"""
    return np.where(PIXEL >= 128, PALETTE, 0).astype(np.uint8)


def binary_background():
    """A dark pixel takes the color, a bright one (128 or more) is black. -> (256, 10, 3) uint8"""
    return np.where(PIXEL < 128, PALETTE, 0).astype(np.uint8)


def shaded_foreground():
    """The color, as bright as the pixel: ⌊p·c / 255⌋. -> (256, 10, 3) uint8"""
    return (PIXEL * PALETTE // 255).astype(np.uint8)


def shaded_background():
    """From the color (p = 0) to black (p = 255), as MNIST's: ⌊c (255 − p) / 255⌋. -> (256, 10, 3) uint8"""
    return ((255 - PIXEL) * PALETTE // 255).astype(np.uint8)


def overflowing_background():
    """The published Fashion background: a blend from the color to 255 times white, cut to 8 bits.

    trunc(c + p (65025 − c) / 255) mod 256, in float32 and in this order, because published pixels show its rounding
    (63 of the 768 values differ by one level from the exact formula). -> (256, 10, 3) uint8
    """
    darkness = np.float32(255 - PIXEL) / np.float32(255)
    value = np.float32(255) + darkness * (np.float32(PALETTE) / np.float32(255) - np.float32(255))
    return (np.trunc(np.float32(255) * value).astype(np.int64) % 256).astype(np.uint8)


@dataclass(frozen=True)
class ColoringSpec:
    """How a colored set is made: the gray pictures, the table that colors them, who gets which color."""

    read: Callable
    table: Callable
    class_names: tuple
    deal: Callable = deal_chunks
    test_draw: Callable = nearly_uniform


TOP_LEFT, CENTERED = 4, 2        # where 28 x 28 pixels lie in 32 x 32: published (nothing on the other sides), meant


def recipes():
    """The table of colored sets: each of the four published ones also as _fixed."""
    tables = {
        ("MNIST", "foreground"): (binary_foreground, binary_foreground),
        ("MNIST", "background"): (binary_background, binary_background),
        ("FashionMNIST", "foreground"): (shaded_foreground, shaded_foreground),
        ("FashionMNIST", "background"): (overflowing_background, shaded_background),
    }
    names = {"MNIST": DIGITS, "FashionMNIST": FASHION}
    made = {"Colored_Digits": ColoringSpec(read_digits, binary_foreground, DIGITS, np.array_split, every_color)}
    for (source, place), choices in tables.items():
        for suffix, offset, table in zip(("", "_fixed"), (TOP_LEFT, CENTERED), choices, strict=True):
            read = partial(read_idx_set, source, offset)
            made[f"Colored_{source}_{place}{suffix}"] = ColoringSpec(read, table, names[source])
    return made


COLORING_SPECS = recipes()
