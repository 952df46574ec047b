"""Gradients of many sums of losses, with respect to the weights, in one forward and one backward pass.

The gradient of a layer's weights is a product of the layer's inputs and the gradients of its outputs. Both are computed
once for all images; only their product is summed segment by segment. A GPU so needs a few launches per segment instead
of a pass through the network.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from fairdd.core.device import upload
from fairdd.core.parallel import BATCH_NORM


def segment_gradients(net: nn.Module, images: Tensor, labels: Tensor, weights: Tensor, sizes: Sequence[int],
                      create_graph: bool = False) -> list[Tensor]:
    """Return, for each parameter, the gradient of each segment's weighted sum of cross entropies: (S, *its shape).

    images: (B, C, H, W), segment by segment; labels, weights: (B,), on the same device; sizes: of the S segments.
    """
    with recorded_layers(net) as calls:
        losses = F.cross_entropy(net(images), labels, reduction="none")
    slopes = torch.autograd.grad((losses * weights).sum(), [output for *_, output in calls], create_graph=create_graph)
    segments = Segments(sizes, images.device)
    gradients = {}
    with torch.set_grad_enabled(create_graph):
        for (layer, inputs, _), slope in zip(calls, slopes, strict=True):
            inputs, slope = (x.to(next(layer.parameters()).dtype) for x in (inputs, slope))     # of autocast layers
            for parameter, gradient in LAYER_GRADIENTS[type(layer)](layer, inputs, slope, segments):
                known = gradients.get(id(parameter))        # a layer may be called more than once
                gradients[id(parameter)] = gradient if known is None else known + gradient
    return [gradients[id(parameter)] for parameter in net.parameters()]


def can_sum_by_segment(net: nn.Module) -> bool:
    """Return whether every parameter belongs to a layer whose gradient is known here, and no image to another's."""
    return all(type(module) in LAYER_GRADIENTS and not (isinstance(module, BATCH_NORM) and module.training)
               for module in net.modules() if has_weights(module))


def has_weights(module: nn.Module) -> bool:
    """Return whether a module has parameters itself, not only in the modules inside it."""
    return any(True for _ in module.parameters(recurse=False))


@contextmanager
def recorded_layers(net: nn.Module) -> Iterator[list[tuple[nn.Module, Tensor, Tensor]]]:
    """Inside the block, record (layer, input, output) of every call of a layer with parameters.

    Meanwhile no layer writes over its input, which may be a recorded output.
    """
    calls, in_place = [], [module for module in net.modules() if getattr(module, "inplace", False)]
    handles = [module.register_forward_hook(lambda layer, inputs, output: calls.append((layer, *inputs, output)))
               for module in net.modules() if type(module) in LAYER_GRADIENTS and has_weights(module)]
    try:
        for module in in_place:
            module.inplace = False
        yield calls
    finally:
        for module in in_place:
            module.inplace = True
        for handle in handles:
            handle.remove()


class Segments:
    """Consecutive rows of a batch. sizes: of the S segments."""

    def __init__(self, sizes: Sequence[int], device: torch.device):
        ends = torch.tensor([0, *sizes]).cumsum(0).tolist()
        self.slices = [slice(*pair) for pair in pairwise(ends)]
        [self.ids] = upload(device, torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)))

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of each segment. (B, ...) -> (S, ...)"""
        return values.new_zeros(len(self.slices), *values.shape[1:]).index_add(0, self.ids, values)

    def map(self, product: Callable[[Tensor, Tensor], Tensor], inputs: Tensor, slopes: Tensor) -> Tensor:
        """Return product(inputs, slopes) of every segment. (B, ...), (B, ...) -> (S, ...)"""
        return torch.stack([product(inputs[rows], slopes[rows]) for rows in self.slices])


def convolution_gradients(layer: nn.Conv2d, inputs: Tensor, slopes: Tensor, segments: Segments) -> Iterator:
    """Yield (parameter, gradients of all segments) of a convolution. inputs: (B, I, H, W); slopes: (B, O, H, W)"""
    geometry = layer.stride, layer.padding, layer.dilation, layer.groups
    yield layer.weight, segments.map(lambda x, g: conv2d_weight(x, layer.weight.shape, g, *geometry), inputs, slopes)
    if layer.bias is not None:
        yield layer.bias, segments.sum(slopes.sum((2, 3)))


def linear_gradients(layer: nn.Linear, inputs: Tensor, slopes: Tensor, segments: Segments) -> Iterator:
    """Yield (parameter, gradients of all segments) of a linear layer. inputs: (B, I); slopes: (B, O)"""
    yield layer.weight, segments.map(lambda x, g: g.t() @ x, inputs, slopes)
    if layer.bias is not None:
        yield layer.bias, segments.sum(slopes)


def norm_gradients(layer: nn.Module, inputs: Tensor, slopes: Tensor, segments: Segments) -> Iterator:
    """Yield (parameter, gradients of all segments) of a norm layer. inputs, slopes: (B, C, H, W)"""
    is_shared = not isinstance(layer, nn.LayerNorm)                     # one weight for all pixels of a channel
    for parameter, slope in ((layer.weight, slopes * normalized(layer, inputs)), (layer.bias, slopes)):
        yield parameter, segments.sum(slope.sum((2, 3)) if is_shared else slope)


def normalized(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Return the output of a norm layer before its weight and bias. (B, C, H, W)"""
    if isinstance(layer, nn.GroupNorm):
        return F.group_norm(inputs, layer.num_groups, eps=layer.eps)
    if isinstance(layer, nn.LayerNorm):
        return F.layer_norm(inputs, layer.normalized_shape, eps=layer.eps)
    return F.batch_norm(inputs, layer.running_mean, layer.running_var, eps=layer.eps)


LAYER_GRADIENTS = {nn.Conv2d: convolution_gradients, nn.Linear: linear_gradients, nn.GroupNorm: norm_gradients,
                   nn.LayerNorm: norm_gradients, nn.BatchNorm2d: norm_gradients}
