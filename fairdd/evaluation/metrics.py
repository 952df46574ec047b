"""Fairness metrics: pure functions of predictions, labels and groups.

Nearly all of them are computed from one table: acc(g, y) = P(prediction = y | label = y, group = g). A (group, class)
cell without test images is undefined: NaN in the table and left out of every metric, never counted as 0. The functions
return values in [0, 1]; fairness_metrics and attribute_metrics return percent. docs/metrics.md says when to use which.
Shapes: predictions, labels and groups are (N,) int64; tables are (G, C) float64, one row per group.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def accuracy_table(predictions: Tensor, labels: Tensor, groups: Tensor, num_classes: int, num_groups: int) -> Tensor:
    """Return the accuracy of each (group, class) cell: (G, C) float64, NaN for a cell without images."""
    cells = groups * num_classes + labels
    hits = torch.bincount(cells[predictions == labels], minlength=num_groups * num_classes)
    sizes = torch.bincount(cells, minlength=num_groups * num_classes)
    return (hits.double() / sizes).view(num_groups, num_classes)


def per_class_gap(table: Tensor) -> Tensor:
    """Return the gap of each class: its largest minus its smallest value over groups (FairDD, section 5.1).

    table: (G, C) -> (C,). 0: the class is recognized equally well in every group; NaN: fewer than two groups have one.
    """
    defined = ~table.isnan()
    highest = table.masked_fill(~defined, -math.inf).amax(0)
    lowest = table.masked_fill(~defined, math.inf).amin(0)
    return torch.where(defined.sum(0) >= 2, highest - lowest, math.nan)


def deo_m(table: Tensor) -> float:
    """Return DEO_M, the maximum over classes of the gap in true positive rates (FairDD, section 5.1).

    0 is fair, 1 is worst; NaN if no class has a gap. For two classes it equals the equalized-odds difference. For more,
    equalized odds would compare every entry of the confusion matrix; DEO compares only its diagonal, the accuracies.
    """
    return defined_values(per_class_gap(table)).max().item()


def deo_a(table: Tensor) -> float:
    """Return DEO_A, the mean gap in true positive rates over the classes that have one (FairDD, section 5.1).

    The range and the relation to equalized odds are those of deo_m.
    """
    return defined_values(per_class_gap(table)).mean().item()


def equal_opportunity_difference(table: Tensor) -> float:
    """Return the gap of the second of two classes: of P(prediction = 1 | label = 1, group) (Hardt et al. 2016).

    0 is fair, 1 is worst; NaN with more than two classes, where no class is the favorable one.
    """
    return per_class_gap(table)[1].item() if table.shape[1] == 2 else math.nan


def worst_cell_accuracy(table: Tensor) -> float:
    """Return the lowest accuracy of any (group, class) cell. 1: no error; 0: one cell is never recognized."""
    return defined_values(table.flatten()).min().item()


def worst_group_accuracy(predictions: Tensor, labels: Tensor, groups: Tensor, num_groups: int) -> float:
    """Return the lowest accuracy of any group, P(prediction = label | group), over all its images (Sagawa et al. 2020).

    1: no error; 0: one group is never recognized. A group without images is left out.
    """
    hits = torch.bincount(groups[predictions == labels], minlength=num_groups)
    return defined_values(hits.double() / torch.bincount(groups, minlength=num_groups)).min().item()


def prediction_table(predictions: Tensor, groups: Tensor, num_classes: int, num_groups: int) -> Tensor:
    """Return P(prediction = c | group = g): (G, C) float64, a row of NaN for a group without images."""
    cells = groups * num_classes + predictions
    counts = torch.bincount(cells, minlength=num_groups * num_classes).view(num_groups, num_classes)
    return counts.double() / counts.sum(1, keepdim=True)


def demographic_parity_difference(predictions: Tensor, groups: Tensor, num_classes: int, num_groups: int) -> float:
    """Return the maximum over classes of the gap of P(prediction = c | group) (Dwork et al. 2012).

    0: every class is predicted equally often in every group; 1: a class is predicted for all of one group and for
    nobody of another. NaN with fewer than two groups.
    """
    return defined_values(per_class_gap(prediction_table(predictions, groups, num_classes, num_groups))).max().item()


def fairness_metrics(predictions: Tensor, labels: Tensor, groups: Tensor, num_classes: int, num_groups: int) -> dict:
    """Return all metrics of one network on one test set in percent: name -> float, and "table" -> G lists of C floats.

    An undefined value is NaN.
    """
    table = accuracy_table(predictions, labels, groups, num_classes, num_groups)
    metrics = {
        "accuracy": (predictions == labels).double().mean().item(),
        "DEO_M": deo_m(table),
        "DEO_A": deo_a(table),
        "worst_cell_accuracy": worst_cell_accuracy(table),
        "worst_group_accuracy": worst_group_accuracy(predictions, labels, groups, num_groups),
        "demographic_parity_difference": demographic_parity_difference(predictions, groups, num_classes, num_groups),
        "equal_opportunity_difference": equal_opportunity_difference(table),
    }
    return {name: 100 * value for name, value in metrics.items()} | {"table": (100 * table).tolist()}


def attribute_metrics(predictions: Tensor, labels: Tensor, groups: Tensor, num_classes: int,
                      attributes: Sequence[tuple[str, Sequence[str]]]) -> dict[str, float]:
    """Return DEO_M[name] and DEO_A[name], in percent, of each attribute by itself, where groups combine several.

    attributes: (name, value names) of each; the last one's values vary fastest over groups. All images with the same
    value count as one group, whatever their other attributes. Without attributes the result is empty.
    """
    metrics = {}
    sizes = [len(values) for _, values in attributes]
    for (name, _), size, values in zip(attributes, sizes, torch.unravel_index(groups, sizes), strict=True):
        table = accuracy_table(predictions, labels, values, num_classes, size)
        metrics |= {f"DEO_M[{name}]": 100 * deo_m(table), f"DEO_A[{name}]": 100 * deo_a(table)}
    return metrics


def empty_cells(counts: Tensor, class_names: Sequence[str], group_names: Sequence[str]) -> list[str]:
    """Return "(class, group)" for each cell without images, which no metric covers. counts: (G, C)."""
    return [f"({class_names[c]}, {group_names[g]})" for g, c in (counts == 0).nonzero().tolist()]


def covered_cells(table: Tensor | Sequence[Sequence[float | None]]) -> tuple[int, int]:
    """Return how many cells of a table (G, C) have test images, and how many there are.

    The metrics cover only these. table: as in fairness_metrics or summarize, also with null for NaN as in JSON files.
    """
    cells = torch.as_tensor([math.nan if value is None else float(value) for row in table for value in row])
    return int((~cells.isnan()).sum()), len(cells)


def summarize(metrics: Sequence[dict]) -> dict:
    """Return name -> {"mean", "std", "n"} over networks. metrics: the results of fairness_metrics, one per network.

    "table" and "table_std" hold the mean and standard deviation of each cell. A std is None for a single network.
    A metric that some network lacks, which an earlier version tested, is left out.
    """
    names = [name for name in metrics[0] if all(name in of_network for of_network in metrics)]
    columns = {name: torch.tensor([m[name] for m in metrics], dtype=torch.float64) for name in names}
    tables = columns.pop("table")
    cells = {"table": tables.mean(0).tolist(), "table_std": tables.std(0).tolist() if len(tables) > 1 else None}
    return {name: mean_std(values) for name, values in columns.items()} | cells


def mean_std(values: Tensor) -> dict:
    """Return {"mean", "std", "n"} of values (n,); std is the sample standard deviation, None for n = 1."""
    return {"mean": values.mean().item(), "std": values.std().item() if len(values) > 1 else None, "n": len(values)}


def defined_values(values: Tensor) -> Tensor:
    """Return the values that are not NaN, or one NaN if there are none."""
    defined = values[~values.isnan()]
    return defined if len(defined) else values.new_tensor([math.nan])
