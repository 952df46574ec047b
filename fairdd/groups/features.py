"""The representation in which images are clustered: pixels, or embeddings of a random or a briefly trained network."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairdd.core.device import upload
from fairdd.core.rng import torch_generator
from fairdd.datasets.base import GroupedImages
from fairdd.evaluation.training import TrainConfig, sgd, train_batch
from fairdd.matching.embedding import embeddings

SIDE = 16               # pixels per side of the images whose pixels are compared, at most
TRAIN_STEPS = 200       # batches that a briefly trained network sees
CHUNK = 1024            # images loaded at a time


def feature_extractor(train: GroupedImages, args, init_network: Callable, *key) -> Callable[[Tensor], np.ndarray]:
    """Return a function from rows of the training images (n,) to their features (n, D) float32.

    args.group_features: "pixels" (or None), "random" or "trained". init_network(name, *key) makes the network.
    """
    if args.group_features in (None, "pixels"):
        return lambda rows: extract(lambda chunk: pixel_features(train, chunk), rows)
    net = init_network(args.model, *key)
    if args.group_features == "trained":
        train_briefly(net, train, args.lr_net, args.batch_train, *key)
    net.eval()
    return lambda rows: extract(lambda chunk: embeddings(net, train.batch(chunk)), rows)


def extract(features: Callable[[Tensor], Tensor], rows: Tensor) -> np.ndarray:
    """Return features(rows), computed in chunks, on the CPU. (n,) -> (n, D) float32"""
    return torch.cat([features(chunk).float().cpu() for chunk in rows.split(CHUNK)]).numpy()


def pixel_features(train: GroupedImages, rows: Tensor) -> Tensor:
    """Return the pixels in [0, 1] of images shrunk to at most SIDE x SIDE by averaging. (n,) -> (n, C * h * w)"""
    [index] = upload(train.images.device, rows)
    images = train.images[index].float() / 255
    size = [min(SIDE, side) for side in images.shape[2:]]
    return F.adaptive_avg_pool2d(images, size).flatten(1)


def train_briefly(net: nn.Module, train: GroupedImages, lr: float, batch_size: int, *key) -> None:
    """Train a network to predict the classes, for TRAIN_STEPS batches of random training images, not augmented."""
    generator, optimizer = torch_generator(*key, "training"), sgd(net, lr)
    config = TrainConfig(1, lr, batch_size)
    net.train()
    for _ in range(TRAIN_STEPS):
        rows = torch.randint(len(train), (min(batch_size, len(train)),), generator=generator)
        train_batch(net, train.batch(rows), train.labels[rows], config, optimizer, generator)
