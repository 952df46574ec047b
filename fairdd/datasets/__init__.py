"""Every data set behind one function, `get_dataset(name)`. A table maps each name to its loader.

data/README.md shows the expected folders and where to get the data.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from fairdd.core.errors import UserError
from fairdd.datasets.base import Dataset, GroupedImages, denormalize, normalize
from fairdd.datasets.bffhq import load_bffhq
from fairdd.datasets.celeba import load_celeba
from fairdd.datasets.cifar10_s import load_cifar10_s
from fairdd.datasets.colored import COLORING_SPECS, MINORITIES, load_colored
from fairdd.datasets.custom import load_folder
from fairdd.datasets.missing_groups import remove_groups
from fairdd.datasets.splits import RARE_CELLS
from fairdd.datasets.utkface import load_utkface

__all__ = ["DATASETS", "Dataset", "DatasetRequest", "GroupedImages", "denormalize", "get_dataset", "normalize"]


@dataclass(frozen=True)
class DatasetRequest:
    """Which data set to load, and how. An option that is None means: as published."""

    name: str
    data_path: Path
    data_seed: int = 30                         # of every draw (colors, splits); 30 gives the published data
    im_size: int | None = None                  # pixels per side
    skew: float | None = None                   # share of a training class in its own color (or in gray, or in color)
    target_attr: str | int | None = None        # the class
    protected_attr: str | int | None = None     # the group
    skip_bad_images: bool = False               # leave unreadable images out instead of stopping
    progress: bool = True
    labels: str | None = None                   # Folder: its tables, separated by commas, if not labels.csv
    path_column: str | None = None              # Folder: the column of paths
    unknown: tuple[str, ...] = ()               # Folder: values that leave a row out
    train_unknown_groups: bool = False          # Folder: a row whose group alone is unknown trains, with group UNKNOWN
    read_validation: bool = False               # CelebA, BFFHQ: also read their validation images
    split_by: str | None = None                 # Folder: the column whose values stay on one side of a drawn split
    follow_links: bool = False                  # Folder: allow links out of the folder
    rare_cells: str = "omit"                    # cells too rare to test: "omit", "refuse" or "shrink" (splits.py)
    minorities: str = "equal"                   # sizes of a class's other colors: "equal" or "unequal" (1:2:...:9)
    train_without: str | None = None            # groups without training images, separated by commas
    test_without: str | None = None             # groups without test images


@dataclass(frozen=True)
class DatasetSpec:
    """How to load a data set, and which of the options that are not common to all sets it supports."""

    load: Callable[[DatasetRequest], Dataset]
    options: tuple[str, ...] = ()


DRAWN_GROUPS = ("skew", "train_without", "test_without")    # options of data sets whose groups are drawn
DATASETS = {
    **{name: DatasetSpec(load_colored, (*DRAWN_GROUPS, "minorities")) for name in COLORING_SPECS},
    "CIFAR10_S": DatasetSpec(load_cifar10_s, DRAWN_GROUPS),
    "CIFAR10_S_90": DatasetSpec(load_cifar10_s, DRAWN_GROUPS),
    "CelebA": DatasetSpec(load_celeba, ("target_attr", "protected_attr", "rare_cells")),
    "UTKface": DatasetSpec(load_utkface, ("target_attr", "protected_attr", "rare_cells")),
    "BFFHQ": DatasetSpec(load_bffhq),
    "Folder": DatasetSpec(load_folder, ("target_attr", "protected_attr", "rare_cells", "labels", "path_column",
                                        "unknown", "split_by", "follow_links", "skew")),
}


def get_dataset(name: str, data_path: str | Path = "data", **options) -> Dataset:
    """Load a data set by name; options are the fields of DatasetRequest. Raises UserError."""
    if name not in DATASETS:
        raise UserError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}")
    request = DatasetRequest(name, Path(data_path).expanduser(), **options)
    check_request(request)
    return remove_groups(DATASETS[name].load(request), request.train_without, request.test_without)


def check_request(request: DatasetRequest) -> None:
    """Raise UserError for an option that the data set does not support, or a value out of range."""
    supporters = {field.name: [name for name, spec in DATASETS.items() if field.name in spec.options]
                  for field in fields(request) if getattr(request, field.name) not in (None, [], field.default)}
    for option, names in supporters.items():
        if names and request.name not in names:
            raise UserError(f"--{option} is not supported for {request.name}; supported by: {', '.join(names)}")
    if request.skew is not None and not 0 <= request.skew <= 1:
        raise UserError(f"--skew must be between 0 and 1, not {request.skew}")
    for option, choices in (("rare_cells", RARE_CELLS), ("minorities", MINORITIES)):
        if getattr(request, option) not in choices:
            raise UserError(f"--{option} must be one of {', '.join(choices)}, not {getattr(request, option)!r}")
    if request.im_size is not None and request.im_size < 1:
        raise UserError(f"--im_size must be at least 1 pixel, not {request.im_size}")
    if not 0 <= request.data_seed < 2**32:
        raise UserError(f"--data_seed must be between 0 and {2**32 - 1}, not {request.data_seed}")
