"""Alignments: which targets the synthetic images of a class are matched to. This is all that FairDD changes.

A target is a weighted sum of the embeddings (or gradients) of real images. Vanilla matching gives a class one target,
the mean over its batch; FairDD gives it one target per group. A new alignment is one function that returns Targets.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from fairdd.core.device import upload


@dataclass(frozen=True)
class Targets:
    """T targets for a batch of B real images, made of P (image, weight) pairs. All tensors are on the CPU.

    classes: (T,) int64 class of each target, ascending; coefficients: (T,) float64 factor of its distance in the loss;
    images: (P,) int64 index into the batch; segment_ids: (P,) int64 target of each pair; weights: (P,) float64.
    An image may belong to several targets or to none.
    """

    classes: Tensor
    coefficients: Tensor
    images: Tensor
    segment_ids: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.classes)


def class_mean_targets(labels: Tensor, groups: Tensor) -> Targets:
    """Return one target per class: the mean over its batch, in which the majority weighs most (DC, DM). (B,), (B,)"""
    classes, segment_ids, sizes = labels.unique(return_inverse=True, return_counts=True)
    return disjoint_targets(classes, segment_ids, 1 / sizes.double()[segment_ids])


def per_group_targets(labels: Tensor, groups: Tensor) -> Targets:
    """Return one target per (class, group) present: every group's mean at once (FairDD, eq. 6). (B,), (B,)

    An image whose group is negative, which means unknown, is in no target.
    """
    known = (groups >= 0).nonzero().flatten()
    num_groups = int(groups.max()) + 1
    cells = labels[known] * num_groups + groups[known]
    cells, segment_ids, sizes = cells.unique(return_inverse=True, return_counts=True)
    return replace(disjoint_targets(cells // num_groups, segment_ids, 1 / sizes.double()[segment_ids]), images=known)


def barycenter_targets(labels: Tensor, groups: Tensor) -> Targets:
    """Return one target per class: the unweighted mean of its groups' means (COBRA under squared L2). (B,), (B,)"""
    cells = per_group_targets(labels, groups)
    classes, class_ids, num_groups = cells.classes.unique(return_inverse=True, return_counts=True)
    segment_ids = class_ids[cells.segment_ids]
    targets = disjoint_targets(classes, segment_ids, cells.weights / num_groups[segment_ids])
    return replace(targets, images=cells.images)


ALIGNMENTS = {"vanilla": class_mean_targets, "fairdd": per_group_targets, "barycenter": barycenter_targets}


def targets_of_each(align: Callable, labels: Tensor, groups: Tensor, sizes: Sequence[int]) -> Targets:
    """Return the targets of several attributes side by side: an image belongs to one group of each. (B,), (B,)

    groups: combinations of the attributes' values, those of the last attribute varying fastest, or negative if unknown;
    sizes: the number of values of each attribute.
    """
    columns = torch.unravel_index(groups.clamp(min=0), tuple(sizes))
    by_attribute = [align(labels, values.where(groups >= 0, -1)) for values in columns]
    starts = accumulate((len(targets) for targets in by_attribute), initial=0)
    segment_ids = torch.cat([targets.segment_ids + start for targets, start in zip(by_attribute, starts, strict=False)])
    classes = torch.cat([targets.classes for targets in by_attribute])
    order = classes.argsort(stable=True)
    return Targets(classes[order], torch.cat([targets.coefficients for targets in by_attribute])[order],
                   torch.cat([targets.images for targets in by_attribute]), order.argsort()[segment_ids],
                   torch.cat([targets.weights for targets in by_attribute]))


def disjoint_targets(classes: Tensor, segment_ids: Tensor, weights: Tensor) -> Targets:
    """Return targets that share no image: image i belongs to target segment_ids[i]. All coefficients are 1."""
    return Targets(classes, torch.ones(len(classes)).double(), torch.arange(len(segment_ids)), segment_ids, weights)


def segment_sum(values: Tensor, targets: Targets) -> Tensor:
    """Return the weighted sum of every target. values: (B, D), one row per image of the batch -> (T, D)"""
    return sum_pairs(values, len(targets), *upload(values.device, *pairs_of(targets, values.dtype)))


def pairs_of(targets: Targets, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return the image, the target and the weight of every pair. Three (P,), the weights of this type"""
    return targets.images, targets.segment_ids, targets.weights.to(dtype)


def sum_pairs(values: Tensor, count: int, images: Tensor, segment_ids: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sums of count targets, whose pairs are on the device of values. (B, D) -> (count, D)"""
    weighted = values.index_select(0, images) * weights[:, None]        # its gradient is deterministic
    return values.new_zeros(count, values.shape[1]).index_add(0, segment_ids, weighted)
