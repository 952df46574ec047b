"""What is reported and refused before the first iteration."""

from functools import partial

import pytest
import torch
from scipy.stats import hypergeom
from torch import nn
from torch.profiler import ProfilerActivity, profile

import main_DC
import main_DM
from fairdd.core import parallel
from fairdd.datasets import GroupedImages
from fairdd.run import preflight
from fairdd.run.context import Context
from fairdd.run.formatting import format_counts
from fairdd.run.loop import initial_synset, load_data
from fairdd.run.preflight import describe_smallest_cell, free_memory, layer_bytes, min_step_memory, prob_group_missing
from networks import get_network


@pytest.mark.parametrize(
    ("size", "cell", "batch"), [(9600, 48, 256), (120, 1, 64), (10, 10, 3), (10, 4, 6), (10, 4, 7)]
)
def test_the_probability_that_a_group_is_missing_is_hypergeometric(size, cell, batch):
    expected = hypergeom.pmf(0, size, cell, batch)
    assert prob_group_missing(size, cell, batch) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def grouped(labels, groups, group_names):
    images = torch.zeros(len(labels), 3, 2, 2, dtype=torch.uint8)
    return GroupedImages(images, labels, groups, ("young", "old"), group_names, (0.5,) * 3, (0.5,) * 3)


def test_the_smallest_cell_is_the_one_with_the_smallest_share_of_its_class():
    cells = [(0, 0)] * 50 + [(0, 1)] * 50 + [(1, 0)] * 196 + [(1, 1)] * 4
    data = grouped(*torch.tensor(cells).t().contiguous(), ("a", "b"))
    name = "smallest cell: (old, b), 4 of 200 images; "
    assert describe_smallest_cell(data, 50) == name + "a batch of 50 holds 1 on average, none with probability 0.31"
    assert describe_smallest_cell(data, 50, group_balance=True) == name + "every batch of 50 holds 4"


@pytest.mark.parametrize("count", [2, 40])
def test_the_table_of_cells_fits_a_terminal_and_shows_the_number_of_images_of_each(count):
    groups = torch.arange(3 * count) % count
    names = tuple(f"group number {k}" for k in range(count))
    data = grouped(groups % 2, groups, names)
    lines = [line.rsplit(maxsplit=2) for line in format_counts(data).splitlines()]
    assert max(map(len, format_counts(data).splitlines())) <= 110
    if count == 2:      # classes are rows
        assert lines[1:] == [["young", "3", "0"], ["old", "0", "3"]]
    else:
        assert lines[1:] == [[name, *("3 0" if k % 2 == 0 else "0 3").split()] for k, name in enumerate(names)]


def test_layer_bytes_are_those_of_every_output():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))
    assert layer_bytes(net, torch.zeros(1, 3, 8, 8)) == [4 * n for n in (4 * 36, 4 * 36, 4 * 36, 10)]


def test_free_memory_is_known_or_none():
    assert free_memory("cpu") is None or free_memory("cpu") > 2**20
    assert free_memory("xpu") is None


@pytest.mark.parametrize("line", [
    "main_DM --batch_real 128", "main_DM --batch_real 16 --ipc 50", "main_DM --batch_real 100 --model ConvNetD1W32BN",
    "main_DC --outer_loop 1", "main_DC --outer_loop 1 --ipc 50", "main_DC --outer_loop 1 --model ConvNetW32BN",
])
def test_the_memory_of_a_step_is_at_least_the_estimate_and_not_much_more(line):
    entry, *flags = line.split()
    method, args = {"main_DM": main_DM, "main_DC": main_DC}[entry].parse(["--model", "ConvNetW32", *flags])
    data = load_data(args)
    context = Context(None, args, method, data.train, data.test, get_network, [args.model])
    syn = initial_synset(context, 0)
    peak = peak_bytes(lambda: method.update(context, syn, 0, "experiment", 0, 0))
    assert 0.7 * peak < min_step_memory(context) < peak


@pytest.mark.parametrize("line", ["main_DM", "main_DC --outer_loop 1"])
def test_the_memory_of_a_large_class_is_bounded(line, monkeypatch):
    entry, *flags = line.split()
    method, args = {"main_DM": main_DM, "main_DC": main_DC}[entry].parse(
        ["--model", "ConvNet", "--batch_real", "2", "--ipc", "20", *flags])
    data, peaks = load_data(args), []
    monkeypatch.setitem(parallel.CHUNK_BYTES, "cpu", 2**17)             # an image of 16 pixels
    for graph_bytes in (parallel.GRAPH_BYTES, 2**17):
        monkeypatch.setattr(parallel, "GRAPH_BYTES", graph_bytes)
        context = Context(None, args, method, data.train, data.test, get_network, [args.model])
        step = partial(method.update, context, initial_synset(context, 0), 0, "experiment", 0, 0)
        peaks.append(peak_bytes(step))
    assert peaks[1] < peaks[0] / 2


def peak_bytes(function):
    """Return how many bytes torch had allocated at the same time, at most, while the function ran."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    allocated = torch.tensor([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    return allocated.cumsum(0).max().item()


@pytest.mark.parametrize("entry", [main_DM, main_DC])
def test_a_step_that_needs_more_memory_than_is_free_is_refused(tmp_path, capsys, monkeypatch, entry):
    flags = ["--ipc", "2", "--Iteration", "0", "--num_eval", "1", "--epoch_eval_train", "1", "--save_path"]
    needs = []

    def estimate(context):
        needs.append(min_step_memory(context))
        return needs[-1]

    monkeypatch.setattr(preflight, "min_step_memory", estimate)
    monkeypatch.setattr(preflight, "free_memory", lambda device: needs[-1])
    entry.main([*flags, str(tmp_path / "enough")])
    monkeypatch.setattr(preflight, "free_memory", lambda device: needs[-1] - 1)
    with pytest.raises(SystemExit) as stop:
        entry.main([*flags, str(tmp_path / "too little")])
    message = capsys.readouterr().err
    assert stop.value.code == 2 and "GiB" in message and "--batch_real" in message and message.count("\n") == 1


@pytest.mark.parametrize("entry", [main_DM, main_DC])
def test_a_step_that_no_machine_can_hold_is_refused(tmp_path, capsys, entry):
    with pytest.raises(SystemExit) as stop:
        entry.main(["--ipc", "10000000", "--init", "noise", "--im_size", "8", "--model", "ConvNetD1",
                    "--save_path", str(tmp_path)])
    assert stop.value.code == 2 and "GiB" in capsys.readouterr().err
