"""Which part of a step's work is this rank's: classes, or images where a sum over images is all that is needed.

With one rank everything is. Parts add up to the whole step: gradients of other ranks' classes are zeros here.
"""

from dataclasses import replace

import torch
from torch import Tensor

from fairdd.core import distributed
from fairdd.core.parallel import chunk_slices
from fairdd.matching.alignment import Targets


def own_rows(count: int) -> tuple[Tensor, float]:
    """Return this rank's rows of 0..count, and 1; with fewer rows than ranks some have row 0, which then counts 0."""
    slices = chunk_slices(count, -(-count // distributed.world_size()))
    if distributed.rank() >= len(slices):
        return torch.zeros(1, dtype=torch.long), 0.0
    return torch.arange(count)[slices[distributed.rank()]], 1.0


def own_targets(targets: Targets) -> Targets:
    """Return the targets of this rank's classes.

    Where classes are fewer than ranks, a class belongs to a team of ranks, and each has a share of its images: the sums
    over the team are the targets. Every rank of a team has all images of a target that has fewer than the team has
    ranks, at a part of their weight.
    """
    if distributed.world_size() == 1:
        return targets
    classes = targets.classes.unique_consecutive()
    own, member, members = team_position(len(classes))
    index = torch.isin(targets.classes, classes[own]).nonzero().flatten()
    position = torch.full((len(targets),), -1).index_copy(0, index, torch.arange(len(index)))
    sizes = torch.bincount(targets.segment_ids, minlength=len(targets))
    is_shared = sizes[targets.segment_ids] >= members
    order = order_within_targets(targets)
    pairs = ((position[targets.segment_ids] >= 0) & (~is_shared | (order % members == member))).nonzero().flatten()
    weights = torch.where(is_shared, targets.weights, targets.weights / members)
    return replace(targets, classes=targets.classes[index], coefficients=targets.coefficients[index],
                   images=targets.images[pairs], segment_ids=position[targets.segment_ids[pairs]],
                   weights=weights[pairs])


def team_position(num_classes: int) -> tuple[Tensor, int, int]:
    """Return the positions of this rank's classes, its number in their team, and the size of the team (1: alone)."""
    rank, size = distributed.rank(), distributed.world_size()
    if num_classes == 0 or num_classes >= size:
        return torch.arange(num_classes)[rank::size], 0, 1
    team = rank % num_classes
    return torch.tensor([team]), rank // num_classes, len(range(team, size, num_classes))


def sum_over_team(targets: Targets, gradients: list[Tensor]) -> list[Tensor]:
    """Return the gradients of this rank's targets, summed over its team. targets: those of all ranks"""
    num_classes = len(targets.classes.unique_consecutive())
    if num_classes >= distributed.world_size():
        return gradients
    team = distributed.teams(num_classes)[distributed.rank() % num_classes]
    return list(distributed.sum_over_ranks(*gradients, team=team))


def counts_once(targets: Targets) -> bool:
    """Return whether this rank's classes are its own, or it is the first of its team: others' results are the same."""
    return team_position(len(targets.classes.unique_consecutive()))[1] == 0


def order_within_targets(targets: Targets) -> Tensor:
    """Return the number of each pair within its target. (P,)"""
    order = targets.segment_ids.argsort(stable=True)
    sizes = torch.bincount(targets.segment_ids, minlength=len(targets))
    numbers = torch.arange(len(order)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return torch.empty_like(order).index_copy_(0, order, numbers)
