"""Folder: parquet files as Hugging Face stores image data sets give the pixels, classes and groups they hold."""

import json
import sys

import pytest
from test_datasets_folder import labels_by_index, load
from test_image_cache import write_image

from fairdd.core.errors import UserError

RACES = ("East Asian", "Indian", "Black")
FEATURES = {"image": {"_type": "Image"}, "race": {"names": list(RACES), "_type": "ClassLabel"},
            "Male": {"dtype": "bool", "_type": "Value"}}


@pytest.fixture
def pa():
    pytest.importorskip("pyarrow.parquet")
    return pytest.importorskip("pyarrow")


def image_bytes(folder, index):
    return write_image(folder / f"{index:02}.png", (4 * index, 0, 0)).read_bytes()


def write_parquet(pa, file, indices, pixels, columns=None, features=FEATURES, image=None):
    """Write images with their race and Male; image: makes the cell of an index, by default bytes and a name."""
    image = image or (lambda index: {"bytes": image_bytes(pixels, index), "path": f"{index}.png"})
    columns = columns or {"race": [index % 3 for index in indices], "Male": [index % 2 == 0 for index in indices]}
    table = pa.table({"image": [image(index) for index in indices], **columns})
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    pa.parquet.write_table(table, file)


def expected(indices):
    return {index: (RACES[index % 3], str(index % 2 == 0)) for index in indices}


def get(root, **options):
    return load(root, **{"target_attr": "race", "protected_attr": "Male"} | options)


@pytest.mark.parametrize("names", [
    ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/valid-00000-of-00001.parquet",
     "data/test-00000-of-00001.parquet"),
    ("default/train/0000.parquet", "default/train/0001.parquet", "default/validation/0000.parquet",
     "default/test/0000.parquet")])
def test_class_names_booleans_and_splits_are_those_of_the_files(pa, tmp_path, names):
    root, ranges = tmp_path / "set", (range(12), range(12, 30), range(30, 40), range(40, 60))
    for name, indices in zip(names, ranges, strict=True):
        write_parquet(pa, root / name, indices, tmp_path / "pixels")
    for data in (get(root), get(root)):                 # the second start reads what the first one stored
        assert labels_by_index(data.train) == expected(range(30)) and labels_by_index(data.val) == expected(ranges[2])
        assert labels_by_index(data.test) == expected(ranges[3]) and data.train.class_names == tuple(sorted(RACES))
        assert data.train.images[:, 1:].max() == 0      # green and blue
    assert "60 images in 4 parquet files" in data.notes[0]
    subset = get(root, labels=f"{names[0]},{names[3]}")
    assert labels_by_index(subset.train) == expected(range(12)) and labels_by_index(subset.test) == expected(ranges[3])


def test_the_images_are_stored_once(pa, tmp_path):
    import pyarrow.parquet as parquet
    write_parquet(pa, tmp_path / "set" / "all.parquet", range(60), tmp_path / "pixels")
    before = get(tmp_path / "set")
    assert len(before.split) == 60
    assert labels_by_index(before.train) | labels_by_index(before.test) == expected(range(60))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet.ParquetFile, "iter_batches", None)
        assert get(tmp_path / "set", labels="all.parquet").split == before.split
    write_parquet(pa, tmp_path / "set" / "all.parquet", range(59, -1, -1), tmp_path / "pixels")
    after = get(tmp_path / "set")
    assert labels_by_index(after.train) | labels_by_index(after.test) == expected(range(60))


@pytest.mark.parametrize("kind", ["bytes", "paths", "names"])
def test_an_image_column_may_hold_plain_bytes_or_paths(pa, tmp_path, kind):
    root = tmp_path / "set"
    for index in range(60):
        image_bytes(root / "pics", index)
    cells = {"bytes": lambda index: image_bytes(tmp_path / "pixels", index),
             "names": lambda index: f"pics/{index:02}.png",
             "paths": lambda index: {"bytes": None, "path": f"pics/{index:02}.png"}}
    write_parquet(pa, root / "all.parquet", range(60), None, image=cells[kind])
    data = get(root, labels="all.parquet")
    assert labels_by_index(data.train) | labels_by_index(data.test) == expected(range(60))


def test_images_that_are_absent_or_broken_and_unlabeled_rows_are_left_out_on_request(pa, tmp_path):
    def cell(index):
        return {7: None, 8: {"bytes": b"no image", "path": None}}.get(index, {"bytes": image_bytes(tmp_path, index)})

    columns = {"race": [-1 if k == 9 else k % 3 for k in range(60)],
               "Male": [None if k == 10 else k % 2 == 0 for k in range(60)]}
    write_parquet(pa, tmp_path / "set" / "all.parquet", range(60), None, columns=columns, image=cell)
    with pytest.raises(UserError, match=r"1 images have no race \(empty or nan\): all\.parquet row 9"):
        get(tmp_path / "set")
    with pytest.raises(UserError, match=r"00000007 cannot be read"):
        get(tmp_path / "set", unknown=("",))
    data = get(tmp_path / "set", unknown=("",), skip_bad_images=True)
    assert labels_by_index(data.train) | labels_by_index(data.test) == expected({*range(60)} - {7, 8, 9, 10})
    assert "2 rows left out as unknown (race blank 1, Male blank 1)" in data.notes[0]


def test_two_image_columns_are_asked_for_and_a_split_column_is_used(pa, tmp_path):
    pixels = tmp_path / "pixels"
    columns = {"mask": [{"bytes": image_bytes(pixels, 59 - k)} for k in range(60)], "race": [k % 3 for k in range(60)],
               "Male": [k % 2 == 0 for k in range(60)], "split": [k // 5 % 3 for k in range(60)]}
    write_parquet(pa, tmp_path / "set" / "a.parquet", range(60), pixels, columns=columns)
    with pytest.raises(UserError, match="the columns image, mask all hold images; --path_column chooses"):
        get(tmp_path / "set")
    data = get(tmp_path / "set", path_column="Image")
    assert labels_by_index(data.test) == expected(k for k in range(60) if k // 5 % 3 == 2)
    mask = get(tmp_path / "set", path_column="mask")
    assert labels_by_index(mask.test) == {59 - k: labels for k, labels in labels_by_index(data.test).items()}


def test_what_is_not_such_a_file_is_refused(pa, tmp_path):
    root = tmp_path / "set"
    write_parquet(pa, root / "train.parquet", range(30), tmp_path / "pixels")
    write_parquet(pa, root / "other.parquet", range(30, 60), tmp_path / "pixels")
    with pytest.raises(UserError, match=r"other\.parquet: its name contains no split"):
        get(root)
    (root / "other.parquet").write_bytes((root / "train.parquet").read_bytes()[:-40])
    with pytest.raises(UserError, match=r"other\.parquet cannot be read or stored: "):
        get(root, labels="other.parquet")
    columns = {"race": [7] * 30, "Male": [True] * 30}
    write_parquet(pa, root / "other.parquet", range(30), tmp_path / "pixels", columns)
    with pytest.raises(UserError, match="label 7 has no name among East Asian, Indian, Black"):
        get(root, labels="other.parquet")
    (root / "empty").mkdir()
    with pytest.raises(UserError, match="there is no parquet file in this folder"):
        get(root, labels="empty")


def test_without_pyarrow_the_message_names_it(tmp_path, monkeypatch):
    (tmp_path / "train.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"needs pyarrow .*: pip install pyarrow"):
        get(tmp_path)
