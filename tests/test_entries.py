"""Both entries end to end on two iterations: what a run leaves, what repeats, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from refusal import refusal

import main_DC
import main_DM
from fairdd.datasets.base import denormalize
from fairdd.report.__main__ import __main__ as report
from utils import get_dataset

QUICK = ["--num_eval", "2", "--epoch_eval_train", "1", "--ipc", "2", "--batch_real", "20", "--model", "ConvNetD1W32",
         "--im_size", "8"]
ENTRIES = {"DM": main_DM.main, "DC": main_DC.main, "DSA": main_DC.main}


def run(method, folder, *flags):
    """Run an entry in this process. -> its results"""
    ENTRIES[method](["--method", method, *QUICK, "--Iteration", "2", "--save_path", str(folder), *flags])
    return json.loads((folder / "results.json").read_text())


def synthetic(folder):
    return torch.load(folder / "synthetic.pt", weights_only=True)


def refused(capsys, method, folder, *flags):
    return refusal(capsys, run, method, folder, *flags)


@pytest.mark.parametrize("align", ["vanilla", "fairdd", "barycenter"])
@pytest.mark.parametrize("method", ENTRIES)
def test_a_run_leaves_everything_a_reader_needs(tmp_path, method, align):
    folder = tmp_path / "made" / "with" / "parents"
    results = run(method, folder, "--align", align, "--eval_every", "2")
    for name in ("accuracy", "DEO_M", "DEO_A", "worst_cell", "worst_group", "demographic_parity"):
        assert results[name]["n"] == 2 and 0 <= results[name]["mean"] <= 100 and results[name]["std"] >= 0
    assert np.shape(results["table"]) == np.shape(results["table_std"]) == (10, 10)
    assert len(results["class_names"]) == len(results["group_names"]) == 10
    evaluations = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
    assert [(e["iteration"], e["model"], len(e["networks"])) for e in evaluations] == [
        (0, "ConvNetD1W32", 2), (2, "ConvNetD1W32", 2)]
    flags = json.loads((folder / "flags.json").read_text())
    assert flags["flags"]["align"] == align and flags["versions"]["torch"] == torch.__version__
    assert "iteration 2 | ConvNetD1W32 x 2 | accuracy" in (folder / "log.txt").read_text()
    [(images, labels)] = synthetic(folder)["data"]
    assert images.shape == (20, 3, 8, 8) and labels.tolist() == sorted(2 * list(range(10)))
    assert len(list(folder.glob("*.png"))) == 2


def test_the_picture_is_the_saved_set_one_row_per_class(tmp_path):
    run("DM", tmp_path)
    saved = synthetic(tmp_path)
    images = (denormalize(saved["data"][0][0], saved["mean"], saved["std"]) * 255 + 0.5).floor().byte().numpy()
    with Image.open(tmp_path / "experiment0_iteration00002.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (10 * 66 + 2, 2 * 66 + 2, 3)                 # 8 pixels, 8 times as large, a border of 2
    second_three = pixels[2 + 66 * 3 : 66 * 4, 2 + 66 : 66 * 2]
    assert (second_three[::8, ::8] == images[3 * 2 + 1].transpose(1, 2, 0)).all()


@pytest.mark.parametrize("method", ENTRIES)
def test_the_same_command_gives_the_same_bytes_and_looking_changes_nothing(tmp_path, method):
    run(method, tmp_path / "a")
    torch.rand(7)                                   # somebody else draws from the global generator
    run(method, tmp_path / "b", "--eval_every", "1")
    assert (tmp_path / "a" / "synthetic.pt").read_bytes() == (tmp_path / "b" / "synthetic.pt").read_bytes()
    run(method, tmp_path / "c", "--seed", "1")
    assert (tmp_path / "a" / "synthetic.pt").read_bytes() != (tmp_path / "c" / "synthetic.pt").read_bytes()


@pytest.mark.parametrize("method", ["DM", "DC"])
def test_alignments_give_different_sets(tmp_path, method):
    sets = []
    for align in ("vanilla", "fairdd", "barycenter"):
        run(method, tmp_path / align, "--align", align)
        sets.append(synthetic(tmp_path / align)["data"][0][0])
    assert not any(torch.equal(a, b) for a, b in zip(sets, sets[1:] + sets[:1], strict=True))


def test_iteration_zero_evaluates_real_images_of_the_training_set(tmp_path):
    run("DM", tmp_path / "start", "--Iteration", "0", "--init", "balanced")
    saved = synthetic(tmp_path / "start")
    pixels = (denormalize(saved["data"][0][0], saved["mean"], saved["std"]) * 255).round().byte()
    train = get_dataset("Colored_Digits", im_size=8).train
    assert all((train.images == image).flatten(1).all(1).any() for image in pixels)


def test_experiments_are_different_sets_and_their_networks_are_counted_together(tmp_path):
    results = run("DM", tmp_path, "--num_exp", "2")
    first, second = synthetic(tmp_path)["data"]
    assert results["accuracy"]["n"] == 4 and not torch.equal(first[0], second[0])


def test_several_architectures_each_have_their_figures(tmp_path):
    results = run("DM", tmp_path, "--eval_mode", "P", "--Iteration", "0", "--num_eval", "1")
    assert list(results["by_model"]) == ["ConvNetNP", "ConvNetMP", "ConvNetAP"] and results["model"] == "ConvNetNP"


def test_batch_norm_networks_distil_with_both_methods_and_are_evaluated_without_it(tmp_path):
    for method in ("DM", "DC"):
        results = run(method, tmp_path / method, "--model", "ConvNetD1W32BN", "--FairDD")
        assert results["model"] == "ConvNetD1W32"
        assert synthetic(tmp_path / method)["data"][0][0].isfinite().all()


def test_dc_trains_batch_norm_evaluation_networks_with_its_own_augmentation(tmp_path):
    assert run("DC", tmp_path, "--model", "ConvNetBN", "--eval_mode", "SS", "--Iteration", "0")["model"] == "ConvNetBN"


def test_a_finished_run_is_not_run_again_and_another_is_not_written_over_it(tmp_path, capsys):
    run("DM", tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "log.txt"}
    run("DM", tmp_path)
    assert "seed = 0, this one has 1" in refused(capsys, "DM", tmp_path, "--seed", "1")
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "log.txt"}


def test_restart_moves_the_earlier_run_aside_and_loses_nothing(tmp_path):
    run("DM", tmp_path)
    old = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    run("DM", tmp_path, "--seed", "1", "--restart")
    moved = {path.name: path.read_bytes() for path in (tmp_path / "earlier-1").iterdir()}
    assert moved | {".lock": old[".lock"]} == old
    assert json.loads((tmp_path / "flags.json").read_text())["flags"]["seed"] == 1


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_what_was_evaluated(tmp_path, capsys):
    words = refused(capsys, "DM", tmp_path, "--lr_img", "1e38", "--eval_every", "100", "--dsa_strategy", "none",
                    "--Iteration", "9")
    assert "at iteration" in words and "--lr_img" in words
    assert synthetic(tmp_path)["data"][0][0].isfinite().all() and not (tmp_path / "results.json").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--ipc", "2000"], "class 'zero'"),
        (["--dataset", "Nothing"], "Colored_Digits"),
        (["--model", "ConvNetD4", "--im_size", "8"], "ConvNet of depth 4 needs images of at least 16"),
        (["--dataset", "UTKface", "--data_path", "no/such/folder"], "no/such/folder"),
        (["--dataset", "Colored_Digits", "--target_attr", "Smiling"], "--target_attr"),
    ],
)
def test_a_users_mistake_ends_in_one_sentence(tmp_path, capsys, flags, words):
    assert words in refused(capsys, "DM", tmp_path, *flags)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refused(capsys, "DM", tmp_path / "file" / "run")


def test_the_report_sets_runs_side_by_side_and_names_their_pictures(tmp_path):
    run("DM", tmp_path / "random", "--Iteration", "0")
    run("DM", tmp_path / "fairdd", "--FairDD")
    text = report.compare([tmp_path / "random", tmp_path / "fairdd"])
    assert "random real images" in text and "DM + FairDD" in text and "±" in text
    pictures = [line.strip() for line in text.splitlines() if line.endswith(".png")]
    assert len(pictures) == 2 and all(Path(name).exists() for name in pictures)


@pytest.mark.parametrize("method", ["DM", "DC"])
def test_help_names_every_flag_with_its_meaning(method, capsys):
    with pytest.raises(SystemExit) as stop:
        ENTRIES[method](["--help"])
    text = capsys.readouterr().out
    assert not stop.value.code and "how it is matched" in text and "--protected_attr" in text
