"""AUROC, calibration and equalized odds against scikit-learn and fairlearn on random tables with empty cells."""

import math

import numpy as np
import pytest
import torch
from fairlearn.metrics import equalized_odds_difference
from sklearn.metrics import accuracy_score, roc_auc_score

from fairdd.evaluation.metrics import accuracy_table, deo_a, deo_m
from fairdd.evaluation.score_metrics import (
    auroc_by_class,
    auroc_table,
    calibration_error,
    equalized_odds,
    false_positive_table,
    group_accuracies,
    score_metrics,
)


def random_scores(num_classes, num_groups, seed):
    """Return logits with ties, labels and groups; the first group lacks the last class, the last group is empty."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_classes, (400,), generator=generator)
    groups = torch.randint(num_groups - 1, (400,), generator=generator)
    logits = torch.randn(400, num_classes, generator=generator).mul(4).round() / 4
    logits += torch.nn.functional.one_hot(labels, num_classes)
    kept = (labels != num_classes - 1) | (groups != 0)
    return logits[kept], labels[kept], groups[kept]


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_auroc_of_each_group_and_class_equals_scikit_learns(num_classes, seed):
    logits, labels, groups = random_scores(num_classes, 4, seed)
    table = auroc_table(logits, labels, groups, 4)
    for g, c in np.ndindex(4, num_classes):
        rows = groups == g
        positive = labels[rows] == c
        if positive.any() and not positive.all():
            scores = logits[rows].double().log_softmax(1)[:, c]
            assert table[g, c].item() == pytest.approx(roc_auc_score(positive, scores.numpy().round(12)), abs=1e-9)
        else:
            assert table[g, c].isnan()


def test_auroc_of_confident_networks_does_not_round_to_ties():
    logits = torch.tensor([[0.0, 100.0], [0.0, 90.0], [0.0, 80.0]])
    assert auroc_by_class(logits, torch.tensor([1, 1, 0])).tolist() == [1, 1]


@pytest.mark.parametrize("seed", range(3))
def test_equalized_odds_equals_fairlearns_for_each_class_against_the_rest(seed):
    generator = torch.Generator().manual_seed(seed)
    predictions, labels, groups = (torch.randint(high, (500,), generator=generator) for high in (4, 4, 3))
    rates = accuracy_table(predictions, labels, groups, 4, 4), false_positive_table(predictions, labels, groups, 4, 4)
    expected = {
        agg: [equalized_odds_difference(labels == c, predictions == c, sensitive_features=groups.numpy(), agg=agg)
              for c in range(4)]
        for agg in ("worst_case", "mean")
    }
    assert equalized_odds(*rates) == pytest.approx((max(expected["worst_case"]), np.mean(expected["mean"])))


def test_equalized_odds_of_two_classes_equals_deo_with_an_empty_cell_too():
    logits, labels, groups = random_scores(2, 4, 0)
    table = accuracy_table(logits.argmax(1), labels, groups, 2, 4)
    false_positives = false_positive_table(logits.argmax(1), labels, groups, 2, 4)
    assert torch.allclose(false_positives, 1 - table.flip(1), equal_nan=True)
    assert equalized_odds(table, false_positives) == pytest.approx((deo_m(table), deo_a(table)))


def test_accuracy_of_each_group_equals_scikit_learns():
    logits, labels, groups = random_scores(4, 4, 1)
    accuracies = group_accuracies(logits.argmax(1), labels, groups, 4)
    for g in range(3):
        rows = groups == g
        assert accuracies[g].item() == pytest.approx(accuracy_score(labels[rows], logits[rows].argmax(1)))
    assert accuracies[3].isnan()


@pytest.mark.parametrize("seed", range(3))
def test_calibration_error_equals_its_formula_bin_by_bin(seed):
    logits, labels, _ = random_scores(4, 4, seed)
    confidences, predictions = logits.double().softmax(1).max(1)
    expected = 0.0
    for b in range(15):
        rows = (confidences > b / 15) & (confidences <= (b + 1) / 15)
        if rows.any():
            accuracy = (predictions == labels)[rows].double().mean()
            expected += (rows.double().mean() * (accuracy - confidences[rows].mean()).abs()).item()
    assert calibration_error(logits, labels) == pytest.approx(expected, abs=1e-12)


def test_a_confidence_on_the_edge_of_two_bins_belongs_to_the_lower_one():
    probabilities = torch.tensor([[0.2] * 5, [0.25, 0.2, 0.2, 0.2, 0.15]], dtype=torch.float64)     # 0.2 is edge 3 / 15
    labels = torch.tensor([0, 1])           # the first is right, the second wrong: in one bin they would cancel
    assert calibration_error(probabilities.log(), labels) == pytest.approx((0.8 + 0.25) / 2)


def test_a_certain_network_that_is_always_wrong_has_calibration_error_1():
    assert calibration_error(torch.tensor([[1000.0, 0.0]]), torch.tensor([1])) == 1
    assert math.isnan(calibration_error(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)))


def test_gaps_leave_out_what_is_undefined():
    logits, labels, groups = random_scores(2, 4, 2)
    everything = score_metrics(logits, labels, groups, accuracy_table(logits.argmax(1), labels, groups, 2, 4))
    without_empty = score_metrics(logits, labels, groups, accuracy_table(logits.argmax(1), labels, groups, 2, 3))
    assert everything == without_empty and all(0 <= value <= 100 for value in everything.values())
    single = score_metrics(logits, labels, 0 * groups, accuracy_table(logits.argmax(1), labels, 0 * groups, 2, 1))
    assert {name for name, value in single.items() if math.isnan(value)} == {
        "accuracy_gap", "EO_M", "EO_A", "AUROC_gap", "ECE_gap"
    }
