"""data/README.md: every recipe's commands and lines, run on made-up files of the real layout and header, give the
classes, groups and splits of these files, image by image."""

import json
import re
import shlex
import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from test_image_cache import write_image

import main_DM
from fairdd.run.loop import load_data

README = (Path(__file__).parent.parent / "data" / "README.md").read_text()
RECIPES = dict(re.findall(r"^#### (.+?)\n(.*?)(?=^#)", README[README.index("### Recipes"):], re.DOTALL | re.MULTILINE))


def blocks(title, language):
    return re.findall(rf"^```{language}\n(.*?)^```", RECIPES[title], re.DOTALL | re.MULTILINE)


def commands(title):
    return [line for block in blocks(title, "bash") for line in block.splitlines()]


class Made:
    """Made-up images below data/, and the split, class and group that each must have."""

    def __init__(self, root):
        self.root, self.expected, self.count = root, {}, 0

    def add(self, path, split=None, label=None, group=None):
        """Write an image of red level 2 * index; a label of None: it must be left out."""
        write_image(self.root / "data" / path, (2 * self.count, 0, 0))
        if label is not None:
            self.expected[self.count] = (split, (label, group))
        self.count += 1

    def lines(self, path, lines):
        (self.root / "data" / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / "data" / path).write_text("\n".join(lines) + "\n")


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Made(tmp_path)


def load(command):
    """Return the data set of a command of the README."""
    arguments = shlex.split(command)
    assert arguments[:2] == ["python", "main_DM.py"]
    return load_data(main_DM.parse([*arguments[2:], "--im_size", "8", "--quiet"])[1])


def check(made, command):
    """Assert that the command's data set holds what was made, image by image. Return the data set."""
    data = load(command)
    result = {}
    for split, images in (("train", data.train), ("val", data.val), ("test", data.test)):
        for pixels, label, group in zip(images.images, images.labels, images.groups, strict=True) if images else ():
            result[round(pixels[0, 0, 0].item() / 2)] = (split, (images.class_names[label], images.group_names[group]))
    if all(split is None for split, _ in made.expected.values()):
        assert set(dict(data.split).values()) == {"train", "test"} and len(data.test) > 0
        result = {index: (None, labels) for index, (_, labels) in result.items()}
    assert result == made.expected
    return data


def run_lines(title, index=0):
    exec(blocks(title, "python")[index], {})


def test_every_recipe_is_tested():
    tested = {"Waterbirds", "FairFace", "HAM10000", "Fitzpatrick17k", "CheXpert", "LFW", "MEDFAIR", "SubpopBench",
              "CelebA and FairFace from Hugging Face", "UTKFace from Kaggle"}
    assert RECIPES.keys() == tested


def test_waterbirds(made):
    home, lines = "waterbird_complete95_forest2water2", ["img_id,img_filename,y,split,place,place_filename"]
    for k, (split, y, background, _) in enumerate(product("012", "01", "01", range(3)), 1):
        path = f"{k:03}.Black_footed_Albatross/Black_Footed_Albatross_{k:04}_18.png"
        made.add(f"{home}/{path}", ("train", "val", "test")[int(split)], y, background)
        lines.append(f"{k},{path},{y},{split},{background},/o/ocean/{k:08}.jpg")
    made.lines(f"{home}/metadata.csv", lines)
    data = check(made, commands("Waterbirds")[0])
    assert "split: 0/1/2 of column 'split' read as train/val/test" in data.notes[0]


def test_fairface(made):
    for name, copies in (("train", 4), ("val", 2)):
        lines = ["file,age,gender,race,service_test"]
        for k, (gender, race, _) in enumerate(product(("Male", "Female"), ("East Asian", "Black"), range(copies)), 1):
            made.add(f"FairFace/{name}/{k}.png", "test" if name == "val" else name, gender, race)
            lines.append(f"{name}/{k}.png,{('50-59', '3-9')[k % 2]},{gender},{race},{k % 2 == 0}")
        made.lines(f"FairFace/fairface_label_{name}.csv", lines)
    check(made, commands("FairFace")[0])


def make_ham10000(made, cut_age):
    lines, k = ["lesion_id,image_id,dx,dx_type,age,sex,localization"], 24306
    for dx, sex, age, _ in product(("nv", "mel"), ("male", "female"), ("30.0", "60.0"), range(8)):
        sex = "unknown" if k % 16 == 3 else sex
        age = "" if k % 16 == 5 else age
        group = (("50 and over" if age == "60.0" else "under 50") if age else None) if cut_age else sex
        known = group not in (None, "unknown")
        made.add(f"HAM10000/HAM10000_images_part_{k % 2 + 1}/ISIC_{k:07}.png", None, dx if known else None, group)
        lines.append(f"HAM_{k // 2:07},ISIC_{k:07},{dx},histo,{age},{sex},scalp")
        k += 1
    made.lines("HAM10000/HAM10000_metadata.csv", lines)


@pytest.mark.parametrize("index", [0, 1])
def test_ham10000(made, index):
    make_ham10000(made, cut_age=index == 1)
    data = check(made, commands("HAM10000")[index])
    table = pd.read_csv("data/HAM10000/HAM10000_metadata.csv").set_index("image_id")
    sides = {}
    for path, side in data.split:
        sides.setdefault(table.lesion_id[Path(path).stem], set()).add(side)
    assert all(len(values) == 1 for values in sides.values()) and "rows left out as unknown" in data.notes[0]


def test_fitzpatrick17k(made):
    header = ("md5hash,fitzpatrick_scale,fitzpatrick_centaur,label,nine_partition_label,three_partition_label,qc,url,"
              "url_alphanum")
    lines, kinds = [header], product(("benign", "malignant", "non-neoplastic"), ("-1", "1", "6"), range(5))
    for k, (label, scale, copy) in enumerate(kinds):
        name = f"{k:032x}"
        made.add(f"fitzpatrick17k/images/{name}.png", None, None if scale == "-1" or copy == 4 else label, scale)
        if copy == 4:
            (made.root / f"data/fitzpatrick17k/images/{name}.png").unlink()     # a dead link
        lines.append(f"{name},{scale},{scale},psoriasis,inflammatory,{label},,https://a.com/{k}.jpg,httpsacom{k}jpg.jpg")
    made.lines("fitzpatrick17k/fitzpatrick17k.csv", lines)
    data = check(made, commands("Fitzpatrick17k")[0])
    assert "15 rows left out as unknown (fitzpatrick_scale -1 15)" in data.notes[0]
    assert "6 images are missing and left out" in data.notes[0]


CHEXPERT = ("Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung "
            "Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,"
            "Support Devices")


def make_chexpert(made, blank, drawn=False):
    """blank: the class of a blank finding, None if it is left out; drawn: race is the group and no split is given."""
    home, races = "CheXpert-v1.0-small", {}
    for name, split, patients in (("train", "train", range(10)), ("valid", "test", range(10, 14))):
        lines = [CHEXPERT]
        for patient, finding in product(patients, ("1.0", "0.0", "-1.0", "")):
            path = f"{name}/patient{patient:05}/study1/view{finding or 'x'}_frontal.png"
            sex = "Unknown" if (patient, finding) == (1, "1.0") else ("Female", "Male")[patient % 2]
            races[f"patient{patient:05}"] = race = ("Asian", "White")[patient // 2 % 2]
            label = None if finding == "-1.0" or (sex == "Unknown" and not drawn) else finding or blank
            made.add(f"{home}/{path}", None if drawn else split, label, race if drawn else sex)
            lines.append(f"{home}/{path},{sex},68,Frontal,AP,1.0,,,,,,,,,0.0,{finding},,,1.0")
        made.lines(f"{home}/{name}.csv", lines)
    return races


@pytest.mark.parametrize("index, blank", [(0, None), (1, "(blank)")])
def test_chexpert(made, index, blank):
    make_chexpert(made, blank)
    check(made, commands("CheXpert")[index])


def test_chexpert_by_race(made, monkeypatch):
    races = make_chexpert(made, None, drawn=True)
    people = pd.DataFrame({"PATIENT": list(races), "PRIMARY_RACE": list(races.values())})
    monkeypatch.setattr(pd, "read_excel", lambda _: people)
    run_lines("CheXpert")
    data = check(made, commands("CheXpert")[2])
    side = {}
    for path, split in data.split:
        side.setdefault(path.split("/")[1], set()).add(split)
    assert all(len(values) == 1 for values in side.values())


def test_lfw(made):
    header = ["#", "person", "imagenum", "Male", "Asian", "Smiling", "Eye Glasses"]
    lines = ["# lfw attributes, scores", "\t".join(header)]
    for person, number in product(range(16), (1, 2, 3)):
        name = f"Given{person} Family{person}"
        male, smiling = person % 2 * 2 - 0.9, person // 2 % 2 * 2 - 1.5
        path = name.replace(" ", "_")
        made.add(f"lfw/{path}/{path}_{number:04}.png", None, "0 and over" if smiling > 0 else "under 0",
                 "0 and over" if male > 0 else "under 0")
        lines.append("\t".join([name, str(number), str(male), "-1.89", str(smiling), "0.1"]))
    made.lines("lfw/lfw_attributes.txt", lines)
    run_lines("LFW")
    table = Path("data/lfw/labels.csv")
    table.write_text(table.read_text().replace(".jpg", ".png"))     # the made-up images are PNG
    data = check(made, commands("LFW")[0])
    sides = {}
    for path, split in data.split:
        sides.setdefault(path.split("/")[0], set()).add(split)
    assert all(len(values) == 1 for values in sides.values())


def test_medfair(made):
    for name in ("train", "val", "test"):
        lines = [",Path,Sex,Age_multi,Age_binary,binaryLabel"]
        for k, (label, sex, _) in enumerate(product("01", "FM", range(3))):
            made.add(f"HAM10000/HAM10000_images/ISIC_{made.count:07}.png", name, label, sex)
            lines.append(f"{k},HAM10000_images/ISIC_{made.count - 1:07}.png,{sex},{k % 5},{k % 2},{label}")
        made.lines(f"HAM10000/new_{name}.csv", lines)
    check(made, commands("MEDFAIR")[0])


def test_subpopbench(made):
    lines = ["id,filename,split,y,a"]
    for k, (split, y, a, _) in enumerate(product("012", "01", "01", range(3)), 1):
        made.add(f"celeba/img_align_celeba/{k:06}.png", ("train", "val", "test")[int(split)], y, a)
        lines.append(f"{k},{k:06}.png,{split},{y},{a}")
    made.lines("celeba/metadata_celeba.csv", lines)
    check(made, commands("SubpopBench")[0])


def write_hub_split(file, rows, features):
    """Write what Dataset.to_parquet of the library datasets writes. rows: of image bytes and labels"""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    schema = {"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}, **features}}})}
    parquet.write_table(pa.Table.from_pylist(rows).replace_schema_metadata(schema), file)


@pytest.mark.parametrize("index", [0, 1])
def test_celeba_and_fairface_from_hugging_face(made, monkeypatch, index):
    races, genders = ["East Asian", "Indian", "Black"], ["Male", "Female"]
    names = {code: {"names": values, "_type": "ClassLabel"} for code, values in (("race", races), ("gender", genders))}
    rows = {split: [] for split in (("train", "valid", "test"), ("train", "validation"))[index]}
    for split, _ in product(rows, range(24)):
        k = made.count
        labels = ({"Attractive": k % 2 == 0, "Male": k // 2 % 2 == 0}, {"gender": k % 2, "race": k // 2 % 3})[index]
        expected = ((str(k % 2 == 0), str(k // 2 % 2 == 0)), (genders[k % 2], races[k // 2 % 3]))[index]
        made.add(f"pixels/{k}.png", {"valid": "val", "validation": "test"}.get(split, split), *expected)
        image = {"bytes": Path(f"data/pixels/{k}.png").read_bytes(), "path": f"{k}.png"}
        rows[split].append({"image": image, **labels})

    class Images(list):
        def to_parquet(self, file):
            write_hub_split(file, self, names if index else {})

    hub = SimpleNamespace(load_dataset=lambda *_: {split: Images(values) for split, values in rows.items()})
    monkeypatch.setitem(sys.modules, "datasets", hub)
    run_lines("CelebA and FairFace from Hugging Face", index)
    check(made, commands("CelebA and FairFace from Hugging Face")[index])


def test_utkface_from_kaggle(made):
    ages, genders, races = {"5": "under 20", "30": "20 to 39", "60": "40 and over"}, "01", {"0": "White", "3": "Indian"}
    rows = ["age,ethnicity,gender,img_name,pixels"]
    for k, (age, race, gender, _) in enumerate(product(ages, races, genders, range(2))):
        name = f"{age}_{gender}_{race}_20170116{k:09}.jpg.chip"
        made.add(f"utkface-new/UTKFace/{name}.png", None, ages[age], races[race])
        rows.append(f'{age},{race},{gender},{name}.jpg,{" ".join([str(2 * k)] * 64)}')
    made.lines("archive/age_gender.csv", rows)
    for command in commands("UTKFace from Kaggle"):
        data = load(command)
        labels = {}
        for images in (data.train, data.test):
            for level, c, g in zip(images.images[:, 0, 0, 0].tolist(), images.labels, images.groups, strict=True):
                labels[level // 2] = (None, (images.class_names[c], images.group_names[g]))
        assert labels == made.expected and np.all(data.test.counts().sum(0).numpy() > 0)
