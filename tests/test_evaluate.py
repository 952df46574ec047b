"""`python -m fairdd.evaluate`: repeats a run's own figures, tests any set and network, and refuses what is no set."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from refusal import refusal

import main_DM
from fairdd import evaluate
from fairdd.datasets import get_dataset
from fairdd.evaluate import on_scale_of
from fairdd.report import __main__ as report
from fairdd.run.loop import evaluation_recipe
from fairdd.run.synset_io import SavedSets, read

SMALL = ["--num_eval", "2", "--epoch_eval_train", "1", "--ipc", "2", "--batch_real", "20", "--model", "ConvNetD1W32",
         "--im_size", "8", "--Iteration", "1", "--seed", "5", "--FairDD"]
ON_DIGITS = ["--dataset", "Colored_Digits", "--im_size", "8", "--num_eval", "1", "--epoch_eval_train", "1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run with two synthetic sets, which no test writes to."""
    folder = tmp_path_factory.mktemp("run")
    main_DM.main([*SMALL, "--num_exp", "2", "--save_path", str(folder)])
    return folder


def results_of(out, *flags):
    """Run the command. -> its results"""
    evaluate.main([*map(str, flags), "--out", str(out)])
    return json.loads((out / "results.json").read_text())


def refused(capsys, *flags):
    return refusal(capsys, evaluate.main, list(map(str, flags)))


def test_without_flags_it_repeats_the_runs_own_figures(run, tmp_path):
    assert results_of(tmp_path / "out", run) == json.loads((run / "results.json").read_text())
    ours, theirs = ((folder / "networks.jsonl").read_text() for folder in (tmp_path / "out", run))
    assert ours == theirs


def test_one_set_of_several_can_be_chosen(run, tmp_path):
    results_of(tmp_path / "one", run, "--experiment", "1")
    lines = (run / "networks.jsonl").read_text().splitlines(keepends=True)
    chosen = [line for line in lines if json.loads(line)["experiment"] == 1]
    assert (tmp_path / "one" / "networks.jsonl").read_text() == "".join(chosen)


def test_every_model_has_its_figures_and_a_line_in_the_table(run, tmp_path, capsys):
    models = ["ConvNetD1W32", "MLP"]
    results = results_of(tmp_path / "out", run, "--model", *models, "--num_eval", "3", "--experiment", "0")
    assert list(results["by_model"]) == models and results["by_model"]["MLP"]["worst_group"]["n"] == 3
    table = capsys.readouterr().out.partition("%")[2]
    assert all(f"\n{model} " in table for model in models) and "equal_opportunity" not in table
    assert report.compare([tmp_path / "out"]).splitlines()[1].startswith("DM + FairDD")


def test_the_fields_formats_hold_the_same_set(run, tmp_path):
    [first, _] = read(run).sets
    forms = {"dict.pt": {"data": [[first.images, first.labels]], "accs_all_exps": {}},
             "list.pt": [first.images, first.labels], "tuple.pt": (first.images, first.labels.int())}
    for name, content in forms.items():
        torch.save(content, tmp_path / name)
    found = [results_of(tmp_path / f"{name}.out", tmp_path / name, *ON_DIGITS, "--model", "MLP") for name in forms]
    assert found[0] == found[1] == found[2]


def test_results_lie_in_the_run_or_beside_the_file(tmp_path):
    main_DM.main([*SMALL, "--save_path", str(tmp_path / "run")])
    evaluate.main([str(tmp_path / "run")])
    evaluate.main([str(tmp_path / "run" / "synthetic.pt"), *ON_DIGITS, "--model", "MLP"])
    assert (tmp_path / "run" / "evaluated" / "results.json").exists()
    assert (tmp_path / "run" / "synthetic_evaluated" / "results.json").exists()


def test_all_real_images_teach_more_than_a_handful(tmp_path):
    flags = ["--data", "real", "--dataset", "Colored_Digits", "--skew", "0.1", "--im_size", "8", "--model", "MLP",
             "--num_eval", "1", "--dsa_strategy", "none"]
    assert results_of(tmp_path, *flags, "--epoch_eval_train", "15")["accuracy"]["mean"] > 50
    assert json.loads((tmp_path / "flags.json").read_text())["flags"]["trained_on"] == "all real images"


def test_an_evaluation_is_not_taken_for_a_run(run, tmp_path, capsys):
    results_of(tmp_path, run, "--num_eval", "1")
    assert "holds an evaluation" in refused(capsys, tmp_path, "--data", "real")


def test_what_is_there_is_kept_repeated_or_moved_aside(run, tmp_path, capsys):
    results_of(tmp_path, run, "--num_eval", "1")
    before = (tmp_path / "networks.jsonl").read_bytes()
    assert "num_eval = 1, this one has 2" in refused(capsys, run, "--out", tmp_path)
    results_of(tmp_path, run, "--num_eval", "1")
    assert (tmp_path / "networks.jsonl").read_bytes() == before
    results_of(tmp_path, run, "--overwrite")
    assert (tmp_path / "earlier-1" / "networks.jsonl").read_bytes() == before


def test_figures_of_other_images_are_not_taken_for_these(run, tmp_path, capsys):
    images, labels = vars(read(run).sets[0]).values()
    torch.save([images, labels], tmp_path / "set.pt")
    results_of(tmp_path / "out", tmp_path / "set.pt", *ON_DIGITS)
    torch.save([images + 1, labels], tmp_path / "set.pt")
    assert "images = " in refused(capsys, tmp_path / "set.pt", *ON_DIGITS, "--out", tmp_path / "out")


def test_a_stopped_evaluation_goes_on_to_the_same_results(run, tmp_path):
    whole = results_of(tmp_path, run)
    (tmp_path / "results.json").unlink()
    lines = (tmp_path / "networks.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "networks.jsonl").write_text("".join(lines[:1]) + lines[1][:40])       # cut off in the middle
    assert results_of(tmp_path, run) == whole
    assert (tmp_path / "networks.jsonl").read_text() == "".join(lines)


def flags_for(*argv):
    from networks import find_network, get_eval_pool

    return evaluate.parse(find_network, get_eval_pool, list(map(str, argv)))


def test_flags_come_from_the_command_then_the_run_then_the_entry(run):
    assert flags_for(run).seed == 5 and flags_for(run, "--seed", "1").seed == 1
    assert flags_for(run).model == ["ConvNetD1W32"] and flags_for(run).im_size == 8
    recipe = evaluation_recipe(flags_for(run, "--epoch_eval_train", "7", "--lr_net", "0.5"), "ConvNetBN")
    assert (recipe.epochs, recipe.lr, recipe.batch_size) == (7, 0.5, 256)
    file = flags_for(run / "synthetic.pt", "--dataset", "UTKface")
    assert (file.model, file.epoch_eval_train, file.num_eval, file.seed) == (["ConvNet"], 1000, 10, 0)


def test_another_split_than_the_runs_is_warned_of(run, capsys):
    flags_for(run, "--data_seed", "3")
    assert "--data_seed not as in the run" in capsys.readouterr().out
    flags_for(run, "--num_eval", "9")
    assert not capsys.readouterr().out


def test_real_images_have_epochs_of_their_own(run):
    assert flags_for(run, "--data", "real", "--dataset", "UTKface").epoch_eval_train == evaluate.REAL_EPOCHS
    assert flags_for(run, "--data", "real").epoch_eval_train == evaluate.REAL_EPOCHS_EMBEDDED
    assert flags_for(run, "--data", "real", "--epoch_eval_train", "4").epoch_eval_train == 4


def test_test_images_get_the_scale_the_file_states():
    test = get_dataset("Colored_Digits", im_size=8).test
    theirs = SavedSets(Path("x.pt"), [], (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), None)
    index = torch.arange(3)
    expected = replace(test, mean=theirs.mean, std=theirs.std).batch(index)
    assert torch.equal(on_scale_of(theirs, test).batch(index), expected)
    assert not torch.equal(test.batch(index), expected)
    silent = SavedSets(Path("x.pt"), [], None, None, None)
    assert torch.equal(on_scale_of(silent, test).batch(index), test.batch(index))


X, Y = torch.zeros(4, 3, 8, 8), torch.arange(4)
BAD = {
    "no labels": (X, "expected [images, labels]"),
    "nothing in it": ({"data": []}, "expected [images, labels]"),
    "another dict": ({"net": 1}, "found a dict with 'net'"),
    "three parts": ([X, Y, Y], "found a list of 3"),
    "flat images": ([X.flatten(1), Y], "torch.float32 (4, 192)"),
    "bytes": ([X.byte(), Y], "torch.uint8"),
    "soft labels": ([X, X[:, 0, 0]], "as many labels (M,)"),
    "fewer labels": ([X, Y[:3]], "torch.int64 (3,)"),
    "no image": ([X[:0], Y[:0]], "(0, 3, 8, 8)"),
    "no number": ([X / 0, Y], "infinite or no number"),
    "another size": ([torch.zeros(4, 3, 9, 9), Y], "expected images (3, 8, 8)"),
    "labels from 1": ([X, Y + 7], "expected labels from 0 to 9"),
    "negative labels": ([X, Y - 1], "found -1 to 2"),
    "other classes": ({"data": [[X, Y]], "class_names": ["cat", "dog"]}, "classes cat, dog"),
    "another scale": ({"data": [[X, Y]], "mean": [0.5], "std": [0.5]}, "each of 3 channels"),
    "an object": (torch.nn.Linear(1, 1), "tensors, lists and dicts"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_set_of_the_data_is_refused_in_words(tmp_path, capsys, name):
    content, words = BAD[name]
    torch.save(content, tmp_path / "bad.pt")
    assert words in refused(capsys, tmp_path / "bad.pt", *ON_DIGITS)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pt"]         # nothing was begun


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "a .pt file is needed"),
        (["nowhere"], "nowhere does not exist"),
        (["RUN/synthetic.pt"], "--dataset is needed"),
        (["RUN/log.txt", *ON_DIGITS], "not a whole .pt file"),
        (["/"], "holds no flags.json"),
        (["RUN", "--experiment", "2"], "holds 2 synthetic set(s)"),
        (["RUN", "--data", "real", "--experiment", "0"], "--experiment chooses"),
        (["RUN", "--model", "Nothing"], "unknown network"),
        (["RUN", "--model", "ConvNetD4"], "needs images of at least 16"),
        (["RUN", "--im_size", "16"], "expected images (3, 16, 16)"),
    ],
)
def test_a_users_mistake_ends_in_one_sentence(run, capsys, flags, words):
    assert words in refused(capsys, *(flag.replace("RUN", str(run)) for flag in flags))
    assert not (run / "evaluated").exists()
