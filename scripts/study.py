"""Run the rows of a study, each with several seeds and a folder per run, and write its tables from these folders.

equal_minutes.py and group_study.py name the rows; a command that is repeated goes on where it stopped.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parent.parent))

from fairdd.core.errors import UserError
from fairdd.datasets.files import preview
from fairdd.report.load_runs import read_run
from fairdd.run.folder import DATASET

METRICS = ["accuracy", "DEO_M", "DEO_A"]


@dataclass(frozen=True)
class Study:
    """What a study runs. rows: data set -> row -> entry and flags, without --seed, --data_path and --save_path."""

    name: str           # its tables are NAME_DATASET.md
    title: str          # of every table, after the data set
    about: str          # what all rows have in common, above every table
    rows: dict[str, dict[str, str]]


def make_parser(doc: str) -> argparse.ArgumentParser:
    """Return the flags that all studies have."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path", default="./data")
    parser.add_argument("--seeds", type=int, default=3, help="synthetic sets per row")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--tables", type=Path, help="folder to write the tables into; default: the folder of the runs")
    parser.add_argument("--list", action="store_true", help="print the commands and run nothing")
    return parser


def folder_of(out: Path, dataset: str, row: str) -> Path:
    """Return the folder of a row's runs; each seed has a folder inside it."""
    return out / dataset / "".join(character for character in row.replace(" ", "_") if character not in ",()%")


def commands(args: argparse.Namespace, study: Study) -> dict[Path, list[str]]:
    """Return the command of every run by its folder: all rows of a seed before the next seed."""
    runs = {}
    for seed in range(args.seeds):
        for dataset, rows in study.rows.items():
            for row, command in rows.items():
                folder = folder_of(args.out, dataset, row) / f"seed{seed}"
                runs[folder] = [*command.split(), "--data_path", args.data_path, "--seed", str(seed),
                                "--save_path", str(folder)]
    return runs


def make_run(item: tuple[Path, list[str]]) -> None:
    """Make a run unless it is finished, and print its error if it fails."""
    folder, command = item
    if not (folder / "results.json").exists():
        process = subprocess.run([sys.executable, *command, "--quiet"], env=os.environ | {"OMP_NUM_THREADS": "1"},
                                 capture_output=True, text=True)
        print(f"{folder}: {'done' if process.returncode == 0 else process.stderr[-500:]}", flush=True)


def make_table(out: Path, dataset: str, rows: dict[str, str]) -> str:
    """Return a data set's rows as Markdown: means over synthetic sets, and the range of the sets' means behind them."""
    lines = []
    for row in rows:
        runs = [read_run(path.parent) for path in sorted(folder_of(out, dataset, row).glob("seed*/results.json"))]
        if not runs:
            continue
        sets = pd.DataFrame([run.networks[METRICS].mean() for run in runs])
        cells = [f"{column.mean():.1f} ({column.min():.1f} to {column.max():.1f})" for _, column in sets.items()]
        lines.append([row, str(runs[0].flags["Iteration"]), str(len(sets)), *cells])
    head = ["row", "iterations", "sets", *METRICS]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def describe_setting(out: Path, dataset: str, rows: dict[str, str]) -> str:
    """Return the hardware and versions of the first row's first run, and what it noted about the data."""
    folder = folder_of(out, dataset, next(iter(rows))) / "seed0"
    if not (folder / "results.json").exists():
        return "The first row has not finished."
    versions, notes = read_run(folder).versions, json.loads((folder / DATASET).read_text())["notes"]
    return "\n".join([f"{versions['hardware']}, torch {versions['torch']}, Python {versions['python']}.", *notes])


def write_tables(args: argparse.Namespace, study: Study) -> None:
    """Write each data set's table, and the command of the first seed of each row, into the folder of tables."""
    folder = args.tables or args.out
    folder.mkdir(parents=True, exist_ok=True)
    for dataset, rows in study.rows.items():
        shown = "\n".join(f"python {command} --seed 0" for command in rows.values())
        (folder / f"{study.name}_{dataset}.md").write_text(
            f"# {dataset}: {study.title}\n\n{study.about} Accuracy, DEO_M and DEO_A in percent:\n"
            f"means over synthetic sets of 3 networks each (range over sets).\n\n"
            f"{make_table(args.out, dataset, rows)}\n\n{describe_setting(args.out, dataset, rows)}\n\n"
            f"The command of each row's first seed:\n\n```bash\n{shown}\n```\n")


def run_study(args: argparse.Namespace, study: Study, write: Callable = write_tables) -> None:
    """Make all runs that are not finished, and write the tables; with --list, print the commands instead.

    write: called with args and study when all runs have been tried. A run that fails does not keep the others from
    being made; UserError is raised at the end.
    """
    runs = commands(args, study)
    if args.list:
        print("\n".join(f"python {shlex.join(command)}" for command in runs.values()))
        return
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(make_run, runs.items()))
    write(args, study)
    failed = [str(folder) for folder in runs if not (folder / "results.json").exists()]
    if failed:
        raise UserError(f"{len(failed)} of {len(runs)} runs failed: {preview(failed)}; the same command repeats them")
