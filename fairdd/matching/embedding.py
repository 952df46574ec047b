"""Distribution matching: the distance of mean embeddings (DM, Zhao & Bilen 2023, eq. 5; FairDD, eq. 6)."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from fairdd.core import distributed
from fairdd.core.device import upload
from fairdd.core.parallel import chunk_slices, example, map_chunks, max_graph_size
from fairdd.matching.alignment import Targets, class_mean_targets, pairs_of, segment_sum, sum_pairs
from fairdd.matching.shares import own_rows


def squared_l2(difference: Tensor) -> Tensor:
    """Return squared L2 norms (DM). (T, D) -> (T,)"""
    return difference.square().sum(1)


def l1(difference: Tensor) -> Tensor:
    """Return L1 norms (COBRA's choice for DM). (T, D) -> (T,)"""
    return difference.abs().sum(1)


EMBEDDING_DISTANCES = {"ours": squared_l2, "l1": l1}


def embedding_loss(net: nn.Module, real, syn: Tensor, syn_labels: Tensor, targets: Targets,
                   distance: Callable = squared_l2) -> tuple[Tensor, Tensor]:
    """Return the loss of each class and the gradient with respect to the synthetic images.

    The loss of a class is the sum over its targets of coefficient * distance(target - mean synthetic embedding).
    real: (B, C, H, W), the images of targets, or an object that returns them by index; syn: (M, C, H, W); syn_labels:
    (M,). Returns (losses (K,) in ascending order of the K classes, gradient (M, C, H, W)). Ranks share the real images,
    and then the classes.
    """
    real_means = target_embeddings(net, real, targets)

    def losses_and_gradient(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:     # rows: of one or more whole classes
        classes = class_mean_targets(syn_labels[rows], None)
        index = torch.isin(targets.classes, classes.classes).nonzero().flatten()
        class_index = torch.searchsorted(classes.classes, targets.classes[index])
        rows, index, class_index, coefficients, *pairs = upload(
            syn.device, rows, index, class_index, targets.coefficients[index].to(syn.dtype),
            *pairs_of(classes, syn.dtype))
        images = syn.detach()[rows]
        is_large = len(rows) > max_graph_size(net, images[:1])
        embedded = embeddings(net, images) if is_large else net.embed(images.requires_grad_())
        syn_means = sum_pairs(embedded, len(classes), *pairs)
        source = syn_means.requires_grad_() if is_large else images
        difference = real_means[index] - syn_means.index_select(0, class_index)
        distances = coefficients * distance(difference)
        [gradient] = torch.autograd.grad(distances.sum(), source)
        if is_large:
            gradient = pull_back(net, images, sum_slopes(gradient, len(rows), *pairs))
        losses = distances.new_zeros(len(classes)).index_add(0, class_index, distances.detach())
        return rows, losses, gradient

    labels = syn_labels.unique()
    own = [(syn_labels == label).nonzero().flatten() for label in distributed.share_of(labels)]
    losses, gradient = syn.new_zeros(len(labels)), torch.zeros_like(syn)
    chunks = list(map_chunks(losses_and_gradient, own, net, syn[:1], merge=True))
    if chunks:                                          # a rank may have no class
        rows, own_losses, own_gradients = map(torch.cat, zip(*chunks, strict=True))
        distributed.share_of(losses).copy_(own_losses)
        gradient.index_copy_(0, rows, own_gradients)
    return distributed.sum_over_ranks(losses, gradient)


def sum_slopes(slopes: Tensor, count: int, images: Tensor, segment_ids: Tensor, weights: Tensor) -> Tensor:
    """Return the gradient with respect to count embeddings, given that with respect to their weighted sums (K, D).

    The other arguments are the pairs of sum_pairs. -> (count, D)
    """
    return slopes.new_zeros(count, slopes.shape[1]).index_add(0, images, weights[:, None] * slopes[segment_ids])


def pull_back(net: nn.Module, images: Tensor, slopes: Tensor) -> Tensor:
    """Return the gradient with respect to images, in chunks, given that (B, D) with respect to their embeddings."""
    gradients = []
    for rows in chunk_slices(len(images), max_graph_size(net, images[:1])):
        chunk = images[rows].detach().requires_grad_()
        gradients += torch.autograd.grad(net.embed(chunk), chunk, slopes[rows])
    return torch.cat(gradients)


def target_embeddings(net: nn.Module, real, targets: Targets) -> Tensor:
    """Return the weighted mean embedding of every target. real: (B, C, H, W) or an object indexed like it -> (T, D)"""
    if distributed.world_size() == 1:
        return segment_sum(embeddings(net, real), targets)
    rows, counted = own_rows(len(real))
    is_own = (targets.images >= rows[0]) & (targets.images <= rows[-1])
    own = replace(targets, images=targets.images[is_own] - rows[0], segment_ids=targets.segment_ids[is_own],
                  weights=counted * targets.weights[is_own])
    return distributed.sum_over_ranks(segment_sum(embeddings(net, real, rows), own))[0]


def embeddings(net: nn.Module, images, rows: Tensor | None = None) -> Tensor:
    """Return the embeddings of the images at rows (default: of all), without a graph. (B, C, H, W) -> (B, D)

    images: a tensor or an object indexed like it
    """

    def embed(rows: Tensor) -> Tensor:
        with torch.no_grad():
            return net.embed(images[rows])

    rows = torch.arange(len(images)) if rows is None else rows
    return torch.cat(list(map_chunks(embed, [rows], net, example(images))))
