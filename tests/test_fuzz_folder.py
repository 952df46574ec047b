"""Folder: however a user's files write the images, their pixels, classes, groups and splits are right, or the answer is
a UserError.

FUZZ_EXAMPLES sets the number of examples per test (default 20).
"""

import csv
import io
import json
import os
import re
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fairdd.core.errors import UserError
from fairdd.datasets import get_dataset

FUZZ = settings(max_examples=int(os.environ.get("FUZZ_EXAMPLES", 20)), deadline=None,
                suppress_health_check=list(HealthCheck))
BYTES = st.one_of(st.binary(max_size=6), st.sampled_from([b"\n", b",", b" 7 ", b"../", b"\xff\xd8", b""]))
COUNT = 24
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3), np.uint8)
INDEX_OF = {image.transpose(2, 0, 1).tobytes(): index for index, image in enumerate(PIXELS)}


def load_or_refuse(root, **options):
    """Return the data set, or None after a UserError; any other exception is a failure."""
    try:
        return get_dataset("Folder", root, progress=False, im_size=8, **options)
    except UserError as error:
        assert str(error).strip()
        return None


def labels_by_index(images):
    """Return {index: (class name, group name)}. A KeyError means that pixels are wrong."""
    if images is None:
        return {}
    labels = [(INDEX_OF[pixels.numpy().tobytes()], (images.class_names[label], images.group_names[group]))
              for pixels, label, group in zip(images.images, images.labels, images.groups, strict=True)]
    assert len(dict(labels)) == len(labels), "an image is used twice"
    return dict(labels)


def save_image(path, index):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PIXELS[index]).save(path)


def damaged(content, data):
    """Return the bytes with some replaced, inserted or cut off."""
    start, length = data.draw(st.integers(0, len(content))), data.draw(st.sampled_from([0, 1, 4, 40]))
    return content[:start] + data.draw(BYTES) + (content[start + length:] if data.draw(st.booleans()) else b"")


def edited(content, data):
    """Return a CSV with a field of a row replaced."""
    rows = content.split(b"\n")
    row = data.draw(st.sampled_from(range(len(rows))))
    fields = rows[row].split(b",")
    new = [b"5", b'"60"', b" 30 ", b"6e1", b"39.5", b"male", b' "female"', b"male\r", b"./07.png", b"07", b".\\08",
           b'"', b"", b"NaN", b"\xe4"]
    fields[data.draw(st.sampled_from([0, 1, 1, 1, 2, 2, 2])) % len(fields)] = data.draw(st.sampled_from(new))
    rows[row] = b",".join(fields)
    return b"\n".join(rows)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder of 24 images and labels.csv."""
    root = tmp_path_factory.mktemp("own")
    lines = ["path,age,gender"]
    for index in range(COUNT):
        save_image(root / f"{index:02}.png", index)
        lines.append(f"{index:02}.png,{(5, 30, 60)[index % 3]},{('male', 'female')[index // 12]}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


@FUZZ
@given(data=st.data(), kinds=st.sampled_from([[], [edited], [edited, edited], [edited, edited, edited], [damaged]]))
def test_a_damaged_csv_gives_its_labels_or_a_user_error(own, data, kinds):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(shutil.copytree(own, Path(folder) / "own"))
        path = root / "labels.csv"
        for damage in kinds:
            path.write_bytes(damage(path.read_bytes(), data))
        dataset = load_or_refuse(root, target_attr="age:20,40", protected_attr="gender")
        assert dataset is not None or kinds
        if dataset:
            check_labels(labels_by_index(dataset.train) | labels_by_index(dataset.test), path.read_bytes())


def check_labels(labels, content):
    """Assert that every image has the class and group of all rows that name it."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252")
    header, *lines = (fields for fields in csv.reader(io.StringIO(text), skipinitialspace=True) if any(fields))
    age, gender = ([name.strip() for name in header].index(name) for name in ("age", "gender"))
    for index, (label, group) in labels.items():
        rows = [fields for fields in lines
                if PurePosixPath(fields[0].strip().replace("\\", "/")).stem == f"{index:02}"]
        assert rows and {(("under", "20 to", "40 an")[np.digitize(float(row[age]), (20, 40))], as_value(row[gender]))
                         for row in rows} == {(label[:5], as_value(group))}


def as_value(text):
    """Return what is equal for equal values: 60 and 6e1."""
    try:
        return float(text)
    except ValueError:
        return text.strip()


# A table in any writing: how a row's path, class and split may be spelled, and the file around it

SPELLINGS = {
    "as it is": lambda path, root: path, "./": lambda path, root: f"./{path}",
    "backslashes": lambda path, root: path.replace("/", "\\"), "absolute": lambda path, root: f"{root}/{path}",
    "root": lambda path, root: f"{root.name}/{path}", "no suffix": lambda path, root: path.rpartition(".")[0],
    "name": lambda path, root: path.split("/")[1], "stem": lambda path, root: path.split("/")[1].rpartition(".")[0]}
EXACT = ("as it is", "./", "backslashes", "absolute")
CODES = {"words": (("cat",), ("dog",)), "numbers": (("0", "0.0", "-0"), ("1", "1.0", "1.")),
         "signs": (("-1",), ("1", "+1")), "booleans": (("False", "FALSE", "false"), ("True", "TRUE", "true")),
         "quoted": (("a, b",), ("a;b",))}
SPLITS = {"words": (("train", "TRAIN", "training"), ("val", "Valid", "dev"), ("test", "eval", "Testing")),
          "codes": (("0", "0.0"), ("1", "1.0"), ("2", "2.0")), "files": None, "none": None}
NO_VALUE = ("", "nan", "NaN", "-9", "Unknown")


def draw_spelling(data, spellings):
    return data.draw(st.sampled_from(spellings))


@FUZZ
@given(data=st.data())
def test_a_table_in_any_writing_gives_its_pixels_labels_and_splits(data):
    column = data.draw(st.sampled_from(["path", "Image Index", "img_filename", "photo", "my pictures"]))
    ways = EXACT if column == "my pictures" else tuple(SPELLINGS)
    target, protected = (CODES[data.draw(st.sampled_from(sorted(CODES)))] for _ in range(2))
    split_kind = data.draw(st.sampled_from(sorted(SPLITS)))
    unknown = data.draw(st.sets(st.integers(0, COUNT - 1), max_size=3))
    persons = data.draw(st.lists(st.integers(0, 12), min_size=COUNT, max_size=COUNT))
    split_by = "person" if split_kind == "none" and data.draw(st.booleans()) else None
    repeated = data.draw(st.lists(st.integers(0, COUNT - 1), max_size=3))
    order = data.draw(st.permutations([*range(COUNT), *repeated]))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve() / "faces"
        rows = []
        for index in order:
            path = f"{'ab'[index % 2]}/{index:02}.png"
            save_image(root / path, index)
            row = {column: SPELLINGS[draw_spelling(data, ways)](path, root),
                   "label": draw_spelling(data, target[index % 2]),
                   "group": draw_spelling(data, protected[index // 2 % 2]), "more": str(len(rows)),
                   "person": persons[index], "file": index % 3}
            if index in unknown:
                row["group"] = draw_spelling(data, NO_VALUE)
            if SPLITS[split_kind]:
                row["split"] = draw_spelling(data, SPLITS[split_kind][index % 3])
            rows.append(row)
        labels = write_tables(root, rows, column, split_kind, data)
        try:
            dataset = get_dataset("Folder", root, progress=False, im_size=8, labels=labels, target_attr="label",
                                  protected_attr="group", unknown=("-9.0", "unknown", ""), split_by=split_by)
        except UserError as error:
            assert split_by and re.search("only one person has|no split keeps the images", str(error))
            return
        loaded = [labels_by_index(images) for images in (dataset.train, dataset.val, dataset.test)]
        if split_by:
            assert not {persons[index] for index in loaded[0]} & {persons[index] for index in loaded[2]}
        if split_kind == "none":
            loaded = [loaded[0] | loaded[2]]
            assert {index for index in range(COUNT) if index not in unknown} == loaded[0].keys()
        for split, labels in enumerate(loaded):
            if len(loaded) > 1:
                assert labels.keys() == {index for index in range(split, COUNT, 3) if index not in unknown}
            for index, (label, group) in labels.items():
                assert label in target[index % 2] and group in protected[index // 2 % 2]
        for names in (dataset.train.class_names, dataset.train.group_names):
            assert len(names) == 2


def write_tables(root, rows, column, split_kind, data):
    """Write the rows to one file or three, in a drawn dialect. Return the --labels for them."""
    names = [column, "label", "group", "more", "person"] + (["split"] if SPLITS[split_kind] else [])
    names = data.draw(st.permutations(names))
    files = ["train.csv", "val.csv", "test.csv"] if split_kind == "files" else ["table.csv"]
    for number, file in enumerate(files):
        delimiter, end = data.draw(st.sampled_from(",;\t")), data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=delimiter, lineterminator=end,
                            quoting=data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])))
        writer.writerow(names)
        writer.writerows([row[name] for name in names] for row in rows if len(files) == 1 or row["file"] == number)
        first_line = data.draw(st.sampled_from(["", f"sep={delimiter}{end}"]))
        content = (first_line + text.getvalue()).encode(data.draw(st.sampled_from(["utf-8", "utf-8-sig"])))
        (root / file).write_bytes(content)
    return ",".join(files)


@FUZZ
@given(data=st.data())
def test_any_folders_give_their_pixels_labels_and_splits(data):
    splits = data.draw(st.sampled_from([None, ("train", "val", "test"), ("Training", "Validation", "eval")]))
    suffixes = (".png", ".bmp", ".tif", ".TIFF", ".ppm", ".webp")
    with tempfile.TemporaryDirectory() as folder:
        root, others = Path(folder), 0
        for index in range(COUNT):
            split = f"{splits[index % 3]}/" if splits else ""
            deeper = data.draw(st.sampled_from(["", "", "ann/", "train/2020/"]))
            suffix = data.draw(st.sampled_from(suffixes))
            path = root / f"{split}{'ab'[index % 2]}/{'gh'[index // 2 % 2]}/{deeper}{index}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(PIXELS[index]).save(path, **({"lossless": True} if suffix == ".webp" else {}))
            if data.draw(st.booleans()):
                path.with_suffix(".json").touch()
                others += 1
        dataset = get_dataset("Folder", root, progress=False, im_size=8)
        loaded = [labels_by_index(images) for images in (dataset.train, dataset.val, dataset.test)]
        expected = {index: ("ab"[index % 2], "gh"[index // 2 % 2]) for index in range(COUNT)}
        assert loaded[0] | loaded[1] | loaded[2] == expected
        assert (f"{others} files that are not images" in dataset.notes[0]) == (others > 0)
        if splits:
            assert [labels.keys() for labels in loaded] == [set(range(split, COUNT, 3)) for split in range(3)]


@FUZZ
@given(data=st.data())
def test_any_parquet_files_give_their_pixels_labels_and_splits(data):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    names = ("cat", "dog")
    kinds = {"class labels": (pa.int64(), [0, 1]), "strings": (pa.string(), ["cat", "dog"]),
             "dictionary": (pa.dictionary(pa.int8(), pa.string()), ["cat", "dog"]), "integers": (pa.int8(), [0, 1]),
             "booleans": (pa.bool_(), [False, True]), "floats": (pa.float32(), [0.0, 1.0])}
    kind = data.draw(st.sampled_from(sorted(kinds)))
    dtype, values = kinds[kind]
    expected = [str(value) for value in values] if kind != "class labels" else names
    plain = data.draw(st.booleans())
    features = {"label": {"names": names, "_type": "ClassLabel"}} if kind == "class labels" else {}
    chunks = data.draw(st.lists(st.integers(0, COUNT), min_size=0, max_size=3, unique=True).map(sorted))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        order = data.draw(st.permutations(range(COUNT)))
        for split, name in enumerate(("train", "validation", "test")):
            members = [index for index in order if index % 3 == split]
            edges = [0, *(edge for edge in chunks if edge < len(members)), len(members)]
            for number, (low, high) in enumerate(pairwise(edges)):
                images = [encode_png(index) for index in members[low:high]]
                table = pa.table({
                    "image": images if plain else pa.array([{"bytes": image, "path": None} for image in images],
                                                           pa.struct({"bytes": pa.binary(), "path": pa.string()})),
                    "label": pa.array([values[index % 2] for index in members[low:high]], dtype),
                    "group": [index // 2 % 2 for index in members[low:high]]})
                table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
                parquet.write_table(table, root / f"{name}-{number:05}-of-{len(edges) - 1:05}.parquet",
                                    row_group_size=data.draw(st.sampled_from([1, 3, 100])))
        for _ in range(2):
            dataset = get_dataset("Folder", root, progress=False, im_size=8, target_attr="label")
            loaded = [labels_by_index(images) for images in (dataset.train, dataset.val, dataset.test)]
            for split, labels in enumerate(loaded):
                assert labels == {index: (expected[index % 2], str(index // 2 % 2)) for index in range(split, COUNT, 3)}


def encode_png(index):
    content = io.BytesIO()
    Image.fromarray(PIXELS[index]).save(content, "png")
    return content.getvalue()


COLUMNS = st.lists(st.sampled_from(["age", "gender", "path", ":", "20", ",", "40", "-1", "a"]), max_size=6).map("".join)
UNKNOWN = st.lists(st.sampled_from(["", "male", "Male", "5", "5.0", "-1", "nan", "x"]), max_size=3).map(tuple)
OPTION = st.sampled_from([None, "path", "age", "gender", "PATH", "", "x"])


@FUZZ
@given(target=COLUMNS, protected=COLUMNS, unknown=UNKNOWN, path_column=OPTION, split_by=OPTION)
def test_any_requested_columns_are_used_or_refused(own, target, protected, unknown, path_column, split_by):
    dataset = load_or_refuse(own, target_attr=target, protected_attr=protected, unknown=unknown,
                             path_column=path_column, split_by=split_by)
    if dataset is None:
        return
    assert {target.partition(":")[0], protected.partition(":")[0]} == {"age", "gender"}
    is_unknown = {"age": {"5": "5" in unknown or "5.0" in unknown}, "gender": {"male": {"male", "Male"} & {*unknown}}}
    ages, genders = ("5", "30", "60"), ("male", "female")
    expected = {index for index in range(COUNT) if not is_unknown["age"].get(ages[index % 3])
                and not is_unknown["gender"].get(genders[index // 12])}
    labels = labels_by_index(dataset.train) | labels_by_index(dataset.test)
    assert labels.keys() == expected
    gender = int(protected == "gender")
    assert all(names[gender] == genders[index // 12] for index, names in labels.items())
