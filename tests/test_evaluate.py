"""`python -m fairdd.evaluate`: repeats a run's metrics, tests any set and network, refuses files that are no sets."""

import json
import re
from itertools import combinations
from pathlib import Path

import pytest
import torch
from refusal import refusal
from test_flags import example_values

import main_DM
from fairdd import evaluate
from fairdd.core.errors import UserError
from fairdd.datasets import get_dataset
from fairdd.flags import RUNTIME_FLAGS
from fairdd.report.__main__ import main as report
from fairdd.run.context import evaluation_config
from fairdd.run.synset_io import read_saved_sets
from networks import get_eval_pool, network_factory

SMALL = ["--num_eval", "2", "--epoch_eval_train", "1", "--ipc", "2", "--batch_real", "20", "--model", "ConvNetD1W32",
         "--im_size", "8", "--Iteration", "1", "--seed", "5", "--FairDD"]
ON_DIGITS = ["--dataset", "Colored_Digits", "--im_size", "8", "--num_eval", "1", "--epoch_eval_train", "1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run with two synthetic sets, to which no test writes."""
    folder = tmp_path_factory.mktemp("run")
    main_DM.main([*SMALL, "--num_exp", "2", "--save_path", str(folder)])
    return folder


def results_of(out, *flags):
    """Run the command; return its results."""
    evaluate.main([*map(str, flags), "--out", str(out)])
    return json.loads((out / "results.json").read_text())


def refused(capsys, *flags):
    return refusal(capsys, evaluate.main, list(map(str, flags)))


def test_without_flags_it_repeats_the_metrics_of_the_run(run, tmp_path):
    assert results_of(tmp_path / "out", run) == json.loads((run / "results.json").read_text())
    evaluated, original = ((folder / "metrics_per_network.jsonl").read_text() for folder in (tmp_path / "out", run))
    assert evaluated == original


def test_one_set_of_several_can_be_chosen(run, tmp_path):
    results_of(tmp_path / "second", run, "--experiment", "1")
    lines = (run / "metrics_per_network.jsonl").read_text().splitlines(keepends=True)
    chosen = [line for line in lines if json.loads(line)["experiment"] == 1]
    assert (tmp_path / "second" / "metrics_per_network.jsonl").read_text() == "".join(chosen)


def test_every_model_has_its_metrics_and_a_line_in_the_table(run, tmp_path, capsys):
    models = ["ConvNetD1W32", "MLP"]
    results = results_of(tmp_path / "out", run, "--model", *models, "--num_eval", "3", "--experiment", "0")
    assert list(results["by_model"]) == models and results["by_model"]["MLP"]["worst_group_accuracy"]["n"] == 3
    table = capsys.readouterr().out.partition("%")[2]
    assert all(f"\n{model} " in table for model in models) and "equal_opportunity" not in table
    report([str(tmp_path / "out")])
    assert "\nDM + FairDD" in capsys.readouterr().out


def test_every_pt_format_of_a_set_gives_the_same_results(run, tmp_path):
    [first, _] = read_saved_sets(run).sets
    formats = {"dict.pt": {"data": [[first.images, first.labels]], "accs_all_exps": {}},
               "list.pt": [first.images, first.labels], "tuple.pt": (first.images, first.labels.int())}
    for name, content in formats.items():
        torch.save(content, tmp_path / name)
    results = [results_of(tmp_path / f"{name}.out", tmp_path / name, *ON_DIGITS, "--model", "MLP") for name in formats]
    assert results[0] == results[1] == results[2]


def test_results_go_into_the_run_or_beside_the_file(tmp_path):
    main_DM.main([*SMALL, "--save_path", str(tmp_path / "run")])
    evaluate.main([str(tmp_path / "run")])
    evaluate.main([str(tmp_path / "run" / "synthetic.pt"), *ON_DIGITS, "--model", "MLP"])
    assert (tmp_path / "run" / "evaluated" / "results.json").exists()
    [beside] = (tmp_path / "run").glob("synthetic_evaluated_Colored_Digits_*")
    assert (beside / "results.json").exists()


@pytest.mark.parametrize("source", ["{run}", "{run}/synthetic.pt"])
def test_default_folders_differ_if_and_only_if_a_flag_changes_results(run, source):
    source, inside = source.format(run=run), "evaluated" if source == "{run}" else "synthetic_evaluated"
    actions = {action.dest: action for action in evaluate.make_parser(network_factory)._actions[2:]}   # no help, source
    for name in actions.keys() - {"save_path", "images"}:       # --images is another way to give the source
        dataset = [] if name == "dataset" else ["--dataset", "Colored_Digits"]
        evaluations = [flags_for(source, *dataset, *flags) for flags in example_values(actions[name])
                       if dataset or flags or source == str(run)]
        for args, other in combinations(evaluations, 2):
            is_same_flag = getattr(args, name) == getattr(other, name)
            assert (args.save_path == other.save_path) == (is_same_flag or name in RUNTIME_FLAGS), name
            assert Path(args.save_path).parent == run and Path(args.save_path).name.startswith(inside)


def test_real_images_without_a_run_have_a_folder_of_their_own():
    paths = [flags_for("--data", "real", "--dataset", *flags).save_path
             for flags in (["BFFHQ"], ["CelebA"], ["CelebA", "--seed", "1"], ["CelebA", "--model", "MLP"])]
    assert len({*paths}) == 4 and paths[:2] == ["results/evaluated-real_BFFHQ", "results/evaluated-real_CelebA"]


def test_a_tilde_after_an_equals_sign_is_the_home_folder(run, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert flags_for(run, "--out=~/out").save_path == f"{tmp_path}/out"
    for flags in (["~/set.pt"], ["--images=~/set.pt", "--labels_pt", "labels.pt"]):
        with pytest.raises(UserError, match=re.escape(f"{tmp_path}/set.pt does not exist")):
            flags_for(*flags, "--dataset", "CelebA")


def test_all_real_images_teach_more_than_a_few(tmp_path):
    flags = ["--data", "real", "--dataset", "Colored_Digits", "--skew", "0.1", "--im_size", "8", "--model", "MLP",
             "--num_eval", "1", "--dsa_strategy", "none"]
    assert results_of(tmp_path, *flags, "--epoch_eval_train", "15")["accuracy"]["mean"] > 50
    assert json.loads((tmp_path / "flags.json").read_text())["flags"]["trained_on"] == "all real images"


def test_an_evaluation_is_not_taken_for_a_run(run, tmp_path, capsys):
    results_of(tmp_path, run, "--num_eval", "1")
    assert "holds an evaluation" in refused(capsys, tmp_path, "--data", "real")


def test_existing_results_are_kept_repeated_or_moved_aside(run, tmp_path, capsys):
    results_of(tmp_path, run, "--num_eval", "1")
    before = (tmp_path / "metrics_per_network.jsonl").read_bytes()
    assert "num_eval = 1, but num_eval = 2 is requested" in refused(capsys, run, "--out", tmp_path)
    results_of(tmp_path, run, "--num_eval", "1")
    assert (tmp_path / "metrics_per_network.jsonl").read_bytes() == before
    results_of(tmp_path, run, "--overwrite")
    assert (tmp_path / "earlier-1" / "metrics_per_network.jsonl").read_bytes() == before


def test_results_of_other_images_are_not_taken_for_these(run, tmp_path, capsys):
    images, labels = vars(read_saved_sets(run).sets[0]).values()
    torch.save([images, labels], tmp_path / "set.pt")
    results_of(tmp_path / "out", tmp_path / "set.pt", *ON_DIGITS)
    torch.save([images + 1, labels], tmp_path / "set.pt")
    assert "images = " in refused(capsys, tmp_path / "set.pt", *ON_DIGITS, "--out", tmp_path / "out")


def test_an_interrupted_evaluation_resumes_to_the_same_results(run, tmp_path):
    uninterrupted = results_of(tmp_path, run)
    (tmp_path / "results.json").unlink()
    lines = (tmp_path / "metrics_per_network.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics_per_network.jsonl").write_text("".join(lines[:1]) + lines[1][:40])     # an incomplete line
    assert results_of(tmp_path, run) == uninterrupted
    assert (tmp_path / "metrics_per_network.jsonl").read_text() == "".join(lines)


def flags_for(*argv):
    return evaluate.parse_flags(network_factory, get_eval_pool, list(map(str, argv)))


def test_flags_come_from_the_command_then_the_run_then_the_paper(run):
    assert flags_for(run).seed == 5 and flags_for(run, "--seed", "1").seed == 1
    assert flags_for(run).model == ["ConvNetD1W32"] and flags_for(run).im_size == 8
    config = evaluation_config(flags_for(run, "--epoch_eval_train", "7", "--lr_net", "0.5"), "ConvNetBN")
    assert (config.epochs, config.lr, config.batch_size) == (7, 0.5, 256)
    file = flags_for(run / "synthetic.pt", "--dataset", "UTKface")
    assert (file.model, file.epoch_eval_train, file.num_eval, file.seed) == (["ConvNet"], 1000, 10, 0)


def test_another_split_than_the_runs_gives_a_warning(run, capsys):
    flags_for(run, "--data_seed", "3")
    assert "warning: --data_seed differ from the run" in capsys.readouterr().out
    flags_for(run, "--num_eval", "9")
    assert not capsys.readouterr().out


def test_real_images_have_their_own_number_of_epochs(run):
    assert flags_for(run, "--data", "real", "--dataset", "UTKface").epoch_eval_train == evaluate.REAL_EPOCHS
    assert flags_for(run, "--data", "real").epoch_eval_train == evaluate.REAL_EPOCHS_EMBEDDED
    assert flags_for(run, "--data", "real", "--epoch_eval_train", "4").epoch_eval_train == 4


def test_test_images_are_normalized_as_the_file_says(tmp_path, monkeypatch):
    tests = []
    monkeypatch.setattr(evaluate, "evaluate", lambda args, data, sets, make_network: tests.append(data.test))
    for name, header in {"silent": {}, "other": {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}}.items():
        torch.save({"data": [[X, Y]], **header}, tmp_path / f"{name}.pt")
        evaluate.main([str(tmp_path / f"{name}.pt"), *ON_DIGITS])
    test, index = get_dataset("Colored_Digits", im_size=8).test, torch.arange(3)
    pixels = test.images[index].float() / 255
    expected = (pixels - torch.tensor((0.1, 0.2, 0.3)).view(3, 1, 1)) / torch.tensor((0.4, 0.5, 0.6)).view(3, 1, 1)
    assert torch.equal(tests[0].batch(index), test.batch(index))
    torch.testing.assert_close(tests[1].batch(index), expected)


X, Y = torch.zeros(4, 3, 8, 8), torch.arange(4)
BAD = {
    "no labels": (X, "expected [images, labels]"),
    "empty list": ({"data": []}, "expected [images, labels]"),
    "another dict": ({"net": 1}, "found a dict with 'net'"),
    "three tensors": ([X, Y, Y], "found a list of 3"),
    "flat images": ([X.flatten(1), Y], "torch.float32 (4, 192)"),
    "bytes": ([X.byte(), Y], "torch.uint8"),
    "soft labels": ([X, X[:, 0, 0]], "distributions (M, classes) whose rows sum to 1"),
    "fewer labels": ([X, Y[:3]], "torch.int64 (3,)"),
    "no image": ([X[:0], Y[:0]], "(0, 3, 8, 8)"),
    "not finite": ([X / 0, Y], "infinite values or NaN"),
    "another size": ([torch.zeros(4, 3, 9, 9), Y], "expected images (3, 8, 8)"),
    "labels from 1": ([X, Y + 7], "expected labels from 0 to 9"),
    "negative labels": ([X, Y - 1], "found -1 to 2"),
    "other classes": ({"data": [[X, Y]], "class_names": ["cat", "dog"]}, "classes cat, dog"),
    "another scale": ({"data": [[X, Y]], "mean": [0.5], "std": [0.5]}, "each of 3 channels"),
    "an object": (torch.nn.Linear(1, 1), "tensors, numbers, lists and dicts"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_set_of_the_data_is_refused_with_a_message(tmp_path, capsys, name):
    content, message = BAD[name]
    torch.save(content, tmp_path / "bad.pt")
    assert message in refused(capsys, tmp_path / "bad.pt", *ON_DIGITS)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pt"]         # no run began


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "a .pt file is needed"),
        (["nowhere"], "nowhere does not exist"),
        (["RUN/synthetic.pt"], "--dataset is needed"),
        (["RUN/log.txt", *ON_DIGITS], "cannot be read as a .pt file"),
        (["/"], "holds no flags.json"),
        (["RUN", "--experiment", "2"], "holds 2 synthetic set(s)"),
        (["RUN", "--data", "real", "--experiment", "0"], "--experiment is about a synthetic set"),
        (["RUN", "--model", "Nothing"], "unknown network"),
        (["RUN", "--model", "ConvNetD4"], "needs images of at least 16"),
        (["RUN", "--im_size", "16"], "expected images (3, 16, 16)"),
    ],
)
def test_a_user_error_is_one_line(run, capsys, flags, message):
    assert message in refused(capsys, *(flag.replace("RUN", str(run)) for flag in flags))
    assert not (run / "evaluated").exists()
