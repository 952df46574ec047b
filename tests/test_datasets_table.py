"""Folder: the message about a wrong CSV or folder names the row; nothing is repaired silently."""

import csv
import os

import pytest
from test_datasets_folder import HEADER, edit, get, labels_by_index, load, make_rows, write_csv, write_images
from test_image_cache import write_image

from fairdd.core.errors import UserError


@pytest.fixture
def own(tmp_path):
    write_images(tmp_path, make_rows())
    write_csv(tmp_path, [HEADER, *make_rows()])
    return tmp_path


@pytest.mark.parametrize("old, new, message", [
    ("path,age", "path,years", r"no column 'age'.*its columns: years, gender, race"),
    ("path,age", "path,gender", "two columns named gender"),
    ("pics/007.png,", "pics/999.png,", r"1 of 60 images are not in .*row 9 \(pics/999\.png\)"),
    ("pics/007.png,", "/etc/passwd,", "row 9: '/etc/passwd' is not the path of a file inside"),
    ("pics/007.png,", "pics/../../x.png,", "row 9: 'pics/../../x.png' is not the path"),
    ("pics/007.png,", ",", "row 9: '' is not the path"),
    ("pics/007.png,", "./pics//003.png,", "row 5 and row 9: both name pics/003.png"),
    ("pics/007.png,10", "pics/007.png,ten", "row 9: age is 'ten', not a number"),
    ("pics/007.png,10", "pics/007.png,nan", "1 images have no age \\(empty or nan\\): row 9"),
    ("pics/007.png,10", "pics/007.png,", r"1 images have no age \(empty or nan\): row 9"),
    ("pics/007.png,10", "pics/007.png", "row 9: 3 values under 4 column names"),
    ("pics/007.png,10", "pics/007.png,10,9", "row 9: 5 values under 4 column names"),
    ("pics/007.png,10", 'pics/007.png,"10', "row .*unexpected end of data"),
    ("pics/007.png,10,female", "pics/007.png,10,other", r"only one image has \(class, group\) \(under 20, other\)"),
    ("path,age,gender,race", "path,age,gender,part", "row 2: part is 'A', expected train, val or test")])
def test_bad_rows_are_named(own, old, new, message):
    edit(own, old, new)
    with pytest.raises(UserError, match=message):
        get(own)


@pytest.mark.parametrize("options, message", [
    (dict(target_attr=None), "no column 'class' for --target_attr; its columns: age, gender, race"),
    (dict(target_attr="gender"), "must differ"), (dict(protected_attr="race,race"), "twice"),
    (dict(target_attr="age:40,20"), "cuts of age must increase: 40, 20"),
    (dict(target_attr="age:20,40,90"), "90 and over"),
    (dict(target_attr="gender:3", protected_attr="race"), "row 2: gender is 'male', not a number"),
    (dict(protected_attr="path"), "no column 'path'"), (dict(labels="x" * 999), "not found"),
    (dict(skew=0.9), "it needs --protected_attr color, not gender")])
def test_unusable_columns_and_options_are_refused(own, options, message):
    with pytest.raises(UserError, match=message):
        get(own, **options)


@pytest.mark.parametrize("content, message", [
    (b"", "lists no images"), (b"path,age,gender\n", "lists no images"), ("path,ägé\n".encode("utf-16"), "not UTF-8"),
    (b"a b c\n1 2 3\n", "no column of paths"), (b"path,age,gender\n\0,3,4\n", "1 of 1 images are not in"),
    (b"path,age,gender\npics/000.png,3,male\npics/001.png,3,male\n", "no image has age 20 to 39, 40 and over"),
    (b"path,age,gender\n" + b"x" * 200000, "row 2: 1 values under 3 column names")])
def test_a_file_that_is_not_a_table_is_refused(own, content, message):
    (own / "labels.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        get(own)


DIALECTS = {
    "BOM": lambda text: b"\xef\xbb\xbf" + text.encode(), "semicolons": lambda text: text.replace(",", ";").encode(),
    "tabs": lambda text: text.replace(",", "\t").encode(), "CR": lambda text: text.replace("\n", "\r").encode(),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "Excel": lambda text: b"\xef\xbb\xbfsep=;\r\n" + text.replace(",", ";").replace("\n", "\r\n").encode(),
    "other separator": lambda text: b"sep=|\n" + text.replace(",", "|").encode(),
    "Latin-1": lambda text: text.replace("female", "f\xe9minin").replace("male", "m\xe2le").encode("latin-1"),
    "quotes": lambda text: "".join(f'"{line.replace(",", QUOTED)}"\n' for line in text.splitlines()).encode(),
    "blanks": lambda text: text.replace(",", " , ").replace("\n", "\n\n,,,\n").encode(),
    "index column": lambda text: "".join(f"{k},{line}\n" for k, line in enumerate(text.splitlines(), -1)).replace(
        "-1,", ",", 1).encode(),
    "long field": lambda text: text.replace("race", "race,note").replace("A\n", f"A,{'n' * 200_000}\n", 1).replace(
        "A\n", "A,\n").replace("B\n", 'B,"quoted, comma"\n').encode()}
QUOTED = '","'


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_of_csv_gives_the_same_labels(own, dialect):
    before = get(own)
    content = DIALECTS[dialect]((own / "labels.csv").read_text())
    (own / "labels.csv").write_bytes(content)
    limit, after = csv.field_size_limit(), get(own)
    names = {"f\xe9minin": "female", "m\xe2le": "male"}
    for split in ("train", "test"):
        assert {index: (label, names.get(group, group)) for index, (label, group) in labels_by_index(
            getattr(after, split)).items()} == labels_by_index(getattr(before, split))
    assert ("read as Latin-1" in after.notes[0]) == (dialect == "Latin-1") and csv.field_size_limit() == limit


def test_a_separator_with_a_comma_in_a_quoted_name_is_recognized(own):
    text = (own / "labels.csv").read_text().replace(",", ";").replace("race", '"race, first, second, third, fourth"')
    (own / "labels.csv").write_text(text)
    assert "columns separated by semicolons" in get(own).notes[0]


def test_a_column_with_too_many_values_or_a_single_value_is_refused(own):
    write_csv(own, [[*HEADER, "id", "same"], *([*row, f"x{k}", "1"] for k, row in enumerate(make_rows()))])
    with pytest.raises(UserError, match="id gives 60 groups for 60 images"):
        get(own, protected_attr="id")
    with pytest.raises(UserError, match="same is '1' for every image"):
        get(own, protected_attr="same")


def test_at_most_one_percent_of_the_images_may_be_missing_and_they_are_named(tmp_path):
    rows = make_rows(copies=5)
    write_images(tmp_path, rows[:60])
    for row in rows[60:]:
        write_image(tmp_path / row[0], (0, int(row[0][5:8]), 0))
    write_csv(tmp_path, [HEADER, *rows])
    (tmp_path / rows[70][0]).unlink()
    data = get(tmp_path, rare_cells="shrink")
    assert len(data.train) + len(data.test) == 99 and rows[70][0] not in dict(data.split)
    assert "1 images are missing and left out: row 72 (pics/070.png)" in data.notes[0]
    (tmp_path / rows[71][0]).unlink()
    with pytest.raises(UserError, match=r"2 of 100 images are not in .*row 72 .*row 73"):
        get(tmp_path)


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_links_out_of_the_folder_are_refused(own, tmp_path_factory, linked):
    outside = tmp_path_factory.mktemp("outside")
    path = own / "pics" / "007.png" if linked == "file" else own / "pics"
    path.rename(outside / path.name)
    os.symlink(outside / path.name, path)
    with pytest.raises(UserError, match=r"row .*is a link out of the data folder"):
        get(own)
    path.unlink()
    (outside / path.name).rename(own / "moved")
    os.symlink(own / "moved", path)                     # a link that stays inside the folder is allowed
    assert len(get(own).split) == 60


def test_a_broken_image_is_named_or_left_out(own):
    (own / "pics" / "007.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"007\.png cannot be read"):
        get(own)
    data = get(own, skip_bad_images=True)
    assert 7 not in labels_by_index(data.train) | labels_by_index(data.test) and len(data.split) == 59


@pytest.mark.parametrize("folders, message", [
    (("train/cat", "test/cat"), "holds the folders test, train, expected folders class/group/"),
    (("cat",), "no images found"), ((), "no images found in .*labels.csv"),
    (("train/cat/home", "train/dog/home"), "by its split no image is test")])
def test_other_folder_layouts_are_refused(tmp_path, folders, message):
    for folder in folders:
        write_image(tmp_path / folder / "a.png")
    with pytest.raises(UserError, match=message):
        load(tmp_path)
