"""CIFAR10-S: shares of gray and color, every test image in both forms, the three sources it is read from."""

import hashlib
import pickle
import shutil

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from fairdd.core.errors import UserError
from fairdd.datasets import get_dataset
from fairdd.datasets.cifar10_s import CLASSES
from fairdd.datasets.gray import to_gray


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A miniature CIFAR-10 as image files: 10 training and 2 test images of random pixels in each class."""
    root = tmp_path_factory.mktemp("data")
    generator = np.random.RandomState(0)
    for split, count in (("train", 10), ("test", 2)):
        for name in CLASSES:
            folder = root / "CIFAR10" / split / name
            folder.mkdir(parents=True)
            for k in range(count):
                pixels = generator.randint(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{k}.png")
    return root


def is_gray(images):
    return (images == images[:, :1]).all(1).flatten(1).all(1)


@pytest.mark.parametrize("name, skew", [("CIFAR10_S", None), ("CIFAR10_S_90", None), ("CIFAR10_S", 0.55),
                                        ("CIFAR10_S", 0)])
def test_the_skew_is_the_share_of_gray_or_colored_images_of_a_class(root, name, skew):
    train = get_dataset(name, root, skew=skew, progress=False).train
    majority = {None: 9, 0.55: 5, 0: 0}[skew]
    minority = 10 - majority
    assert train.counts().tolist() == [[majority] * 5 + [minority] * 5, [minority] * 5 + [majority] * 5]
    assert is_gray(train.images).equal(train.groups == 0)
    assert train.group_names[0] == "gray" and train.class_names[3] == "cat"


def test_every_test_image_appears_in_gray_and_in_color(root):
    test = get_dataset("CIFAR10_S", root, progress=False).test
    assert test.counts().tolist() == [[2] * 10] * 2
    gray, color = test.images[:20], test.images[20:]
    assert is_gray(gray).all() and not is_gray(color).any()
    assert gray.equal(torch.from_numpy(to_gray(color.numpy()))) and test.labels[:20].equal(test.labels[20:])


def test_a_group_can_be_left_out_of_training_but_the_test_needs_both(root):
    full, data = (get_dataset("CIFAR10_S", root, train_without=names, progress=False) for names in (None, "gray"))
    assert data.train.images.equal(full.train.images[~is_gray(full.train.images)]) and len(data.train) < len(full.train)
    assert data.test.images.equal(full.test.images)
    with pytest.raises(UserError, match="leaves 1 of the groups gray, color; fairness metrics need 2"):
        get_dataset("CIFAR10_S_90", root, test_without="color", progress=False)


def test_gray_is_the_rounded_luma():
    images = np.random.RandomState(0).randint(0, 256, (3, 3, 200, 150), np.uint8)
    luma = np.tensordot((0.299, 0.587, 0.114), images, (0, 1))
    gray = to_gray(images)
    assert gray.shape == images.shape and (gray == gray[:, :1]).all()
    assert np.abs(gray[:, 0] - luma).max() <= 0.51


def test_a_note_says_that_image_files_are_not_comparable(root):
    assert "not comparable" in get_dataset("CIFAR10_S", root, progress=False).notes[0]


def test_the_seed_decides_which_images_are_gray(root):
    first, again, other = (get_dataset("CIFAR10_S", root, data_seed=seed).train for seed in (30, 30, 7))
    assert first.images.equal(again.images) and not first.images.equal(other.images)


def test_cifar10_s_90_has_a_fixed_skew(root):
    with pytest.raises(UserError, match="use CIFAR10_S"):
        get_dataset("CIFAR10_S_90", root, skew=0.8)


def write_batches(root):
    """Write the official files with 20 images each. -> name and checksum of each file"""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    files = {f"data_batch_{k}": list(range(10)) * 2 for k in range(1, 6)} | {"test_batch": list(range(10))}
    contents = {name: {"data": np.zeros((len(labels), 3072), np.uint8), "labels": labels}
                for name, labels in files.items()} | {"batches.meta": {"label_names": list(CLASSES)}}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
    return {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in contents}


def test_official_batches_are_preferred_to_image_files(root, tmp_path, monkeypatch):
    sums = write_batches(tmp_path)
    (tmp_path / "CIFAR10").symlink_to(root / "CIFAR10")
    official = torchvision.datasets.CIFAR10
    monkeypatch.setattr(official, "train_list", [[f"data_batch_{k}", sums[f"data_batch_{k}"]] for k in range(1, 6)])
    monkeypatch.setattr(official, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(official, "meta", official.meta | {"md5": sums["batches.meta"]})
    data = get_dataset("CIFAR10_S", tmp_path)
    assert (len(data.train), len(data.test)) == (100, 20) and data.notes == ()


@pytest.mark.parametrize("name", ["cifar10", "CIFAR-10", "cifar10_png", ""])
def test_image_files_are_found_in_folders_of_any_usual_name(root, tmp_path, name):
    shutil.copytree(root / "CIFAR10", tmp_path / "data" / name)
    assert get_dataset("CIFAR10_S", tmp_path / "data").digest() == get_dataset("CIFAR10_S", root).digest()


def test_an_incomplete_folder_is_not_downloaded(root, tmp_path, monkeypatch):
    def not_called(root, download):
        raise AssertionError("a download is tried")
    monkeypatch.setattr("torchvision.datasets.CIFAR10", not_called)
    shutil.copytree(root / "CIFAR10" / "train", tmp_path / "cifar10" / "train")
    with pytest.raises(UserError, match=r"not found \(the classes are airplane.*looked for .*cifar10"):
        get_dataset("CIFAR10_S", tmp_path)


def test_batches_with_a_wrong_checksum_are_refused(tmp_path):
    write_batches(tmp_path)
    with pytest.raises(UserError, match=r"missing or damaged.*cifar-10-batches-py"):
        get_dataset("CIFAR10_S", tmp_path)


def test_without_files_and_network_the_error_explains_the_expected_files(tmp_path, monkeypatch):
    def offline(root, download):
        raise OSError("no network")
    monkeypatch.setattr("torchvision.datasets.CIFAR10", offline)
    with pytest.raises(UserError, match=r"no network.*CIFAR10/train/<class>.*https://"):
        get_dataset("CIFAR10_S", tmp_path)
