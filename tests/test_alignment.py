"""Targets of every alignment; losses follow any targets, so a new alignment is one function."""

from dataclasses import replace

import pytest
import torch
from test_matching import GROUPS, LABELS, assert_is_formula, every_method, plain_targets

from fairdd.matching.alignment import (
    ALIGNMENTS,
    Targets,
    barycenter_targets,
    class_mean_targets,
    per_group_targets,
    segment_sum,
    targets_of_each,
)


@pytest.mark.parametrize("align", ALIGNMENTS)
def test_targets_are_the_means_of_the_formula(align):
    targets, expected = ALIGNMENTS[align](LABELS, GROUPS), plain_targets(align)
    values = torch.randn(12, 5).double()
    means = torch.stack([(weights[:, None] * values).sum(0) for _, _, weights in expected])
    assert targets.classes.tolist() == [label for label, _, _ in expected] and len(targets) == len(expected)
    assert targets.coefficients.tolist() == [1] * len(targets)
    assert torch.allclose(segment_sum(values, targets), means, rtol=1e-12)


@pytest.mark.parametrize("align", ALIGNMENTS)
def test_weights_sum_to_one_within_a_target_and_every_image_is_in_a_target_of_its_class(align):
    targets = ALIGNMENTS[align](LABELS, GROUPS)
    sums = torch.bincount(targets.segment_ids, targets.weights)
    assert len(sums) == len(targets) and torch.allclose(sums, torch.ones(len(sums)).double())
    assert targets.images.tolist() == list(range(12))
    assert torch.equal(targets.classes[targets.segment_ids], LABELS)


def test_fairdd_has_one_target_per_group_present_and_none_for_an_absent_group():
    assert per_group_targets(LABELS, GROUPS).classes.tolist() == [0, 0, 0, 1, 1, 2]


def test_with_one_group_all_alignments_are_vanilla():
    vanilla = class_mean_targets(LABELS, None)
    for align in (per_group_targets, barycenter_targets):
        targets = align(LABELS, torch.zeros_like(LABELS))
        assert torch.equal(targets.segment_ids, vanilla.segment_ids) and torch.equal(targets.weights, vanilla.weights)


# (target, image, weight): image 2 is in two targets, image 7 twice in one, images 4, 6, 8 and 11 are in none
PAIRS = [
    (0, 0, 0.2), (0, 1, 0.3), (0, 2, 0.5),
    (1, 2, 0.9), (1, 3, 0.4),
    (2, 7, 0.1), (2, 5, 0.6), (2, 7, 0.2),
    (3, 9, 1.0), (3, 10, -0.5),
]
CLASSES, COEFFICIENTS = [0, 0, 1, 2], [0.5, 2.0, 3.0, 0.25]


@every_method
@pytest.mark.parametrize("order", [range(10), range(9, -1, -1), [5, 0, 9, 2, 7, 4, 1, 8, 3, 6]])
def test_losses_of_overlapping_targets_with_coefficients_are_the_formula(method, order):
    segment_ids, images, weights = zip(*(PAIRS[index] for index in order), strict=True)
    targets = Targets(torch.tensor(CLASSES), torch.tensor(COEFFICIENTS, dtype=torch.float64), torch.tensor(images),
                      torch.tensor(segment_ids), torch.tensor(weights, dtype=torch.float64))
    plain = [(label, coefficient, torch.zeros(12).double())
             for label, coefficient in zip(CLASSES, COEFFICIENTS, strict=True)]
    for target, image, weight in PAIRS:
        plain[target][2][image] += weight
    assert_is_formula(method, targets, plain)


def root_count_targets(labels, groups):
    """Return FairDD's targets, each with the square root of its number of images as its coefficient."""
    targets = per_group_targets(labels, groups)
    counts = torch.bincount(targets.segment_ids)
    return replace(targets, coefficients=counts.double().sqrt())


@every_method
def test_an_alignment_is_added_in_five_lines(method, monkeypatch):
    monkeypatch.setitem(ALIGNMENTS, "root_count", root_count_targets)
    plain = [(label, float((weights > 0).sum()) ** 0.5, weights) for label, _, weights in plain_targets("fairdd")]
    assert_is_formula(method, ALIGNMENTS["root_count"](LABELS, GROUPS), plain)


FIRST, SECOND = GROUPS, (torch.arange(12) + LABELS) % 2         # two attributes, of three values and of two


@pytest.mark.parametrize("align", ["fairdd", "barycenter"])
def test_attributes_side_by_side_have_the_targets_of_each(align):
    targets = targets_of_each(ALIGNMENTS[align], LABELS, FIRST * 2 + SECOND, [3, 2])
    assert targets.classes.tolist() == sorted(targets.classes.tolist())
    values, expected = torch.randn(12, 5).double(), []
    for groups in (FIRST, SECOND):
        of_attribute = ALIGNMENTS[align](LABELS, groups)
        expected += zip(of_attribute.classes.tolist(), segment_sum(values, of_attribute).tolist(), strict=True)
    actual = zip(targets.classes.tolist(), segment_sum(values, targets).tolist(), strict=True)
    for (label, mean), (expected_label, expected_mean) in zip(sorted(actual), sorted(expected), strict=True):
        assert label == expected_label and mean == pytest.approx(expected_mean)


@every_method
def test_losses_of_attributes_side_by_side_are_the_formula(method):
    targets, plain = targets_of_each(per_group_targets, LABELS, FIRST * 2 + SECOND, [3, 2]), []
    for label in range(3):
        for groups in (FIRST, SECOND):
            masks = [(label == LABELS) & (groups == group) for group in groups[label == LABELS].unique()]
            plain += [(label, 1.0, mask / mask.sum().double()) for mask in masks]
    assert_is_formula(method, targets, plain)


def test_an_image_of_unknown_group_is_in_no_attributes_target():
    groups = (FIRST * 2 + SECOND).where(torch.arange(12) != 4, -1)
    targets = targets_of_each(per_group_targets, LABELS, groups, [3, 2])
    assert 4 not in targets.images and (torch.bincount(targets.images)[torch.arange(12) != 4] == 2).all()
