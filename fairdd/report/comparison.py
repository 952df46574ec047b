"""Compare finished runs: pool those that differ only in their seed, and pair each pool with a baseline.

The baseline is the vanilla runs with the same flags, or a row that the user names. Synthetic sets are paired by seed
and experiment, networks within a pair of sets by their number; the bootstrap resamples both levels.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from fairdd.core.errors import UserError
from fairdd.core.rng import numpy_generator
from fairdd.datasets import DatasetRequest
from fairdd.report.load_runs import FinishedRun, read_run
from fairdd.run.folder import EVALUATIONS, RUNTIME_FLAGS
from fairdd.run.formatting import MAIN_METRICS

IGNORED_WHEN_POOLING = RUNTIME_FLAGS | {"seed", "num_exp", "eval_every"}
ALIGNMENT_FLAGS = {"align", "FairDD", "cluster", "train_net"}     # the last two follow from the alignment
DATA_OPTIONS = {field.name: field.default for field in fields(DatasetRequest)}
NOT_IN_LABELS = IGNORED_WHEN_POOLING | ALIGNMENT_FLAGS | {"trained_on", "images"}
USUAL = {**DATA_OPTIONS, "init": "real", "factor": 1, "dis_metric": "ours", "warmup_epochs": 0, "groups": "labels",
         "group_noise": 0, "known_groups": 1, "groups_of": "combinations", "select": "last"}        # not in names
RESAMPLES, COVERAGE = 10_000, 95        # of the bootstrap; percent
MIN_SETS = 5                            # pairs of synthetic sets that an interval needs; below, the range is given


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ only in their seed. name: what distinguishes them from the other groups of a comparison."""

    name: str
    runs: list[FinishedRun]

    @property
    def flags(self) -> dict:
        return self.runs[0].flags

    @property
    def models(self) -> list[str]:
        return self.runs[0].models

    @cached_property
    def networks(self) -> dict[str, pd.DataFrame]:
        """Return for each model the networks of the last iteration, indexed by (seed, experiment, network)."""
        finals = {model: {run.flags["seed"]: run.final(model) for run in self.runs} for model in self.models}
        return {model: pd.concat(final, names=["seed"], join="inner") for model, final in finals.items()}

    @property
    def network_levels(self) -> list[str]:
        """Return the index levels that number the networks of one synthetic set; seeds of an evaluation share a set."""
        return ["seed", "network"] if self.runs[0].is_evaluation else ["network"]

    def table(self, model: str) -> np.ndarray:
        """Return the mean accuracy of each cell (G, C), NaN where a network has none."""
        return np.mean(np.stack(self.networks[model]["table"]), axis=0)

    @property
    def is_curve(self) -> bool:
        """Return whether the runs were evaluated at more than one iteration."""
        return len(self.learning_curve("accuracy")) > 1

    def learning_curve(self, metric: str) -> pd.DataFrame:
        """Return mean and std (0 for a single network) of a metric of the first model, indexed by iteration."""
        networks = pd.concat([run.networks for run in self.runs])
        values = networks[networks["model"] == self.models[0]].groupby("iteration")[metric]
        return pd.DataFrame({"mean": values.mean(), "std": values.std().fillna(0.0)})


@dataclass(frozen=True)
class Comparison:
    """Groups of runs on the same data, with the same network and number of images per class; vanilla before others.

    against: the name of the group that all others are compared with; None: each with its own vanilla runs. metrics:
    those of the main table.
    """

    groups: list[RunGroup]
    against: str | None = None
    metrics: Sequence[str] = MAIN_METRICS

    @property
    def title(self) -> str:
        """Return the data, the network and the number of images per class as text."""
        flags = self.groups[0].flags
        options = [f"{name} {value}" for name, value in data_flags(flags).items()]
        models = [flags["model"]] if isinstance(flags["model"], str) else flags["model"]
        ipc = [f"ipc {flags['ipc']}"] if "ipc" in flags else []
        return ", ".join([flags["dataset"], *options, " ".join(models), *ipc])

    def baseline(self, group: RunGroup) -> RunGroup | None:
        """Return the group that this one is compared with: the one named by against, or the matching vanilla runs."""
        others = [other for other in self.groups if other is not group]
        if self.against is not None:
            return next((other for other in others if other.name == self.against), None)
        if group.flags.get("align") == "vanilla":
            return None
        key = pooling_key(group.flags, ALIGNMENT_FLAGS)
        return next((other for other in others if other.flags.get("align") == "vanilla"
                     and pooling_key(other.flags, ALIGNMENT_FLAGS) == key), None)


def read_comparisons(folders: Iterable[Path], against: str | None = None,
                     metrics: Sequence[str] = MAIN_METRICS) -> list[Comparison]:
    """Return the runs in these folders as comparisons; a folder given twice counts once.

    against, metrics: as in Comparison. Raises UserError if a run is unfinished or damaged, if no row is named against,
    or for a metric that a run lacks.
    """
    folders = {folder.resolve(): folder for folder in folders}.values()
    collections = collect_comparable([read_run(folder) for folder in folders])
    comparisons = [Comparison(pool_runs(runs), against, metrics) for runs in collections]
    names = dict.fromkeys(group.name for comparison in comparisons for group in comparison.groups)
    if against is not None and against not in names:
        raise UserError(f"--against: no row is named {against}; the rows are: {'; '.join(names)}")
    for run in (run for runs in collections for run in runs):
        check_metrics(run, metrics)
    return comparisons


def check_metrics(run: FinishedRun, names: Sequence[str]) -> None:
    """Raise UserError for a metric that the networks of a run lack."""
    known = run.networks.columns.difference(["iteration", "model", "experiment", "network", "table"])
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"--metrics: {run.folder} has no {', '.join(unknown)}; it has: {', '.join(known)}")


def collect_comparable(runs: list[FinishedRun]) -> list[list[FinishedRun]]:
    """Return lists of runs that can be compared; networks trained on all real images join every list of their data."""
    distilled = [run for run in runs if not run.is_all_real]
    collections = group_by(distilled, lambda run: [data_key(run), run.flags["model"], run.flags.get("ipc")])
    for run in filter(lambda run: run.is_all_real, runs):
        matching = [each for each in collections if data_key(each[0]) == data_key(run) and each[0].model in run.models]
        if not matching:
            matching = [[]]
            collections += matching
        for each in matching:
            each.append(run)
    return collections


def pool_runs(runs: list[FinishedRun]) -> list[RunGroup]:
    """Return the runs of a comparison as groups, in the order of control, vanilla, others, all real images."""
    runs = sorted(runs, key=lambda run: run.flags["seed"])
    pools = group_by(runs, lambda run: pooling_key(run.flags))
    pools.sort(key=lambda pool: (pool[0].is_all_real, pool[0].flags["Iteration"] > 0,
                                 pool[0].flags.get("align") != "vanilla"))
    for pool in pools:
        check_independent(pool)
    return [RunGroup(distinct_name(pool[0], [other[0] for other in pools]), pool) for pool in pools]


def check_independent(runs: list[FinishedRun]) -> None:
    """Raise UserError if two runs of a group hold the same synthetic set, which would count as two independent ones."""
    first_runs = {}
    for run in runs:
        for experiment in run.networks["experiment"].unique():
            first = first_runs.setdefault((run.flags["seed"], experiment), run)
            if first is not run:
                contents = {(folder / EVALUATIONS).read_bytes() for folder in (first.folder, run.folder)}
                relation = "are copies of one run" if len(contents) == 1 else "have the same flags and seed"
                raise UserError(f"{first.folder} and {run.folder} {relation}, so they are not independent; "
                                "name only one of them")


def distinct_name(run: FinishedRun, others: list[FinishedRun]) -> str:
    """Return the run's name and, in parentheses, the flags in which it differs from its namesakes, else its folder."""
    namesakes = [other for other in others if other.name == run.name]
    differing = [(name, value) for name, value in run.flags.items() if name not in NOT_IN_LABELS
                 and any(other.flags.get(name) != value for other in namesakes)]
    labels = [name if value is True else f"{name} {value}" for name, value in differing if is_unusual(name, value)]
    if len(namesakes) > 1 and not differing:
        labels = [str(run.folder)]
    return run.name + (f" ({', '.join(labels)})" if labels else "")


def is_unusual(name: str, value) -> bool:
    """Return whether a flag is set, and to something other than its usual value."""
    return value is not None and value is not False and (name, value) not in USUAL.items()


def pooling_key(flags: dict, ignored: Iterable[str] = ()) -> dict:
    """Return the flags that runs of one group share; a flag that an older run does not have counts as not set."""
    ignored = IGNORED_WHEN_POOLING.union(ignored)
    if flags.get("select") == "val":        # then the result depends on how often it was evaluated
        ignored -= {"eval_every"}
    return {name: value for name, value in flags.items() if name not in ignored and is_unusual(name, value)}


def data_key(run: FinishedRun) -> list:
    """Return what identifies the data of a run; the counts tell apart splits that differ between versions."""
    counts = run.counts and {split: counts.tolist() for split, counts in run.counts.items()}
    return [run.flags["dataset"], data_flags(run.flags), run.class_names, run.group_names, counts]


def data_flags(flags: dict) -> dict:
    """Return the unusual options of the data set; data_path identifies the data only for a user's own folder."""
    return {name: flags[name] for name in DATA_OPTIONS if is_unusual(name, flags.get(name))
            and (name != "data_path" or flags["dataset"] == "Folder")}


def group_by(items: Iterable, key: Callable) -> list[list]:
    """Return lists of the items with equal keys, in the order in which the keys first appear."""
    groups = {}
    for item in items:
        groups.setdefault(json.dumps(key(item), sort_keys=True), []).append(item)
    return list(groups.values())


def paired_differences(group: RunGroup, baseline: RunGroup, model: str) -> pd.DataFrame:
    """Return how each metric of a group differs from its baseline's, indexed by metric; no row if they share no pair.

    difference: the mean over pairs; pairs: the number of pairs of synthetic sets; low, high: with bounds "interval"
    the bootstrap interval; with bounds "range", for fewer than MIN_SETS pairs, the extreme differences of a pair of
    sets; None for a single pair.
    """
    networks, reference = group.networks[model], baseline.networks[model]
    shared = networks.index.intersection(reference.index)
    levels = [level for level in group.network_levels if level in baseline.network_levels]
    records = {}
    for metric in networks.columns.intersection(reference.columns).drop("table") if len(shared) else ():
        by_set = (networks.loc[shared, metric] - reference.loc[shared, metric]).unstack(levels).to_numpy()
        low, high, bounds = by_set.mean(1).min(), by_set.mean(1).max(), "range"
        if len(by_set) >= MIN_SETS:
            low, high, bounds = *bootstrap_interval(by_set), "interval"
        elif len(by_set) == 1:
            low, high, bounds = None, None, None
        records[metric] = (by_set.mean(), low, high, bounds, len(by_set))
    return pd.DataFrame.from_dict(records, "index", columns=["difference", "low", "high", "bounds", "pairs"])


def bootstrap_interval(differences: np.ndarray) -> tuple[float, float]:
    """Return the central 95 % of the means of resampled differences (S, N) of S pairs of sets with N networks each.

    Each resample draws S sets with replacement, and from each drawn set N networks with replacement.
    """
    num_sets, num_networks = differences.shape
    generator = numpy_generator("bootstrap", num_sets, num_networks)
    sets = generator.integers(num_sets, size=(RESAMPLES, num_sets, 1))
    networks = generator.integers(num_networks, size=(RESAMPLES, num_sets, num_networks))
    means = differences[sets, networks].mean((1, 2))
    low, high = np.percentile(means, [(100 - COVERAGE) / 2, (100 + COVERAGE) / 2])
    return low.item(), high.item()
