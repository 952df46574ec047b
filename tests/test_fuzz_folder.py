"""Whatever a CSV of one's own holds and whatever columns are asked for: its labels, or one clear sentence."""

import csv
import io
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_datasets_decode import write_image
from test_fuzz import damaged, in_words


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder of 24 images, the red level of each ten times its number, and labels.csv."""
    root = tmp_path_factory.mktemp("own")
    lines = ["path,age,gender"]
    for number in range(24):
        write_image(root / f"{number:02}.png", (10 * number, 0, 0))
        lines.append(f"{number:02}.png,{(5, 30, 60)[number % 3]},{('male', 'female')[number // 12]}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


def edited(content, data):
    """A CSV with one field of one row replaced."""
    rows = content.split(b"\n")
    place = data.draw(st.sampled_from(range(len(rows))))
    fields = rows[place].split(b",")
    new = [b"5", b'"60"', b" 30 ", b"6e1", b"39.5", b"male", b' "female"', b"male\r", b"./07.png", b'"', b""]
    fields[data.draw(st.sampled_from([0, 1, 1, 1, 2, 2, 2])) % len(fields)] = data.draw(st.sampled_from(new))
    rows[place] = b",".join(fields)
    return b"\n".join(rows)


@given(data=st.data(), kinds=st.sampled_from([[], [edited], [edited, edited], [edited, edited, edited], [damaged]]))
def test_a_damaged_csv_never_gives_a_traceback_or_a_wrong_label(own, data, kinds):
    with tempfile.TemporaryDirectory() as into:
        root = Path(shutil.copytree(own, Path(into) / "own"))
        path = root / "labels.csv"
        for damage in kinds:
            path.write_bytes(damage(path.read_bytes(), data))
        found = in_words("Folder", root, target_attr="age:20,40", protected_attr="gender")
        assert found is not None or kinds
        for part in (found.train, found.test) if found else ():
            check_labels(part, path)


def check_labels(part, path):
    """Every image of the part has the class and group that stand in its row."""
    lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig")), skipinitialspace=True))
    ages, genders = ([name.strip() for name in lines[0]].index(name) for name in ("age", "gender"))
    row_of = {fields[0].strip().removeprefix("./"): fields for fields in lines[1:] if fields}
    for level, label, group in zip(part.images[:, 0, 0, 0], part.labels, part.groups, strict=True):
        fields = row_of[f"{level // 10:02}.png"]
        assert label == np.digitize(float(fields[ages]), (20, 40))
        assert part.group_names[group] == fields[genders].strip()


WORDS = st.lists(st.sampled_from(["age", "gender", "path", ":", "20", ",", "40", "-1", "a"]), max_size=6).map("".join)


@given(target=WORDS, protected=WORDS)
def test_any_columns_asked_for_are_found_or_refused_in_words(own, target, protected):
    found = in_words("Folder", own, target_attr=target, protected_attr=protected)
    assert found is None or {target.partition(":")[0], protected.partition(":")[0]} == {"age", "gender"}
