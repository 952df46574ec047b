"""Folder: equal values are one class or group, unknown ones are left out and counted, missing ones are refused."""

import pytest
from test_datasets_folder import labels_by_index, load, write_csv
from test_image_cache import write_image

from fairdd.core.errors import UserError
from fairdd.datasets.base import UNKNOWN


@pytest.fixture
def save(tmp_path):
    """Save 24 images, one per value of a column, with their class a or b; return the folder."""
    def save(values, name="value"):
        rows = [["path", "class", name]]
        for index, value in enumerate(values):
            write_image(tmp_path / f"{index:02}.png", (4 * index, 0, 0))
            rows.append([f"{index:02}.png", "ab"[index // 12], value])
        write_csv(tmp_path, rows)
        return tmp_path
    return save


def groups(root, **options):
    """Return {index: group name} of all images."""
    data = load(root, **{"protected_attr": "value"} | options)
    labels = labels_by_index(data.train) | labels_by_index(data.test)
    assert all(label == "ab"[index // 12] for index, (label, _) in labels.items())
    return {index: group for index, (_, group) in labels.items()}, data.notes[0]


@pytest.mark.parametrize("spellings, names", [
    (("1", "0", "1.0", "0.0"), ("1", "0", "1", "0")), (("-1", "1", "-1.0", "+1"), ("-1", "1", "-1", "1")),
    (("True", "False", "TRUE", "false"), ("TRUE", "False", "TRUE", "False")),
    (("1.0", "0.0", "1.0", "0.0"), ("1.0", "0.0", "1.0", "0.0")), (("-1", "1", "-1", "1"), ("-1", "1", "-1", "1")),
    (("White", "white", "White", "black"), ("White", "white", "White", "black")),
    (("12345678901234567890", "12345678901234567891") * 2, ("12345678901234567890", "12345678901234567891") * 2)])
def test_equal_numbers_and_booleans_are_one_value_and_words_are_as_they_are(save, spellings, names):
    assert groups(save([*spellings] * 6))[0] == dict(enumerate([*names] * 6))


def test_rows_with_an_unknown_class_or_group_are_left_out_and_counted_by_value(save):
    root = save(["1", "2", "-1", "Unknown", "", "nan"] * 4)
    known = {index: "12"[index % 6] for index in range(24) if index % 6 < 2}
    labels, note = groups(root, unknown=("-1.0", " unknown", ""))
    assert labels == known
    assert "16 rows left out as unknown (value blank 8, value -1 4, value Unknown 4)" in note


def test_a_value_may_be_unknown_in_one_column_alone(save):
    root = save(["1", "2", "3", "4"] * 6)
    text = (root / "labels.csv").read_text().replace("path,class", "path,Kind")
    (root / "labels.csv").write_text(text.replace(",a,", ",1,").replace(",b,", ",2,"))
    data = load(root, target_attr="Kind", protected_attr="value", unknown=("VALUE=1.0", "kind=7", "unkown"))
    labels = labels_by_index(data.train) | labels_by_index(data.test)
    assert labels == {k: ("12"[k // 12], "1234"[k % 4]) for k in range(24) if k % 4}
    assert "6 rows left out as unknown (value 1 6)" in data.notes[0]
    assert "no row has the unknown value 'kind=7', 'unkown'" in data.notes[0]
    with pytest.raises(UserError, match="Kind is '2' for every image"):
        load(root, target_attr="Kind", protected_attr="value", unknown=("1",))


def test_missing_values_are_refused_and_a_blank_is_a_value_only_if_the_unknown_ones_are_named(save):
    root = save(["1.0", "0.0", "-1.0", ""] * 6)     # a finding of CheXpert: blank is "not mentioned"
    with pytest.raises(UserError, match=r"6 images have no value \(empty or nan\): row 5, row 9, row 13"):
        groups(root)
    labels, note = groups(root, unknown=("-1.0",))
    assert labels == {k: ("1.0", "0.0", "", "(blank)")[k % 4] for k in range(24) if k % 4 != 2}
    assert "value is blank in 6 images: the value (blank)" in note
    with pytest.raises(UserError, match="6 images have no value"):      # a column to cut has no such value
        groups(root, protected_attr="value:0.5", unknown=("-1",))


@pytest.mark.parametrize("spelling", ["nan", "NaN", "NAN", "<NA>", "null", "NaT", "#N/A"])
def test_all_spellings_of_a_missing_value_are_missing(save, spelling):
    root = save(["1", "2", "3", spelling] * 6)
    with pytest.raises(UserError, match="6 images have no value"):
        groups(root)
    assert groups(root, unknown=("nan",))[0] == {k: "123"[k % 4] for k in range(24) if k % 4 != 3}


@pytest.mark.parametrize("suspect, named", [("unknown", True), ("N/A", True), ("?", True), ("-1", True), ("4", False)])
def test_values_that_may_mean_unknown_are_named(save, suspect, named):
    labels, note = groups(save(["1", "2", "3", suspect] * 6))
    assert labels == dict(enumerate(["1", "2", "3", suspect] * 6))
    assert (f"value is {suspect!r} in 6 images (--unknown={suspect} leaves them out)" in note) == named
    assert "leaves them out" not in groups(save(["-1", "1"] * 12))[1]


@pytest.mark.parametrize("date, restored", [("03-Sep", "3-9"), ("Oct-19", "10-19"), ("3. Sep", "3-9"),
                                            ("19-Okt", "19-10")])
def test_ranges_that_a_spreadsheet_turned_into_dates_are_refused(save, date, restored):
    with pytest.raises(UserError, match=f"'{date}' in 6 images, .* a spreadsheet turned {restored} into a date"):
        groups(save([date, "20-29", "30-39", "more than 70"] * 6))
    assert set(groups(save(["20-29", "03-9"] * 12))[0].values()) == {"20-29", "03-9"}
    assert set(groups(save([date, "spring"] * 12))[0].values()) == {date, "spring"}     # no ranges: no suspicion


def test_a_row_is_left_out_for_an_unknown_class_too(save):
    root = save(["x", "y"] * 12)
    (root / "labels.csv").write_text((root / "labels.csv").read_text().replace("03.png,a", "03.png,?"))
    assert groups(root, unknown=("?",))[0] == {k: "xy"[k % 2] for k in range(24) if k != 3}
    with pytest.raises(UserError, match=r"every row has an unknown value \(class b 12, class a 11, class \? 1\)"):
        groups(root, unknown=("?", "a", "b"))


# rows of unknown group that train

def labels_and_rows(images):
    """Return {index: (class name, group name or None)} of the images."""
    indices = (images.images[:, 0, 0, 0] / 4).long().tolist()
    groups = [images.group_names[group] if group != UNKNOWN else None for group in images.groups.tolist()]
    classes = [images.class_names[label] for label in images.labels.tolist()]
    return dict(zip(indices, zip(classes, groups, strict=True), strict=True))


def test_rows_of_unknown_group_train_without_it_and_never_test(save):
    root = save(["1", "2", "-1", "", "1", "2"] * 4)
    data = load(root, protected_attr="value", unknown=("-1", ""), train_unknown_groups=True)
    train, test = labels_and_rows(data.train), labels_and_rows(data.test)
    expected = {k: ("ab"[k // 12], ("1", "2", None, None, "1", "2")[k % 6]) for k in range(24)}
    assert train | test == expected and not train.keys() & test.keys()
    assert {k for k in range(24) if k % 6 in (2, 3)} <= train.keys() and data.train.group_names == ("1", "2")
    assert "8 rows have an unknown group" in data.notes[0] and dict(data.split)["02.png"] == "train"
    assert "(blank)" not in data.notes[0]
    without = load(root, protected_attr="value", unknown=("-1", ""))
    assert labels_and_rows(without.test) == test        # the test does not depend on them


def test_a_row_of_unknown_class_is_left_out_whatever_its_group(save):
    root = save(["1", "2", "9", "2"] * 6)
    path = root / "labels.csv"
    lines = path.read_text().splitlines()
    lines[1], lines[3] = lines[1].replace(",a,", ",?,"), lines[3].replace(",a,", ",?,")
    path.write_text("\n".join(lines))
    data = load(root, protected_attr="value", unknown=("9", "?"), train_unknown_groups=True)
    rows = labels_and_rows(data.train) | labels_and_rows(data.test)
    assert rows.keys() == set(range(24)) - {0, 2} and rows[6] == ("a", None)


def test_with_a_given_split_only_training_rows_may_have_no_group(save):
    root = save(["1", "2", "9", "1", "2", "9"] * 4)
    path = root / "labels.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0] + ",split",
                               *(f"{line},{'train' if k % 2 else 'test'}" for k, line in enumerate(lines[1:]))]))
    data = load(root, protected_attr="value", unknown=("9",), train_unknown_groups=True)
    assert {k for k, (_, group) in labels_and_rows(data.train).items() if group is None} == {5, 11, 17, 23}
    assert labels_and_rows(data.test).keys() == {k for k in range(0, 24, 2) if k % 3 != 2}
    assert "4 rows left out as unknown (value 9 4)" in data.notes[0]


def test_images_of_unknown_group_of_a_tested_person_do_not_train(save):
    root = save(["1", "2", "9"] * 8)
    path = root / "labels.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0] + ",person", *(f"{line},{k // 3}" for k, line in enumerate(lines[1:]))]))
    data = load(root, protected_attr="value", unknown=("9",), train_unknown_groups=True, split_by="person")
    train, test = labels_and_rows(data.train), labels_and_rows(data.test)
    assert not {k // 3 for k in train} & {k // 3 for k in test} and any(group is None for _, group in train.values())
    left_out = {k for k in range(2, 24, 3) if k // 3 in {tested // 3 for tested in test}}
    assert train.keys() | test.keys() == set(range(24)) - left_out
    written = {int(path.removesuffix(".png")): name for path, name in data.split}
    assert written == dict.fromkeys(train, "train") | dict.fromkeys(test, "test")


def test_blanks_are_unknown_groups_only_if_named(save):
    root = save(["1", "2", "9", ""] * 6)
    data = load(root, protected_attr="value", unknown=("9",), train_unknown_groups=True)
    assert data.train.group_names == ("1", "2", "(blank)")
    with pytest.raises(UserError, match="6 images have no value"):
        load(root, protected_attr="value", train_unknown_groups=True)
