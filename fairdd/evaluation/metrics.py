"""Fairness of predictions: pure functions of predictions, labels and groups.

Nearly everything is read off one table: acc(g, y) = P(prediction = y | label = y, group = g). A cell without test
images is undefined: it is NaN in the table and left out of every figure, never counted as 0. All values lie in [0, 1].
docs/metrics.md says when to read which.
"""

import math

import torch


def accuracy_table(predictions, labels, groups, num_classes, num_groups):
    """Accuracy of each (group, class) cell. predictions, labels, groups: (N,) -> (G, C) float64, NaN where empty."""
    cell = groups * num_classes + labels
    hits = torch.bincount(cell[predictions == labels], minlength=num_groups * num_classes)
    sizes = torch.bincount(cell, minlength=num_groups * num_classes)
    return (hits.double() / sizes).view(num_groups, num_classes)


def per_class_gap(table):
    """Gap of each class: the largest minus the smallest value of its column over groups (FairDD, section 5.1).

    table: (G, C) -> (C,); 0 means that every group is served alike, NaN that fewer than two groups were tested.
    """
    tested = ~table.isnan()
    highest = table.masked_fill(~tested, -math.inf).amax(0)
    lowest = table.masked_fill(~tested, math.inf).amin(0)
    return torch.where(tested.sum(0) >= 2, highest - lowest, math.nan)


def deo_m(table):
    """DEO_M, equalized-odds difference by its worst class: max over classes of the gap. 0 is fair, 1 the worst."""
    return _defined(per_class_gap(table)).max().item()


def deo_a(table):
    """DEO_A, equalized-odds difference on average: mean over classes of the gap. 0 is fair, 1 the worst."""
    return _defined(per_class_gap(table)).mean().item()


def equal_opportunity(table):
    """Equal opportunity, of two classes: the gap of the second one, of P(prediction = 1 | label = 1, group).

    0 is fair, 1 the worst; NaN for more classes, where none of them is the favorable one.
    """
    return per_class_gap(table)[1].item() if table.shape[1] == 2 else math.nan


def worst_cell(table):
    """The lowest accuracy of any (group, class) cell. 1: no error at all; 0: some cell is never recognized."""
    return _defined(table.flatten()).min().item()


def worst_group(predictions, labels, groups, num_groups):
    """The lowest accuracy of any group, P(prediction = label | group), over all its images whatever their class.

    1: no error at all; 0: some group is never recognized. A group without images is left out.
    """
    hits = torch.bincount(groups[predictions == labels], minlength=num_groups)
    return _defined(hits.double() / torch.bincount(groups, minlength=num_groups)).min().item()


def prediction_table(predictions, groups, num_classes, num_groups):
    """Share of each group taken for each class, P(prediction = c | group = g). -> (G, C) float64, NaN where empty"""
    cell = groups * num_classes + predictions
    counts = torch.bincount(cell, minlength=num_groups * num_classes).view(num_groups, num_classes)
    return counts.double() / counts.sum(1, keepdim=True)


def demographic_parity(predictions, groups, num_classes, num_groups):
    """Gap of demographic parity: max over classes of the gap of P(prediction = c | group) over groups.

    0: every class is predicted as often in every group; 1: some class for all of one group and none of another.
    """
    return _defined(per_class_gap(prediction_table(predictions, groups, num_classes, num_groups))).max().item()


def fairness_metrics(predictions, labels, groups, num_classes, num_groups):
    """All figures of one network on one test set, in percent: numbers, and table (G x C); NaN where undefined."""
    table = accuracy_table(predictions, labels, groups, num_classes, num_groups)
    figures = {
        "accuracy": (predictions == labels).double().mean().item(),
        "DEO_M": deo_m(table),
        "DEO_A": deo_a(table),
        "worst_cell": worst_cell(table),
        "worst_group": worst_group(predictions, labels, groups, num_groups),
        "demographic_parity": demographic_parity(predictions, groups, num_classes, num_groups),
        "equal_opportunity": equal_opportunity(table),
    }
    return {name: 100 * value for name, value in figures.items()} | {"table": (100 * table).tolist()}


def attribute_metrics(predictions, labels, groups, num_classes, attributes):
    """DEO_M[name] and DEO_A[name], in percent, of each attribute alone, where groups are combinations of several.

    attributes: (name, value names) of each, the last one's values vary fastest. The images of a value are taken
    together, whatever their other attributes; without attributes there is nothing to tell. -> dict
    """
    figures = {}
    sizes = [len(values) for _, values in attributes]
    for (name, values), alone in zip(attributes, torch.unravel_index(groups, sizes), strict=True):
        table = accuracy_table(predictions, labels, alone, num_classes, len(values))
        figures |= {f"DEO_M[{name}]": 100 * deo_m(table), f"DEO_A[{name}]": 100 * deo_a(table)}
    return figures


def empty_cells(counts, class_names, group_names):
    """The (class, group) cells without an image, which no figure can speak of. counts: (G, C) -> list of str"""
    return [f"({class_names[c]}, {group_names[g]})" for g, c in (counts == 0).nonzero().tolist()]


def summarize(figures):
    """mean, std (sample) and n over networks of each figure. figures: list of fairness_metrics -> nested dict

    table and table_std are the mean and std of each cell; a std is None for a single network.
    """
    columns = {name: torch.tensor([f[name] for f in figures], dtype=torch.float64) for name in figures[0]}
    tables = columns.pop("table")
    cells = {"table": tables.mean(0).tolist(), "table_std": tables.std(0).tolist() if len(tables) > 1 else None}
    return {name: mean_std(values) for name, values in columns.items()} | cells


def mean_std(values):
    """values: (n,) -> {"mean", "std", "n"}"""
    return {"mean": values.mean().item(), "std": values.std().item() if len(values) > 1 else None, "n": len(values)}


def _defined(values):
    defined = values[~values.isnan()]
    return defined if len(defined) else values.new_tensor([math.nan])
