"""Evaluation: the published training schedule, fresh networks by key, one prediction for each test image."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import main_DC
import main_DM
from fairdd.core.rng import torch_generator
from fairdd.datasets.base import GroupedImages
from fairdd.evaluation.metrics import accuracy_table
from fairdd.evaluation.score_metrics import score_metrics
from fairdd.evaluation.training import (
    TrainConfig,
    augment_batch,
    evaluate_synset,
    init_network,
    predict,
    predict_logits,
    sgd,
    train_epochs,
    train_with_schedule,
)
from fairdd.flags import DSA
from fairdd.matching.augment import augment, crop_noise, draw
from fairdd.run.context import evaluation_config


def brightness_data(count=300):
    """Return images whose class is their brightness and whose group is random."""
    generator = torch.Generator().manual_seed(0)
    labels, groups = (torch.randint(2, (count,), generator=generator) for _ in range(2))
    images = labels.view(-1, 1, 1, 1) * 150 + torch.randint(100, (count, 3, 4, 4), generator=generator)
    return GroupedImages(images.to(torch.uint8), labels, groups, ("dark", "bright"), ("a", "b"), (0.5,) * 3, (0.5,) * 3)


def linear_net():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 2))


class RecordingData:
    """Data that records the indices of every batch."""

    def __init__(self, data):
        self.data, self.labels, self.batches = data, data.labels, []

    def batch(self, index):
        self.batches.append(index)
        return self.data.batch(index)


@pytest.mark.parametrize("epochs", [1, 4, 7])
def test_training_follows_the_published_schedule(epochs):
    data, config = RecordingData(brightness_data(25)), TrainConfig(epochs, lr=0.1, batch_size=10)
    torch.manual_seed(1)
    net, expected = linear_net(), linear_net()
    expected.load_state_dict(net.state_dict())
    train_with_schedule(net, data, config, torch_generator(0))
    batches = iter(data.batches)
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for epoch in range(epochs + 1):
        rows = [next(batches) for _ in range(3)]
        assert [len(index) for index in rows] == [10, 10, 5]
        assert sorted(torch.cat(rows).tolist()) == list(range(25)) != torch.cat(rows).tolist()
        for index in rows:
            optimizer.zero_grad()
            F.cross_entropy(expected(data.data.batch(index)), data.labels[index]).backward()
            optimizer.step()
        if epoch == epochs // 2 + 1:
            optimizer = torch.optim.SGD(expected.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    assert not list(batches)
    assert torch.allclose(net[1].weight, expected[1].weight, atol=1e-6)


def test_matching_trains_networks_for_exactly_the_epochs_asked_for():
    data = RecordingData(brightness_data(25))
    net = linear_net()
    train_epochs(net, data, TrainConfig(3, 0.1, batch_size=25), sgd(net, 0.1), torch_generator(0))
    assert [len(index) for index in data.batches] == [25, 25, 25]
    assert len({tuple(index.tolist()) for index in data.batches}) == 3


@pytest.mark.parametrize(("strategy", "expected"), [
    ("none", lambda images, generator: images),
    ("color_flip", lambda images, generator: augment(images, draw("color_flip", 25, generator, one_operation=True))),
    ("crop_noise", crop_noise),
])
def test_training_batches_are_augmented_by_their_strategy(strategy, expected):
    images = brightness_data(25).batch(torch.arange(25))
    result = augment_batch(images, TrainConfig(1, 0.1, strategy=strategy), torch_generator(0))
    assert torch.equal(result, expected(images, torch_generator(0)))
    assert torch.equal(result, images) == (strategy == "none")
    seen = []
    net = linear_net()
    net.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    train_with_schedule(net, brightness_data(25), TrainConfig(1, 0.1, strategy=strategy), torch_generator(0))
    generator = torch_generator(0)
    order = torch.randperm(25, generator=generator)
    assert torch.equal(seen[0], expected(images[order], generator))


@pytest.mark.parametrize(("entry", "flags", "strategies"), [
    (main_DC, ["--method", "DC"], {"ConvNetBN": "crop_noise", "ConvNet": "none"}),
    (main_DC, ["--method", "DSA"], {"ConvNetBN": DSA, "ConvNet": DSA}),
    (main_DM, [], {"ConvNetBN": DSA, "ConvNet": DSA}),
])
@pytest.mark.parametrize("dataset", ["Colored_Digits", "CelebA"])
def test_evaluation_augments_as_the_method_and_dc_its_batch_norm_network(
        monkeypatch, entry, flags, strategies, dataset):
    runs = []
    monkeypatch.setattr(entry, "distill", lambda args, *_: runs.append(args))
    entry.main([*flags, "--dataset", dataset])
    assert {model: evaluation_config(runs[0], model).strategy for model in strategies} == strategies


def test_an_easy_problem_is_learned_and_every_network_reported():
    data = brightness_data()
    metrics = evaluate_synset(linear_net, data, data, TrainConfig(20, 0.01), 3, "key")
    assert len(metrics) == 3 and all(m["accuracy"] == 100 and m["DEO_M"] == 0 for m in metrics)


def test_networks_differ_from_each_other_and_repeat_by_key():
    data = brightness_data()

    def trained_weights(key):
        nets = []
        evaluate_synset(lambda: nets.append(linear_net()) or nets[-1], data, data, TrainConfig(1, 0.01), 2, key)
        return [net[1].weight for net in nets]

    first, again, other = trained_weights("a"), trained_weights("a"), trained_weights("b")
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[0], other[0])


@pytest.mark.parametrize("strategy", ["none", "color_flip", "crop_noise"])
def test_evaluation_leaves_the_global_generator_alone(strategy):
    data = brightness_data(20)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    evaluate_synset(linear_net, data, data, TrainConfig(1, 0.01, strategy=strategy), 1, "key")
    assert torch.equal(torch.rand(3), expected)


def test_every_test_image_gets_the_prediction_of_the_network_in_evaluation_mode():
    torch.manual_seed(0)
    data, net = brightness_data(50), nn.Sequential(nn.BatchNorm2d(3), *linear_net())
    images = data.batch(torch.arange(50))
    with torch.no_grad():
        net(10 * torch.rand_like(images))               # running statistics that are not those of the test images
        in_training = copy.deepcopy(net)(images).argmax(1)
        expected = net.eval()(images).argmax(1)
    assert torch.equal(predict(net.train(), data), expected) and not torch.equal(in_training, expected)


def test_every_network_gets_the_metrics_of_its_logits_too():
    data, config = brightness_data(25), TrainConfig(1, 0.1)
    [metrics] = evaluate_synset(linear_net, data, data, config, 1, "key")
    net = init_network(linear_net, "key", 0)
    train_with_schedule(net, data, config, torch_generator("key", 0, "training"))
    table = accuracy_table(predict(net, data), data.labels, data.groups, 2, 2)
    expected = score_metrics(predict_logits(net, data), data.labels, data.groups, table)
    assert expected == pytest.approx({name: metrics[name] for name in expected})
