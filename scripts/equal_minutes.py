"""All methods in equal minutes: measure the iterations of every method, run all rows, write tables from their folders.

    python scripts/equal_minutes.py --datasets Colored_MNIST_foreground CIFAR10_S --out results/minutes
    python scripts/equal_minutes.py ... --list               # the commands, after the measurement

Minutes are of distillation on one CPU core, without evaluation. They are measured once; the numbers of iterations stand
in iterations.json of the folder, so that the same command resumes.
"""

import argparse
import json
import statistics
import time

import torch
from study import Study, make_parser, run_study

import main_DC
import main_DM
from fairdd.core.errors import report_user_errors
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


def method_rows() -> dict[str, tuple[str, str, str]]:
    """Return (method, entry, flags) of every row; the controls are the initial images, as they are stored."""
    table = {"random real images": ("", "main_DM.py", "--init real --Iteration 0"),
             "balanced real images": ("", "main_DM.py", "--init balanced --Iteration 0")}
    for method, (entry, flags, balanced) in METHODS.items():
        start = " --init real" if method == "CAFE" else ""
        unbalanced = f" {UNBALANCED[method]}" if method in UNBALANCED else ""
        table[method] = method, entry, f"{flags}{start} --align vanilla"
        table[f"{method} + FairDD"] = method, entry, f"{flags}{start}{unbalanced} --align fairdd"
        table[f"{method} + FairDD, balanced"] = method, entry, f"{flags} {balanced} --align fairdd"
    return table


def rows(dataset: str, counts: dict[str, int]) -> dict[str, str]:
    """Return the command of every row of a data set."""
    commands = {}
    for row, (method, entry, flags) in method_rows().items():
        iterations = f" --Iteration {counts[f'{dataset} | {method}']}" if method else ""
        commands[row] = f"{entry} --dataset {dataset} {SETTING} {flags}{iterations}"
    return commands


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
                _, entry, flags = method_rows()[f"{method} + FairDD"]
                seconds = seconds_per_iteration(
                    entry, [*f"--dataset {dataset} {SETTING} {flags}".split(), "--data_path", args.data_path])
                count = counts[f"{dataset} | {method}"] = max(1, round(60 * args.minutes / seconds))
                print(f"{dataset} | {method}: {seconds:.2f} s an iteration, {count} iterations")
                args.out.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(counts, indent=1))
    return counts


@report_user_errors
def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--datasets", nargs="+", default=["Colored_MNIST_foreground", "CIFAR10_S"])
    parser.add_argument("--minutes", type=float, default=1.0, help="of distillation, per synthetic set")
    args = parser.parse_args()
    counts = calibrate(args)
    run_study(args, Study("equal_minutes", "the same time for every row",
                          f"Minutes of distillation on one core, per synthetic set: {args.minutes:g}.",
                          {dataset: rows(dataset, counts) for dataset in args.datasets}))


if __name__ == "__main__":
    main()
