"""Reference implementation of distillation and evaluation, organized as the papers' released code is.

scripts/benchmark.py times FairDD against it, and scripts/time_to_quality.py distills with it. It loops over classes and
groups, makes one backward pass through the class's whole batch for every group, uses a DataLoader in the inner loop and
trains networks one after another. Next to each function stands what the package does instead, on the same Problem.
"""

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fairdd.core.rng import torch_generator
from fairdd.datasets.base import GroupedImages
from fairdd.evaluation.training import TrainConfig, evaluate_synset, sgd, train_epoch
from fairdd.matching.alignment import ALIGNMENTS
from fairdd.matching.augment import augment, draw
from fairdd.matching.clustering import representatives
from fairdd.matching.embedding import embedding_loss, embeddings
from fairdd.matching.features import feature_loss
from fairdd.matching.gradient import CONVOLUTION_DISTANCES, gradient_loss, layerwise_cosine, match_loss
from fairdd.matching.synset import SynSet
from networks import MeanPool2d, get_network

STRATEGY = "color_crop_cutout_flip_scale_rotate"


class Problem:
    """Random images of every class and group (90 % of a class in one group), ten synthetic ones per class, a network.

    size: keys "batch" (real images per class), "classes", "side" (pixels) and "model".
    """

    def __init__(self, size: Mapping, groups: int, dtype: torch.dtype = torch.float32):
        generator = torch.Generator().manual_seed(0)
        count, self.num_classes, self.num_groups = size["batch"] * size["classes"], size["classes"], groups
        self.labels = torch.arange(self.num_classes).repeat_interleave(size["batch"])
        random_groups = torch.randint(groups, (count,), generator=generator)
        self.groups = torch.where(torch.rand(count, generator=generator) < 0.9, self.labels % groups, random_groups)
        shape = (3, size["side"], size["side"])
        self.real = torch.randn(count, *shape, generator=generator).to(dtype)
        self.syn_labels = torch.arange(self.num_classes).repeat_interleave(10)
        images = torch.randn(len(self.syn_labels), *shape, generator=generator).to(dtype)
        self.syn = SynSet(images, self.syn_labels, 0.1)
        torch.manual_seed(0)
        self.net = get_network(size["model"], 3, self.num_classes, shape[1:]).to(dtype)
        self.reference_net = with_torch_pooling(copy.deepcopy(self.net))
        self.draws = draw(STRATEGY, self.num_classes, generator)
        self.num_clusters = size["batch"] // 4

    def target_masks(self, align: str, label: int) -> list[Tensor]:
        """Return, for each target of a class, which of the class's real images it averages. Masks: (batch,) bool"""
        groups = self.groups[self.labels == label]
        if align == "fairdd":
            return [groups == group for group in groups.unique()]
        return [torch.ones_like(groups, dtype=torch.bool)]

    def augmented(self, label: int) -> tuple[Tensor, Tensor]:
        """Return the real and the synthetic images of a class under its draw."""
        real, syn = self.real[self.labels == label], self.syn.images[self.syn_labels == label]
        return tuple(augment(images, self.draws, torch.full((len(images),), label)) for images in (real, syn))


class AugmentedReal:
    """The real images, augmented when they are indexed, as fairdd.run.context.RealBatch gives them."""

    def __init__(self, problem: Problem):
        self.problem = problem

    def __len__(self) -> int:
        return len(self.problem.real)

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        return augment(self.problem.real[index], self.problem.draws, self.problem.labels[index])


def with_torch_pooling(net: nn.Module) -> nn.Module:
    """Replace the package's mean pooling by torch's, in place; return the network."""
    for index, layer in enumerate(net.features):
        if isinstance(layer, MeanPool2d):
            net.features[index] = nn.AvgPool2d(2)
    return net


def reference_dm_step(problem: Problem, align: str) -> list[Tensor]:
    """Return the DM loss and its pixel gradient, class by class."""
    net = problem.reference_net.requires_grad_(False)
    loss = 0
    for label in range(problem.num_classes):
        real, syn = problem.augmented(label)
        real_embeddings, syn_mean = net.embed(real).detach(), net.embed(syn).mean(0)
        for mask in problem.target_masks(align, label):
            loss = loss + (real_embeddings[mask].mean(0) - syn_mean).square().sum()
    return [loss.detach(), *torch.autograd.grad(loss, problem.syn.images)]


class RealProblem(Problem):
    """The inputs of a step of the reference implementation: those that main_DM.py has for the same key."""

    def __init__(self, context, syn: SynSet, *key):
        real = context.real_batch(None, *key)
        self.real, self.labels, self.groups = real[:], real.labels, real.groups
        self.syn, self.syn_labels, self.num_classes = syn, syn.labels, context.real.num_classes
        self.reference_net = with_torch_pooling(context.init_network(context.args.model, *key))
        self.draws = draw(context.args.dsa_strategy, self.num_classes, torch_generator(*key, "augment"))


def reference_dm_update(context, syn: SynSet, *key) -> Tensor:
    """Make one step of DM + FairDD as the reference implementation does; return the loss."""
    loss, gradient = reference_dm_step(RealProblem(context, syn, *key), "fairdd")
    syn.step(syn.images, gradient)
    return loss


def dm_step(problem: Problem, align: str, wrap: Callable = lambda net: net) -> list[Tensor]:
    """Return the DM loss and its pixel gradient, as main_DM.py computes them."""
    syn = augment(problem.syn.images, problem.draws, problem.syn_labels)
    targets, net = ALIGNMENTS[align](problem.labels, problem.groups), problem.net.requires_grad_(False)
    losses, gradient = embedding_loss(wrap(net), AugmentedReal(problem), syn, problem.syn_labels, targets)
    return [losses.sum(), *torch.autograd.grad(syn, problem.syn.images, gradient)]


def reference_dc_step(problem: Problem, align: str, distance: Callable = match_loss) -> list[Tensor]:
    """Return loss and pixel gradient of a DC outer loop: for every group a backward pass through the class's batch."""
    net = problem.reference_net.requires_grad_(True)
    weights = list(net.parameters())
    total, pixel_gradient = 0, 0
    for label in range(problem.num_classes):
        real, syn = problem.augmented(label)
        losses = F.cross_entropy(net(real), torch.full((len(real),), label), reduction="none")
        masks = problem.target_masks(align, label)
        targets = [torch.autograd.grad(losses[mask].mean(), weights, retain_graph=mask is not masks[-1])
                   for mask in masks]
        syn_loss = F.cross_entropy(net(syn), torch.full((len(syn),), label))
        syn_gradient = torch.autograd.grad(syn_loss, weights, create_graph=True)
        loss = sum(distance(syn_gradient, target) for target in targets)
        pixel_gradient = pixel_gradient + torch.autograd.grad(loss, problem.syn.images)[0]
        total = total + loss.detach()
    return [total, pixel_gradient]


def dc_step(problem: Problem, align: str, distance: Callable = layerwise_cosine) -> list[Tensor]:
    """Return loss and pixel gradient of a DC outer loop, as main_DC.py computes them."""
    images = augment(problem.syn.expanded(), problem.draws, problem.syn_labels)
    syn = images.split(torch.bincount(problem.syn_labels).tolist())
    targets, net = ALIGNMENTS[align](problem.labels, problem.groups), problem.net.requires_grad_(True)
    losses, gradients = gradient_loss(net, AugmentedReal(problem), syn, targets, distance)
    return [losses.sum(), *torch.autograd.grad(syn, problem.syn.images, gradients)]


def l1_of_convolutions(syn: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Return IDC's distance of two gradients: the sum of absolute differences over the weights of convolutions."""
    return sum((s - r).abs().sum() for s, r in zip(syn, real, strict=True) if s.ndim == 4)


def reference_idc_step(problem: Problem, align: str) -> list[Tensor]:
    """Return loss and pixel gradient of a pixel step of IDC and DREAM for every class."""
    return reference_dc_step(problem, align, l1_of_convolutions)


def idc_step(problem: Problem, align: str) -> list[Tensor]:
    """Return loss and pixel gradient of a pixel step, as main_DC.py computes them."""
    return dc_step(problem, align, CONVOLUTION_DISTANCES["l1"])


def reference_clusters(problem: Problem, steps: int = 100) -> list[Tensor]:
    """Return DREAM's representative images of every class: those nearest to the centers of Lloyd's k-means."""
    net, chosen = problem.reference_net, []
    for label in range(problem.num_classes):
        with torch.no_grad():
            points = net.embed(problem.real[problem.labels == label])
        centers = points[: problem.num_clusters].clone()
        for _ in range(steps):
            owners, previous = torch.cdist(points, centers).argmin(1), centers
            centers = torch.stack([points[owners == k].mean(0) if (owners == k).any() else centers[k]
                                   for k in range(len(centers))])
            if (centers - previous).norm() < 1e-4:
                break
        chosen.append(torch.cdist(centers, points).argmin(1))
    return chosen


def clusters(problem: Problem) -> list[Tensor]:
    """Return representative images of every class, as the package chooses them (with --cluster class)."""
    def embed(rows: Tensor) -> Tensor:
        return embeddings(problem.net, problem.real[rows])

    return [representatives(problem, embed, label, problem.num_clusters, False, "benchmark")
            for label in range(problem.num_classes)]


def reference_cafe_step(problem: Problem, align: str) -> list[Tensor]:
    """Return loss and pixel gradient of a step of CAFE: all classes in one batch, with a graph of the synthetic one."""
    net = problem.reference_net.requires_grad_(False)
    real, syn = (torch.cat(images) for images in zip(*map(problem.augmented, range(problem.num_classes)), strict=True))
    with torch.no_grad():
        real_levels = reference_levels(net, real)
    syn_levels = reference_levels(net, syn)
    weights = (0.1, 0.1, 1.0, 2.0)[-len(real_levels):]
    loss, classifier, shares = 0, [], torch.zeros(len(real)).to(real)
    for label in range(problem.num_classes):
        rows = (problem.labels == label).nonzero().flatten()
        masks = problem.target_masks(align, label)
        for weight, of_real, of_syn in zip(weights, real_levels, syn_levels, strict=True):
            mean = of_syn[problem.syn_labels == label].mean(0)
            loss = loss + weight * sum((of_real[rows[mask]].mean(0) - mean).square().sum() for mask in masks)
        classifier.append(mean)
        for mask in masks:
            shares[rows[mask]] = len(rows) / len(masks) / mask.sum().item()
    entropy = F.cross_entropy(real_levels[-1] @ torch.stack(classifier).T, problem.labels, reduction="none")
    loss = loss + 0.01 * (shares * entropy).sum()
    return [loss.detach(), *torch.autograd.grad(loss, problem.syn.images)]


def reference_levels(net: nn.Module, maps: Tensor) -> list[Tensor]:
    """Return the outputs of the ReLUs of a ConvNet and its embedding. list of (B, D)"""
    levels = []
    for layer in net.features:
        maps = layer(maps)
        if isinstance(layer, nn.ReLU):
            levels.append(maps.flatten(1))
    return [*levels, maps.flatten(1)]


def cafe_step(problem: Problem, align: str) -> list[Tensor]:
    """Return loss and pixel gradient of a step of CAFE, as main_DM.py computes them."""
    syn = augment(problem.syn.images, problem.draws, problem.syn_labels)
    targets, net = ALIGNMENTS[align](problem.labels, problem.groups), problem.net.requires_grad_(False)
    losses, gradient = feature_loss(net, AugmentedReal(problem), syn, problem.syn_labels, targets, problem.labels)
    return [losses.sum(), *torch.autograd.grad(syn, problem.syn.images, gradient)]


def reference_epoch(problem: Problem, net: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[float, int]:
    """Train for one epoch on the synthetic set with a DataLoader; return the sums of losses and correct predictions."""
    total = correct = 0
    dataset = TensorDataset(problem.syn.images.detach(), problem.syn_labels)
    for images, labels in DataLoader(dataset, 256, shuffle=True):
        images = augment(images, draw(STRATEGY, len(images), one_operation=True))
        output = net(images)
        loss = F.cross_entropy(output, labels)
        total, correct = total + loss.item() * len(labels), correct + (output.argmax(1) == labels).sum().item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return total, correct


def reference_inner_loop(problem: Problem, epochs: int = 4) -> None:
    """Train DC's network on the synthetic set between two outer loops."""
    net = problem.reference_net.requires_grad_(True).train()
    for _ in range(epochs):
        reference_epoch(problem, net, torch.optim.SGD(net.parameters(), 0.01))


def inner_loop(problem: Problem, epochs: int = 4) -> None:
    """Train DC's network as the package does."""
    net, generator = problem.net.requires_grad_(True).train(), torch.Generator().manual_seed(0)
    config, syn = TrainConfig(1, 0.01, strategy=STRATEGY), problem.syn.as_dataset()
    for _ in range(epochs):
        train_epoch(net, syn, config, torch.optim.SGD(net.parameters(), config.lr), generator)


def random_test_set(problem: Problem, size: Mapping) -> GroupedImages:
    """Return size["tests"] random images with labels and groups."""
    count, generator = size["tests"], torch.Generator().manual_seed(1)
    images = torch.randint(256, (count, 3, size["side"], size["side"]), generator=generator).byte()
    counts = problem.num_classes, problem.num_groups
    labels, groups = (torch.randint(number, (count,), generator=generator) for number in counts)
    names = [tuple(map(str, range(number))) for number in counts]
    return GroupedImages(images, labels, groups, *names, (0.5,) * 3, (0.25,) * 3)


def reference_table(predictions: Tensor, labels: Tensor, groups: Tensor, num_classes: int, num_groups: int) -> Tensor:
    """Return the accuracy of each (group, class) by masked sums over batches of 256. (N,), (N,), (N,) -> (G, C)"""
    correct, counts = torch.zeros(num_groups, num_classes), torch.zeros(num_groups, num_classes)
    for rows in torch.arange(len(labels)).split(256):
        for group in range(num_groups):
            for label in range(num_classes):
                cell = (groups[rows] == group) & (labels[rows] == label)
                correct[group, label] += ((predictions[rows] == labels[rows]) & cell).sum().item()
                counts[group, label] += cell.sum().item()
    return correct / counts


def reference_evaluation(problem: Problem, test: GroupedImages, size: Mapping) -> None:
    """Train networks one after another and test each in batches of 256."""
    for _ in range(size["networks"]):
        net = with_torch_pooling(get_network(size["model"], 3, problem.num_classes, (size["side"],) * 2))
        for _ in range(size["epochs"] + 1):
            reference_epoch(problem, net, sgd(net, 0.01))
        with torch.no_grad():
            predictions = [net(test.batch(rows)).argmax(1) for rows in torch.arange(len(test)).split(256)]
        reference_table(torch.cat(predictions), test.labels, test.groups, problem.num_classes, problem.num_groups)


def evaluation(problem: Problem, test: GroupedImages, size: Mapping, wrap: Callable = lambda net: net) -> None:
    """Train and test as many networks as the package does."""
    config = TrainConfig(size["epochs"], 0.01, strategy=STRATEGY)
    evaluate_synset(lambda: wrap(get_network(size["model"], 3, problem.num_classes, (size["side"],) * 2)),
                    problem.syn.as_dataset(), test, config, size["networks"], "benchmark")
