"""BFFHQ: faces whose age goes with their gender, but for half a per cent. Age is the class, gender the group.

Lee, Kim, Lee, Lee, Choo: Learning Debiased Representation via Disentangled Feature Augmentation, NeurIPS 2021. Both
labels end the file name: …_<age>_<gender>.png. The files have numbers only; the words follow the paper, which
calls young women and old men the majority.
"""

import re

import numpy as np

from fairdd.datasets.base import Dataset
from fairdd.datasets.files import by_label, dataset_not_found, find_folder, list_images
from fairdd.datasets.image_cache import load_images
from fairdd.datasets.splits import Attribute, select_images

FOLDERS = ("bffhq", "BFFHQ")
PATTERNS = ("0.5pct/align/*/*", "0.5pct/conflict/*/*", "test/*")
TREE = "0.5pct/align/<class>/*, 0.5pct/conflict/<class>/* and test/*, files named …_<age>_<gender>.png"
LINK = "https://github.com/kakaoenterprise/Learning-Debiased-Disentangled"
NORMALIZATION = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)      # CIFAR-10's, as published
NAME = re.compile(r"_([01])_([01])\.\w+$")
AGES, GENDERS = ("young", "old"), ("female", "male")


def load_bffhq(request):
    """BFFHQ at 64 pixels: aligned and conflicting faces train, the test folder tests; its valid folder is unused."""
    train, test = (by_label(NAME, paths) for paths in find_images(request.data_path))
    decoded = load_images(train.paths + test.paths, request.im_size or 64, request)
    age, gender = np.concatenate([train.labels, test.labels])[decoded.kept].T
    attributes = Attribute(age, AGES), Attribute(gender, GENDERS)
    border = int((decoded.kept < len(train.paths)).sum())
    parts = (select_images(decoded.images, part, *attributes, NORMALIZATION) for part in (slice(0, border), slice(border, None)))
    return Dataset(request.name, *parts, train.notes + test.notes + decoded.notes)


def find_images(root):
    """The image files of the training and of the test part."""
    folder = find_folder(root, FOLDERS)
    align, conflict, test = (list_images(folder, pattern) if folder else [] for pattern in PATTERNS)
    if not (align and conflict and test):
        raise dataset_not_found("BFFHQ", [folder] if folder else [root / name for name in FOLDERS], TREE, LINK)
    return align + conflict, test
