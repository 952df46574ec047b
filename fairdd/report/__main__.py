"""Reports on finished runs, read from their folders and nothing else.

    python -m fairdd.report RUN...              a table in the terminal
    python -m fairdd.report RUN... --out DIR    a page to look at (report.html) and tables to quote (.md, .csv, .tex)
"""

import argparse
from pathlib import Path

from fairdd.core.errors import UserError, report_user_errors
from fairdd.report.comparison import COMPARED, read_comparisons, run_name
from fairdd.report.tables import cell, csv_table, latex, markdown, text_table
from fairdd.run.folder import FLAGS, RESULTS, read_json

FORMATS = ("report.html", "report.md", "report.csv", "report.tex")


def compare(folders):
    """A table of finished runs and the names of their pictures. -> text. Raises UserError if one is not finished."""
    rows, pictures = [["%", *COMPARED, "networks"]], []
    for folder in map(Path, folders):
        if not (folder / RESULTS).exists():
            raise UserError(f"{folder} holds no finished run (no {RESULTS})")
        results, flags = read_json(folder / RESULTS), read_json(folder / FLAGS)["flags"]
        rows.append([run_name(flags), *(cell(results[name]) for name in COMPARED), str(results["accuracy"]["n"])])
        pictures += sorted(map(str, folder.glob("experiment*.png")))[-1:]
    return text_table(rows) + "\n\npictures:\n" + "\n".join(f"  {name}" for name in pictures)


def write(folders, out, overwrite=False, against=None):
    """All formats of the report on these runs, in the folder out. against: as in read_comparisons -> paths written"""
    from fairdd.report.page import page  # here, because it takes seconds to import what draws

    paths = [Path(out) / name for name in FORMATS]
    there = [path for path in paths if path.exists()]
    if there and not overwrite:
        raise UserError(f"{there[0]} exists; give another --out, or --overwrite to replace it")
    comparisons = read_comparisons(map(Path, folders), against)
    contents = [make(comparisons) for make in (page, markdown, csv_table, latex)]
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
        for path, content in zip(paths, contents, strict=True):
            path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{error.filename or out} cannot be written: {error.strerror}") from None
    return paths


@report_user_errors
def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m fairdd.report", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a finished run")
    parser.add_argument("--out", metavar="DIR", help="folder to write the report into")
    parser.add_argument("--against", metavar="ROW", help="name of the row that all others are compared with, with "
                        "--out; default: the vanilla runs of the same flags")
    parser.add_argument("--overwrite", action="store_true", help="replace a report that is there")
    args = parser.parse_args(argv)
    if args.against and not args.out:
        raise UserError("--against needs --out: the table in the terminal shows no changes")
    if args.out:
        print("\n".join(map(str, write(args.runs, args.out, args.overwrite, args.against))))
    else:
        print(compare(args.runs))


if __name__ == "__main__":
    main()
