"""UTKFace and BFFHQ: labels from file names, the layouts they come in, images left out, absent files."""

import itertools
import shutil
from functools import partial

import pytest
import torch
from test_image_cache import write_image

from fairdd.core.errors import UserError
from fairdd.datasets import get_dataset

get = partial(get_dataset, im_size=8, progress=False)


# UTKFace: the red level of an image is its race, the green its gender, the blue its age

def write_utkface(folder, per_cell=4, order=1):
    names = [(age, gender, race, f"{age}_{gender}_{race}_2017{k:03}.jpg.chip.jpg")
             for age, gender, race, k in itertools.product((5, 20, 39, 40), (0, 1), range(5), range(per_cell))]
    for age, gender, race, name in names[::order]:
        write_image(folder / name, (race * 50, gender * 200, age * 5))


@pytest.fixture(scope="module")
def utkface(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_utkface(root / "UTKFace")
    return root


def test_utkface_reads_age_and_race_from_the_names(utkface):
    data = get("UTKface", utkface)
    assert data.train.class_names == ("under 20", "20 to 39", "40 and over")
    assert data.train.group_names == ("White", "Black", "Asian", "Indian")
    assert data.train.counts().tolist() == [[4, 12, 4]] * 4 and data.test.counts().tolist() == [[4, 4, 4]] * 4
    red = data.train.images[:, 0].float().mean((1, 2))
    assert (red / 50).round().long().equal(data.train.groups)       # no "others", and every image has its own race


def test_utkface_training_is_ordered_by_cell(utkface):
    train = get("UTKface", utkface).train
    cell = train.labels * 4 + train.groups
    assert cell.equal(cell.sort().values)


def test_utkface_names_the_file_of_every_training_image(utkface):
    data = get("UTKface", utkface)
    assert [int(path.split("_")[2]) for path in data.train_paths] == data.train.groups.tolist()
    assert len(set(data.train_paths)) == len(data.train)


@pytest.mark.parametrize("target, protected, classes, groups, size", [
    ("gender", "race", 2, 4, 128), ("race", "gender", 4, 2, 128), ("gender", "age", 2, 3, 160),
    ("age", "gender", 3, 2, 160), ("Age", "2", 3, 4, 128), ("age", "race,gender", 3, 8, 128)])
def test_utkface_supports_any_combination_of_attributes(utkface, target, protected, classes, groups, size):
    data = get("UTKface", utkface, target_attr=target, protected_attr=protected)
    assert (data.train.num_classes, data.train.num_groups) == (classes, groups)
    assert len(data.train) + len(data.test) == size                 # "others" count only where race is unused


def test_utkface_intersections_are_named_and_keep_each_attribute(utkface):
    both = get("UTKface", utkface, protected_attr="race,gender").train
    assert both.group_names[:3] == ("race=White,gender=male", "race=White,gender=female", "race=Black,gender=male")
    assert both.attributes == (("race", ("White", "Black", "Asian", "Indian")), ("gender", ("male", "female")))
    assert both.groups.equal((both.images[:, :2].float().mean((2, 3)) / torch.tensor([50, 200])).round().long()
                             @ torch.tensor([2, 1]))
    assert get("UTKface", utkface).train.attributes == ()


def test_utkface_does_not_depend_on_the_order_of_the_folder(utkface, tmp_path):
    write_utkface(tmp_path / "utkface", order=-1)
    first, second = get("UTKface", utkface), get("UTKface", tmp_path)
    assert first.train.images.equal(second.train.images) and first.test.images.equal(second.test.images)


UTKFACE_LAYOUTS = {"upper case": ["UTKFACE"], "underscore": ["utk_face"], "nested": ["UTKFace/UTKFace"],
                   "kaggle": ["utkface_aligned_cropped/UTKFace"], "the folder itself": [""], "cropped": ["crop_part1"],
                   "kaggle, cropped": ["archive/crop_part1"], "in the wild": ["part1", "part2", "part3"],
                   "kaggle, in the wild": ["UTKface_inthewild/part1", "UTKface_inthewild/part2"]}


@pytest.mark.parametrize("layout", UTKFACE_LAYOUTS)
def test_utkface_is_the_same_in_every_layout(utkface, tmp_path, layout):
    folders = UTKFACE_LAYOUTS[layout]
    source = sorted((utkface / "UTKFace").iterdir())
    for k, folder in enumerate(folders):            # the parts hold a third of the sorted names each
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for path in source[k * len(source) // len(folders) : (k + 1) * len(source) // len(folders)]:
            shutil.copy(path, tmp_path / folder / path.name)
    data = get("UTKface", tmp_path)
    assert data.digest() == get("UTKface", utkface).digest()
    assert any("part" in note for note in data.notes) == ("part" in folders[0])


def test_utkface_prefers_the_complete_folder(utkface, tmp_path):
    for name in ("UTKFace", "crop_part1"):
        shutil.copytree(utkface / "UTKFace", tmp_path / "utkface_aligned_cropped" / name)
    for path in sorted((tmp_path / "utkface_aligned_cropped" / "crop_part1").iterdir())[::2]:
        path.unlink()
    assert get("UTKface", tmp_path).digest() == get("UTKface", utkface).digest()


def utkface_rows():
    """Rows of a CSV of pixels: the gray level of an image is its row; ages, genders and races go through all cells."""
    kinds = list(itertools.product((5, 20, 39, 40, 116), (0, 1), range(5))) * 4
    return [(age, race, gender, f"2017{k:03}.jpg.chip.jpg", " ".join([str(k)] * 48 * 48))
            for k, (age, gender, race) in enumerate(kinds)]


@pytest.mark.parametrize("name, separator, start", [("age_gender.csv", ",", ""), ("UTKFace/age_gender.csv", ",", ""),
                                                    ("archive/Faces.CSV", ";", "\ufeff")])
def test_utkface_is_read_from_a_csv_of_pixels(tmp_path, name, separator, start):
    rows = utkface_rows()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    lines = [("age", "ethnicity", "gender", "img_name", "pixels"), *rows]
    (tmp_path / name).write_text(start + "\n".join(separator.join(map(str, line)) for line in lines))
    data = get("UTKface", tmp_path, protected_attr="race,gender")
    assert len(data.train) + len(data.test) == 160              # four of five races, each row once
    levels = torch.cat([data.train.images, data.test.images]).flatten(1)
    assert (levels == levels[:, :1]).all() and len(levels[:, 0].unique()) == 160
    for split in (data.train, data.test):
        for image, label, group in zip(split.images, split.labels, split.groups, strict=True):
            age, race, gender, *_ = rows[image[0, 0, 0]]
            assert label == (age >= 20) + (age >= 40) and group == race * 2 + gender
    assert f"{name}: 200 gray images of 48 x 48 pixels" in data.notes[0]


@pytest.mark.parametrize("column, value", [(0, "-1"), (1, "5"), (2, "2"), (0, "old"), (4, "1 2 3"), (4, "300 " * 2304),
                                           (4, "x " * 2304), (4, "")])
def test_a_damaged_csv_of_pixels_is_refused(tmp_path, column, value):
    rows = [list(map(str, row)) for row in utkface_rows()]
    rows[7][column] = value
    lines = [("age", "ethnicity", "gender", "img_name", "pixels"), *rows]
    (tmp_path / "age_gender.csv").write_text("\n".join(map(",".join, lines)))
    with pytest.raises(UserError, match=r"age_gender\.csv: expected"):
        get("UTKface", tmp_path)


def test_pixels_that_are_no_square_are_refused(tmp_path):
    lines = [("age", "ethnicity", "gender", "pixels"), *([("5", "0", "0", "1 2 3")] * 4)]
    (tmp_path / "age_gender.csv").write_text("\n".join(map(",".join, lines)))
    with pytest.raises(UserError, match="expected square images"):
        get("UTKface", tmp_path)


def test_utkface_seed_decides_the_test(utkface):
    first, again, other = (get("UTKface", utkface, data_seed=seed).test for seed in (30, 30, 31))
    assert first.images.equal(again.images) and not first.images.equal(other.images)


def test_utkface_files_without_labels_are_left_out_and_counted(tmp_path):
    write_utkface(tmp_path / "UTKFace")
    write_image(tmp_path / "UTKFace" / "39_1_20170116174525125.jpg.chip.jpg")
    write_image(tmp_path / "UTKFace" / "55_0_0_20170116232725357jpg.chip.jpg", size=(9, 30))     # odd, but readable
    data = get("UTKface", tmp_path)
    assert len(data.train) + len(data.test) == 129
    assert data.notes[0] == ("1 files without labels in their names are left out: "
                             "39_1_20170116174525125.jpg.chip.jpg")


def test_utkface_leaves_rare_cells_out_of_the_test(tmp_path):
    for age, race, count in ((5, 0, 40), (5, 1, 40), (5, 2, 3), (30, 0, 40), (30, 1, 41), (60, 0, 40), (60, 1, 44)):
        for k in range(count):
            write_image(tmp_path / "UTKFace" / f"{age}_0_{race}_2017{k:03}.jpg", (race * 50, k, age * 3))
    data = get("UTKface", tmp_path)
    assert data.test.counts().tolist() == [[20, 20, 20], [20, 20, 20], [0, 0, 0], [0, 0, 0]]
    assert data.train.counts().tolist() == [[20, 20, 20], [20, 21, 24], [3, 0, 0], [0, 0, 0]]
    assert "(under 20, Asian) has 3; such cells are not tested" in data.notes[0]
    assert get("UTKface", tmp_path, rare_cells="shrink").test.counts().sum() == 7
    with pytest.raises(UserError, match=r"\(under 20, Asian\) has 3"):
        get("UTKface", tmp_path, rare_cells="refuse")


# BFFHQ: the red level is the age, the green the gender

@pytest.fixture
def bffhq(tmp_path):
    folder, number = tmp_path / "bffhq", itertools.count()
    for subfolder, cells in (("0.5pct/align", [(0, 0)] * 4 + [(1, 1)] * 4), ("0.5pct/conflict", [(0, 1), (1, 0)]),
                         ("test", [(0, 0), (0, 1), (1, 0), (1, 1)]), ("valid", [(0, 0)])):
        for age, gender in cells:
            path = f"{subfolder}/{age}" if "pct" in subfolder else subfolder
            write_image(folder / path / f"{next(number)}_{age}_{gender}.png", (200 * age, 200 * gender, 0))
    return tmp_path


def test_bffhq_reads_age_and_gender_from_the_names(bffhq):
    data = get("BFFHQ", bffhq)
    assert data.train.counts().tolist() == [[4, 1], [1, 4]] and data.test.counts().tolist() == [[1, 1], [1, 1]]
    assert data.train.class_names == ("young", "old")
    for split in (data.train, data.test):
        assert (split.images[:, 0, 0, 0] // 200).long().equal(split.labels)
        assert (split.images[:, 1, 0, 0] // 200).long().equal(split.groups)
    assert [int(path.split("_")[1]) for path in data.train_paths] == data.train.labels.tolist()


def test_bffhq_validates_on_the_folder_valid_if_asked(bffhq):
    val = get("BFFHQ", bffhq, read_validation=True).val
    assert val.counts().tolist() == [[1, 0], [0, 0]] and get("BFFHQ", bffhq).val is None
    shutil.rmtree(bffhq / "bffhq" / "valid")
    assert get("BFFHQ", bffhq, read_validation=True).val is None


@pytest.mark.parametrize("name", ["BFFHQ", "bffhq/bffhq", "bffhq-dataset", ""])
def test_bffhq_is_the_same_in_every_layout(bffhq, tmp_path, name):
    expected = get("BFFHQ", bffhq).digest()
    shutil.copytree(bffhq / "bffhq", tmp_path / "data" / name)
    assert get("BFFHQ", tmp_path / "data").digest() == expected


def test_an_incomplete_bffhq_folder_is_described(bffhq):
    shutil.rmtree(bffhq / "bffhq" / "0.5pct" / "conflict")
    with pytest.raises(UserError, match=rf"no images in 0\.5pct/conflict/\*/\*\); looked for {bffhq}/bffhq;"):
        get("BFFHQ", bffhq)


def test_bffhq_counts_files_without_labels_and_unreadable_files(bffhq):
    write_image(bffhq / "bffhq" / "0.5pct" / "align" / "0" / "face.png")
    (bffhq / "bffhq" / "0.5pct" / "align" / "0" / "0_0_0.png").write_bytes(b"")
    data = get("BFFHQ", bffhq, skip_bad_images=True)
    assert data.train.counts().tolist() == [[3, 1], [1, 4]] and data.test.counts().sum() == 4
    assert ["face.png" in data.notes[0], "0_0_0.png" in data.notes[1]] == [True, True]


@pytest.mark.parametrize("name, tree", [("UTKface", "age_gender_race_time"), ("BFFHQ", "0.5pct/align")])
def test_an_absent_data_set_names_the_paths_tried(tmp_path, name, tree):
    with pytest.raises(UserError, match=rf"{tmp_path}/.*{tree}.*https://"):
        get(name, tmp_path)
