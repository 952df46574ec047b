"""Read synthetic sets: from the folder of a run, or from any .pt file of the dataset-condensation codebases.

Files are not trusted: only tensors and plain values are read, and they are checked before a network is trained on them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairdd.core.errors import UserError
from fairdd.datasets.base import GroupedImages
from fairdd.matching.synset import LabeledImages, expand_grid
from fairdd.run.folder import FLAGS, SYNTHETIC, read_json
from fairdd.run.legacy import upgrade_flags

EXPECTED = "[images, labels], or a dict whose 'data' is a list of [images, labels]"


@dataclass(frozen=True, eq=False)
class SavedSets:
    """The synthetic sets of a file, grids expanded. mean, std (per channel) and class_names: None if it lacks them."""

    path: Path
    sets: list[LabeledImages]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    class_names: tuple[str, ...] | None

    def choose(self, experiment: int | None) -> dict[int, LabeledImages]:
        """Return number -> set: the one requested, or all for None. Raises UserError if there is no such set."""
        numbers = range(len(self.sets)) if experiment is None else [experiment]
        if numbers[-1] >= len(self.sets):
            raise UserError(f"--experiment {experiment}: {self.path} holds {len(self.sets)} synthetic set(s), "
                            "counted from 0")
        return {number: self.sets[number] for number in numbers}


def read_saved_sets(source: str | Path) -> SavedSets:
    """Read the synthetic sets of a run's folder or of a .pt file. Raises UserError unless they are labeled images."""
    path = Path(source) / SYNTHETIC if Path(source).is_dir() else Path(source)
    content = load_pt(path)
    header = content if isinstance(content, dict) else {}
    data = header.get("data", content)
    pairs = [data] if _is_pair(data) else data
    if not isinstance(pairs, list | tuple) or not pairs or not all(map(_is_pair, pairs)):
        raise UserError(f"{path} does not hold a synthetic set: expected {EXPECTED}, found {_describe(content)}")
    sets = [_labeled_images(path, images, labels, header.get("factor", 1)) for images, labels in pairs]
    mean, std = (_per_channel(path, header.get(name), sets[0].images.shape[1]) for name in ("mean", "std"))
    names = header.get("class_names")
    return SavedSets(path, sets, mean, std, tuple(names) if isinstance(names, list | tuple) else None)


def run_flags(folder: str | Path) -> dict:
    """Return all flags of the run in a folder, finished or not. Raises UserError if there is none."""
    if not (Path(folder) / FLAGS).exists():
        raise UserError(f"{folder} is not the folder of a run: it holds no {FLAGS}")
    flags = upgrade_flags(read_json(Path(folder) / FLAGS))["flags"]
    if "trained_on" in flags:
        raise UserError(f"{folder} holds an evaluation; give the folder of the run")
    return flags


def check_matches_dataset(saved: SavedSets, data: GroupedImages) -> None:
    """Raise UserError if the sets have other classes or another image size than the data set."""
    if saved.class_names not in (None, data.class_names):
        raise UserError(f"{saved.path} is a set of the classes {', '.join(map(str, saved.class_names))}; "
                        f"the data set's are {', '.join(data.class_names)}")
    for syn in saved.sets:
        if syn.images.shape[1:] != data.images.shape[1:]:
            raise UserError(f"{saved.path}: expected images {tuple(data.images.shape[1:])}, as in the data set, found "
                            f"{tuple(syn.images.shape[1:])}; --im_size sets the data set's")
        if syn.labels.min() < 0 or syn.labels.max() >= data.num_classes:
            raise UserError(f"{saved.path}: expected labels from 0 to {data.num_classes - 1}, as in the data set, "
                            f"found {syn.labels.min()} to {syn.labels.max()}")


def load_pt(path: Path) -> Any:
    """Return the content of a .pt file on the CPU, without executing anything in it. Raises UserError if unreadable."""
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected the folder of a run that was evaluated, or a .pt file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:       # a damaged archive can fail in any part of the reader
        raise UserError(f"{path} is not a complete .pt file of tensors, lists and dicts; "
                        "nothing else is read") from None


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(torch.is_tensor, value))


def _describe(content: Any) -> str:
    """Return a short description of unexpected content, for a message."""
    if isinstance(content, dict):
        return f"a dict with {', '.join(map(repr, list(content)[:5])) or 'nothing'}"
    shape = f" of shape {tuple(content.shape)}" if torch.is_tensor(content) else ""
    length = f" of {len(content)}" if isinstance(content, list | tuple) else ""
    return f"a {type(content).__name__}{shape}{length}"


def _labeled_images(path: Path, images: Tensor, labels: Tensor, factor: int) -> LabeledImages:
    """Return the set with its grids expanded; raise UserError if no network could be trained on it."""
    has_shapes = images.ndim == 4 and labels.ndim == 1 and len(images) == len(labels) > 0
    if not has_shapes or not images.is_floating_point() or labels.is_floating_point():
        shapes = " and ".join(f"{tensor.dtype} {tuple(tensor.shape)}" for tensor in (images, labels))
        raise UserError(f"{path}: expected normalized images (M, C, H, W) of a floating-point type and as many "
                        f"labels (M,) of an integer type, found {shapes}")
    if not images.isfinite().all():
        raise UserError(f"{path}: expected finite images, found infinite values or NaN")
    if not isinstance(factor, int) or factor < 1 or any(side % factor for side in images.shape[2:]):
        raise UserError(f"{path}: expected a factor that divides images of {tuple(images.shape[2:])}, found {factor!r}")
    return LabeledImages(expand_grid(images.detach().float(), factor), labels.long().repeat_interleave(factor**2))


def _per_channel(path: Path, values: Any, num_channels: int) -> tuple[float, ...] | None:
    """Return the mean or std stated by a file as a tuple of one number per channel."""
    if values is None:
        return None
    try:
        values = tuple(map(float, values))
    except (TypeError, ValueError):
        values = ()
    if len(values) != num_channels:
        raise UserError(f"{path}: expected one mean and one std for each of {num_channels} channels")
    return values
