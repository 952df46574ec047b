"""The synthetic set: ipc learnable images of every class, and the optimizer that moves their pixels.

With a factor F (Kim et al. 2022) a stored image is a grid of F x F small ones. Before any use it is decoded: each is
cut out and enlarged to full size. So F * F times as many images are matched and trained on as are stored.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from fairdd.core.errors import UserError
from fairdd.core.rng import numpy_generator, torch_generator

MOMENTUM = 0.5


class SynSet:
    """images: (M, C, H, W) stored, normalized float32, M = classes x ipc, class after class; image_labels: (M,) theirs;
    labels: (M * factor * factor,) of the decoded images. Labels are int64, on the CPU.
    """

    def __init__(self, images, labels, lr_img, factor=1):
        self.images = images.detach().clone().requires_grad_(True)
        self.image_labels, self.labels = labels, labels.repeat_interleave(factor**2)
        self.factor = factor
        self.optimizer = torch.optim.SGD([self.images], lr=lr_img, momentum=MOMENTUM)

    def __len__(self):
        return len(self.labels)

    def expanded(self):
        """All images, decoded, with the pixels' gradient. -> (M * factor * factor, C, H, W)"""
        return expand_grid(self.images, self.factor)

    def of_class(self, label):
        """The decoded images of one class, with the pixels' gradient. -> (ipc * factor * factor, C, H, W)"""
        return expand_grid(self.images[self.image_labels == label], self.factor)

    def as_dataset(self):
        """The decoded images as they are now, cut off from the pixels' gradient: to train networks on."""
        return LabeledImages(self.expanded().detach(), self.labels)

    def to_list(self):
        """[images, labels] as stored, on the CPU, cut off from everything: what other tools read."""
        return [self.images.detach().cpu().clone(), self.image_labels.clone()]

    def state(self):
        """What the next step depends on: a copy of the images and of their momentum (None before the first step)."""
        momentum = self.optimizer.state[self.images].get("momentum_buffer")
        return {"images": self.images.detach().clone(), "momentum": None if momentum is None else momentum.clone()}

    def restore(self, state):
        """Go back to a state."""
        with torch.no_grad():
            self.images.copy_(state["images"])
        if state["momentum"] is not None:
            self.optimizer.state[self.images]["momentum_buffer"] = state["momentum"].to(self.images.device)

    def step(self, losses):
        """Move the pixels down the sum of losses, each freed before the next is made. -> the sum, detached"""
        self.optimizer.zero_grad()
        total = 0
        for loss in losses:
            loss.backward()
            total = total + loss.detach()
        self.optimizer.step()
        return total


@dataclass(frozen=True, eq=False)
class LabeledImages:
    """Images to train on. images: (N, C, H, W) normalized float32; labels: (N,) int64, CPU."""

    images: torch.Tensor
    labels: torch.Tensor

    def batch(self, index):
        """The images at index (B,)."""
        return self.images[index.to(self.images.device)]

    def to(self, device):
        """The same set with its images on the device."""
        return replace(self, images=self.images.to(device))


def expand_grid(images, factor):
    """Cut each image into factor x factor small ones, row by row, each enlarged to full size (bilinear).

    images: (M, C, H, W), H and W multiples of factor -> (M * factor * factor, C, H, W)
    """
    if factor == 1:
        return images
    count, channels, height, width = images.shape
    grid = images.reshape(count, channels, factor, height // factor, factor, width // factor)
    small = grid.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
    return F.interpolate(small, size=(height, width), mode="bilinear", align_corners=False)


def pack_grid(images, factor):
    """Store images as grids: each shrunk (mean over factor x factor pixels), factor x factor of them in one.

    images: (M * factor * factor, C, H, W) -> (M, C, H, W)
    """
    small = F.avg_pool2d(images, factor)
    _, channels, height, width = small.shape
    grid = small.view(-1, factor, factor, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(-1, channels, factor * height, factor * width)


def init_synthetic(real, ipc, init, lr_img, *key, factor=1):
    """A synthetic set as it is before the first iteration. init: a name of INITS."""
    labels = torch.arange(real.num_classes).repeat_interleave(ipc)
    if init == "noise":
        shape = (len(labels), *real.images.shape[1:])
        images = torch.randn(shape, generator=torch_generator(*key, "start")).to(real.images.device)
    else:
        check_ipc(real, ipc, factor)
        choose = {"real": choose_real, "balanced": choose_balanced}[init]
        generator = numpy_generator(*key, "start")
        rows = [choose(real, label, ipc * factor**2, generator) for label in range(real.num_classes)]
        images = pack_grid(real.batch(torch.cat(rows)), factor)
    return SynSet(images, labels, lr_img, factor)


INITS = ("real", "balanced", "noise")


def check_ipc(real, ipc, factor=1):
    """Refuse to start from more images of a class than there are."""
    flags = f"--ipc {ipc}" if factor == 1 else f"--ipc {ipc} with --factor {factor}"
    for name, size in zip(real.class_names, real.counts().sum(0).tolist(), strict=True):
        if ipc * factor**2 > size:
            raise UserError(f"{flags} asks for more images than class {name!r} has ({size}); "
                            "take a smaller --ipc or --init noise")


def choose_real(real, label, count, generator):
    """count random images of a class, so groups appear in their proportions. -> (count,) rows of real"""
    rows = (real.labels == label).nonzero().flatten()
    return rows[generator.permutation(len(rows))[:count]]


def choose_balanced(real, label, count, generator):
    """The same number from every group of a class, as far as its images reach; which group gives one more is drawn."""
    groups = generator.permutation(real.num_groups)
    cells = [((real.labels == label) & (real.groups == g)).nonzero().flatten() for g in groups.tolist()]
    cells = [cell[generator.permutation(len(cell))] for cell in cells]
    rank = torch.cat([torch.arange(len(cell)) for cell in cells])       # the r-th image that its group gives
    return torch.cat(cells)[rank.argsort(stable=True)[:count]]
