"""Unfinished, incomplete and damaged runs are refused by name; the command of a run is complete."""

import json

import pytest
from test_report import network, refused, write_evaluation, write_run

from fairdd.report.load_runs import read_run


def set_non_default(folder, *names):
    """Record in a run's flags.json that only these flags differ from their defaults."""
    content = json.loads((folder / "flags.json").read_text())
    (folder / "flags.json").write_text(json.dumps(content | {"non_default": list(names)}))


def test_the_command_of_a_run_has_the_non_default_flags_that_change_results(tmp_path):
    folder = write_run(tmp_path / "run", [1], entry="main_X.py", method="X", lr_img=0.5, group_balance=True, ipc=10,
                       skip_bad_images=False, labels=None, device="cpu", save_path="results/x", data_path="/my data",
                       factor=2, save_every=3, tensorboard=True, restart=True)
    set_non_default(folder, "dataset", "lr_img", "group_balance", "skip_bad_images", "labels", "device", "save_path",
              "save_every", "tensorboard", "restart")
    assert read_run(folder).command() == ("python main_X.py --method X --dataset Toy --ipc 10 --seed 0 --lr_img 0.5 "
                                          "--group_balance --data_path '/my data'")


def test_the_command_of_an_evaluation_names_its_source_and_no_recorded_field(tmp_path):
    folder = write_evaluation(tmp_path / "run", [1], trained_on="DM", images="digest", source="results/my run",
                              model=["ConvNet", "VGG11"], data_path="data", seed=3, experiment=0)
    set_non_default(folder, "source", "model", "experiment")
    assert read_run(folder).command() == ("python -m fairdd.evaluate 'results/my run' --dataset Toy "
                                          "--model ConvNet VGG11 --seed 3 --experiment 0")


def test_a_folder_of_version_0_1_is_read_with_todays_names(tmp_path):
    folder = write_run(tmp_path / "run", [1], align="barycentre", epoch_eval_augmented=300, epoch_eval_train=300,
                       outer_loop=None, inner_loop=None)
    content = json.loads((folder / "flags.json").read_text())
    (folder / "flags.json").write_text(json.dumps({"flags": content["flags"], "versions": {}}))
    lines = (folder / "evaluations.jsonl").read_text().replace("worst_cell_accuracy", "worst_cell")
    (folder / "evaluations.jsonl").write_text(lines)
    (folder / "data.json").write_text('{"train": [[1, 2], [3, 4]], "test": [[1, 1], [1, 1]]}')
    run = read_run(folder)
    assert run.flags["align"] == "barycenter" and "worst_cell_accuracy" in run.networks
    assert run.counts["train"].tolist() == [[1, 2], [3, 4]]
    assert run.command().startswith("python main_DM.py ") and "--align barycenter" in run.command()
    assert "epoch_eval_augmented" not in run.command() and "FairDD" not in run.command()


@pytest.mark.parametrize(("augmented", "overrides"), [
    (1000, {"strategy": "crop_noise", "epochs": 1000}), (300, {"strategy": "crop_noise"})])
def test_the_command_of_a_dc_run_of_version_0_1_has_flags_that_its_entry_knows(tmp_path, augmented, overrides):
    folder = write_run(tmp_path / "run", [1], method="DC", dsa_strategy="none", epoch_eval_augmented=augmented,
                       epoch_eval_train=300, outer_loop=10, inner_loop=50, warmup_epochs=0)
    content = json.loads((folder / "flags.json").read_text())
    (folder / "flags.json").write_text(json.dumps({"flags": content["flags"], "versions": {}}))
    run = read_run(folder)
    assert run.command().startswith("python main_DC.py --method DC ") and "warmup_epochs" not in run.command()
    assert ("--epoch_eval_train 300" in run.command()) == (augmented == 300)    # given, it holds for every network
    assert run.flags["eval_overrides"] == {"ConvNetBN": overrides}


def test_an_unfinished_run_is_named(tmp_path, capsys):
    folders = [write_run(tmp_path / name, [1]) for name in "ab"]
    (folders[1] / "results.json").unlink()
    assert f"{folders[1]} holds no finished run" in refused(capsys, *folders, "--out", tmp_path / "out")
    assert f"{folders[1]} holds no finished run" in refused(capsys, *folders)
    assert "nowhere holds no finished run" in refused(capsys, "nowhere", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("experiments", "progress"), [
    (1, "unfinished, iteration 5 of 100:"), (3, "unfinished, iteration 5 of 100, synthetic set 2 of 3:")])
def test_the_progress_of_an_unfinished_run_is_named(tmp_path, capsys, experiments, progress):
    folder = write_run(tmp_path / "run", *[[1]] * min(experiments, 2))
    content = json.loads((folder / "flags.json").read_text())
    content["flags"] |= {"Iteration": 100, "num_exp": experiments}
    (folder / "flags.json").write_text(json.dumps(content))
    (folder / "results.json").unlink()
    for line_being_written in ("", '{"experiment": 0, "iterat'):
        with open(folder / "evaluations.jsonl", "a") as file:
            file.write(line_being_written)
        assert progress in refused(capsys, folder, "--out", tmp_path / "out")
    (folder / "evaluations.jsonl").unlink()
    assert "it is unfinished: re-run its command" in refused(capsys, folder, "--out", tmp_path / "out")


@pytest.mark.parametrize("name", ["flags.json", "evaluations.jsonl"])
def test_a_missing_file_is_named(tmp_path, capsys, name):
    folder = write_run(tmp_path / "run", [1])
    (folder / name).unlink()
    assert f"{folder / name} is missing" in refused(capsys, folder, "--out", tmp_path / "out")


def test_a_network_that_was_not_evaluated_is_named(tmp_path, capsys):
    folder = write_run(tmp_path / "run", [1, 2], num_exp=2)
    assert "lacks network 0 of ConvNet, experiment 1, iteration 5" in refused(capsys, folder, "--out", tmp_path / "out")


def evaluation_line(*networks):
    return json.dumps({"experiment": 0, "iteration": 5, "model": "ConvNet", "networks": networks}).encode()


DAMAGE = {
    "flags.json": [b"", b"[]", b'{"flags": {}, "versions": {}}', b"\xff", b"9" * 5000],
    "results.json": [b"{", b'{"model": "ConvNet", "class_names": 3, "group_names": []}', b"[" * 100_000],
    "evaluations.jsonl": [
        b"", b"null\n", evaluation_line(1), evaluation_line(network(10)),
        evaluation_line({"accuracy": 1, "table": [[1, 1], [1, 1]]}, network(10)),
        evaluation_line(network(10) | {"DEO_A": "many"}, network(10)),
        evaluation_line(network(10) | {"table": [[10, 10]]}, network(10)),
    ],
    "dataset.json": [b"{}", b'{"train": [[1, 2]], "test": [[1, 2]]}',
                     b'{"train": [[1, 2], [3, 4]], "test": [[1, 2], [3, null]]}'],
    "projection.json": [b"{}", b'{"real": {"points": [[1, 2]], "labels": [0], "groups": [0]}}'],
    "time.json": [b"{}"],
    "experiment0_iteration00005.png": [b"", b"\x89PNG\r\n\x1a\n"],
}


@pytest.mark.parametrize(("name", "content"), [(name, content) for name, some in DAMAGE.items() for content in some])
def test_a_damaged_file_is_named(tmp_path, capsys, name, content):
    folder = write_run(tmp_path / "run", [10, 20])
    (folder / name).write_bytes(content)
    assert str(folder / name) in refused(capsys, folder, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
