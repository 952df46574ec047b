"""Drawn tests: equally many images of every cell; rare cells are left out, shrink the test, or are refused."""

import itertools

import numpy as np
import pytest

from fairdd.core.errors import UserError
from fairdd.datasets.splits import hold_out_test


@pytest.mark.parametrize("smallest, per_cell", [(2, 1), (7, 3), (100, 50), (101, 100), (5000, 100)])
def test_a_drawn_test_has_100_images_of_each_cell_or_half_of_the_smallest_cell(smallest, per_cell):
    members = [np.arange(smallest), np.arange(10000, 16000)]
    split = hold_out_test(members, 30, "shrink")
    assert len(split.test) == 2 * per_cell and (split.notes == ()) == (per_cell == 100)
    assert not set(split.train) & set(split.test) and len(split.train) + len(split.test) == smallest + 6000


def cells(*sizes):
    """Members of four cells of these sizes: classes a and b, groups x and y."""
    starts = np.cumsum([0, *sizes])
    return [np.arange(start, end) for start, end in itertools.pairwise(starts)]


CELLS = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")]


@pytest.mark.parametrize("rare_size, is_rare", [(1, True), (19, True), (20, False)])
def test_a_rare_cell_trains_and_the_others_are_tested_fully(rare_size, is_rare):
    members = [*cells(200, 300, 201, 400), np.arange(5000, 5000 + rare_size)]
    split = hold_out_test(members, 30, "omit", [*CELLS, ("b", "unknown")])
    tested = [len(np.intersect1d(cell, split.test)) for cell in members]
    assert tested == ([100] * 4 + [0] if is_rare else [10] * 5)
    assert sorted([*split.train, *split.test]) == sorted(np.concatenate(members))
    assert (f"(b, unknown) has {rare_size}; such cells are not tested" in split.notes[0]) == is_rare


def test_rare_cells_shrink_the_test_or_are_refused_on_request():
    members, names = [*cells(200, 300, 201, 400), np.arange(5000, 5008)], [*CELLS, ("b", "unknown")]
    assert [len(np.intersect1d(cell, hold_out_test(members, 30, "shrink", names).test)) for cell in members] == [4] * 5
    with pytest.raises(UserError, match=r"to test 10 of every.*\(b, unknown\) has 8.*--rare_cells omit or shrink"):
        hold_out_test(members, 30, "refuse", names)
    assert hold_out_test(members[:4], 30, "refuse", CELLS).notes == ()


def test_small_data_sets_are_split_although_all_cells_are_rare():
    split = hold_out_test(cells(4, 9, 19, 7), 30, "omit", CELLS)
    assert len(split.test) == 4 * 2 and "the smallest tested cell has 4 images" in split.notes[0]


@pytest.mark.parametrize("sizes, lost", [((300, 5, 300, 300), "of a are"), ((300, 300, 5, 5), "of b are"),
                                         ((5, 5, 300, 5), "of a, b are")])
def test_a_class_must_keep_two_tested_groups(sizes, lost):
    with pytest.raises(UserError, match=f"fewer than two groups {lost} tested.*--rare_cells shrink"):
        hold_out_test(cells(*sizes), 30, "omit", CELLS)


def test_a_class_that_has_a_single_group_may_be_tested_in_it():
    assert len(hold_out_test(cells(300, 300, 300), 30, "omit", [*CELLS[:2], ("b", "x")]).test) == 300
    with pytest.raises(UserError, match="of b are tested"):
        hold_out_test(cells(300, 300, 3), 30, "omit", [*CELLS[:2], ("b", "x")])
