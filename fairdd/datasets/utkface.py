"""UTKFace: file names hold age, gender and race (age_gender_race_time); any of them may be the class or the group.

Zhang, Song, Qi: Age Progression/Regression by Conditional Adversarial Autoencoder, CVPR 2017. There is no official
split: up to 100 images of every cell test, all others train, ordered by cell.
"""

import re
from pathlib import Path

import numpy as np

from fairdd.datasets.base import Dataset
from fairdd.datasets.files import dataset_not_found, list_images, parse_labels
from fairdd.datasets.image_cache import load_images
from fairdd.datasets.splits import (
    Attribute,
    cell_members,
    cell_names,
    choose_attributes,
    cross,
    hold_out_test,
    select_images,
)

FOLDERS = ("UTKFace", "UTKface", "utkface", "UTKFace/UTKFace")
LINK = "https://susanqq.github.io/UTKFace/ (aligned and cropped faces)"
NORMALIZATION = (0.61359, 0.47225, 0.40703), (0.25493, 0.23054, 0.22835)
NAME = re.compile(r"^(\d{1,3})_([01])_([0-4])_")
NAMES = {"age": ("under 20", "20 to 39", "40 and over"), "gender": ("male", "female"),
         "race": ("White", "Black", "Asian", "Indian")}
OTHERS = 4              # the fifth race is no group: dropped where race is used, kept where it is not


def load_utkface(request) -> Dataset:
    """Load UTKFace at 64 pixels, by default with age as class and race as group, normalized as published."""
    chosen = choose_attributes(request, ("age", "race"), tuple(NAMES))
    paths, labels, notes = parse_labels(NAME, find_images(request.data_path))
    loaded = load_images(paths, request.im_size or 64, request)
    age, gender, race = labels[loaded.kept].T
    values = {"age": np.digitize(age, (20, 40)), "gender": gender, "race": race}
    target, protected = (cross({name: Attribute(values[name], NAMES[name]) for name in names}) for names in chosen)
    uses_race = any("race" in names for names in chosen)
    used = np.flatnonzero(race != OTHERS) if uses_race else np.arange(len(race))
    members = cell_members(target, protected, used)
    split = hold_out_test(members, request.data_seed, request.rare_cells, cell_names(target, protected, members))
    splits = (select_images(loaded.images, index, target, protected, NORMALIZATION)
              for index in (split.train, split.test))
    return Dataset(request.name, *splits, notes + loaded.notes + split.notes)


def find_images(root: Path) -> list[Path]:
    """Return the images of the first folder that has some with labels in their names. Raises UserError."""
    for name in FOLDERS:
        paths = list_images(root / name)
        if any(NAME.search(path.name) for path in paths):
            return paths
    tried = [root / name for name in FOLDERS]
    raise dataset_not_found("UTKFace", tried, "a folder of files named age_gender_race_time.jpg", LINK)
