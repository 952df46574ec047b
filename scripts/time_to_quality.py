"""Measure how long the reference implementation and ours distill until networks reach an accuracy and a DEO_A.

    python scripts/time_to_quality.py --out results/time_to_quality --data_path data
    python scripts/time_to_quality.py --out results/time_to_quality --quick     # Colored_Digits, under a minute

Time is CPU seconds of distillation on one thread, the initial set included and evaluation excluded. All rows take turns
between evaluations, so that they see the same load of the machine. Times are those of the first evaluation that reaches
the bounds; a row ends there or at the limit of time. Before the first time every row makes an iteration that does not
count. All rows keep freed memory (docs/performance.md), which makes the reference implementation faster, too.

The bounds are not checked on test images. A sixth of every (class, group) of the training images is held out of all
rows. Such a cell may have only 11 images, whose DEO_A would be noise, and 90 % of a class has its own color. Both data
sets have a black background and a foreground of one color, so the held-out images can be colored anew, exactly: every
color for a tenth of a class, as in the test. The final set of every row is tested once, and nothing depends on it.

Results are in time_to_quality.json of --out, written after every evaluation. The same command resumes: a row and seed
that ended is not repeated, and one that did not starts again.
"""

import argparse
import json
import os
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from benchmark import describe_machine
from equal_minutes import ENTRIES, METHODS, SETTING
from reference_implementation import reference_dm_update

from fairdd.core.errors import UserError, report_user_errors
from fairdd.core.parallel import keep_freed_memory
from fairdd.datasets.base import Dataset
from fairdd.datasets.colored import COLORING_SPECS, colorize, nearly_uniform
from fairdd.evaluation.metrics import summarize
from fairdd.evaluation.training import evaluate_synset
from fairdd.run.context import Context, evaluation_config
from fairdd.run.loop import check_finite, initial_synset, load_data
from fairdd.run.selection import with_validation
from networks import get_network

NAME, REFERENCE = "time_to_quality", "reference implementation, DM + FairDD"
ROWS = {            # its method of equal_minutes.py and its flags
    REFERENCE: ("DM", "--FairDD"),
    "DM + FairDD": ("DM", "--FairDD"),
    "DM + FairDD, balanced": ("DM", f"--FairDD {METHODS['DM'][2]}"),
    "DM + FairDD, balanced, factor 2": ("DM", f"--FairDD {METHODS['DM'][2]} --factor 2"),
    "IDC + FairDD, balanced": ("IDC", f"--FairDD {METHODS['IDC'][2]}"),
    "DREAM + FairDD, balanced": ("DREAM", f"--FairDD {METHODS['DREAM'][2]}"),
}
FULL_SETTING = f"--dataset Colored_MNIST_foreground {SETTING}"
QUICK_SETTING = "--dataset Colored_Digits --model ConvNetD1W32 --ipc 2 --batch_real 20 --epoch_eval_train 5"
QUICK_DEFAULTS = dict(seeds=1, num_eval=1, accuracy=35.0, DEO_A=100.0, max_minutes=0.02)
SCHEDULE = [0, *(factor * 10**power for power in range(9) for factor in (1, 2, 5))]     # iterations to evaluate
HELD_OUT = 1 / 6    # of the training images: 10,000 of MNIST's, as many as its test has
CHANGEABLE = ("seeds", "out", "tables", "data_path")        # flags that may change when a command is repeated
HEAD = ["row", "seeds that reached the bounds", "seconds until then or the limit: minimum to maximum (mean)",
        "iterations", "seconds of the reference / of the row", "accuracy, DEO_A at the end: held-out images",
        "test images"]


class Distillation:
    """A row's synthetic set of one seed, the iterations made and the CPU seconds spent on it."""

    def __init__(self, row: str, command: str, seed: int, data: Dataset):
        entry, *flags = command.split()
        method, args = ENTRIES[entry].parse([*flags, "--seed", str(seed)])
        if row == REFERENCE:
            method = replace(method, update=reference_dm_update)
        self.row, self.seed, self.iteration = row, seed, 0
        self.context = Context(None, args, method, data.train, data.test, get_network, [])
        start = time.process_time()
        self.syn = initial_synset(self.context, 0)
        self.seconds = time.process_time() - start

    def advance(self, iteration: int, limit: float) -> None:
        """Go on up to an iteration, or until the limit of seconds is spent."""
        while self.iteration < iteration and self.seconds < limit:
            start = time.process_time()
            self.context.method.update(self.context, self.syn, self.seed, "experiment", 0, self.iteration)
            self.seconds += time.process_time() - start
            self.iteration += 1
        check_finite(f"largest pixel of {self.row}", self.syn.images.abs().max().item(), self.iteration)

    def evaluate(self, images) -> dict[str, float]:
        """Return the mean accuracy and DEO_A, in percent, of num_eval networks trained on the current set."""
        context, args = self.context, self.context.args
        metrics = evaluate_synset(lambda: context.build_network(args.model), self.syn.as_dataset(), images,
                                  evaluation_config(args, args.model), args.num_eval, self.seed, NAME, self.iteration)
        summary = summarize(metrics)
        return {name: summary[name]["mean"] for name in ("accuracy", "DEO_A")}


def commands(args: argparse.Namespace) -> dict[str, str]:
    """Return the entry and the flags of every row."""
    setting = f"{QUICK_SETTING if args.quick else FULL_SETTING} --num_eval {args.num_eval}"
    return {row: f"{METHODS[method][0]} {setting} {METHODS[method][1]} {flags}"
            for row, (method, flags) in ROWS.items()}


def held_out_data(command: str, data_path: str) -> Dataset:
    """Return the data set of a command, its validation images held out and colored anew, equally in every color."""
    entry, *flags = command.split()
    args = ENTRIES[entry].parse([*flags, "--data_path", data_path])[1]
    data = with_validation(load_data(args), HELD_OUT, args.data_seed)
    pixels, labels = data.val.images.amax(1).numpy(), data.val.labels.numpy()       # every color has a 255
    drawn = nearly_uniform(labels, np.random.RandomState(args.data_seed))
    return replace(data, val=colorize(pixels, labels, *drawn, COLORING_SPECS[args.dataset], None))


def measure_seed(args: argparse.Namespace, seed: int, result: dict) -> None:
    """Distill the rows of a seed that have not ended, in turn, and write every evaluation."""
    names = [row for row in ROWS if "reached" not in result["rows"][row].get(str(seed), {})]
    if not names:
        return
    lines, limit = result["commands"], 60 * args.max_minutes
    data = held_out_data(lines[REFERENCE], args.data_path)
    for row in names:                                   # what a process does once, such as imports, is not timed
        Distillation(row, lines[row], seed, data).advance(1, limit)
    running = [Distillation(row, lines[row], seed, data) for row in names]
    for row in names:
        result["rows"][row][str(seed)] = {"evaluations": []}
    for iteration in SCHEDULE:
        for distillation in tuple(running):
            distillation.advance(iteration, limit)
            record, metrics = result["rows"][distillation.row][str(seed)], distillation.evaluate(data.val)
            spent = dict(iteration=distillation.iteration, seconds=distillation.seconds)
            record["evaluations"].append(spent | metrics)
            reached = metrics["accuracy"] >= args.accuracy and metrics["DEO_A"] <= args.DEO_A
            if reached or distillation.seconds >= limit:
                record |= dict(test=distillation.evaluate(data.test), reached=reached)
                running.remove(distillation)
            write_result(args, result)
            print(f"seed {seed} | {distillation.row} | {spent | metrics}", flush=True)
        if not running:
            return


def write_result(args: argparse.Namespace, result: dict) -> None:
    """Write the JSON file aside, then rename it; then write the table."""
    path = args.out / f"{NAME}.json"
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(aside, path)
    flags = " ".join(f"--{name} {getattr(args, name):g}" for name in QUICK_DEFAULTS) + " --quick" * args.quick
    shown = "\n".join(f"# {row}\npython {command}" for row, command in result["commands"].items())
    (args.tables or args.out).joinpath(f"{NAME}.md").write_text(
        f"# Time to quality: accuracy of at least {args.accuracy:g} %, DEO_A of at most {args.DEO_A:g} %\n\n"
        f"Means of {args.num_eval} networks on held-out training images, equally many of every group. CPU seconds of "
        f"distillation on one thread,\nat most {60 * args.max_minutes:g}. {result['machine']}\n\n"
        f"{make_table(result['rows'])}\n\n```bash\npython scripts/{NAME}.py {flags} --out {args.out}\n```\n\n"
        f"The flags of each row; the reference implementation takes its own steps.\n\n```bash\n{shown}\n```\n")


def make_table(rows: dict[str, dict]) -> str:
    """Return the rows as Markdown; of each, the seeds that have ended."""
    lines = []
    for row, runs in rows.items():
        ended = {seed: run for seed, run in runs.items() if "reached" in run}
        if not ended:
            continue
        last = [run["evaluations"][-1] for run in ended.values()]
        seconds, iterations = ([point[name] for point in last] for name in ("seconds", "iteration"))
        lines.append([
            row, f"{sum(run['reached'] for run in ended.values())} of {len(ended)}",
            f"{min(seconds):.3g} to {max(seconds):.3g} ({statistics.mean(seconds):.3g})",
            f"{min(iterations)} to {max(iterations)}", ratio([rows[REFERENCE].get(seed, {}) for seed in ended], ended),
            mean_metrics(last), mean_metrics([run["test"] for run in ended.values()])])
    return "\n".join(f"| {' | '.join(line)} |" for line in (HEAD, ["---"] * len(HEAD), *lines))


def ratio(reference: list[dict], ended: dict[str, dict]) -> str:
    """Return the reference's seconds over the row's, for the same seeds: "> x" if the reference spent its limit.

    It is "–" for a row that spent its limit, and while a seed of the reference has not ended. A row whose initial
    images reach the bounds was not distilled, so it has no ratio either.
    """
    if all(len(run["evaluations"]) == 1 and run["reached"] for run in ended.values()):
        return "initial images"
    if not all(run["reached"] for run in ended.values()) or not all("reached" in run for run in reference):
        return "–"
    spent = [sum(run["evaluations"][-1]["seconds"] for run in runs) for runs in (reference, ended.values())]
    return f"{'' if all(run['reached'] for run in reference) else '> '}{spent[0] / spent[1]:.3g}"


def mean_metrics(metrics: list[dict]) -> str:
    """Return the means of accuracy and DEO_A over synthetic sets."""
    return ", ".join(f"{statistics.mean(of_set[name] for of_set in metrics):.1f}" for name in ("accuracy", "DEO_A"))


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path", default="./data")
    parser.add_argument("--seeds", type=int, default=3, help="synthetic sets per row")
    parser.add_argument("--num_eval", type=int, default=3, help="networks per evaluation")
    parser.add_argument("--accuracy", type=float, default=85.0, help="lower bound, in percent")
    parser.add_argument("--DEO_A", type=float, default=14.0, help="upper bound, in percent")
    parser.add_argument("--max_minutes", type=float, default=10.0, help="of distillation, per row and seed")
    parser.add_argument("--out", type=Path, required=True, help="folder of the JSON file")
    parser.add_argument("--tables", type=Path, help="folder of the table; default: that of the JSON file")
    parser.add_argument("--quick", action="store_true", help="small sizes and low bounds")
    if parser.parse_args(argv).quick:
        parser.set_defaults(**QUICK_DEFAULTS)
    return parser.parse_args(argv)


def load_result(args: argparse.Namespace) -> dict:
    """Return the results so far. Raises UserError if they are of other flags or another machine."""
    machine, path = describe_machine(), args.out / f"{NAME}.json"
    result = dict(setting={name: value for name, value in vars(args).items() if name not in CHANGEABLE},
                  commands=commands(args), machine=f"{machine['cpu']}, torch {machine['torch']}.")
    earlier = json.loads(path.read_text()) if path.exists() else result | dict(rows={row: {} for row in ROWS})
    for name in result:
        if earlier[name] != result[name]:
            raise UserError(f"{path} has another {name}, {earlier[name]}; choose another --out")
    return earlier


@report_user_errors
def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(1)
    keep_freed_memory()
    for folder in (args.out, args.tables or args.out):
        folder.mkdir(parents=True, exist_ok=True)
    result = load_result(args)
    for seed in range(args.seeds):
        measure_seed(args, seed, result)
    write_result(args, result)


if __name__ == "__main__":
    main()
