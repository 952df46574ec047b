"""Finished runs, read from their folders and nothing else; what is unfinished or damaged is refused by name."""

import io
import json
import math
import shlex
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from PIL import Image

from fairdd.core.errors import UserError
from fairdd.flags import parse
from fairdd.run.folder import DATA, EMBEDDING, EVALUATIONS, FLAGS, RESULTS, SAME_RUN, TIME, picture_name

TEXTS, NUMBERS = ("method", "dataset"), ("Iteration", "seed", "num_eval")
TEXTS_OF_A_RUN, NUMBERS_OF_A_RUN = ("align", "init", "model"), ("ipc", "num_exp")       # an evaluation lacks them
DERIVED = {"FairDD", "outer_loop", "inner_loop", "epoch_eval_augmented"}    # flags that follow from others
ALWAYS_SAID = ("method", "dataset", "ipc", "seed")                          # in a run's command
NO_FLAGS = {"method", "Iteration", "source", "images", "trained_on"}        # of an evaluation, kept beside its flags
DAMAGE = (OSError, SyntaxError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError,
          Image.DecompressionBombError)          # what readers raise on a file that is not what it should be


@dataclass(frozen=True)
class FinishedRun:
    """What a run left. evaluations: (experiment, iteration, model) -> list of each network's figures, in percent;

    counts: "train" and "test" -> (G, C) numbers of images, or None; view: where images lie in two dimensions, or None;
    minutes: how long it worked, all its processes together, or None.
    """

    folder: Path
    flags: dict
    versions: dict
    model: str
    class_names: list
    group_names: list
    evaluations: dict
    counts: dict | None
    view: dict | None
    minutes: float | None

    def final(self, model):
        """The figures of every network of the last iteration. -> (experiment, number) -> figures"""
        return {(experiment, number): figures for (experiment, iteration, name), networks in self.evaluations.items()
                if iteration == self.flags["Iteration"] and name == model for number, figures in enumerate(networks)}

    @property
    def models(self):
        """The evaluated networks, the run's own first."""
        return sorted({model for _, _, model in self.evaluations}, key=lambda model: (model != self.model, model))

    def picture(self, last):
        """The first experiment's first or last picture, at most 10 x 10 images of it. -> PNG bytes, None if missing"""
        iteration = self.flags["Iteration"] if last else 0
        path = self.folder / picture_name(0, iteration)
        return None if self.is_evaluation or not path.exists() else cropped(path, self.flags["ipc"])

    @property
    def is_evaluation(self):
        """Whether it only tested a saved set, or real images: nothing was distilled."""
        return "trained_on" in self.flags

    def command(self):
        """What repeats the run, in a folder of its own choice; what the entry takes anyway is left out."""
        flags = {name: value for name, value in self.flags.items() if name not in SAME_RUN | DERIVED}
        if self.flags.get("epoch_eval_augmented") != self.flags.get("epoch_eval_train"):
            del flags["epoch_eval_train"]       # it was not given: given, it would hold for both
        if self.flags.get("data_path", "data") != "data":
            flags["data_path"] = self.flags["data_path"]
        words = ["main_DM.py" if flags["method"] == "DM" else "main_DC.py"]
        if self.is_evaluation:
            words = ["-m", "fairdd.evaluate", *filter(None, [self.flags.get("source")])]
            flags = {name: value for name, value in flags.items() if name not in NO_FLAGS}
        return shlex.join(["python", *words, *in_words(flags if self.is_evaluation else needed(flags))])


def in_words(flags):
    """Flags as they are typed. -> list of words"""
    words = []
    for name, value in flags.items():
        if value is not None and value is not False:
            values = [] if value is True else value if isinstance(value, list) else [value]
            words += [f"--{name}", *map(str, values)]
    return words


def needed(flags):
    """Those flags of a run that its entry would not take anyway; all of them where that cannot be told."""
    try:
        usual = taken({name: flags[name] for name in ALWAYS_SAID})
        short = {name: value for name, value in flags.items() if name in ALWAYS_SAID or usual.get(name) != value}
        return short if taken(short) == taken(flags) else flags
    except (UserError, KeyError):
        return flags        # of a version that knew other flags or data


def taken(flags):
    """What today's entry makes of these flags: all that decide about results."""
    parsed = parse([flags["method"]], str, [flags.get("eval_mode", "S")], in_words(flags)).as_dict()
    return {name: value for name, value in parsed.items() if name not in SAME_RUN}


def read_run(folder):
    """The run in a folder. Raises UserError with the folder's or the file's name if it is not whole."""
    folder = Path(folder)
    if not (folder / RESULTS).exists():
        hint = "; the command that began it goes on" if (folder / FLAGS).exists() else ""
        raise UserError(f"{folder} holds no finished run (no {RESULTS}){hint}")
    flags, versions = read(folder / FLAGS, flags_and_versions)
    model, class_names, group_names = read(folder / RESULTS, model_and_names)
    shape = len(group_names), len(class_names)
    evaluations = read(folder / EVALUATIONS, lambda *lines: dict(evaluation(line, shape) for line in lines))
    counts = read_optional(folder / DATA, lambda content: counts_of(content, shape))
    view = read_optional(folder / EMBEDDING, lambda content: view_of(content, shape))
    minutes = read_optional(folder / TIME, lambda content: number(content["minutes"]))
    run = FinishedRun(folder, flags, versions, model, class_names, group_names, evaluations, counts, view, minutes)
    check_complete(run)
    return run


def check_complete(run):
    """Every experiment must have been evaluated at its end, with every network."""
    flags = run.flags
    experiments = {experiment for experiment, _, _ in run.evaluations} if run.is_evaluation else range(flags["num_exp"])
    for model in dict.fromkeys([run.model, *run.models]):
        there = run.final(model)
        for experiment, number in product(experiments, range(flags["num_eval"])):
            if (experiment, number) not in there:
                raise UserError(f"{run.folder / EVALUATIONS} is damaged: it lacks network {number} of {model}, "
                                f"experiment {experiment}, iteration {flags['Iteration']}")


@contextmanager
def damage_named(path):
    """Whatever fails in here is the fault of this file."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} is missing: the run is damaged") from None
    except DAMAGE as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        raise UserError(f"{path} is damaged: {reason}") from None


def read(path, make):
    """make(content) of a JSON file; make(line, line, ...) of a JSONL file."""
    with damage_named(path):
        text = path.read_text()
        contents = text.splitlines() if path.suffix == ".jsonl" else [text]
        return make(*(json.loads(each, parse_constant=number) for each in contents))


def read_optional(path, make):
    """The same, or None where there is no such file: runs of earlier versions lack it."""
    return read(path, make) if path.exists() else None


def flags_and_versions(content):
    flags = content["flags"]
    texts, numbers = (TEXTS, NUMBERS) if "trained_on" in flags else (TEXTS + TEXTS_OF_A_RUN, NUMBERS + NUMBERS_OF_A_RUN)
    for names, kind, words in ((texts, str, "text"), (numbers, int, "a whole number")):
        for name in names:
            require(type(flags[name]) is kind, f"the flag {name} is {flags[name]!r}, not {words}")
    return flags, {str(name): str(value) for name, value in content["versions"].items()}


def model_and_names(content):
    names = [[str(name) for name in content[which]] for which in ("class_names", "group_names")]
    require(all(names), "it names no class or no group")
    return str(content["model"]), *names


def evaluation(line, shape):
    """One line of evaluations.jsonl. -> place, figures of each network"""
    place = line["experiment"], line["iteration"], str(line["model"])
    require(type(place[0]) is type(place[1]) is int, f"{place} is no place in a run")
    return place, [figures_of(network, shape) for network in line["networks"]]


def figures_of(network, shape):
    """Every figure that is one number, and the table (G x C); null is an undefined one, NaN."""
    numbers = {name: number(value) for name, value in network.items() if not isinstance(value, list | dict)}
    require({"accuracy", "DEO_M", "DEO_A"} <= numbers.keys(), "a network lacks accuracy, DEO_M or DEO_A")
    return numbers | {"table": table_of(network["table"], shape)}


def table_of(rows, shape):
    """Rows of numbers. -> list of lists, of this shape (G, C)"""
    rows = [[number(value) for value in row] for row in rows]
    require((len(rows), *{len(row) for row in rows}) == shape, f"a table is not {shape[0]} groups x {shape[1]} classes")
    return rows


def counts_of(content, shape):
    counts = {part: table_of(content[part], shape) for part in ("train", "test")}
    require(all(count >= 0 for table in counts.values() for row in table for count in row), "a count is no number")
    return counts


def view_of(content, shape):
    """Points (N x 2) with the labels of each set of images, and the groups of the real ones."""
    for name in ("real", "start", "end"):
        part = content[name]
        points = [[number(value) for value in point] for point in part["points"]]
        require(points and all(len(point) == 2 for point in points), f"{name} has no points in a plane")
        require(len(part["labels"]) == len(points), f"{name} has not one label for each point")
    groups = content["real"]["groups"]
    require(len(groups) == len(content["real"]["points"]), "the real images have not one group each")
    require(all(type(group) is int and 0 <= group < shape[0] for group in groups), "there is a group without a name")
    number(content["share"])
    return content


def number(value):
    """A finite number as a float; None, how undefined ones are kept, as NaN."""
    if value is None:
        return math.nan
    require(type(value) in (int, float) and math.isfinite(value), f"{value!r} is no number")
    return float(value)


def require(is_so, words):
    if not is_so:
        raise ValueError(words)


def cropped(path, ipc):
    """A grid of images as it was saved, its first 10 columns and rows. -> PNG bytes"""
    with damage_named(path), Image.open(path) as picture:
        border = 2
        side = (picture.width - border) // ipc
        edge = 10 * side + border
        content = io.BytesIO()
        picture.crop((0, 0, min(edge, picture.width), min(edge, picture.height))).save(content, "PNG", optimize=True)
        return content.getvalue()
