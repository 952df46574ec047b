"""Runs that are not finished, and metrics that do not cover all cells, are named as such wherever they appear."""

import json
from dataclasses import replace

import pytest
import torch
from refusal import refusal

import main_DM
from fairdd import evaluate, export
from fairdd.core.errors import Interrupted
from fairdd.evaluation.metrics import accuracy_table
from fairdd.run.folder import EVALUATIONS, RESULTS, SYNTHETIC
from fairdd.run.formatting import format_coverage
from fairdd.run.synset_io import read_saved_sets

SMALL = ["--num_eval", "1", "--epoch_eval_train", "1", "--ipc", "1", "--batch_real", "10", "--model", "ConvNetD1W32",
         "--im_size", "8", "--Iteration", "4", "--eval_every", "2"]


@pytest.fixture
def unfinished(tmp_path, monkeypatch):
    """The folder of a run that was interrupted after its evaluation at iteration 2 of 4."""

    def update_until_3(context, syn, *key):
        if key[-1] == 3:
            raise Interrupted(15)
        return update(context, syn, *key)

    update = main_DM.update
    folder = tmp_path / "run"
    monkeypatch.setattr(main_DM, "METHOD", replace(main_DM.METHOD, update=update_until_3))
    with pytest.raises(SystemExit) as stop:
        main_DM.main([*SMALL, "--save_path", str(folder)])
    assert stop.value.code == 128 + 15
    return folder


def test_an_unfinished_run_is_evaluated_at_the_iteration_of_its_set(unfinished, tmp_path, capsys):
    evaluate.main([str(unfinished), "--out", str(tmp_path / "out")])
    assert "unfinished, iteration 2 of 4" in capsys.readouterr().out
    line = json.loads((tmp_path / "out" / EVALUATIONS).read_text())
    run_lines = map(json.loads, (unfinished / EVALUATIONS).read_text().splitlines())
    assert line["iteration"] == 2 and line["networks"] == next(x["networks"] for x in run_lines if x["iteration"] == 2)
    assert json.loads((tmp_path / "out" / RESULTS).read_text())["accuracy"]["n"] == 1


def test_an_export_of_an_unfinished_run_says_so(unfinished, tmp_path, capsys):
    export.main([str(unfinished), str(tmp_path / "set.pt"), "--format", "pt"])
    assert "unfinished, iteration 2 of 4" in capsys.readouterr().out


def test_an_unfinished_run_of_version_0_1_is_known_by_its_last_evaluation(unfinished):
    content = torch.load(unfinished / SYNTHETIC, weights_only=True)
    del content["iterations"]
    torch.save(content, unfinished / SYNTHETIC)
    assert read_saved_sets(unfinished).progress(0) == "unfinished, iteration 2 of 4"


def test_sets_of_different_iterations_are_not_evaluated_together(unfinished, tmp_path, capsys):
    content = torch.load(unfinished / SYNTHETIC, weights_only=True)
    content |= {"data": content["data"] * 2, "iterations": [[4, 4], [2, 4]]}
    torch.save(content, unfinished / SYNTHETIC)
    message = refusal(capsys, evaluate.main, [str(unfinished), "--out", str(tmp_path / "out")])
    assert "(2, 4)" in message and "--experiment" in message


def test_a_finished_run_is_not_called_unfinished(tmp_path, capsys):
    main_DM.main([*SMALL, "--Iteration", "1", "--save_path", str(tmp_path / "run")])
    evaluate.main([str(tmp_path / "run"), "--out", str(tmp_path / "out")])
    assert "unfinished" not in capsys.readouterr().out


def test_metrics_that_miss_cells_say_how_many_they_cover():
    labels, groups = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0])
    table = accuracy_table(labels, labels, groups, 2, 2)
    assert format_coverage(table.tolist()) == " | covers 3 of 4 cells"
    assert format_coverage([[0.5, 0.5], [0.0, 1.0]]) == ""


def test_results_state_their_coverage(tmp_path):
    main_DM.main([*SMALL, "--Iteration", "0", "--save_path", str(tmp_path / "run")])
    results = json.loads((tmp_path / "run" / RESULTS).read_text())
    assert (results["cells_covered"], results["cells"]) == (100, 100)
