"""A user's classes in their "-S" form (datasets/gray.py): --skew draws which training images are gray."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from fairdd.core.errors import UserError
from fairdd.core.parallel import chunk_slices
from fairdd.datasets.base import GroupedImages
from fairdd.datasets.files import preview
from fairdd.datasets.gray import GROUPS, choose_gray, in_both_forms, to_gray
from fairdd.datasets.splits import Attribute

PROTECTED = "color"     # the attribute that is drawn
CHUNK = 1024            # images converted at a time


def check_protected(request) -> None:
    """Raise UserError if --skew is given with another protected attribute than color."""
    if request.skew is not None and request.protected_attr != PROTECTED:
        raise UserError(f"--skew makes images of a Folder gray or leaves them in color: it needs --protected_attr "
                        f"{PROTECTED}, not {request.protected_attr or 'the column group'}")


def make_gray(images: torch.Tensor, target: Attribute, train: np.ndarray, request) -> Attribute:
    """Turn drawn training images gray, in place; return the attribute of all images: gray or in color.

    images: (N, 3, H, W) uint8; train: the indices of the training images
    """
    order = np.random.RandomState(request.data_seed).permutation(train)
    gray = np.sort(order[choose_gray(target.values[order], request.skew, len(target.names))])
    pixels = images.numpy()
    for chunk in chunk_slices(len(gray), CHUNK):
        pixels[gray[chunk]] = to_gray(pixels[gray[chunk]])
    values = np.ones(len(images), np.int64)
    values[gray] = 0
    return Attribute(values, GROUPS)


def show_both_forms(images: GroupedImages) -> GroupedImages:
    """Return every image in gray, then every image in color."""
    if not len(images):
        return images
    arrays = map(torch.from_numpy, in_both_forms(images.images.numpy(), images.labels.numpy()))
    return replace(images, **dict(zip(("images", "labels", "groups"), arrays, strict=True)))


def describe_gray(names: Sequence[str], skew: float) -> str:
    """Return a note on which classes are mostly gray. names: of all classes"""
    border = (len(names) + 1) // 2
    return (f"--skew {skew:g}: this share of the training images of {border} classes ({preview(names[:border])}) is "
            f"gray, of {len(names) - border} ({preview(names[border:])}) in color; the test shows every image in both")
