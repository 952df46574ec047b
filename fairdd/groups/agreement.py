"""How well the groups that a run uses agree with the true ones: adjusted Rand index and purity, inside each class."""

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
    """Return both measures, and what one group per class would score. Three (N,)"""
    index, share, single = (adjusted_rand_index(used, true, labels), purity(used, true, labels),
                            purity(torch.zeros_like(used), true, labels))
    return (f"adjusted Rand index {index:.3f}, purity {share:.3f} against the true groups "
            f"(one group per class: 0 and {single:.3f})")


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
    cells = torch.stack([labels, used]).unique(dim=1, return_inverse=True)[1]
    counts = torch.zeros(int(cells.max()) + 1, int(true.max()) + 1, dtype=torch.int64)
    counts.index_put_((cells, true), torch.ones_like(true), accumulate=True)
    return (counts.max(1).values.sum() / len(true)).item()
