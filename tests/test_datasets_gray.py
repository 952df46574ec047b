"""Folder with --skew: which images are gray, what gray is, the test in both forms, from folders and from tables."""

import csv
import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from refusal import refusal
from test_image_cache import write_image

import main_DM
from fairdd.core.errors import UserError
from fairdd.datasets import get_dataset

CLASSES = ("ant", "bee", "cat", "dog", "elk")
MOSTLY_GRAY = ("ant", "bee", "cat")
TRAIN, TEST = 20, 3         # images of a class
load = partial(get_dataset, "Folder", im_size=8, progress=False, protected_attr="color")


# The first row of pixels of an image spells its number in black and white, which gray images keep

def pixels_of(number):
    pixels = np.random.RandomState(number).randint(0, 256, (8, 8, 3), np.uint8)
    pixels[0] = np.array([255 * (number >> bit & 1) for bit in range(8)], np.uint8)[:, None]
    return pixels


def save_image(root, path, number):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels_of(number)).save(root / path)


def write_classes(root, splits):
    """Write folders split/class/ with images; return {number: class} of each split. splits: name -> images a class"""
    labels, number = {split: {} for split in splits}, 0
    for split, count in splits.items():
        for name in CLASSES:
            for _ in range(count):
                save_image(root, f"{split}/{name}/{number:03}.png", number)
                labels[split][number] = name
                number += 1
    return labels


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_classes(root, {"train": TRAIN, "test": TEST})
    return root


def numbers_of(images):
    """Return the number of each image, from its first row of pixels."""
    return ((images.images[:, 0, 0] > 127).long() << torch.arange(8)).sum(1).tolist()


def named(images):
    """Return [(number, class, group)] of a split."""
    return [(number, images.class_names[label], images.group_names[group]) for number, label, group in zip(
        numbers_of(images), images.labels.tolist(), images.groups.tolist(), strict=True)]


def check_pixels(images):
    """Assert that images in color are those of the files, and that gray ones are their luma, three times."""
    for number, pixels, group in zip(numbers_of(images), images.images.numpy(), images.groups.tolist(), strict=True):
        original = pixels_of(number).transpose(2, 0, 1)
        if images.group_names[group] == "color":
            assert (pixels == original).all()
        else:
            assert (pixels == pixels[:1]).all()
            assert np.abs(pixels[0] - np.tensordot((0.299, 0.587, 0.114), original, (0, 0))).max() <= 0.51


def check_shares(train, labels, skew):
    """Assert that each training image appears once, with its class, and that the skew of every class is kept."""
    members = named(train)
    assert {number: name for number, name, _ in members} == labels and len(members) == len(labels)
    for name in CLASSES:
        groups = [group for _, label, group in members if label == name]
        majority = "gray" if name in MOSTLY_GRAY else "color"
        assert groups.count(majority) == int(100 * skew + 0.5) * len(groups) // 100


def both_forms(labels):
    return [(number, name, group) for group in ("gray", "color") for number, name in sorted(labels.items())]


@pytest.mark.parametrize("skew", [0, 0.29, 0.9, 1])
def test_the_first_half_of_the_classes_is_mostly_gray_and_the_others_in_color(root, skew):
    data = load(root, skew=skew)
    assert data.train.class_names == CLASSES and data.train.group_names == ("gray", "color")
    check_shares(data.train, {k: CLASSES[k // TRAIN] for k in range(5 * TRAIN)}, skew)
    check_pixels(data.train)
    assert [int(path[-7:-4]) for path in data.train_paths] == numbers_of(data.train)
    assert "of 3 classes (ant, bee, cat) is gray, of 2 (dog, elk) in color" in " ".join(data.notes)


def test_every_test_image_appears_in_gray_and_in_color(root):
    test = load(root, skew=0.9).test
    assert named(test) == both_forms({5 * TRAIN + k: CLASSES[k // TEST] for k in range(5 * TEST)})
    check_pixels(test)


def test_the_data_seed_decides_which_images_are_gray_and_files_and_cache_stay(root):
    first, again, other = (load(root, skew=0.5, data_seed=seed) for seed in (30, 30, 31))
    assert first.digest() == again.digest()
    check_pixels(other.train)               # also those that the first two loads turned gray
    gray, others = ({number for number, _, group in named(data.train) if group == "gray"} for data in (first, other))
    assert gray != others and gray != set(sorted(gray | others)[: len(gray)])
    assert {name for name, value in first.digest().items() if value != other.digest()[name]} == {
        "train images", "train groups", "normalization"}


def test_normalization_is_measured_on_the_training_images_as_they_are(root):
    train = load(root, skew=0.9).train
    pixels = train.images.double() / 255
    assert torch.tensor(train.mean).double().allclose(pixels.mean((0, 2, 3)))
    assert torch.tensor(train.std).double().allclose(pixels.std((0, 2, 3), correction=0))


def test_without_a_split_a_test_is_drawn_from_every_class(tmp_path):
    labels = write_classes(tmp_path, {".": TRAIN})["."]
    data = load(tmp_path, skew=0.9)
    drawn = {number: labels[number] for number in numbers_of(data.test)}
    assert sorted(named(data.test)) == sorted(both_forms(drawn)) and len(data.test) == 2 * 5 * TRAIN // 2
    check_shares(data.train, {number: name for number, name in labels.items() if number not in drawn}, 0.9)
    assert {path for path, split in data.split if split == "test"} == {
        f"{name}/{number:03}.png" for number, name in drawn.items()}


def test_validation_images_appear_in_both_forms_and_deeper_folders_belong_to_their_class(tmp_path):
    labels = write_classes(tmp_path, {"train": 4, "val": 2, "test": 2})
    for path in sorted(tmp_path.glob("*/bee/*.png")):
        (path.parent / "images").mkdir(exist_ok=True)
        path.rename(path.parent / "images" / path.name)
    data = load(tmp_path, skew=0.75)
    assert sorted(named(data.val)) == sorted(both_forms(labels["val"]))
    assert sorted(named(data.test)) == sorted(both_forms(labels["test"]))
    check_pixels(data.val)
    check_shares(data.train, labels["train"], 0.75)


def write_table(root, header, rows):
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def test_a_table_gives_the_classes_and_the_split(tmp_path):
    numbers = np.random.RandomState(0).permutation(60).tolist()
    rows = [[f"pics/{k}.png", CLASSES[k % 5], "test" if k % 3 == 0 else "train"] for k in numbers]
    for k in numbers:
        save_image(tmp_path, f"pics/{k}.png", k)
    write_table(tmp_path, ["path", "insect", "split"], rows)
    data = load(tmp_path, skew=0.5, target_attr="insect")
    check_shares(data.train, {k: CLASSES[k % 5] for k in numbers if k % 3}, 0.5)
    assert sorted(named(data.test)) == sorted(both_forms({k: CLASSES[k % 5] for k in numbers if k % 3 == 0}))
    check_pixels(data.train)


def test_a_column_called_color_is_taken_without_skew_and_refused_with_it(tmp_path):
    for k in range(80):
        save_image(tmp_path, f"pics/{k}.png", k)
    write_table(tmp_path, ["path", "class", "color"], [[f"pics/{k}.png", CLASSES[k % 2], "ab"[k // 40]]
                                                      for k in range(80)])
    assert load(tmp_path).train.group_names == ("a", "b")
    with pytest.raises(UserError, match="has a column 'color', and --skew draws an attribute of this name"):
        load(tmp_path, skew=0.9)


@pytest.mark.parametrize("options, message", [
    (["--skew", "0.9"], "needs --protected_attr color, not the column group"),
    (["--skew", "0.9", "--protected_attr", "color,group"], "needs --protected_attr color, not color,group"),
    (["--protected_attr", "color"], "--protected_attr color of images without a table needs --skew"),
    (["--skew", "0.9", "--protected_attr", "color", "--path_column", "path"], "have no --path_column"),
    (["--skew", "0.9", "--protected_attr", "color", "--target_attr", "kind"], "no column 'kind' for --target_attr"),
    (["--skew", "2", "--protected_attr", "color"], "'2' is not a number from 0 to 1")])
def test_flags_that_do_not_fit_are_refused(root, tmp_path, capsys, options, message):
    assert message in refusal(capsys, main_DM.main, ["--dataset", "Folder", "--data_path", str(root), "--save_path",
                                                     str(tmp_path / "run"), *options])


def test_a_single_class_is_refused(tmp_path):
    for number in range(8):
        write_image(tmp_path / "cat" / f"{number}.png", (number, 0, 0))
    with pytest.raises(UserError, match="class is 'cat' for every image"):
        load(tmp_path, skew=0.9)


def test_a_run_compares_gray_with_color(root, tmp_path):
    main_DM.main(["--dataset", "Folder", "--data_path", str(root), "--skew", "0.9", "--protected_attr", "color",
                  "--im_size", "8", "--model", "ConvNetD1W32", "--ipc", "1", "--Iteration", "2", "--FairDD",
                  "--num_eval", "1", "--epoch_eval_train", "1", "--save_path", str(tmp_path)])
    assert np.shape(json.loads((tmp_path / "results.json").read_text())["table"]) == (2, 5)
    assert json.loads((tmp_path / "dataset.json").read_text())["train"] == [[18, 18, 18, 2, 2], [2, 2, 2, 18, 18]]
