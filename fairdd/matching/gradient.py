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

from fairdd.core import parallel


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
    """One target per (class, group) present: every group's center at once (FairDD, section 4)."""
    cells, owner, sizes = torch.stack([labels, groups], 1).unique(dim=0, return_inverse=True, return_counts=True)
    return Targets(owner, 1 / sizes.double()[owner], cells[:, 0].contiguous())


def barycenter(labels, groups):
    """One target per class: the plain mean of the centers of the groups present (COBRA, squared distance)."""
    cells = fairdd(labels, groups)
    classes, owner, groups_present = cells.classes.unique(return_inverse=True, return_counts=True)
    owner = owner[cells.owner]
    return Targets(owner, cells.weight / groups_present[owner], classes)


ALIGNMENTS = {"vanilla": vanilla, "fairdd": fairdd, "barycenter": barycenter}


def embedding_loss(net, real, syn, syn_labels, targets, dis_metric="ours"):
    """Distance of mean embeddings, squared (DM, eq. 5; FairDD, eq. 6) or another, summed over targets. -> scalar

    real: (B, C, H, W), the images of targets, or what gives them by index; syn: (M, C, H, W) with syn_labels (M,);
    dis_metric: a name of EMBEDDING_DISTANCES.
    """
    centers = segment_sum(embeddings(net, real), targets.owner, targets.weight, len(targets.classes))

    def pull(rows):     # of some classes: their loss and its gradient, so that no other graph is alive
        images = syn.detach()[rows.to(syn.device)].requires_grad_()
        mean = vanilla(syn_labels[rows], None)
        means = segment_sum(net.embed(images), mean.owner, mean.weight, len(mean.classes))
        mine = torch.isin(targets.classes, mean.classes)
        place = torch.searchsorted(mean.classes, targets.classes[mine])
        loss = EMBEDDING_DISTANCES[dis_metric](centers[mine.to(centers.device)] - means[place.to(means.device)])
        return loss.detach(), *torch.autograd.grad(loss, images)

    shares = class_shares(syn_labels, parallel.max_chunk_size(net, syn[:1]))
    losses, gradients = zip(*parallel.ordered_map(pull, shares, syn.device), strict=True)
    gradient = torch.empty_like(syn).index_copy_(0, torch.cat(shares).to(syn.device), torch.cat(gradients))
    return Known.apply(syn, torch.stack(losses).sum(), gradient)     # a sum over classes, as in the paper


def squared(difference):
    """Squared L2 (DM)."""
    return difference.square().sum()


def absolute(difference):
    """L1 (COBRA's choice for DM)."""
    return difference.abs().sum()


EMBEDDING_DISTANCES = {"ours": squared, "l1": absolute}


def embeddings(net, images):
    """The embeddings of images (B, C, H, W), or of what gives them by index, without a graph. -> (B, D)"""

    def embed(rows):
        with torch.no_grad():
            return net.embed(images[rows])

    one = images[:1]
    parts = parallel.chunk_slices(len(images), parallel.max_chunk_size(net, one))
    return torch.cat(list(parallel.ordered_map(embed, parts, one.device)))


def class_shares(labels, size):
    """The rows of labels (M,), whole classes together, in shares of about size. -> list of (., )"""
    order = labels.argsort(stable=True)
    _, which, sizes = labels[order].unique_consecutive(return_inverse=True, return_counts=True)
    shares = (sizes.cumsum(0) - sizes) // size                  # of each class: by the row where it begins
    return [order[shares[which] == share] for share in shares.unique().tolist()]


def segment_sum(signals, owner, weight, count):
    """Sum signals (B, D) times weight (B,) into the count segments that owner (B,) names. -> (count, D)"""
    owner, weight = owner.to(signals.device), weight.to(signals)
    return signals.new_zeros(count, signals.shape[1]).index_add(0, owner, signals * weight[:, None])


def gradient_losses(net, real, syn, targets, dis_metric="ours"):
    """Distance of loss gradients with respect to the network's weights (DC, eq. 9), for each class. -> yields scalars

    real: (B, C, H, W), the images of targets, or what gives them by index; syn: (ipc, C, H, W) of each class.
    """

    def pull(label_and_targets):    # of one class: its loss and its gradient, so that no other graph is alive
        label, of_real = label_and_targets
        images = syn[label].detach().requires_grad_()
        of_syn = class_gradient(net, images, label, create_graph=True)
        loss = sum(match_loss(of_syn, target, dis_metric) for target in of_real)    # over groups, as in the paper
        return label, loss.detach(), *torch.autograd.grad(loss, images)

    device = next(net.parameters()).device
    for label, loss, gradient in parallel.ordered_map(pull, real_gradients(net, real, targets), device):
        yield Known.apply(syn[label], loss, gradient)


def real_gradients(net, real, targets):
    """The gradient of every target, class by class. -> yields label, list of gradients (lists of tensors)"""
    one, labels = real[:1], targets.classes.tolist()
    size = parallel.max_chunk_size(net, one)
    rows = [(targets.owner == target).nonzero().flatten() for target in range(len(labels))]
    rows = [[mine[part] for part in parallel.chunk_slices(len(mine), size)] for mine in rows]        # of each target, in parts

    def gradient(label_and_rows):
        label, mine = label_and_rows
        return class_gradient(net, real[mine], label, targets.weight[mine])

    items = [(label, part) for label, mine in zip(labels, rows, strict=True) for part in mine]
    gradients = parallel.ordered_map(gradient, items, one.device)
    for label in dict.fromkeys(labels):
        mine = [parts for parts, of in zip(rows, labels, strict=True) if of == label]
        yield label, [parallel.sum_gradients(next(gradients) for _ in parts) for parts in mine]


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


def flat_cosine(gw_syn, gw_real):
    """1 - cosine of the two gradients, each flattened into one vector."""
    return 1 - cosine(*(torch.cat([g.flatten() for g in gw]) for gw in (gw_syn, gw_real)))


def cosine(a, b):
    """Cosine along the last dimension; a zero vector gives 0, not NaN. (..., D) -> (...)"""
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1) + 1e-6)


DISTANCES = {"ours": layerwise_cosine, "mse": squared_difference, "cos": flat_cosine}


@contextmanager
def frozen_batchnorm(net, images):
    """Inside, batch norm uses the statistics of these images (all classes), so that one class alone cannot shift it.

    images: (B, C, H, W), or what gives them by index; they are only taken, all at once, where there is batch norm.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    if norms:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None            # a plain average, so one pass gives exactly the images' statistics
        with torch.no_grad():
            net.train()(images[:])
    for norm in norms:
        norm.eval()
    yield net
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.train()
