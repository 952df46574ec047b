"""bf16 changes what layers calculate with and nothing else; tf32 is refused where there is none."""

import pytest
import torch

import main_DC
import main_DM
from fairdd.core.errors import UserError
from fairdd.core.parallel import set_precision, with_precision
from networks import get_network

QUICK = ["--num_eval", "2", "--epoch_eval_train", "2", "--ipc", "1", "--batch_real", "10", "--model", "ConvNetD1W32",
         "--im_size", "8", "--Iteration", "2", "--FairDD", "--lr_img", "0.01"]


def test_fp32_is_the_network_as_it_is():
    net = torch.nn.Linear(2, 2)
    assert with_precision("fp32", net) is net


def test_layers_round_to_bf16_and_what_they_give_is_32_bit():
    torch.manual_seed(0)
    net, images = get_network("ConvNetD1W32", 3, 10, (8, 8)), torch.randn(5, 3, 8, 8, requires_grad=True)
    half = with_precision("bf16", net)
    for plain, rounded in ((net(images), half(images)), (net.embed(images), half.embed(images))):
        difference = ((plain - rounded).norm() / plain.norm()).item()
        assert rounded.dtype == torch.float32 and 0 < difference < 2**-6       # bf16 keeps 8 bits
    [pixels] = torch.autograd.grad(half(images).sum(), images)
    assert pixels.dtype == torch.float32 and pixels.isfinite().all()


def test_tf32_is_refused_without_a_gpu():
    with pytest.raises(UserError, match="tf32"):
        set_precision("tf32", "cpu")


@pytest.mark.parametrize("entry", [main_DM, main_DC])
def test_entries_run_in_bf16_to_another_set(tmp_path, entry):
    sets = []
    for name in ("fp32", "bf16"):
        entry.main([*QUICK, "--precision", name, "--save_path", str(tmp_path / name)])
        [(images, _)] = torch.load(tmp_path / name / "synthetic.pt", weights_only=True)["data"]
        sets.append(images)
    assert sets[1].isfinite().all() and not torch.equal(*sets) and (sets[1] - sets[0]).norm() < 0.1 * sets[0].norm()
