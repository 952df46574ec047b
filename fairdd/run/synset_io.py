"""Synthetic sets as they lie on disk: those of a run's folder, or of any .pt file in the format of the field.

A file is not trusted: it is read as tensors alone, and what it holds is checked before a network is trained on it.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from fairdd.core.errors import UserError
from fairdd.matching.synset import LabeledImages, expand_grid
from fairdd.run.folder import FLAGS, SYNTHETIC, read_json

EXPECTED = "[images, labels], or a dict whose 'data' is a list of [images, labels]"


@dataclass(frozen=True, eq=False)
class SavedSets:
    """What a file holds, and what it says of it: mean, std of the images' scale and the names; None if it does not.

    sets: list of LabeledImages, decoded where several are stored in one.
    """

    path: Path
    sets: list
    mean: tuple | None
    std: tuple | None
    class_names: tuple | None

    def choose(self, experiment):
        """The sets to use, by number: the one asked for, or all. -> dict"""
        numbers = range(len(self.sets)) if experiment is None else [experiment]
        if numbers[-1] >= len(self.sets):
            raise UserError(f"--experiment {experiment}: {self.path} holds {len(self.sets)} synthetic set(s), "
                            "counted from 0")
        return {number: self.sets[number] for number in numbers}


def read(source):
    """The synthetic sets of a run's folder or a .pt file. Raises UserError unless they are images with labels."""
    path = Path(source) / SYNTHETIC if Path(source).is_dir() else Path(source)
    content = load(path)
    about = content if isinstance(content, dict) else {}
    data = about.get("data", content)
    pairs = [data] if is_pair(data) else data
    if not isinstance(pairs, list | tuple) or not pairs or not all(map(is_pair, pairs)):
        raise UserError(f"{path} does not hold a synthetic set: expected {EXPECTED}, found {describe(content)}")
    sets = [checked(path, *pair, about.get("factor", 1)) for pair in pairs]
    mean, std = (scale(path, about.get(name), sets[0].images.shape[1]) for name in ("mean", "std"))
    names = about.get("class_names")
    return SavedSets(path, sets, mean, std, tuple(names) if isinstance(names, list | tuple) else None)


def flags_of(folder):
    """All flags of the run in a folder."""
    if not (Path(folder) / FLAGS).exists():
        raise UserError(f"{folder} is not the folder of a run: it holds no {FLAGS}")
    flags = read_json(Path(folder) / FLAGS)["flags"]
    if "trained_on" in flags:
        raise UserError(f"{folder} holds an evaluation; give the folder of the run")
    return flags


def load(path):
    """The content of a .pt file; nothing in it is executed."""
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected the folder of a run that was evaluated, or a .pt file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:       # a damaged archive can fail in any part of the reader
        raise UserError(f"{path} is not a whole .pt file of tensors, lists and dicts; nothing else is read") from None


def is_pair(value):
    """Whether it may be [images, labels]."""
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(torch.is_tensor, value))


def describe(content):
    """What was found instead, in a few words."""
    if isinstance(content, dict):
        return f"a dict with {', '.join(map(repr, list(content)[:5])) or 'nothing'}"
    shape = f" of shape {tuple(content.shape)}" if torch.is_tensor(content) else ""
    length = f" of {len(content)}" if isinstance(content, list | tuple) else ""
    return f"a {type(content).__name__}{shape}{length}"


def checked(path, images, labels, factor):
    """A set that a network can be trained on, if its shapes, types and values are those of one. -> LabeledImages"""
    fits = images.ndim == 4 and labels.ndim == 1 and len(images) == len(labels) > 0
    if not fits or not images.is_floating_point() or labels.is_floating_point():
        found = " and ".join(f"{part.dtype} {tuple(part.shape)}" for part in (images, labels))
        raise UserError(f"{path}: expected normalized images (M, C, H, W) of a floating type and as many labels (M,) "
                        f"of whole numbers, found {found}")
    if not images.isfinite().all():
        raise UserError(f"{path}: expected finite images, found values that are infinite or no number")
    if not isinstance(factor, int) or factor < 1 or any(side % factor for side in images.shape[2:]):
        raise UserError(f"{path}: expected a factor that divides images of {tuple(images.shape[2:])}, found {factor!r}")
    return LabeledImages(expand_grid(images.detach().float(), factor), labels.long().repeat_interleave(factor**2))


def scale(path, values, channels):
    """The mean or std that a file states: one number per channel."""
    if values is None:
        return None
    try:
        values = tuple(map(float, values))
    except (TypeError, ValueError):
        values = ()
    if len(values) != channels:
        raise UserError(f"{path}: expected one mean and one std for each of {channels} channels")
    return values


def check_fits(saved, data):
    """Refuse sets of other classes or another size than those of data (GroupedImages)."""
    if saved.class_names not in (None, data.class_names):
        raise UserError(f"{saved.path} is a set of the classes {', '.join(map(str, saved.class_names))}; "
                        f"the data set's are {', '.join(data.class_names)}")
    for one in saved.sets:
        if one.images.shape[1:] != data.images.shape[1:]:
            raise UserError(f"{saved.path}: expected images {tuple(data.images.shape[1:])}, as the data set's, found "
                            f"{tuple(one.images.shape[1:])}; --im_size sets the data set's")
        if one.labels.min() < 0 or one.labels.max() >= data.num_classes:
            raise UserError(f"{saved.path}: expected labels from 0 to {data.num_classes - 1}, as the data set's, found "
                            f"{one.labels.min()} to {one.labels.max()}")
