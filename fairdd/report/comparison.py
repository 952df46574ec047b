"""Runs side by side: those that differ only in their seed are pooled, and compared with a baseline.

The baseline is the vanilla runs of the same flags, or a row that the reader names. The interval of a change is a
bootstrap of pairs: of synthetic sets of the same seed and experiment, and within these of networks of the same number.
Against vanilla a pair of sets began from the same images, and a pair of networks from the same weights.
"""

from dataclasses import dataclass

import numpy as np
import torch

from fairdd.core.errors import UserError
from fairdd.core.rng import numpy_generator
from fairdd.evaluation.metrics import mean_std
from fairdd.report.load_runs import read_run
from fairdd.run.folder import SAME_RUN

POOLED = SAME_RUN | {"seed", "num_exp", "eval_every"}       # flags in which runs of one setting may differ
ALIGNMENT = {"align", "FairDD"}
DATA = ("dataset", "labels", "target_attr", "protected_attr", "skew", "im_size", "data_seed")
IN_A_NAME = {"align", "FairDD", "trained_on", "images"}
PUBLISHED = {"data_seed": 30, "init": "real", "factor": 1, "group_balance": False, "dis_metric": "ours",
             "warmup_epochs": 0}                            # not worth a word
COMPARED = ("accuracy", "DEO_M", "DEO_A")
RESAMPLES, COVERAGE = 10_000, 95


@dataclass(frozen=True)
class Setting:
    """Runs that differ only in their seed. name: what sets it apart from the others of its comparison."""

    name: str
    runs: list

    @property
    def flags(self):
        return self.runs[0].flags

    @property
    def models(self):
        return self.runs[0].models

    def networks(self, model):
        """The figures of every network tested at the end. -> (seed, experiment, number) -> figures"""
        return {(run.flags["seed"], *place): figures
                for run in self.runs for place, figures in run.final(model).items()}

    def figures(self, model):
        """The names of figures that every network has."""
        networks = list(self.networks(model).values())
        return [name for name in networks[0] if name != "table" and all(name in network for network in networks)]

    def summary(self, figure, model):
        """mean, std (sample) and n over the networks of all synthetic sets."""
        values = [network[figure] for network in self.networks(model).values()]
        return mean_std(torch.tensor(values, dtype=torch.float64))

    def of_each_run(self):
        """accuracy and DEO_A of each run alone, with its first model. -> list of figure -> summary"""
        alone = [Setting(self.name, [run]) for run in self.runs]
        return [{name: one.summary(name, self.models[0]) for name in COMPARED} for one in alone]

    def num_sets(self, model):
        return len({place[:2] for place in self.networks(model)})

    def table(self, model):
        """The mean accuracy of each cell. -> (G, C) array, NaN where a network has none"""
        return np.mean([network["table"] for network in self.networks(model).values()], 0)

    @property
    def num_evaluations(self):
        """At how many iterations its runs were evaluated."""
        return len({iteration for run in self.runs for _, iteration, _ in run.evaluations})

    def course(self, figure, model):
        """mean and std of a figure at every evaluated iteration. -> iterations, means, stds (0 for a single network)"""
        found = {}
        for run in self.runs:
            for (_, iteration, name), networks in run.evaluations.items():
                if name == model:
                    found.setdefault(iteration, []).extend(network[figure] for network in networks)
        summaries = [mean_std(torch.tensor(found[iteration])) for iteration in sorted(found)]
        return sorted(found), [s["mean"] for s in summaries], [s["std"] or 0.0 for s in summaries]


@dataclass(frozen=True)
class Comparison:
    """Settings of the same data, network and number of images per class, vanilla ones before others.

    against: the name of the setting that all others are compared with; None: each with its own vanilla runs.
    """

    settings: list
    against: str | None = None

    def baseline(self, setting):
        """What a setting is compared with, or None."""
        if self.against is None:
            return self.vanilla(setting)
        return next((other for other in self.settings if other.name == self.against and other is not setting), None)

    def vanilla(self, setting):
        """The vanilla runs that differ from a setting in nothing but the alignment, or None."""
        if setting.flags.get("align") == "vanilla":
            return None
        wanted = setting_key(setting.flags, POOLED | ALIGNMENT)
        return next((other for other in self.settings if other.flags.get("align") == "vanilla"
                     and setting_key(other.flags, POOLED | ALIGNMENT) == wanted), None)

    @property
    def title(self):
        flags, models = self.settings[0].flags, self.settings[0].flags["model"]
        data = f"{flags['dataset']} {place(flags)}".strip()
        words = [f"{name} {flags[name]}" for name in DATA[1:] if flags.get(name) not in (None, PUBLISHED.get(name))]
        size = [f"ipc {flags['ipc']}"] if "ipc" in flags else []
        return ", ".join([data, *words, models if isinstance(models, str) else " ".join(models), *size])


@dataclass(frozen=True)
class Change:
    """How far a figure is from the baseline's, over the pairs both have, with a bootstrap interval.

    low, high: None where there is nothing to resample; pairs: of synthetic sets; networks: pairs of networks in all.
    """

    mean: float
    low: float | None
    high: float | None
    pairs: int
    networks: int


def read_comparisons(folders, against=None):
    """The runs in these folders, sorted out. -> list of Comparison. Raises UserError if a run is not whole.

    against: name of the row that others are compared with, instead of vanilla runs; no row of this name is an error.
    """
    folders = {folder.resolve(): folder for folder in folders}.values()     # a folder named twice counts once
    parts = sorted_out([read_run(folder) for folder in folders])
    comparisons = [Comparison(named_settings(part), against) for part in parts]
    names = dict.fromkeys(setting.name for comparison in comparisons for setting in comparison.settings)
    if against is not None and against not in names:
        raise UserError(f"no row is called {against}; there are: {'; '.join(names)}")
    return comparisons


def sorted_out(runs):
    """Runs that can be compared, together; networks trained on the whole real set stand beside all runs of its data."""
    parts = grouped([run for run in runs if not is_whole(run)], comparison_key)
    for whole in filter(is_whole, runs):
        fitting = [part for part in parts if data_key(part[0]) == data_key(whole) and part[0].model in whole.models]
        if not fitting:
            fitting = [[]]
            parts += fitting
        for part in fitting:
            part.append(whole)
    return parts


def is_whole(run):
    """Whether its networks were trained on all real images."""
    return run.flags.get("images") == "real"


def comparison_key(run):
    """What runs must have in common to be compared: the data, the network, the number of images per class."""
    return data_key(run), run.flags["model"], run.flags.get("ipc")


def data_key(run):
    """What makes the data of a run."""
    return [run.flags.get(name) for name in DATA], place(run.flags), run.class_names, run.group_names


def place(flags):
    """Where the images lie, if that says which they are: for a folder of one's own."""
    return str(flags.get("data_path")) if flags["dataset"] == "Folder" else ""


def named_settings(runs):
    """Runs of one comparison as settings, in the order of control, vanilla, others, whole set. -> list of Setting"""
    runs = sorted(runs, key=lambda run: run.flags["seed"])
    pools = grouped(runs, lambda run: setting_key(run.flags, POOLED))
    pools.sort(key=lambda pool: (is_whole(pool[0]), pool[0].flags["Iteration"] > 0,
                                 pool[0].flags.get("align") != "vanilla"))
    alike = grouped(pools, lambda pool: run_name(pool[0].flags))
    return [Setting(full_name(pool, next(pools for pools in alike if pool in pools)), pool) for pool in pools]


def full_name(pool, alike):
    """The name of runs, and in brackets the flags in which others of this name differ, or else where they are."""
    flags = pool[0].flags
    differing = [name for name in flags if name not in POOLED | IN_A_NAME | {"save_path"}
                 and any(other[0].flags.get(name) != flags[name] for other in alike)]
    worth = [name for name in differing if (name, flags[name]) not in PUBLISHED.items()]
    words = ", ".join(name if flags[name] is True else f"{name} {flags[name]}" for name in worth)
    if len(alike) > 1 and not differing:
        words = str(pool[0].folder)
    return run_name(flags) + (f" ({words})" if words else "")


def run_name(flags):
    """What a run is, in a reader's words."""
    if "trained_on" in flags:       # an evaluation
        return flags["trained_on"]
    if flags["Iteration"] == 0:
        starts = {"real": "random real images", "balanced": "group-balanced real images"}
        return starts.get(flags["init"], flags["init"])
    names = {"vanilla": flags["method"], "fairdd": f"{flags['method']} + FairDD"}
    return names.get(flags["align"], f"{flags['method']} + {flags['align']}")


def setting_key(flags, without):
    """The flags that make a setting."""
    return {name: value for name, value in flags.items() if name not in without}


def grouped(items, key):
    """Items with equal keys together, in the order in which keys are met. -> list of lists"""
    keys, groups = [], []
    for item in items:
        this = key(item)
        if this not in keys:
            keys.append(this)
            groups.append([])
        groups[keys.index(this)].append(item)
    return groups


def change(setting, baseline, figure, model):
    """How a figure differs from a baseline's (which may be None). -> Change, or None where they have no pair of sets"""
    if baseline is None or model not in baseline.models or figure not in baseline.figures(model):
        return None
    ours, theirs = setting.networks(model), baseline.networks(model)
    places = sorted(ours.keys() & theirs.keys())
    sets = grouped(places, lambda place: place[:2])
    if not sets:
        return None
    differences = np.array([[ours[place][figure] - theirs[place][figure] for place in of_set] for of_set in sets])
    low, high = interval(differences) if differences.size > 1 else (None, None)
    return Change(differences.mean().item(), low, high, len(sets), differences.size)


def interval(differences):
    """The middle COVERAGE % of the means of resampled differences. (S, N), sets x networks -> low, high

    Each of RESAMPLES times, S sets are drawn with replacement, and of each drawn set N networks with replacement.
    """
    generator = numpy_generator("bootstrap", *differences.shape)
    num_sets, num_networks = differences.shape
    sets = generator.integers(num_sets, size=(RESAMPLES, num_sets, 1))
    networks = generator.integers(num_networks, size=(RESAMPLES, num_sets, num_networks))
    means = differences[sets, networks].mean((1, 2))
    return tuple(np.percentile(means, [(100 - COVERAGE) / 2, (100 + COVERAGE) / 2]).tolist())
