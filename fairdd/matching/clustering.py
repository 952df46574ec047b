"""Representative images by k-means on embeddings (DREAM, Liu et al. 2023): the image nearest to each cluster center."""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fairdd.core.rng import key_to_seed, numpy_generator
from fairdd.matching.sampling import group_quotas

MAX_CLUSTERED = 4096        # images of a cell that are clustered; larger cells are subsampled


def representatives(real, embed: Callable[[Tensor], Tensor], label: int, count: int, by_group: bool, *key,
                    max_clustered: int = MAX_CLUSTERED) -> Tensor:
    """Return count rows of a class (all, if it has fewer): the images nearest to the centers of k-means.

    real: GroupedImages; embed(rows) -> (n, D); by_group: cluster inside each (class, group) cell, an equal share of the
    clusters for every group, else over the whole class. A row may occur twice, as in the released code.
    """
    if not by_group:
        cells, quotas = [(real.labels == label).nonzero().flatten()], [count]
    else:
        cells = [((real.labels == label) & (real.groups == group)).nonzero().flatten()
                 for group in range(real.num_groups)]
        quotas = group_quotas(torch.tensor([len(cell) for cell in cells]), count).tolist()
    return torch.cat([nearest_to_centers(cell, embed, quota, max_clustered, *key, label, number)
                      for number, (cell, quota) in enumerate(zip(cells, quotas, strict=True))])


def nearest_to_centers(rows: Tensor, embed: Callable[[Tensor], Tensor], count: int, max_clustered: int,
                       *key) -> Tensor:
    """Return the count of rows that are nearest to the centers of k-means with count clusters; all, if they are few."""
    if count >= len(rows):
        return rows
    if count == 0:
        return rows[:0]
    from sklearn.cluster import MiniBatchKMeans  # imported here because it takes a second

    if len(rows) > max(max_clustered, count):
        chosen = numpy_generator(*key, "subsample").permutation(len(rows))[: max(max_clustered, count)]
        rows = rows[np.sort(chosen)]
    points = embed(rows).float().cpu().numpy()
    kmeans = MiniBatchKMeans(count, n_init=1, batch_size=1024, random_state=key_to_seed(*key, "kmeans") % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")             # fewer distinct images than clusters: some centers coincide
        kmeans.fit(points)
    distances = torch.cdist(torch.from_numpy(kmeans.cluster_centers_), torch.from_numpy(points))
    return rows[distances.argmin(1)]
