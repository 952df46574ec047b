"""Fairness metrics against tables made by hand, and against fairlearn where both are defined."""

import math

import pytest
import torch
from fairlearn import metrics as fairlearn_metrics

from fairdd.core.rng import numpy_generator, seeded
from fairdd.datasets import get_dataset
from fairdd.evaluation.metrics import (
    accuracy_table,
    attribute_metrics,
    covered_cells,
    demographic_parity_difference,
    deo_a,
    deo_m,
    empty_cells,
    equal_opportunity_difference,
    fairness_metrics,
    per_class_gap,
    prediction_table,
    summarize,
    worst_cell_accuracy,
    worst_group_accuracy,
)
from fairdd.evaluation.projection import MAX_REAL_IMAGES, project_to_plane
from fairdd.run.folder import restore_nan, to_jsonable
from networks import get_network

NAN = math.nan


def predictions_for(table, size=20):
    """Return predictions, labels and groups with exactly the accuracies of a (G, C) table; NaN: an empty cell."""
    rows = []
    for group, row in enumerate(table):
        for label, accuracy in enumerate(row):
            if not math.isnan(accuracy):
                hits = round(accuracy * size)
                rows += [(label, label, group)] * hits + [((label + 1) % len(row), label, group)] * (size - hits)
    return torch.tensor(rows).t()


def random_predictions(num_classes, num_groups, seed=3):
    """Return random predictions, labels and groups of 400 images."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(high, (400,), generator=generator) for high in (num_classes, num_classes, num_groups)]


def test_table_and_gaps_of_an_example_made_by_hand():
    expected = [[0.9, 0.5, 1.0], [0.6, 0.5, 0.2]]
    table = accuracy_table(*predictions_for(expected), 3, 2)
    assert torch.allclose(table, torch.tensor(expected).double())
    assert torch.allclose(per_class_gap(table), torch.tensor([0.3, 0.0, 0.8]).double())
    assert deo_m(table) == pytest.approx(0.8)
    assert deo_a(table) == pytest.approx(1.1 / 3)
    assert worst_cell_accuracy(table) == pytest.approx(0.2)


def test_a_perfect_classifier_is_fair_even_if_cells_are_empty():
    table = accuracy_table(*predictions_for([[1.0, NAN], [1.0, 1.0], [NAN, 1.0]]), 2, 3)
    assert deo_m(table) == deo_a(table) == 0
    assert worst_cell_accuracy(table) == 1
    assert table.isnan().sum() == 2


def test_a_class_tested_in_fewer_than_two_groups_does_not_change_the_mean_gap():
    table = torch.tensor([[0.9, NAN, 0.4], [0.5, NAN, NAN]]).double()
    assert per_class_gap(table).isnan().tolist() == [False, True, True]
    assert deo_a(table) == pytest.approx(0.4)


def test_deo_is_nan_if_no_class_has_a_gap():
    table = torch.tensor([[0.9, 0.4]]).double()
    assert math.isnan(deo_m(table)) and math.isnan(deo_a(table))


def test_metrics_work_for_a_single_test_image():
    label = torch.tensor([1])
    assert fairness_metrics(label, label, torch.tensor([0]), 2, 2)["accuracy"] == 100


def test_the_order_of_groups_does_not_matter():
    table = torch.rand(5, 4, generator=torch.Generator().manual_seed(0)).double()
    shuffled = table[torch.randperm(5)]
    assert deo_m(table) == deo_m(shuffled) and deo_a(table) == pytest.approx(deo_a(shuffled))


@pytest.mark.parametrize(("metric", "agg"), [(deo_m, "worst_case"), (deo_a, "mean")])
def test_deo_of_two_classes_equals_fairlearns_equalized_odds_difference(metric, agg):
    predictions, labels, groups = random_predictions(2, 3)
    expected = fairlearn_metrics.equalized_odds_difference(
        labels.numpy(), predictions.numpy(), sensitive_features=groups.numpy(), agg=agg
    )
    assert metric(accuracy_table(predictions, labels, groups, 2, 3)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_parity_and_opportunity_of_two_classes_equal_fairlearns(seed):
    predictions, labels, groups = random_predictions(2, 4, seed)
    arrays = dict(y_true=labels.numpy(), y_pred=predictions.numpy(), sensitive_features=groups.numpy())
    parity = demographic_parity_difference(predictions, groups, 2, 4)
    opportunity = equal_opportunity_difference(accuracy_table(predictions, labels, groups, 2, 4))
    assert parity == pytest.approx(fairlearn_metrics.demographic_parity_difference(**arrays), abs=1e-12)
    assert opportunity == pytest.approx(fairlearn_metrics.equal_opportunity_difference(**arrays), abs=1e-12)


def test_the_accuracy_of_a_group_weighs_images_not_classes():
    labels = torch.tensor([0] * 8 + [1] * 2 + [0, 1])
    groups = torch.tensor([0] * 10 + [2, 2])               # group 1 has no images
    predictions = torch.zeros(12, dtype=torch.int64)
    assert worst_group_accuracy(predictions, labels, groups, 3) == 0.5
    assert worst_group_accuracy(predictions[:10], labels[:10], groups[:10], 3) == 0.8


def test_demographic_parity_is_the_largest_gap_in_how_often_a_class_is_predicted():
    groups = torch.tensor([0] * 4 + [1] * 4)
    predictions = torch.tensor([0, 0, 1, 2, 0, 1, 1, 1])
    table = prediction_table(predictions, groups, 3, 3)
    assert table[:2].tolist() == [[0.5, 0.25, 0.25], [0.25, 0.75, 0]] and table[2].isnan().all()
    assert demographic_parity_difference(predictions, groups, 3, 3) == 0.5


def test_equal_opportunity_is_the_gap_of_the_second_of_two_classes():
    assert equal_opportunity_difference(torch.tensor([[0.1, 0.9], [0.8, 0.6]]).double()) == pytest.approx(0.3)
    assert math.isnan(equal_opportunity_difference(torch.tensor([[0.1, 0.9, 1.0], [0.8, 0.6, 1.0]]).double()))


def test_undefined_metrics_survive_a_round_trip_through_json():
    predictions, labels, groups = random_predictions(3, 2)
    metrics = fairness_metrics(predictions, labels, groups.clamp(max=0), 3, 2)      # the second group is empty
    assert math.isnan(metrics["equal_opportunity_difference"]) and math.isnan(metrics["table"][1][0])
    assert repr(restore_nan(to_jsonable(metrics))) == repr(metrics)


def test_a_summary_has_mean_sample_std_and_number_of_networks():
    metrics = [{"accuracy": 90.0, "table": [[80.0, NAN]]}, {"accuracy": 94.0, "table": [[90.0, NAN]]}]
    summary = summarize(metrics)
    assert summary["accuracy"] == {"mean": 92, "std": pytest.approx(8**0.5), "n": 2}
    assert repr(summary["table"]) == repr([[85.0, NAN]])
    assert repr(summary["table_std"]) == repr([[50.0**0.5, NAN]])
    assert summarize(metrics[:1])["accuracy"]["std"] is None and summarize(metrics[:1])["table_std"] is None


def test_empty_cells_are_named():
    counts = torch.tensor([[3, 0], [2, 1]])
    assert empty_cells(counts, ("young", "old"), ("white", "black")) == ["(old, white)"]


def test_covered_cells_counts_the_cells_with_test_images():
    predictions, labels, groups = random_predictions(3, 2)
    empty = (labels == 2) & (groups == 1)
    metrics = fairness_metrics(predictions[~empty], labels[~empty], groups[~empty], 3, 2)
    for table in (metrics["table"], torch.tensor(metrics["table"]), to_jsonable(metrics)["table"],
                  summarize([metrics, metrics])["table"]):
        assert covered_cells(table) == (5, 6)
    assert covered_cells(fairness_metrics(predictions, labels, groups, 3, 2)["table"]) == (6, 6)
    assert not math.isnan(metrics["DEO_M"])         # a number that says nothing of class 2


def test_deo_of_three_classes_compares_true_positive_rates_only():
    labels = torch.tensor([0, 1, 2] * 8)
    groups = torch.tensor([0] * 12 + [1] * 12)
    predictions = labels.clone()
    predictions[(labels == 2) & (groups == 0)] = 0          # the same number of errors in both groups,
    predictions[(labels == 2) & (groups == 1)] = 1          # but into different classes
    assert deo_m(accuracy_table(predictions, labels, groups, 3, 2)) == 0
    assert demographic_parity_difference(predictions, groups, 3, 2) == pytest.approx(1 / 3)


def test_metrics_of_one_of_several_attributes_equal_those_with_that_attribute_as_group():
    generator = torch.Generator().manual_seed(5)
    predictions, labels, first, second = (torch.randint(n, (500,), generator=generator) for n in (3, 3, 2, 4))
    second[first == 1] = second[first == 1].clamp(max=1)        # cells of many sizes, some empty
    attributes = (("Male", ("0", "1")), ("race", ("a", "b", "c", "d")))
    metrics = attribute_metrics(predictions, labels, first * 4 + second, 3, attributes)
    for name, groups, size in (("Male", first, 2), ("race", second, 4)):
        table = accuracy_table(predictions, labels, groups, 3, size)
        assert metrics.pop(f"DEO_M[{name}]") == 100 * deo_m(table)
        assert metrics.pop(f"DEO_A[{name}]") == 100 * deo_a(table)
    assert not metrics and attribute_metrics(predictions, labels, first, 3, ()) == {}


def test_predictions_can_be_fair_to_each_attribute_and_unfair_to_their_combinations():
    table = [[1, 1], [0.5, 0.5], [0.5, 0.5], [1, 1]]            # groups (0, 0), (0, 1), (1, 0), (1, 1)
    predictions, labels, groups = predictions_for(table)
    metrics = attribute_metrics(predictions, labels, groups, 2, (("a", ("0", "1")), ("b", ("0", "1"))))
    assert set(metrics.values()) == {0}
    assert fairness_metrics(predictions, labels, groups, 2, 4)["DEO_M"] == 50


def test_the_plane_is_spanned_by_the_first_two_principal_components():
    real = get_dataset("Colored_Digits").train
    with seeded("weights"):
        net = get_network("ConvNetD1W32", 3, 10, (16, 16)).eval()
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    result = project_to_plane(net, real, {"syn": [images, torch.arange(4)]}, 0, "view")

    rows = torch.from_numpy(numpy_generator(0, "view", "rows").permutation(len(real))[:MAX_REAL_IMAGES])
    with torch.no_grad():
        features, syn_features = net.embed(real.batch(rows)).double(), net.embed(images).double()
    _, values, axes = torch.linalg.svd(features - features.mean(0), full_matrices=False)
    axes = axes[:2] * axes[:2].gather(1, axes[:2].abs().argmax(1, keepdim=True)).sign()     # largest entry positive
    for name, expected in (("real", features), ("syn", syn_features)):
        points = torch.tensor(result[name]["points"], dtype=torch.float64)
        assert torch.allclose(points, (expected - features.mean(0)) @ axes.T, atol=1e-4)
    assert result["share"] == pytest.approx((values[:2].square().sum() / values.square().sum()).item())
    assert result["real"]["labels"] == real.labels[rows].tolist()
    assert result["real"]["groups"] == real.groups[rows].tolist() and result["syn"]["labels"] == [0, 1, 2, 3]
