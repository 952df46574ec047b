"""Folder: any CSV and any requested columns give the labels of the CSV, or a UserError.

FUZZ_EXAMPLES sets the number of examples per test (default 20).
"""

import csv
import io
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_image_cache import write_image

from fairdd.core.errors import UserError
from fairdd.datasets import get_dataset

FUZZ = settings(max_examples=int(os.environ.get("FUZZ_EXAMPLES", 20)), deadline=None,
                suppress_health_check=list(HealthCheck))
BYTES = st.one_of(st.binary(max_size=6), st.sampled_from([b"\n", b",", b" 7 ", b"../", b"\xff\xd8", b""]))


def load_or_refuse(root, **options):
    """Return the data set, or None after a UserError; any other exception is a failure."""
    try:
        return get_dataset("Folder", root, progress=False, im_size=8, **options)
    except UserError as error:
        assert str(error).strip()
        return None


def damaged(content, data):
    """Return the bytes with some replaced, inserted or cut off."""
    start, length = data.draw(st.integers(0, len(content))), data.draw(st.sampled_from([0, 1, 4, 40]))
    return content[:start] + data.draw(BYTES) + (content[start + length:] if data.draw(st.booleans()) else b"")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder of 24 images, the red level of each ten times its index, and labels.csv."""
    root = tmp_path_factory.mktemp("own")
    lines = ["path,age,gender"]
    for index in range(24):
        write_image(root / f"{index:02}.png", (10 * index, 0, 0))
        lines.append(f"{index:02}.png,{(5, 30, 60)[index % 3]},{('male', 'female')[index // 12]}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


def edited(content, data):
    """Return a CSV with a field of a row replaced."""
    rows = content.split(b"\n")
    row = data.draw(st.sampled_from(range(len(rows))))
    fields = rows[row].split(b",")
    new = [b"5", b'"60"', b" 30 ", b"6e1", b"39.5", b"male", b' "female"', b"male\r", b"./07.png", b'"', b""]
    fields[data.draw(st.sampled_from([0, 1, 1, 1, 2, 2, 2])) % len(fields)] = data.draw(st.sampled_from(new))
    rows[row] = b",".join(fields)
    return b"\n".join(rows)


@FUZZ
@given(data=st.data(), kinds=st.sampled_from([[], [edited], [edited, edited], [edited, edited, edited], [damaged]]))
def test_a_damaged_csv_gives_its_labels_or_a_user_error(own, data, kinds):
    with tempfile.TemporaryDirectory() as into:
        root = Path(shutil.copytree(own, Path(into) / "own"))
        path = root / "labels.csv"
        for damage in kinds:
            path.write_bytes(damage(path.read_bytes(), data))
        dataset = load_or_refuse(root, target_attr="age:20,40", protected_attr="gender")
        assert dataset is not None or kinds
        for images in (dataset.train, dataset.test) if dataset else ():
            check_labels(images, path)


def check_labels(images, path):
    """Assert that every image has the class and group of its row."""
    lines = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig")), skipinitialspace=True)
    lines = [fields for fields in lines if any(fields)]
    ages, genders = ([name.strip() for name in lines[0]].index(name) for name in ("age", "gender"))
    row_of = {fields[0].strip().removeprefix("./"): fields for fields in lines[1:]}
    for level, label, group in zip(images.images[:, 0, 0, 0], images.labels, images.groups, strict=True):
        fields = row_of[f"{level // 10:02}.png"]
        assert label == np.digitize(float(fields[ages]), (20, 40))
        assert images.group_names[group] == fields[genders].strip()


COLUMNS = st.lists(st.sampled_from(["age", "gender", "path", ":", "20", ",", "40", "-1", "a"]), max_size=6).map("".join)


@FUZZ
@given(target=COLUMNS, protected=COLUMNS)
def test_any_requested_columns_are_used_or_refused(own, target, protected):
    dataset = load_or_refuse(own, target_attr=target, protected_attr=protected)
    assert dataset is None or {target.partition(":")[0], protected.partition(":")[0]} == {"age", "gender"}
