"""Where the groups of the training images come from: their labels, clusters, or a file; with noise, or only in part.

Only the groups that matching uses change. Classes, and all that is tested, stay as the data set says. Every draw has a
key that begins with the seed, so a resumed run finds the same groups and needs no file of them.
"""

from collections.abc import Callable
from dataclasses import replace

from fairdd.core import distributed
from fairdd.core.errors import UserError
from fairdd.datasets.base import Dataset, GroupedImages
from fairdd.groups.agreement import describe_agreement
from fairdd.groups.batch_clusters import cluster_batches, describe_batches
from fairdd.groups.features import feature_extractor
from fairdd.groups.file import read_groups
from fairdd.groups.noise import add_noise
from fairdd.groups.partial import keep_known_share
from fairdd.groups.pseudo import cluster_classes

__all__ = ["with_training_groups"]


def with_training_groups(data: Dataset, args, init_network: Callable) -> Dataset:
    """Return the data with the training groups that the flags ask for, and a note on how well they agree with the true
    ones. Raises UserError.

    args: flags, of which groups, group_features, group_noise, known_groups, unknown_groups, seed, model, lr_net and
    batch_train are used; init_network(name, *key): returns a network on the device of the images.
    """
    if args.groups == "labels" and not args.group_noise and args.unknown_groups is None:
        return data
    key = (args.seed, "groups")
    features = feature_extractor(data.train, args, init_network, *key)
    if args.groups == "dbscan":
        train = cluster_batches(data.train, features)
        note = describe_batches(train, data.train, args.batch_real, *key)
    else:
        train = find_groups(data, args, features, *key)
        train = replace(train, groups=distributed.from_rank_0(train.groups))
        check_groups(train)
        note = describe_agreement(train, data.train)
    return replace(data, train=train, notes=(*data.notes, f"training groups ({describe_source(args)}): {note}"))


def find_groups(data: Dataset, args, features: Callable, *key) -> GroupedImages:
    """Return the training images with groups that do not depend on the batch. features(rows) -> (n, D)"""
    kind, _, number = args.groups.partition(":")
    if kind == "labels":
        train = data.train
    elif kind == "kmeans":
        train = cluster_classes(data.train, features, int(number), *key)
    else:
        train = read_groups(args.groups, data)
    train = add_noise(train, args.group_noise, *key) if args.group_noise else train
    if args.unknown_groups:
        train = keep_known_share(train, features, args.known_groups, args.unknown_groups == "assign", *key)
    return train


def check_groups(train: GroupedImages) -> None:
    """Raise UserError for a class that is left with fewer than two groups: matching them would change nothing."""
    for name, number in zip(train.class_names, (train.counts() > 0).sum(0).tolist(), strict=True):
        if number < 2:
            raise UserError(f"class {name!r} is left with {number} group(s) of training images, but needs two; choose "
                            "another --groups, --group_features, --known_groups or --seed")


def describe_source(args) -> str:
    """Return the flags that say where groups come from."""
    flags = [f"--groups {args.groups}"]
    flags += [f"--group_features {args.group_features}"] * (args.group_features is not None)
    flags += [f"--group_noise {args.group_noise}"] * (args.group_noise > 0)
    flags += [f"--known_groups {args.known_groups}"] * (args.known_groups < 1)
    flags += [f"--unknown_groups {args.unknown_groups}"] * (args.unknown_groups is not None)
    return " ".join(flags)
