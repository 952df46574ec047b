"""--select val: the best set on validation images is the result, and the test is looked at once."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from refusal import refusal
from test_resume import final_files, launch, run_to_end, wait_for

import main_DM
from fairdd.datasets.base import UNKNOWN
from fairdd.evaluation.metrics import fairness_metrics
from fairdd.report.comparison import pooling_key
from fairdd.run.loop import load_data
from fairdd.run.selection import better, with_cell_accuracy, with_validation

RUN = ["--model", "ConvNetD1W32", "--im_size", "8", "--num_eval", "2", "--epoch_eval_train", "2", "--ipc", "1",
       "--batch_real", "10", "--Iteration", "4", "--eval_every", "2", "--FairDD", "--quiet", "--select", "val"]


def digits():
    return load_data(main_DM.parse(["--im_size", "8"])[1])


def test_a_share_of_every_cell_is_held_out_and_never_matched():
    train = digits().train
    data = with_validation(digits(), 0.2, 30)
    assert torch.equal(data.train.counts() + data.val.counts(), train.counts())
    expected = (0.2 * train.counts().double()).round().long().clamp(min=1).minimum(train.counts() - 1)
    assert torch.equal(data.val.counts(), expected)
    images = {image.numpy().tobytes() for image in train.images}
    held_out, kept = ({image.numpy().tobytes() for image in split.images} for split in (data.val, data.train))
    assert len(held_out & kept) <= len(train) - len(images)         # equal only where two training images are
    assert torch.equal(with_validation(digits(), 0.2, 30).val.images, data.val.images)
    assert not torch.equal(with_validation(digits(), 0.2, 31).val.images, data.val.images)


def test_images_of_unknown_group_are_not_held_out():
    data = digits()
    groups = data.train.groups.clone()
    groups[::3] = UNKNOWN
    data = with_validation(replace(data, train=replace(data.train, groups=groups)), 0.5, 30)
    assert (data.val.groups != UNKNOWN).all() and (data.train.groups == UNKNOWN).sum() == (groups == UNKNOWN).sum()


def summary(accuracy, deo_a, *cells):
    return {"accuracy": {"mean": accuracy}, "DEO_A": {"mean": deo_a}, "worst_cell_accuracy": {"mean": min(cells)}}


@pytest.mark.parametrize(("select_by", "expected"), [("accuracy", 2), ("worst_cell", 1), ("DEO_A", 3)])
def test_the_best_evaluation_is_selected(select_by, expected):
    evaluations = [summary(40, 0, 20, 60), summary(60, 30, 50, 70), summary(80, 40, 40, 90), summary(55, 20, 30, 70),
                   summary(80, 40, 40, 90)]                         # the last equals an earlier one
    args, best = SimpleNamespace(select_by=select_by, min_accuracy=50), None
    for iteration, of_iteration in enumerate(evaluations):
        best = better(best, of_iteration, args, iteration, [])
    assert best.iteration == expected


def test_validation_accuracy_weighs_every_cell_equally():
    predictions, labels = torch.tensor([0] * 9 + [1, 1, 0]), torch.tensor([0] * 10 + [1, 1])
    groups = torch.tensor([0] * 9 + [1, 0, 1])              # 9 of 10 images of class 0 are of group 0
    metrics = with_cell_accuracy(fairness_metrics(predictions, labels, groups, 2, 3))
    assert metrics["accuracy"] == pytest.approx(100 * (1 + 0 + 1 + 0) / 4)      # a group without images does not count


def test_below_the_least_accuracy_the_most_accurate_is_selected():
    args, best = SimpleNamespace(select_by="DEO_A", min_accuracy=90), None
    for iteration, of_iteration in enumerate([summary(40, 0, 1), summary(60, 30, 1), summary(50, 0, 1)]):
        best = better(best, of_iteration, args, iteration, [])
    assert best.iteration == 1


def test_the_result_is_the_selected_set_and_the_test_is_looked_at_once(tmp_path):
    main_DM.main([*RUN, "--num_exp", "2", "--save_path", str(tmp_path / "run")])
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()]
    assert [(line["experiment"], line["iteration"]) for line in lines] == [(0, 4), (1, 4)]
    networks = [json.loads(line) for line in (tmp_path / "run" / "metrics_per_network.jsonl").read_text().splitlines()]
    for experiment, selected in enumerate(results["selected"]):
        accuracies = {iteration: [np.nanmean(np.array(line["metrics"]["table"], float)) for line in networks
                                  if (line["experiment"], line["iteration"]) == (experiment, iteration)
                                  and line["model"].endswith("on validation images")] for iteration in (0, 2, 4)}
        means = {iteration: sum(values) / len(values) for iteration, values in accuracies.items()}
        assert selected["accuracy"] == pytest.approx(means[selected["iteration"]]) == pytest.approx(max(means.values()))
    stopped = results["selected"][0]["iteration"]
    main_DM.main([*RUN, "--Iteration", str(stopped), "--save_path", str(tmp_path / "short")])
    [short], selected = (torch.load(tmp_path / name / "synthetic.pt")["data"] for name in ("short", "run"))
    if json.loads((tmp_path / "short" / "results.json").read_text())["selected"][0]["iteration"] == stopped:
        assert torch.equal(short[0], selected[0][0])


def test_a_killed_run_selects_the_same_set(tmp_path):
    flags = ["--select", "val", "--select_by", "worst_cell"]
    assert run_to_end("DM", tmp_path / "whole", *flags) == 0
    process = launch("DM", tmp_path / "run", *flags)
    wait_for(process, tmp_path / "run" / "metrics_per_network.jsonl")
    process.kill()
    process.join()
    assert run_to_end("DM", tmp_path / "run", *flags) == 0
    assert final_files(tmp_path / "run") == final_files(tmp_path / "whole")


@pytest.mark.parametrize("line", [
    "--select val", "--select_by accuracy", "--val_share 0.2", "--select val --val_share 1",
    "--select val --eval_every 2 --min_accuracy 50"])
def test_contradictions_are_refused(line, tmp_path, capsys):
    assert "--" in refusal(capsys, main_DM.main, [*line.split(), "--save_path", str(tmp_path / "run")])


def test_runs_that_select_among_other_evaluations_are_not_pooled():
    often, rarely = ({"select": "val", "select_by": "accuracy", "eval_every": number, "seed": 1} for number in (10, 20))
    assert pooling_key(often) != pooling_key(rarely) and pooling_key(often) == pooling_key(often | {"seed": 2})
    assert pooling_key(often | {"select": "last"}) == pooling_key(rarely | {"select": "last"})
    assert pooling_key({"select": "last"}) == pooling_key({})
