"""The published way of distilling and evaluating, in our own words: what scripts/benchmark.py times ours against.

Loops over classes and groups, one backward through the class's whole batch for every group, a DataLoader in the inner
loop, networks one after another. Used for comparison only; beside each stands our way, on the same Scene.
"""

import copy

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from fairdd.datasets.base import GroupedImages
from fairdd.evaluation.training import TrainConfig, evaluate_synset, sgd, train_epoch
from fairdd.matching.augment import augment, draw
from fairdd.matching.gradient import ALIGNMENTS, embedding_loss, gradient_losses, match_loss
from fairdd.matching.synset import SynSet
from networks import MeanPool2d, get_network

STRATEGY = "color_crop_cutout_flip_scale_rotate"


class Scene:
    """Random images of every class and group (90 % of a class in one group), ten synthetic ones a class, a network."""

    def __init__(self, size, groups, dtype=torch.float32):
        generator = torch.Generator().manual_seed(0)
        count, self.classes, self.num_groups = size["batch"] * size["classes"], size["classes"], groups
        self.labels = torch.arange(self.classes).repeat_interleave(size["batch"])
        drawn = torch.randint(groups, (count,), generator=generator)
        self.groups = torch.where(torch.rand(count, generator=generator) < 0.9, self.labels % groups, drawn)
        shape = (3, size["side"], size["side"])
        self.real = torch.randn(count, *shape, generator=generator).to(dtype)
        self.syn_labels = torch.arange(self.classes).repeat_interleave(10)
        images = torch.randn(len(self.syn_labels), *shape, generator=generator).to(dtype)
        self.syn = SynSet(images, self.syn_labels, 0.1)
        torch.manual_seed(0)
        self.net = get_network(size["model"], 3, self.classes, shape[1:]).to(dtype)
        self.published_net = as_published(copy.deepcopy(self.net))
        self.draws = draw(STRATEGY, self.classes, generator)

    def parts(self, align, label):
        """The masks of the real images of a class that are targets, one after another."""
        mine = self.labels == label
        groups = self.groups[mine].unique().tolist() if align == "fairdd" else []
        return [self.groups[mine] == group for group in groups] or [torch.ones(int(mine.sum()), dtype=torch.bool)]


def as_published(net):
    """The same network with torch's own pooling."""
    for number, layer in enumerate(net.features):
        if isinstance(layer, MeanPool2d):
            net.features[number] = torch.nn.AvgPool2d(2)
    return net


class Ours:
    """Real images augmented part by part, as fairdd.distill.RealBatch gives them."""

    def __init__(self, scene):
        self.scene = scene

    def __len__(self):
        return len(self.scene.real)

    def __getitem__(self, index):
        return augment(self.scene.real[index], self.scene.draws, self.scene.labels[index])


def both_augmented(scene, label):
    """The real and synthetic images of a class under its draw."""
    real, syn = scene.real[scene.labels == label], scene.syn.of_class(label)
    return [augment(images, scene.draws, torch.full((len(images),), label)) for images in (real, syn)]


def published_dm(scene, align):
    """One DM loss and its pixel gradient, class by class."""
    scene.published_net.requires_grad_(False)
    loss = 0
    for label in range(scene.classes):
        real, syn = both_augmented(scene, label)
        of_real, of_syn = scene.published_net.embed(real).detach(), scene.published_net.embed(syn).mean(0)
        for mask in scene.parts(align, label):
            loss = loss + (of_real[mask].mean(0) - of_syn).square().sum()
    return [loss.detach(), *torch.autograd.grad(loss, scene.syn.images)]


def our_dm(scene, align):
    scene.net.requires_grad_(False)
    syn = augment(scene.syn.images, scene.draws, scene.syn_labels)
    targets = ALIGNMENTS[align](scene.labels, scene.groups)
    loss = embedding_loss(scene.net, Ours(scene), syn, scene.syn_labels, targets)
    return [loss.detach(), *torch.autograd.grad(loss, scene.syn.images)]


def published_dc(scene, align):
    """One outer step's loss and pixel gradient: for every group a backward through the class's whole batch."""
    weights = list(scene.published_net.requires_grad_(True).parameters())
    total, pixels = 0, 0
    for label in range(scene.classes):
        real, syn = both_augmented(scene, label)
        losses = F.cross_entropy(scene.published_net(real), torch.full((len(real),), label), reduction="none")
        masks = scene.parts(align, label)
        of_real = [torch.autograd.grad(losses[mask].mean(), weights, retain_graph=mask is not masks[-1])
                   for mask in masks]
        of_syn = torch.autograd.grad(F.cross_entropy(scene.published_net(syn), torch.full((len(syn),), label)), weights,
                                     create_graph=True)
        loss = sum(match_loss(of_syn, target) for target in of_real)
        pixels = pixels + torch.autograd.grad(loss, scene.syn.images)[0]
        total = total + loss.detach()
    return [total, pixels]


def our_dc(scene, align):
    scene.net.requires_grad_(True)
    syn = [augment(scene.syn.of_class(c), scene.draws, torch.full((10,), c)) for c in range(scene.classes)]
    targets = ALIGNMENTS[align](scene.labels, scene.groups)
    loss = sum(gradient_losses(scene.net, Ours(scene), syn, targets))
    return [loss.detach(), *torch.autograd.grad(loss, scene.syn.images)]


def published_epoch(scene, net, optimizer):
    """One pass over the synthetic set as the field trains: a DataLoader, the sums of loss and hits read every batch."""
    total = hits = 0
    for images, labels in DataLoader(TensorDataset(scene.syn.images.detach(), scene.syn_labels), 256, shuffle=True):
        images = augment(images, draw(STRATEGY, len(images), one_operation=True))
        output = net(images)
        loss = F.cross_entropy(output, labels)
        total, hits = total + loss.item() * len(labels), hits + (output.argmax(1) == labels).sum().item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return total, hits


def published_inner(scene, epochs=4):
    net = scene.published_net.requires_grad_(True).train()
    for _ in range(epochs):
        published_epoch(scene, net, torch.optim.SGD(net.parameters(), 0.01))


def our_inner(scene, epochs=4):
    net, generator = scene.net.requires_grad_(True).train(), torch.Generator().manual_seed(0)
    recipe, syn = TrainConfig(1, 0.01, strategy=STRATEGY), scene.syn.as_dataset()
    for _ in range(epochs):
        train_epoch(net, syn, recipe, torch.optim.SGD(net.parameters(), recipe.lr), generator)


def test_set(scene, size):
    """Random test images, uint8, with labels and groups."""
    count, generator = size["tests"], torch.Generator().manual_seed(1)
    images = torch.randint(256, (count, 3, size["side"], size["side"]), generator=generator).byte()
    labels, groups = (torch.randint(n, (count,), generator=generator) for n in (scene.classes, scene.num_groups))
    names = [tuple(map(str, range(n))) for n in (scene.classes, scene.num_groups)]
    return GroupedImages(images, labels, groups, *names, (0.5,) * 3, (0.25,) * 3)


def published_table(predictions, labels, groups, classes, num_groups):
    """Accuracy of each cell by masked sums over batches of 256. -> (G, C)"""
    hits, sizes = torch.zeros(num_groups, classes), torch.zeros(num_groups, classes)
    for rows in torch.arange(len(labels)).split(256):
        for group in range(num_groups):
            for label in range(classes):
                cell = (groups[rows] == group) & (labels[rows] == label)
                hits[group, label] += ((predictions[rows] == labels[rows]) & cell).sum().item()
                sizes[group, label] += cell.sum().item()
    return hits / sizes


def published_evaluation(scene, test, size):
    """Networks one after another, each trained and then tested in batches of 256."""
    for _ in range(size["networks"]):
        net = as_published(get_network(size["model"], 3, scene.classes, (size["side"],) * 2))
        for _ in range(size["epochs"] + 1):
            published_epoch(scene, net, sgd(net, 0.01))
        with torch.no_grad():
            found = [net(test.batch(rows)).argmax(1) for rows in torch.arange(len(test)).split(256)]
        published_table(torch.cat(found), test.labels, test.groups, scene.classes, scene.num_groups)


def our_evaluation(scene, test, size):
    recipe = TrainConfig(size["epochs"], 0.01, strategy=STRATEGY)
    evaluate_synset(lambda: get_network(size["model"], 3, scene.classes, (size["side"],) * 2), scene.syn.as_dataset(),
                    test, recipe, size["networks"], "benchmark")
