"""Folder: labels are those of the CSV, columns and cuts as requested, a drawn split is balanced and reproducible."""

import csv
import itertools
import json
from functools import partial

import pytest
import torch
from PIL import Image
from test_image_cache import cache_files, write_image

from fairdd.core.errors import UserError
from fairdd.datasets import get_dataset
from fairdd.datasets.custom.columns import parse_columns
from fairdd.evaluation.metrics import attribute_metrics, fairness_metrics

AGES, GENDERS, RACES = ("10", "20", "39", "40", "70"), ("male", "female"), ("A", "B")
HEADER = ["path", "age", "gender", "race"]
load = partial(get_dataset, "Folder", im_size=8, progress=False)
get = partial(load, target_attr="age:20,40", protected_attr="gender")


# The red level of an image is 4 times its position in the list, so that every image tells which row it belongs to

def make_rows(copies=3):
    """60 rows, 12 of every age."""
    kinds = itertools.product(AGES, GENDERS, RACES, range(copies))
    return [[f"pics/{index:03}.png", age, gender, race] for index, (age, gender, race, _) in enumerate(kinds)]


def write_images(root, rows):
    for index, row in enumerate(rows):
        write_image(root / row[0], (4 * index, 0, 0))


def write_csv(root, rows, delimiter=",", name="labels.csv", bom=""):
    with (root / name).open("w", newline="", encoding="utf-8") as file:
        file.write(bom)
        csv.writer(file, delimiter=delimiter).writerows(rows)


def write_lines(root, lines, name="labels.csv"):
    (root / name).write_text("\n".join(lines) + "\n")


def edit(root, old, new):
    text = (root / "labels.csv").read_text()
    assert old in text
    (root / "labels.csv").write_text(text.replace(old, new, 1))


@pytest.fixture
def own(tmp_path):
    """A user's folder: 60 images in pics/ and labels.csv."""
    write_images(tmp_path, make_rows())
    write_csv(tmp_path, [HEADER, *make_rows()])
    return tmp_path


def labels_by_index(images):
    """Return {index: (class name, group name)} of the images of a split."""
    indices = (images.images[:, 0, 0, 0] / 4).long().tolist()
    return {index: (images.class_names[c], images.group_names[g])
            for index, c, g in zip(indices, images.labels.tolist(), images.groups.tolist(), strict=True)}


def age_class(age):
    return "under 20" if int(age) < 20 else "20 to 39" if int(age) < 40 else "40 and over"


def test_the_path_of_every_training_image_is_known(own):
    data = get(own)
    indices = [int(path.removeprefix("pics/").removesuffix(".png")) for path in data.train_paths]
    assert indices == (data.train.images[:, 0, 4, 4] / 4).round().long().tolist()


def test_labels_are_those_of_the_csv_and_every_image_is_used_once(own):
    data = get(own)
    train, test = labels_by_index(data.train), labels_by_index(data.test)
    assert not train.keys() & test.keys()
    assert train | test == {index: (age_class(row[1]), row[2]) for index, row in enumerate(make_rows())}
    assert data.train.class_names == ("under 20", "20 to 39", "40 and over")


def test_values_are_class_names_and_numbers_are_in_numeric_order(own):
    assert load(own, target_attr="age", protected_attr="race").train.class_names == AGES
    assert load(own, target_attr="gender", protected_attr="age").train.class_names == ("female", "male")


@pytest.mark.parametrize("text, choices", [
    ("age", [("age", ())]), ("a,b", [("a", ()), ("b", ())]), ("age:20,40", [("age", (20, 40))]),
    ("age:20,40,gender", [("age", (20, 40)), ("gender", ())]), ("age:20, 40", [("age", (20, 40))]),
    ("gender,age:-.5,2e1", [("gender", ()), ("age", (-.5, 20))]), ("a:b,a:b:3", [("a:b", ()), ("a:b", (3,))]),
    ("a,20", [("a", ()), ("20", ())]), ("age:1_0", [("age:1_0", ())]), ("age:1e999", [("age:1e999", ())]),
    ("age:", [("age:", ())])])
def test_numbers_after_a_colon_are_cuts(text, choices):
    assert parse_columns(text) == choices


@pytest.mark.parametrize("cuts, names", [
    ("20", ("under 20", "20 and over")), ("20.0,39,40", ("under 20", "20 to 38", "39", "40 and over")),
    ("39.5", ("under 39.5", "39.5 and over")), ("11,39.5", ("under 11", "11 to under 39.5", "39.5 and over"))])
def test_ranges_are_named_by_their_limits(own, cuts, names):
    data = load(own, target_attr=f"age:{cuts}", protected_attr="race", rare_cells="shrink")
    assert data.train.class_names == names


def test_ranges_of_fractions_are_not_named_by_their_last_integer(own):
    edit(own, "pics/036.png,40", "pics/036.png,39.5")
    assert get(own).train.class_names == ("under 20", "20 to under 40", "40 and over")


def test_a_drawn_test_has_equally_many_images_of_every_cell_and_depends_on_the_data_seed(own):
    first, again, other = (get(own, data_seed=seed) for seed in (30, 30, 31))
    assert first.test.counts().tolist() == [[3, 3, 3]] * 2 and first.train.counts().tolist() == [[3, 9, 9]] * 2
    assert first.split == again.split != other.split
    split = dict(first.split)
    assert list(split) == [row[0] for row in make_rows()]
    assert {k for k, row in enumerate(make_rows()) if split[row[0]] == "test"} == labels_by_index(first.test).keys()


def test_a_split_column_is_used(own):
    splits = [("train", "Test", "VAL", "training")[k % 4] for k in range(60)]
    write_csv(own, [[*HEADER, "Split"], *([*row, split] for row, split in zip(make_rows(), splits, strict=True))])
    data = get(own)
    assert labels_by_index(data.train).keys() == set(range(0, 60, 4)) | set(range(3, 60, 4)) and data.split == ()
    assert labels_by_index(data.test).keys() == set(range(1, 60, 4))
    assert labels_by_index(data.val).keys() == set(range(2, 60, 4)) and "split as in column 'Split'" in data.notes[0]


@pytest.mark.parametrize("options", [dict(delimiter=";"), dict(delimiter="\t"), dict(bom="\ufeff")])
def test_other_delimiters_and_a_byte_order_mark_change_nothing(own, options):
    before = get(own)
    write_csv(own, [HEADER, *make_rows()], **options)
    after = get(own)
    assert labels_by_index(after.train) == labels_by_index(before.train)
    assert {";": "semicolons", "\t": "tabs"}.get(options.get("delimiter"), "commas") in after.notes[0]


@pytest.mark.parametrize("header", [["File_Name", "age"], ["image", "age"], ["my picture", "age"], ["", "age"],
                                    ["Image Index", "age"], ["fname", "age"]])
def test_the_path_column_is_recognized_by_its_name_or_by_its_first_file(own, header):
    write_csv(own, [[*header, *HEADER[2:]], *make_rows()])
    data = get(own)
    assert f"column {header[0]!r}" in data.notes[0]
    assert labels_by_index(data.train) | labels_by_index(data.test) == {
        index: (age_class(row[1]), row[2]) for index, row in enumerate(make_rows())}


def test_the_csv_may_have_another_name_and_be_elsewhere(own, tmp_path_factory):
    (own / "labels.csv").rename(own / "attributes.csv")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_csv(elsewhere, [HEADER, *make_rows()])
    assert get(own, labels="attributes.csv").split == get(own, labels=str(elsewhere / "labels.csv")).split
    with pytest.raises(UserError, match=r"--labels other\.csv not found; looked for"):
        get(own, labels="other.csv")


def test_other_columns_reuse_the_decoded_images(own):
    get(own)
    load(own, target_attr="race", protected_attr="gender")
    assert len(cache_files(own)) == 1


def test_normalization_is_measured_on_the_training_images(own):
    train = get(own).train
    pixels = train.images.double() / 255
    assert torch.tensor(train.mean).double().allclose(pixels.mean((0, 2, 3)))
    expected = pixels.std((0, 2, 3), correction=0).clamp(min=1 / 255)       # green and blue are constant
    assert torch.tensor(train.std).double().allclose(expected, rtol=1e-6) and expected[0] > 0.1
    assert train.batch(torch.arange(5)).isfinite().all()


def test_metrics_of_an_attribute_in_an_intersection_equal_those_of_the_attribute_alone(own):
    splits = ["train" if k % 3 else "test" for k in range(60)]
    write_csv(own, [[*HEADER, "split"], *([*row, split] for row, split in zip(make_rows(), splits, strict=True))])
    both = get(own, protected_attr="gender,race").test
    assert both.group_names == tuple(f"gender={g},race={r}" for g in ("female", "male") for r in RACES)
    predictions = torch.randint(3, (len(both),), generator=torch.Generator().manual_seed(1))
    metrics = attribute_metrics(predictions, both.labels, both.groups, 3, both.attributes)
    for name in ("gender", "race"):
        single = get(own, protected_attr=name).test
        alone = fairness_metrics(predictions, single.labels, single.groups, 3, 2)
        assert metrics[f"DEO_M[{name}]"] == alone["DEO_M"] and metrics[f"DEO_A[{name}]"] == alone["DEO_A"]
        assert single.attributes == ()


def test_ranges_and_values_combine(own):
    data = load(own, target_attr="race", protected_attr="age:40,gender")
    assert data.train.group_names[1:3] == ("age=under 40,gender=male", "age=40 and over,gender=female")
    rows = make_rows()
    for index, (race, group) in labels_by_index(data.test).items():
        _, age, gender, expected = rows[index]
        assert race == expected and group == f"age={'under 40' if int(age) < 40 else '40 and over'},gender={gender}"


def test_folders_are_classes_and_groups(tmp_path):
    kinds = [(label, group) for label in ("cat", "dog") for group in ("home", "wood") for _ in range(4)]
    for index, (label, group) in enumerate(kinds):
        write_image(tmp_path / label / group / f"{index:02}.png", (4 * index, 0, 0))
    write_image(tmp_path / "cat" / "stray.png")
    data = load(tmp_path)
    assert data.train.class_names == ("cat", "dog") and data.train.group_names == ("home", "wood")
    assert labels_by_index(data.train) | labels_by_index(data.test) == dict(enumerate(kinds))
    assert data.test.counts().tolist() == [[2, 2], [2, 2]]
    assert "1 images that are not in a folder class/group/ are left out" in data.notes[0]
    assert load(tmp_path, target_attr="group", protected_attr="class").train.class_names == ("home", "wood")


def test_all_formats_that_pillow_reads_are_used_and_other_files_counted(tmp_path):
    suffixes = (".png", ".jpg", ".TIF", ".tiff", ".gif", ".ppm", ".jfif", ".bmp")
    kinds = [(label, group, suffix) for label in ("cat", "dog") for group in ("home", "wood") for suffix in suffixes]
    for index, (label, group, suffix) in enumerate(kinds):
        path = tmp_path / label / group / f"{index:02}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (8 * index, 8 * index, 8 * index)).save(path)
    (tmp_path / "cat" / "home" / "notes.txt").touch()
    (tmp_path / "cat" / "home" / ".hidden.png").touch()
    data = load(tmp_path)
    levels = {}
    for images in (data.train, data.test):      # JPEG and GIF change a level by 1 or 2
        levels |= {round(level.item() / 8): (images.class_names[c], images.group_names[g]) for level, c, g in zip(
            images.images[:, 0, 0, 0], images.labels, images.groups, strict=True)}
    assert levels == {index: kind[:2] for index, kind in enumerate(kinds)}
    assert "1 files that are not images are left out (.txt 1)" in data.notes[0]


def test_images_in_deeper_folders_are_of_their_class_and_group_folder(tmp_path):
    kinds = [(label, group, person) for label in ("cat", "dog") for group in ("home", "wood")
             for person in ("", "ann/", "bob/2020/", "bob/2021/") for _ in range(2)]
    for index, (label, group, person) in enumerate(kinds):
        write_image(tmp_path / f"{label}/{group}/{person}{index:02}.png", (4 * index, 0, 0))
    data = load(tmp_path, split_by="subfolder")
    train, test = labels_by_index(data.train), labels_by_index(data.test)
    assert train | test == {index: kind[:2] for index, kind in enumerate(kinds)}
    assert "24 of them in deeper folders" in data.notes[0]
    sides = [{kinds[index][2][:3] for index in side} for side in (train, test)]
    assert not sides[0] & sides[1] and len(load(tmp_path).split) == 32


def test_tables_that_are_not_read_are_named(own):
    (own / "labels.csv").rename(own / "metadata.csv")
    with pytest.raises(UserError, match=r"metadata\.csv there: --labels names the one to read"):
        get(own)
    write_image(own / "cat" / "home" / "a.png")
    for index in range(8):
        write_image(own / "cd"[index % 2] / "gh"[index // 4] / f"{index}.png", (index, 0, 0))
    (own / "cat" / "home" / "a.png").unlink()
    assert "metadata.csv not read (--labels reads tables)" in load(own).notes[0]


def test_a_run_writes_its_drawn_split_and_refuses_another(own, capsys):
    import main_DM

    flags = ["--dataset", "Folder", "--data_path", str(own), "--target_attr", "age:20,40",
             "--protected_attr", "gender,race", "--im_size", "8", "--model", "ConvNetD1W32", "--ipc", "1",
             "--Iteration", "0", "--num_eval", "1", "--epoch_eval_train", "1", "--save_path", str(own / "run")]
    with pytest.raises(SystemExit):                     # a mistake does not block the corrected command
        main_DM.main([*flags, "--target_attr", "years"])
    main_DM.main(flags)
    with (own / "run" / "split.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["path", "part"],
                                          *map(list, get(own, protected_attr="gender,race").split)]
    results = json.loads((own / "run" / "results.json").read_text())
    assert {"DEO_M", "DEO_M[gender]", "DEO_A[gender]", "DEO_M[race]", "DEO_A[race]"} <= results.keys()
    assert "each attribute alone | DEO_M[gender] " in (own / "run" / "log.txt").read_text()
    (own / "run" / "results.json").unlink()             # as after an interruption
    write_csv(own, [HEADER, *make_rows()[::-1]])
    for changed in ([], ["--data_path", f"{own}/."]):
        with pytest.raises(SystemExit) as stop:
            main_DM.main(flags + changed)
        assert stop.value.code == 2
        assert ("data_path" if changed else "training images") in capsys.readouterr().err
