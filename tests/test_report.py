"""Reports say what the runs' folders hold: pooled figures, changes with their interval, in every format the same."""

import csv
import json
import math
import re
import statistics
from html.parser import HTMLParser

import numpy as np
import pytest
from refusal import refusal

import main_DM
from fairdd.report.__main__ import __main__ as report
from fairdd.report.comparison import COMPARED, interval, read_comparisons
from fairdd.report.load_runs import read_run

NASTY = 'a <b> & "c" | \\d_e$ %'
QUICK = ["--num_eval", "2", "--epoch_eval_train", "1", "--ipc", "2", "--batch_real", "20", "--model", "ConvNetD1W32",
         "--im_size", "8", "--Iteration", "2", "--eval_every", "1"]


def network(accuracy, **figures):
    """The figures of a network with one accuracy in every cell, of two groups and two classes."""
    table = [[accuracy, accuracy], [accuracy, None]]
    return {"accuracy": accuracy, "DEO_M": 100 - accuracy, "DEO_A": 50 - accuracy / 2, **figures, "table": table}


def write_run(folder, *experiments, seed=0, **flags):
    """A finished run by hand. experiments: the accuracies of the networks of each; -> its folder"""
    given = {"method": "DM", "dataset": "Toy", "model": "ConvNet", "ipc": 1, "init": "real", "Iteration": 5,
             "num_exp": len(experiments), "num_eval": len(experiments[0]), "align": "vanilla", "seed": seed} | flags
    given["FairDD"] = given["align"] == "fairdd"
    lines = [{"experiment": number, "iteration": given["Iteration"], "model": "ConvNet",
              "networks": [network(accuracy, worst_cell=accuracy / 3, undefined=None) for accuracy in accuracies]}
             for number, accuracies in enumerate(experiments)]
    names = {"class_names": ["plain", NASTY], "group_names": [NASTY, "other"]}
    folder.mkdir(parents=True)
    (folder / "flags.json").write_text(json.dumps({"flags": given, "versions": {"python": "3"}}))
    (folder / "results.json").write_text(json.dumps({"model": "ConvNet", **names}))
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def write_evaluation(folder, *experiments, **flags):
    """A finished evaluation by hand: a run without the flags that distil. -> its folder"""
    write_run(folder, *experiments, **flags)
    content = json.loads((folder / "flags.json").read_text())
    for name in ("align", "init", "ipc", "num_exp", "FairDD"):
        del content["flags"][name]
    (folder / "flags.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def folders(tmp_path):
    """Two seeds of vanilla, of two experiments each, and of FairDD; and a run of a data set with a nasty name."""
    return [
        write_run(tmp_path / "v0", [10, 11.5], [12, 13]), write_run(tmp_path / "v1", [9, 10], [11, 16], seed=1),
        write_run(tmp_path / "f0", [30, 32], [31, 37], align="fairdd"),
        write_run(tmp_path / "f1", [40, 41], [41, 39], align="fairdd", seed=1),
        write_run(tmp_path / NASTY.replace("/", ""), [50, 60], dataset=NASTY),
    ]


def test_runs_that_differ_only_in_their_seed_are_pooled(folders):
    first, second = read_comparisons(folders)
    vanilla, fairdd = first.settings
    values = [30, 32, 31, 37, 40, 41, 41, 39]
    summary = fairdd.summary("accuracy", "ConvNet")
    assert (vanilla.name, fairdd.name, fairdd.num_sets("ConvNet")) == ("DM", "DM + FairDD", 4)
    assert summary["n"] == 8 and summary["mean"] == pytest.approx(statistics.mean(values))
    assert summary["std"] == pytest.approx(statistics.stdev(values))
    assert np.allclose(fairdd.table("ConvNet"), [[36.375, 36.375], [36.375, math.nan]], equal_nan=True)
    assert len(second.settings) == 1 and second.vanilla(second.settings[0]) is None


def test_settings_of_one_name_are_told_apart_by_the_flags_that_differ(tmp_path):
    runs = [write_run(tmp_path / str(rate), [rate], lr_img=rate) for rate in (1, 2)]
    assert [setting.name for setting in read_comparisons(runs)[0].settings] == ["DM (lr_img 1)", "DM (lr_img 2)"]


def test_an_evaluation_of_a_saved_set_is_a_row_too(tmp_path):
    runs = [write_evaluation(tmp_path / name, [10], [20], trained_on="DM + FairDD", images=name) for name in "ab"]
    [comparison] = read_comparisons(runs)
    assert [setting.name for setting in comparison.settings] == [f"DM + FairDD ({run})" for run in runs]
    assert comparison.settings[0].summary("accuracy", "ConvNet")["mean"] == 15
    check_page(report.write(runs, tmp_path / "out")[0].read_text())


def test_what_is_as_published_is_not_in_a_name(tmp_path):
    flags = [(False, 1), (True, 1), (True, 2)]
    runs = [write_run(tmp_path / f"{one}{two}", [1], group_balance=one, factor=two) for one, two in flags]
    names = [setting.name for setting in read_comparisons(runs)[0].settings]
    assert names == ["DM", "DM (group_balance)", "DM (group_balance, factor 2)"]


def test_the_whole_real_set_stands_beside_all_runs_of_its_data_and_network(tmp_path):
    runs = [write_run(tmp_path / str(ipc), [10], ipc=ipc) for ipc in (1, 10)]
    runs += [write_run(tmp_path / "other", [10], dataset="Other")]
    whole = dict(trained_on="all real images", images="real", model=["ConvNet"])
    runs += [write_evaluation(tmp_path / f"w{seed}", [90 + 2 * seed], seed=seed, **whole) for seed in (0, 1)]
    runs += [write_evaluation(tmp_path / "alone", [90], dataset="Third", **whole)]
    found = [[setting.name for setting in comparison.settings] for comparison in read_comparisons(runs)]
    assert found == [["DM", "all real images"], ["DM", "all real images"], ["DM"], ["all real images"]]
    assert read_comparisons(runs)[1].settings[1].summary("accuracy", "ConvNet")["mean"] == 91


def test_every_row_can_be_compared_with_a_row_of_choice(folders, tmp_path):
    folders += [write_run(tmp_path / "random", [5, 5], [5, 5], Iteration=0)]
    path = report.write(folders[:4] + folders[5:], tmp_path / "out", against="random real images")[2]
    rows = {row["run"]: row for row in csv_rows(path) if row["figure"] == "accuracy"}
    assert float(rows["DM + FairDD"]["change"]) == pytest.approx(statistics.mean([30, 32, 31, 37]) - 5)
    assert (rows["DM"]["pairs"], rows["random real images"]["change"]) == ("2", "")
    note = path.with_suffix(".md").read_text()
    assert 'the row "random real images"' in note and "the vanilla runs" not in note
    assert "Change against random real images" in path.with_suffix(".html").read_text()


def test_below_a_table_stand_the_seeds_the_minutes_and_the_command_of_every_row(folders, tmp_path):
    (folders[1] / "time.json").write_text('{"minutes": 2.25}')
    text = report.write(folders[:4], tmp_path / "out")[1].read_text()
    [line] = [line for line in text.splitlines() if line.startswith("# DM |")]
    assert line == "# DM | seed 0, 1 | minutes ?, 2.2 | ?, torch ?, python 3"
    assert text.splitlines()[text.splitlines().index(line) + 1] == read_run(folders[0]).command()


def test_runs_of_other_classes_are_not_pooled(tmp_path):
    runs = [write_run(tmp_path / "a", [10]), write_run(tmp_path / "b", [20], seed=1)]
    results = json.loads((runs[1] / "results.json").read_text())
    (runs[1] / "results.json").write_text(json.dumps(results | {"class_names": ["other", "names"]}))
    assert len(read_comparisons(runs)) == 2


def test_vanilla_is_only_what_differs_in_nothing_but_the_alignment(tmp_path):
    runs = [write_run(tmp_path / "v", [10], lr_img=1), write_run(tmp_path / "f", [20], lr_img=2, align="fairdd")]
    assert not any(row["change"] for row in csv_rows(report.write(runs, tmp_path / "out")[2]))


def test_a_folder_named_twice_counts_once(folders):
    [comparison] = read_comparisons([folders[0], folders[0].parent / "." / folders[0].name])
    assert comparison.settings[0].summary("accuracy", "ConvNet")["n"] == 4


def test_the_change_is_over_the_pairs_that_both_have(tmp_path):
    runs = [write_run(tmp_path / "v", [10, 20], seed=3), write_run(tmp_path / "v2", [90, 99], seed=4),
            write_run(tmp_path / "f", [15, 26], seed=3, align="fairdd")]
    row = next(row for row in csv_rows(report.write(runs, tmp_path / "out")[2]) if row["change"])
    assert (float(row["change"]), row["pairs"], float(row["low"]), float(row["high"])) == (5.5, "1", 5, 6)


def test_the_interval_is_nothing_for_equal_runs_covers_the_mean_and_widens_with_the_spread():
    draws = np.random.default_rng(0).normal(size=(6, 5))
    assert interval(np.zeros((3, 4))) == (0, 0)
    widths = []
    for spread in (1, 10):
        low, high = interval(3 + spread * draws)
        assert low < (3 + spread * draws).mean() < high and (low, high) == interval(3 + spread * draws)
        widths.append(high - low)
    assert widths[1] == pytest.approx(10 * widths[0])


def test_the_interval_takes_sets_not_networks_as_what_varies():
    between = np.repeat(np.random.default_rng(1).normal(size=(8, 1)), 50, 1)       # 400 networks, but 8 sets
    low, high = interval(between)
    assert (high - low) / 2 == pytest.approx(1.96 * between[:, 0].std() / math.sqrt(8), rel=0.2)


def csv_rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def numbers(text):
    return [float(number) for number in re.findall(r"[+-]?\d+\.\d+", text)]


def test_every_format_says_the_same_numbers(folders, tmp_path):
    _, markdown, csv_path, latex = report.write(folders, tmp_path / "out")
    rows = csv_rows(csv_path)
    assert rows[-1]["comparison"].startswith(NASTY)
    assert {row["figure"] for row in rows} == {*COMPARED, "worst_cell", "undefined"}
    ours = {row["figure"]: row for row in rows if row["run"] == "DM + FairDD"}
    assert ours["undefined"]["mean"] == ours["undefined"]["low"] == ""
    found = [float(ours[name][value]) for name in COMPARED for value in ("mean", "std")]
    found += [float(ours[name][value]) for name in COMPARED for value in ("change", "low", "high")]
    for path, start in ((markdown, "| DM + FairDD |"), (latex, "DM + FairDD &")):
        [line] = [line for line in path.read_text().splitlines() if line.startswith(start)]
        assert numbers(line) == pytest.approx(found, abs=0.00501)
        lines = [line for line in path.read_text().splitlines() if line.startswith(start[:3])]
        assert len({line.count(start[-1]) for line in lines}) == 1          # a nasty name moves no column


class Page(HTMLParser):
    """What a page loads, and its tags."""

    VOID = frozenset(["meta", "img"])

    def __init__(self, text):
        super().__init__()
        self.loads, self.tags, self.open, self.words = [], set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href", "xlink:href", "srcset", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.loads += [value for name, value in attributes if name in ("src", "href", "xlink:href", "srcset", "data")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.words.append(text)


def check_page(text):
    """It is well formed and loads nothing from elsewhere. -> Page"""
    page = Page(text)
    assert not page.open and not page.tags & {"script", "link", "iframe"} and "@import" not in text
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in page.loads)
    assert not re.search(r"url\((?!#)", text)
    return page


def test_the_page_is_well_formed_needs_nothing_else_and_escapes_names(folders, tmp_path):
    text = report.write(folders, tmp_path / "out")[0].read_text()
    page = check_page(text)
    assert "<b>" not in text and sum(NASTY in words for words in page.words) > 3
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text


def test_two_real_runs_end_to_end(tmp_path, capsys):
    runs = [tmp_path / "vanilla", tmp_path / "fairdd"]
    for run, align in zip(runs, ("vanilla", "fairdd"), strict=True):
        main_DM.main([*QUICK, "--align", align, "--save_path", str(run)])
    before = {path: path.read_bytes() for run in runs for path in run.iterdir()}
    assert capsys.readouterr().err == ""                    # no progress bar where there is no terminal
    report.main([*map(str, runs), "--out", str(tmp_path / "out")])
    page = check_page((tmp_path / "out" / "report.html").read_text())
    words = " ".join(page.words)
    for part in ("Accuracy against fairness", "Synthetic images", "Accuracy of each (group, class)", "On the way",
                 "Real and synthetic images", "1,200 training images", "main_DM.py", "Change against vanilla"):
        assert part in words
    pictures = [value for value in page.loads if value.startswith("data:")]
    assert len(pictures) == 6                               # images and planes: one start, two ends
    assert (tmp_path / "out" / "report.html").stat().st_size < 2e6
    for path in report.write(runs, tmp_path / "again"):     # the same runs, the same bytes
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()
    assert before == {path: path.read_bytes() for run in runs for path in run.iterdir()}
    final = read_run(runs[1]).final("ConvNetD1W32")
    results = json.loads((runs[1] / "results.json").read_text())
    assert statistics.mean(figures["DEO_A"] for figures in final.values()) == pytest.approx(results["DEO_A"]["mean"])


def test_what_a_run_records_for_the_report_depends_on_the_seed_alone(tmp_path):
    for name, flags in {"a": [], "b": ["--eval_every", "0"], "c": ["--seed", "1"]}.items():
        main_DM.main([*QUICK, *flags, "--save_path", str(tmp_path / name)])
    a, b, c = ((tmp_path / name / "embedding.json").read_bytes() for name in "abc")
    assert a == b != c
    start, end = ((tmp_path / "a" / f"experiment0_iteration0000{number}.png").read_bytes() for number in (0, 2))
    assert start == (tmp_path / "b" / "experiment0_iteration00000.png").read_bytes() != end
    data = json.loads((tmp_path / "a" / "data.json").read_text())
    assert np.sum(data["train"]) == 1200 and np.shape(data["test"]) == (10, 10)


def refused(capsys, *arguments):
    return refusal(capsys, report.main, list(map(str, arguments)))


def test_an_unknown_row_to_compare_with_is_refused_with_the_rows_there_are(folders, tmp_path, capsys):
    words = refused(capsys, *folders, "--out", tmp_path / "out", "--against", "nobody")
    assert "no row is called nobody" in words and "DM + FairDD" in words and not (tmp_path / "out").exists()
    assert "--against needs --out" in refused(capsys, *folders, "--against", "DM")


def test_nothing_is_overwritten_unasked(folders, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.tex").write_text("mine")
    assert "report.tex exists" in refused(capsys, *folders, "--out", out)
    assert [path.name for path in out.iterdir()] == ["report.tex"] and (out / "report.tex").read_text() == "mine"
    report.main([*map(str, folders), "--out", str(out), "--overwrite"])
    assert len(list(out.iterdir())) == 4 and (out / "report.tex").read_text() != "mine"
