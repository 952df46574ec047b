"""Which real images a step sees: random ones of every class, or equally many of every group (--group_balance).

A draw depends on its key alone, so a resumed run sees the same images. The stratified sampler goes through each cell
in epochs: a shuffled order is used up before it is shuffled again, so at any time all images of a cell have been seen
equally often, or once more.
"""

import functools

import numpy as np
import torch
from torch import Tensor

from fairdd.core.rng import numpy_generator


class RandomSampler:
    """Draws batch_real random images of every class (all, if it has fewer)."""

    def __init__(self, real, batch_real: int):
        self.batch_real = batch_real
        self.classes = [(real.labels == label).nonzero().flatten() for label in range(real.num_classes)]

    def rows(self, *key) -> Tensor:
        """Return the rows of the real set that the step of this key sees, class by class, in any order. (B,)"""
        generator = numpy_generator(*key, "real")
        return torch.cat([rows[generator.choice(len(rows), min(self.batch_real, len(rows)), False, shuffle=False)]
                          for rows in self.classes])


class StratifiedSampler:
    """Draws batch_real images of every class (all, if it has fewer), equally many of every group that has enough."""

    def __init__(self, real, batch_real: int, steps_per_iteration: int = 1):
        self.steps_per_iteration = steps_per_iteration
        self.quotas = torch.stack([group_quotas(sizes, batch_real) for sizes in real.counts().unbind(1)], 1)    # (G, C)
        self.cells = {
            (label, group): ((real.labels == label) & (real.groups == group)).nonzero().flatten()
            for label in range(real.num_classes) for group in range(real.num_groups)
        }

    def rows(self, seed, _, experiment: int, iteration: int, step: int = 0) -> Tensor:
        """Return the rows of the real set that a step sees, class by class, group by group. (B,)

        The key is (seed, "experiment", experiment, iteration), followed by the step where an iteration has several.
        """
        step += iteration * self.steps_per_iteration
        return torch.cat([
            rows[sample_without_replacement(len(rows), self.quotas[group, label].item(), step,
                                            seed, "real", experiment, label, group)]
            for (label, group), rows in self.cells.items()
        ])


def group_quotas(sizes: Tensor, total: int) -> Tensor:
    """Divide total equally over cells of these sizes; what a small cell lacks goes to the others. (G,) -> (G,)

    The remainder goes to the largest cells, one each.
    """
    quotas = torch.zeros_like(sizes)
    for index, cell in enumerate(sizes.argsort(stable=True).tolist()):
        quotas[cell] = min(sizes[cell].item(), (total - quotas.sum().item()) // (len(sizes) - index))
    return quotas


def sample_without_replacement(size: int, count: int, step: int, *key) -> Tensor:
    """Return the count of size images that this step sees: none again before all others were seen as often. (count,)

    If a step sees more than half of the images, the ones left out are drawn instead: left out equally often is seen
    equally often.
    """
    if 2 * count > size:
        is_seen = np.ones(size, bool)
        is_seen[epoch_slice(size, size - count, step, *key)] = False
        return torch.from_numpy(is_seen.nonzero()[0])
    return torch.from_numpy(epoch_slice(size, count, step, *key))


def epoch_slice(size: int, count: int, step: int, *key) -> np.ndarray:
    """Return count distinct images of a step, taken from consecutive epochs over size images; 2 * count <= size."""
    if count == 0:
        return np.arange(0)
    epoch, position = divmod(step * count, size)
    current = epoch_permutation(size, count, epoch, *key)[position : position + count]
    if len(current) == count:
        return current
    return np.concatenate([current, epoch_permutation(size, count, epoch + 1, *key)[: count - len(current)]])


@functools.lru_cache(256)         # two epochs of a hundred cells: an epoch of a large cell serves many steps
def epoch_permutation(size: int, count: int, epoch: int, *key) -> np.ndarray:
    """Return the order of an epoch, in which images of a step that began in the previous epoch come late. (size,)

    The end of the epoch, which the next one has to know, stays as shuffled, so no epoch depends on all before it.
    """
    shuffled, previous = (numpy_generator(*key, number).permutation(size) for number in (epoch, epoch - 1))
    just_seen = previous[size - epoch * size % count :]
    end = size - (epoch + 1) * size % count
    is_late = np.isin(shuffled[:end], just_seen)
    return np.concatenate([shuffled[:end][~is_late], shuffled[:end][is_late], shuffled[end:]])
