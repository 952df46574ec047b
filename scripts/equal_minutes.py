"""All methods in equal minutes: calibrate the iterations of every row, run all rows, write tables from their folders.

    python scripts/equal_minutes.py --datasets Colored_MNIST_foreground CIFAR10_S --out results/minutes
    python scripts/equal_minutes.py ... --list               # the commands, after calibration

Minutes are of distillation on one CPU core, without evaluation. They are measured once; the numbers of iterations stand
in iterations.json of the folder, so that the same command resumes. Finished runs are not repeated.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

import main_DC
import main_DM
from fairdd.report.load_runs import read_run
from fairdd.run.context import Context
from fairdd.run.loop import initial_synset, load_data
from networks import get_network

ENTRIES = {"main_DM.py": main_DM, "main_DC.py": main_DC}
SETTING = "--model ConvNetW32 --ipc 10 --batch_real 100 --num_eval 3 --epoch_eval_train 100"
METHODS = {         # of every method: its entry, its flags, and those that make FairDD's batches and start balanced
    "DM": ("main_DM.py", "--method DM --lr_img 1", "--group_balance --init balanced"),
    "DC": ("main_DC.py", "--method DC --lr_img 10 --outer_loop 10 --inner_loop 5", "--group_balance --init balanced"),
    "IDC": ("main_DC.py", "--method IDC --dis_metric l1 --lr_img 0.005 --pixel_steps 10 --n_data 256",
            "--group_balance --init balanced"),
    "DREAM": ("main_DC.py", "--method DREAM --dis_metric l1 --lr_img 0.005 --pixel_steps 10 --n_data 256",
              "--cluster cell --init balanced"),
    "CAFE": ("main_DM.py", "--method CAFE --lr_img 0.3 --max_steps 10 --max_epochs 5 --watch 3",
             "--group_balance --init balanced"),
}
UNBALANCED = {"IDC": "--no-group_balance --train_net real", "DREAM": "--cluster class --train_net real"}
METRICS = ["accuracy", "DEO_M", "DEO_A"]


def rows() -> dict[str, tuple[str, str]]:
    """Return (entry, flags) of every row; the controls are images as they are stored before the first iteration."""
    table = {"random real images": ("main_DM.py", "--init real --Iteration 0"),
             "balanced real images": ("main_DM.py", "--init balanced --Iteration 0")}
    for method, (entry, flags, balanced) in METHODS.items():
        start = "--init real " if method == "CAFE" else ""
        table[method] = entry, f"{flags} {start}--align vanilla"
        table[f"{method} + FairDD"] = entry, f"{flags} {start}{UNBALANCED.get(method, '')} --align fairdd"
        table[f"{method} + FairDD, balanced"] = entry, f"{flags} {balanced} --align fairdd"
    return table


def seconds_per_iteration(entry: str, flags: list[str]) -> float:
    """Return the CPU seconds of an iteration on one thread: the mean of a few, without the first if it is short."""
    method, args = ENTRIES[entry].parse([*flags, "--Iteration", "1"])
    data = load_data(args)
    context = Context(None, args, method, data.train, data.test, get_network, [])
    syn, seconds = initial_synset(context, 0), []
    while len(seconds) < 4 and sum(seconds) < 8:
        start = time.process_time()
        method.update(context, syn, 0, "experiment", 0, len(seconds))
        seconds.append(time.process_time() - start)
    return statistics.mean(seconds[1:] or seconds)


def calibrate(args: argparse.Namespace) -> dict[str, int]:
    """Return the number of iterations of every "data set | method", read from iterations.json or measured into it.

    They are measured with FairDD; without it an iteration takes as long or less (docs/performance.md), and vanilla rows
    make as many.
    """
    path = args.out / "iterations.json"
    counts = json.loads(path.read_text()) if path.exists() else {}
    torch.set_num_threads(1)
    for dataset in args.datasets:
        for method in METHODS:
            if f"{dataset} | {method}" not in counts:
                entry, flags = rows()[f"{method} + FairDD"]
                seconds = seconds_per_iteration(entry, command_flags(args, dataset, flags))
                count = counts[f"{dataset} | {method}"] = max(1, round(60 * args.minutes / seconds))
                print(f"{dataset} | {method}: {seconds:.2f} s an iteration, {count} iterations")
                args.out.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(counts, indent=1))
    return counts


def command_flags(args: argparse.Namespace, dataset: str, flags: str) -> list[str]:
    """Return the flags of a row's runs that do not depend on the seed."""
    return [*f"--dataset {dataset} {SETTING} {flags}".split(), "--data_path", args.data_path]


def commands(args: argparse.Namespace, counts: dict[str, int]) -> dict[Path, list[str]]:
    """Return the command of every run by its folder; all rows of a seed before the next seed."""
    runs = {}
    for seed in range(args.seeds):
        for dataset in args.datasets:
            for name, (entry, flags) in rows().items():
                folder = args.out / dataset / name.replace(" ", "_").replace(",", "") / f"seed{seed}"
                count = counts.get(f"{dataset} | {name.partition(' + ')[0]}")
                iterations = [] if count is None else ["--Iteration", str(count)]
                runs[folder] = [entry, *command_flags(args, dataset, flags), *iterations, "--seed", str(seed),
                                "--save_path", str(folder)]
    return runs


def run(item: tuple[Path, list[str]]) -> None:
    """Make a run, unless it is finished (then its entry says so at once)."""
    folder, command = item
    if not (folder / "results.json").exists():
        process = subprocess.run([sys.executable, *command, "--quiet"], env=os.environ | {"OMP_NUM_THREADS": "1"},
                                 capture_output=True, text=True)
        print(f"{folder}: {'done' if process.returncode == 0 else process.stderr[-500:]}", flush=True)


def table(args: argparse.Namespace, dataset: str, counts: dict[str, int]) -> str:
    """Return the rows of a data set as Markdown: means over sets, and the range of the sets' means below them."""
    lines = []
    for name in rows():
        folders = sorted((args.out / dataset / name.replace(" ", "_").replace(",", "")).glob("seed*/results.json"))
        sets = [read_run(path.parent).final("ConvNetW32")[METRICS].mean() for path in folders]
        if not sets:
            continue
        means = pd.DataFrame(sets)
        cells = [f"{column.mean():.1f}" + (f" ({column.min():.1f} to {column.max():.1f})" if len(means) > 1 else "")
                 for _, column in means.items()]
        count = counts.get(f"{dataset} | {name.partition(' + ')[0]}", 0)
        lines.append([name, str(count), str(len(means)), *cells])
    head = ["row", "iterations", "sets", *METRICS]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def write_tables(args: argparse.Namespace, counts: dict[str, int]) -> None:
    """Write the table of every data set and the commands of its rows' first seed to the folder of tables."""
    args.tables.mkdir(parents=True, exist_ok=True)
    for dataset in args.datasets:
        first = [shlex.join(command[:-2]) for folder, command in commands(args, counts).items()
                 if folder.parent.parent.name == dataset and folder.name == "seed0"]
        shown = "\n".join(f"python {command}" for command in first).replace(args.data_path, "./data")
        (args.tables / f"equal_minutes_{dataset}.md").write_text(
            f"# {dataset}: the same time for every row\n\n"
            f"Minutes of distillation on one core, per synthetic set: {args.minutes:g}. "
            f"Accuracy, DEO_M and DEO_A in percent:\n"
            f"means over synthetic sets of 3 networks each (range over sets).\n\n"
            f"{table(args, dataset, counts)}\n\nThe command of each row's first seed:\n\n```bash\n{shown}\n```\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=["Colored_MNIST_foreground", "CIFAR10_S"])
    parser.add_argument("--data_path", default="./data")
    parser.add_argument("--minutes", type=float, default=1.0, help="of distillation, per synthetic set")
    parser.add_argument("--seeds", type=int, default=3, help="synthetic sets per row")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--tables", type=Path, help="folder to write the tables into; default: the folder of the runs")
    parser.add_argument("--list", action="store_true", help="print the commands and run nothing")
    args = parser.parse_args()
    args.tables = args.tables or args.out
    counts = calibrate(args)
    if args.list:
        print("\n".join(f"python {shlex.join(command)}" for command in commands(args, counts).values()))
        return
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(run, commands(args, counts).items()))
    write_tables(args, counts)


if __name__ == "__main__":
    main()
