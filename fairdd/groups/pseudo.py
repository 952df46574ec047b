"""Pseudo-groups by k-means over the images of each class."""

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from fairdd.core.errors import UserError
from fairdd.core.rng import key_to_seed
from fairdd.datasets.base import GroupedImages

STARTS = 3              # of k-means, of which the best counts


def cluster_classes(train: GroupedImages, features: Callable[[Tensor], np.ndarray], count: int,
                    *key) -> GroupedImages:
    """Return the images with count clusters of each class as groups; cluster k of two classes need not be alike.

    features(rows) -> (n, D). Raises UserError for a class with fewer images than clusters.
    """
    groups = torch.empty_like(train.groups)
    for label, name in enumerate(train.class_names):
        rows = (train.labels == label).nonzero().flatten()
        if len(rows) < count:
            raise UserError(f"--groups kmeans:{count} asks for more clusters than class {name!r} has training images "
                            f"({len(rows)}); use a smaller number")
        groups[rows] = kmeans(features(rows), count, *key, "kmeans", label)
    return replace(train, groups=groups, group_names=tuple(f"cluster {k}" for k in range(count)), attributes=())


def kmeans(points: np.ndarray, count: int, *key) -> Tensor:
    """Return the cluster of each point. (n, D) -> (n,) int64"""
    from sklearn.cluster import KMeans  # imported here because it takes a second

    model = KMeans(count, n_init=STARTS, random_state=key_to_seed(*key) % 2**32)
    with warnings.catch_warnings(), threadpool_limits(1):      # in one thread sums have one order: the same clusters
        warnings.simplefilter("ignore")                         # fewer distinct images than clusters: some stay empty
        return torch.from_numpy(model.fit_predict(points)).long()
