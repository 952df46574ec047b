"""Options beyond the paper, end to end: stratified sampling, COBRA's choices, several images in one."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from refusal import refusal

import main_DC
import main_DM
from fairdd.core.errors import Interrupted
from fairdd.matching.synset import expand_grid
from utils import get_dataset

QUICK = ["--num_eval", "1", "--epoch_eval_train", "1", "--ipc", "2", "--batch_real", "20", "--model", "ConvNetD1W32",
         "--im_size", "8", "--Iteration", "3", "--FairDD"]
ENTRIES = {"DM": main_DM, "DC": main_DC}
METHODS = {"DM": "METHOD", "DC": "DC"}      # names in the entries


def run(method, folder, *flags):
    """Run an entry in this process; return what it saved."""
    ENTRIES[method].main([*QUICK, "--save_path", str(folder), *flags])
    return torch.load(folder / "synthetic.pt", weights_only=True)


def images_of(method, folder, *flags):
    return run(method, folder, *flags)["data"][0][0]


def test_warm_up_changes_the_networks_and_no_other_draw(tmp_path):
    tiny = "1e-30"          # a learning rate that changes no weight
    plain = images_of("DM", tmp_path / "plain", "--lr_net", tiny)
    idle = images_of("DM", tmp_path / "idle", "--lr_net", tiny, "--warmup_epochs", "2")
    warm = images_of("DM", tmp_path / "warm", "--warmup_epochs", "2")
    assert torch.equal(plain, idle) and not torch.equal(plain, warm)


def test_every_choice_of_cobra_gives_another_set(tmp_path):
    choices = [[], ["--dis_metric", "l1"], ["--warmup_epochs", "1"], ["--dis_metric", "l1", "--warmup_epochs", "1"]]
    sets = [images_of("DM", tmp_path / str(index), *flags) for index, flags in enumerate(choices)]
    assert not any(torch.equal(a, b) for index, a in enumerate(sets) for b in sets[:index])


@pytest.mark.parametrize("method", ENTRIES)
def test_an_interrupted_run_with_variants_resumes_to_the_same_bytes(tmp_path, monkeypatch, method):
    flags = ["--group_balance", "--factor", "2", "--init", "balanced", "--eval_every", "1"]
    flags += ["--warmup_epochs", "1"] * (method == "DM")
    run(method, tmp_path / "uninterrupted", *flags)
    original, done = getattr(ENTRIES[method], METHODS[method]), []

    def interrupt_second(*args):
        if len(done) == 1:
            raise Interrupted(15)
        done.append(1)
        return original.update(*args)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(ENTRIES[method], METHODS[method], replace(original, update=interrupt_second))
        run(method, tmp_path / "interrupted", *flags)
    run(method, tmp_path / "interrupted", *flags)
    assert "resuming at iteration 1" in (tmp_path / "interrupted" / "log.txt").read_text()
    for name in ("synthetic.pt", "results.json", "evaluations.jsonl"):
        assert (tmp_path / "interrupted" / name).read_bytes() == (tmp_path / "uninterrupted" / name).read_bytes()


@pytest.mark.parametrize("method", ENTRIES)
def test_factor_one_changes_nothing_and_two_stores_four_images_in_one(tmp_path, method):
    plain, single, grid = (run(method, tmp_path / str(factor), *["--factor", str(factor)] * (factor > 0))
                       for factor in (0, 1, 2))
    assert torch.equal(plain["data"][0][0], single["data"][0][0]) and plain["factor"] == 1 and grid["factor"] == 2
    images, labels = grid["data"][0]
    assert images.shape == (20, 3, 8, 8) and labels.tolist() == sorted(2 * list(range(10)))
    assert expand_grid(images, grid["factor"]).shape == (80, 3, 8, 8)


def test_iteration_zero_with_a_factor_stores_small_training_images_of_the_right_class(tmp_path):
    saved = run("DM", tmp_path, "--factor", "2", "--Iteration", "0")
    train = get_dataset("Colored_Digits", im_size=8).train
    small = F.avg_pool2d(train.batch(torch.arange(len(train))), 2)
    images, labels = saved["data"][0]
    tiles = images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    for tile, label in zip(tiles, labels.repeat_interleave(4), strict=True):
        assert label in train.labels[(small == tile).flatten(1).all(1)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--factor", "3"], "--factor 3 does not divide images of 8 x 8 pixels"),
        (["--factor", "2", "--ipc", "100"], "--ipc 100 with --factor 2"),
        (["--group_balance", "--batch_real", "9"], "--batch_real must be at least 10"),
        (["--factor", "0"], "'0' is not an integer of at least 1"),
    ],
)
def test_impossible_settings_are_refused_before_the_first_iteration(tmp_path, capsys, flags, message):
    assert message in refusal(capsys, run, "DM", tmp_path, *flags)
