"""get_dataset: unknown names, unsupported options, values out of range; the digest of a data set."""

import re
from dataclasses import replace

import pytest
import torch

from fairdd.core.errors import UserError
from fairdd.datasets import DATASETS, Dataset, GroupedImages, get_dataset
from fairdd.datasets.base import digest_tensor


def test_an_unknown_name_is_refused_with_the_known_names():
    with pytest.raises(UserError, match=re.escape(", ".join(DATASETS))):
        get_dataset("CIFAR10")


@pytest.mark.parametrize("name, option", [("Colored_Digits", dict(target_attr="age")), ("BFFHQ", dict(skew=0.5)),
                                          ("BFFHQ", dict(protected_attr="race")), ("UTKface", dict(skew=0)),
                                          ("BFFHQ", dict(rare_cells="shrink")), ("CelebA", dict(labels="a.csv")),
                                          ("CIFAR10_S", dict(minorities="unequal")),
                                          ("Folder", dict(train_without="a")), ("BFFHQ", dict(test_without="male"))])
def test_an_unsupported_option_is_refused(name, option):
    with pytest.raises(UserError, match=f"--{next(iter(option))} is not supported for {name}; supported by: "):
        get_dataset(name, **option)


@pytest.mark.parametrize("name, option", [("Colored_Digits", dict(skew=1.5)), ("Colored_Digits", dict(skew=-0.1)),
                                          ("Colored_Digits", dict(im_size=0)), ("Colored_Digits", dict(data_seed=-1)),
                                          ("UTKface", dict(rare_cells="drop")),
                                          ("Colored_Digits", dict(minorities="odd"))])
def test_a_value_out_of_range_is_refused(name, option):
    with pytest.raises(UserError, match=f"--{next(iter(option))} must be"):
        get_dataset(name, **option)


def test_a_skew_of_zero_means_that_no_image_has_its_own_color():
    assert get_dataset("Colored_Digits", skew=0).train.counts().diagonal().sum() == 0
    assert get_dataset("Colored_Digits", skew=0.0).digest() != get_dataset("Colored_Digits").digest()


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match=rf"looked for {tmp_path}/data/bffhq"):
        get_dataset("BFFHQ", "~/data")


def grouped(count=6, **changes):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, 4, 4), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % 2
    fields = dict(images=images, labels=labels, groups=labels.flip(0), class_names=("a", "b"), group_names=("x", "y"),
                  mean=(0.5,) * 3, std=(0.5,) * 3)
    return GroupedImages(**fields | changes)


def swap_two(values):
    """Return the values with the first two, which differ, swapped."""
    return values[[1, 0, *range(2, len(values))]]


@pytest.mark.parametrize("field", ["images", "labels", "groups"])
@pytest.mark.parametrize("split", ["train", "test", "val"])
def test_the_digest_tells_what_differs(split, field):
    data = Dataset("any", grouped(), grouped(8), val=grouped(4))
    images = getattr(data, split)
    changed = replace(data, **{split: replace(images, **{field: swap_two(getattr(images, field))})})
    first, second = data.digest(), changed.digest()
    assert first.keys() == second.keys() and data.digest() == first
    assert [name for name in first if first[name] != second[name]] == [f"{split} {field}"]


def test_the_digest_covers_names_normalization_and_the_split():
    data = Dataset("any", grouped(), grouped(8))
    first = data.digest()
    for name, changes in {"class names": dict(class_names=("b", "a")), "group names": dict(group_names=("x", "z")),
                          "normalization": dict(mean=(0.4, 0.5, 0.5))}.items():
        second = Dataset("any", grouped(**changes), grouped(8, **changes)).digest()
        assert {key for key in first if first[key] != second[key]} == {name}
    moved = Dataset("any", grouped(7), grouped(7)).digest()
    assert {key for key in first if first[key] != moved[key]} == {f"{split} {field}" for split in ("train", "test")
                                                                  for field in ("images", "labels", "groups")}
    assert "val images" not in first and "val images" in replace(data, val=grouped()).digest()


def test_the_digest_covers_every_chunk_and_the_shape(monkeypatch):
    monkeypatch.setattr("fairdd.datasets.base.HASH_BYTES", 5)
    values = torch.arange(24, dtype=torch.uint8)
    variants = [values, *(values.index_fill(0, torch.tensor(k), 99) for k in range(24)), values.view(2, 12),
                values.view(12, 2), values.int(), values[:0]]
    assert len(set(map(digest_tensor, variants))) == len(variants)
    assert digest_tensor(values[::2]) == digest_tensor(values[::2].clone())


def test_the_same_request_has_the_same_digest_and_another_seed_another():
    first, again, other = (get_dataset("Colored_Digits", data_seed=seed).digest() for seed in (30, 30, 31))
    assert first == again
    assert {name for name in first if first[name] != other[name]} == {"train images", "train labels", "train groups"}
