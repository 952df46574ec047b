"""Distribution matching: the distance of mean embeddings (DM, Zhao & Bilen 2023, eq. 5; FairDD, eq. 6)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fairdd.core.device import upload
from fairdd.core.parallel import example, map_chunks
from fairdd.matching.alignment import Targets, class_mean_targets, pairs_of, segment_sum, sum_pairs


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
    (M,). Returns (losses (K,) in ascending order of the K classes, gradient (M, C, H, W)).
    """
    real_means = target_embeddings(net, real, targets)

    def losses_and_gradient(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:     # rows: of one or more whole classes
        classes = class_mean_targets(syn_labels[rows], None)
        index = torch.isin(targets.classes, classes.classes).nonzero().flatten()
        class_index = torch.searchsorted(classes.classes, targets.classes[index])
        rows, index, class_index, coefficients, *pairs = upload(
            syn.device, rows, index, class_index, targets.coefficients[index].to(syn.dtype),
            *pairs_of(classes, syn.dtype))
        images = syn.detach()[rows].requires_grad_()
        syn_means = sum_pairs(net.embed(images), len(classes), *pairs)
        difference = real_means[index] - syn_means.index_select(0, class_index)
        distances = coefficients * distance(difference)
        [gradient] = torch.autograd.grad(distances.sum(), images)
        losses = distances.new_zeros(len(classes)).index_add(0, class_index, distances.detach())
        return rows, losses, gradient

    classes = [(syn_labels == label).nonzero().flatten() for label in syn_labels.unique()]
    rows, losses, gradients = zip(*map_chunks(losses_and_gradient, classes, net, syn[:1], merge=True), strict=True)
    gradient = torch.empty_like(syn).index_copy_(0, torch.cat(rows), torch.cat(gradients))
    return torch.cat(losses), gradient


def target_embeddings(net: nn.Module, real, targets: Targets) -> Tensor:
    """Return the weighted mean embedding of every target. real: (B, C, H, W) or an object indexed like it -> (T, D)"""
    return segment_sum(embeddings(net, real), targets)


def embeddings(net: nn.Module, images) -> Tensor:
    """Return the embeddings of images, without a graph. images: (B, C, H, W) or an object indexed like it -> (B, D)"""

    def embed(rows: Tensor) -> Tensor:
        with torch.no_grad():
            return net.embed(images[rows])

    return torch.cat(list(map_chunks(embed, [torch.arange(len(images))], net, example(images))))
