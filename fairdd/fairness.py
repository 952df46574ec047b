"""Fairness of predictions: pure functions of predictions, labels and groups.

Everything is read off one table: acc(g, y) = P(prediction = y | label = y, group = g). A cell without test images
is undefined: it is NaN in the table and left out of every figure, never counted as 0. All values lie in [0, 1].
"""

import math

import torch


def accuracy_table(predictions, labels, groups, num_classes, num_groups):
    """Accuracy of each (group, class) cell. predictions, labels, groups: (N,) -> (G, C) float64, NaN where empty."""
    cell = groups * num_classes + labels
    hits = torch.bincount(cell[predictions == labels], minlength=num_groups * num_classes)
    sizes = torch.bincount(cell, minlength=num_groups * num_classes)
    return (hits.double() / sizes).view(num_groups, num_classes)


def class_gaps(table):
    """Gap of each class: the largest minus the smallest accuracy over groups (published.md 1.2: FairDD, section 5.1).

    table: (G, C) -> (C,); 0 means that every group is served alike, NaN that fewer than two groups were tested.
    """
    tested = ~table.isnan()
    highest = table.masked_fill(~tested, -math.inf).amax(0)
    lowest = table.masked_fill(~tested, math.inf).amin(0)
    return torch.where(tested.sum(0) >= 2, highest - lowest, math.nan)


def deo_m(table):
    """DEO_M, equalized-odds difference by its worst class: max over classes of the gap. 0 is fair, 1 the worst."""
    return _defined(class_gaps(table)).max().item()


def deo_a(table):
    """DEO_A, equalized-odds difference on average: mean over classes of the gap. 0 is fair, 1 the worst."""
    return _defined(class_gaps(table)).mean().item()


def worst_cell(table):
    """The lowest accuracy of any (group, class) cell."""
    return _defined(table.flatten()).min().item()


def fairness_figures(predictions, labels, groups, num_classes, num_groups):
    """All figures of one network on one test set, in percent: accuracy, DEO_M, DEO_A, worst_cell, table (G x C)."""
    table = accuracy_table(predictions, labels, groups, num_classes, num_groups)
    figures = {
        "accuracy": (predictions == labels).double().mean().item(),
        "DEO_M": deo_m(table),
        "DEO_A": deo_a(table),
        "worst_cell": worst_cell(table),
    }
    return {name: 100 * value for name, value in figures.items()} | {"table": (100 * table).tolist()}


def attribute_figures(predictions, labels, groups, num_classes, attributes):
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


def summarise(figures):
    """mean, std (sample) and n over networks of each figure. figures: list of fairness_figures -> nested dict

    The table is averaged cell by cell; std is None for a single network.
    """
    columns = {name: torch.tensor([f[name] for f in figures], dtype=torch.float64) for name in figures[0]}
    table = columns.pop("table").mean(0).tolist()
    return {name: mean_std(values) for name, values in columns.items()} | {"table": table}


def mean_std(values):
    """values: (n,) -> {"mean", "std", "n"}"""
    return {"mean": values.mean().item(), "std": values.std().item() if len(values) > 1 else None, "n": len(values)}


def _defined(values):
    defined = values[~values.isnan()]
    return defined if len(defined) else values.new_tensor([math.nan])
