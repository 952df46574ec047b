"""Report on finished runs, from their folders alone.

    python -m fairdd.report RUN...              a table in the terminal
    python -m fairdd.report RUN... --out DIR    a page (report.html) and tables to quote (.md, .csv, .tex)
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from fairdd.core.errors import UserError, report_user_errors
from fairdd.report.comparison import Comparison, RunGroup, check_metrics, read_comparisons
from fairdd.report.load_runs import read_run
from fairdd.report.tables import coverage_notes, main_table, metrics_table, to_csv, to_latex, to_markdown
from fairdd.run.formatting import MAIN_METRICS, text_table

FORMATS = ("report.html", "report.md", "report.csv", "report.tex")


def terminal_table(folders: Sequence[str], metrics: Sequence[str] = MAIN_METRICS) -> str:
    """Return a table with one row per run, and the names of their last pictures. Raises UserError."""
    runs = [read_run(folder) for folder in folders]
    for run in runs:
        check_metrics(run, metrics)
    comparisons = [Comparison([RunGroup(run.name, [run])], metrics=metrics) for run in runs]
    columns = ["run", *metrics, "networks"]
    rows = [main_table(comparison).loc[0, columns].tolist() for comparison in comparisons]
    pictures = [f"  {path}" for folder in folders for path in sorted(Path(folder).glob("experiment*.png"))[-1:]]
    table = text_table([["%", *columns[1:]], *rows])
    return "\n".join([table, *coverage_notes(metrics_table(comparisons)), "", "pictures:", *pictures])


def write_report(folders: Sequence, out, overwrite: bool = False, against: str | None = None,
                 metrics: Sequence[str] = MAIN_METRICS) -> list[Path]:
    """Write the report on these runs in all formats into the folder out, and return the paths.

    against, metrics: as in read_comparisons. Raises UserError if a report exists and overwrite is False.
    """
    from fairdd.report.page import render_page  # matplotlib takes seconds to import

    paths = [Path(out) / name for name in FORMATS]
    existing = [path for path in paths if path.exists()]
    if existing and not overwrite:
        raise UserError(f"{existing[0]} exists; give another --out, or --overwrite to replace it")
    comparisons = read_comparisons(map(Path, folders), against, metrics)
    contents = [render(comparisons) for render in (render_page, to_markdown, to_csv, to_latex)]
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
        for path, content in zip(paths, contents, strict=True):
            path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{error.filename or out} cannot be written: {error.strerror}") from None
    return paths


@report_user_errors
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m fairdd.report", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a finished run")
    parser.add_argument("--out", metavar="DIR", help="folder to write the report into")
    parser.add_argument("--against", metavar="ROW", help="with --out: name of the row that all others are compared "
                        "with; default: the vanilla runs with the same flags")
    parser.add_argument("--metrics", type=lambda text: text.split(","), default=MAIN_METRICS, metavar="NAME,NAME",
                        help="columns of the tables, joined by commas, such as accuracy,AUROC_gap,ECE (docs/metrics.md)"
                             f"; default: {','.join(MAIN_METRICS)}")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing report")
    args = parser.parse_args(argv)
    if args.against and not args.out:
        raise UserError("--against needs --out: the table in the terminal shows no differences")
    if args.out:
        print("\n".join(map(str, write_report(args.runs, args.out, args.overwrite, args.against, args.metrics))))
    else:
        print(terminal_table(args.runs, args.metrics))


if __name__ == "__main__":
    main()
