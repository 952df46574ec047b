"""Selection without looking at the test: of a run's evaluations on validation images, the best one is the result."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fairdd.core.errors import UserError
from fairdd.core.rng import torch_generator
from fairdd.datasets.base import UNKNOWN, Dataset, subset
from fairdd.evaluation.metrics import defined_values
from fairdd.flags import Flags

HIGHEST = {"accuracy": "accuracy", "worst_cell": "worst_cell_accuracy"}         # --select_by -> metric
VALIDATION = "{} on validation images"         # how files call the evaluations of a network that select


@dataclass(frozen=True)
class Selected:
    """The best set so far. value: its validation figure in percent; rank: larger is better; synset: [images, labels]"""

    iteration: int
    value: float
    rank: tuple[float, ...]
    synset: list[Tensor]


def with_validation(data: Dataset, share: float, data_seed: int) -> Dataset:
    """Return the data with validation images: its own, or a share of every (class, group) of the training images.

    A cell of one image stays in training. Raises UserError if nothing can be held out.
    """
    if data.val is not None:
        return data
    train, generator, rows = data.train, torch_generator(data_seed, "validation"), []
    cells = train.groups * train.num_classes + train.labels
    for cell in cells[train.groups != UNKNOWN].unique():
        of_cell = (cells == cell).nonzero().flatten()
        of_cell = of_cell[torch.randperm(len(of_cell), generator=generator)]
        rows.append(of_cell[: min(max(1, round(share * len(of_cell))), len(of_cell) - 1)])
    is_held_out = torch.zeros(len(train), dtype=torch.bool).index_fill_(0, torch.cat(rows), True)
    if not is_held_out.any():
        raise UserError("--select val: every (class, group) has a single training image, so none can be held out")
    kept = (~is_held_out).nonzero().flatten()
    paths = tuple(data.train_paths[row] for row in kept.tolist()) if data.train_paths else ()
    return replace(data, train=subset(train, kept), val=subset(train, is_held_out.nonzero().flatten()),
                   train_paths=paths, notes=(*data.notes, f"{int(is_held_out.sum())} of {len(train)} training images "
                                                          "are held out to select the result"))


def with_cell_accuracy(metrics: dict) -> dict:
    """Return a network's metrics with the mean over (class, group) cells as accuracy.

    Held-out images are as biased as the training images; the accuracy over all of them is that of the majority.
    """
    return metrics | {"accuracy": defined_values(torch.tensor(metrics["table"], dtype=torch.float64)).mean().item()}


def better(best: Selected | None, summary: dict, args: Flags, iteration: int, synset: list[Tensor]) -> Selected:
    """Return the better of the best set so far and this one; the earlier one if they are equal.

    summary: means over networks of the metrics on validation images (metrics.summarize).
    """
    value, rank = validation_figure(summary, args)
    return best if best and best.rank >= rank else Selected(iteration, value, rank, synset)


def validation_figure(summary: dict, args: Flags) -> tuple[float, tuple[float, ...]]:
    """Return the figure of --select_by in percent, and a rank that is larger for a better one.

    DEO_A counts only from --min_accuracy on; below, the more accurate is better, and any that reaches it is better yet.
    """
    accuracy = summary["accuracy"]["mean"]
    if args.select_by != "DEO_A":
        value = summary[HIGHEST[args.select_by]]["mean"]
        return value, (value,)
    deo_a = summary["DEO_A"]["mean"]
    return deo_a, (1.0, -deo_a) if accuracy >= args.min_accuracy else (0.0, accuracy)
