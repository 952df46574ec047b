"""What goes beyond the paper, end to end: sampling, COBRA's choices, several images in one."""

import pytest
import torch

import main_DC
import main_DM
from fairdd.signals import Stopped

QUICK = ["--num_eval", "1", "--epoch_eval_train", "1", "--ipc", "2", "--batch_real", "20", "--model", "ConvNetD1W32",
         "--im_size", "8", "--Iteration", "3", "--FairDD"]
ENTRIES = {"DM": main_DM, "DC": main_DC}


def run(method, folder, *flags):
    """Run an entry in this process. -> what it saved"""
    ENTRIES[method].main([*QUICK, "--save_path", str(folder), *flags])
    return torch.load(folder / "synthetic.pt", weights_only=True)


def images_of(method, folder, *flags):
    return run(method, folder, *flags)["data"][0][0]


def test_a_warm_up_changes_the_networks_and_no_other_draw(tmp_path):
    still = "1e-30"         # a learning rate that moves no weight
    plain = images_of("DM", tmp_path / "plain", "--lr_net", still)
    idle = images_of("DM", tmp_path / "idle", "--lr_net", still, "--warmup_epochs", "2")
    warm = images_of("DM", tmp_path / "warm", "--warmup_epochs", "2")
    assert torch.equal(plain, idle) and not torch.equal(plain, warm)


def test_each_choice_of_cobra_gives_another_set(tmp_path):
    choices = [[], ["--dis_metric", "l1"], ["--warmup_epochs", "1"], ["--dis_metric", "l1", "--warmup_epochs", "1"]]
    sets = [images_of("DM", tmp_path / str(place), *flags) for place, flags in enumerate(choices)]
    assert not any(torch.equal(a, b) for place, a in enumerate(sets) for b in sets[:place])


@pytest.mark.parametrize("method", ENTRIES)
def test_a_run_with_variants_that_was_stopped_goes_on_to_the_same_bytes(tmp_path, monkeypatch, method):
    flags = ["--group_balance", "--eval_every", "1", *["--warmup_epochs", "1"] * (method == "DM")]
    run(method, tmp_path / "whole", *flags)
    update, done = ENTRIES[method].update, []

    def stop_at_the_second(*args):
        if len(done) == 1:
            raise Stopped(15)
        done.append(1)
        return update(*args)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(ENTRIES[method], "update", stop_at_the_second)
        run(method, tmp_path / "halves", *flags)
    run(method, tmp_path / "halves", *flags)
    assert "going on at iteration 1" in (tmp_path / "halves" / "log.txt").read_text()
    for name in ("synthetic.pt", "results.json", "evaluations.jsonl"):
        assert (tmp_path / "halves" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
