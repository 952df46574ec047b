"""UTKFace: file names hold age, gender and race (age_gender_race_time); any of them may be the class or the group.

Zhang, Song, Qi: Age Progression/Regression by Conditional Adversarial Autoencoder, CVPR 2017. There is no official
split: up to 100 images of every cell test, all others train, ordered by cell. The images may come as published, from
Kaggle, or as a CSV of gray pixels.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fairdd.core.errors import UserError
from fairdd.datasets import splits
from fairdd.datasets.base import Dataset, resize
from fairdd.datasets.files import candidate_folders, dataset_not_found, find_entries, list_images, parse_labels
from fairdd.datasets.image_cache import load_images

FOLDERS = r"utk[-_ ]?face([-_. ].*)?|archive"
TREE = "a folder of files named age_gender_race_time.jpg, or a CSV with the columns age, ethnicity, gender, pixels"
LINK = "https://susanqq.github.io/UTKFace/ (aligned and cropped faces)"
NORMALIZATION = (0.61359, 0.47225, 0.40703), (0.25493, 0.23054, 0.22835)
NAME = re.compile(r"^(\d{1,3})_([01])_([0-4])_")
NAMES = {"age": ("under 20", "20 to 39", "40 and over"), "gender": ("male", "female"),
         "race": ("White", "Black", "Asian", "Indian")}
OTHERS = 4              # the fifth race is no group: dropped where race is used, kept where it is not


def load_utkface(request) -> Dataset:
    """Load UTKFace at 64 pixels, by default with age as class and race as group, normalized as published."""
    chosen = splits.choose_attributes(request, ("age", "race"), tuple(NAMES))
    images, (age, gender, race), notes, files = read_images(request)
    values = {"age": np.digitize(age, (20, 40)), "gender": gender, "race": race}
    target, protected = (splits.cross({name: splits.Attribute(values[name], NAMES[name]) for name in names})
                         for names in chosen)
    uses_race = any("race" in names for names in chosen)
    used = np.flatnonzero(race != OTHERS) if uses_race else np.arange(len(race))
    members = splits.cell_members(target, protected, used)
    names = splits.cell_names(target, protected, members)
    split = splits.hold_out_test(members, request.data_seed, request.rare_cells, names)
    train, test = (splits.select_images(images, index, target, protected, NORMALIZATION)
                   for index in (split.train, split.test))
    return Dataset(request.name, train, test, notes + split.notes,
                   train_paths=tuple(files[row] for row in split.train) if files else ())


def read_images(request) -> tuple[Tensor, np.ndarray, tuple[str, ...], list[str]]:
    """Read the images and their labels. Raises UserError.

    Folders named after the set come first, then the parts of Kaggle's copies, then a CSV.
    -> (N, 3, H, W) uint8, (3, N) age, gender, race, notes, names of the N files (none for a CSV)
    """
    size, homes = request.im_size or 64, candidate_folders(request.data_path, FOLDERS)
    for pattern in (None, r"part[123]", r"crop_part1"):
        for folders in ([home] if pattern is None else find_entries([home], pattern) for home in homes):
            paths = [path for folder in folders for path in list_images(folder)]
            if any(NAME.search(path.name) for path in paths):
                paths, labels, notes = parse_labels(NAME, paths)
                loaded = load_images(paths, size, request)
                note = () if pattern is None else (f"images are read from {', '.join(map(str, folders))}",)
                names = [paths[row].name for row in loaded.kept]
                return loaded.images, labels[loaded.kept].T, note + notes + loaded.notes, names
    for file in find_entries(homes, r".*\.csv"):
        with file.open(encoding="utf-8-sig", errors="replace") as lines:
            header = lines.readline(1000).lower()
        if "ethnicity" in header and "pixels" in header:
            return *read_pixels(file, max(",;\t", key=header.count), size), []
    tried = homes[:-1] or [request.data_path / "UTKFace"]
    raise dataset_not_found("UTKFace", tried, TREE, LINK, "no file has labels in its name" if homes[:-1] else "")


def read_pixels(file: Path, separator: str, size: int) -> tuple[Tensor, np.ndarray, tuple[str, ...]]:
    """Read a CSV whose column pixels holds square gray images, as numbers between blanks.

    -> images, labels and notes as read_images returns them
    """
    table = pd.read_csv(file, sep=separator, encoding="utf-8-sig", encoding_errors="replace", dtype=str)
    table = table.rename(columns=lambda name: name.strip().lower())
    try:
        labels = np.stack([table[name].astype(np.int64) for name in ("age", "gender", "ethnicity")])
        pixels = np.loadtxt(table["pixels"].fillna(""), np.uint8, ndmin=2)
    except (ValueError, LookupError) as error:
        raise UserError(f"{file}: expected age, gender, ethnicity and as many pixels in every row ({error})") from error
    side = round(pixels.shape[1] ** 0.5)
    if pixels.shape != (len(table), side**2) or labels.min() < 0 or labels[1].max() > 1 or labels[2].max() > OTHERS:
        raise UserError(f"{file}: expected square images, an age, gender 0 or 1 and ethnicity 0 to 4 in every row")
    gray = torch.from_numpy(pixels).view(-1, 1, side, side).expand(-1, 3, -1, -1)
    note = f"images are read from {file}: {len(pixels)} gray images of {side} x {side} pixels, not the published ones"
    return resize(gray, size).contiguous(), labels, (note,)
