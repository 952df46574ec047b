"""The contract of a data set: images with a class and a group each, and their names in words."""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F


@dataclass(frozen=True, eq=False)
class GroupedImages:
    """Images kept as uint8, each with its class (target attribute) and its group (protected attribute).

    images: (N, C, H, W) uint8; labels, groups: (N,) int64 on the CPU, counted from 0;
    mean, std: one number per channel, of images scaled to [0, 1];
    attributes: where groups are the combinations of several attributes, the (name, value names) of each; the last one's
    values vary fastest from group to group.
    """

    images: torch.Tensor
    labels: torch.Tensor
    groups: torch.Tensor
    class_names: tuple
    group_names: tuple
    mean: tuple
    std: tuple
    attributes: tuple = ()

    def __post_init__(self):
        count, channels = self.images.shape[:2]
        assert self.images.dtype == torch.uint8 and self.images.ndim == 4, "images are (N, C, H, W) uint8"
        assert self.labels.shape == self.groups.shape == (count,), "one label and one group per image"
        assert self.labels.dtype == self.groups.dtype == torch.int64, "labels and groups are int64"
        assert len(self.mean) == len(self.std) == channels, "one mean and one std per channel"
        for values, names in ((self.labels, self.class_names), (self.groups, self.group_names)):
            assert count == 0 or (values.min() >= 0 and values.max() < len(names)), "labels and groups have names"
        sizes = [len(values) for _, values in self.attributes]
        assert not sizes or math.prod(sizes) == len(self.group_names), "one group for each combination"

    def __len__(self):
        return len(self.labels)

    @property
    def num_classes(self):
        return len(self.class_names)

    @property
    def num_groups(self):
        return len(self.group_names)

    def counts(self):
        """Number of images in each cell. -> (G, C) int64"""
        cell = self.groups * self.num_classes + self.labels
        return torch.bincount(cell, minlength=self.num_groups * self.num_classes).view(self.num_groups, -1)

    def batch(self, index):
        """The images at index (B,), normalized. -> (B, C, H, W) float32 on the images' device"""
        index = index.to(self.images.device, non_blocking=True)
        return normalize(self.images[index], self.mean, self.std)

    def to(self, device):
        """The same data with its images on the device (labels and groups stay: they steer the host)."""
        return replace(self, images=self.images.to(device))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test part with the same names and scale. notes: sentences a user should read once.

    split: where it was drawn from a list without one, (path, "train" or "test") of every image.
    """

    name: str
    train: GroupedImages
    test: GroupedImages
    notes: tuple = ()
    split: tuple = ()
    val: GroupedImages | None = None

    def summary(self):
        """What a reader of results needs to know of the data: names, notes, the number of images in each cell."""
        counts = {"train": self.train.counts().tolist(), "test": self.test.counts().tolist()}
        names = {"class_names": list(self.train.class_names), "group_names": list(self.train.group_names)}
        return {"name": self.name, **names, **counts, "notes": list(self.notes)}


def normalize(images, mean, std):
    """uint8 images (B, C, H, W) -> float32 (image / 255 - mean) / std, per channel."""
    shift, scale = (torch.tensor(v, device=images.device).view(-1, 1, 1) for v in (mean, std))
    return (images.float() / 255 - shift) / scale


def denormalize(images, mean, std):
    """Inverse of normalize: float images -> values in [0, 1], clamped."""
    shift, scale = (torch.tensor(v, device=images.device).view(-1, 1, 1) for v in (mean, std))
    return (images * scale + shift).clamp(0, 1)


def resize(images, size):
    """Images (N, 3, H, W) uint8 at size x size pixels, bilinear with antialias; None or their own size: untouched."""
    if size is None or images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)
