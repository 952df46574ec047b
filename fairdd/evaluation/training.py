"""Evaluation: train fresh networks on a set of images and test each once on a set balanced over (class, group)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from fairdd.core.parallel import chunk_slices, map_chunks, max_chunk_size, ordered_map, sum_gradients
from fairdd.core.rng import seeded, torch_generator
from fairdd.datasets.base import GroupedImages
from fairdd.evaluation.metrics import attribute_metrics, fairness_metrics
from fairdd.matching.augment import augment, crop_noise, cutmix, draw, draw_composed

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

    Networks are trained side by side (ordered_map) but created here, since weights use torch's global generator.
    """
    nets_and_keys = ((init_network(make_net, *key), key) for key in keys)
    steps = len(keys) * num_passes(config)
    with tqdm(total=steps, desc=title and f"testing {title}", leave=False, disable=None if title else True) as bar:

        def metrics(net_and_key: tuple[nn.Module, tuple]) -> dict:
            net, key = net_and_key
            train_with_schedule(net, data, config, torch_generator(*key, "training"), bar.update)
            return prediction_metrics(predict(net, test), test)

        yield from ordered_map(metrics, nets_and_keys, test.images.device)


def prediction_metrics(predictions: Tensor, test: GroupedImages) -> dict:
    """Return the fairness_metrics of predictions (N,) for a test set, and those of each attribute that is crossed."""
    args = predictions, test.labels, test.groups, test.num_classes
    return fairness_metrics(*args, test.num_groups) | attribute_metrics(*args, test.attributes)


def init_network(make_net: Callable[[], nn.Module], *key) -> nn.Module:
    """Return a network whose initial weights are drawn from this key."""
    with seeded(*key, "weights"):
        return make_net()


def train_with_schedule(net: nn.Module, data, config: TrainConfig, generator: torch.Generator,
                        on_epoch_end: Callable[[], object] = lambda: None) -> None:
    """Train with SGD and the schedule of the config.

    dc: epochs + 1 passes; past half of them lr drops to a tenth and momentum restarts. idc: epochs passes; lr drops to
    a fifth at two thirds and again at five sixths of them.
    """
    optimizer = sgd(net, config.lr)
    net.train()
    for epoch in range(num_passes(config)):
        train_epoch(net, data, config, optimizer, generator)
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
                generator: torch.Generator) -> None:
    """Make one pass over data, with order and augmentations drawn from the generator."""
    for index in torch.randperm(len(data.labels), generator=generator).split(config.batch_size):
        train_batch(net, data.batch(index), data.labels[index], config, optimizer, generator)


def train_batch(net: nn.Module, images: Tensor, labels: Tensor, config: TrainConfig, optimizer: torch.optim.Optimizer,
                generator: torch.Generator) -> None:
    """Make one step on a batch, augmented and mixed with draws from the generator."""
    images, labels = augment_batch(images, config, generator), labels.to(images.device)
    mixed = ()
    if config.cutmix and torch.rand(1, generator=generator).item() < config.cutmix:
        images, *mixed = cutmix(images, labels, generator)
    accumulate_gradients(net, images, labels, *mixed)
    optimizer.step()


def accumulate_gradients(net: nn.Module, images: Tensor, labels: Tensor, other_labels: Tensor | None = None,
                         share: float = 1.0) -> None:
    """Set the .grad of every weight to the gradient of the batch's mean cross entropy, computed chunk by chunk.

    other_labels: (B,) of the images that were mixed in (CutMix); share: weight of the own labels in the loss.
    """
    weights = [weight for weight in net.parameters() if weight.requires_grad]

    def chunk_gradient(rows: slice) -> tuple[Tensor, ...]:
        logits = net(images[rows])
        loss = F.cross_entropy(logits, labels[rows], reduction="sum") / len(images)
        if other_labels is not None:
            other = F.cross_entropy(logits, other_labels[rows], reduction="sum") / len(images)
            loss = share * loss + (1 - share) * other
        return torch.autograd.grad(loss, weights)

    chunks = chunk_slices(len(images), max_chunk_size(net, images[:1]))
    total = sum_gradients(ordered_map(chunk_gradient, chunks, images.device))
    for weight, gradient in zip(weights, total, strict=True):
        weight.grad = gradient


def sgd(net: nn.Module, lr: float) -> torch.optim.SGD:
    """Return the optimizer of an evaluation network."""
    return torch.optim.SGD(net.parameters(), lr=lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)


def augment_batch(images: Tensor, config: TrainConfig, generator: torch.Generator) -> Tensor:
    """Augment a training batch: DSA draws one operation for the batch and separate numbers for each image."""
    if config.strategy == "crop_noise":
        return crop_noise(images, generator)
    if config.is_composed:
        return augment(images, draw_composed(config.strategy, len(images), generator))
    return augment(images, draw(config.strategy, len(images), generator, one_operation=True))


def predict(net: nn.Module, data: GroupedImages, rows: Tensor | None = None) -> Tensor:
    """Return the predicted class of the images at rows (default: of all). (N,) int64, on the CPU"""
    net.eval()

    def predict_chunk(rows: Tensor) -> Tensor:
        with torch.inference_mode():
            return net(data.batch(rows)).argmax(1).cpu()

    rows = torch.arange(len(data)) if rows is None else rows
    return torch.cat(list(map_chunks(predict_chunk, [rows], net, data.batch(rows[:1]))))
