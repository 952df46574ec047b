"""Exports hold the run's images, touch no other file, and docs/use.md trains a network on one that is as good."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from refusal import refusal
from torchvision.datasets import ImageFolder
from torchvision.transforms import ToTensor

import main_DM
from fairdd import evaluate, export
from fairdd.run import synset_io as saved

USE = (Path(__file__).parent.parent / "docs" / "use.md").read_text()
SMALL = ["--Iteration", "5", "--lr_img", "1", "--skew", "0.1", "--num_eval", "4", "--epoch_eval_train", "200",
         "--model", "MLP"]     # which, having no norms, notices images on a wrong scale: 20 points less


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with results/digits, the run of docs/use.md, small; whose images lie beyond black and white."""
    folder = tmp_path_factory.mktemp("place")
    main_DM.main([*SMALL, "--FairDD", "--save_path", str(folder / "results" / "digits")])
    return folder


@pytest.fixture
def run(place, monkeypatch):
    """The folder of the run, seen from where docs/use.md is read."""
    monkeypatch.chdir(place)
    return Path("results/digits")


def written(out, form, source, *flags):
    export.main([str(source), str(out), "--format", form, *flags])
    return out


def refused(capsys, *flags):
    return refusal(capsys, export.main, list(map(str, flags)))


def content(run):
    """What the run saved: images, labels, and how the images lie on the scale of pixels."""
    sets = saved.read(run)
    pixels = sets.sets[0].images * torch.tensor(sets.std).view(-1, 1, 1) + torch.tensor(sets.mean).view(-1, 1, 1)
    return sets.sets[0].images, sets.sets[0].labels, pixels


def test_the_lines_of_the_document_train_a_network_as_good_as_the_runs(run):
    [command] = re.findall(r"^python -m fairdd\.export (.*)$", USE, re.M)
    [lines] = re.findall(r"```python\n(.*?)```", USE, re.S)
    export.main(shlex.split(command))
    torch.manual_seed(0)
    names = {}
    exec(lines, names)
    of_run = json.loads((run / "results.json").read_text())["accuracy"]
    assert of_run["mean"] > 60                                      # far from chance: the comparison says something
    assert abs(names["accuracy"] - of_run["mean"]) < 4 * max(of_run["std"], 1)


def test_a_folder_is_read_in_the_order_of_labels_with_every_pixel_rounded(run, tmp_path):
    _, labels, pixels = content(run)
    folder = ImageFolder(written(tmp_path / "out", "folder", run), ToTensor())
    assert [label for _, label in folder] == labels.tolist()
    images = torch.stack([image for image, _ in folder])
    assert (images - pixels.clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-6
    assert (pixels < 0).any() and (pixels > 1).any()                # so something was clamped
    rows = (tmp_path / "out" / "labels.csv").read_text().splitlines()
    assert rows[0] == "path,label,class" and rows[-1] == "9_nine/00099.png,9,nine" and len(rows) == 101
    info = json.loads((tmp_path / "out" / "info.json").read_text())
    assert info["flags"]["align"] == "fairdd" and info["class_names"][9] == "nine" and len(info["mean"]) == 3


def test_npz_and_pt_lose_nothing(run, tmp_path):
    images, labels, pixels = content(run)
    arrays = np.load(written(tmp_path / "set.npz", "npz", run))
    assert np.allclose(arrays["images"], pixels.permute(0, 2, 3, 1), atol=1e-6) and arrays["class_names"][9] == "nine"
    assert np.allclose((arrays["images"] - arrays["mean"]) / arrays["std"], images.permute(0, 2, 3, 1), atol=1e-5)
    plain = torch.load(written(tmp_path / "set.pt", "pt", run), weights_only=True)
    assert torch.equal(plain[0], images) and torch.equal(plain[1], labels)
    assert arrays["labels"].tolist() == labels.tolist()


def test_an_exported_pt_is_what_evaluate_reads(run, tmp_path):
    plain = saved.read(written(tmp_path / "set.pt", "pt", run))
    assert torch.equal(plain.sets[0].images, content(run)[0]) and plain.mean is None


def test_folders_of_many_classes_with_odd_names_stay_in_order():
    names = [f"a/b {chr(ord('z') - number)}" for number in range(11)]
    folders = export.class_folders(names)
    assert folders == sorted(folders) and folders[0] == "00_a_b_z"


def test_one_channel_makes_gray_pictures(tmp_path):
    info = {"mean": (0.5,), "std": (0.5,), "class_names": ("a",)}
    export.write_folder(tmp_path, torch.zeros(1, 1, 4, 4), torch.tensor([0]), info)
    with Image.open(tmp_path / "0_a" / "00000.png") as picture:
        assert np.asarray(picture).tolist() == [[128] * 4] * 4


@pytest.mark.parametrize("form", ["folder", "npz", "pt"])
def test_what_exists_is_replaced_only_when_asked(run, tmp_path, capsys, form):
    out = written(tmp_path / "out", form, run)
    assert "--overwrite" in refused(capsys, run, out, "--format", form)
    written(out, form, run, "--overwrite")
    assert "is the set to export" in refused(capsys, run, run / "synthetic.pt", "--format", form, "--overwrite")


def test_an_export_replaces_its_own_images_and_touches_no_other(run, tmp_path, capsys):
    out = written(tmp_path / "out", "folder", run)
    (out / "notes.txt").write_text("mine")
    Path(out / "9_nine" / "mine.png").write_text("mine")
    assert "mine.png was not written by an export" in refused(capsys, run, out, "--format", "folder", "--overwrite")
    assert len(list(out.glob("*/*.png"))) == 101
    (out / "9_nine" / "mine.png").unlink()
    (out / "0_zero").rename(out / "00_other")                       # as an export of other classes would have named it
    (out / "labels.csv").write_text((out / "labels.csv").read_text().replace("0_zero", "00_other"))
    written(out, "folder", run, "--overwrite")
    assert (out / "notes.txt").read_text() == "mine" and len(ImageFolder(out).classes) == 10


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["results", "out", "--format", "pt"], "results/synthetic.pt does not exist"),
        (["results/digits", "out", "--format", "jpg"], "choose from"),
        (["results/digits", "out", "--format", "pt", "--experiment", "1"], "holds 1 synthetic set"),
        (["results/digits", "results", "--format", "pt"], "is a folder"),
        (["results/digits", "results/digits/log.txt/out", "--format", "pt"], "cannot be written"),
    ],
)
def test_a_users_mistake_ends_in_one_sentence(run, capsys, flags, words):
    assert words in refused(capsys, *flags)


def test_a_set_that_does_not_say_its_scale_cannot_be_exported(run, tmp_path, capsys):
    plain = written(tmp_path / "set.pt", "pt", run)
    assert "does not say its mean, std, class_names" in refused(capsys, plain, tmp_path / "out", "--format", "folder")


def test_help_says_what_each_format_holds(capsys):
    for main in (export.main, evaluate.main):
        with pytest.raises(SystemExit) as stop:
            main(["--help"])
        assert not stop.value.code and len(capsys.readouterr().out) > 500
