"""Leave whole groups out of the training or the test images, as in the paper's studies of missing groups (table 15)."""

from dataclasses import replace

import torch

from fairdd.core.errors import UserError
from fairdd.datasets.base import Dataset, GroupedImages, subset
from fairdd.datasets.files import preview

MIN_TEST_GROUPS = 2     # fairness compares groups


def remove_groups(data: Dataset, train_without: str | None, test_without: str | None) -> Dataset:
    """Return the data without the training and test images of these groups, given by names joined by commas.

    The names of groups and their order stay: a removed group is one without images. Raises UserError for an unknown
    name, a class that is left without training images, or fewer than two groups in the test.
    """
    if train_without is not None:
        data = remove_from(data, "train", train_without)
        empty = [data.train.class_names[k] for k in (data.train.class_sizes() == 0).nonzero().flatten().tolist()]
        if empty:
            raise UserError(f"--train_without {train_without} leaves no training image of {len(empty)} classes "
                            f"({preview(empty)}); groups: {', '.join(data.train.group_names)}")
    if test_without is not None:
        data = remove_from(data, "test", test_without)
        count = int((data.test.counts().sum(1) > 0).sum())
        if count < MIN_TEST_GROUPS:
            raise UserError(f"--test_without {test_without} leaves {count} of the groups "
                            f"{', '.join(data.test.group_names)}; fairness metrics need {MIN_TEST_GROUPS}")
    return data


def remove_from(data: Dataset, split: str, names: str) -> Dataset:
    """Return the data without the images of these groups in its split, "train" or "test", and with a note."""
    images = getattr(data, split)
    removed = torch.tensor(find_groups(images, f"--{split}_without", names))
    kept = (~torch.isin(images.groups, removed)).nonzero().flatten()
    note = f"--{split}_without {names}: {len(images) - len(kept)} of {len(images)} images are left out"
    data = replace(data, notes=(*data.notes, note), **{split: subset(images, kept)})
    if split == "train" and data.train_paths:
        return replace(data, train_paths=tuple(data.train_paths[row] for row in kept.tolist()))
    return data


def find_groups(images: GroupedImages, flag: str, names: str) -> list[int]:
    """Return the numbers of the groups with these names, in any case. Raises UserError for an unknown name."""
    numbers = {name.lower(): number for number, name in enumerate(images.group_names)}
    unknown = [name for name in names.split(",") if name.strip().lower() not in numbers]
    if unknown:
        raise UserError(f"{flag}: unknown group {unknown[0].strip()!r}; known: {', '.join(images.group_names)}")
    return [numbers[name.strip().lower()] for name in names.split(",")]
