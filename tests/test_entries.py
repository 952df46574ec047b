"""Both entries end to end on two iterations: the files of a run, repeatability, refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from refusal import refusal

import fairdd.run.loop
import main_DC
import main_DM
from fairdd.datasets.base import denormalize
from fairdd.flags import make_parser
from fairdd.report.__main__ import main as report
from networks import network_factory
from utils import get_dataset

QUICK = ["--num_eval", "2", "--epoch_eval_train", "1", "--ipc", "2", "--batch_real", "20", "--model", "ConvNetD1W32",
         "--im_size", "8"]
ENTRIES = {"DM": main_DM.main, "DC": main_DC.main, "DSA": main_DC.main}


def run(method, folder, *flags):
    """Run an entry in this process; return its results."""
    ENTRIES[method](["--method", method, *QUICK, "--Iteration", "2", "--save_path", str(folder), *flags])
    return read_json(folder / "results.json")


def read_json(path):
    return json.loads(path.read_text())


def synthetic(folder):
    return torch.load(folder / "synthetic.pt", weights_only=True)


def refused(capsys, method, folder, *flags):
    return refusal(capsys, run, method, folder, *flags)


@pytest.mark.parametrize("align", ["vanilla", "fairdd", "barycenter"])
@pytest.mark.parametrize("method", ENTRIES)
def test_a_run_writes_every_file(tmp_path, method, align):
    folder = tmp_path / "created" / "with" / "parents"
    results = run(method, folder, "--align", align, "--eval_every", "2")
    for name in ("accuracy", "DEO_M", "DEO_A", "worst_cell_accuracy", "worst_group_accuracy",
                 "demographic_parity_difference"):
        assert results[name]["n"] == 2 and 0 <= results[name]["mean"] <= 100 and results[name]["std"] >= 0
    assert np.shape(results["table"]) == np.shape(results["table_std"]) == (10, 10)
    assert len(results["class_names"]) == len(results["group_names"]) == 10
    evaluations, networks = ([json.loads(line) for line in (folder / name).read_text().splitlines()]
                             for name in ("evaluations.jsonl", "metrics_per_network.jsonl"))
    assert [(e["iteration"], e["model"], len(e["networks"])) for e in evaluations] == [
        (0, "ConvNetD1W32", 2), (2, "ConvNetD1W32", 2)]
    assert [line["metrics"] for line in networks] == [metrics for e in evaluations for metrics in e["networks"]]
    record = read_json(folder / "flags.json")
    assert record["flags"]["align"] == align and record["versions"]["torch"] == torch.__version__
    assert record["entry"] == ("main_DM.py" if method == "DM" else "main_DC.py")
    assert set(record["non_default"]) >= {"method", "ipc", "model", "eval_every"}
    train = get_dataset("Colored_Digits", im_size=8).train
    assert read_json(folder / "dataset.json")["train"] == train.counts().tolist()
    assert read_json(folder / "projection.json").keys() >= {"real", "start", "end"}
    assert read_json(folder / "time.json")["minutes"] > 0 and not list(folder.glob("checkpoint*"))
    assert "iteration 2 | ConvNetD1W32 x 2 | accuracy" in (folder / "log.txt").read_text()
    [(images, labels)] = synthetic(folder)["data"]
    assert images.shape == (20, 3, 8, 8) and labels.tolist() == sorted(2 * list(range(10)))
    assert len(list(folder.glob("*.png"))) == 2


def test_the_picture_shows_the_saved_set_one_row_per_class(tmp_path):
    run("DM", tmp_path)
    saved = synthetic(tmp_path)
    images = (denormalize(saved["data"][0][0], saved["mean"], saved["std"]) * 255 + 0.5).floor().byte().numpy()
    with Image.open(tmp_path / "experiment0_iteration00002.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (10 * 66 + 2, 2 * 66 + 2, 3)                 # 8 pixels, 8 times as large, a border of 2
    second_three = pixels[2 + 66 * 3 : 66 * 4, 2 + 66 : 66 * 2]
    assert (second_three[::8, ::8] == images[3 * 2 + 1].transpose(1, 2, 0)).all()


@pytest.mark.parametrize("method", ENTRIES)
def test_the_same_command_gives_the_same_bytes_and_evaluation_changes_nothing(tmp_path, method):
    run(method, tmp_path / "a")
    torch.rand(7)                                   # another draw from the global generator
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


def test_iteration_zero_evaluates_training_images_of_the_right_class(tmp_path):
    run("DM", tmp_path / "start", "--Iteration", "0", "--init", "balanced")
    saved = synthetic(tmp_path / "start")
    images, labels = saved["data"][0]
    train = get_dataset("Colored_Digits", im_size=8).train
    pixels = (denormalize(images, saved["mean"], saved["std"]) * 255).round().byte()
    for image, label in zip(pixels, labels, strict=True):
        assert label in train.labels[(train.images == image).flatten(1).all(1)]


def test_experiments_give_different_sets_and_their_networks_are_summarized_together(tmp_path):
    results = run("DM", tmp_path, "--num_exp", "2")
    first, second = synthetic(tmp_path)["data"]
    assert results["accuracy"]["n"] == 4 and not torch.equal(first[0], second[0])


def test_every_architecture_has_its_metrics(tmp_path):
    results = run("DM", tmp_path, "--eval_mode", "P", "--Iteration", "0", "--num_eval", "1")
    assert list(results["by_model"]) == ["ConvNetNP", "ConvNetMP", "ConvNetAP"] and results["model"] == "ConvNetNP"


def test_batch_norm_networks_distill_with_both_methods_and_are_evaluated_without_it(tmp_path):
    for method in ("DM", "DC"):
        results = run(method, tmp_path / method, "--model", "ConvNetD1W32BN", "--FairDD")
        assert results["model"] == "ConvNetD1W32"
        assert synthetic(tmp_path / method)["data"][0][0].isfinite().all()


@pytest.mark.parametrize(("method", "strategies"), [("DM", "color_flip color_flip"), ("DC", "none crop_noise"),
                                                    ("DSA", "color_flip color_flip")])
def test_only_dc_trains_batch_norm_networks_with_an_augmentation_of_its_own(tmp_path, monkeypatch, method, strategies):
    configs = []

    def record_config(make_net, data, test, config, keys, title):
        configs.append(config)
        return iter([{"accuracy": 1.0, "DEO_M": 1.0, "DEO_A": 1.0, "table": [[1.0]]} for _ in keys])

    monkeypatch.setattr(fairdd.run.loop, "train_and_test", record_config)
    for model in ("ConvNet", "ConvNetBN"):
        run(method, tmp_path / model, "--model", model, "--eval_mode", "SS", "--Iteration", "0",
            *["--dsa_strategy", "color_flip"] * (method != "DC"))
    assert [config.strategy for config in configs] == strategies.split()


def test_a_finished_run_is_not_repeated_and_another_does_not_overwrite_it(tmp_path, capsys):
    run("DM", tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name not in ("log.txt", ".owner")}
    run("DM", tmp_path)
    assert "this run is finished; nothing left to do" in capsys.readouterr().out
    message = refused(capsys, "DM", tmp_path, "--seed", "1")
    assert "holds a run with seed = 0, but seed = 1 is requested" in message and "--restart" in message
    assert before == {name: (tmp_path / name).read_bytes() for name in before}


def test_runtime_flags_do_not_make_it_another_run(tmp_path, capsys):
    run("DM", tmp_path)
    run("DM", tmp_path, "--quiet", "--save_every", "3", "--data_path", "elsewhere", "--device", "cpu")
    assert "this run is finished" in capsys.readouterr().out


def test_restart_moves_all_that_came_from_the_earlier_run_aside(tmp_path):
    run("DM", tmp_path)
    made = {"evaluated", "evaluated-real", "evaluated_modelMLP_ab12cd", "report", "tensorboard", "synthetic_evaluated"}
    for folder in made:
        (tmp_path / folder / "inside").mkdir(parents=True)
        (tmp_path / folder / "results.json").write_text("of the earlier run")
    run("DM", tmp_path / "nested")                  # a run of its own
    old = contents(tmp_path)
    nested = {name for name in old if name.startswith("nested/")}
    run("DM", tmp_path, "--seed", "1", "--restart")
    moved, kept = contents(tmp_path / "earlier-1"), contents(tmp_path)
    assert moved == {name: content for name, content in old.items() if name not in {".lock", ".owner", *nested}}
    assert {name: kept[name] for name in nested} == {name: old[name] for name in nested}
    assert not made & {path.name for path in tmp_path.iterdir()}
    assert read_json(tmp_path / "flags.json")["flags"]["seed"] == 1
    run("DM", tmp_path, "--seed", "2", "--restart")
    assert read_json(tmp_path / "earlier-2" / "flags.json")["flags"]["seed"] == 1
    assert contents(tmp_path / "earlier-1") == moved


def contents(folder):
    """Return the bytes of every file below a folder, by relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_what_was_evaluated(tmp_path, capsys):
    message = refused(capsys, "DM", tmp_path, "--lr_img", "1e38", "--eval_every", "100", "--dsa_strategy", "none",
                      "--Iteration", "9")
    assert "at iteration" in message and "--lr_img" in message
    assert synthetic(tmp_path)["data"][0][0].isfinite().all() and not (tmp_path / "results.json").exists()


def test_pixels_that_are_not_finite_after_the_last_iteration_are_refused(tmp_path, capsys):
    message = refused(capsys, "DM", tmp_path, "--lr_img", "3e38", "--Iteration", "1", "--FairDD")
    assert "largest pixel is " in message and "at iteration 1" in message and not (tmp_path / "results.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--ipc", "2000"], "class 'zero'"),
        (["--dataset", "Nothing"], "Colored_Digits"),
        (["--model", "ConvNetD4", "--im_size", "8"], "ConvNet of depth 4 needs images of at least 16"),
        (["--dataset", "UTKface", "--data_path", "no/such/folder"], "no/such/folder"),
        (["--dataset", "Colored_Digits", "--target_attr", "Smiling"], "--target_attr"),
    ],
)
def test_a_user_error_is_one_line(tmp_path, capsys, flags, message):
    assert message in refused(capsys, "DM", tmp_path, *flags)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refused(capsys, "DM", tmp_path / "file" / "run")


def test_skew_zero_runs_with_no_training_image_in_its_own_color(tmp_path):
    run("DM", tmp_path, "--skew", "0", "--Iteration", "0")
    assert np.trace(read_json(tmp_path / "dataset.json")["train"]) == 0


def test_metrics_of_a_run_without_some_groups_cover_the_others(tmp_path, capsys):
    results = run("DM", tmp_path, "--FairDD", "--train_without", "red,cyan", "--test_without", "blue")
    table, counts = np.array(results["table"], float), np.array(read_json(tmp_path / "dataset.json")["train"])
    assert np.isnan(table[6]).all() and not np.isnan(np.delete(table, 6, 0)).any()
    assert (counts.sum(1) == 0).nonzero()[0].tolist() == [0, 5]
    assert results["DEO_M"]["mean"] >= 0 and "covers 90 of 100 cells" in capsys.readouterr().out


@pytest.mark.parametrize("flag", [("minorities", "unequal"), ("train_without", "red"), ("test_without", "red")])
def test_a_run_of_an_older_version_has_every_group_in_equal_shares(tmp_path, capsys, flag):
    name, value = flag
    run("DM", tmp_path)
    record = read_json(tmp_path / "flags.json")
    del record["flags"][name]
    (tmp_path / "flags.json").write_text(json.dumps(record))
    capsys.readouterr()
    run("DM", tmp_path)
    assert "this run is finished" in capsys.readouterr().out
    assert f"{name} = {value} is requested" in refused(capsys, "DM", tmp_path, f"--{name}", value)


def test_quiet_prints_neither_data_nor_settings_and_logs_both(tmp_path, capsys):
    run("DM", tmp_path / "loud")
    loud = capsys.readouterr().out
    run("DM", tmp_path / "quiet", "--quiet")
    quiet = capsys.readouterr().out
    for text in ("flags: method DM", " training images  red", "smallest cell"):
        assert text in loud and text not in quiet and text in (tmp_path / "quiet" / "log.txt").read_text()
    assert "accuracy" in quiet


def test_the_report_compares_runs_and_names_their_pictures(tmp_path, capsys):
    run("DM", tmp_path / "random", "--Iteration", "0")
    run("DM", tmp_path / "fairdd", "--FairDD")
    capsys.readouterr()
    report([str(tmp_path / "random"), str(tmp_path / "fairdd")])
    text = capsys.readouterr().out
    assert "random real images" in text and "DM + FairDD" in text and "±" in text
    pictures = [line.strip() for line in text.splitlines() if line.endswith(".png")]
    assert len(pictures) == 2 and all(Path(name).exists() for name in pictures)


@pytest.mark.parametrize("method", ["DM", "DC"])
def test_help_lists_every_flag_with_a_description(method, capsys):
    with pytest.raises(SystemExit) as stop:
        ENTRIES[method](["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert not stop.value.code
    methods = [main_DM.METHOD] if method == "DM" else [main_DC.DC, main_DC.DSA]
    parser = make_parser(methods, network_factory, ["S", "SS"])
    for action in parser._actions:
        assert action.help and len(action.help.split()) >= 2, action.dest
        assert " ".join((action.help % vars(action)).split())[:40] in text and action.option_strings[-1] in text
