"""Networks whose layers torch.compile fuses (--compile). New networks of one architecture share its compilation.

Each kind of call (training, testing, embedding, with a graph or without) is compiled when it first happens, and once
more when its batch has another size; from then on any size will do.
"""

import functools
import shutil
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fairdd.core.errors import UserError


class CompiledNetwork(nn.Module):
    """A network whose forward and embed are compiled. It has no gradients of gradients, which DC and IDC need."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return compiled(call)(self.net, images)

    def embed(self, images: Tensor) -> Tensor:
        return compiled(call_embed)(self.net, images)


def call(net: nn.Module, images: Tensor) -> Tensor:
    return net(images)


def call_embed(net: nn.Module, images: Tensor) -> Tensor:
    return net.embed(images)


@functools.cache
def compiled(function: Callable) -> Callable:
    """Return the function, compiled; the weights of its network are inputs, so that any network will do."""
    return torch.compile(function)


def check_compiler(device: str) -> None:
    """Raise UserError if torch.compile lacks the C++ compiler that it needs on a CPU."""
    if device == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise UserError("--compile needs a C++ compiler on a CPU (g++ or clang++), and none is installed")
