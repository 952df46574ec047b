"""CIFAR10-S: classes 0 to 4 mostly gray, classes 5 to 9 mostly in color; group 0 is gray, group 1 color.

Wang et al.: Towards Fairness in Visual Recognition, CVPR 2020. Every test image appears in both forms.
"""

import numpy as np
import torch

from fairdd.core.errors import UserError
from fairdd.datasets.base import Dataset, GroupedImages, resize
from fairdd.datasets.colored import floor_share
from fairdd.datasets.files import dataset_not_found, download, find_folder, list_images
from fairdd.datasets.image_cache import load_images

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
GROUPS = ("gray", "color")
NORMALIZATION = (0.48905, 0.48451, 0.46715), (0.24278, 0.24082, 0.25098)
SKEW = 0.9
LUMA = (19595, 38470, 7471)          # 0.299, 0.587, 0.114 of 65536
BATCHES = "cifar-10-batches-py"
FOLDERS = ("CIFAR10", "cifar10", "cifar10_jpeg", "cifar10_png")
TREE = f"{BATCHES}/data_batch_1…5 and test_batch, or CIFAR10/train/<class>/* and CIFAR10/test/<class>/*"
LINK = "https://www.cs.toronto.edu/~kriz/cifar.html"
FROM_FILES = ("CIFAR-10 was read from image files in sorted order: numbers are not comparable to published ones, which "
              "rest on the official batches and their order")


def load_cifar10_s(request):
    """CIFAR10-S at 32 pixels. CIFAR10_S_90 is the same at the published skew, 0.9, and no other."""
    if request.name == "CIFAR10_S_90" and request.skew not in (None, SKEW):
        raise UserError(f"CIFAR10_S_90 has --skew {SKEW}; for {request.skew} take CIFAR10_S")
    (train, test), notes = read_cifar10(request)
    seed = 0 if request.data_seed == 30 else request.data_seed      # 30 means published: here NumPy's seed 0
    (images, labels), (test_images, test_labels) = shuffle(*train, seed), shuffle(*test, seed)
    gray = choose_gray(labels, SKEW if request.skew is None else request.skew)
    images[gray] = to_gray(images[gray])
    both = np.concatenate([to_gray(test_images), test_images])
    test_groups = np.repeat((0, 1), len(test_images))
    parts = (images, labels, 1 - gray.astype(np.int64)), (both, np.tile(test_labels, 2), test_groups)
    return Dataset(request.name, *(group(*part, request.im_size) for part in parts), notes)


def group(images, labels, groups, size):
    """Arrays -> GroupedImages at that size"""
    images, labels, groups = (torch.from_numpy(values) for values in (images, labels, groups))
    return GroupedImages(resize(images, size), labels, groups, CLASSES, GROUPS, *NORMALIZATION)


def shuffle(images, labels, seed):
    """Both in the same new order."""
    order = np.random.RandomState(seed).permutation(len(labels))
    return images[order], labels[order]


def choose_gray(labels, skew):
    """The first ⌊skew·n⌋ of classes 0 to 4 are gray, of classes 5 to 9 the first n − ⌊skew·n⌋. (N,) -> (N,) bool"""
    gray = np.zeros(len(labels), bool)
    for label in range(len(CLASSES)):
        members = np.flatnonzero(labels == label)
        majority = floor_share(skew, len(members))
        gray[members[: majority if label < 5 else len(members) - majority]] = True
    return gray


def to_gray(images):
    """ITU-R 601 luma in Pillow's 16-bit fixed point, the same in all three channels. (N, 3, H, W) -> same, uint8"""
    luma = np.full(images[:, 0].shape, 2**15, np.uint32)
    for channel, weight in enumerate(LUMA):
        luma += weight * images[:, channel].astype(np.uint32)
    return np.repeat((luma >> 16).astype(np.uint8)[:, None], 3, axis=1)


def read_cifar10(request):
    """Images and labels: the official batches, else image files, else fetched. -> training and test part, notes"""
    root = request.data_path
    homes = [root, *(root / name for name in FOLDERS)]
    home = next((home for home in homes if (home / BATCHES).is_dir()), None)
    folder = find_folder(root, FOLDERS, ("train", "test"))
    if home is None and folder is not None:
        return read_files(folder, request)
    if home is None:
        home = root
        download("CIFAR10", root, homes, TREE, LINK)
    return (read_batches(home, True), read_batches(home, False)), ()


def read_batches(home, train):
    """The official pickled batches; torchvision compares their checksums before it opens them. -> images, labels"""
    import torchvision  # here, because it takes seconds to import

    try:
        batches = torchvision.datasets.CIFAR10(home, train)
    except RuntimeError as error:
        raise dataset_not_found("CIFAR-10", [home / BATCHES], TREE, LINK, "a file is missing or damaged") from error
    return np.ascontiguousarray(batches.data.transpose(0, 3, 1, 2)), np.array(batches.targets, np.int64)


def read_files(folder, request):
    """Image files, class by class, each class sorted by name. -> training and test part, notes"""
    train, test = ([path for name in CLASSES for path in list_images(folder / part / name)]
                   for part in ("train", "test"))
    if not train or not test:
        raise dataset_not_found("CIFAR-10", [folder], TREE, LINK, f"the classes are {', '.join(CLASSES)}")
    decoded = load_images(train + test, 32, request)
    images = decoded.images.numpy()
    labels = np.array([CLASSES.index(path.parent.name) for path in train + test])[decoded.kept]
    cut = int((decoded.kept < len(train)).sum())
    return ((images[:cut], labels[:cut]), (images[cut:], labels[cut:])), (FROM_FILES, *decoded.notes)
