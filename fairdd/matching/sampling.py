"""Which real images a step sees: random ones of every class, or as many of every group (--group_balance).

A draw is a function of its key alone, so a resumed run sees the same images. The balanced sampler deals out each cell
like cards: shuffled, sample_without_replacement to the end, shuffled anew; so at any time its images were seen equally often, or once more.
"""

import functools

import numpy as np
import torch

from fairdd.core.rng import numpy_generator


class RandomSampler:
    """batch_real random images of every class (all, if it has fewer)."""

    def __init__(self, real, batch_real):
        self.batch_real = batch_real
        self.classes = [(real.labels == label).nonzero().flatten() for label in range(real.num_classes)]

    def rows(self, *key):
        """The rows of real that the step of this key sees, class after class. -> (B,)"""
        generator = numpy_generator(*key, "real")
        return torch.cat([rows[generator.permutation(len(rows))[: self.batch_real]] for rows in self.classes])


class StratifiedSampler:
    """batch_real images of every class (all, if it has fewer), the same number of every group that reaches so far."""

    def __init__(self, real, batch_real, steps_per_iteration=1):
        self.steps_per_iteration = steps_per_iteration
        self.counts = torch.stack([group_quotas(sizes, batch_real) for sizes in real.counts().unbind(1)], 1)     # (G, C)
        self.cells = {
            (label, group): ((real.labels == label) & (real.groups == group)).nonzero().flatten()
            for label in range(real.num_classes) for group in range(real.num_groups)
        }

    def rows(self, seed, _, experiment, iteration, outer=0):
        """The rows of real that a step sees, class after class, group after group. -> (B,)

        The key is (seed, "experiment", experiment, iteration), in DC with the outer loop behind.
        """
        step = iteration * self.steps_per_iteration + outer
        return torch.cat([
            rows[sample_without_replacement(len(rows), self.counts[group, label].item(), step, seed, "real", experiment, label, group)]
            for (label, group), rows in self.cells.items()
        ])


def group_quotas(sizes, total):
    """Share total out equally over cells of these sizes (G,); what a small one lacks goes to the others. -> (G,)

    What cannot be divided goes to the largest, one each.
    """
    shares = torch.zeros_like(sizes)
    for place, cell in enumerate(sizes.argsort(stable=True).tolist()):
        shares[cell] = min(sizes[cell].item(), (total - shares.sum().item()) // (len(sizes) - place))
    return shares


def sample_without_replacement(size, count, step, *key):
    """The count of size images that this step sees: none again before all others were seen as often. -> (count,) int64

    Where it sees more than half, leaving out is sample_without_replacement instead: left out equally often is seen equally often.
    """
    if 2 * count > size:
        seen = np.ones(size, bool)
        seen[cards(size, size - count, step, *key)] = False
        return torch.from_numpy(seen.nonzero()[0])
    return torch.from_numpy(cards(size, count, step, *key))


def cards(size, count, step, *key):
    """The cards that a step is sample_without_replacement out of size, no two alike, one turn after the other; 2 * count <= size."""
    if count == 0:
        return np.arange(0)
    turn, place = divmod(step * count, size)
    now = order(size, count, turn, *key)[place : place + count]
    if len(now) == count:
        return now
    return np.concatenate([now, order(size, count, turn + 1, *key)[: count - len(now)]])


@functools.lru_cache(256)         # two turns of a hundred cells: a turn of a large cell serves many steps
def order(size, count, turn, *key):
    """The order in which a turn deals its cards; those of a step that began in the turn before come late. -> (size,)

    Its own end, which the turn after has to know, stays as it was shuffled: so no turn depends on all before it.
    """
    shuffled, before = (numpy_generator(*key, number).permutation(size) for number in (turn, turn - 1))
    held = before[size - turn * size % count :]
    end = size - (turn + 1) * size % count
    late = np.isin(shuffled[:end], held)
    return np.concatenate([shuffled[:end][~late], shuffled[:end][late], shuffled[end:]])
