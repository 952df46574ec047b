"""A new method is one Method and one update function: everything else works with it and knows nothing of it."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fairdd import evaluate
from fairdd.core.errors import Interrupted, report_user_errors
from fairdd.flags import parse_flags, positive_float
from fairdd.method import Method
from fairdd.report.__main__ import main as report
from fairdd.run import checkpoint
from fairdd.run.loop import distill
from networks import get_network, network_factory

FLAGS = ["--model", "ConvNetD1W32", "--num_eval", "1", "--epoch_eval_train", "1", "--batch_real", "9",
         "--im_size", "8", "--align", "barycenter"]


def update(context, syn, *key):
    """Move every synthetic image toward a running mean of the real images: a method in ten lines."""
    batch = context.real_batch(None, *key)
    mean, state = batch[:].mean(0), context.method_state
    state["mean"] = mean.lerp(state.get("mean", mean).to(mean.device), context.args.inertia)     # resumed on the CPU
    images = syn.expanded()
    distance, gradient = TOY.distances[context.args.dis_metric](images - state["mean"])
    syn.step(images, gradient)
    return distance


TOY = Method(
    name="Toy", update=update, distances={"ours": lambda x: (x.detach().square().sum(), 2 * x.detach()),
                                          "l1": lambda x: (x.detach().abs().sum(), x.detach().sign())},
    add_flags=lambda add: add("--inertia", type=positive_float, default=0.5, help="of the running mean"),
    paper=dict(Iteration=1000, lr_img=0.1), quick=dict(Iteration=5, lr_img=lambda args: 0.1 / args.ipc),
)


@report_user_errors
def main(argv, method=TOY):
    _, args = parse_flags([method], network_factory, ["S"], [*FLAGS, *argv])
    distill(args, method, get_network, [args.model])


def interrupted_at(iteration):
    """Return the toy method, which is interrupted at the end of an iteration, before it counts as done."""

    def interrupted_update(context, syn, *key):
        loss = update(context, syn, *key)
        if key[-1] == iteration:
            raise Interrupted(15)
        return loss

    return replace(TOY, update=interrupted_update)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("toy") / "run"
    main(["--num_exp", "2", "--save_path", str(folder)])
    return folder


def test_its_defaults_distances_and_flags_are_the_entrys(run):
    record = json.loads((run / "flags.json").read_text())
    flags = record["flags"]
    assert (flags["method"], flags["Iteration"], flags["lr_img"], flags["inertia"]) == ("Toy", 5, 0.01, 0.5)
    assert record["entry"] == "test_method.py" and "inertia" not in record["non_default"]
    _, args = parse_flags([TOY], network_factory, ["S"],
                          ["--dataset", "BFFHQ", "--inertia", "0.3", "--dis_metric", "l1"])
    assert (args.Iteration, args.lr_img, args.inertia, args.model) == (1000, 0.1, 0.3, "ConvNet")
    assert {"inertia", "dis_metric"} <= {*args.non_default} and "inertia0.3" in args.save_path


def test_its_update_is_what_moves_the_images(run, tmp_path):
    main(["--Iteration", "0", "--save_path", str(tmp_path / "start")])
    main(["--dis_metric", "l1", "--save_path", str(tmp_path / "l1")])
    start, l1, end = (torch.load(folder / "synthetic.pt", weights_only=True)["data"][0][0]
                      for folder in (tmp_path / "start", tmp_path / "l1", run))
    assert end.std(0).mean() < 0.99 * start.std(0).mean()           # all images approach one mean
    assert not torch.equal(l1, end) and not torch.equal(l1, start)


def test_it_resumes_to_the_same_bytes(run, tmp_path):
    for iteration in (2, 4):
        with pytest.raises(SystemExit) as stop:
            main(["--num_exp", "2", "--save_path", str(tmp_path)], interrupted_at(iteration))
        assert stop.value.code == 128 + 15
    main(["--num_exp", "2", "--save_path", str(tmp_path)])
    assert "resuming at iteration 4 of experiment 0" in (tmp_path / "log.txt").read_text()
    for name in ("synthetic.pt", "results.json", "evaluations.jsonl"):
        assert (tmp_path / name).read_bytes() == (run / name).read_bytes()


def test_what_it_keeps_across_iterations_is_resumed_exactly(tmp_path):
    states = []
    for name, iterations in {"resumed": (2, 4), "uninterrupted": (4,)}.items():
        for iteration in iterations:
            with pytest.raises(SystemExit):
                main(["--save_path", str(tmp_path / name)], interrupted_at(iteration))
        states.append(checkpoint.load(tmp_path / name, pytest.fail)["method_state"])
    assert states[0].keys() == {"mean"} and torch.equal(states[0]["mean"], states[1]["mean"])


def test_every_experiment_begins_without_a_state_of_an_earlier_one(run, tmp_path):
    seen = []

    def record_first(context, syn, *key):
        if key[-1] == 0:
            seen.append(dict(context.method_state))
        return update(context, syn, *key)

    main(["--num_exp", "2", "--save_path", str(tmp_path)], replace(TOY, update=record_first))
    assert seen == [{}, {}]


def test_it_is_evaluated_and_reported_like_any_other(run, tmp_path, capsys):
    evaluate.main([str(run), "--out", str(tmp_path / "evaluated")])
    results = [json.loads((folder / "results.json").read_text()) for folder in (run, tmp_path / "evaluated")]
    assert results[0] == results[1]
    capsys.readouterr()
    report([str(run)])
    assert f"Toy + barycenter  {results[0]['accuracy']['mean']:.2f}" in capsys.readouterr().out
    report([str(run), "--out", str(tmp_path / "report")])
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Toy + barycenter" in page and "python test_method.py --method Toy" in page


def test_a_distance_of_another_method_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--dis_metric", "cos", "--save_path", str(tmp_path)])
    assert "--dis_metric cos is not supported by Toy; supported: ours, l1" in capsys.readouterr().err


def test_the_examples_of_the_method_page_are_valid():
    page = (Path(__file__).parent.parent / "docs" / "method.md").read_text()
    [entry] = [block for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "METHOD =" in block]
    names = {"__name__": "main_PM"}
    exec(entry, names)
    assert names["METHOD"].update is names["update"] and callable(names["network_factory"])
