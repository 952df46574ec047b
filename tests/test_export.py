"""An export holds the run's images, touches no other file, and trains a network as good as the run's (docs/use.md)."""

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
from fairdd.run.synset_io import read_saved_sets

USE = (Path(__file__).parent.parent / "docs" / "use.md").read_text()
SMALL = ["--Iteration", "5", "--lr_img", "1", "--skew", "0.1", "--num_eval", "4", "--epoch_eval_train", "200",
         "--model", "MLP"]     # it has no norm layers, so images on a wrong scale cost it 20 points of accuracy


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Make a folder with results/digits, a small version of the run of docs/use.md; its pixels exceed [0, 1]."""
    folder = tmp_path_factory.mktemp("workspace")
    main_DM.main([*SMALL, "--FairDD", "--save_path", str(folder / "results" / "digits")])
    return folder


@pytest.fixture
def run(workspace, monkeypatch):
    """Change to the workspace and return the folder of the run, relative to it as in docs/use.md."""
    monkeypatch.chdir(workspace)
    return Path("results/digits")


def export_set(out, form, source, *flags):
    export.main([str(source), str(out), "--format", form, *flags])
    return out


def export_error(capsys, *flags):
    return refusal(capsys, export.main, list(map(str, flags)))


def load_set(run):
    """Return the run's images, its labels, and the images on the pixel scale."""
    sets = read_saved_sets(run)
    pixels = sets.sets[0].images * torch.tensor(sets.std).view(-1, 1, 1) + torch.tensor(sets.mean).view(-1, 1, 1)
    return sets.sets[0].images, sets.sets[0].labels, pixels


def test_the_example_in_use_md_reaches_the_accuracy_of_the_run(run):
    [command] = re.findall(r"^python -m fairdd\.export (.*)$", USE, re.M)
    [lines] = re.findall(r"```python\n(.*?)```", USE, re.S)
    export.main(shlex.split(command))
    torch.manual_seed(0)
    namespace = {}
    exec(lines, namespace)
    expected = json.loads((run / "results.json").read_text())["accuracy"]
    assert expected["mean"] > 60                                    # far from chance, or any network would pass
    assert abs(namespace["accuracy"] - expected["mean"]) < 4 * max(expected["std"], 1)


def test_image_folder_reads_an_exported_folder_in_order_with_pixels_rounded(run, tmp_path):
    _, labels, pixels = load_set(run)
    folder = ImageFolder(export_set(tmp_path / "out", "folder", run), ToTensor())
    assert [label for _, label in folder] == labels.tolist()
    images = torch.stack([image for image, _ in folder])
    assert (images - pixels.clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-6
    assert (pixels < 0).any() and (pixels > 1).any()                # so some values were clamped
    rows = (tmp_path / "out" / "labels.csv").read_text().splitlines()
    assert rows[0] == "path,label,class" and rows[-1] == "9_nine/00099.png,9,nine" and len(rows) == 101
    info = json.loads((tmp_path / "out" / "info.json").read_text())
    assert info["flags"]["align"] == "fairdd" and info["class_names"][9] == "nine" and len(info["mean"]) == 3


def test_npz_and_pt_exports_are_exact(run, tmp_path):
    images, labels, pixels = load_set(run)
    arrays = np.load(export_set(tmp_path / "set.npz", "npz", run))
    assert np.allclose(arrays["images"], pixels.permute(0, 2, 3, 1), atol=1e-6) and arrays["class_names"][9] == "nine"
    assert np.allclose((arrays["images"] - arrays["mean"]) / arrays["std"], images.permute(0, 2, 3, 1), atol=1e-5)
    plain = torch.load(export_set(tmp_path / "set.pt", "pt", run), weights_only=True)
    assert torch.equal(plain[0], images) and torch.equal(plain[1], labels)
    assert arrays["labels"].tolist() == labels.tolist()


def test_an_exported_pt_file_can_be_read_back(run, tmp_path):
    exported = read_saved_sets(export_set(tmp_path / "set.pt", "pt", run))
    assert torch.equal(exported.sets[0].images, load_set(run)[0]) and exported.mean is None


def test_class_folders_sort_by_label_and_have_safe_names():
    names = [f"a/b {chr(ord('z') - number)}" for number in range(11)]
    folders = export.class_folders(names)
    assert folders == sorted(folders) and folders[0] == "00_a_b_z"
    assert export.class_folders(["x" * 300, "x" * 301]) == [f"0_{'x' * 80}", f"1_{'x' * 80}"]


def test_images_with_one_channel_are_exported_as_gray_pictures(tmp_path):
    info = {"mean": (0.5,), "std": (0.5,), "class_names": ("a",)}
    export.write_folder(tmp_path, torch.zeros(1, 1, 4, 4), torch.tensor([0]), info)
    with Image.open(tmp_path / "0_a" / "00000.png") as picture:
        assert np.asarray(picture).tolist() == [[128] * 4] * 4


@pytest.mark.parametrize("form", ["folder", "npz", "pt"])
def test_an_existing_export_is_replaced_only_with_overwrite_and_the_source_never(run, tmp_path, capsys, form):
    out = export_set(tmp_path / "out", form, run)
    assert "--overwrite" in export_error(capsys, run, out, "--format", form)
    export_set(out, form, run, "--overwrite")
    assert "is the set to export" in export_error(capsys, run, run / "synthetic.pt", "--format", form, "--overwrite")


def test_overwrite_replaces_exported_images_and_touches_no_other_file(run, tmp_path, capsys):
    out = export_set(tmp_path / "out", "folder", run)
    (out / "notes.txt").write_text("notes")
    Path(out / "9_nine" / "other.png").write_text("notes")
    error = export_error(capsys, run, out, "--format", "folder", "--overwrite")
    assert "other.png was not written by an export" in error
    assert len(list(out.glob("*/*.png"))) == 101
    (out / "9_nine" / "other.png").unlink()
    (out / "0_zero").rename(out / "00_other")                       # the name in an export of other classes
    (out / "labels.csv").write_text((out / "labels.csv").read_text().replace("0_zero", "00_other"))
    export_set(out, "folder", run, "--overwrite")
    assert (out / "notes.txt").read_text() == "notes" and len(ImageFolder(out).classes) == 10


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["results", "out", "--format", "pt"], "results/synthetic.pt does not exist"),
        (["results/digits", "out", "--format", "jpg"], "choose from"),
        (["results/digits", "out", "--format", "pt", "--experiment", "1"], "holds 1 synthetic set"),
        (["results/digits", "results", "--format", "pt"], "is a folder"),
        (["results/digits", "results/digits/log.txt/out", "--format", "pt"], "cannot be written"),
    ],
)
def test_a_user_error_is_one_line(run, capsys, flags, message):
    assert message in export_error(capsys, *flags)


def test_a_set_without_mean_std_and_class_names_cannot_be_exported(run, tmp_path, capsys):
    plain = export_set(tmp_path / "set.pt", "pt", run)
    error = export_error(capsys, plain, tmp_path / "out", "--format", "folder")
    assert "does not state its mean, std, class_names" in error


def test_help_describes_the_command(capsys):
    for main in (export.main, evaluate.main):
        with pytest.raises(SystemExit) as stop:
            main(["--help"])
        assert not stop.value.code and len(capsys.readouterr().out) > 500
