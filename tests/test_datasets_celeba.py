"""CelebA: labels from lists in every dialect, every layout of files, balanced tests, damaged lists, absent files.

An image is red if its face is male, blue if not; green if it is attractive.
"""

from functools import partial

import pytest
import torch
from PIL import Image
from test_image_cache import write_image

from fairdd.core.errors import UserError
from fairdd.datasets import get_dataset

get = partial(get_dataset, im_size=8, progress=False)
COLUMNS = ["Attractive" if k == 2 else "Male" if k == 20 else "Young" if k == 39 else f"A{k}" for k in range(40)]


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


def test_celeba_validates_on_its_validation_images_if_asked(celeba):
    data = get("CelebA", celeba, read_validation=True)
    assert data.val.counts().tolist() == [[1, 2], [1, 1]] and get("CelebA", celeba).val is None
    assert (data.val.images[:, 0, 4, 4] > 128).long().equal(data.val.groups)
    assert (data.val.images[:, 1, 4, 4] > 128).long().equal(data.val.labels)
    assert data.train.images.equal(get("CelebA", celeba).train.images)


def test_celeba_without_a_validation_part_has_none(tmp_path):
    write_celeba(tmp_path / "CelebA", partitions=(0, 2))
    assert get("CelebA", tmp_path, read_validation=True).val is None


def test_celeba_names_the_file_of_every_training_image(celeba):
    data = get("CelebA", celeba)
    attractive = [int(path.split(".")[0]) <= 15 for path in data.train_paths]        # written first
    assert attractive == data.train.labels.bool().tolist() and len(set(data.train_paths)) == len(data.train)


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


def not_called(*args, **kwargs):
    raise AssertionError("a download is tried")


CELEBA_LAYOUTS = {      # folder below data_path, and where its images and lists are moved
    "torchvision": ("celeba", {}), "kaggle": ("archive", {"img_align_celeba": "img_align_celeba/img_align_celeba"}),
    "kaggle's name": ("celeba-dataset", {"img_align_celeba": "img_align_celeba/img_align_celeba"}),
    "wilds": ("celebA_v1.0", {}), "group_DRO": ("celebA", {}), "upper case": ("CELEBA", {}),
    "nested": ("CelebA/CelebA", {}), "the folder itself": ("", {}),
    "png folder": ("CelebA", {"img_align_celeba": "Img/img_align_celeba_png"}),
    "as published": ("CelebA", {"img_align_celeba": "Img/img_align_celeba", "list_attr_celeba": "Anno/list_attr_celeba",
                                "list_eval_partition": "Eval/list_eval_partition"})}


@pytest.mark.parametrize("csv", [False, True])
@pytest.mark.parametrize("layout", CELEBA_LAYOUTS)
def test_celeba_is_the_same_in_every_layout(celeba, tmp_path, monkeypatch, layout, csv):
    monkeypatch.setattr("torchvision.datasets.CelebA", not_called)
    name, moves = CELEBA_LAYOUTS[layout]
    folder, suffix = tmp_path / "data" / name, ".csv" if csv else ".txt"
    write_celeba(folder, partitions=(0, 0, 2, 1, 2), csv=csv)
    for source, target in moves.items():
        ending = suffix if source.startswith("list") else ""
        temporary = (folder / (source + ending)).rename(tmp_path / "moved")
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        temporary.rename(folder / (target + ending))
    assert get("CelebA", tmp_path / "data").digest() == get("CelebA", celeba).digest()


def add_row_numbers(rows):
    return ["", *rows[0]], *([k, *row] for k, row in enumerate(rows[1:]))


def map_values(old, new):
    return lambda rows: [rows[0], *([row[0], *(new[old.index(value)] for value in row[1:])] for row in rows[1:])]


SIGNS = ("-1", "1")
DIALECTS = {"row numbers": (",", "\n", "", add_row_numbers), "semicolons": (";", "\r\n", "\ufeff", list),
            "tabs": ("\t", "\n", "", list), "semicolons and row numbers": (";", "\n", "\ufeff", add_row_numbers),
            "floats": (",", "\n", "", map_values(SIGNS, ("-1.0", "1.0"))),
            "0 and 1": (",", "\n", "", map_values(SIGNS, "01")),
            "booleans": (",", "\n", "", map_values(SIGNS, ("False", "True"))), "spaces": (" , ", "\n\n", "", list),
            "quotes": (",", "\n", "", lambda rows: [[f'"{value}"' for value in row] for row in rows])}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_celeba_lists_are_the_same_in_every_dialect(celeba, tmp_path, dialect):
    write_celeba(tmp_path / "CelebA", partitions=(0, 0, 2, 1, 2), csv=True)
    separator, line_end, start, change = DIALECTS[dialect]
    for name in ("list_attr_celeba.csv", "list_eval_partition.csv"):
        path = tmp_path / "CelebA" / name
        rows = [line.split(",") for line in path.read_text().splitlines()]
        if "partition" in name and change not in (list, add_row_numbers):
            change = map_values(("0", "1", "2"), ("0.0", "1.0", "2.0"))
        text = line_end.join(separator.join(map(str, row)) for row in change(rows))
        path.write_bytes((start + text + line_end).encode())
    assert get("CelebA", tmp_path).digest() == get("CelebA", celeba).digest()


@pytest.mark.parametrize("change, message", [
    (lambda text: text.replace("000003.jpg,-1", "000003.jpg,x", 1), "damaged: could not convert string to float: 'x'"),
    (lambda text: text.replace("000003.jpg,-1", "000003.jpg,0.5", 1), "a number is missing, or is not an integer"),
    (lambda text: text.replace("000003.jpg,-1,", "000003.jpg,", 1), "a number is missing, or is not an integer"),
    (lambda text: text.replace("000003.jpg,", "000003.jpg,1,", 1), "damaged: .*Expected 41 fields in line 3, saw 42"),
    (lambda text: text.replace("000003.jpg", "000002.jpg", 1), "lists files twice: 000002.jpg"),
    (lambda text: text.replace("image_id,A0,", "", 1), "39 column names above 40"),
    (lambda text: text.replace(".jpg", ""), "lists no images"),
    (lambda text: "\n".join(line.split(",")[0] for line in text.splitlines()), "column names above 0 numbers"),
    (lambda text: text.replace("000003.jpg,-1,1,1", "000003.jpg,-1,1,2", 1), "Attractive: expected -1 and 1, or 0"),
    (lambda text: text.replace("000003.jpg,-1,1,1", "000003.jpg,-1,1,0", 1), "Attractive: expected -1 and 1, or 0")])
def test_a_damaged_celeba_list_is_refused(tmp_path, change, message):
    write_celeba(tmp_path / "CelebA", partitions=(0, 2), csv=True)
    path = tmp_path / "CelebA" / "list_attr_celeba.csv"
    text = path.read_text()
    assert change(text) != text
    path.write_text(change(text))
    with pytest.raises(UserError, match=message):
        get("CelebA", tmp_path)


def test_celeba_partitions_have_three_values(tmp_path):
    write_celeba(tmp_path / "CelebA", partitions=(0, 2, 3))
    with pytest.raises(UserError, match=r"list_eval_partition\.txt: expected 0 \(training\).*3"):
        get("CelebA", tmp_path)


def test_celeba_images_may_be_png_files_under_jpg_names(celeba, tmp_path):
    write_celeba(tmp_path / "CelebA", partitions=(0, 0, 2, 1, 2))
    for path in (tmp_path / "CelebA" / "img_align_celeba").iterdir():
        with Image.open(path) as image:
            image.save(path.with_suffix(".png"))
        path.unlink()
    data, expected = get("CelebA", tmp_path), get("CelebA", celeba)
    assert data.digest() == expected.digest()                   # the pixels of a .jpg, stored again without a loss


def test_celeba_images_that_are_not_there_at_all_are_named(tmp_path):
    write_celeba(tmp_path / "CelebA", partitions=(0,))
    images = tmp_path / "CelebA" / "img_align_celeba"
    for k, path in enumerate(images.iterdir()):
        path.rename(path.with_name(f"face{k}.jpg"))
    with pytest.raises(UserError, match=r"none of the 25 listed images \(000001\.jpg.* but 25 other files \(face0"):
        get("CelebA", tmp_path)


def test_celeba_is_downloaded_only_if_nothing_of_it_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.CelebA", not_called)
    with pytest.raises(UserError, match=r"CelebA not found \(download failed: a download is tried"):
        get("CelebA", tmp_path)
    (tmp_path / "celeba-dataset" / "Img_Align_CelebA").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no list_attr_celeba\.txt, list_eval_partition\.txt beside .*Img_Align_C"):
        get("CelebA", tmp_path)


@pytest.mark.parametrize("protected, cells", [("Male", 4), ("Male,Young", 8)])
def test_celeba_without_a_test_partition_trains_on_all_images_but_the_test(tmp_path, protected, cells):
    write_celeba(tmp_path / "CelebA", partitions=(0,), copies=10)
    data = get("CelebA", tmp_path, protected_attr=protected)
    per_cell = 8 // cells                                       # a fifth of the smallest cell, of 10 or 5 images
    assert (data.test.counts() == per_cell).all()
    assert f"{per_cell * cells} images are held out, equally many of every tested cell" in data.notes[0]
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
    with pytest.raises(UserError, match=r"not found \(no list_eval_partition\.txt beside "
                                        rf"{tmp_path}/CelebA/img_align_celeba, {tmp_path}/CelebA/list_attr_celeba"):
        get("CelebA", tmp_path)


def test_the_test_is_balanced_over_the_non_empty_cells(tmp_path):
    write_celeba(tmp_path / "CelebA", partitions=(0,))
    data = get("CelebA", tmp_path, target_attr="A1", protected_attr="A3")   # equal in every row
    for split in (data.train, data.test):
        assert (split.counts() > 0).equal(torch.eye(2, dtype=torch.bool))
    assert len(set(data.test.counts().diagonal().tolist())) == 1
