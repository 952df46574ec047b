"""CelebA, UTKFace and BFFHQ: labels from names and lists, balanced tests, images left out, absent files."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from test_image_cache import write_image

from fairdd.core.errors import UserError
from fairdd.datasets import get_dataset
from fairdd.datasets.splits import hold_out_test

get = partial(get_dataset, im_size=8, progress=False)
COLUMNS = ["Attractive" if k == 2 else "Male" if k == 20 else "Young" if k == 39 else f"A{k}" for k in range(40)]


# UTKFace: the red level of an image is its race, the green its gender, the blue its age

def write_utkface(folder, per_cell=4, order=1):
    names = [(age, gender, race, f"{age}_{gender}_{race}_2017{k:03}.jpg.chip.jpg")
             for age, gender, race, k in itertools.product((5, 20, 39, 40), (0, 1), range(5), range(per_cell))]
    for age, gender, race, name in names[::order]:
        write_image(folder / name, (race * 50, gender * 200, age * 5))


@pytest.fixture(scope="module")
def utkface(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_utkface(root / "UTKFace")
    return root


def test_utkface_reads_age_and_race_from_the_names(utkface):
    data = get("UTKface", utkface)
    assert data.train.class_names == ("under 20", "20 to 39", "40 and over")
    assert data.train.group_names == ("White", "Black", "Asian", "Indian")
    assert data.train.counts().tolist() == [[4, 12, 4]] * 4 and data.test.counts().tolist() == [[4, 4, 4]] * 4
    red = data.train.images[:, 0].float().mean((1, 2))
    assert (red / 50).round().long().equal(data.train.groups)       # no "others", and every image has its own race


def test_utkface_training_is_ordered_by_cell(utkface):
    train = get("UTKface", utkface).train
    cell = train.labels * 4 + train.groups
    assert cell.equal(cell.sort().values)


@pytest.mark.parametrize("target, protected, classes, groups, size", [
    ("gender", "race", 2, 4, 128), ("race", "gender", 4, 2, 128), ("gender", "age", 2, 3, 160),
    ("age", "gender", 3, 2, 160), ("Age", "2", 3, 4, 128), ("age", "race,gender", 3, 8, 128)])
def test_utkface_supports_any_combination_of_attributes(utkface, target, protected, classes, groups, size):
    data = get("UTKface", utkface, target_attr=target, protected_attr=protected)
    assert (data.train.num_classes, data.train.num_groups) == (classes, groups)
    assert len(data.train) + len(data.test) == size                 # "others" count only where race is unused


def test_utkface_intersections_are_named_and_keep_each_attribute(utkface):
    both = get("UTKface", utkface, protected_attr="race,gender").train
    assert both.group_names[:3] == ("race=White,gender=male", "race=White,gender=female", "race=Black,gender=male")
    assert both.attributes == (("race", ("White", "Black", "Asian", "Indian")), ("gender", ("male", "female")))
    assert both.groups.equal((both.images[:, :2].float().mean((2, 3)) / torch.tensor([50, 200])).round().long()
                             @ torch.tensor([2, 1]))
    assert get("UTKface", utkface).train.attributes == ()


def test_utkface_does_not_depend_on_the_order_of_the_folder(utkface, tmp_path):
    write_utkface(tmp_path / "utkface", order=-1)
    first, second = get("UTKface", utkface), get("UTKface", tmp_path)
    assert first.train.images.equal(second.train.images) and first.test.images.equal(second.test.images)


def test_utkface_seed_decides_the_test(utkface):
    first, again, other = (get("UTKface", utkface, data_seed=seed).test for seed in (30, 30, 31))
    assert first.images.equal(again.images) and not first.images.equal(other.images)


def test_utkface_files_without_labels_are_left_out_and_counted(tmp_path):
    write_utkface(tmp_path / "UTKFace")
    write_image(tmp_path / "UTKFace" / "39_1_20170116174525125.jpg.chip.jpg")
    write_image(tmp_path / "UTKFace" / "55_0_0_20170116232725357jpg.chip.jpg", size=(9, 30))     # odd, but readable
    data = get("UTKface", tmp_path)
    assert len(data.train) + len(data.test) == 129
    assert data.notes[0] == ("1 files without labels in their names are left out: "
                             "39_1_20170116174525125.jpg.chip.jpg")


@pytest.mark.parametrize("smallest, per_cell", [(2, 1), (7, 3), (100, 50), (101, 100), (5000, 100)])
def test_a_drawn_test_has_100_images_of_each_cell_or_half_of_the_smallest_cell(smallest, per_cell):
    members = [np.arange(smallest), np.arange(10000, 16000)]
    split = hold_out_test(members, 30, "shrink")
    assert len(split.test) == 2 * per_cell and (split.notes == ()) == (per_cell == 100)
    assert not set(split.train) & set(split.test) and len(split.train) + len(split.test) == smallest + 6000


def cells(*sizes):
    """Members of four cells of these sizes: classes a and b, groups x and y."""
    starts = np.cumsum([0, *sizes])
    return [np.arange(start, end) for start, end in itertools.pairwise(starts)]


CELLS = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")]


@pytest.mark.parametrize("rare_size, is_rare", [(1, True), (19, True), (20, False)])
def test_a_rare_cell_trains_and_the_others_are_tested_fully(rare_size, is_rare):
    members = [*cells(200, 300, 201, 400), np.arange(5000, 5000 + rare_size)]
    split = hold_out_test(members, 30, "omit", [*CELLS, ("b", "unknown")])
    tested = [len(np.intersect1d(cell, split.test)) for cell in members]
    assert tested == ([100] * 4 + [0] if is_rare else [10] * 5)
    assert sorted([*split.train, *split.test]) == sorted(np.concatenate(members))
    assert (f"(b, unknown) has {rare_size}; such cells are not tested" in split.notes[0]) == is_rare


def test_rare_cells_shrink_the_test_or_are_refused_on_request():
    members, names = [*cells(200, 300, 201, 400), np.arange(5000, 5008)], [*CELLS, ("b", "unknown")]
    assert [len(np.intersect1d(cell, hold_out_test(members, 30, "shrink", names).test)) for cell in members] == [4] * 5
    with pytest.raises(UserError, match=r"to test 10 of every.*\(b, unknown\) has 8.*--rare_cells omit or shrink"):
        hold_out_test(members, 30, "refuse", names)
    assert hold_out_test(members[:4], 30, "refuse", CELLS).notes == ()


def test_small_data_sets_are_split_although_all_cells_are_rare():
    split = hold_out_test(cells(4, 9, 19, 7), 30, "omit", CELLS)
    assert len(split.test) == 4 * 2 and "the smallest tested cell has 4 images" in split.notes[0]


@pytest.mark.parametrize("sizes, lost", [((300, 5, 300, 300), "of a are"), ((300, 300, 5, 5), "of b are"),
                                         ((5, 5, 300, 5), "of a, b are")])
def test_a_class_must_keep_two_tested_groups(sizes, lost):
    with pytest.raises(UserError, match=f"fewer than two groups {lost} tested.*--rare_cells shrink"):
        hold_out_test(cells(*sizes), 30, "omit", CELLS)


def test_a_class_that_has_a_single_group_may_be_tested_in_it():
    assert len(hold_out_test(cells(300, 300, 300), 30, "omit", [*CELLS[:2], ("b", "x")]).test) == 300
    with pytest.raises(UserError, match="of b are tested"):
        hold_out_test(cells(300, 300, 3), 30, "omit", [*CELLS[:2], ("b", "x")])


def test_utkface_leaves_rare_cells_out_of_the_test(tmp_path):
    for age, race, count in ((5, 0, 40), (5, 1, 40), (5, 2, 3), (30, 0, 40), (30, 1, 41), (60, 0, 40), (60, 1, 44)):
        for k in range(count):
            write_image(tmp_path / "UTKFace" / f"{age}_0_{race}_2017{k:03}.jpg", (race * 50, k, age * 3))
    data = get("UTKface", tmp_path)
    assert data.test.counts().tolist() == [[20, 20, 20], [20, 20, 20], [0, 0, 0], [0, 0, 0]]
    assert data.train.counts().tolist() == [[20, 20, 20], [20, 21, 24], [3, 0, 0], [0, 0, 0]]
    assert "(under 20, Asian) has 3; such cells are not tested" in data.notes[0]
    assert get("UTKface", tmp_path, rare_cells="shrink").test.counts().sum() == 7
    with pytest.raises(UserError, match=r"\(under 20, Asian\) has 3"):
        get("UTKface", tmp_path, rare_cells="refuse")


# CelebA: an image is red if male, blue if not; green if attractive

def write_celeba(root, partitions, csv=False, copies=5):
    """Write twice as many attractive as other women; partitions: of consecutive images, repeated."""
    kinds = [(a, m) for a, m, times in ((1, 1, 1), (1, -1, 2), (-1, 1, 1), (-1, -1, 1)) for _ in range(times * copies)]
    rows, partition = [], []
    for k, (attractive, male) in enumerate(kinds):
        name = f"{k + 1:06}.jpg"
        write_image(root / "img_align_celeba" / name,
                    (250 * (male > 0), 250 * (attractive > 0), 250 * (male < 0)), (10, 14))
        values = {2: attractive, 20: male}
        rows.append([name, *(str(values.get(c, 1 if (k + c) % 2 else -1)) for c in range(40))])
        partition.append([name, str(partitions[k % len(partitions)])])
    if csv:
        rows, partition = [["image_id", *COLUMNS], *rows], [["image_id", "partition"], *partition]
    else:
        rows = [[str(len(kinds))], COLUMNS, *rows]
    for name, table in (("list_attr_celeba", rows), ("list_eval_partition", partition)):
        text = "\n".join(("," if csv else "  ").join(row) for row in table) + "\n"
        (root / f"{name}.{'csv' if csv else 'txt'}").write_text(text)


@pytest.fixture(scope="module")
def celeba(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_celeba(root / "CelebA", partitions=(0, 0, 2, 1, 2))
    return root


def test_celeba_trains_on_its_training_images_and_tests_on_balanced_cells(celeba):
    data = get("CelebA", celeba)
    assert data.train.counts().tolist() == [[2, 4], [2, 2]]         # (female, male) x (not attractive, attractive)
    assert data.test.counts().tolist() == [[2, 2], [2, 2]]
    assert data.train.class_names == ("not attractive", "attractive") and data.train.group_names == ("female", "male")
    for split in (data.train, data.test):
        assert (split.images[:, 0, 4, 4] > 128).long().equal(split.groups)
        assert (split.images[:, 1, 4, 4] > 128).long().equal(split.labels)


def test_celeba_attributes_can_be_named_numbered_and_swapped(celeba):
    named = get("CelebA", celeba, target_attr="male", protected_attr="Attractive")
    numbered = get("CelebA", celeba, target_attr=20, protected_attr="2")
    assert named.train.labels.equal(get("CelebA", celeba).train.groups)
    assert named.train.labels.equal(numbered.train.labels) and named.test.images.equal(numbered.test.images)


def test_two_celeba_attributes_make_four_groups(tmp_path):
    write_celeba(tmp_path / "CelebA", partitions=(0,), copies=10)
    data = get("CelebA", tmp_path, protected_attr="Male,Young")
    assert data.train.group_names == ("Male=0,Young=0", "Male=0,Young=1", "Male=1,Young=0", "Male=1,Young=1")
    assert data.test.counts().tolist() == [[1, 1]] * 4
    assert data.test.attributes == (("Male", ("0", "1")), ("Young", ("0", "1")))
    assert (data.train.images[:, 0, 4, 4] > 128).long().equal(data.train.groups // 2)


def test_celeba_training_images_are_never_copied(celeba):
    train = get("CelebA", celeba).train.images
    assert train.storage_offset() == 0 and train.untyped_storage().nbytes() > train.numel()     # a view of the cache


def test_celeba_as_csv_in_a_doubled_folder_is_the_same(celeba, tmp_path):
    write_celeba(tmp_path / "celeba", partitions=(0, 0, 2, 1, 2), csv=True)
    images = tmp_path / "celeba" / "img_align_celeba"
    images.rename(tmp_path / "moved")
    images.mkdir()
    (tmp_path / "moved").rename(images / "img_align_celeba")
    first, second = get("CelebA", celeba), get("CelebA", tmp_path)
    assert first.train.images.equal(second.train.images) and first.test.images.equal(second.test.images)


@pytest.mark.parametrize("protected, cells", [("Male", 4), ("Male,Young", 8)])
def test_celeba_without_a_test_partition_trains_on_all_images_but_the_test(tmp_path, protected, cells):
    write_celeba(tmp_path / "CelebA", partitions=(0,), copies=10)
    data = get("CelebA", tmp_path, protected_attr=protected)
    per_cell = 8 // cells                                       # a fifth of the smallest cell, of 10 or 5 images
    assert (data.test.counts() == per_cell).all()
    assert f"{per_cell} images of every tested cell are held out" in data.notes[0]
    total = data.train.counts() + data.test.counts()
    assert total.tolist() == ([[10, 20], [10, 10]] if cells == 4 else [[5, 10], [5, 10], [5, 5], [5, 5]])
    for split in (data.train, data.test):
        assert (split.images[:, 0, 4, 4] > 128).long().equal(split.groups * 2 // data.train.num_groups)
        assert (split.images[:, 1, 4, 4] > 128).long().equal(split.labels)


@pytest.mark.parametrize("partitions, per_cell, rare_size, rare_train", [((0, 2), 26, 2, 2), ((0,), 10, 4, 4)])
def test_rare_celeba_cells_are_not_tested(tmp_path, partitions, per_cell, rare_size, rare_train):
    """There are four old attractive men; the other cells have 52 images or more, in the test half of them."""
    write_celeba(tmp_path / "CelebA", partitions, copies=104)
    path = tmp_path / "CelebA" / "list_attr_celeba.txt"
    count, header, *rows = path.read_text().splitlines()
    rows = [row.split() for row in rows]
    for k, row in enumerate(rows):
        is_young = k >= 4 if row[3] == row[21] == "1" else k // 2 % 2       # attractive men come first
        row[40] = "1" if is_young else "-1"
    path.write_text("\n".join([count, header, *map(" ".join, rows)]) + "\n")
    data = get("CelebA", tmp_path, protected_attr="Male,Young")
    assert data.test.counts().tolist() == [[per_cell, per_cell]] * 2 + [[per_cell, 0], [per_cell, per_cell]]
    assert data.train.counts()[2, 1] == rare_train
    note = f"(attractive, Male=1,Young=0) has {rare_size}; such cells are not tested"
    assert any(note in text for text in data.notes)
    if rare_size == 2:
        shrunk = get("CelebA", tmp_path, protected_attr="Male,Young", rare_cells="shrink")
        assert (shrunk.test.counts() == 2).all()


@pytest.mark.parametrize("name", ["../000002.jpg", "/etc/000002.jpg", "img/000002.jpg"])
def test_celeba_lists_cannot_name_files_outside_the_image_folder(tmp_path, name):
    write_celeba(tmp_path / "CelebA", partitions=(0, 0, 2, 1, 2))
    path = tmp_path / "CelebA" / "list_attr_celeba.txt"
    path.write_text(path.read_text().replace("000002.jpg", name))
    with pytest.raises(UserError, match="outside the image folder"):
        get("CelebA", tmp_path)


def test_celeba_needs_every_listed_image(tmp_path):
    write_celeba(tmp_path / "CelebA", partitions=(0, 0, 2, 1, 2))
    (tmp_path / "CelebA" / "img_align_celeba" / "000002.jpg").unlink()
    with pytest.raises(UserError, match=r"000002\.jpg.*--skip_bad_images"):
        get("CelebA", tmp_path)
    assert len(get("CelebA", tmp_path, skip_bad_images=True).train) == 9


@pytest.mark.parametrize("options, message", [
    (dict(target_attr="Bald"), "unknown attribute 'Bald'.*20 Male"), (dict(target_attr=40), "unknown attribute '40'"),
    (dict(target_attr="Male"), "must differ"), (dict(protected_attr="Male,20"), "Male,Male names an attribute twice"),
    (dict(skew=0.9), "--skew is not supported for CelebA; supported by: Colored_Digits.*CIFAR10_S")])
def test_celeba_refuses_unknown_attributes_and_unsupported_options(celeba, options, message):
    with pytest.raises(UserError, match=message):
        get("CelebA", celeba, **options)


def test_an_incomplete_celeba_folder_is_not_downloaded(celeba, tmp_path):
    write_celeba(tmp_path / "CelebA", partitions=(0,))
    (tmp_path / "CelebA" / "list_eval_partition.txt").unlink()
    with pytest.raises(UserError, match=r"CelebA not found.*list_eval_partition\.csv"):
        get("CelebA", tmp_path)


def test_the_test_is_balanced_over_the_non_empty_cells(tmp_path):
    write_celeba(tmp_path / "CelebA", partitions=(0,))
    data = get("CelebA", tmp_path, target_attr="A1", protected_attr="A3")   # equal in every row
    for split in (data.train, data.test):
        assert (split.counts() > 0).equal(torch.eye(2, dtype=torch.bool))
    assert len(set(data.test.counts().diagonal().tolist())) == 1


# BFFHQ: the red level is the age, the green the gender

@pytest.fixture
def bffhq(tmp_path):
    folder, number = tmp_path / "bffhq", itertools.count()
    for subfolder, cells in (("0.5pct/align", [(0, 0)] * 4 + [(1, 1)] * 4), ("0.5pct/conflict", [(0, 1), (1, 0)]),
                         ("test", [(0, 0), (0, 1), (1, 0), (1, 1)]), ("valid", [(0, 0)])):
        for age, gender in cells:
            path = f"{subfolder}/{age}" if "pct" in subfolder else subfolder
            write_image(folder / path / f"{next(number)}_{age}_{gender}.png", (200 * age, 200 * gender, 0))
    return tmp_path


def test_bffhq_reads_age_and_gender_from_the_names(bffhq):
    data = get("BFFHQ", bffhq)
    assert data.train.counts().tolist() == [[4, 1], [1, 4]] and data.test.counts().tolist() == [[1, 1], [1, 1]]
    assert data.train.class_names == ("young", "old")
    for split in (data.train, data.test):
        assert (split.images[:, 0, 0, 0] // 200).long().equal(split.labels)
        assert (split.images[:, 1, 0, 0] // 200).long().equal(split.groups)


def test_bffhq_counts_files_without_labels_and_unreadable_files(bffhq):
    write_image(bffhq / "bffhq" / "0.5pct" / "align" / "0" / "face.png")
    (bffhq / "bffhq" / "0.5pct" / "align" / "0" / "0_0_0.png").write_bytes(b"")
    data = get("BFFHQ", bffhq, skip_bad_images=True)
    assert data.train.counts().tolist() == [[3, 1], [1, 4]] and data.test.counts().sum() == 4
    assert ["face.png" in data.notes[0], "0_0_0.png" in data.notes[1]] == [True, True]


@pytest.mark.parametrize("name, tree", [("UTKface", "age_gender_race_time"), ("BFFHQ", "0.5pct/align")])
def test_an_absent_data_set_names_the_paths_tried(tmp_path, name, tree):
    with pytest.raises(UserError, match=rf"{tmp_path}/.*{tree}.*https://"):
        get(name, tmp_path)
