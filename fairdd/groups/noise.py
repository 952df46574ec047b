"""Wrong groups: a share of the training images gets a random other group (FairDD, appendix on noisy group labels)."""

from dataclasses import replace

import torch

from fairdd.core.errors import UserError
from fairdd.core.rng import numpy_generator
from fairdd.datasets.base import UNKNOWN, GroupedImages


def add_noise(train: GroupedImages, share: float, *key) -> GroupedImages:
    """Return the images, of which round(share * N), chosen at random, have a group drawn uniformly from the others.

    N counts the images whose group is known.
    """
    number = train.num_groups
    if number < 2:
        raise UserError("--group_noise needs at least two groups, and the training images have one")
    generator = numpy_generator(*key, "noise")
    known = (train.groups != UNKNOWN).nonzero().flatten()
    rows = known[torch.from_numpy(generator.permutation(len(known))[: round(share * len(known))])]
    groups = train.groups.clone()
    groups[rows] = (groups[rows] + torch.from_numpy(generator.integers(1, number, len(rows)))) % number
    return replace(train, groups=groups)
