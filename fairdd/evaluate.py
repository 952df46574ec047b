"""Evaluation: train fresh networks on a set of images and test each once on a set balanced over (class, group)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tqdm import tqdm

from fairdd.augment import augment, crop_noise, draw
from fairdd.fairness import fairness_figures
from fairdd.seeds import seeded, torch_generator

TEST_BATCH = 1024
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. strategy: of DSA, "none", or "crop_noise" (DC's for batch-norm networks)."""

    epochs: int
    lr: float
    batch_size: int = 256
    strategy: str = "none"


def evaluate_synset(make_net, data, test, recipe, num_eval, *key):
    """Train num_eval fresh networks on data and test each. -> list of fairness_figures, one for each network

    make_net() gives a network, on the device of the images; data: anything with labels and batch(index) (a SynSet,
    a GroupedImages); test: GroupedImages.
    """
    return [evaluate_network(make_net, data, test, recipe, *key, number) for number in range(num_eval)]


def evaluate_network(make_net, data, test, recipe, *key, title=None):
    """Train one fresh network on data and test it, all its draws from the key. -> fairness_figures"""
    with seeded(*key, "weights"):
        net = make_net()
    train(net, data, recipe, torch_generator(*key, "training"), title)
    return fairness_figures(predict(net, test), test.labels, test.groups, test.num_classes, test.num_groups)


def train(net, data, recipe, generator, title=None):
    """Train as published: epochs + 1 passes of SGD; past half of them lr falls to a tenth and momentum starts anew."""
    optimizer = sgd(net, recipe.lr)
    net.train()
    for epoch in tqdm(range(recipe.epochs + 1), title, leave=False, disable=None if title else True):
        train_epoch(net, data, recipe, optimizer, generator)
        if epoch == recipe.epochs // 2 + 1:
            optimizer = sgd(net, recipe.lr / 10)


def train_epoch(net, data, recipe, optimizer, generator):
    """One pass over data, in an order and with augmentations drawn from the generator."""
    for index in torch.randperm(len(data.labels), generator=generator).split(recipe.batch_size):
        images = augmented(data.batch(index), recipe.strategy, generator)
        loss = F.cross_entropy(net(images), data.labels[index].to(images.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def sgd(net, lr):
    """The optimiser of every evaluation network."""
    return torch.optim.SGD(net.parameters(), lr=lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)


def augmented(images, strategy, generator):
    """A training batch, augmented: DSA draws one operation for the batch and numbers for each image."""
    if strategy == "crop_noise":
        return crop_noise(images, generator)
    return augment(images, draw(strategy, len(images), generator, one_operation=True))


@torch.inference_mode()
def predict(net, data):
    """The predicted class of every image of data. -> (N,) int64 on the CPU"""
    net.eval()
    index = torch.arange(len(data)).split(TEST_BATCH)
    return torch.cat([net(data.batch(rows)).argmax(1) for rows in index]).cpu()
