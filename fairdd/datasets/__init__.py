"""Every data set behind one door: `get_dataset(name)`. A table names them; one loader function builds each kind.

How the folders are laid out and where to get them: data/README.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fairdd.datasets.bffhq import load_bffhq
from fairdd.datasets.celeba import load_celeba
from fairdd.datasets.cifar10_s import load_cifar10_s
from fairdd.datasets.colored import COLORING_SPECS, load_colored
from fairdd.datasets.custom import load_folder
from fairdd.datasets.base import Dataset, GroupedImages, denormalize, normalize
from fairdd.datasets.utkface import load_utkface
from fairdd.core.errors import UserError

__all__ = ["DATASETS", "Dataset", "GroupedImages", "denormalize", "get_dataset", "normalize"]


@dataclass(frozen=True)
class DatasetRequest:
    """What a user asks of a data set. None means: as published."""

    name: str
    data_path: Path
    data_seed: int
    im_size: int | None
    skew: float | None
    target_attr: str | int | None
    protected_attr: str | int | None
    skip_bad_images: bool
    progress: bool
    labels: str | None = None
    path_column: str | None = None
    unknown: tuple[str, ...] = ()
    split_by: str | None = None
    follow_links: bool = False


@dataclass(frozen=True)
class DatasetSpec:
    """A line of the table: the function that builds the set from a DatasetRequest, and the options only some sets take."""

    load: Callable
    takes: tuple = ()


DATASETS = {
    **{name: DatasetSpec(load_colored, ("skew",)) for name in COLORING_SPECS},
    "CIFAR10_S": DatasetSpec(load_cifar10_s, ("skew",)),
    "CIFAR10_S_90": DatasetSpec(load_cifar10_s, ("skew",)),
    "CelebA": DatasetSpec(load_celeba, ("target_attr", "protected_attr")),
    "UTKface": DatasetSpec(load_utkface, ("target_attr", "protected_attr")),
    "BFFHQ": DatasetSpec(load_bffhq),
    "Folder": DatasetSpec(load_folder, ("target_attr", "protected_attr", "labels", "path_column", "unknown", "split_by",
                                        "follow_links")),
}


def get_dataset(name, data_path="data", *, data_seed=30, im_size=None, skew=None, target_attr=None,
                protected_attr=None, labels=None, path_column=None, unknown=(), split_by=None, follow_links=False,
                skip_bad_images=False, progress=True) -> Dataset:
    """The data set of that name, built as published unless an option says otherwise.

    data_seed decides every draw of the building (30: the published one); im_size: pixels per side; skew: share of
    a training class that has its own color (or is gray or colored); target_attr, protected_attr: what is the class,
    what is the group; skip_bad_images: leave broken files out, do not stop. For Folder: labels: its tables, separated by
    commas; path_column: the column of paths; unknown: values that leave a row out; split_by: the column whose values
    stay on one side of a drawn split; follow_links: allow links out of the folder.
    """
    if name not in DATASETS:
        raise UserError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}")
    request = DatasetRequest(name, Path(data_path), data_seed, im_size, skew, target_attr, protected_attr,
                      skip_bad_images, progress, labels, path_column, tuple(unknown), split_by, follow_links)
    check(request)
    return DATASETS[name].load(request)


def check(request):
    """Stop at an option that the data set does not take, or a value out of range."""
    given = {"skew": request.skew, "target_attr": request.target_attr, "protected_attr": request.protected_attr,
             "labels": request.labels, "path_column": request.path_column, "unknown": request.unknown or None,
             "split_by": request.split_by, "follow_links": request.follow_links or None}
    for option, value in given.items():
        if value is not None and option not in DATASETS[request.name].takes:
            takers = ", ".join(name for name, entry in DATASETS.items() if option in entry.takes)
            raise UserError(f"{request.name} takes no --{option}; these do: {takers}")
    if request.skew is not None and not 0 <= request.skew <= 1:
        raise UserError(f"--skew is a share between 0 and 1, not {request.skew}")
    if request.im_size is not None and request.im_size < 1:
        raise UserError(f"--im_size is a number of pixels, 1 or more, not {request.im_size}")
    if not 0 <= request.data_seed < 2**32:
        raise UserError(f"--data_seed lies between 0 and {2**32 - 1}, not {request.data_seed}")
