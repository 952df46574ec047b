"""The gray pictures under the colored sets: MNIST and Fashion-MNIST (idx files), scikit-learn's bundled digits."""

import gzip
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from fairdd.core.errors import UserError
from fairdd.datasets.files import download

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FASHION = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
LINKS = {"MNIST": "http://yann.lecun.com/exdb/mnist/",
         "FashionMNIST": "https://github.com/zalandoresearch/fashion-mnist"}
LARGEST = 16 + 60_000 * 28 * 28             # bytes of the largest idx file, unpacked
FILES = tuple(f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"))


@dataclass(frozen=True, eq=False)
class GrayImages:
    """pixels: (N, H, W) uint8; labels: (N,) int64"""

    pixels: np.ndarray
    labels: np.ndarray


def read_digits(_request):
    """1,797 digits of 8 x 8, ordered by writer: 1,200 to train, the last 597, of other writers, to test; at 16 x 16."""
    from sklearn.datasets import load_digits  # here, because it takes a second to import

    bunch = load_digits()
    small = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16
    large = F.interpolate(small, (16, 16), mode="bilinear", align_corners=False).squeeze(1)
    pixels, labels = (large * 255).round().byte().numpy(), bunch.target.astype(np.int64)
    return GrayImages(pixels[:1200], labels[:1200]), GrayImages(pixels[1200:], labels[1200:])


def read_idx_set(source, offset, request):
    """MNIST or FashionMNIST, training and test part, its 28 x 28 pixels at (offset, offset) of 32 x 32."""
    folder = find_idx_files(source, request.data_path)
    train_images, train_labels, test_images, test_labels = (read_idx(folder, name) for name in FILES)
    parts = (train_images, train_labels), (test_images, test_labels)
    for images, labels in parts:
        if images.shape != (*labels.shape, 28, 28) or labels.max(initial=0) > 9:
            raise UserError(f"{folder}: not images of 28 x 28 pixels, each with a label from 0 to 9; fetch them anew")
    return tuple(GrayImages(pad(images, offset), labels.astype(np.int64)) for images, labels in parts)


def find_idx_files(source, root):
    """The folder with the four files, unpacked or as .gz; torchvision fetches them where there is none."""
    folders = [root / source / "raw", root / source]
    for folder in folders:
        if all((folder / name).exists() or (folder / f"{name}.gz").exists() for name in FILES):
            return folder
    tree = f"{root / source}/raw/{{{','.join(FILES)}}}, unpacked or as .gz"
    download(source, root, folders, tree, LINKS[source])
    return folders[0]


def read_idx(folder, name):
    """An idx file of bytes: 2 zero bytes, type 8, number of axes, each axis' length in 4 bytes, the values. -> uint8"""
    path = folder / name
    try:
        data = path.read_bytes() if path.exists() else unpack(folder / f"{name}.gz")
        lengths = np.frombuffer(data, ">i4", count=data[3], offset=4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(lengths)
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise UserError(f"{path}: not a whole idx file ({error}); remove it and fetch it again") from error


def unpack(path):
    """The bytes of a .gz, if they are no more than the largest of these files holds. Raises ValueError."""
    with gzip.open(path) as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"it unpacks to more than {LARGEST} bytes")
    return data


def pad(pixels, offset):
    """(N, 28, 28) -> (N, 32, 32), zeros around, the picture's corner at (offset, offset)"""
    padded = np.zeros((len(pixels), 32, 32), np.uint8)
    padded[:, offset : offset + 28, offset : offset + 28] = pixels
    return padded
