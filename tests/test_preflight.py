"""What is said and refused before the first iteration."""

import pytest
import torch
from scipy.stats import hypergeom
from torch import nn

import main_DC
import main_DM
from fairdd.datasets import GroupedImages
from fairdd.report.tables import cell_table
from fairdd.run.preflight import describe_smallest_cell, free_memory, layer_bytes, prob_group_missing


@pytest.mark.parametrize(
    ("size", "cell", "batch"), [(9600, 48, 256), (120, 1, 64), (10, 10, 3), (10, 4, 6), (10, 4, 7)]
)
def test_chance_that_a_cell_is_missing_is_hypergeometric(size, cell, batch):
    assert prob_group_missing(size, cell, batch) == pytest.approx(hypergeom.pmf(0, size, cell, batch), rel=1e-9, abs=1e-12)


def test_the_scarcest_cell_is_the_one_with_the_least_share_of_its_class():
    cells = [(0, 0)] * 50 + [(0, 1)] * 50 + [(1, 0)] * 196 + [(1, 1)] * 4
    labels, groups = torch.tensor(cells).t().contiguous()
    images = torch.zeros(len(cells), 3, 2, 2, dtype=torch.uint8)
    data = GroupedImages(images, labels, groups, ("young", "old"), ("a", "b"), (0.5,) * 3, (0.5,) * 3)
    words = describe_smallest_cell(data, 50)
    assert "(old, b), 4 of 200 images; in a batch of 50, 1 are expected, none with chance 0.31" in words


@pytest.mark.parametrize("count", [2, 40])
def test_the_table_of_cells_fits_a_terminal_and_counts_every_image(count):
    groups = torch.arange(3 * count) % count
    names = tuple(f"group number {k}" for k in range(count))
    images = torch.zeros(len(groups), 3, 2, 2, dtype=torch.uint8)
    table = cell_table(GroupedImages(images, groups % 2, groups, ("young", "old"), names, (0.5,) * 3, (0.5,) * 3))
    lines = table.splitlines()
    assert max(map(len, lines)) <= 110 and all(name in table for name in names)
    assert sum(int(word) for line in lines[1:] for word in line.split("  ")[1:] if word) == len(groups)


def test_layer_bytes_are_those_of_every_output():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))
    assert layer_bytes(net, torch.zeros(1, 3, 8, 8)) == [4 * n for n in (4 * 36, 4 * 36, 4 * 36, 10)]


def test_some_memory_is_free():
    assert free_memory("cpu") is None or free_memory("cpu") > 2**20


@pytest.mark.parametrize("entry", [main_DM, main_DC])
def test_a_step_that_cannot_fit_is_refused_before_it_starts(tmp_path, capsys, entry):
    with pytest.raises(SystemExit) as stop:
        entry.main(["--ipc", "10000000", "--init", "noise", "--im_size", "8", "--model", "ConvNetD1",
                    "--save_path", str(tmp_path)])
    words = capsys.readouterr().err
    assert stop.value.code == 2 and "GiB" in words and "--batch_real" in words and words.count("\n") == 1
