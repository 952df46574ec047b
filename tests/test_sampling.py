"""Which real images a step sees: quotas per group, no image again before all others, and draws by key alone."""

import pytest
import torch

from fairdd.datasets.base import GroupedImages
from fairdd.matching.sampling import (
    RandomSampler,
    StratifiedSampler,
    epoch_permutation,
    group_quotas,
    sample_without_replacement,
)

CELLS = [[60, 4, 13], [0, 30, 31]]      # images of each group, class by class


def shuffled_data():
    """Return empty images with the cells of CELLS, in a mixed order."""
    pairs = torch.tensor([(y, g) for y, row in enumerate(CELLS) for g, size in enumerate(row) for _ in range(size)])
    labels, groups = pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))].t().contiguous()
    images = torch.zeros(len(pairs), 1, 1, 1, dtype=torch.uint8)
    return GroupedImages(images, labels, groups, ("a", "b"), ("x", "y", "z"), (0.5,), (0.5,))


def cell_counts(real, rows):
    """Return how many images of each group the rows hold, class by class."""
    cell = real.labels[rows] * real.num_groups + real.groups[rows]
    return torch.bincount(cell, minlength=6).view(2, 3).tolist()


def key(iteration, *outer):
    return 0, "experiment", 0, iteration, *outer


@pytest.mark.parametrize(
    ("sizes", "total", "quotas"),
    [([60, 60, 60], 9, [3, 3, 3]), ([60, 4, 13], 30, [13, 4, 13]), ([60, 4, 13], 24, [10, 4, 10]),
     ([60, 4, 13], 40, [23, 4, 13]), ([60, 4, 13], 100, [60, 4, 13]), ([5, 0, 7], 5, [2, 0, 3])],
)
def test_quotas_are_equal_and_what_a_small_cell_lacks_goes_to_larger_ones(sizes, total, quotas):
    assert group_quotas(torch.tensor(sizes), total).tolist() == quotas


@pytest.mark.parametrize("batch_real", [3, 20, 30, 61, 70, 1000])
def test_every_batch_holds_the_quota_of_every_group_present_and_no_image_twice(batch_real):
    real = shuffled_data()
    sampler = StratifiedSampler(real, batch_real)
    quotas = [group_quotas(torch.tensor(sizes), batch_real).tolist() for sizes in CELLS]
    for iteration in range(30):
        rows = sampler.rows(*key(iteration))
        assert cell_counts(real, rows) == quotas and len(rows.unique()) == len(rows)
    assert [sum(row) for row in quotas] == [min(batch_real, sum(sizes)) for sizes in CELLS]
    assert all((quota > 0) == (size > 0) for row, sizes in zip(quotas, CELLS, strict=True)
               for quota, size in zip(row, sizes, strict=True))


@pytest.mark.parametrize("sampler", [RandomSampler, StratifiedSampler])
def test_a_batch_as_large_as_the_class_holds_all_of_it(sampler):
    real = shuffled_data()
    assert sorted(sampler(real, 77).rows(*key(5)).tolist()) == list(range(len(real)))


@pytest.mark.parametrize("sampler", [RandomSampler, StratifiedSampler])
def test_rows_come_class_by_class(sampler):
    real = shuffled_data()
    labels = real.labels[sampler(real, 20).rows(*key(5))]
    assert labels.tolist() == [0] * 20 + [1] * 20


@pytest.mark.parametrize("size", [1, 2, 7, 12, 25])
def test_no_image_is_seen_again_before_all_others_were_seen_as_often(size):
    for count in range(size + 1):
        times_seen = torch.zeros(size, dtype=torch.int64)
        for step in range(3 * size):
            rows = sample_without_replacement(size, count, step, "key")
            assert len(rows.unique()) == count
            times_seen[rows] += 1
            assert times_seen.max() - times_seen.min() <= 1, (count, step)


def test_every_epoch_has_an_order_of_its_own():
    orders = [tuple(epoch_permutation(20, 10, epoch, "key")) for epoch in range(20)]
    assert len({order[:10] for order in orders}) == 20


@pytest.mark.parametrize("sampler_class", [RandomSampler, StratifiedSampler])
def test_a_draw_depends_on_its_key_alone(sampler_class):
    real = shuffled_data()
    first, second = (sampler_class(real, 20) for _ in range(2))
    rows = [first.rows(*key(iteration)) for iteration in range(12)]
    for iteration in (11, 7, 3):                        # in another order, as after a resume
        assert torch.equal(second.rows(*key(iteration)), rows[iteration])
    for changed in [(1, "experiment", 0, 3), (0, "experiment", 1, 3), (0, "experiment", 0, 4)]:
        assert not torch.equal(first.rows(*changed), rows[3])


def test_outer_loops_are_consecutive_steps():
    real = shuffled_data()
    by_loop, by_iteration = StratifiedSampler(real, 20, steps_per_iteration=3), StratifiedSampler(real, 20)
    steps = [by_loop.rows(*key(iteration, outer)) for iteration in range(3) for outer in range(3)]
    assert all(torch.equal(rows, by_iteration.rows(*key(step))) for step, rows in enumerate(steps))


def test_random_rows_keep_the_proportions_of_groups_on_average():
    real = shuffled_data()
    sampler = RandomSampler(real, 20)
    counts = sum(torch.tensor(cell_counts(real, sampler.rows(*key(iteration)))) for iteration in range(300))
    proportions = torch.tensor(CELLS) / torch.tensor([[77], [61]])
    assert torch.allclose(counts / counts.sum(1, keepdim=True), proportions, atol=0.02)
