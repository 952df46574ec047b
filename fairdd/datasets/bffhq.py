"""BFFHQ: faces whose age goes with their gender in 99.5 % of the training images. Age is the class, gender the group.

Lee, Kim, Lee, Lee, Choo: Learning Debiased Representation via Disentangled Feature Augmentation, NeurIPS 2021. Both
labels are at the end of the file name: …_<age>_<gender>.png. The files carry numbers only; the names follow the paper,
which calls young women and old men the majority.
"""

import re
from pathlib import Path

import numpy as np

from fairdd.datasets.base import Dataset, GroupedImages
from fairdd.datasets.files import candidate_folders, dataset_not_found, list_images, parse_labels
from fairdd.datasets.image_cache import load_images
from fairdd.datasets.splits import Attribute, select_images

FOLDERS = r"bffhq([-_. ].*)?"
PATTERNS = ("0.5pct/align/*/*", "0.5pct/conflict/*/*", "test/*")
TREE = "0.5pct/align/<class>/*, 0.5pct/conflict/<class>/* and test/*, files named …_<age>_<gender>.png"
LINK = "https://github.com/kakaoenterprise/Learning-Debiased-Disentangled"
NORMALIZATION = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)      # CIFAR-10's, as published
NAME = re.compile(r"_([01])_([01])\.\w+$")
AGES, GENDERS = ("young", "old"), ("female", "male")


def load_bffhq(request) -> Dataset:
    """Load BFFHQ at 64 pixels: aligned and conflicting faces train, the test folder tests.

    The faces of the folder valid are read only if they are asked for.
    """
    *paths, val_paths = find_images(request.data_path)
    (train, train_labels, train_notes), (test, test_labels, test_notes) = (
        parse_labels(NAME, of_split) for of_split in paths)
    loaded = load_images(train + test, request.im_size or 64, request)
    attributes = make_attributes(np.concatenate([train_labels, test_labels])[loaded.kept])
    border = int((loaded.kept < len(train)).sum())
    splits = (select_images(loaded.images, index, *attributes, NORMALIZATION)
              for index in (slice(0, border), slice(border, None)))
    names = tuple((train + test)[row].name for row in loaded.kept[:border])
    val = load_validation(val_paths, request) if request.read_validation and val_paths else None
    return Dataset(request.name, *splits, train_notes + test_notes + loaded.notes, val=val, train_paths=names)


def load_validation(paths: list[Path], request) -> GroupedImages:
    """Return the faces of the folder valid. They have their own cache."""
    paths, labels, _ = parse_labels(NAME, paths)
    loaded = load_images(paths, request.im_size or 64, request)
    return select_images(loaded.images, slice(None), *make_attributes(labels[loaded.kept]), NORMALIZATION)


def make_attributes(labels: np.ndarray) -> tuple[Attribute, Attribute]:
    """Return the age and the gender of images. labels: (N, 2)"""
    age, gender = labels.T
    return Attribute(age, AGES), Attribute(gender, GENDERS)


def find_images(root: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Return the paths of the training, test and validation images; there may be none of the last. Raises UserError."""
    homes = candidate_folders(root, FOLDERS)
    listed = [[list_images(home, pattern) for pattern in PATTERNS] for home in homes]
    align, conflict, test = best = max(listed, key=lambda lists: sum(map(bool, lists)))
    if not all(best):
        absent = [pattern for pattern, paths in zip(PATTERNS, best, strict=True) if not paths]
        tried = homes[:-1] or [root / "bffhq"]
        raise dataset_not_found("BFFHQ", tried, TREE, LINK, f"no images in {', '.join(absent)}")
    return align + conflict, test, list_images(homes[listed.index(best)], "valid/*")
