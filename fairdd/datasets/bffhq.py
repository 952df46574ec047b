"""BFFHQ: faces whose age goes with their gender in 99.5 % of the training images. Age is the class, gender the group.

Lee, Kim, Lee, Lee, Choo: Learning Debiased Representation via Disentangled Feature Augmentation, NeurIPS 2021. Both
labels are at the end of the file name: …_<age>_<gender>.png. The files carry numbers only; the names follow the paper,
which calls young women and old men the majority.
"""

import re
from pathlib import Path

import numpy as np

from fairdd.datasets.base import Dataset
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
    """Load BFFHQ at 64 pixels: aligned and conflicting faces train, the test folder tests; valid is unused."""
    (train, train_labels, train_notes), (test, test_labels, test_notes) = (
        parse_labels(NAME, paths) for paths in find_images(request.data_path))
    loaded = load_images(train + test, request.im_size or 64, request)
    age, gender = np.concatenate([train_labels, test_labels])[loaded.kept].T
    attributes = Attribute(age, AGES), Attribute(gender, GENDERS)
    border = int((loaded.kept < len(train)).sum())
    splits = (select_images(loaded.images, index, *attributes, NORMALIZATION)
              for index in (slice(0, border), slice(border, None)))
    names = tuple((train + test)[row].name for row in loaded.kept[:border])
    return Dataset(request.name, *splits, train_notes + test_notes + loaded.notes, train_paths=names)


def find_images(root: Path) -> tuple[list[Path], list[Path]]:
    """Return the paths of the training and of the test images. Raises UserError."""
    homes = candidate_folders(root, FOLDERS)
    listed = [[list_images(home, pattern) for pattern in PATTERNS] for home in homes]
    align, conflict, test = best = max(listed, key=lambda lists: sum(map(bool, lists)))
    if not all(best):
        absent = [pattern for pattern, paths in zip(PATTERNS, best, strict=True) if not paths]
        tried = homes[:-1] or [root / "bffhq"]
        raise dataset_not_found("BFFHQ", tried, TREE, LINK, f"no images in {', '.join(absent)}")
    return align + conflict, test
