"""CIFAR10-S: gray and color shares, every test image in both forms, the three places it is read from."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from fairdd.core.errors import UserError
from fairdd.datasets import get_dataset
from fairdd.datasets.cifar10_s import CLASSES, to_gray


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """CIFAR-10 as files in miniature: 10 training and 2 test images a class, each of colors of its own."""
    root = tmp_path_factory.mktemp("data")
    generator = np.random.RandomState(0)
    for part, count in (("train", 10), ("test", 2)):
        for name in CLASSES:
            folder = root / "CIFAR10" / part / name
            folder.mkdir(parents=True)
            for k in range(count):
                pixels = generator.randint(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{k}.png")
    return root


def is_gray(images):
    return (images == images[:, :1]).all(1).flatten(1).all(1)


@pytest.mark.parametrize("name, skew", [("CIFAR10_S", None), ("CIFAR10_S_90", None), ("CIFAR10_S", 0.55)])
def test_the_skew_of_each_class_is_gray_or_in_color(root, name, skew):
    train = get_dataset(name, root, skew=skew, progress=False).train
    most = 9 if skew is None else 5
    assert train.counts().tolist() == [[most] * 5 + [10 - most] * 5, [10 - most] * 5 + [most] * 5]
    assert is_gray(train.images).equal(train.groups == 0)
    assert train.group_names[0] == "gray" and train.class_names[3] == "cat"


def test_every_test_image_is_gray_once_and_in_color_once(root):
    test = get_dataset("CIFAR10_S", root, progress=False).test
    assert test.counts().tolist() == [[2] * 10] * 2
    gray, color = test.images[:20], test.images[20:]
    assert is_gray(gray).all() and not is_gray(color).any()
    assert gray.equal(torch.from_numpy(to_gray(color.numpy()))) and test.labels[:20].equal(test.labels[20:])


def test_gray_is_the_luma_of_pillow():
    images = np.random.RandomState(0).randint(0, 256, (1, 3, 200, 200), np.uint8)
    pillow = np.asarray(Image.fromarray(images[0].transpose(1, 2, 0)).convert("L"))
    assert (to_gray(images) == pillow).all()


def test_files_are_said_not_to_be_comparable(root):
    assert "not comparable" in get_dataset("CIFAR10_S", root, progress=False).notes[0]


def test_the_seed_decides_which_images_are_gray(root):
    first, again, other = (get_dataset("CIFAR10_S", root, data_seed=seed).train for seed in (30, 30, 7))
    assert first.images.equal(again.images) and not first.images.equal(other.images)


def test_the_other_name_has_one_skew_only(root):
    with pytest.raises(UserError, match="take CIFAR10_S"):
        get_dataset("CIFAR10_S_90", root, skew=0.8)


def write_batches(root):
    """Six official-looking files of 20 images. -> name and checksum of each"""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    files = {f"data_batch_{k}": list(range(10)) * 2 for k in range(1, 6)} | {"test_batch": list(range(10))}
    contents = {name: {"data": np.zeros((len(labels), 3072), np.uint8), "labels": labels}
                for name, labels in files.items()} | {"batches.meta": {"label_names": list(CLASSES)}}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
    return {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in contents}


def test_official_batches_come_first(root, tmp_path, monkeypatch):
    sums = write_batches(tmp_path)
    (tmp_path / "CIFAR10").symlink_to(root / "CIFAR10")
    official = torchvision.datasets.CIFAR10
    monkeypatch.setattr(official, "train_list", [[f"data_batch_{k}", sums[f"data_batch_{k}"]] for k in range(1, 6)])
    monkeypatch.setattr(official, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(official, "meta", official.meta | {"md5": sums["batches.meta"]})
    data = get_dataset("CIFAR10_S", tmp_path)
    assert (len(data.train), len(data.test)) == (100, 20) and data.notes == ()


def test_batches_with_a_wrong_checksum_are_not_opened(tmp_path):
    write_batches(tmp_path)
    with pytest.raises(UserError, match=r"missing or damaged.*cifar-10-batches-py"):
        get_dataset("CIFAR10_S", tmp_path)


def test_without_files_and_network_the_tree_is_explained(tmp_path, monkeypatch):
    def offline(root, download):
        raise OSError("no network")
    monkeypatch.setattr("torchvision.datasets.CIFAR10", offline)
    with pytest.raises(UserError, match=r"no network.*CIFAR10/train/<class>.*https://"):
        get_dataset("CIFAR10_S", tmp_path)
