"""Reports state what the run folders contain: pooled metrics, differences, intervals, the same in every format."""

import csv
import json
import math
import re
import statistics
from html.parser import HTMLParser

import numpy as np
import pytest
from refusal import refusal

from fairdd.report import __main__ as report
from fairdd.report.comparison import bootstrap_interval, read_comparisons
from fairdd.report.load_runs import read_run
from fairdd.report.tables import metrics_table
from fairdd.run.formatting import MAIN_METRICS

NASTY = 'a <b> & "c" | \\d_e$ %'
QUICK = ["--num_eval", "2", "--epoch_eval_train", "1", "--ipc", "2", "--batch_real", "20", "--model", "ConvNetD1W32",
         "--im_size", "8", "--Iteration", "2", "--eval_every", "1"]


ALL_REAL = dict(trained_on="all real images", images="real", model=["ConvNet"], epoch_eval_train=6)


def network(accuracy, **metrics):
    """Return the metrics of a network with the same accuracy in every tested cell, of two groups and two classes."""
    table = [[accuracy, accuracy], [accuracy, None]]
    return {"accuracy": accuracy, "DEO_M": 100 - accuracy, "DEO_A": 50 - accuracy / 2, **metrics, "table": table}


def write_run(folder, *experiments, seed=0, entry="main_DM.py", **flags):
    """Write a finished run by hand and return its folder. experiments: for each, the accuracies of its networks."""
    flags = {"method": "DM", "dataset": "Toy", "model": "ConvNet", "ipc": 1, "init": "real", "Iteration": 5,
             "num_exp": len(experiments), "num_eval": len(experiments[0]), "align": "vanilla", "seed": seed} | flags
    flags["FairDD"] = flags["align"] == "fairdd"
    networks = [[network(accuracy, worst_cell_accuracy=accuracy / 3, undefined=None) for accuracy in accuracies]
                for accuracies in experiments]
    lines = [{"experiment": number, "iteration": flags["Iteration"], "model": "ConvNet", "networks": metrics}
             for number, metrics in enumerate(networks)]
    names = {"class_names": ["plain", NASTY], "group_names": [NASTY, "other"]}
    folder.mkdir(parents=True)
    origin = {"entry": entry, "non_default": list(flags), "versions": {"python": "3"}}
    (folder / "flags.json").write_text(json.dumps({"flags": flags, **origin}))
    (folder / "results.json").write_text(json.dumps({"model": "ConvNet", **names}))
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def write_evaluation(folder, *experiments, **flags):
    """Write a finished evaluation by hand, which has no flags of a distillation, and return its folder."""
    write_run(folder, *experiments, **flags)
    content = json.loads((folder / "flags.json").read_text())
    for name in ("align", "init", "ipc", "num_exp", "FairDD"):
        del content["flags"][name]
    (folder / "flags.json").write_text(json.dumps(content))
    return folder


def set_tables(folder, table):
    """Replace the table of every network of a run."""
    lines = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
    for line in lines:
        line["networks"] = [metrics | {"table": table} for metrics in line["networks"]]
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def folders(tmp_path):
    """Return two seeds of vanilla and FairDD with two experiments each, and a run on a data set with a nasty name."""
    return [
        write_run(tmp_path / "v0", [10, 11.5], [12, 13]), write_run(tmp_path / "v1", [9, 10], [11, 16], seed=1),
        write_run(tmp_path / "f0", [30, 32], [31, 37], align="fairdd"),
        write_run(tmp_path / "f1", [40, 41], [41, 39], align="fairdd", seed=1),
        write_run(tmp_path / NASTY.replace("/", ""), [50, 60], dataset=NASTY),
    ]


def group_names(runs):
    """Return the names of the groups of each comparison of these runs."""
    return [[group.name for group in comparison.groups] for comparison in read_comparisons(runs)]


def test_runs_that_differ_only_in_their_seed_are_pooled(folders):
    first, second = read_comparisons(folders)
    vanilla, fairdd = first.groups
    values = [30, 32, 31, 37, 40, 41, 41, 39]
    row = metrics_table([first]).set_index(["run", "metric"]).loc["DM + FairDD", "accuracy"]
    assert (vanilla.name, fairdd.name, row["sets"], row["networks"]) == ("DM", "DM + FairDD", 4, 8)
    assert (row["mean"], row["std"]) == pytest.approx((statistics.mean(values), statistics.stdev(values)))
    assert np.allclose(fairdd.table("ConvNet"), [[36.375, 36.375], [36.375, math.nan]], equal_nan=True)
    assert len(second.groups) == 1 and second.baseline(second.groups[0]) is None


def test_groups_with_the_same_name_are_distinguished_by_the_flags_that_differ(tmp_path):
    runs = [write_run(tmp_path / str(rate), [rate], lr_img=rate) for rate in (1, 2)]
    assert group_names(runs) == [["DM (lr_img 1)", "DM (lr_img 2)"]]


def test_an_evaluation_of_a_saved_set_is_a_row(tmp_path):
    runs = [write_evaluation(tmp_path / name, [10], [20], trained_on="DM + FairDD", images=name) for name in "ab"]
    [comparison] = read_comparisons(runs)
    assert [group.name for group in comparison.groups] == [f"DM + FairDD ({run})" for run in runs]
    assert comparison.groups[0].networks["ConvNet"]["accuracy"].mean() == 15
    check_page(report.write_report(runs, tmp_path / "out")[0].read_text())


def test_names_do_not_mention_the_values_of_the_paper(tmp_path):
    flags = [(False, 1), (True, 1), (True, 2)]
    runs = [write_run(tmp_path / f"{balance}{factor}", [1], group_balance=balance, factor=factor)
            for balance, factor in flags]
    assert group_names(runs) == [["DM", "DM (group_balance)", "DM (group_balance, factor 2)"]]


def test_a_flag_that_an_older_run_lacks_counts_as_not_set(tmp_path):
    write_run(tmp_path / "old", [1])
    write_run(tmp_path / "new", [2], seed=1, factor=1, group_balance=False, new_flag=None)
    assert group_names([tmp_path / "old", tmp_path / "new"]) == [["DM"]]


def test_all_real_images_join_every_comparison_on_their_data_and_network(tmp_path):
    runs = [write_run(tmp_path / str(ipc), [10], ipc=ipc) for ipc in (1, 10)]
    runs += [write_run(tmp_path / "other", [10], dataset="Other")]
    runs += [write_evaluation(tmp_path / f"real{seed}", [90 + 2 * seed], seed=seed, **ALL_REAL) for seed in (0, 1)]
    runs += [write_evaluation(tmp_path / "alone", [90], dataset="Third", **ALL_REAL)]
    real = "all real images, 6 epochs"
    assert group_names(runs) == [["DM", real], ["DM", real], ["DM"], [real]]
    assert read_comparisons(runs)[1].groups[1].networks["ConvNet"]["accuracy"].mean() == 91


def test_the_name_of_all_real_images_says_how_many_epochs(tmp_path, capsys):
    runs = [write_evaluation(tmp_path / str(epochs), [90], **ALL_REAL | {"epoch_eval_train": epochs})
            for epochs in (6, 30)]
    assert group_names(runs) == [["all real images, 6 epochs", "all real images, 30 epochs"]]
    report.main(list(map(str, runs)))
    assert "all real images, 30 epochs " in capsys.readouterr().out


def test_rows_can_be_compared_with_any_row(folders, tmp_path):
    folders += [write_run(tmp_path / "random", [5, 5], [5, 5], Iteration=0)]
    path = report.write_report(folders[:4] + folders[5:], tmp_path / "out", against="random real images")[2]
    rows = {row["run"]: row for row in csv_rows(path) if row["metric"] == "accuracy"}
    assert float(rows["DM + FairDD"]["difference"]) == pytest.approx(statistics.mean([30, 32, 31, 37]) - 5)
    assert (rows["DM"]["pairs"], rows["random real images"]["difference"]) == ("2", "")
    note = path.with_suffix(".md").read_text()
    assert 'row "random real images"' in note and "the vanilla runs" not in note
    assert "Difference from random real images" in path.with_suffix(".html").read_text()


def test_seeds_minutes_and_command_of_every_row_stand_below_the_table(folders, tmp_path):
    (folders[1] / "time.json").write_text('{"minutes": 2.25}')
    text = report.write_report(folders[:4], tmp_path / "out")[1].read_text()
    [line] = [line for line in text.splitlines() if line.startswith("# DM |")]
    assert line == "# DM | seed 0, 1 | minutes ?, 2.2 | ?, torch ?, python 3"
    assert text.splitlines()[text.splitlines().index(line) + 1] == read_run(folders[0]).command()


def test_runs_with_different_classes_are_not_pooled(tmp_path):
    runs = [write_run(tmp_path / "a", [10]), write_run(tmp_path / "b", [20], seed=1)]
    results = json.loads((runs[1] / "results.json").read_text())
    (runs[1] / "results.json").write_text(json.dumps(results | {"class_names": ["other", "names"]}))
    assert len(read_comparisons(runs)) == 2


def test_runs_on_different_splits_of_the_data_are_not_pooled(tmp_path):
    runs = [write_run(tmp_path / str(seed), [10], seed=seed) for seed in range(3)]
    for run, count in zip(runs, (5, 6, 5), strict=True):
        (run / "dataset.json").write_text(json.dumps({"train": [[count, 2], [3, 4]], "test": [[1, 1], [1, 1]]}))
    sizes = [[len(group.runs) for group in comparison.groups] for comparison in read_comparisons(runs)]
    assert sizes == [[2], [1]]


def test_the_title_names_the_data_with_its_unusual_options(tmp_path):
    run = write_run(tmp_path / "a", [10], dataset="Folder", data_path="/faces", data_seed=30, rare_cells="refuse",
                    im_size=None, skip_bad_images=False)
    assert read_comparisons([run])[0].title == "Folder, data_path /faces, rare_cells refuse, ConvNet, ipc 1"
    run = write_run(tmp_path / "b", [10], dataset="UTKface", data_path="/faces", data_seed=3, rare_cells="omit")
    assert read_comparisons([run])[0].title == "UTKface, data_seed 3, ConvNet, ipc 1"


def test_vanilla_runs_are_the_baseline_only_if_nothing_but_the_alignment_differs(tmp_path):
    runs = [write_run(tmp_path / "v", [10], lr_img=1), write_run(tmp_path / "f", [20], lr_img=2, align="fairdd")]
    assert not any(row["difference"] for row in csv_rows(report.write_report(runs, tmp_path / "out")[2]))


def test_a_folder_given_twice_counts_once(folders):
    [comparison] = read_comparisons([folders[0], folders[0].parent / "." / folders[0].name])
    assert len(comparison.groups[0].networks["ConvNet"]) == 4


def test_the_difference_is_over_the_pairs_that_both_groups_have(tmp_path):
    runs = [write_run(tmp_path / "v", [10, 20], seed=3), write_run(tmp_path / "v2", [90, 99], seed=4),
            write_run(tmp_path / "f", [15, 26], seed=3, align="fairdd")]
    row = next(row for row in csv_rows(report.write_report(runs, tmp_path / "out")[2]) if row["difference"])
    assert (float(row["difference"]), row["pairs"]) == (5.5, "1")


def write_pairs(folder, count, *differences):
    """Write count vanilla and FairDD runs whose networks differ by these numbers plus their seed."""
    runs = [write_run(folder / f"{align}{seed}", [10 + (align == "fairdd") * (each + seed) for each in differences],
                      seed=seed, align=align) for seed in range(count) for align in ("vanilla", "fairdd")]
    for run in runs:
        set_tables(run, [[1, 1], [1, 1]])
    return runs


@pytest.mark.parametrize(("count", "bounds"), [(1, ("", "", "")), (2, (3.0, 4.0, "range")), (4, (3.0, 6.0, "range"))])
def test_below_five_pairs_of_sets_the_range_of_their_differences_is_given(tmp_path, count, bounds):
    html, markdown, csv_path, latex = report.write_report(write_pairs(tmp_path, count, 2, 4), tmp_path / "out")
    row = next(row for row in csv_rows(csv_path) if row["difference"])
    assert (row["pairs"], row["bounds"]) == (str(count), bounds[2])
    assert [row["low"], row["high"]] == [str(bound) for bound in bounds[:2]]
    text = f"{float(row['difference']):+.2f}" + (f" ({bounds[0]:+.2f} to {bounds[1]:+.2f})" if bounds[2] else "")
    assert f"| {text} |" in markdown.read_text() and f"<td>{text}</td>" in html.read_text()
    assert "[+" not in latex.read_text() and ("to }" in latex.read_text()) == (count > 1)


def test_from_five_pairs_of_sets_on_the_bootstrap_interval_is_given(tmp_path):
    html, markdown, csv_path, _ = report.write_report(write_pairs(tmp_path, 5, 2, 4), tmp_path / "out")
    row = next(row for row in csv_rows(csv_path) if row["difference"])
    low, high = bootstrap_interval(np.array([[2.0, 4.0]]) + np.arange(5)[:, None])
    assert (float(row["low"]), float(row["high"]), row["bounds"]) == (low, high, "interval")
    text = f"+5.00 [{low:+.2f}, {high:+.2f}]"
    assert f"| {text} |" in markdown.read_text() and f"<td>{text}</td>" in html.read_text()


def test_seeds_of_an_evaluation_are_not_independent_sets(tmp_path):
    runs = [write_evaluation(tmp_path / f"{name}{seed}", [10 + add + seed * (add > 0)], seed=seed, trained_on=name,
                             images=name) for seed in range(6) for name, add in (("a", 0), ("b", 5))]
    path = report.write_report(runs, tmp_path / "out", against="a")[2]
    row = next(row for row in csv_rows(path) if row["difference"])
    assert (row["sets"], row["pairs"], row["networks"], row["difference"], row["bounds"]) == ("1", "1", "6", "7.5", "")


def test_runs_with_the_same_flags_and_seed_are_refused(tmp_path, capsys):
    runs = [write_run(tmp_path / "a", [10]), write_run(tmp_path / "b", [11]), write_run(tmp_path / "copy", [10])]
    runs += [write_run(tmp_path / "longer", [12], [13], eval_every=1)]
    for other, relation in zip(runs[1:], ("have the same flags and seed", "are copies", "have the same"), strict=True):
        message = refused(capsys, runs[0], other, "--out", tmp_path / "out")
        assert f"{runs[0]} and {other} {relation}" in message and not (tmp_path / "out").exists()


def test_metrics_that_do_not_cover_all_cells_are_marked(tmp_path, capsys):
    runs = [write_run(tmp_path / "v", [10, 12]), write_run(tmp_path / "f", [20, 24], align="fairdd")]
    set_tables(runs[0], [[1, 1], [1, 1]])       # the FairDD run lacks one of four cells
    html, markdown, csv_path, latex = (path.read_text() for path in report.write_report(runs, tmp_path / "out"))
    report.main(list(map(str, runs)))
    terminal = capsys.readouterr().out
    note = "covers 3 of 4 (class, group) cells, because the test set has no image of the others: DM + FairDD"
    assert all(text.count(note) == 1 for text in (html, latex, terminal, markdown))
    for text, marked, plain in ((html, "22.00 ± 2.83*<", "11.00 ± 1.41<"), (terminal, "22.00 ± 2.83*", "11.00 ± 1.41 "),
                                (markdown, "22.00 ± 2.83\\* |", "11.00 ± 1.41 |"),
                                (latex, r"$22.00 \pm 2.83^{*}$", r"$11.00 \pm 1.41$"), (html, "+11.00*<", "<td>")):
        assert marked in text and plain in text
    rows = {row["run"]: row for row in csv.DictReader(csv_path.splitlines())}
    assert [(rows[name]["cells_covered"], rows[name]["cells"]) for name in ("DM", "DM + FairDD")] == [
        ("4", "4"), ("3", "4")]


def test_rows_with_a_factor_and_without_their_matched_control_are_named(tmp_path):
    runs = [write_run(tmp_path / "f", [1], factor=2, align="fairdd"), write_run(tmp_path / "plain", [1])]
    runs += [write_run(tmp_path / "unmatched", [1], init="balanced", Iteration=0, factor=3)]
    note = ("no matched control: DM + FairDD; add group-balanced real images stored the same way "
            "(--init balanced --Iteration 0 --factor 2)")
    html, markdown, _, latex = report.write_report(runs, tmp_path / "without")
    assert all(note in path.read_text() for path in (html, markdown, latex))
    runs += [write_run(tmp_path / "matched", [1], init="balanced", Iteration=0, factor=2)]
    assert not any("no matched control" in path.read_text() for path in report.write_report(runs, tmp_path / "with"))


def test_the_interval_is_zero_for_equal_runs_covers_the_mean_and_scales_with_the_spread():
    draws = np.random.default_rng(0).normal(size=(6, 5))
    assert bootstrap_interval(np.zeros((3, 4))) == (0, 0)
    widths = []
    for spread in (1, 10):
        differences = 3 + spread * draws
        low, high = bootstrap_interval(differences)
        assert low < differences.mean() < high and (low, high) == bootstrap_interval(differences)
        widths.append(high - low)
    assert widths[1] == pytest.approx(10 * widths[0])


def test_the_interval_reflects_the_number_of_sets_not_of_networks():
    between = np.repeat(np.random.default_rng(1).normal(size=(8, 1)), 50, 1)       # 400 networks, but 8 sets
    low, high = bootstrap_interval(between)
    assert (high - low) / 2 == pytest.approx(1.96 * between[:, 0].std() / math.sqrt(8), rel=0.2)


def csv_rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def numbers(text):
    return [float(number) for number in re.findall(r"[+-]?\d+\.\d+", text)]


def test_every_format_has_the_same_numbers(folders, tmp_path):
    _, markdown, csv_path, latex = report.write_report(folders, tmp_path / "out")
    rows = csv_rows(csv_path)
    assert rows[-1]["comparison"].startswith(NASTY)
    assert {row["metric"] for row in rows} == {*MAIN_METRICS, "worst_cell_accuracy", "undefined"}
    by_metric = {row["metric"]: row for row in rows if row["run"] == "DM + FairDD"}
    assert by_metric["undefined"]["mean"] == by_metric["undefined"]["low"] == ""
    expected = [float(by_metric[name][column]) for name in MAIN_METRICS for column in ("mean", "std")]
    expected += [float(by_metric[name][column]) for name in MAIN_METRICS for column in ("difference", "low", "high")]
    for path, start in ((markdown, "| DM + FairDD |"), (latex, "DM + FairDD &")):
        [line] = [line for line in path.read_text().splitlines() if line.startswith(start)]
        assert numbers(line) == pytest.approx(expected, abs=0.00501)
        lines = [line for line in path.read_text().splitlines() if line.startswith(start[:3])]
        assert len({line.count(start[-1]) for line in lines}) == 1          # a nasty name moves no column


class Page(HTMLParser):
    """What a page loads, its tags and its text."""

    VOID = frozenset(["meta", "img"])

    def __init__(self, html):
        super().__init__()
        self.urls, self.tags, self.open_tags, self.texts = [], set(), [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.handle_startendtag(tag, attributes)
        if tag not in self.VOID:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.urls += [value for name, value in attributes if name in ("src", "href", "xlink:href", "srcset", "data")]

    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)


def check_page(html):
    """Check that a page is well formed and loads nothing from elsewhere, and return it parsed."""
    page = Page(html)
    assert not page.open_tags and not page.tags & {"script", "link", "iframe"} and "@import" not in html
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in page.urls)
    assert not re.search(r"url\((?!#)", html)
    return page


def test_the_page_is_well_formed_self_contained_and_escapes_names(folders, tmp_path):
    html = report.write_report(folders, tmp_path / "out")[0].read_text()
    page = check_page(html)
    assert "<b>" not in html and sum(NASTY in text for text in page.texts) > 3
    assert "prefers-color-scheme: dark" in html and "width=device-width" in html


def test_two_real_runs_end_to_end(tmp_path, capsys):
    import main_DM

    runs = [tmp_path / "vanilla", tmp_path / "fairdd"]
    for run, align in zip(runs, ("vanilla", "fairdd"), strict=True):
        main_DM.main([*QUICK, "--align", align, "--save_path", str(run)])
    before = {path: path.read_bytes() for run in runs for path in run.iterdir()}
    assert capsys.readouterr().err == ""                    # no progress bar without a terminal
    report.main([*map(str, runs), "--out", str(tmp_path / "out")])
    page = check_page((tmp_path / "out" / "report.html").read_text())
    text = " ".join(page.texts)
    for title in ("Accuracy against fairness", "Synthetic images", "Accuracy of each (group, class)",
                  "During distillation", "Real and synthetic images", "1,287 training images", "main_DM.py",
                  "Difference from vanilla"):
        assert title in text
    pictures = [value for value in page.urls if value.startswith("data:")]
    assert len(pictures) == 6                               # images and projections: one start, two ends
    assert (tmp_path / "out" / "report.html").stat().st_size < 2e6
    for path in report.write_report(runs, tmp_path / "again"):      # the same runs give the same bytes
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()
    assert before == {path: path.read_bytes() for run in runs for path in run.iterdir()}
    final = read_run(runs[1]).final("ConvNetD1W32")
    results = json.loads((runs[1] / "results.json").read_text())
    assert final["DEO_A"].mean() == pytest.approx(results["DEO_A"]["mean"])


def test_what_a_run_records_for_the_report_depends_on_the_seed_alone(tmp_path):
    import main_DM

    for name, flags in {"a": [], "b": ["--eval_every", "0"], "c": ["--seed", "1"]}.items():
        main_DM.main([*QUICK, *flags, "--save_path", str(tmp_path / name)])
    a, b, c = ((tmp_path / name / "projection.json").read_bytes() for name in "abc")
    assert a == b != c
    start, end = ((tmp_path / "a" / f"experiment0_iteration0000{number}.png").read_bytes() for number in (0, 2))
    assert start == (tmp_path / "b" / "experiment0_iteration00000.png").read_bytes() != end
    data = json.loads((tmp_path / "a" / "dataset.json").read_text())
    assert np.sum(data["train"]) == 1287 and np.shape(data["test"]) == (10, 10)


def refused(capsys, *arguments):
    return refusal(capsys, report.main, list(map(str, arguments)))


def test_an_unknown_row_for_against_is_refused_with_the_names_of_the_rows(folders, tmp_path, capsys):
    message = refused(capsys, *folders, "--out", tmp_path / "out", "--against", "nobody")
    assert "no row is named nobody" in message and "DM + FairDD" in message and not (tmp_path / "out").exists()
    assert "--against needs --out" in refused(capsys, *folders, "--against", "DM")


def test_nothing_is_overwritten_without_the_flag(folders, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.tex").write_text("earlier")
    assert "report.tex exists" in refused(capsys, *folders, "--out", out)
    assert [path.name for path in out.iterdir()] == ["report.tex"] and (out / "report.tex").read_text() == "earlier"
    report.main([*map(str, folders), "--out", str(out), "--overwrite"])
    assert len(list(out.iterdir())) == 4 and (out / "report.tex").read_text() != "earlier"


def test_the_terminal_table_has_one_row_per_run_and_the_last_pictures(folders, capsys):
    (folders[0] / "experiment0_iteration00000.png").touch()
    (folders[0] / "experiment0_iteration00005.png").touch()
    report.main(list(map(str, folders[:3])))
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["%", *MAIN_METRICS, "networks"]
    assert [row.split("  ")[0] for row in rows[:3]] == ["DM", "DM", "DM + FairDD"]
    assert numbers(rows[0])[0] == pytest.approx(statistics.mean([10, 11.5, 12, 13]), abs=0.00501)
    assert rows[-1].strip() == str(folders[0] / "experiment0_iteration00005.png")


def test_the_columns_of_the_tables_can_be_chosen(folders, tmp_path, capsys):
    chosen = ["worst_cell_accuracy", "accuracy"]
    report.main([*map(str, folders[:3]), "--metrics", ",".join(chosen)])
    assert capsys.readouterr().out.splitlines()[0].split() == ["%", *chosen, "networks"]
    report.main([*map(str, folders[:3]), "--metrics", ",".join(chosen), "--out", str(tmp_path / "out")])
    header = next(line for line in (tmp_path / "out" / "report.md").read_text().splitlines() if "networks |" in line)
    assert "| worst_cell_accuracy | accuracy |" in header and "DEO_M" not in header
    for out in ([], ["--out", tmp_path / "other"]):
        message = refused(capsys, *folders[:3], "--metrics", "accuracy,beauty", *out)
        assert "has no beauty; it has: DEO_A, DEO_M, accuracy" in message
