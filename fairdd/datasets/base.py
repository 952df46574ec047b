"""The contract of a data set: uint8 images, each with a class and a group, and the names of both."""

import functools
import hashlib
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fairdd.core.device import upload

HASH_BYTES = 2**24      # hashed at a time
UNKNOWN = -1            # the group of a training image whose group is not known: it belongs to no target


@dataclass(frozen=True, eq=False)
class GroupedImages:
    """Images kept as uint8, each with its class (target attribute) and its group (protected attribute).

    images: (N, C, H, W) uint8; labels, groups: (N,) int64 on the CPU, starting at 0; a group may be UNKNOWN;
    mean, std: one number per channel, of images scaled to [0, 1];
    attributes: where groups are the combinations of several attributes, the (name, value names) of each attribute; the
    values of the last attribute vary fastest from group to group; device: of the batches, by default of the images.
    """

    images: Tensor
    labels: Tensor
    groups: Tensor
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    attributes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    device: torch.device | None = None

    def __post_init__(self):
        if self.device is None:
            object.__setattr__(self, "device", self.images.device)
        count, channels = self.images.shape[:2]
        assert self.images.dtype == torch.uint8 and self.images.ndim == 4, "images must be (N, C, H, W) uint8"
        assert self.labels.shape == self.groups.shape == (count,), "every image needs a label and a group"
        assert self.labels.dtype == self.groups.dtype == torch.int64, "labels and groups must be int64"
        assert len(self.mean) == len(self.std) == channels, "mean and std need a number per channel"
        for values, names, low in ((self.labels, self.class_names, 0), (self.groups, self.group_names, UNKNOWN)):
            assert count == 0 or (values.min() >= low and values.max() < len(names)), "labels and groups need names"
        sizes = [len(values) for _, values in self.attributes]
        assert not sizes or math.prod(sizes) == len(self.group_names), "every combination of attributes is a group"

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def num_groups(self) -> int:
        return len(self.group_names)

    def counts(self) -> Tensor:
        """Count the images of each cell, without those of UNKNOWN group. -> (G, C) int64"""
        cell = self.groups * self.num_classes + self.labels
        counts = torch.bincount(cell[self.groups != UNKNOWN], minlength=self.num_groups * self.num_classes)
        return counts.view(self.num_groups, -1)

    def class_sizes(self) -> Tensor:
        """Count the images of each class, of any group. -> (C,) int64"""
        return torch.bincount(self.labels, minlength=self.num_classes)

    def batch_groups(self, rows: Tensor) -> Tensor:
        """Return the groups of the images of a batch. (B,) -> (B,) int64"""
        return self.groups[rows]

    def batch(self, index: Tensor) -> Tensor:
        """Return the normalized images at index (B,). -> (B, C, H, W) float32 on the device

        Of images that stay on the host, only these are copied, while the device still computes what it was told before.
        """
        if self.device == self.images.device:
            [index] = upload(self.device, index)
            return normalize(self.images[index], self.mean, self.std)
        [images] = upload(self.device, self.images[index])
        return normalize(images, self.mean, self.std)

    def to(self, device: torch.device | str, copy_images: bool = True) -> "GroupedImages":
        """Return the same data for a device: with all images on it, or with images on the host and batches on it.

        Labels and groups stay on the CPU.
        """
        images = self.images.to(device) if copy_images else self.images
        return replace(self, images=images, device=images.device if copy_images else torch.device(device))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test images with the same names and normalization.

    notes: sentences the user should read once; split: where a custom set came without a split, the drawn (path,
    "train" or "test") of every image; val: validation images, which train nothing, or None; train_paths: of the
    training images, where the data set has files: their names, for a custom set their paths in its folder.
    """

    name: str
    train: GroupedImages
    test: GroupedImages
    notes: tuple[str, ...] = ()
    split: tuple[tuple[str, str], ...] = ()
    val: GroupedImages | None = None
    train_paths: tuple[str, ...] = ()

    def summary(self) -> dict:
        """Return the names, the notes and the number of images in each cell, for the files of a run."""
        counts = {"train": self.train.counts().tolist(), "test": self.test.counts().tolist()}
        names = {"class_names": list(self.train.class_names), "group_names": list(self.train.group_names)}
        return {"name": self.name, **names, **counts, "notes": list(self.notes)}

    def digest(self) -> dict[str, str]:
        """Hash all that a run depends on, so that it can refuse to resume on other data and tell what differs.

        -> a hexadecimal digest for "train images", "train labels", "train groups", ..., "class names", "group names",
        "normalization"; of the pixels, not of the files, so the same on every machine that reads the same pixels
        """
        splits = {"train": self.train, "test": self.test} | ({"val": self.val} if self.val else {})
        digests = {f"{name} {field}": digest_tensor(getattr(split, field))
                   for name, split in splits.items() for field in ("images", "labels", "groups")}
        facts = {"class names": self.train.class_names, "group names": self.train.group_names,
                 "normalization": (self.train.mean, self.train.std)}
        return digests | {name: hashlib.sha256(repr(fact).encode()).hexdigest()[:32] for name, fact in facts.items()}


def subset(images: GroupedImages, rows: Tensor) -> GroupedImages:
    """Return the images at rows (n,)."""
    return replace(images, images=images.images[rows], labels=images.labels[rows], groups=images.groups[rows])


def digest_tensor(tensor: Tensor) -> str:
    """Hash the type, shape and values of a tensor, in threads: 2 GB (CelebA) take 1.2 seconds of CPU time."""
    values = tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy()
    chunks = (values[start : start + HASH_BYTES] for start in range(0, len(values), HASH_BYTES))
    total = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for digest in pool.map(lambda chunk: hashlib.sha256(chunk).digest(), chunks):
            total.update(digest)
    return total.hexdigest()[:32]


def normalize(images: Tensor, mean: tuple, std: tuple) -> Tensor:
    """Map uint8 images (B, C, H, W) to float32 (image / 255 - mean) / std, per channel."""
    shift, scale = channel_constants(tuple(mean), tuple(std), images.device)
    return (images.float() / 255 - shift) / scale


@functools.lru_cache(16)
def channel_constants(mean: tuple, std: tuple, device: torch.device) -> list[Tensor]:
    """Return the mean and std on the device, to be combined with images (B, C, H, W). -> two tensors (C, 1, 1)"""
    return [x.view(-1, 1, 1) for x in upload(device, torch.tensor(mean), torch.tensor(std))]


def denormalize(images: Tensor, mean: tuple, std: tuple) -> Tensor:
    """Invert normalize: map float images to values in [0, 1], clamped."""
    shift, scale = channel_constants(tuple(mean), tuple(std), images.device)
    return (images * scale + shift).clamp(0, 1)


def resize(images: Tensor, size: int | None) -> Tensor:
    """Resize uint8 images (N, 3, H, W) to size x size pixels, bilinear with antialias; None keeps their size."""
    if size is None or images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)
