"""Layer-wise feature alignment and the discrimination loss of CAFE (Wang et al. 2022, sections 3.2 and 3.3)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairdd.core import distributed
from fairdd.core.parallel import example, map_chunks
from fairdd.matching.alignment import Targets, class_mean_targets
from fairdd.matching.shares import own_rows

ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.Sigmoid, nn.SiLU)
SHALLOW, DEEP, LAST, DISCRIMINATION = 0.1, 1.0, 2.0, 0.01       # weights; the last map counts twice, as released


def layer_features(net: nn.Module, images: Tensor) -> list[Tensor]:
    """Return the output of every activation or residual block, and the embedding. (B, C, H, W) -> list of (B, D)"""
    maps, levels = images, []
    for layer in net.features:
        maps = layer(maps)
        if isinstance(layer, ACTIVATIONS) or hasattr(layer, "shortcut"):
            levels.append(maps.flatten(1))
    return [*levels, maps.flatten(1)]


def level_weights(num_levels: int) -> list[float]:
    """Return the weight of each level: shallow activations, the last activation, the embedding."""
    return [SHALLOW] * (num_levels - 2) + [DEEP, LAST]


def feature_loss(net: nn.Module, real, syn: Tensor, syn_labels: Tensor, targets: Targets,
                 real_labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss of each class and the gradient with respect to the synthetic images.

    The loss of a class is the sum over levels and its targets of weight * coefficient * ||target - mean synthetic
    feature||^2, plus DISCRIMINATION times the cross entropy of its real images under a linear classifier whose rows are
    the mean synthetic embeddings. There an image counts by its share in the targets of its class, so that groups are
    balanced if the targets are. real: (B, C, H, W) or an object indexed like it; syn: (M, C, H, W); syn_labels: (M,).
    Returns (losses (C,), gradient (M, C, H, W)). Ranks share the images, real and synthetic.
    """
    levels, embedding, rows, counted = target_features(net, real, targets)
    means = [mean.requires_grad_() for mean in class_features(net, syn, syn_labels)]
    classes = targets.classes.to(syn.device)
    losses = syn.new_zeros(len(means[0]))
    share = 1 / distributed.world_size()        # every rank has all targets, and counts a share of their distances
    for weight, target, mean in zip(level_weights(len(levels)), levels, means, strict=True):
        distances = targets.coefficients.to(syn) * (target - mean[classes]).square().sum(1)
        losses = losses.index_add(0, classes, share * weight * distances)
    labels = real_labels[rows].to(syn.device)
    entropy = F.cross_entropy(embedding @ means[-1].T, labels, reduction="none")
    shares = DISCRIMINATION * counted * image_shares(targets, real_labels)[rows].to(syn)
    losses = losses.index_add(0, labels, shares * entropy)
    losses, *slopes = distributed.sum_over_ranks(losses, *torch.autograd.grad(losses.sum(), means))
    return losses.detach(), pull_back(net, syn, syn_labels, slopes)


def target_features(net: nn.Module, real, targets: Targets) -> tuple[list[Tensor], Tensor, Tensor, float]:
    """Return every target's weighted mean at each level, list of (T, D), and the embeddings (R, D) of this rank's rows.

    The last two values are these rows (R,) and whether they count (shares.own_rows).
    """
    own, counted = own_rows(len(real))
    weights = torch.zeros(len(targets), len(real), dtype=torch.float64)
    weights.index_put_((targets.segment_ids, targets.images), targets.weights, accumulate=True)

    def sums(rows: Tensor) -> tuple[list[Tensor], Tensor]:
        with torch.no_grad():
            levels = layer_features(net, real[rows])
            return [counted * weights[:, rows].to(level) @ level for level in levels], levels[-1]

    chunks, embeddings = zip(*map_chunks(sums, [own], net, example(real)), strict=True)
    levels = distributed.sum_over_ranks(*(sum(level) for level in zip(*chunks, strict=True)))
    return levels, torch.cat(embeddings), own, counted


def class_features(net: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    """Return the mean feature of every class at each level, without a graph: list of (C, D)."""
    return target_features(net, images.detach(), class_mean_targets(labels, None))[0]


def pull_back(net: nn.Module, images: Tensor, labels: Tensor, slopes: list[Tensor]) -> Tensor:
    """Return the gradient with respect to images, given the gradients (C, D) with respect to the class means."""
    sizes = torch.bincount(labels).to(images)
    own, counted = own_rows(len(images))

    def gradient(rows: Tensor) -> Tensor:
        chunk = images.detach()[rows.to(images.device)].requires_grad_()
        of_rows = labels[rows].to(images.device)
        levels = layer_features(net, chunk)
        outputs = [counted * slope[of_rows] / sizes[of_rows, None] for slope in slopes]
        return torch.autograd.grad(levels, chunk, outputs)[0]

    gradients = torch.cat(list(map_chunks(gradient, [own], net, images[:1])))
    return distributed.sum_over_ranks(torch.zeros_like(images).index_copy_(0, own.to(images.device), gradients))[0]


def image_shares(targets: Targets, labels: Tensor) -> Tensor:
    """Return how much each image counts, on average 1 within its class: its share in the targets of the class. (B,)"""
    shares = torch.zeros(len(labels), dtype=torch.float64)
    pairs = targets.weights * targets.coefficients[targets.segment_ids]
    shares.index_add_(0, targets.images, pairs)
    totals = torch.zeros(int(labels.max()) + 1, dtype=torch.float64).index_add(0, labels, shares)
    return shares * (torch.bincount(labels) / totals.clamp(min=1e-12))[labels]    # a class may have no target
