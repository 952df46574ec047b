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
from fairdd.matching.augment import augment, crop_noise, draw

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained. strategy: of DSA, "none", or "crop_noise" (DC's for batch-norm networks)."""

    epochs: int
    lr: float
    batch_size: int = 256
    strategy: str = "none"


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
    steps = len(keys) * (config.epochs + 1)
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
    """Train as in DC: epochs + 1 passes of SGD; past half of them lr drops to a tenth and momentum restarts."""
    optimizer = sgd(net, config.lr)
    net.train()
    for epoch in range(config.epochs + 1):
        train_epoch(net, data, config, optimizer, generator)
        if epoch == config.epochs // 2 + 1:
            optimizer = sgd(net, config.lr / 10)
        on_epoch_end()


def train_epochs(net: nn.Module, data, config: TrainConfig, optimizer: torch.optim.Optimizer,
                 generator: torch.Generator) -> None:
    """Make config.epochs passes over data with a constant learning rate: for networks that matching uses."""
    for _ in range(config.epochs):
        train_epoch(net, data, config, optimizer, generator)


def train_epoch(net: nn.Module, data, config: TrainConfig, optimizer: torch.optim.Optimizer,
                generator: torch.Generator) -> None:
    """Make one pass over data, with order and augmentations drawn from the generator."""
    for index in torch.randperm(len(data.labels), generator=generator).split(config.batch_size):
        images = augment_batch(data.batch(index), config.strategy, generator)
        accumulate_gradients(net, images, data.labels[index].to(images.device))
        optimizer.step()


def accumulate_gradients(net: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Set the .grad of every weight to the gradient of the batch's mean cross entropy, computed chunk by chunk."""
    weights = [weight for weight in net.parameters() if weight.requires_grad]

    def chunk_gradient(rows: slice) -> tuple[Tensor, ...]:
        loss = F.cross_entropy(net(images[rows]), labels[rows], reduction="sum") / len(images)
        return torch.autograd.grad(loss, weights)

    chunks = chunk_slices(len(images), max_chunk_size(net, images[:1]))
    total = sum_gradients(ordered_map(chunk_gradient, chunks, images.device))
    for weight, gradient in zip(weights, total, strict=True):
        weight.grad = gradient


def sgd(net: nn.Module, lr: float) -> torch.optim.SGD:
    """Return the optimizer of an evaluation network."""
    return torch.optim.SGD(net.parameters(), lr=lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)


def augment_batch(images: Tensor, strategy: str, generator: torch.Generator) -> Tensor:
    """Augment a training batch: DSA draws one operation for the batch and separate numbers for each image."""
    if strategy == "crop_noise":
        return crop_noise(images, generator)
    return augment(images, draw(strategy, len(images), generator, one_operation=True))


def predict(net: nn.Module, data: GroupedImages) -> Tensor:
    """Return the predicted class of every image of data. (N,) int64, on the CPU"""
    net.eval()

    def predict_chunk(rows: Tensor) -> Tensor:
        with torch.inference_mode():
            return net(data.batch(rows)).argmax(1).cpu()

    return torch.cat(list(map_chunks(predict_chunk, [torch.arange(len(data))], net, data.batch(torch.arange(1)))))
