"""Pseudo-groups by DBSCAN inside the images of each class in a batch (FairDD, appendix M)."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from fairdd.core import distributed
from fairdd.core.errors import UserError
from fairdd.datasets.base import GroupedImages
from fairdd.groups.agreement import agreement_sentence
from fairdd.matching.sampling import RandomSampler

MIN_SAMPLES = 5         # images within the radius, itself included, that make an image the core of a cluster


@dataclass(frozen=True, eq=False)
class BatchClusters(GroupedImages):
    """Images whose groups exist only inside a batch; groups is 0 for every image. features(rows) -> (n, D)"""

    features: Callable[[Tensor], np.ndarray] | None = None

    def batch_groups(self, rows: Tensor) -> Tensor:
        """Return the clusters of the images at rows (B,), found class by class. -> (B,) int64"""
        labels, groups = self.labels[rows], torch.empty_like(rows)
        for label in labels.unique():
            of_class = labels == label
            groups[of_class] = dbscan(self.features(rows[of_class]))
        return distributed.from_rank_0(groups)


def cluster_batches(train: GroupedImages, features: Callable[[Tensor], np.ndarray]) -> BatchClusters:
    """Return the images with groups that are found batch by batch."""
    same = {field.name: getattr(train, field.name) for field in fields(GroupedImages)}
    changed = {"groups": torch.zeros_like(train.groups), "group_names": ("found in each batch",), "attributes": ()}
    return BatchClusters(**same | changed, features=features)


def dbscan(points: np.ndarray) -> Tensor:
    """Return the cluster of each point; points in no cluster form one more group. (n, D) -> (n,) int64

    The radius is at the knee of the points' sorted distances to their fourth neighbor (Ester et al. 1996, section 4.2).
    """
    from sklearn.cluster import DBSCAN  # imported here because it takes a second
    from sklearn.neighbors import NearestNeighbors

    if len(points) < MIN_SAMPLES:
        return torch.zeros(len(points), dtype=torch.int64)
    distances, _ = NearestNeighbors(n_neighbors=MIN_SAMPLES).fit(points).kneighbors(points)
    radius = max(knee(np.sort(distances[:, -1])), np.finfo(np.float32).tiny)
    clusters = DBSCAN(eps=radius, min_samples=MIN_SAMPLES).fit_predict(points)
    return torch.from_numpy(np.unique(clusters, return_inverse=True)[1])


def knee(values: np.ndarray) -> float:
    """Return the value that is farthest below the line from the first to the last. values: (n,), ascending"""
    return float(values[np.argmax(np.linspace(values[0], values[-1], len(values)) - values)])


def describe_batches(train: BatchClusters, true: GroupedImages, batch_real: int, *key) -> str:
    """Return how many groups a sample batch has and how well they agree with the true ones.

    Raises UserError for a class whose sample has a single group.
    """
    rows = RandomSampler(train, batch_real).rows(*key, "sample")
    labels, groups = train.labels[rows], train.batch_groups(rows)
    numbers = [len(groups[labels == label].unique()) for label in range(train.num_classes)]
    if min(numbers) < 2:
        name = train.class_names[numbers.index(min(numbers))]
        raise UserError(f"class {name!r} is left with one group: DBSCAN finds no clusters in a batch of its images; "
                        "choose another --groups, --group_features or --batch_real")
    agreement = agreement_sentence(groups, true.groups[rows], labels)
    return f"{min(numbers)} to {max(numbers)} groups per class in a sample batch; {agreement}"
