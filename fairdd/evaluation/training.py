"""Evaluation: train fresh networks on a set of images and test each once on a set balanced over (class, group)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tqdm import tqdm

from fairdd.matching.augment import augment, crop_noise, draw
from fairdd.core.parallel import ordered_map, max_chunk_size, parts, total
from fairdd.evaluation.metrics import attribute_metrics, fairness_metrics
from fairdd.core.rng import seeded, torch_generator

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained. strategy: of DSA, "none", or "crop_noise" (DC's for batch-norm networks)."""

    epochs: int
    lr: float
    batch_size: int = 256
    strategy: str = "none"


def evaluate_synset(make_net, data, test, recipe, num_eval, *key):
    """Train num_eval fresh networks on data and test each. -> list of fairness_metrics, one for each network

    make_net() gives a network, on the device of the images; data: anything with labels and batch(index)
    (SynSet.as_dataset(), a GroupedImages); test: GroupedImages.
    """
    return list(evaluate_networks(make_net, data, test, recipe, [(*key, number) for number in range(num_eval)]))


def evaluate_networks(make_net, data, test, recipe, keys, title=None):
    """Train a fresh network for each key, all its draws from the key, and test it. -> yields fairness_metrics, in order

    Networks are trained side by side (parallel.ordered_map) but made here, for weights come from torch's global generator.
    """
    nets_and_keys = ((fresh(make_net, *key), key) for key in keys)
    steps = len(keys) * (recipe.epochs + 1)
    with tqdm(total=steps, desc=title and f"testing {title}", leave=False, disable=None if title else True) as bar:

        def figures(net_and_key):
            net, key = net_and_key
            train(net, data, recipe, torch_generator(*key, "training"), bar.update)
            return figures_of(predict(net, test), test)

        yield from ordered_map(figures, nets_and_keys, test.images.device)


def figures_of(predictions, test):
    """fairness_metrics of predictions (N,) for a test set, and the figures of each attribute its groups are made of."""
    asked = predictions, test.labels, test.groups, test.num_classes
    return fairness_metrics(*asked, test.num_groups) | attribute_metrics(*asked, test.attributes)


def network_for(make_network, name, data):
    """A new network of this name for the images and classes of data, where its images are."""
    channels, *side = data.images.shape[1:]
    return make_network(name, channels, data.num_classes, tuple(side)).to(data.images.device)


def fresh(make_net, *key):
    """A network of its own for this key."""
    with seeded(*key, "weights"):
        return make_net()


def train(net, data, recipe, generator, tick=lambda: None):
    """Train as published: epochs + 1 passes of SGD; past half of them lr falls to a tenth and momentum starts anew.

    tick() is called after every pass.
    """
    optimizer = sgd(net, recipe.lr)
    net.train()
    for epoch in range(recipe.epochs + 1):
        train_epoch(net, data, recipe, optimizer, generator)
        if epoch == recipe.epochs // 2 + 1:
            optimizer = sgd(net, recipe.lr / 10)
        tick()


def train_epochs(net, data, recipe, optimizer, generator):
    """As many passes over data as the recipe has epochs, the optimizer as it is: for networks that matching uses."""
    for _ in range(recipe.epochs):
        train_epoch(net, data, recipe, optimizer, generator)


def train_epoch(net, data, recipe, optimizer, generator):
    """One pass over data, in an order and with augmentations drawn from the generator."""
    for index in torch.randperm(len(data.labels), generator=generator).split(recipe.batch_size):
        images = augmented(data.batch(index), recipe.strategy, generator)
        accumulate_gradients(net, images, data.labels[index].to(images.device))
        optimizer.step()


def accumulate_gradients(net, images, labels):
    """The gradient of the mean cross entropy of a batch, put where the optimizer reads it."""
    weights = [weight for weight in net.parameters() if weight.requires_grad]

    def share(rows):
        loss = F.cross_entropy(net(images[rows]), labels[rows], reduction="sum") / len(images)
        return torch.autograd.grad(loss, weights)

    sums = total(ordered_map(share, parts(len(images), max_chunk_size(net, images[:1])), images.device))
    for weight, gradient in zip(weights, sums, strict=True):
        weight.grad = gradient


def sgd(net, lr):
    """The optimizer of every evaluation network."""
    return torch.optim.SGD(net.parameters(), lr=lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)


def augmented(images, strategy, generator):
    """A training batch, augmented: DSA draws one operation for the batch and numbers for each image."""
    if strategy == "crop_noise":
        return crop_noise(images, generator)
    return augment(images, draw(strategy, len(images), generator, one_operation=True))


def predict(net, data):
    """The predicted class of every image of data. -> (N,) int64 on the CPU"""
    net.eval()

    def classes(rows):
        with torch.inference_mode():
            return net(data.batch(rows)).argmax(1).cpu()

    index = torch.arange(len(data))
    size = max_chunk_size(net, data.batch(index[:1]))
    rows = [index[part] for part in parts(len(data), size)]
    return torch.cat(list(ordered_map(classes, rows, data.images.device)))
