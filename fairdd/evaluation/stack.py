"""Networks of the same layers as one network of that many times the width: on a GPU, ten cost the launches of one.

The channels of the networks lie one after another. Convolutions become grouped ones, and norms normalize as many more
channels, so that no network sees another's. Layers without parameters do not notice.
"""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NetworkStack(nn.Module):
    """N networks as one, each with images of its own. (N * B, C, H, W), network by network -> (N * B, classes)

    Its parameters and buffers have the names of the networks' own; theirs lie one after another in the first dimension.
    """

    def __init__(self, nets: Sequence[nn.Module]):
        super().__init__()
        self.nets = list(nets)          # a list, so that they are not modules of this one
        self.net = stack_layers(self.nets)

    def forward(self, images: Tensor) -> Tensor:
        count = len(self.nets)
        side_by_side = images.unflatten(0, (count, -1)).transpose(0, 1).flatten(1, 2)       # (B, N * C, H, W)
        return self.net(side_by_side).unflatten(1, (count, -1)).transpose(0, 1).flatten(0, 1)

    def unstack(self) -> list[nn.Module]:
        """Return the networks with the weights and buffers that they have now."""
        stacked = self.net.state_dict()
        for number, net in enumerate(self.nets):
            net.load_state_dict({name: stacked[name].view(len(self.nets), *tensor.shape)[number] if tensor.ndim
                                 else stacked[name] for name, tensor in net.state_dict().items()})
        return self.nets


def can_stack(net: nn.Module) -> bool:
    """Return whether every layer with parameters is one that can be stacked."""
    return all(type(module) in STACKABLE for module in net.modules() if any(True for _ in module.parameters(False)))


def stack_layers(layers: Sequence[nn.Module]) -> nn.Module:
    """Return one layer that does what each of the layers does to its part of the channels."""
    count, stacked = len(layers), copy.copy(layers[0])
    stacked._modules = {name: stack_layers([layer.get_submodule(name) for layer in layers])
                        for name, _ in layers[0].named_children()}
    for table in ("_parameters", "_buffers"):
        tensors = [getattr(layer, table) for layer in layers]
        setattr(stacked, table, {name: concatenate([of_layer[name] for of_layer in tensors]) for name in tensors[0]})
    if isinstance(stacked, nn.Conv2d):
        stacked.groups *= count
    elif isinstance(stacked, nn.GroupNorm):
        stacked.num_groups, stacked.num_channels = count * stacked.num_groups, count * stacked.num_channels
    elif isinstance(stacked, nn.BatchNorm2d):
        stacked.num_features *= count
    elif type(stacked) in FORWARDS:
        stacked.forward = lambda images: FORWARDS[type(stacked)](stacked, images, count)
    return stacked


def concatenate(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """Return parameters, or buffers, of several layers as one; numbers () and None are the same for all."""
    first = tensors[0]
    if first is None or first.ndim == 0:
        return copy.deepcopy(first)
    joined = torch.cat([tensor.detach() for tensor in tensors])
    return nn.Parameter(joined, first.requires_grad) if isinstance(first, nn.Parameter) else joined


def stacked_linear(layer: nn.Linear, inputs: Tensor, count: int) -> Tensor:
    """(B, N * I) -> (B, N * O)"""
    inputs, weight = inputs.unflatten(1, (count, -1)).transpose(0, 1), layer.weight.unflatten(0, (count, -1))
    outputs = torch.baddbmm(layer.bias.view(count, 1, -1), inputs, weight.transpose(1, 2))
    return outputs.transpose(0, 1).flatten(1)


def stacked_layer_norm(layer: nn.LayerNorm, maps: Tensor, count: int) -> Tensor:
    """(B, N * C, H, W) -> the same shape; every C of the channels are normalized together"""
    normalized = F.layer_norm(maps.unflatten(1, (count, -1)), layer.normalized_shape, eps=layer.eps).flatten(1, 2)
    return torch.addcmul(layer.bias, normalized, layer.weight)


STACKABLE = {nn.Conv2d, nn.GroupNorm, nn.BatchNorm2d, nn.Linear, nn.LayerNorm}
FORWARDS = {nn.Linear: stacked_linear, nn.LayerNorm: stacked_layer_norm}
