"""Read synthetic sets and check them before a network is trained on them.

What a file does not state (factor, scale) is taken from the caller; what is assumed instead stands in SavedSets.notes.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairdd.core.errors import UserError
from fairdd.datasets.base import GroupedImages
from fairdd.matching.synset import LabeledImages, expand_grid
from fairdd.run.folder import EVALUATIONS, FLAGS, RESULTS, read_json
from fairdd.run.legacy import upgrade_flags
from fairdd.run.synset_files import EXPORT_INFO, is_export, load_source

SCALES = ("unit", "normalized", "imagenet")     # pixels in [0, 1]; normalized by the data set, by ImageNet
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
PAIR_KEYS = (("images", "labels"), ("data", "labels"), ("data", "target"), ("data", "targets"))      # in other dicts
EXPECTED = "[images, labels], or a dict whose 'data' is a list of [images, labels]"


@dataclass(frozen=True, eq=False)
class SavedSets:
    """The synthetic sets of a file, grids expanded.

    mean, std (per channel), class_names: None if the file does not state them. is_unit: the images are pixels in [0, 1]
    instead of normalized. notes: what was assumed, because neither the file nor the caller states it. iterations: at
    which each set was saved, and how many it is to have; empty if the file does not state them.
    """

    path: Path
    sets: list[LabeledImages]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    class_names: tuple[str, ...] | None
    is_unit: bool = False
    notes: tuple[str, ...] = ()
    iterations: tuple[tuple[int, int], ...] = ()

    def progress(self, experiment: int) -> str:
        """Return "unfinished, iteration 2 of 100" if the set was saved before its last iteration, else nothing."""
        iteration, total = self.iterations[experiment] if self.iterations else (0, 0)
        return f"unfinished, iteration {iteration} of {total}" if iteration < total else ""

    def choose(self, experiment: int | None) -> dict[int, LabeledImages]:
        """Return number -> set: the one requested, or all for None. Raises UserError if there is no such set."""
        numbers = range(len(self.sets)) if experiment is None else [experiment]
        if numbers[-1] >= len(self.sets):
            raise UserError(f"--experiment {experiment}: {self.path} holds {len(self.sets)} synthetic set(s), "
                            "counted from 0")
        return {number: self.sets[number] for number in numbers}


def read_saved_sets(source: str | Path, labels_path: str | Path | None = None, scale: str | None = None,
                    factor: int | None = None) -> SavedSets:
    """Read the synthetic sets of a run's folder, an exported folder, or a .npz or .pt file.

    labels_path: a .pt file with the labels, if source holds the images alone; scale: one of SCALES; factor: each image
    is a grid of factor x factor. Raises UserError unless the result is labeled images of a known scale.
    """
    path, content = load_source(Path(source), labels_path)
    header = content if isinstance(content, dict) else {}
    pairs = _find_pairs(content)
    if not pairs:
        hint = "; if its labels are in another file, give both: --images FILE --labels_pt FILE"
        raise UserError(f"{path} does not hold a synthetic set: expected {EXPECTED}, found {_describe(content)}"
                        f"{hint if torch.is_tensor(content) else ''}")
    if factor not in (None, header.get("factor", factor)):
        raise UserError(f"--factor {factor}: {path} states a factor of {header['factor']}; drop the flag")
    sets = [_labeled_images(path, *pair, factor or header.get("factor", 1)) for pair in pairs]
    names = header.get("class_names")
    iterations = header.get("iterations") if "group_names" in header else None      # other tools may name it likewise
    saved = SavedSets(path, sets, None, None, tuple(names) if isinstance(names, list | tuple) else None,
                      iterations=tuple(map(tuple, iterations or ())) or _old_iterations(Path(source)))
    if factor is None and "factor" not in header:
        saved = replace(saved, notes=(f"{path.name} states no factor: each image is taken as it is (--factor 1)",))
    return _with_scale(saved, header, scale)


def _old_iterations(folder: Path) -> tuple[tuple[int, int], ...]:
    """Return the iterations of an unfinished run of version 0.1, whose synthetic.pt does not state them."""
    if not (folder / EVALUATIONS).exists() or (folder / RESULTS).exists():
        return ()
    lines = [json.loads(line) for line in (folder / EVALUATIONS).read_text().splitlines()]
    last = {line["experiment"]: line["iteration"] for line in lines}
    return tuple((iteration, run_flags(folder)["Iteration"]) for _, iteration in sorted(last.items()))


def run_flags(source: str | Path) -> dict | None:
    """Return the flags of the run that a folder holds or was exported from; None if source states none.

    Raises UserError for a folder that is neither a run nor an export, and for the folder of an evaluation.
    """
    folder = Path(source)
    if not folder.is_dir():
        return None
    path = folder / (EXPORT_INFO if is_export(folder) else FLAGS)
    if not path.exists():
        raise UserError(f"{folder} is not the folder of a run or an export: it holds no {FLAGS} and no {EXPORT_INFO}")
    try:
        content = read_json(path)
        if path.name == EXPORT_INFO and "flags" not in content:
            return None
        flags = upgrade_flags(content)["flags"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error})") from None
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
        if syn.labels.ndim == 2 and syn.labels.shape[1] != data.num_classes:
            raise UserError(f"{saved.path}: expected distributions over {data.num_classes} classes, as in the data "
                            f"set, found labels {tuple(syn.labels.shape)}")
        if syn.labels.ndim == 1 and (syn.labels.min() < 0 or syn.labels.max() >= data.num_classes):
            raise UserError(f"{saved.path}: expected labels from 0 to {data.num_classes - 1}, as in the data set, "
                            f"found {syn.labels.min()} to {syn.labels.max()}")


def match_scale(saved: SavedSets, data: GroupedImages) -> tuple[SavedSets, GroupedImages]:
    """Return the sets and the test images under the same normalization.

    Pixels are normalized with the mean and std of the data set; otherwise the test images get those of the file, if it
    states them.
    """
    if not saved.is_unit:
        return saved, replace(data, mean=saved.mean or data.mean, std=saved.std or data.std)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    sets = [replace(syn, images=(syn.images - mean) / std) for syn in saved.sets]
    return replace(saved, sets=sets, mean=data.mean, std=data.std, is_unit=False), data


def _find_pairs(content: Any) -> list:
    """Return the [images, labels] pairs in the content of a file; an empty list if it does not consist of them."""
    if isinstance(content, dict):
        named = [[content.get(images), content.get(labels)] for images, labels in PAIR_KEYS]
        content = next(filter(_is_pair, named), content.get("data"))
    pairs = [content] if _is_pair(content) else content
    return list(pairs) if isinstance(pairs, list | tuple) and all(map(_is_pair, pairs)) else []


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
    classes = _class_labels(labels) if images.layout == labels.layout == torch.strided else None
    if images.ndim != 4 or not images.is_floating_point() or classes is None or not len(images) == len(classes) > 0:
        shapes = " and ".join(f"{tensor.dtype} {tuple(tensor.shape)}" for tensor in (images, labels))
        is_matrix = labels.ndim == 2 and labels.is_floating_point()
        hint = "; if the labels are logits, as DATM saves them, save torch.softmax(labels, 1)" if is_matrix else ""
        raise UserError(f"{path}: expected images (M, C, H, W) of a floating-point type and as many labels: whole "
                        f"numbers (M,), or distributions (M, classes) whose rows sum to 1; found {shapes}{hint}")
    if not images.isfinite().all():
        raise UserError(f"{path}: expected finite images, found infinite values or NaN")
    if not isinstance(factor, int) or factor < 1 or any(side % factor for side in images.shape[2:]):
        raise UserError(f"{path}: expected a factor that divides images of {tuple(images.shape[2:])}, found {factor!r}")
    return LabeledImages(expand_grid(images.detach().float(), factor), classes.repeat_interleave(factor**2, dim=0))


def _class_labels(labels: Tensor) -> Tensor | None:
    """Return labels as classes (M,) int64 or distributions over classes (M, C) float32; None if they are neither."""
    if labels.is_complex():
        return None
    labels = labels.detach().double()
    labels = labels.flatten() if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.ndim == 1:
        return labels.long() if (labels == labels.round()).all() else None
    if labels.ndim != 2 or not ((labels >= 0).all() and ((labels.sum(1) - 1).abs() < 1e-2).all()):
        return None
    is_one_hot = ((labels == 0) | (labels == 1)).all()
    return labels.argmax(1) if is_one_hot else labels.float()


def _with_scale(saved: SavedSets, header: dict, scale: str | None) -> SavedSets:
    """Return the sets with the scale that their file or the caller states, or that their values leave no doubt about.

    Raises UserError if the values fit neither pixels in [0, 1] nor normalized images.
    """
    path, channels = saved.path, saved.sets[0].images.shape[1]
    mean, std = (_per_channel(path, header.get(name), channels) for name in ("mean", "std"))
    if mean or std:
        if scale in ("unit", "imagenet"):
            raise UserError(f"--scale {scale}: {path} states its mean and std; drop the flag")
        return replace(saved, mean=mean, std=std)
    if scale == "imagenet":
        return replace(saved, **{name: _per_channel(path, values, channels) for name, values in IMAGENET.items()})
    if scale is not None:
        return replace(saved, is_unit=scale == "unit")
    low = min(syn.images.min().item() for syn in saved.sets)
    high = max(syn.images.max().item() for syn in saved.sets)
    values = f"values from {low:.4g} to {high:.4g}"
    if low >= 0 and high > 1:
        raise UserError(f"{path}: {values} are not pixels in [0, 1] and, without negative values, hardly normalized "
                        f"images; state what they are: --scale {'|'.join(SCALES)}")
    if low >= 0:
        note = f"warning: {values} are taken as pixels and normalized like the data set (--scale unit)"
    else:
        note = f"{values} are taken as normalized like the data set (--scale normalized)"
    return replace(saved, is_unit=low >= 0, notes=(*saved.notes, note))


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
