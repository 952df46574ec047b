"""The synthetic set: ipc learnable images of every class, and the optimiser that moves their pixels."""

import torch

from fairdd.errors import UserError
from fairdd.seeds import numpy_generator, torch_generator

MOMENTUM = 0.5


class SynSet:
    """images: (M, C, H, W) normalised float32, M = classes x ipc, class after class; labels: (M,) int64, CPU."""

    def __init__(self, images, labels, lr_img):
        self.images = images.detach().clone().requires_grad_(True)
        self.labels = labels
        self.optimizer = torch.optim.SGD([self.images], lr=lr_img, momentum=MOMENTUM)

    def __len__(self):
        return len(self.labels)

    def batch(self, index):
        """The images at index (B,), cut off from the pixels' gradient: to train a network on."""
        return self.images.detach()[index.to(self.images.device)]

    def of_class(self, label):
        """The images of one class, with the pixels' gradient. -> (ipc, C, H, W)"""
        return self.images[self.labels == label]

    def content(self):
        """[images, labels], on the CPU, cut off from everything: what other tools read."""
        return [self.images.detach().cpu().clone(), self.labels.clone()]

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


def start(real, ipc, init, lr_img, *key):
    """A synthetic set as it is before the first iteration. init: a name of STARTS."""
    labels = torch.arange(real.num_classes).repeat_interleave(ipc)
    if init == "noise":
        shape = (len(labels), *real.images.shape[1:])
        images = torch.randn(shape, generator=torch_generator(*key, "start")).to(real.images.device)
    else:
        check_ipc(real, ipc)
        choose = {"real": choose_real, "balanced": choose_balanced}[init]
        generator = numpy_generator(*key, "start")
        rows = [choose(real, label, ipc, generator) for label in range(real.num_classes)]
        images = real.batch(torch.cat(rows))
    return SynSet(images, labels, lr_img)


STARTS = ("real", "balanced", "noise")


def check_ipc(real, ipc):
    """Refuse to start from more images of a class than there are."""
    for name, size in zip(real.class_names, real.counts().sum(0).tolist(), strict=True):
        if ipc > size:
            raise UserError(f"--ipc {ipc} asks for more images than class {name!r} has ({size}); "
                            "take a smaller --ipc or --init noise")


def choose_real(real, label, ipc, generator):
    """ipc random images of a class, so groups appear in their proportions. -> (ipc,) rows of real"""
    rows = (real.labels == label).nonzero().flatten()
    return rows[generator.permutation(len(rows))[:ipc]]


def choose_balanced(real, label, ipc, generator):
    """The same number from every group of a class, as far as its images reach; which group gives one more is drawn."""
    groups = generator.permutation(real.num_groups)
    cells = [((real.labels == label) & (real.groups == g)).nonzero().flatten() for g in groups.tolist()]
    cells = [cell[generator.permutation(len(cell))] for cell in cells]
    rank = torch.cat([torch.arange(len(cell)) for cell in cells])       # the r-th image that its group gives
    return torch.cat(cells)[rank.argsort(stable=True)[:ipc]]
