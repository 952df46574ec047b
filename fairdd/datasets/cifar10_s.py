"""CIFAR10-S: classes 0 to 4 mostly gray, classes 5 to 9 mostly in color; group 0 is gray, group 1 is color.

The rule is in gray.py.
"""

from pathlib import Path

import numpy as np
import torch

from fairdd.core.errors import UserError
from fairdd.datasets.base import Dataset, GroupedImages, resize
from fairdd.datasets.files import candidate_folders, dataset_not_found, download, list_images
from fairdd.datasets.gray import GROUPS, choose_gray, in_both_forms, to_gray
from fairdd.datasets.image_cache import load_images

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NORMALIZATION = (0.48905, 0.48451, 0.46715), (0.24278, 0.24082, 0.25098)
SKEW = 0.9
BATCHES = "cifar-10-batches-py"
FOLDERS = r"cifar-?10([-_](jpe?g|png))?"
TREE = f"{BATCHES}/data_batch_1…5 and test_batch, or CIFAR10/train/<class>/* and CIFAR10/test/<class>/*"
LINK = "https://www.cs.toronto.edu/~kriz/cifar.html"
FROM_FILES = ("CIFAR-10 was read from image files in sorted order: results are not comparable to published results, "
              "which use the official batches and their order")


def load_cifar10_s(request) -> Dataset:
    """Load CIFAR10-S at 32 pixels. CIFAR10_S_90 is the same, at the published skew of 0.9 only."""
    if request.name == "CIFAR10_S_90" and request.skew not in (None, SKEW):
        raise UserError(f"CIFAR10_S_90 has --skew {SKEW}; for {request.skew} use CIFAR10_S")
    train, test, notes = read_cifar10(request)
    seed = 0 if request.data_seed == 30 else request.data_seed      # 30 means published: here NumPy's seed 0
    (images, labels), (test_images, test_labels) = (shuffle(*arrays, seed) for arrays in (train, test))
    gray = choose_gray(labels, SKEW if request.skew is None else request.skew, len(CLASSES))
    images[gray] = to_gray(images[gray])
    return Dataset(request.name, grouped(images, labels, 1 - gray.astype(np.int64), request.im_size),
                   grouped(*in_both_forms(test_images, test_labels), request.im_size), notes)


def grouped(images, labels, groups, size) -> GroupedImages:
    """Return arrays as GroupedImages at that size."""
    images, labels, groups = map(torch.from_numpy, (images, labels, groups))
    return GroupedImages(resize(images, size), labels, groups, CLASSES, GROUPS, *NORMALIZATION)


def shuffle(images: np.ndarray, labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return both in the same random order."""
    order = np.random.RandomState(seed).permutation(len(labels))
    return images[order], labels[order]


def read_cifar10(request) -> tuple:
    """Read the official batches, else image files, else download. -> (images, labels) of training and test, notes"""
    root = request.data_path
    *named, _ = homes = candidate_folders(root, FOLDERS)
    with_batches = [home for home in homes if (home / BATCHES).is_dir()]
    with_files = [home for home in named if (home / "train").is_dir() or (home / "test").is_dir()]
    with_files += [root] if (root / "train" / CLASSES[0]).is_dir() else []
    if with_files and not with_batches:
        return read_files(with_files[0], request)
    if not with_batches:
        download("CIFAR10", root, named or [root / "CIFAR10"], TREE, LINK)
    home = (with_batches or [root])[0]
    return read_batches(home, True), read_batches(home, False), ()


def read_batches(home: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Read the official pickled batches; torchvision checks their checksums first. -> images, labels"""
    import torchvision  # slow to import

    try:
        batches = torchvision.datasets.CIFAR10(home, train)
    except RuntimeError as error:
        raise dataset_not_found("CIFAR-10", [home / BATCHES], TREE, LINK, "a file is missing or damaged") from error
    return np.ascontiguousarray(batches.data.transpose(0, 3, 1, 2)), np.array(batches.targets, np.int64)


def read_files(folder: Path, request) -> tuple:
    """Read image files, class by class, each class sorted by name. -> (images, labels) of training and test, notes"""
    train, test = ([path for name in CLASSES for path in list_images(folder / split / name)]
                   for split in ("train", "test"))
    if not train or not test:
        raise dataset_not_found("CIFAR-10", [folder], TREE, LINK, f"the classes are {', '.join(CLASSES)}")
    loaded = load_images(train + test, 32, request)
    images = loaded.images.numpy()
    labels = np.array([CLASSES.index(path.parent.name) for path in train + test])[loaded.kept]
    border = int((loaded.kept < len(train)).sum())
    return (images[:border], labels[:border]), (images[border:], labels[border:]), (FROM_FILES, *loaded.notes)
