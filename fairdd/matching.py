"""The paper in one file: targets of each class (alignment), signals of images (embedding, gradient), distances.

Every method pulls the synthetic images of a class towards one or several targets. A target is a weighted sum of the
signals of real images, and every real image belongs to exactly one target, so an alignment is an owner and a weight
for each image. That is all FairDD changes: vanilla gives a class one target, FairDD one for each group.
"""

from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Targets:
    """T targets. owner: (B,) the target of each real image; weight: (B,) float64, summing to 1 within a target;
    classes: (T,) the class of each target, ascending. All on the CPU."""

    owner: torch.Tensor
    weight: torch.Tensor
    classes: torch.Tensor


def vanilla(labels, groups):
    """One target per class: the mean over its batch, so the majority weighs most (DC, DM)."""
    classes, owner, sizes = labels.unique(return_inverse=True, return_counts=True)
    return Targets(owner, 1 / sizes.double()[owner], classes)


def fairdd(labels, groups):
    """One target per (class, group) present: every group's centre at once (FairDD, section 4)."""
    cells, owner, sizes = torch.stack([labels, groups], 1).unique(dim=0, return_inverse=True, return_counts=True)
    return Targets(owner, 1 / sizes.double()[owner], cells[:, 0].contiguous())


def barycentre(labels, groups):
    """One target per class: the plain mean of the centres of the groups present (COBRA, squared distance)."""
    cells = fairdd(labels, groups)
    classes, owner, groups_present = cells.classes.unique(return_inverse=True, return_counts=True)
    owner = owner[cells.owner]
    return Targets(owner, cells.weight / groups_present[owner], classes)


ALIGNMENTS = {"vanilla": vanilla, "fairdd": fairdd, "barycentre": barycentre}


def embedding_loss(net, real, syn, syn_labels, targets):
    """Squared distance of mean embeddings, summed over targets (DM, eq. 5; FairDD, eq. 6). -> scalar

    real: (B, C, H, W), the images of targets; syn: (M, C, H, W) with syn_labels (M,).
    """
    with torch.no_grad():
        centres = weighted_sums(net.embed(real), targets.owner, targets.weight, len(targets.classes))
    mean = vanilla(syn_labels, None)
    means = weighted_sums(net.embed(syn), mean.owner, mean.weight, len(mean.classes))
    place = torch.searchsorted(mean.classes, targets.classes)
    return (centres - means[place.to(means.device)]).square().sum()     # a sum over classes, as in the paper


def weighted_sums(signals, owner, weight, count):
    """Sum signals (B, D) times weight (B,) into the count segments that owner (B,) names. -> (count, D)"""
    owner, weight = owner.to(signals.device), weight.to(signals)
    return signals.new_zeros(count, signals.shape[1]).index_add(0, owner, signals * weight[:, None])


def gradient_losses(net, real, syn, targets, dis_metric="ours"):
    """Distance of loss gradients with respect to the network's weights (DC, eq. 9), for each class. -> yields scalars

    real: (B, C, H, W), the images of targets; syn: (ipc, C, H, W) of each class.
    One class at a time, so that only one second-order graph is alive: call backward on each as it comes.
    """
    for label in targets.classes.unique().tolist():
        of_syn = class_gradient(net, syn[label], label, create_graph=True)
        loss = 0
        for target in (targets.classes == label).nonzero().flatten():
            rows = (targets.owner == target).nonzero().flatten()
            of_real = class_gradient(net, real[rows.to(real.device)], label, targets.weight[rows])
            loss = loss + match_loss(of_syn, of_real, dis_metric)   # a sum over groups, as in the paper
        yield loss


def class_gradient(net, images, label, weight=None, create_graph=False):
    """Gradient of the cross entropy of images (B, C, H, W), all of one class. -> list of tensors, one per parameter

    weight: (B,) of each image, summing to 1 (default: the mean).
    """
    labels = torch.full((len(images),), label, device=images.device)
    losses = F.cross_entropy(net(images), labels, reduction="none")
    loss = losses.mean() if weight is None else (losses * weight.to(losses)).sum()
    return torch.autograd.grad(loss, list(net.parameters()), create_graph=create_graph)


def match_loss(gw_syn, gw_real, dis_metric="ours"):
    """Distance of two gradients, lists of tensors of the same shapes. dis_metric: a name of DISTANCES. -> scalar"""
    return DISTANCES[dis_metric](gw_syn, gw_real)


def layerwise_cosine(gw_syn, gw_real):
    """Sum over layers and output rows of 1 - cosine (DC, eq. 10); 1-D parameters are ignored."""
    rows = [(s.flatten(1), r.flatten(1)) for s, r in zip(gw_syn, gw_real, strict=True) if s.ndim > 1]
    return sum((1 - cosine(s, r)).sum() for s, r in rows)


def squared_difference(gw_syn, gw_real):
    """Squared L2 distance over all parameters."""
    return sum((s - r).square().sum() for s, r in zip(gw_syn, gw_real, strict=True))


def whole_cosine(gw_syn, gw_real):
    """1 - cosine of the two gradients, each flattened into one vector."""
    return 1 - cosine(*(torch.cat([g.flatten() for g in gw]) for gw in (gw_syn, gw_real)))


def cosine(a, b):
    """Cosine along the last dimension; a zero vector gives 0, not NaN. (..., D) -> (...)"""
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1) + 1e-6)


DISTANCES = {"ours": layerwise_cosine, "mse": squared_difference, "cos": whole_cosine}


@contextmanager
def frozen_statistics(net, images):
    """Inside, batch norm uses the statistics of these images (all classes), so that one class alone cannot shift it."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    if norms:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None            # a plain average, so one pass gives exactly the images' statistics
        with torch.no_grad():
            net.train()(images)
    for norm in norms:
        norm.eval()
    yield net
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.train()
