"""Folder: splits as they are coded, and drawn splits through which nothing leaks into the test."""

import itertools
from shutil import copyfile

import numpy as np
import pytest
import torch
from test_datasets_folder import HEADER, age_class, labels_by_index, load, make_rows, write_csv, write_images
from test_image_cache import write_image

from fairdd.core.errors import UserError
from fairdd.datasets.custom.split import find_copies, join_units, keep_units_together, splits_of_files

ROWS = make_rows()


def expected(indices):
    return {index: (age_class(ROWS[index][1]), ROWS[index][2]) for index in indices}


def get(root, **options):
    return load(root, **{"target_attr": "age:20,40", "protected_attr": "gender"} | options)


@pytest.fixture
def own(tmp_path):
    write_images(tmp_path, ROWS)
    return tmp_path


def write_splits(root, codes, column="split"):
    rows = [[*row, codes[index % len(codes)]] for index, row in enumerate(ROWS)]
    write_csv(root, [[*HEADER, column], *rows])


@pytest.mark.parametrize("codes, column", [
    (("train", "val", "test"), "split"), (("TRAIN", "Validation", "Testing"), "Partition"),
    (("training", "dev", "eval"), "split"), (("train", "valid", "test"), "part"), (("0", "1", "2"), "split"),
    (("0.0", "1.0", "2.0"), "partition")])
def test_splits_are_read_as_they_are_coded(own, codes, column):
    write_splits(own, codes, column)
    data = get(own)
    for images, first in ((data.train, 0), (data.val, 1), (data.test, 2)):
        assert labels_by_index(images) == expected(range(first, 60, 3))
    assert data.split == () and ("read as train/val/test" in data.notes[0]) == (codes[0][0] == "0")
    assert data.val.mean == data.train.mean


@pytest.mark.parametrize("codes", [("0", "1"), ("0", "2"), ("True", "False"), ("1", "2")])
def test_two_codes_are_asked_for(own, codes):
    write_splits(own, codes)
    with pytest.raises(UserError, match=r"column 'split' holds only .*which is train, which is test"):
        get(own)


@pytest.mark.parametrize("codes, message", [
    (("train", "training"), "by its split no image is test"), (("test", "val"), "by its split no image is train"),
    (("0", "1", "2", "3"), "row 2: split is '0', expected train, val or test"),
    (("train", "test", ""), "row 4: split is '', expected")])
def test_other_splits_are_refused(own, codes, message):
    write_splits(own, codes)
    with pytest.raises(UserError, match=message):
        get(own)


def test_without_test_images_the_validation_images_are_the_test(own):
    write_splits(own, ("train", "train", "val"))
    data = get(own)
    assert labels_by_index(data.test) == expected(range(2, 60, 3)) and data.val is None
    assert "no image is test, so the validation images are the test" in data.notes[0]


def test_validation_images_train_nothing_and_do_not_change_the_normalization(own):
    write_splits(own, ("train", "val", "test"))
    before = get(own).train
    for index in range(1, 60, 3):
        write_image(own / ROWS[index][0], (4 * index, 255, 255))
    after = get(own).train
    assert after.mean == before.mean and after.std == before.std and after.images.equal(before.images)


def test_validation_images_of_a_class_that_no_other_image_has_are_left_out(own):
    rows = [[*row, ("train", "val", "test")[index % 3]] for index, row in enumerate(ROWS)]
    rows[4][3] = "C"
    write_csv(own, [[*HEADER, "split"], *rows])
    data = load(own, target_attr="race", protected_attr="gender")
    assert data.train.class_names == ("A", "B") and labels_by_index(data.val).keys() == {*range(1, 60, 3)} - {4}
    assert "1 validation images with a class or group that no other image has are left out" in data.notes[0]


@pytest.mark.parametrize("names, roles", [
    (("train.csv", "val.csv", "test.csv"), (0, 1, 2)), (("new_test.csv", "new_train.csv", "new_valid.csv"), (2, 0, 1)),
    (("a.csv", "b.csv", "c.csv"), (0, 1, 2))])
def test_three_files_hold_a_split_each(own, names, roles):
    for name, first in zip(names, roles, strict=True):
        write_csv(own, [HEADER, *ROWS[first::3]], name=name)
    data = get(own, labels=",".join(names))
    for images, first in ((data.train, 0), (data.val, 1), (data.test, 2)):
        assert labels_by_index(images) == expected(range(first, 60, 3))
    assert f"{names[roles.index(1)]} is val" in data.notes[0]


@pytest.mark.parametrize("names", [("train.csv", "val.csv"), ("a.csv", "b.csv"), ("label_train.csv", "label_test.csv")])
def test_the_second_of_two_files_is_the_test(own, names):
    write_csv(own, [HEADER, *ROWS[:40]], name=names[0])
    write_csv(own, [[*HEADER, "more"], *([*row, "x"] for row in ROWS[40:])], name=names[1])
    data = get(own, labels=", ".join(names))
    assert labels_by_index(data.train) == expected(range(40)) and labels_by_index(data.test) == expected(range(40, 60))
    with pytest.raises(UserError, match="no column 'more'"):
        get(own, labels=",".join(names), target_attr="more")


def test_names_of_files_that_contradict_their_order_are_refused():
    assert splits_of_files(["test.csv", "train.csv"]) == ["test", "train"]
    for names in (["a.csv", "train.csv"], ["test.csv", "b.csv"], ["a.csv", "test.csv", "c.csv"], ["a", "b", "c", "d"]):
        with pytest.raises(UserError, match="which of them are train, val and test"):
            splits_of_files(names)


def test_an_image_in_two_files_or_a_contradicting_column_is_refused(own):
    write_csv(own, [HEADER, *ROWS[:40]], name="train.csv")
    write_csv(own, [HEADER, *ROWS[39:]], name="test.csv")
    with pytest.raises(UserError, match=r"train\.csv row 41 and test\.csv row 2: both name .*but the split is 'train'"):
        get(own, labels="train.csv,test.csv")
    write_csv(own, [[*HEADER, "split"], *([*row, "test"] for row in ROWS[40:])], name="test.csv")
    write_csv(own, [[*HEADER, "split"], *([*row, "train"] for row in ROWS[:40])], name="train.csv")
    assert labels_by_index(get(own, labels="train.csv,test.csv").test) == expected(range(40, 60))
    write_csv(own, [[*HEADER, "split"], *([*row, "val"] for row in ROWS[40:])], name="test.csv")
    with pytest.raises(UserError, match=r"test\.csv row 2: split is 'val' in the file of test"):
        get(own, labels="train.csv,test.csv")


def test_a_file_of_one_split_names_the_others_beside_it(own):
    write_csv(own, [HEADER, *ROWS], name="train.csv")
    write_csv(own, [HEADER, *ROWS], name="valid.csv")
    assert "valid.csv is not read (--labels train.csv,valid.csv reads both)" in get(own, labels="train.csv").notes[0]


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Train", "Valid", "Testing")])
def test_folders_of_splits_hold_folders_of_classes_and_groups(tmp_path, names):
    kinds = list(itertools.product(names, ("cat", "dog"), ("home", "wood"), range(4)))
    for index, (split, label, group, _) in enumerate(kinds):
        write_image(tmp_path / split / label / group / f"{index:02}.png", (4 * index, 0, 0))
    write_image(tmp_path / "train" / "cat" / "stray.png")
    data = load(tmp_path)
    for images, name in ((data.train, names[0]), (data.val, names[1]), (data.test, names[2])):
        assert labels_by_index(images) == {k: kind[1:3] for k, kind in enumerate(kinds) if kind[0] == name}
    assert "1 images that are not in a folder class/group/ are left out" in data.notes[0] and data.split == ()


def test_a_rare_cell_trains_and_does_not_shrink_the_test(tmp_path):
    kinds = [("cat", "x"), ("cat", "y"), ("dog", "x"), ("dog", "y")]
    rows = [[f"{k:03}.png", *(kinds[k % 4] if k < 96 else ("cat", "unknown"))] for k in range(97)]
    for k, row in enumerate(rows):
        write_image(tmp_path / row[0], (2 * k, 0, 0))
    write_csv(tmp_path, [["path", "class", "group"], *rows])
    data = load(tmp_path)
    split = dict(data.split)
    assert split["096.png"] == "train" and len(data.test) == 48
    for images, name in ((data.train, "train"), (data.test, "test")):
        for level, label, group in zip(images.images[:, 0, 0, 0].tolist(), images.labels, images.groups, strict=True):
            row = rows[level // 2]
            assert row[1:] == [images.class_names[label], images.group_names[group]] and split[row[0]] == name
    assert any("(cat, unknown) has 1; such cells are not tested" in note for note in data.notes)
    for rare in ("refuse", "shrink"):
        with pytest.raises(UserError, match=r"\(cat, unknown\)"):
            load(tmp_path, rare_cells=rare)


# Leaks

def make_ids(size=5):
    """60 rows whose class and group are those of their id; ids have 1 to size images."""
    sizes = [1 + k % size for k in range(20)]
    ids = np.repeat(np.arange(20), sizes)[:60]
    return [[f"pics/{k:03}.png", "cd"[name % 2], "gh"[name // 2 % 2], f"L{name}"] for k, name in enumerate(ids)]


@pytest.mark.parametrize("seed", range(5))
def test_split_by_keeps_the_images_of_an_id_on_one_side(own, seed):
    rows = make_ids()
    write_csv(own, [["path", "class", "group", "lesion_id"], *rows])
    data = load(own, split_by="LESION_ID", data_seed=seed)
    train, test = (labels_by_index(images) for images in (data.train, data.test))
    assert train | test == {k: tuple(row[1:3]) for k, row in enumerate(rows)} and not train.keys() & test.keys()
    assert not {rows[k][3] for k in train} & {rows[k][3] for k in test}
    assert (data.test.counts() > 0).all() and (data.train.counts() > 0).all()
    assert any("all images of a lesion_id are on one side of the split" in note for note in data.notes)
    assert {k for k, row in enumerate(rows) if dict(data.split)[row[0]] == "test"} == test.keys()


def test_a_column_that_looks_like_an_id_gets_a_warning(own):
    write_csv(own, [["path", "class", "group", "Patient ID"], *make_ids()])
    assert any("warning: several images may show the same Patient ID" in note for note in load(own).notes)
    assert not any("warning" in note for note in load(own, split_by="Patient ID").notes)
    write_csv(own, [["path", "class", "group", "shade"], *make_ids()])
    assert not any("warning" in note for note in load(own).notes)


def test_a_cell_with_a_single_id_is_refused(own):
    rows = make_ids()
    rows[0][1:3] = rows[1][1:3] = "cx"
    rows[1][3] = rows[0][3]
    write_csv(own, [["path", "class", "group", "lesion_id"], *rows])
    assert len(load(own).split) == len(rows)
    with pytest.raises(UserError, match=r"only one lesion_id has \(class, group\) \(c, x\)"):
        load(own, split_by="lesion_id")


def test_split_by_checks_a_given_split(own):
    rows = [[*row, "test" if int(row[3][1:]) < 8 else "train"] for row in make_ids()]
    write_csv(own, [["path", "class", "group", "lesion_id", "split"], *rows])
    test = {index for index, row in enumerate(rows) if row[4] == "test"}
    assert labels_by_index(load(own, split_by="lesion_id").test).keys() == test
    rows[-1][4] = "test"
    write_csv(own, [["path", "class", "group", "lesion_id", "split"], *rows])
    with pytest.raises(UserError, match=f"has images of lesion_id '{rows[-1][3]}' on both sides"):
        load(own, split_by="lesion_id")


@pytest.mark.parametrize("seed", range(5))
def test_copies_of_a_file_are_on_one_side_and_counted(own, seed):
    kinds = [("cat", "x"), ("cat", "y"), ("dog", "x"), ("dog", "y")]
    rows = [[f"{k:02}.png", *kinds[k % 4]] for k in range(40)]
    for k in range(40):
        write_image(own / rows[k][0], (4 * k, 0, 0))
    for k in range(20, 32):
        copyfile(own / rows[k - 20][0], own / rows[k][0])
    rows[20][2] = "y"                                   # a copy with another group
    write_csv(own, [["path", "class", "group"], *rows])
    data = load(own, data_seed=seed)
    side = dict(data.split)
    assert all(side[rows[k][0]] == side[rows[k - 20][0]] for k in range(20, 32)) and len(side) == 40
    assert ("12 images are copies of another file (same bytes): copies are on one side of the split; 1 files have "
            "copies with another class or group") in data.notes
    for images, name in ((data.train, "train"), (data.test, "test")):
        pairs = zip(images.labels, images.groups, strict=True)
        assert sorted((images.class_names[c], images.group_names[g]) for c, g in pairs) == sorted(
            (label, group) for path, label, group in rows if side[path] == name)


def test_a_set_of_copies_alone_is_refused_as_such(own):
    for path, *_ in ROWS[1:]:
        copyfile(own / ROWS[0][0], own / path)
    write_csv(own, [HEADER, *ROWS])
    with pytest.raises(UserError, match=r"too few images .*; 59 images are copies of another file"):
        get(own)


def test_copies_across_a_given_split_are_counted(own):
    write_splits(own, ("train", "test"))
    copyfile(own / ROWS[0][0], own / ROWS[1][0])
    copyfile(own / ROWS[0][0], own / ROWS[3][0])
    assert "warning: 2 test images are copies of training images (same bytes)" in get(own).notes


def test_only_equal_bytes_are_copies(tmp_path):
    files = [write_image(tmp_path / f"{k}.png", (k // 2, 0, 0)) for k in range(6)]
    files[1].write_bytes(files[1].read_bytes() + b"\0")
    data = np.stack([np.full((3, 4, 4), k // 2, np.uint8) for k in range(6)])
    assert find_copies(torch.from_numpy(data), files).tolist() == [0, 1, 2, 2, 3, 3]


def test_a_test_of_units_has_as_many_images_of_a_cell_as_drawn_and_half_of_each_trains():
    draw = np.random.default_rng(0)
    for _ in range(20):
        cells, units = draw.integers(0, 4, 240), draw.integers(0, draw.integers(20, 240), 240)
        drawn = np.concatenate([draw.choice(np.flatnonzero(cells == cell), 20, replace=False) for cell in range(4)])
        test = keep_units_together(drawn, cells, units, 0)
        counts = np.bincount(cells[test], minlength=4)
        assert not np.isin(units[test], units[np.setdiff1d(np.arange(240), test)]).any() and len({*test}) == len(test)
        assert (counts >= 20).all() and (counts <= np.bincount(cells) // 2).all()
    assert len(keep_units_together(np.arange(15), np.zeros(20, np.int64), np.arange(20) // 19, 0)) == 1
    assert len(keep_units_together(np.arange(15), np.zeros(20, np.int64), np.arange(20) // 2, 0)) == 14


def test_a_test_of_units_leaves_out_untested_cells_and_takes_small_units_where_large_ones_do_not_fit():
    cells, units = np.array([0] * 10 + [1] * 10 + [2] * 2), np.array([0] * 8 + [1, 2] + [3] * 5 + [4] * 4 + [5, 5, 6])
    test = keep_units_together(np.array([0, 1, 19, 10]), cells, units, 0)       # unit 5 has an image of cell 2
    assert set(units[test]) in ({1, 2, 3}, {1, 2, 4})
    assert keep_units_together(np.array([3, 1]), np.zeros(4, np.int64), np.arange(4), 0).tolist() == [3, 1]


def test_where_half_of_a_cell_cannot_train_a_test_of_units_still_has_every_cell():
    cells, units = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 0, 1, 1])
    test = keep_units_together(np.array([0, 3]), cells, units, 0)
    assert test.tolist() in ([0, 1, 3], [2, 4, 5])
    with pytest.raises(UserError, match="no split keeps the images of each --split_by value"):
        keep_units_together(np.array([0, 3]), cells, np.array([0, 0, 1, 1, 1, 0]) * 0, 0)


def test_units_join_ids_and_copies():
    ids, copies = np.array([0, 0, 1, 2, 3, 3]), np.array([0, 1, 1, 2, 3, 4])
    units = join_units(ids, copies)
    assert units[0] == units[1] == units[2] and units[4] == units[5] and len({*units.tolist()}) == 3
