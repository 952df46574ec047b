"""Which real images a step sees: quotas of groups, every image in turn, and nothing but the key."""

import pytest
import torch

from fairdd.datasets import GroupedImages
from fairdd.matching.sampling import RandomSampler, StratifiedSampler, cards, group_quotas, sample_without_replacement

CELLS = [[60, 4, 13], [0, 30, 31]]      # images of each group, class by class


def data():
    """Empty images with the cells of CELLS, in a mixed order."""
    pairs = torch.tensor([(y, g) for y, row in enumerate(CELLS) for g, size in enumerate(row) for _ in range(size)])
    labels, groups = pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))].t().contiguous()
    images = torch.zeros(len(pairs), 1, 1, 1, dtype=torch.uint8)
    return GroupedImages(images, labels, groups, ("a", "b"), ("x", "y", "z"), (0.5,), (0.5,))


def cells_of(real, rows):
    """How many images of each (group, class) rows hold, as lists by class."""
    cell = real.labels[rows] * real.num_groups + real.groups[rows]
    return torch.bincount(cell, minlength=6).view(2, 3).tolist()


def key(iteration, *outer):
    return 0, "experiment", 0, iteration, *outer


@pytest.mark.parametrize(
    ("sizes", "total", "shares"),
    [([60, 60, 60], 9, [3, 3, 3]), ([60, 4, 13], 30, [13, 4, 13]), ([60, 4, 13], 24, [10, 4, 10]),
     ([60, 4, 13], 40, [23, 4, 13]), ([60, 4, 13], 100, [60, 4, 13]), ([5, 0, 7], 5, [2, 0, 3])],
)
def test_shares_are_equal_and_what_a_small_cell_lacks_goes_to_the_larger_ones(sizes, total, shares):
    assert group_quotas(torch.tensor(sizes), total).tolist() == shares


@pytest.mark.parametrize("batch_real", [3, 20, 30, 61, 70, 1000])
def test_every_batch_holds_the_shares_of_every_group_present_and_no_image_twice(batch_real):
    real = data()
    sampler = StratifiedSampler(real, batch_real)
    shares = [group_quotas(torch.tensor(sizes), batch_real).tolist() for sizes in CELLS]
    for iteration in range(30):
        rows = sampler.rows(*key(iteration))
        assert cells_of(real, rows) == shares and len(rows.unique()) == len(rows)
    assert [sum(row) for row in shares] == [min(batch_real, sum(sizes)) for sizes in CELLS]
    assert all((share > 0) == (size > 0) for row, sizes in zip(shares, CELLS, strict=True)
               for share, size in zip(row, sizes, strict=True))


@pytest.mark.parametrize("sampler", [RandomSampler, StratifiedSampler])
def test_a_class_is_taken_whole_where_the_batch_reaches(sampler):
    real = data()
    assert sorted(sampler(real, 77).rows(*key(5)).tolist()) == list(range(len(real)))


@pytest.mark.parametrize("size", [1, 2, 7, 12, 25])
def test_no_image_is_seen_again_before_all_others_were_seen_as_often(size):
    for count in range(size + 1):
        seen = torch.zeros(size, dtype=torch.int64)
        for step in range(3 * size):
            rows = sample_without_replacement(size, count, step, "key")
            assert len(rows.unique()) == count
            seen[rows] += 1
            assert seen.max() - seen.min() <= 1, (count, step)


def test_turns_are_shuffled_anew():
    turns = [tuple(cards(20, 10, step, "key")) for step in range(20)]
    assert len({turn[:10] for turn in turns}) == 20


def test_a_draw_depends_on_its_key_alone():
    real = data()
    one, other = (StratifiedSampler(real, 20) for _ in range(2))
    whole = [one.rows(*key(iteration)) for iteration in range(12)]
    resumed = [other.rows(*key(iteration)) for iteration in (11, 7, 3)]
    assert all(torch.equal(a, whole[i]) for a, i in zip(resumed, (11, 7, 3), strict=True))
    for changed in [(1, "experiment", 0, 3), (0, "experiment", 1, 3)]:
        assert not torch.equal(one.rows(*changed), whole[3])


def test_outer_loops_are_steps_of_their_own():
    real = data()
    by_loops, by_iterations = StratifiedSampler(real, 20, steps_per_iteration=3), StratifiedSampler(real, 20)
    steps = [by_loops.rows(*key(iteration, outer)) for iteration in range(3) for outer in range(3)]
    assert all(torch.equal(rows, by_iterations.rows(*key(step))) for step, rows in enumerate(steps))


def test_random_rows_keep_the_proportions_of_groups_on_average():
    real = data()
    sampler = RandomSampler(real, 20)
    counts = sum(torch.tensor(cells_of(real, sampler.rows(*key(iteration)))) for iteration in range(300))
    proportions = torch.tensor(CELLS) / torch.tensor([[77], [61]])
    assert torch.allclose(counts / counts.sum(1, keepdim=True), proportions, atol=0.02)
