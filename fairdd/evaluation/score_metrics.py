"""Metrics of confidences, and equalized odds over true and false positive rates: pure functions beside metrics.py.

A value that has no images to be computed from is undefined: NaN, and left out of every gap, never counted as 0. The
functions return values in [0, 1]. Shapes: logits are (N, C) float, predictions, labels and groups (N,) int64; tables
are (G, C) float64, one row per group.
"""

import math

import torch
from scipy.stats import rankdata
from torch import Tensor

from fairdd.evaluation.metrics import defined_values, per_class_gap, prediction_table

NUM_BINS = 15       # Guo et al. 2017, section 2


def group_accuracies(predictions: Tensor, labels: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """Return the accuracy of each group over all its images: (G,) float64, NaN for a group without images."""
    hits = torch.bincount(groups[predictions == labels], minlength=num_groups)
    return hits.double() / torch.bincount(groups, minlength=num_groups)


def false_positive_table(predictions: Tensor, labels: Tensor, groups: Tensor, num_classes: int,
                         num_groups: int) -> Tensor:
    """Return P(prediction = c | label != c, group = g): (G, C) float64, NaN where a group has only class c."""
    columns = [
        prediction_table(predictions[labels != c], groups[labels != c], num_classes, num_groups)[:, c]
        for c in range(num_classes)
    ]
    return torch.stack(columns, 1)


def equalized_odds(true_positives: Tensor, false_positives: Tensor) -> tuple[float, float]:
    """Return the maximum and the mean of the gaps of both rates over all classes, each against the rest.

    0 is fair, 1 is worst; NaN if no rate has a gap. For two classes these equal DEO_M and DEO_A (Hardt et al. 2016).
    """
    gaps = defined_values(torch.cat([per_class_gap(true_positives), per_class_gap(false_positives)]))
    return gaps.max().item(), gaps.mean().item()


def auroc_by_class(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the area under the ROC curve of each class against the rest: (C,) float64.

    The probability that an image of the class has a higher score than another image, ties counted half (Hanley and
    McNeil 1982). 0.5: chance; NaN for a class that has no image or all of them. The score is the log odds of the
    class: it orders images as its probability does, but does not round to 1.
    """
    logits = logits.double()
    num_classes, areas = logits.shape[1], []
    for c in range(num_classes):
        others = torch.arange(num_classes) != c
        log_odds = logits[:, c] - logits[:, others].logsumexp(1)
        ranks = torch.from_numpy(rankdata(log_odds.round(decimals=9)))      # ties do not depend on summation order
        positives = int((labels == c).sum())
        pairs = positives * (len(labels) - positives)
        wins = ranks[labels == c].sum().item() - positives * (positives + 1) / 2
        areas.append(wins / pairs if pairs else math.nan)
    return torch.tensor(areas, dtype=torch.float64)


def auroc_table(logits: Tensor, labels: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """Return the AUROC of each class against the rest among the images of each group: (G, C) float64."""
    return torch.stack([auroc_by_class(logits[groups == g], labels[groups == g]) for g in range(num_groups)])


def calibration_error(logits: Tensor, labels: Tensor) -> float:
    """Return the expected calibration error over 15 bins of equal width (Guo et al. 2017, eq. 3).

    The mean over images of |accuracy - mean confidence| of their bin; the confidence is the largest probability.
    0: calibrated; 1: certain and always wrong; NaN without images.
    """
    if not len(labels):
        return math.nan
    confidences, predictions = logits.double().softmax(1).max(1)
    bins = (confidences * NUM_BINS).ceil().long().clamp(1, NUM_BINS) - 1         # bins are open below, closed above
    surplus = (predictions == labels).double() - confidences
    sums = torch.zeros(NUM_BINS, dtype=torch.float64).index_add_(0, bins, surplus)
    return (sums.abs().sum() / len(labels)).item()


def score_metrics(logits: Tensor, labels: Tensor, groups: Tensor, true_positives: Tensor) -> dict[str, float]:
    """Return the metrics of this file in percent, NaN where undefined. true_positives: the accuracy_table, (G, C).

    AUROC_gap is the mean over classes of the gap; accuracy_gap and ECE_gap are maximum minus minimum over groups.
    """
    num_groups, num_classes = true_positives.shape
    predictions = logits.argmax(1)
    false_positives = false_positive_table(predictions, labels, groups, num_classes, num_groups)
    odds_max, odds_mean = equalized_odds(true_positives, false_positives)
    accuracies = group_accuracies(predictions, labels, groups, num_groups)
    errors = torch.tensor([calibration_error(logits[groups == g], labels[groups == g]) for g in range(num_groups)])
    metrics = {
        "accuracy_gap": per_class_gap(accuracies[:, None]).item(),
        "EO_M": odds_max,
        "EO_A": odds_mean,
        "AUROC": defined_values(auroc_by_class(logits, labels)).mean().item(),
        "AUROC_gap": defined_values(per_class_gap(auroc_table(logits, labels, groups, num_groups))).mean().item(),
        "ECE": calibration_error(logits, labels),
        "ECE_gap": per_class_gap(errors[:, None]).item(),
    }
    return {name: 100 * value for name, value in metrics.items()}
