"""The results of a run: its synthetic sets in the DC/DM format, its metrics, a projection of its images."""

from dataclasses import replace

from torch import Tensor

from fairdd.datasets.base import GroupedImages
from fairdd.evaluation.metrics import covered_cells, summarize
from fairdd.evaluation.projection import project_to_plane
from fairdd.matching.synset import SynSet, expand_grid
from fairdd.run.context import Context


def to_saved_format(context: Context, synset: list[Tensor], iteration: int) -> dict:
    """Return the synthetic sets as DC and DM save them: data is a list of [images, labels].

    The images are as stored; synset.expand_grid(images, factor) makes those that networks are trained on. iterations:
    at which each set was saved, and how many it is to have.
    """
    real, num_iterations = context.real, context.args.Iteration
    iterations = [[num_iterations, num_iterations] for _ in context.synsets] + [[iteration, num_iterations]]
    return {
        "data": [*context.synsets, synset], "factor": context.args.factor,
        "mean": list(real.mean), "std": list(real.std),
        "class_names": list(real.class_names), "group_names": list(context.test.group_names),
        "iterations": iterations,
    }


def run_results(context: Context) -> dict:
    """Return the metrics over all networks of all experiments; with several models the first one's are at the top."""
    networks = [(key, metrics) for key, metrics in context.run.network_metrics.items()
                if key[1] == context.args.Iteration]
    by_model = {
        name: summarize([metrics for (_, _, model, _), metrics in networks if model == name])
        for name in context.eval_pool
    }
    first = context.eval_pool[0]
    names = {"class_names": list(context.real.class_names), "group_names": list(context.test.group_names)}
    covered, cells = covered_cells(by_model[first]["table"])
    coverage = {"cells_covered": covered, "cells": cells}       # (group, class) cells with test images
    selected = {"selected": context.selections} if context.selections else {}       # by experiment
    return by_model[first] | coverage | selected | {"model": first, "by_model": by_model} | names


def project_images(context: Context, real: GroupedImages, syn: SynSet) -> dict:
    """Return the first experiment's initial set (syn) and final set among real images, seen by a random network.

    real: the training images with their true groups.
    """
    net = context.init_network(context.args.model, context.args.seed, "view")
    sets = {"start": expand(*syn.to_list(), syn.factor), "end": expand(*context.synsets[0], syn.factor)}
    real = replace(context.real, groups=real.groups, group_names=real.group_names)
    return project_to_plane(net, real, sets, context.args.seed, "view")


def expand(images: Tensor, labels: Tensor, factor: int) -> list[Tensor]:
    """Return stored [images, labels] as networks are trained on them."""
    return [expand_grid(images, factor), labels.repeat_interleave(factor**2)]
