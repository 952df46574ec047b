"""Folder: every way to write a path leads to its own image, and what cannot be told is refused."""

import os

import pytest
from test_datasets_folder import HEADER, edit, labels_by_index, load, make_rows, write_csv, write_images, write_lines
from test_image_cache import write_image

from fairdd.core.errors import UserError

ROWS = make_rows()
EXPECTED = {index: (gender, race) for index, (_, _, gender, race) in enumerate(ROWS)}


@pytest.fixture
def own(tmp_path):
    """A folder called faces, with 60 images in pics/."""
    write_images(tmp_path / "faces", ROWS)
    return tmp_path / "faces"


def get(root, **options):
    return load(root, **{"target_attr": "gender", "protected_attr": "race"} | options)


def write_paths(root, respell):
    write_csv(root, [HEADER, *([respell(row[0]), *row[1:]] for row in ROWS)])


def all_labels(data):
    return labels_by_index(data.train) | labels_by_index(data.test)


@pytest.mark.parametrize("respell, completed", [
    (lambda path: path.replace("/", "\\"), 0), (lambda path: f"./{path}", 0), (lambda path: f"faces/{path}", 60),
    (lambda path: path.removesuffix(".png"), 60), (lambda path: path.split("/")[1], 60),
    (lambda path: path.split("/")[1].removesuffix(".png"), 60), (lambda path: f"faces\\{path[:-4]}", 60)])
def test_a_path_may_lack_extension_or_folder_or_begin_with_the_root_or_use_backslashes(own, respell, completed):
    write_paths(own, respell)
    data = get(own)
    assert all_labels(data) == EXPECTED
    assert (f"{completed} paths completed by the only file that fits" in data.notes[0]) == (completed > 0)


def test_an_absolute_path_inside_the_folder_is_used(own, monkeypatch):
    write_paths(own, lambda path: str(own / path))
    assert all_labels(get(own)) == EXPECTED
    monkeypatch.chdir(own)
    assert all_labels(get(".")) == EXPECTED


def test_images_in_two_folders_are_recognized_by_an_id_without_extension(own):
    for row in ROWS[::2]:
        (own / "more").mkdir(exist_ok=True)
        (own / row[0]).rename(own / "more" / row[0].split("/")[1])
    write_paths(own, lambda path: path.split("/")[1].removesuffix(".png"))
    assert all_labels(get(own)) == EXPECTED


@pytest.mark.parametrize("spelling", ["{}", "{}.0"])
def test_a_column_of_numbers_names_the_images_that_have_these_names(tmp_path, spelling):
    for index in range(60):
        write_image(tmp_path / "train" / f"{index + 1}.png", (4 * index, 0, 0))
    write_csv(tmp_path, [["id", *HEADER[1:]], *([spelling.format(k + 1), *row[1:]] for k, row in enumerate(ROWS))])
    data = get(tmp_path)
    assert all_labels(data) == EXPECTED and "paths in column 'id'" in data.notes[0]


def test_a_column_without_a_name_is_no_column_of_ids(tmp_path):
    for index in range(60):
        write_image(tmp_path / f"{index}.png", (4 * index, 0, 0))
    write_csv(tmp_path, [["", "Path", *HEADER[1:]], *([k, f"gone/{k}.png", *row[1:]] for k, row in enumerate(ROWS))])
    with pytest.raises(UserError, match=r"60 of 60 images are not in .*row 2 \(gone/0\.png\)"):
        get(tmp_path)


def test_two_images_of_the_same_name_are_told_apart_by_their_folder_or_refused(own):
    write_image(own / "other" / "007.png", (250, 0, 0))
    write_paths(own, lambda path: path.removesuffix(".png"))
    assert all_labels(get(own)) == EXPECTED
    write_paths(own, lambda path: path.split("/")[1])
    with pytest.raises(UserError, match=r"row 9: '007\.png' may be other/007\.png, pics/007\.png"):
        get(own)


def test_a_missing_image_is_not_replaced_by_a_namesake_in_another_folder(own):
    (own / "val").mkdir()
    (own / "pics" / "007.png").rename(own / "val" / "007.png")
    write_paths(own, lambda path: path)
    with pytest.raises(UserError, match=r"1 of 60 images are not in .*row 9 \(pics/007\.png\)"):
        get(own)


def test_the_column_of_paths_is_one_whose_values_are_files_even_if_the_first_is_missing(own):
    header = ["image", "photograph", "gender", "race"]
    write_csv(own, [header, *([f"front {k}", row[0], *row[2:]] for k, row in enumerate(ROWS))])
    (own / "pics" / "000.png").unlink()
    data = get(own, skip_bad_images=True)
    assert "paths in column 'photograph'" in data.notes[0]
    assert all_labels(data) == {index: labels for index, labels in EXPECTED.items() if index}


def test_path_column_chooses_between_columns(own):
    rows = [[ROWS[59 - index][0], row[0], *row[2:]] for index, row in enumerate(ROWS)]
    write_csv(own, [["left", "right", "gender", "race"], *rows])
    with pytest.raises(UserError, match="the columns left, right all name images; --path_column chooses"):
        get(own)
    assert all_labels(get(own, path_column="Right")) == EXPECTED
    assert all_labels(get(own, path_column="left")) == {59 - index: labels for index, labels in EXPECTED.items()}
    with pytest.raises(UserError, match="no column 'middle' for --path_column; its columns: left, right, gender, race"):
        get(own, path_column="middle")


def test_missing_images_are_left_out_and_counted_if_bad_images_are_skipped(own):
    write_paths(own, lambda path: path)
    for index in (3, 13, 23, 33):
        (own / ROWS[index][0]).unlink()
    with pytest.raises(UserError, match=r"4 of 60 images are not in .*--skip_bad_images leaves missing images out"):
        get(own)
    data = get(own, skip_bad_images=True)
    assert all_labels(data) == {index: labels for index, labels in EXPECTED.items() if index not in (3, 13, 23, 33)}
    assert "4 images are missing and left out: row 5 (pics/003.png), row 15 (pics/013.png)" in data.notes[0]


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_links_out_of_the_folder_are_followed_on_request(own, tmp_path, linked):
    write_paths(own, lambda path: path)
    path = own / "pics" / "007.png" if linked == "file" else own / "pics"
    path.rename(tmp_path / path.name)
    os.symlink(tmp_path / path.name, path)
    with pytest.raises(UserError, match=r"link out of the data folder .*--follow_links allows it"):
        get(own)
    assert all_labels(get(own, follow_links=True)) == EXPECTED


def test_rows_that_repeat_an_image_are_left_out_if_they_agree_and_refused_otherwise(own):
    write_paths(own, lambda path: path)
    write_lines(own, [*(own / "labels.csv").read_text().splitlines(), "./pics/007.png,10,female,A",
                      "pics/009.png,9,female,B"])
    data = get(own)
    assert all_labels(data) == EXPECTED and len(data.train) + len(data.test) == 60
    assert "2 rows that repeat an image are left out" in data.notes[0]
    edit(own, "./pics/007.png,10,female,A", "./pics/007.png,10,female,B")
    with pytest.raises(UserError, match=r"row 9 and row 62: both name pics/007.png, but race is 'A' and 'B'"):
        get(own)
