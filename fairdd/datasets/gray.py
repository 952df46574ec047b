"""The "-S" form of a data set: the first half of its classes is mostly gray, the others are mostly in color.

Wang et al.: Towards Fairness in Visual Recognition, CVPR 2020. Every test image appears in both forms.
"""

import numpy as np
from PIL import Image

from fairdd.datasets.colored import floor_share

GROUPS = ("gray", "color")


def choose_gray(labels: np.ndarray, skew: float, num_classes: int) -> np.ndarray:
    """Choose the first ⌊skew·n⌋ images of each class of the first half, the first n − ⌊skew·n⌋ of each other class.

    Of an odd number of classes, the one in the middle belongs to the first half. labels: (N,) -> (N,) bool
    """
    gray = np.zeros(len(labels), bool)
    for label in range(num_classes):
        members = np.flatnonzero(labels == label)
        majority = floor_share(skew, len(members))
        gray[members[: majority if 2 * label < num_classes else len(members) - majority]] = True
    return gray


def to_gray(images: np.ndarray) -> np.ndarray:
    """Replace each pixel by its luma (ITU-R 601), as Pillow does. (N, 3, H, W) uint8 -> same"""
    count, _, height, width = images.shape
    column = images.transpose(0, 2, 3, 1).reshape(count * height, width, 3)         # all images, stacked
    luma = np.asarray(Image.fromarray(column).convert("L")).reshape(count, 1, height, width)
    return luma.repeat(3, axis=1)


def in_both_forms(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return all images in gray, then all in color, with their labels and groups. (N, 3, H, W), (N,) -> 2 N of each"""
    return np.concatenate([to_gray(images), images]), np.tile(labels, 2), np.repeat((0, 1), len(labels))
