"""How well the groups that a run uses agree with the true ones, inside each class.

Adjusted Rand index and purity compare two groupings; the majority share says what the targets of FairDD are made of.
"""

import torch
from torch import Tensor

from fairdd.datasets.base import UNKNOWN, GroupedImages


def describe_agreement(used: GroupedImages, true: GroupedImages) -> str:
    """Return a sentence on the agreement over the images whose true group is known, and that are in a group."""
    is_used = used.groups != UNKNOWN
    known = is_used & (true.groups != UNKNOWN)
    left_out = f"; {(~is_used).sum()} of {len(known)} images are in no group" if not is_used.all() else ""
    return agreement_sentence(used.groups[known], true.groups[known], true.labels[known]) + left_out


def agreement_sentence(used: Tensor, true: Tensor, labels: Tensor) -> str:
    """Return all measures, and what one group per class and the true groups would score. Three (N,)"""
    index, single = adjusted_rand_index(used, true, labels), torch.zeros_like(used)
    shares = [purity(groups, true, labels) for groups in (used, single)]
    majority = [majority_share(groups, true, labels) for groups in (used, single, true)]
    return (f"adjusted Rand index {index:.3f}, purity {shares[0]:.3f} against the true groups "
            f"(one group per class: 0 and {shares[1]:.3f}); majority share of the targets {majority[0]:.3f} "
            f"(one group per class: {majority[1]:.3f}, true groups: {majority[2]:.3f})")


def adjusted_rand_index(used: Tensor, true: Tensor, labels: Tensor) -> float:
    """Return the mean over classes of the adjusted Rand index (Hubert & Arabie 1985): 1 is equal, 0 as by chance.

    Three (N,); from -0.5 to 1.
    """
    from sklearn.metrics import adjusted_rand_score  # imported here because it takes a second

    classes = [labels == label for label in labels.unique()]
    scores = [adjusted_rand_score(true[rows].numpy(), used[rows].numpy()) for rows in classes]
    return sum(scores) / len(scores)


def purity(used: Tensor, true: Tensor, labels: Tensor) -> float:
    """Return the share of images whose true group is the most frequent one of their (class, used group). Three (N,)"""
    _, counts = true_groups_of_cells(used, true, labels)
    return (counts.max(1).values.sum() / len(true)).item()


def majority_share(used: Tensor, true: Tensor, labels: Tensor) -> float:
    """Return the share of a class's most frequent true group in each of its used groups, averaged over these groups.

    The mean over classes; three (N,). FairDD with DM pulls the mean of a class's synthetic images to the mean of its
    groups' means, in which the majority has this share: as much as for vanilla with one group per class, and 1 / G with
    the G true groups.
    """
    cells, counts = true_groups_of_cells(used, true, labels)
    shares = counts.double() / counts.sum(1, keepdim=True)
    of_classes = [(shares[cells[0] == label], counts[cells[0] == label].sum(0).argmax()) for label in labels.unique()]
    return torch.stack([rows[:, majority].mean() for rows, majority in of_classes]).mean().item()


def true_groups_of_cells(used: Tensor, true: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the (class, used group) of every non-empty cell, (2, K), and how many images of each true group it has.

    Three (N,) -> counts (K, G)
    """
    cells, inverse = torch.stack([labels, used]).unique(dim=1, return_inverse=True)
    counts = torch.zeros(cells.shape[1], int(true.max()) + 1, dtype=torch.int64)
    counts.index_put_((inverse, true), torch.ones_like(true), accumulate=True)
    return cells, counts
