"""Groups that are known for a share of the training images only; the others are assigned to a group, or to none."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fairdd.core.rng import numpy_generator
from fairdd.datasets.base import UNKNOWN, GroupedImages


def keep_known_share(train: GroupedImages, features: Callable[[Tensor], np.ndarray], share: float, assign: bool,
                     *key) -> GroupedImages:
    """Return the images with the groups of round(share * N) random ones; all others are assigned or UNKNOWN.

    Groups that the data set does not know are UNKNOWN among the random ones too. features(rows) -> (n, D)
    """
    chosen = numpy_generator(*key, "known").permutation(len(train))[: round(share * len(train))]
    is_known = torch.zeros(len(train), dtype=torch.bool)
    is_known[torch.from_numpy(chosen)] = True
    groups = torch.where(is_known, train.groups, UNKNOWN)
    partly = replace(train, groups=groups)
    return replace(train, groups=assign_to_nearest_center(partly, features)) if assign else partly


def assign_to_nearest_center(train: GroupedImages, features: Callable[[Tensor], np.ndarray]) -> Tensor:
    """Return the groups, of UNKNOWN ones the group of the same class whose known images have the nearest mean. -> (N,)

    In a class without a known group they stay UNKNOWN.
    """
    groups = train.groups.clone()
    for label in range(train.num_classes):
        rows = (train.labels == label).nonzero().flatten()
        known = groups[rows] != UNKNOWN
        present = groups[rows[known]].unique()
        if known.all() or not len(present):
            continue
        points = torch.from_numpy(features(rows)).double()
        centers = torch.stack([points[groups[rows] == group].mean(0) for group in present])
        groups[rows[~known]] = present[torch.cdist(points[~known], centers).argmin(1)]
    return groups
