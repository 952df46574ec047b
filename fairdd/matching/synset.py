"""The synthetic set: ipc learnable images per class, and the optimizer that updates their pixels.

With a factor F (IDC, Kim et al. 2022) a stored image is a grid of F x F small ones. Before any use the grid is
expanded: each small image is cut out and enlarged to full size, so F * F times as many images are matched as stored.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fairdd.core.device import upload
from fairdd.core.errors import UserError
from fairdd.core.rng import numpy_generator, torch_generator

MOMENTUM = 0.5
INITS = ("real", "balanced", "noise", "kmeans")


class SynSet:
    """The images that are distilled.

    images: (M, C, H, W) float32 as they are optimized, M = classes * ipc, class by class: normalized, or in [0, 1] if
    the mean and std to normalize them with are given; image_labels: (M,) their labels; labels: (M * factor * factor,)
    of the expanded images. Labels are int64, on the CPU.
    """

    def __init__(self, images: Tensor, labels: Tensor, lr_img: float, factor: int = 1, momentum: float = MOMENTUM,
                 normalization: tuple | None = None):
        if normalization is not None:
            normalization = [x.view(-1, 1, 1) for x in upload(images.device, *map(torch.tensor, normalization))]
        self.normalization = normalization              # two tensors (C, 1, 1)
        self.images = self._to_stored(images.detach()).clone().requires_grad_(True)
        self.image_labels, self.labels = labels, labels.repeat_interleave(factor**2)
        self.factor = factor
        self.optimizer = torch.optim.SGD([self.images], lr=lr_img, momentum=momentum)

    def __len__(self) -> int:
        return len(self.labels)

    def expanded(self) -> Tensor:
        """Return all images, expanded, connected to the pixels by autograd. (M * factor * factor, C, H, W)"""
        return self._to_normalized(expand_grid(self.images, self.factor))

    def of_class(self, label: int) -> Tensor:
        """Return the expanded images of one class, connected to the pixels. (ipc * factor * factor, C, H, W)"""
        return self._to_normalized(expand_grid(self.images[self.image_labels == label], self.factor))

    def as_dataset(self) -> "LabeledImages":
        """Return the expanded images as they are now, detached: to train networks on."""
        return LabeledImages(self.expanded().detach(), self.labels)

    def to_list(self) -> list[Tensor]:
        """Return [images, labels] as stored, detached and on the CPU: the DC/DM `.pt` format."""
        return [self._to_normalized(self.images.detach()).cpu().clone(), self.image_labels.clone()]

    def state(self) -> dict[str, Tensor | None]:
        """Return copies of the images and of their momentum (None before the first step): all the next step needs."""
        momentum = self.optimizer.state[self.images].get("momentum_buffer")
        return {"images": self.images.detach().clone(), "momentum": None if momentum is None else momentum.clone()}

    def restore(self, state: dict[str, Tensor | None]) -> None:
        """Go back to a state."""
        with torch.no_grad():
            self.images.copy_(state["images"])
        if state["momentum"] is not None:
            self.optimizer.state[self.images]["momentum_buffer"] = state["momentum"].to(self.images.device)

    def clamp(self) -> None:
        """Limit pixels that are optimized in [0, 1] to this range (IDC)."""
        with torch.no_grad():
            self.images.clamp_(0, 1)

    def _to_stored(self, images: Tensor) -> Tensor:
        """Return normalized images on the scale on which they are optimized."""
        if self.normalization is None:
            return images
        mean, std = self.normalization
        return images * std + mean

    def _to_normalized(self, images: Tensor) -> Tensor:
        """Return images on the scale on which they are optimized as networks see them."""
        if self.normalization is None:
            return images
        mean, std = self.normalization
        return (images - mean) / std

    def step(self, images: Tensor | Sequence[Tensor], gradient: Tensor | Sequence[Tensor]) -> None:
        """Update the pixels. gradient: of the loss with respect to images, which autograd connects to the pixels."""
        self.optimizer.zero_grad()
        torch.autograd.backward(images, gradient)
        self.optimizer.step()


@dataclass(frozen=True, eq=False)
class LabeledImages:
    """Images to train on.

    images: (N, C, H, W) normalized float32; labels: (N,) int64, or soft labels (N, classes) float32, which
    F.cross_entropy takes as well; on the CPU.
    """

    images: Tensor
    labels: Tensor

    def batch(self, index: Tensor) -> Tensor:
        """Return the images at index (B,)."""
        return self.images[index.to(self.images.device)]

    def to(self, device: str) -> "LabeledImages":
        """Return the same set with its images on the device."""
        return replace(self, images=self.images.to(device))


def expand_grid(images: Tensor, factor: int) -> Tensor:
    """Cut each image into factor x factor small ones, row by row, and enlarge each to full size (bilinear).

    images: (M, C, H, W), H and W multiples of factor -> (M * factor * factor, C, H, W)
    """
    if factor == 1:
        return images
    count, channels, height, width = images.shape
    grid = images.reshape(count, channels, factor, height // factor, factor, width // factor)
    small = grid.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
    return F.interpolate(small, size=(height, width), mode="bilinear", align_corners=False)


def pack_grid(images: Tensor, factor: int) -> Tensor:
    """Shrink images (mean over factor x factor pixels) and store factor x factor of them in one.

    images: (M * factor * factor, C, H, W) -> (M, C, H, W)
    """
    small = F.avg_pool2d(images, factor)
    _, channels, height, width = small.shape
    grid = small.view(-1, factor, factor, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(-1, channels, factor * height, factor * width)


def init_synthetic(real, ipc: int, init: str, lr_img: float, *key, factor: int = 1, choose: Callable | None = None,
                   **options) -> SynSet:
    """Return the synthetic set before the first iteration.

    real: GroupedImages; init: "real", "balanced", "noise", or another with choose(label, count) -> rows of real that
    start the class; options: of SynSet.
    """
    labels = torch.arange(real.num_classes).repeat_interleave(ipc)
    if init == "noise":
        shape = (len(labels), *real.images.shape[1:])
        images = torch.randn(shape, generator=torch_generator(*key, "start")).to(real.device)
    else:
        check_ipc(real, ipc, factor)
        generator = numpy_generator(*key, "start")
        choose = choose or partial({"real": choose_random, "balanced": choose_balanced}[init], real, generator)
        rows = [choose(label, ipc * factor**2) for label in range(real.num_classes)]
        images = pack_grid(real.batch(torch.cat(rows)), factor)
    return SynSet(images, labels, lr_img, factor, **options)


def check_ipc(real, ipc: int, factor: int = 1) -> None:
    """Raise UserError if a class has fewer images than the initial synthetic set needs."""
    flags = f"--ipc {ipc}" if factor == 1 else f"--ipc {ipc} with --factor {factor}"
    for name, size in zip(real.class_names, real.class_sizes().tolist(), strict=True):
        if ipc * factor**2 > size:
            raise UserError(f"{flags} needs more images than class {name!r} has ({size}); "
                            "use a smaller --ipc or --init noise")


def choose_random(real, generator: np.random.Generator, label: int, count: int) -> Tensor:
    """Return count random rows of a class, so that groups appear in their proportions. (count,)"""
    rows = (real.labels == label).nonzero().flatten()
    return rows[generator.permutation(len(rows))[:count]]


def choose_balanced(real, generator: np.random.Generator, label: int, count: int) -> Tensor:
    """Return count rows of a class, as many from every group as it has; ties are broken at random. (count,)"""
    groups = generator.permutation(real.num_groups)
    cells = [((real.labels == label) & (real.groups == g)).nonzero().flatten() for g in groups.tolist()]
    cells = [cell[generator.permutation(len(cell))] for cell in cells]
    rank = torch.cat([torch.arange(len(cell)) for cell in cells])       # of each image within its group
    return torch.cat(cells)[rank.argsort(stable=True)[:count]]
