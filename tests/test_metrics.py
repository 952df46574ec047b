"""Fairness figures against tables made by hand, and against fairlearn where both are defined."""

import math

import pytest
import torch
from fairlearn.metrics import (
    demographic_parity_difference,
    equal_opportunity_difference,
    equalized_odds_difference,
)

from fairdd.evaluation.metrics import (
    accuracy_table,
    attribute_metrics,
    demographic_parity,
    deo_a,
    deo_m,
    empty_cells,
    equal_opportunity,
    fairness_metrics,
    per_class_gap,
    prediction_table,
    summarize,
    worst_cell,
    worst_group,
)
from fairdd.run.folder import jsonable, restored

NAN = math.nan


def predictions_for(table, size=20):
    """Predictions, labels, groups with exactly the accuracies of a (G, C) table; NaN: no image in the cell."""
    rows = []
    for group, row in enumerate(table):
        for label, accuracy in enumerate(row):
            if not math.isnan(accuracy):
                hits = round(accuracy * size)
                rows += [(label, label, group)] * hits + [((label + 1) % len(row), label, group)] * (size - hits)
    return torch.tensor(rows).t()


def test_table_and_gaps_of_a_hand_made_example():
    made = [[0.9, 0.5, 1.0], [0.6, 0.5, 0.2]]
    table = accuracy_table(*predictions_for(made), 3, 2)
    assert torch.allclose(table, torch.tensor(made).double())
    assert torch.allclose(per_class_gap(table), torch.tensor([0.3, 0.0, 0.8]).double())
    assert deo_m(table) == pytest.approx(0.8)
    assert deo_a(table) == pytest.approx(1.1 / 3)
    assert worst_cell(table) == pytest.approx(0.2)


def test_a_perfect_classifier_is_fair_even_where_cells_are_empty():
    table = accuracy_table(*predictions_for([[1.0, NAN], [1.0, 1.0], [NAN, 1.0]]), 2, 3)
    assert deo_m(table) == deo_a(table) == 0
    assert worst_cell(table) == 1
    assert table.isnan().sum() == 2


def test_a_class_that_no_two_groups_show_does_not_dilute_the_mean():
    table = torch.tensor([[0.9, NAN, 0.4], [0.5, NAN, NAN]]).double()
    assert per_class_gap(table).isnan().tolist() == [False, True, True]
    assert deo_a(table) == pytest.approx(0.4)


def test_without_any_gap_the_figures_are_undefined():
    table = torch.tensor([[0.9, 0.4]]).double()
    assert math.isnan(deo_m(table)) and math.isnan(deo_a(table))


def test_a_single_test_image_is_enough():
    one = torch.tensor([1])
    assert fairness_metrics(one, one, torch.tensor([0]), 2, 2)["accuracy"] == 100


def test_group_names_do_not_matter():
    made = torch.rand(5, 4).double()
    shuffled = made[torch.randperm(5)]
    assert deo_m(made) == deo_m(shuffled) and deo_a(made) == pytest.approx(deo_a(shuffled))


def random_answers(num_classes, num_groups, seed=3):
    """Predictions, labels and groups of 400 images, drawn."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(high, (400,), generator=generator) for high in (num_classes, num_classes, num_groups)]


@pytest.mark.parametrize(("figure", "agg"), [(deo_m, "worst_case"), (deo_a, "mean")])
def test_on_two_classes_deo_is_fairlearns_equalized_odds(figure, agg):
    predictions, labels, groups = random_answers(2, 3)
    theirs = equalized_odds_difference(
        labels.numpy(), predictions.numpy(), sensitive_features=groups.numpy(), agg=agg
    )
    assert figure(accuracy_table(predictions, labels, groups, 2, 3)) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_on_two_classes_parity_and_opportunity_are_fairlearns(seed):
    predictions, labels, groups = random_answers(2, 4, seed)
    numbers = dict(y_true=labels.numpy(), y_pred=predictions.numpy(), sensitive_features=groups.numpy())
    parity = demographic_parity(predictions, groups, 2, 4)
    opportunity = equal_opportunity(accuracy_table(predictions, labels, groups, 2, 4))
    assert parity == pytest.approx(demographic_parity_difference(**numbers), abs=1e-12)
    assert opportunity == pytest.approx(equal_opportunity_difference(**numbers), abs=1e-12)


def test_a_groups_accuracy_counts_its_images_not_its_classes():
    labels = torch.tensor([0] * 8 + [1] * 2 + [0, 1])
    groups = torch.tensor([0] * 10 + [2, 2])               # group 1 has no image
    predictions = torch.zeros(12, dtype=torch.int64)
    assert worst_group(predictions, labels, groups, 3) == 0.5
    assert worst_group(predictions[:10], labels[:10], groups[:10], 3) == 0.8


def test_parity_is_the_largest_difference_between_how_often_groups_get_a_class():
    groups = torch.tensor([0] * 4 + [1] * 4)
    predictions = torch.tensor([0, 0, 1, 2, 0, 1, 1, 1])
    table = prediction_table(predictions, groups, 3, 3)
    assert table[:2].tolist() == [[0.5, 0.25, 0.25], [0.25, 0.75, 0]] and table[2].isnan().all()
    assert demographic_parity(predictions, groups, 3, 3) == 0.5


def test_equal_opportunity_is_the_gap_of_the_second_of_two_classes():
    assert equal_opportunity(torch.tensor([[0.1, 0.9], [0.8, 0.6]]).double()) == pytest.approx(0.3)
    assert math.isnan(equal_opportunity(torch.tensor([[0.1, 0.9, 1.0], [0.8, 0.6, 1.0]]).double()))


def test_figures_survive_being_written_where_they_are_undefined():
    predictions, labels, groups = random_answers(3, 2)
    figures = fairness_metrics(predictions, labels, groups.clamp(max=0), 3, 2)      # the second group is empty
    assert math.isnan(figures["equal_opportunity"]) and math.isnan(figures["table"][1][0])
    assert repr(restored(jsonable(figures))) == repr(figures)


def test_summary_has_mean_sample_std_and_number_of_networks():
    figures = [{"accuracy": 90.0, "table": [[80.0, NAN]]}, {"accuracy": 94.0, "table": [[90.0, NAN]]}]
    summary = summarize(figures)
    assert summary["accuracy"] == {"mean": 92, "std": pytest.approx(8**0.5), "n": 2}
    assert repr(summary["table"]) == repr([[85.0, NAN]])
    assert repr(summary["table_std"]) == repr([[50.0**0.5, NAN]])
    assert summarize(figures[:1])["accuracy"]["std"] is None and summarize(figures[:1])["table_std"] is None


def test_empty_cells_are_named():
    counts = torch.tensor([[3, 0], [2, 1]])
    assert empty_cells(counts, ("young", "old"), ("white", "black")) == ["(old, white)"]


def test_figures_of_an_attribute_alone_equal_those_of_the_attribute_itself():
    generator = torch.Generator().manual_seed(5)
    predictions, labels, first, second = (torch.randint(n, (500,), generator=generator) for n in (3, 3, 2, 4))
    second[first == 1] = second[first == 1].clamp(max=1)        # cells of many sizes, some empty
    attributes = (("Male", ("0", "1")), ("race", ("a", "b", "c", "d")))
    figures = attribute_metrics(predictions, labels, first * 4 + second, 3, attributes)
    for name, groups, size in (("Male", first, 2), ("race", second, 4)):
        table = accuracy_table(predictions, labels, groups, 3, size)
        assert figures.pop(f"DEO_M[{name}]") == 100 * deo_m(table)
        assert figures.pop(f"DEO_A[{name}]") == 100 * deo_a(table)
    assert not figures and attribute_metrics(predictions, labels, first, 3, ()) == {}


def test_a_set_can_be_fair_to_each_attribute_and_unfair_to_their_combinations():
    table = [[1, 1], [0.5, 0.5], [0.5, 0.5], [1, 1]]            # groups (0, 0), (0, 1), (1, 0), (1, 1)
    predictions, labels, groups = predictions_for(table)
    figures = attribute_metrics(predictions, labels, groups, 2, (("a", ("0", "1")), ("b", ("0", "1"))))
    assert set(figures.values()) == {0}
    assert fairness_metrics(predictions, labels, groups, 2, 4)["DEO_M"] == 50
