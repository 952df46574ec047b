"""Gradient matching: the distance of loss gradients with respect to the weights (DC, Zhao et al. 2021, eq. 9, 10)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairdd.core import distributed
from fairdd.core.parallel import (
    BATCH_NORM,
    chunk_slices,
    example,
    map_chunks,
    max_graph_size,
    ordered_map,
    sum_gradients,
)
from fairdd.matching.alignment import Targets
from fairdd.matching.gradient_at_once import gradient_loss_at_once
from fairdd.matching.segment_gradients import can_sum_by_segment
from fairdd.matching.shares import counts_once, own_targets, sum_over_team

EPSILON = 1e-6      # added to the product of norms in a cosine, as in the released code


def layerwise_cosine(syn: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Return the sum over layers and output rows of 1 - cosine (DC, eq. 10); 1-D parameters are ignored."""
    rows = [(s.flatten(2), r.flatten(2)) for s, r in zip(syn, real, strict=True) if s.ndim > 2]
    return sum((1 - cosine(s, r)).sum(1) for s, r in rows)


def squared_difference(syn: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Return the squared L2 distance over all parameters."""
    return sum((s - r).flatten(1).square().sum(1) for s, r in zip(syn, real, strict=True))


def flat_cosine(syn: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Return 1 - cosine of the two gradients, each flattened into one vector."""
    return 1 - cosine(*(torch.cat([g.flatten(1) for g in gradient], 1) for gradient in (syn, real)))


def on_convolutions(distance: Callable[[Tensor], Tensor]) -> Callable:
    """Return the sum of a distance over the weights of convolutions; other parameters are ignored (IDC).

    distance: of differences (T, weights) -> (T,)
    """
    return lambda syn, real: sum(distance((s - r).flatten(1)) for s, r in zip(syn, real, strict=True) if s.ndim == 5)


# Distances of pairs of gradients: each gradient is a list of one tensor per parameter, (T, *its shape), or (1, *its
# shape) to compare one with T -> (T,)
GRADIENT_DISTANCES = {"ours": layerwise_cosine, "mse": squared_difference, "cos": flat_cosine}
CONVOLUTION_DISTANCES = {
    "l1": on_convolutions(lambda difference: difference.abs().sum(1)),
    "mse": on_convolutions(lambda difference: difference.square().sum(1)),
}


def gradient_loss(net: nn.Module, real, syn: Sequence[Tensor], targets: Targets,
                  distance: Callable = layerwise_cosine) -> tuple[Tensor, list[Tensor]]:
    """Return the loss of each class and the gradient with respect to its synthetic images.

    The loss of a class is the sum over its targets of coefficient * distance(synthetic gradient, target).
    real: (B, C, H, W), the images of targets, or an object that returns them by index; syn: (ipc, C, H, W) of each of K
    classes. Returns (losses (K,), list of K gradients (ipc, C, H, W)); both are 0 for a class without targets. Ranks
    share the classes, or the images of a class where classes are fewer.
    """
    by_class = syn[0].device.type == "cpu" or not can_sum_by_segment(net)
    loss = gradient_loss_by_class if by_class else gradient_loss_at_once
    losses, gradients = loss(net, real, syn, own_targets(targets), distance, partial(sum_over_team, targets))
    if not counts_once(targets):
        losses, gradients = torch.zeros_like(losses), [torch.zeros_like(gradient) for gradient in gradients]
    losses, *gradients = distributed.sum_over_ranks(losses, *gradients)
    return losses, gradients


def gradient_loss_by_class(net: nn.Module, real, syn: Sequence[Tensor], targets: Targets, distance: Callable,
                           sum_targets: Callable = list) -> tuple[Tensor, list[Tensor]]:
    """Return the same as gradient_loss, with a pass per target.

    sum_targets: adds up gradients of other ranks' images
    """

    def loss_and_gradient(item) -> tuple[int, Tensor, Tensor]:
        label, coefficients, real_gradients = item
        images = syn[label].detach().requires_grad_()
        is_large = len(images) > max_graph_size(net, images[:1])
        syn_gradient = mean_gradient(net, images, label) if is_large else \
            class_gradient(net, images, label, create_graph=True)
        distances = distance([g[None] for g in syn_gradient], real_gradients)
        loss = (coefficients.to(distances) * distances).sum()
        if is_large:
            slopes = torch.autograd.grad(loss, syn_gradient, allow_unused=True)
            return label, loss.detach(), pull_back(net, images, label, slopes)
        return label, loss.detach(), *torch.autograd.grad(loss, images)

    losses, gradients = syn[0].new_zeros(len(syn)), [torch.zeros_like(images) for images in syn]
    items = ((label, coefficients, sum_targets(gradients))          # class by class, so that few are held at a time
             for label, coefficients, gradients in target_gradients(net, real, targets))
    for label, loss, gradient in ordered_map(loss_and_gradient, items, syn[0].device):
        losses[label], gradients[label] = loss, gradient
    return losses, gradients


def target_gradients(net: nn.Module, real, targets: Targets) -> Iterator[tuple[int, Tensor, list[Tensor]]]:
    """Yield each class: its label, the coefficients (T,) of its targets, and their gradients, list of (T, *shape)."""
    classes = targets.classes.tolist()

    def chunk_gradient(pairs: Tensor) -> tuple[int, list[Tensor]]:      # pairs of one target
        target = targets.segment_ids[pairs[0]].item()
        images = real[targets.images[pairs]]
        return target, class_gradient(net, images, classes[target], targets.weights[pairs])

    pairs = [(targets.segment_ids == target).nonzero().flatten() for target in range(len(targets))]
    chunks = groupby(map_chunks(chunk_gradient, pairs, net, example(real)), key=lambda chunk: chunk[0])
    gradients = ((target, sum_gradients(gradient for _, gradient in of_target)) for target, of_target in chunks)
    for label, of_class in groupby(gradients, key=lambda item: classes[item[0]]):
        indices, class_gradients = zip(*of_class, strict=True)
        yield label, targets.coefficients[list(indices)], list(map(torch.stack, zip(*class_gradients, strict=True)))


def class_gradient(net: nn.Module, images: Tensor, label: int, weights: Tensor | None = None,
                   create_graph: bool = False) -> list[Tensor]:
    """Return the gradient of the cross entropy of images of one class, one tensor per parameter.

    images: (B, C, H, W); weights: (B,) of each image in the sum of losses (default: the mean).
    """
    labels = torch.full((len(images),), label, device=images.device)
    losses = F.cross_entropy(net(images), labels, reduction="none")
    loss = losses.mean() if weights is None else (losses * weights.to(losses)).sum()
    return list(torch.autograd.grad(loss, list(net.parameters()), create_graph=create_graph))


def mean_gradient(net: nn.Module, images: Tensor, label: int) -> list[Tensor]:
    """Return the class_gradient of many images, summed chunk by chunk; each tensor is the beginning of a new graph."""
    chunks = [images.detach()[rows] for rows in chunk_slices(len(images), max_graph_size(net, images[:1]))]
    total = sum_gradients(class_gradient(net, chunk, label, chunk.new_full((len(chunk),), 1 / len(images)))
                          for chunk in chunks)
    return [gradient.detach().requires_grad_() for gradient in total]


def pull_back(net: nn.Module, images: Tensor, label: int, slopes: Sequence[Tensor | None]) -> Tensor:
    """Return the gradient with respect to images, given that with respect to their mean_gradient, chunk by chunk.

    The gradient of a mean is the mean of the images' gradients, so every chunk needs only its own graph.
    """
    gradients = []
    for rows in chunk_slices(len(images), max_graph_size(net, images[:1])):
        chunk = images[rows].detach().requires_grad_()
        own = class_gradient(net, chunk, label, chunk.new_full((len(chunk),), 1 / len(images)), create_graph=True)
        pairs = [(gradient, slope) for gradient, slope in zip(own, slopes, strict=True) if slope is not None]
        gradients += torch.autograd.grad([gradient for gradient, _ in pairs], chunk, [slope for _, slope in pairs])
    return torch.cat(gradients)


def match_loss(gw_syn: Sequence[Tensor], gw_real: Sequence[Tensor], dis_metric: str = "ours") -> Tensor:
    """Return the distance of two gradients, lists of tensors of the same shapes. dis_metric: "ours", "mse" or "cos"."""
    return GRADIENT_DISTANCES[dis_metric](*([g[None] for g in gradient] for gradient in (gw_syn, gw_real)))[0]


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine along the last dimension; a zero vector gives 0, not NaN. (..., D), (..., D) -> (...)"""
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1) + EPSILON)


@contextmanager
def frozen_batchnorm(net: nn.Module, images) -> Iterator[nn.Module]:
    """Inside the block, batch norm uses the statistics of these images (all classes), as DC does.

    images: (B, C, H, W) or an object indexed like it; they are loaded, all at once, only if there is batch norm.
    """
    norms = [module for module in net.modules() if isinstance(module, BATCH_NORM)]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None            # a cumulative average, so one pass gives exactly the images' statistics
        if norms:
            with torch.no_grad():
                net.train()(images[:])
        for norm in norms:
            norm.eval()
        yield net
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.train()
