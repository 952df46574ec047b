"""Run DM on Colored_MNIST_foreground at the paper's setting for a part of its iterations, and write table and curve.

    python scripts/paper_setting.py --out results/paper --jobs 2        # a day on two CPU cores; goes on when repeated
    python scripts/paper_setting.py --out results/paper --list          # the commands

A saved set can be evaluated later, `python -m fairdd.evaluate SET --out results/paper/.../seed0_NAME`: every folder
beside a run's that begins with its name adds its points.
"""

import argparse
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from study import METRICS, Study, folder_of, make_parser, run_study

from fairdd.core.errors import report_user_errors
from fairdd.report.load_runs import read_run

DATASET = "Colored_MNIST_foreground"
ROWS = {
    "balanced real images": "--init balanced --Iteration 0",
    "DM": "--Iteration 300 --eval_every 300",
    "DM + FairDD": "--FairDD --Iteration 2000 --eval_every 500",
    "recipe, --batch_real 100": "--FairDD --group_balance --init balanced --batch_real 100 --Iteration 2000 "
                                "--eval_every 500",
}
PUBLISHED = {       # accuracy, DEO_M and DEO_A in percent
    "paper: random real images": (30.75, 100, 98.72),
    "paper: DM, 20,000 iterations": (25.01, 100, 99.96),
    "paper: DM + FairDD, 20,000 iterations": (94.61, 17.04, 7.95),
    "re-run by COBRA's authors: DM, 20 networks": (25.83, 100, 99.95),
    "re-run by COBRA's authors: DM + FairDD, 20 networks": (94.39, 17.84, 7.99),
}
STUDY = Study("paper_setting", "the paper's setting", "In percent, mean ± standard deviation over networks.", {
    DATASET: {row: f"main_DM.py --dataset {DATASET} --num_eval 3 {flags}" for row, flags in ROWS.items()}})
COLORS = ("#888888", "#d55e00", "#0072b2", "#009e73")


def read_curves(out: Path) -> dict[str, pd.DataFrame]:
    """Return each row's metrics over its networks: (metric, mean or std or count), indexed by iteration."""
    curves = {}
    for row in ROWS:
        runs = [read_run(path.parent) for path in sorted(folder_of(out, DATASET, row).glob("seed0*/results.json"))]
        if runs:
            networks = pd.concat([run.networks for run in runs])
            curves[row] = networks.groupby("iteration")[METRICS].agg(["mean", "std", "count"])
    return curves


def make_table(curves: dict[str, pd.DataFrame]) -> str:
    """Return the curves and the published figures as Markdown."""
    lines = [["", "iterations", "networks", *METRICS], ["---", *["---:"] * 5]]
    for row, curve in curves.items():
        for iteration, point in curve.iterrows():
            values = [f"{point[name, 'mean']:.2f} ± {point[name, 'std']:.2f}" for name in METRICS]
            lines.append([row, f"{iteration:,}", f"{point['accuracy', 'count']:.0f}", *values])
    lines += [[row, "–", "–", *map(str, values)] for row, values in PUBLISHED.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw_curves(curves: dict[str, pd.DataFrame], path: Path) -> None:
    """Draw accuracy and DEO_A over iterations, with the paper's DM + FairDD as dashed lines."""
    fig = Figure(figsize=(8, 3.2), layout="constrained")
    published = dict(zip(METRICS, PUBLISHED["paper: DM + FairDD, 20,000 iterations"], strict=True))
    for axes, metric in zip(fig.subplots(1, 2), ("accuracy", "DEO_A"), strict=True):
        for color, (row, curve) in zip(COLORS, curves.items(), strict=False):
            axes.errorbar(curve.index, curve[metric, "mean"], curve[metric, "std"], color=color, marker="o", capsize=3,
                          ls="-" if len(curve) > 1 else "none", label=row)
        axes.axhline(published[metric], color="black", ls="--", lw=1, label="DM + FairDD as published (20,000)")
        axes.set(xlabel="iteration", ylabel=f"{metric}, %", ylim=(0, 105))
        axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    fig.savefig(path, dpi=150)


def write_results(args: argparse.Namespace, study: Study) -> None:
    """Write paper_setting_table.md and paper_setting.png into the folder of tables."""
    curves, folder = read_curves(args.out), args.tables or args.out
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{study.name}_table.md").write_text(f"# {DATASET}: {study.title}\n\n{study.about}\n\n"
                                                   f"{make_table(curves)}\n")
    draw_curves(curves, folder / f"{study.name}.png")


@report_user_errors
def main() -> None:
    parser = make_parser(__doc__)
    parser.set_defaults(seeds=1)
    run_study(parser.parse_args(), STUDY, write_results)


if __name__ == "__main__":
    main()
