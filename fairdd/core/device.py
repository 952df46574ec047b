"""Copies from the host to a GPU: few, and none for which the host waits. On a CPU nothing is copied.

A GPU takes about as long to begin a copy as to compute a layer of a small network, so tensors that are needed together
travel as one block of bytes.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

ALIGNMENT = 256         # bytes; where each tensor of a block begins, as the GPU's own allocator aligns


def upload(device: torch.device, *tensors: Tensor) -> Sequence[Tensor]:
    """Return CPU tensors on the device, copied as one block; the same tensors if the device is a CPU."""
    if device.type == "cpu":
        return tensors
    starts, size = [], 0
    for tensor in tensors:
        starts.append(size)
        size += -(-tensor.numel() * tensor.element_size() // ALIGNMENT) * ALIGNMENT
    block = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
    for tensor, start in zip(tensors, starts, strict=True):
        as_dtype(block, start, tensor).copy_(tensor)
    block = block.to(device, non_blocking=True)
    return [as_dtype(block, start, tensor) for tensor, start in zip(tensors, starts, strict=True)]


def as_dtype(block: Tensor, start: int, like: Tensor) -> Tensor:
    """Return the bytes of a block from start on as a tensor of another's type and shape, without a copy."""
    return block[start : start + like.numel() * like.element_size()].view(like.dtype).view(like.shape)


def free_bytes(device: torch.device) -> float:
    """Return how much memory a GPU has free; infinity for other devices, whose images are where they compute."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf


def upload_network(net: nn.Module, device: torch.device) -> nn.Module:
    """Move a network's weights and buffers to the device, in place, as one block; return the network."""
    if device.type == "cpu":
        return net
    tables = [table for module in net.modules() for table in (module._parameters, module._buffers)]
    tensors = {id(tensor): tensor for table in tables for tensor in table.values() if tensor is not None}
    uploaded = dict(zip(tensors, upload(device, *(tensor.detach() for tensor in tensors.values())), strict=True))
    for key, tensor in tensors.items():
        if isinstance(tensor, nn.Parameter):
            uploaded[key] = nn.Parameter(uploaded[key], tensor.requires_grad)
    for table in tables:
        table.update((name, uploaded[id(tensor)]) for name, tensor in table.items() if tensor is not None)
    return net
