"""Read finished runs from their folders; refuse a run that is unfinished, incomplete or damaged, and name the file."""

import io
import json
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from fairdd.core.errors import UserError
from fairdd.flags import to_argv
from fairdd.run.folder import DATASET, EVALUATIONS, FLAGS, PROJECTION, RESULTS, RUNTIME_FLAGS, TIME, picture_name
from fairdd.run.formatting import MAIN_METRICS, run_name
from fairdd.run.legacy import existing_file, upgrade_flags, upgrade_metrics

REQUIRED_FLAGS = ("dataset", "model", "Iteration", "seed", "num_eval")
REQUIRED_OF_DISTILLATION = ("method", "align", "init", "ipc", "num_exp")    # an evaluation does not have them
EVALUATION_FIELDS = {"method", "Iteration", "source", "images", "trained_on", "unknown_groups"}     # no flags of it
EVALUATION_KEY = ["experiment", "iteration", "model"]
CROP_IMAGES, GRID_PADDING = 10, 2       # images per side of a picture in the report; pixels between images
UNREADABLE = (OSError, SyntaxError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError,
              Image.DecompressionBombError)     # raised by the readers on a damaged file


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    networks: one row per evaluated network, with the columns experiment, iteration, model, network (its number), the
    metrics in percent (NaN where undefined), and table, a (G, C) array; counts: "train" and "test" -> (G, C) numbers
    of images; projection: the content of projection.json; minutes: wall-clock time of all its processes. The last
    three are None where an older version did not record them.
    """

    folder: Path
    flags: dict
    non_default: list[str]
    entry: str
    versions: dict
    model: str
    class_names: list[str]
    group_names: list[str]
    networks: pd.DataFrame
    counts: dict[str, np.ndarray] | None
    projection: dict | None
    minutes: float | None

    @property
    def name(self) -> str:
        """Return what the run is; for all real images with the epochs, which may be too few to converge."""
        epochs = f", {self.flags['epoch_eval_train']} epochs" if self.is_all_real else ""
        return run_name(self.flags) + epochs

    @property
    def models(self) -> list[str]:
        """Return the names of the evaluated networks, the run's own first."""
        return sorted(set(self.networks["model"]), key=lambda model: (model != self.model, model))

    @property
    def is_evaluation(self) -> bool:
        """Return whether the run only evaluated a saved set or real images."""
        return "trained_on" in self.flags

    @property
    def is_all_real(self) -> bool:
        """Return whether its networks were trained on all real images."""
        return self.flags.get("images") == "real"

    def final(self, model: str) -> pd.DataFrame:
        """Return the networks of the last iteration, indexed by (experiment, network)."""
        rows = (self.networks["model"] == model) & (self.networks["iteration"] == self.flags["Iteration"])
        return self.networks[rows].set_index(["experiment", "network"]).drop(columns=["iteration", "model"])

    def picture(self, at_end: bool) -> bytes | None:
        """Return the first experiment's first or last picture as PNG, cropped to 10 x 10 images; None if missing."""
        name = picture_name(0, self.flags["Iteration"] if at_end else 0)
        if self.is_evaluation or not (self.folder / name).exists():
            return None
        with run_file(self.folder, name) as path, Image.open(path) as picture:
            edge = CROP_IMAGES * ((picture.width - GRID_PADDING) // self.flags["ipc"]) + GRID_PADDING
            content, box = io.BytesIO(), (0, 0, min(edge, picture.width), min(edge, picture.height))
            picture.crop(box).save(content, "PNG", optimize=True)
            return content.getvalue()

    def command(self) -> str:
        """Return the command that repeats the run in its default folder: non-default flags that change its results."""
        hidden = RUNTIME_FLAGS | (EVALUATION_FIELDS if self.is_evaluation else set())
        shown = {"method", "dataset", "ipc", "seed", *self.non_default} - hidden
        if self.flags.get("data_path", "data") != "data":
            shown.add("data_path")
        source = [self.flags["source"]] if self.flags.get("source") else []
        command = ["-m", "fairdd.evaluate", *source] if self.is_evaluation else [self.entry]
        flags = {name: value for name, value in self.flags.items() if name in shown}
        return shlex.join(["python", *command, *to_argv(flags)])


def read_run(folder: Path | str) -> FinishedRun:
    """Return the run in a folder. Raises UserError, naming the folder or the file, if it is not finished or damaged."""
    folder = Path(folder)
    if not (folder / RESULTS).exists():
        raise UserError(f"{folder} holds no finished run (no {RESULTS}){describe_progress(folder)}")
    with run_file(folder, FLAGS) as path:
        content = upgrade_flags(json.loads(path.read_text()))
        flags = content["flags"]
        require(flags, REQUIRED_FLAGS if "trained_on" in flags else REQUIRED_FLAGS + REQUIRED_OF_DISTILLATION)
        origin = {name: content[name] for name in ("non_default", "entry", "versions")}
    with run_file(folder, RESULTS) as path:
        results = json.loads(path.read_text())
        names = {"class_names": list(results["class_names"]), "group_names": list(results["group_names"])}
        model = results["model"]
    shape = len(names["group_names"]), len(names["class_names"])
    with run_file(folder, EVALUATIONS) as path:
        networks = read_networks(path, shape)
    counts = read_optional(folder, DATASET, lambda content: {
        split: table_array(content[split], shape, int) for split in ("train", "test")})
    projection = read_optional(folder, PROJECTION, lambda content: require(content, ("real", "start", "end", "share")))
    minutes = read_optional(folder, TIME, lambda content: content["minutes"])
    run = FinishedRun(folder, flags, model=model, networks=networks, counts=counts, projection=projection,
                      minutes=minutes, **origin, **names)
    check_complete(run)
    return run


def describe_progress(folder: Path) -> str:
    """Return how far an unfinished run has come, as far as its folder says, and how to resume it; "" without a run."""
    if not (folder / FLAGS).exists():
        return ""
    progress = ""
    with suppress(*UNREADABLE):
        flags = upgrade_flags(json.loads((folder / FLAGS).read_text()))["flags"]
        last = json.loads((folder / EVALUATIONS).read_text().rpartition("\n")[0].splitlines()[-1])
        progress = f", iteration {last['iteration']} of {flags['Iteration']}"
        if flags.get("num_exp", 1) > 1:
            progress += f", synthetic set {last['experiment'] + 1} of {flags['num_exp']}"
    return f"; it is unfinished{progress}: re-run its command to resume it"


def read_networks(path: Path, shape: tuple[int, int]) -> pd.DataFrame:
    """Return evaluations.jsonl as one row per network, as FinishedRun describes it. shape: (G, C) of the tables."""
    records = []
    for line in map(json.loads, path.read_text().splitlines()):
        for number, metrics in enumerate(line["networks"]):
            table = table_array(require(metrics, MAIN_METRICS)["table"], shape)
            key = {name: line[name] for name in EVALUATION_KEY} | {"network": number}
            records.append(upgrade_metrics(metrics) | key | {"table": table})
    if not records:
        raise ValueError("it holds no evaluation")
    networks = pd.DataFrame(records).drop_duplicates([*EVALUATION_KEY, "network"], keep="last")
    metrics = networks.columns.difference([*EVALUATION_KEY, "network", "table"])
    return networks.astype(dict.fromkeys(metrics, float))


def check_complete(run: FinishedRun) -> None:
    """Raise UserError if an experiment was not evaluated with every network at the last iteration."""
    flags = run.flags
    experiments = run.networks["experiment"].unique() if run.is_evaluation else range(flags["num_exp"])
    for model in dict.fromkeys([run.model, *run.models]):
        evaluated = run.final(model).index
        for experiment, number in product(experiments, range(flags["num_eval"])):
            if (experiment, number) not in evaluated:
                raise UserError(f"{run.folder / EVALUATIONS} is damaged: it lacks network {number} of {model}, "
                                f"experiment {experiment}, iteration {flags['Iteration']}")


@contextmanager
def run_file(folder: Path, name: str) -> Iterator[Path]:
    """Yield the path of a run's file; an exception inside the block becomes a UserError that names this file."""
    path = existing_file(folder, name)
    try:
        yield path
    except FileNotFoundError:
        raise UserError(f"{path} is missing: the run is damaged") from None
    except UNREADABLE as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        raise UserError(f"{path} is damaged: {reason}") from None


def read_optional(folder: Path, name: str, convert: Callable):
    """Return convert(content) of a JSON file, or None if the run does not have it."""
    with run_file(folder, name) as path:
        return convert(json.loads(path.read_text())) if path.exists() else None


def require(content: dict, names: Iterable[str]) -> dict:
    """Return content. Raises KeyError if it lacks one of the names."""
    for name in names:
        content[name]
    return content


def table_array(rows, shape: tuple[int, int], dtype: type = float) -> np.ndarray:
    """Return rows of numbers as an array; null becomes NaN. Raises ValueError if its shape is not shape, (G, C)."""
    array = np.array(rows, dtype)
    if array.shape != shape:
        raise ValueError(f"a table is not {shape[0]} groups x {shape[1]} classes")
    return array
