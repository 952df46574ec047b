"""Folder: labels are the CSV's, columns and cuts as asked, a drawn split is balanced, reproducible and written."""

import csv
import itertools
import json
from functools import partial

import pytest
import torch
from test_datasets_decode import cache_files, write_image

import main_DM
from fairdd.core.errors import UserError
from fairdd.datasets import get_dataset
from fairdd.datasets.custom.columns import split_words
from fairdd.evaluation.training import figures_of

AGES, GENDERS, RACES = ("10", "20", "39", "40", "70"), ("male", "female"), ("A", "B")
HEADER = ["path", "age", "gender", "race"]
load = partial(get_dataset, "Folder", im_size=8, progress=False)
get = partial(load, target_attr="age:20,40", protected_attr="gender")


# The red level of an image is its place in the list, so every image tells which row it belongs to

def make_rows(copies=3):
    """60 rows, 12 of every age."""
    kinds = itertools.product(AGES, GENDERS, RACES, range(copies))
    return [[f"pics/{place:03}.png", age, gender, race] for place, (age, gender, race, _) in enumerate(kinds)]


def write_images(root, rows):
    for place, row in enumerate(rows):
        write_image(root / row[0], (4 * place, 0, 0))


def write_csv(root, rows, delimiter=",", name="labels.csv", bom=""):
    with (root / name).open("w", newline="", encoding="utf-8") as file:
        file.write(bom)
        csv.writer(file, delimiter=delimiter).writerows(rows)


def edit(root, old, new):
    text = (root / "labels.csv").read_text()
    assert old in text
    (root / "labels.csv").write_text(text.replace(old, new, 1))


@pytest.fixture
def own(tmp_path):
    """A folder of one's own: 60 images in pics/ and labels.csv."""
    write_images(tmp_path, make_rows())
    write_csv(tmp_path, [HEADER, *make_rows()])
    return tmp_path


def found(part):
    """place -> (class name, group name) of the images of a part."""
    places = (part.images[:, 0, 0, 0] / 4).long().tolist()
    return {place: (part.class_names[c], part.group_names[g])
            for place, c, g in zip(places, part.labels.tolist(), part.groups.tolist(), strict=True)}


def age_class(age):
    return "under 20" if int(age) < 20 else "20 to 39" if int(age) < 40 else "40 and over"


def test_labels_are_those_of_the_csv_and_every_image_is_used_once(own):
    data = get(own)
    train, test = found(data.train), found(data.test)
    assert not train.keys() & test.keys()
    assert train | test == {place: (age_class(row[1]), row[2]) for place, row in enumerate(make_rows())}
    assert data.train.class_names == ("under 20", "20 to 39", "40 and over")


def test_words_are_classes_as_they_stand_and_numbers_stand_in_order(own):
    assert load(own, target_attr="age", protected_attr="race").train.class_names == AGES
    assert load(own, target_attr="gender", protected_attr="age").train.class_names == ("female", "male")


@pytest.mark.parametrize("text, chosen", [
    ("age", [("age", ())]), ("a,b", [("a", ()), ("b", ())]), ("age:20,40", [("age", (20, 40))]),
    ("age:20,40,gender", [("age", (20, 40)), ("gender", ())]), ("age:20, 40", [("age", (20, 40))]),
    ("gender,age:-.5,2e1", [("gender", ()), ("age", (-.5, 20))]), ("a:b,a:b:3", [("a:b", ()), ("a:b", (3,))]),
    ("a,20", [("a", ()), ("20", ())]), ("age:1_0", [("age:1_0", ())]), ("age:1e999", [("age:1e999", ())]),
    ("age:", [("age:", ())])])
def test_numbers_after_a_colon_belong_to_the_cut(text, chosen):
    assert split_words(text) == chosen


@pytest.mark.parametrize("cuts, names", [
    ("20", ("under 20", "20 and over")), ("20.0,39,40", ("under 20", "20 to 38", "39", "40 and over")),
    ("39.5", ("under 39.5", "39.5 and over")), ("11,39.5", ("under 11", "11 to under 39.5", "39.5 and over"))])
def test_cuts_are_named_exactly(own, cuts, names):
    assert load(own, target_attr=f"age:{cuts}", protected_attr="race").train.class_names == names


def test_cuts_of_a_column_with_fractions_do_not_speak_of_the_last_whole_number(own):
    edit(own, "pics/036.png,40", "pics/036.png,39.5")
    assert get(own).train.class_names == ("under 20", "20 to under 40", "40 and over")


def test_a_drawn_test_has_as_many_of_every_cell_and_follows_the_data_seed(own):
    first, again, other = (get(own, data_seed=seed) for seed in (30, 30, 31))
    assert first.test.counts().tolist() == [[3, 3, 3]] * 2 and first.train.counts().tolist() == [[3, 9, 9]] * 2
    assert first.split == again.split != other.split
    part = dict(first.split)
    assert list(part) == [row[0] for row in make_rows()]
    assert {place for place, row in enumerate(make_rows()) if part[row[0]] == "test"} == found(first.test).keys()


def test_a_split_column_is_taken_as_it_stands(own):
    words = [("train", "Test", "VAL", "training")[k % 4] for k in range(60)]
    write_csv(own, [[*HEADER, "Split"], *([*row, word] for row, word in zip(make_rows(), words, strict=True))])
    data = get(own)
    assert found(data.train).keys() == set(range(0, 60, 4)) | set(range(3, 60, 4)) and data.split == ()
    assert found(data.test).keys() == set(range(1, 60, 4))
    assert any("15 validation images are unused" in note for note in data.notes)


@pytest.mark.parametrize("how", [dict(delimiter=";"), dict(delimiter="\t"), dict(bom="\ufeff")])
def test_other_delimiters_and_a_byte_order_mark_change_nothing(own, how):
    before = get(own)
    write_csv(own, [HEADER, *make_rows()], **how)
    after = get(own)
    assert found(after.train) == found(before.train)
    assert {";": "semicolons", "\t": "tabs"}.get(how.get("delimiter"), "commas") in after.notes[0]


@pytest.mark.parametrize("header", [["File_Name", "age"], ["image", "age"], ["what it is", "age"], ["", "age"]])
def test_the_path_column_is_known_by_its_name_or_by_its_first_file(own, header):
    rows = [[row[0], *row[1:]] for row in make_rows()]
    write_csv(own, [[*header, *HEADER[2:]], *rows])
    assert f"column {header[0]!r}" in get(own).notes[0]


def test_the_csv_may_have_another_name_and_lie_elsewhere(own, tmp_path_factory):
    (own / "labels.csv").rename(own / "mine.csv")
    there = tmp_path_factory.mktemp("there")
    write_csv(there, [HEADER, *make_rows()])
    assert get(own, labels="mine.csv").split == get(own, labels=str(there / "labels.csv")).split
    with pytest.raises(UserError, match=r"--labels other\.csv not found; looked for"):
        get(own, labels="other.csv")


def test_other_columns_reuse_the_decoded_images(own):
    get(own)
    load(own, target_attr="race", protected_attr="gender")
    assert len(cache_files(own)) == 1


def test_the_scale_is_that_of_the_training_images(own):
    train = get(own).train
    pixels = train.images.double() / 255
    assert torch.tensor(train.mean).double().allclose(pixels.mean((0, 2, 3)))
    expected = pixels.std((0, 2, 3), correction=0).clamp(min=1 / 255)       # green and blue are black: no division by 0
    assert torch.tensor(train.std).double().allclose(expected, rtol=1e-6) and expected[0] > 0.1
    assert train.batch(torch.arange(5)).isfinite().all()


# Intersections

def test_figures_of_an_attribute_in_an_intersection_equal_those_of_the_attribute(own):
    words = ["train" if k % 3 else "test" for k in range(60)]
    write_csv(own, [[*HEADER, "split"], *([*row, word] for row, word in zip(make_rows(), words, strict=True))])
    both = get(own, protected_attr="gender,race").test
    assert both.group_names == tuple(f"gender={g},race={r}" for g in ("female", "male") for r in RACES)
    predictions = torch.randint(3, (len(both),), generator=torch.Generator().manual_seed(1))
    figures = figures_of(predictions, both)
    for name in ("gender", "race"):
        alone = figures_of(predictions, get(own, protected_attr=name).test)
        assert figures[f"DEO_M[{name}]"] == alone["DEO_M"] and figures[f"DEO_A[{name}]"] == alone["DEO_A"]
        assert not any("[" in figure for figure in alone)


def test_cuts_and_words_cross(own):
    data = load(own, target_attr="race", protected_attr="age:40,gender")
    assert data.train.group_names[1:3] == ("age=under 40,gender=male", "age=40 and over,gender=female")
    rows = make_rows()
    for place, (race, group) in found(data.test).items():
        _, age, gender, expected = rows[place]
        assert race == expected and group == f"age={'under 40' if int(age) < 40 else '40 and over'},gender={gender}"


# Folders instead of a CSV

def test_folders_are_classes_and_groups(tmp_path):
    kinds = [(label, group) for label in ("cat", "dog") for group in ("home", "wood") for _ in range(4)]
    for place, (label, group) in enumerate(kinds):
        write_image(tmp_path / label / group / f"{place:02}.png", (4 * place, 0, 0))
    write_image(tmp_path / "cat" / "stray.png")
    data = load(tmp_path)
    assert data.train.class_names == ("cat", "dog") and data.train.group_names == ("home", "wood")
    assert found(data.train) | found(data.test) == dict(enumerate(kinds))
    assert data.test.counts().tolist() == [[2, 2], [2, 2]]
    assert "1 images that lie in no folder class/group/ are left out" in data.notes
    assert load(tmp_path, target_attr="group", protected_attr="class").train.class_names == ("home", "wood")


# A run

def test_a_run_writes_the_split_it_drew_and_refuses_another(own, capsys):
    flags = ["--dataset", "Folder", "--data_path", str(own), "--target_attr", "age:20,40",
             "--protected_attr", "gender,race", "--im_size", "8", "--model", "ConvNetD1W32", "--ipc", "1",
             "--Iteration", "0", "--num_eval", "1", "--epoch_eval_train", "1", "--save_path", str(own / "run")]
    with pytest.raises(SystemExit):                     # a mistake leaves nothing that would refuse its correction
        main_DM.main([*flags, "--target_attr", "years"])
    main_DM.main(flags)
    with (own / "run" / "split.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["path", "part"],
                                          *map(list, get(own, protected_attr="gender,race").split)]
    results = json.loads((own / "run" / "results.json").read_text())
    assert {"DEO_M", "DEO_M[gender]", "DEO_A[gender]", "DEO_M[race]", "DEO_A[race]"} <= results.keys()
    assert "each attribute alone | DEO_M[gender] " in (own / "run" / "log.txt").read_text()
    (own / "run" / "results.json").unlink()             # as if it had been stopped
    write_csv(own, [HEADER, *make_rows()[::-1]])
    for changed in ([], ["--data_path", f"{own}/."]):
        with pytest.raises(SystemExit) as stop:
            main_DM.main(flags + changed)
        assert stop.value.code == 2
        assert ("data_path" if changed else "split.csv is another split") in capsys.readouterr().err
