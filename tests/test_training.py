"""Evaluation: the published recipe, fresh networks by key, one answer for each test image."""

import torch
import torch.nn.functional as F
from torch import nn

from fairdd.core.rng import torch_generator
from fairdd.datasets import GroupedImages
from fairdd.evaluation.training import TrainConfig, evaluate_synset, predict, train


def grouped(count=300):
    """Images whose class is their brightness and whose group is drawn."""
    generator = torch.Generator().manual_seed(0)
    labels, groups = (torch.randint(2, (count,), generator=generator) for _ in range(2))
    images = labels.view(-1, 1, 1, 1) * 150 + torch.randint(100, (count, 3, 4, 4), generator=generator)
    return GroupedImages(images.to(torch.uint8), labels, groups, ("dark", "bright"), ("a", "b"), (0.5,) * 3, (0.5,) * 3)


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 2))


def test_training_is_the_published_recipe():
    data, recipe = grouped(10), TrainConfig(epochs=4, lr=0.1, batch_size=10)
    torch.manual_seed(1)
    ours, plain = linear(), linear()
    plain.load_state_dict(ours.state_dict())
    train(ours, data, recipe, torch_generator(0))
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for epoch in range(4 + 1):                      # one batch an epoch, so its order does not matter
        optimizer.zero_grad()
        F.cross_entropy(plain(data.batch(torch.arange(10))), data.labels).backward()
        optimizer.step()
        if epoch == 4 // 2 + 1:
            optimizer = torch.optim.SGD(plain.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    assert torch.allclose(ours[1].weight, plain[1].weight, atol=1e-6)


def test_an_easy_problem_is_learned_and_every_network_reported():
    data = grouped()
    figures = evaluate_synset(linear, data, data, TrainConfig(20, 0.01), 3, "key")
    assert len(figures) == 3 and all(f["accuracy"] == 100 and f["DEO_M"] == 0 for f in figures)


def test_networks_differ_among_each_other_and_repeat_by_key():
    data = grouped()

    def run(key):
        nets = []
        evaluate_synset(lambda: nets.append(linear()) or nets[-1], data, data, TrainConfig(1, 0.01), 2, key)
        return [net[1].weight for net in nets]

    first, again, other = run("a"), run("a"), run("b")
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[0], other[0])


def test_evaluating_leaves_the_global_generator_alone():
    data = grouped(20)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    evaluate_synset(linear, data, data, TrainConfig(1, 0.01, strategy="color_flip"), 1, "key")
    assert torch.equal(torch.rand(3), expected)


def test_every_image_gets_its_own_prediction_whatever_the_batches():
    data, net = grouped(2050), linear()             # the last batch holds two images
    with torch.no_grad():
        assert torch.equal(predict(net, data), net(data.batch(torch.arange(2050))).argmax(1))
