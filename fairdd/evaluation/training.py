"""Evaluation: train fresh networks on a set of images and test each once on a set balanced over (class, group)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from fairdd.core.device import upload
from fairdd.core.parallel import (
    chunk_slices,
    images_per_chunk,
    map_chunks,
    max_chunk_size,
    ordered_map,
    sum_gradients,
)
from fairdd.core.rng import seeded, torch_generator
from fairdd.datasets.base import GroupedImages
from fairdd.evaluation.metrics import accuracy_table, attribute_metrics, fairness_metrics
from fairdd.evaluation.score_metrics import score_metrics
from fairdd.evaluation.stack import NetworkStack, can_stack
from fairdd.matching.augment import augment, crop_noise, cutmix, draw, draw_composed, join_draws

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained.

    strategy: of DSA, "none", or "crop_noise" (DC's for batch-norm networks); is_composed: whether its operations are
    composed as in IDC; cutmix: probability that a batch is mixed; schedule: a name of SCHEDULES.
    """

    epochs: int
    lr: float
    batch_size: int = 256
    strategy: str = "none"
    is_composed: bool = False
    cutmix: float = 0.0
    schedule: str = "dc"


def evaluate_synset(make_net: Callable[[], nn.Module], data, test: GroupedImages, config: TrainConfig, num_eval: int,
                    *key) -> list[dict]:
    """Train num_eval fresh networks on data and test each; return the fairness_metrics of each.

    make_net() returns a network on the device of the images; data: an object with labels and batch(index), such as
    SynSet.as_dataset() or GroupedImages.
    """
    return list(train_and_test(make_net, data, test, config, [(*key, number) for number in range(num_eval)]))


def train_and_test(make_net: Callable[[], nn.Module], data, test: GroupedImages, config: TrainConfig,
                   keys: Sequence[tuple], title: str | None = None) -> Iterator[dict]:
    """Yield, for each key, the metrics of a fresh network trained on data; all its draws come from the key.

    Networks are trained side by side, on a CPU in threads (ordered_map), on a GPU as a stack, but created here, since
    weights use torch's global generator.
    """
    nets_and_keys = (([init_network(make_net, *key) for key in stack], stack)
                     for stack in stacks(make_net, data, config, keys))
    steps = len(keys) * num_passes(config)
    with tqdm(total=steps, desc=title and f"testing {title}", leave=False, disable=None if title else True) as bar:

        def metrics(nets_and_keys: tuple[Sequence[nn.Module], Sequence[tuple]]) -> list[dict]:
            nets, keys = nets_and_keys
            net = nets[0] if len(nets) == 1 else NetworkStack(nets)
            train_with_schedule(net, data, config, *(torch_generator(*key, "training") for key in keys),
                                on_epoch_end=lambda: bar.update(len(keys)))
            trained = nets if len(nets) == 1 else net.unstack()
            return [prediction_metrics(predict_logits(net, test), test) for net in trained]

        yield from chain.from_iterable(ordered_map(metrics, nets_and_keys, test.device))


def stacks(make_net: Callable[[], nn.Module], data, config: TrainConfig,
           keys: Sequence[tuple]) -> Iterator[list[tuple]]:
    """Yield keys of the networks to train as one: a single one on a CPU, on a GPU as many as the memory allows."""
    image = data.batch(torch.arange(1))
    size = 1
    if image.device.type != "cpu":
        net = init_network(make_net, "size")
        if can_stack(net):
            size = max(1, images_per_chunk(net, image) // min(config.batch_size, len(data.labels)))
    for chunk in chunk_slices(len(keys), size):
        yield list(keys[chunk])


def prediction_metrics(logits: Tensor, test: GroupedImages) -> dict:
    """Return the metrics of logits (N, C) for a test set: the fairness_metrics, also of each attribute that is crossed,
    and the score_metrics.
    """
    args = logits.argmax(1), test.labels, test.groups, test.num_classes
    metrics = fairness_metrics(*args, test.num_groups) | attribute_metrics(*args, test.attributes)
    true_positives = accuracy_table(*args, test.num_groups)
    return metrics | score_metrics(logits, test.labels, test.groups, true_positives)


def init_network(make_net: Callable[[], nn.Module], *key) -> nn.Module:
    """Return a network whose initial weights are drawn from this key."""
    with seeded(*key, "weights"):
        return make_net()


def train_with_schedule(net: nn.Module, data, config: TrainConfig, *generators: torch.Generator,
                        on_epoch_end: Callable[[], object] = lambda: None) -> None:
    """Train with SGD and the schedule of the config. generators: one, or one for each network of a stack.

    dc: epochs + 1 passes; past half of them lr drops to a tenth and momentum restarts. idc: epochs passes; lr drops to
    a fifth at two thirds and again at five sixths of them.
    """
    optimizer = sgd(net, config.lr)
    net.train()
    for epoch in range(num_passes(config)):
        train_epoch(net, data, config, optimizer, *generators)
        if config.schedule == "dc" and epoch == config.epochs // 2 + 1:
            optimizer = sgd(net, config.lr / 10)
        if config.schedule == "idc" and epoch + 1 in (2 * config.epochs // 3, 5 * config.epochs // 6):
            optimizer.param_groups[0]["lr"] *= 0.2
        on_epoch_end()


def num_passes(config: TrainConfig) -> int:
    """Return how many passes over the data the schedule makes."""
    return config.epochs + (config.schedule == "dc")


def train_epochs(net: nn.Module, data, config: TrainConfig, optimizer: torch.optim.Optimizer,
                 generator: torch.Generator) -> None:
    """Make config.epochs passes over data with a constant learning rate: for networks that matching uses."""
    for _ in range(config.epochs):
        train_epoch(net, data, config, optimizer, generator)


def train_epoch(net: nn.Module, data, config: TrainConfig, optimizer: torch.optim.Optimizer,
                *generators: torch.Generator) -> None:
    """Make one pass over data, with order and augmentations drawn from the generator of each network."""
    orders = [torch.randperm(len(data.labels), generator=generator).split(config.batch_size)
              for generator in generators]
    for indices in zip(*orders, strict=True):
        index = torch.cat(indices)
        train_batch(net, data.batch(index), data.labels[index], config, optimizer, *generators)


def train_batch(net: nn.Module, images: Tensor, labels: Tensor, config: TrainConfig, optimizer: torch.optim.Optimizer,
                *generators: torch.Generator) -> None:
    """Make one step on a batch, augmented and mixed with draws from the generator.

    A stack of networks has a generator and a batch each; the batches follow one another.
    """
    images, [labels] = augment_batch(images, config, *generators), upload(images.device, labels)
    mixed = ()
    if config.cutmix:
        images, *mixed = cutmix(images, labels, config.cutmix, *generators)
    accumulate_gradients(net, images, labels, *mixed)
    optimizer.step()


def accumulate_gradients(net: nn.Module, images: Tensor, labels: Tensor, other_labels: Tensor | None = None,
                         shares: Tensor | None = None) -> None:
    """Set the .grad of every weight to the gradient of its batch's mean cross entropy, computed chunk by chunk.

    other_labels: (B,) of the images that were mixed in (CutMix); shares: (B,) weights of the own labels in the loss.
    """
    weights = [weight for weight in net.parameters() if weight.requires_grad]
    is_stack = isinstance(net, NetworkStack)
    size = len(images) if is_stack else max_chunk_size(net, images[:1])
    batch_size = len(images) // (len(net.nets) if is_stack else 1)

    def chunk_gradient(rows: slice) -> tuple[Tensor, ...]:
        logits = net(images[rows])
        if other_labels is None:
            loss = F.cross_entropy(logits, labels[rows], reduction="sum")
        else:
            own, other = (F.cross_entropy(logits, of[rows], reduction="none") for of in (labels, other_labels))
            loss = torch.lerp(other, own, shares[rows]).sum()
        return torch.autograd.grad(loss, weights, torch.full_like(loss, 1 / batch_size))

    total = sum_gradients(ordered_map(chunk_gradient, chunk_slices(len(images), size), images.device))
    for weight, gradient in zip(weights, total, strict=True):
        weight.grad = gradient


def sgd(net: nn.Module, lr: float, momentum: float = MOMENTUM, weight_decay: float = WEIGHT_DECAY) -> torch.optim.SGD:
    """Return the optimizer of a network, by default of an evaluation network."""
    on_gpu = next(net.parameters()).device.type != "cpu"
    return torch.optim.SGD(net.parameters(), lr, momentum, weight_decay=weight_decay, foreach=on_gpu)


def augment_batch(images: Tensor, config: TrainConfig, *generators: torch.Generator) -> Tensor:
    """Augment a training batch: DSA draws one operation for the batch and separate numbers for each image."""
    count = len(images) // len(generators)
    if config.strategy == "crop_noise":
        batches = zip(images.split(count), generators, strict=True)
        return torch.cat([crop_noise(batch, generator) for batch, generator in batches])
    if config.is_composed:
        return augment(images, join_draws([draw_composed(config.strategy, count, g) for g in generators]))
    return augment(images, join_draws([draw(config.strategy, count, g, one_operation=True) for g in generators]))


def predict(net: nn.Module, data: GroupedImages, rows: Tensor | None = None) -> Tensor:
    """Return the predicted class of the images at rows (default: of all). (N,) int64, on the CPU"""
    return predict_logits(net, data, rows).argmax(1)


def predict_logits(net: nn.Module, data: GroupedImages, rows: Tensor | None = None) -> Tensor:
    """Return the logits of the images at rows (default: of all): (N, C), on the CPU, for score_metrics."""
    net.eval()

    def predict_chunk(rows: Tensor) -> Tensor:
        with torch.inference_mode():
            return net(data.batch(rows)).cpu()

    rows = torch.arange(len(data)) if rows is None else rows
    return torch.cat(list(map_chunks(predict_chunk, [rows], net, data.batch(rows[:1]))))
