"""Gradient matching of many classes in one pass: a GPU's way, where launches are what a step costs.

gradient_loss chooses between this and a pass per target, which is faster on a CPU. Both give the same numbers.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fairdd.core.device import upload
from fairdd.core.parallel import CHUNK_BYTES, cut_segments, example, max_chunk_size
from fairdd.matching.alignment import Targets
from fairdd.matching.segment_gradients import segment_gradients

SECOND_ORDER = 4        # memory of a synthetic image, whose pass is differentiated again, over that of a real one


def gradient_loss_at_once(net: nn.Module, real, syn: Sequence[Tensor], targets: Targets,
                          distance: Callable, sum_targets: Callable = list) -> tuple[Tensor, list[Tensor]]:
    """Return the same as gradient_loss; classes share a pass as far as memory allows.

    sum_targets: adds up gradients of other ranks' images
    """
    device, dtype = syn[0].device, syn[0].dtype
    losses, gradients = syn[0].new_zeros(len(syn)), [torch.zeros_like(images) for images in syn]
    for labels in class_blocks(net, example(real), syn, targets):
        index = torch.isin(targets.classes, labels).nonzero().flatten()         # of this block's targets
        sizes = torch.tensor([len(syn[label]) for label in labels.tolist()])
        owners = torch.arange(len(labels)).repeat_interleave(sizes)             # of each synthetic image
        labels_of_images, shares, coefficients, positions, classes = upload(
            device, labels[owners], (1 / sizes.double())[owners].to(dtype), targets.coefficients[index].to(dtype),
            torch.searchsorted(labels, targets.classes[index]), targets.classes[index])
        real_gradients = sum_targets(target_gradients_at_once(net, real, targets, index))
        images = torch.cat([syn[label].detach() for label in labels.tolist()]).requires_grad_()
        syn_gradients = segment_gradients(net, images, labels_of_images, shares, sizes.tolist(), create_graph=True)
        distances = coefficients * distance([g.index_select(0, positions) for g in syn_gradients], real_gradients)
        losses = losses.index_add(0, classes, distances.detach())
        [gradient] = torch.autograd.grad(distances.sum(), images)
        for label, of_class in zip(labels.tolist(), gradient.split(sizes.tolist()), strict=True):
            gradients[label] = of_class
    return losses, gradients


def class_blocks(net: nn.Module, image: Tensor, syn: Sequence[Tensor], targets: Targets) -> list[Tensor]:
    """Return the labels of classes that have targets, in blocks that share a pass: list of (k,).

    A block's synthetic images, and its targets' gradients, fit the memory of a chunk or two. image: (1, C, H, W)
    """
    labels, counts = targets.classes.unique_consecutive(return_counts=True)
    sizes = torch.tensor([len(syn[label]) for label in labels.tolist()])
    gradient_bytes = sum(weight.numel() * weight.element_size() for weight in net.parameters())
    chunk_bytes = CHUNK_BYTES.get(image.device.type, CHUNK_BYTES["cuda"])
    loads = torch.maximum(SECOND_ORDER * sizes.double() / max_chunk_size(net, image),
                          counts.double() * gradient_bytes / chunk_bytes)
    blocks = (loads.cumsum(0) - loads).floor()
    return list(labels.split(blocks.unique_consecutive(return_counts=True)[1].tolist()))


def target_gradients_at_once(net: nn.Module, real, targets: Targets, index: Tensor) -> list[Tensor]:
    """Return the gradients of the targets at index (T,): for each parameter (T, *its shape)."""
    pairs = torch.isin(targets.segment_ids, index).nonzero().flatten()
    pairs = pairs[targets.segment_ids[pairs].argsort(stable=True)]
    total = None
    for rows in cut_segments([pairs], max_chunk_size(net, example(real))):
        segments, sizes = targets.segment_ids[rows].unique_consecutive(return_counts=True)
        images = real[targets.images[rows]]
        labels, weights, positions = upload(images.device, targets.classes[targets.segment_ids[rows]],
                                         targets.weights[rows].to(images.dtype), torch.searchsorted(index, segments))
        gradients = segment_gradients(net, images, labels, weights, sizes.tolist())
        if len(segments) == len(index) and total is None:
            total = gradients
            continue
        total = total or [g.new_zeros(len(index), *g.shape[1:]) for g in gradients]
        total = [a.index_add(0, positions, b) for a, b in zip(total, gradients, strict=True)]
    return total
