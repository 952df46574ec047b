"""The GPU path on a pretend GPU: the numbers of the CPU path, within stated budgets of launches, uploads and syncs."""

import json
from dataclasses import replace

import pytest
import torch
from pretend_gpu import GPU, PretendGPU

import main_DC
import main_DM
from fairdd.core.ahead import Ahead
from fairdd.core.errors import UserError
from fairdd.core.rng import torch_generator
from fairdd.evaluation.stack import NetworkStack
from fairdd.evaluation.training import TrainConfig, sgd, train_epochs, train_with_schedule
from fairdd.flags import DSA
from fairdd.run import loop
from fairdd.run.context import Context
from fairdd.run.loop import distill, initial_synset, load_data
from networks import get_network

# method -> flags of a step, and what it may cost with ten classes of ten groups: launches, uploads, syncs
ENTRIES = {"DM": main_DM, "CAFE": main_DM, "DC": main_DC, "DSA": main_DC, "IDC": main_DC, "DREAM": main_DC}
STEPS = {
    "DM": ([], 150, 6, 0),
    "CAFE": (["--max_steps", "1"], 250, 30, 1),                             # it watches an accuracy
    "DC": (["--outer_loop", "1"], 1500, 8, 0),
    "DSA": (["--outer_loop", "1"], 1500, 8, 0),
    "IDC": (["--pixel_steps", "1", "--n_data", "0", "--lr_img", "0.03"], 1500, 14, 0),
    "DREAM": (["--pixel_steps", "1", "--n_data", "0"], 1500, 24, 10),       # every class is clustered on the host
}
LAUNCHES_PER_EPOCH = 40


def make_context(method, *flags, device):
    """Return what an iteration of a method needs, with the embedded digits on a device."""
    method, args = ENTRIES[method].parse(["--method", method, "--model", "ConvNetW32", "--batch_real", "64", *flags])
    data = load_data(args)
    return Context(None, args, method, data.train.to(device), data.test.to(device), get_network, ["ConvNetW32"])


def update(context, syn):
    """Make the first iteration. Return (loss, pixels)."""
    return context.method.update(context, syn, 0, "experiment", 0, 0), syn.images.detach()


@pytest.mark.parametrize("align", ["vanilla", "fairdd"])
@pytest.mark.parametrize("method", STEPS)
def test_a_step_has_the_numbers_of_the_cpu_within_its_budget(method, align):
    flags, *budget = STEPS[method]
    flags = [*flags, "--align", align]
    context = make_context(method, *flags, device="cpu")
    loss, pixels = update(context, initial_synset(context, 0))
    with PretendGPU() as gpu:
        context = make_context(method, *flags, device=GPU)
        syn, same = (initial_synset(context, 0) for _ in range(2))
        update(context, same)                               # fills the caches of constants
        gpu.reset()
        loss_on_gpu, pixels_on_gpu = update(context, syn)
        counts = gpu.counts()
    assert torch.isclose(loss_on_gpu.on_host, loss, rtol=1e-5)
    assert torch.allclose(pixels_on_gpu.on_host, pixels, atol=1e-3)
    assert all(count <= limit for count, limit in zip(counts.values(), budget, strict=True)), counts


@pytest.mark.parametrize("strategy", [*DSA.split("_"), "none"])
def test_an_epoch_of_a_network_is_few_launches(strategy):
    with PretendGPU() as gpu:
        context = make_context("DSA", device=GPU)
        net, data = context.init_network("ConvNetW32", 0), initial_synset(context, 0).as_dataset()
        optimizer = sgd(net, 0.01, momentum=0, weight_decay=0)
        for _ in range(2):
            gpu.reset()
            train_epochs(net, data, TrainConfig(1, 0.01, strategy=strategy), optimizer, torch_generator(0))
    assert gpu.counts()["launches"] <= LAUNCHES_PER_EPOCH and gpu.counts()["syncs"] == 0


def test_ten_networks_cost_the_launches_of_one_and_learn_what_they_learn_alone():
    config = TrainConfig(4, 0.01, strategy=DSA)

    def train(count, device):
        context = make_context("DM", device=device)
        data = initial_synset(context, 0).as_dataset()
        nets = [context.init_network("ConvNetW32", number) for number in range(count)]
        generators = [torch_generator(number) for number in range(count)]
        return nets, data, generators

    launches = {}
    with PretendGPU() as gpu:
        for count in (1, 10):
            nets, data, generators = train(count, GPU)
            stack = NetworkStack(nets)
            gpu.reset()
            train_with_schedule(stack, data, config, *generators)
            launches[count] = gpu.counts()["launches"]
    assert launches[10] <= 1.5 * launches[1]
    alone, data, generators = train(10, "cpu")
    for net, on_gpu, generator in zip(alone, stack.unstack(), generators, strict=True):
        train_with_schedule(net, data, config, generator)
        for weight, weight_on_gpu in zip(net.parameters(), on_gpu.parameters(), strict=True):
            assert torch.allclose(weight, weight_on_gpu.on_host, atol=1e-4)


RUN = ["--Iteration", "2", "--ipc", "2", "--num_eval", "3", "--epoch_eval_train", "2", "--model", "ConvNetD1W32",
       "--im_size", "16", "--quiet"]


@pytest.mark.parametrize("method, device_data", [*((name, "auto") for name in STEPS), ("DM", "no"), ("DREAM", "no")])
def test_a_whole_run_gives_the_results_of_the_cpu(tmp_path, method, device_data):
    short = {"DC": ["--outer_loop", "2", "--inner_loop", "2"], "DSA": ["--outer_loop", "2", "--inner_loop", "2"]}
    flags = [*RUN, "--method", method, "--FairDD", "--device_data", device_data, *short.get(method, STEPS[method][0])]
    for device in ("cpu", GPU.type):
        chosen, args = ENTRIES[method].parse([*flags, "--save_path", str(tmp_path / device)])
        vars(args)["device"] = device           # which --device refuses
        with PretendGPU():
            distill(args, chosen, get_network, ["ConvNetD1W32"])
    images, on_gpu = (torch.load(tmp_path / device / "synthetic.pt", weights_only=True)["data"][0][0]
                      for device in ("cpu", GPU.type))
    assert torch.allclose(images, on_gpu, atol=1e-3)
    metrics, on_gpu = (json.loads((tmp_path / device / "results.json").read_text()) for device in ("cpu", GPU.type))
    assert metrics.keys() == on_gpu.keys()


def test_images_on_the_host_are_copied_batch_by_batch():
    data, rows = make_context("DM", device="cpu").real, torch.arange(5)
    with PretendGPU() as gpu:
        for _ in range(2):          # the mean and std are copied once
            gpu.reset()
            assert torch.equal(data.to(GPU, copy_images=False).batch(rows).on_host, data.batch(rows))
        assert gpu.counts()["uploads"] == 1


def test_images_larger_than_half_of_the_free_memory_stay_on_the_host(monkeypatch):
    context = make_context("DM", device="cpu")
    vars(context.args)["device"] = GPU.type
    size = context.real.images.numel()
    with PretendGPU():
        for free, where in ((2 * size, GPU.type), (2 * size - 1, "cpu")):
            monkeypatch.setattr(loop, "free_bytes", lambda device, free=free: free)
            [real] = loop.on_device(context.args, context.real)
            assert real.images.device.type == where and real.device.type == GPU.type
        vars(context.args)["device_data"] = "yes"
        monkeypatch.setattr(loop, "free_bytes", lambda device: size - 1)
        with pytest.raises(UserError, match="use auto or no"):
            loop.on_device(context.args, context.real)


def test_the_host_works_an_iteration_ahead_with_the_same_draws():
    contexts = [make_context("DM", "--group_balance", device="cpu") for _ in range(2)]
    contexts[1].ahead = Ahead()
    for iteration in range(3):
        key = 0, "experiment", 0, iteration
        (weights, rows), (same_weights, same_rows) = (
            (context.init_network("ConvNetW32", *key).state_dict(), context.real_batch(None, *key).rows)
            for context in contexts)
        assert torch.equal(rows, same_rows)
        assert all(torch.equal(weight, same_weights[name]) for name, weight in weights.items())
    next_keys = {key for _, key in contexts[1].ahead.futures}
    assert next_keys == {(0, "experiment", 0, 3), (0, "experiment", 0, 3, "ConvNetW32")}


@pytest.mark.parametrize("device", ["cpu", GPU.type])
def test_a_loss_that_is_not_finite_ends_the_run_at_its_iteration(tmp_path, device):
    method, args = main_DM.parse([*RUN, "--Iteration", "5", "--save_path", str(tmp_path)])
    vars(args)["device"] = device
    losses = iter([1.0, 2.0, float("nan"), 3.0, 4.0])

    def update(context, syn, *key):
        return torch.tensor(next(losses)).to(device)

    with PretendGPU(), pytest.raises(UserError, match="the loss is nan at iteration 2"):
        distill(args, replace(method, update=update), get_network, ["ConvNetD1W32"])
