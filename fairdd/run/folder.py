"""A run is a folder: its flags, log, evaluations, synthetic set, pictures, results; until it ends, its state.

Files are written aside and then renamed, so a reader never meets half of one. Nothing written is ever overwritten by
another run.
"""

import csv
import json
import math
import os
import platform
import time
from contextlib import contextmanager
from importlib.metadata import version
from io import BytesIO, StringIO
from pathlib import Path

import torch
from tqdm import tqdm

from fairdd.run import checkpoint
from fairdd.datasets.base import denormalize
from fairdd.core.errors import UserError
from fairdd.lock import exclusive_lock

SAME_RUN = {"device", "save_path", "data_path", "save_every", "restart", "source", "tensorboard"}    # change no result
FLAGS, RESULTS, SYNTHETIC, TIME = "flags.json", "results.json", "synthetic.pt", "time.json"
DATA, EMBEDDING, EVENTS = "data.json", "embedding.json", "tensorboard"
LARGE_ENOUGH = 64           # pixels per side of an image in a picture
EVALUATIONS, NETWORKS, LOG, SPLIT = "evaluations.jsonl", "networks.jsonl", "log.txt", "split.csv"


@contextmanager
def open_run(args):
    """The folder of args, for one writer. Raises UserError where it holds another run or cannot be written."""
    folder = Path(args.save_path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(folder):
            yield Run(folder, args)
    except OSError as error:
        where = error.filename or folder
        raise UserError(f"{where} cannot be written: {error.strerror}; what was saved before is whole") from None


class Run:
    """The folder of one run, open for writing. results: of a finished run; state: where an unfinished one stood."""

    def __init__(self, folder, args):
        self.folder, self.began = folder, time.monotonic()
        if args.restart:
            self._move_aside()
        if (folder / FLAGS).exists():
            self._check_same(args)
        self.results = read_json(folder / RESULTS) if (folder / RESULTS).exists() else None
        self.state = checkpoint.load(folder, self.log) if self.results is None else None
        self.networks = {place_of(line): restored(line["figures"]) for line in self._lines(NETWORKS)}
        self.evaluations = {place_of(line) for line in self._lines(EVALUATIONS)}
        self.seconds_before = self.state["seconds"] if self.state else 0.0

    def _check_same(self, args):
        """Refuse to go on with the run of other flags."""
        earlier = read_json(self.folder / FLAGS)["flags"]
        same = SAME_RUN - {"data_path"} if args.dataset == "Folder" else SAME_RUN       # there it names the data
        for name, value in args.as_dict().items():
            if name not in same and earlier.get(name) != value:
                raise UserError(f"{self.folder} holds a run with {name} = {earlier.get(name)}, this one has {value}; "
                                "give another --save_path, or --restart to move that run aside")

    def _move_aside(self):
        """Everything the folder holds goes to earlier-1, earlier-2, ..."""
        files = [path for path in self.folder.iterdir()
                 if path.name == EVENTS or (path.is_file() and path.name != ".lock")]
        number = 1
        while (aside := self.folder / f"earlier-{number}").exists():
            number += 1
        if files:
            aside.mkdir()
        for path in files:
            path.rename(aside / path.name)

    def _lines(self, name):
        """The lines of a JSONL file; a last one that was cut off is dropped from the file too."""
        path = self.folder / name
        whole = path.read_bytes() if path.exists() else b""
        kept = whole[: whole.rfind(b"\n") + 1]
        if kept != whole:
            self._write(name, kept)
        return [json.loads(line) for line in kept.splitlines()]

    def log(self, text):
        """Say it in the terminal, above any progress bar, and keep it in the log."""
        tqdm.write(text)
        with open(self.folder / LOG, "a") as file:
            file.writelines(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n" for line in text.splitlines())

    def seconds(self):
        """How long the run has worked, all its processes together."""
        return self.seconds_before + time.monotonic() - self.began

    def save_state(self, **state):
        """Where the run stands, so that the same command goes on from here."""
        checkpoint.save(self.folder, {**state, "seconds": self.seconds()})

    def finish(self, results):
        """The last files of a run."""
        self.write_json(TIME, {"minutes": self.seconds() / 60})
        self.write_json(RESULTS, results)
        checkpoint.remove(self.folder)

    def write_json(self, name, content):
        """One JSON file. NaN, which JSON lacks, becomes null."""
        self._write(name, (json.dumps(jsonable(content), indent=1) + "\n").encode())

    def begin(self, args, data):
        """Keep the flags, what is to be known of data (a Dataset), its split if one was drawn.

        From now on the folder holds this run.
        """
        if not (self.folder / FLAGS).exists():
            self.write_json(FLAGS, {"flags": args.as_dict(), "versions": versions(args.device)})
        self.write_json(DATA, data.summary())
        if data.split:
            self._save_split(data.split)

    def _save_split(self, split):
        """Which images train and which test, (path, part) each. Refuses another split than this run began with."""
        lines = StringIO()
        csv.writer(lines, lineterminator="\n").writerows([("path", "part"), *split])
        path, content = self.folder / SPLIT, lines.getvalue().encode()
        if path.exists() and path.read_bytes() != content:
            raise UserError(f"{path} is another split: the images or their labels have changed since this run began; "
                            "--restart begins anew")
        self._write(SPLIT, content)

    def add_network(self, place, figures):
        """Keep what one network came to. place: (experiment, iteration, model, number)"""
        self.networks[place] = figures
        self._append(NETWORKS, dict(zip(PLACE, place, strict=True)) | {"figures": figures})

    def add_evaluation(self, place, figures):
        """One line per evaluation, even if it is met again after a restart. place: (experiment, iteration, model)"""
        if place not in self.evaluations:
            self.evaluations.add(place)
            self._append(EVALUATIONS, dict(zip(PLACE, place, strict=False)) | {"networks": figures})

    def save_synthetic(self, content):
        """The synthetic sets in the field's format, readable with torch.load(weights_only=True)."""
        buffer = BytesIO()
        torch.save(content, buffer)
        self._write(SYNTHETIC, buffer.getvalue())

    def save_picture(self, name, images, ipc, mean, std):
        """A grid of images (M, C, H, W), one row per class; small ones enlarged, so that one sees them. -> the grid"""
        from torchvision.utils import make_grid, save_image  # here, because it takes seconds to import

        buffer = BytesIO()
        images = denormalize(images, mean, std)
        factor = max(1, LARGE_ENOUGH // images.shape[-1])
        images = images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        grid = make_grid(images, nrow=ipc)
        save_image(grid, buffer, format="png")
        self._write(name, buffer.getvalue())
        return grid

    def _append(self, name, content):
        with open(self.folder / name, "a") as file:
            file.write(json.dumps(jsonable(content)) + "\n")

    def _write(self, name, content):
        aside = self.folder / f".{name}.part"
        checkpoint.write_flushed(aside, content)
        os.replace(aside, self.folder / name)


PLACE = ("experiment", "iteration", "model", "network")


def picture_name(experiment, iteration):
    return f"experiment{experiment}_iteration{iteration:05d}.png"


def place_of(line):
    """Which evaluation, or which network of it, a line is about."""
    return tuple(line[name] for name in PLACE if name in line)


def jsonable(value):
    """The same value, with None for NaN."""
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def restored(figures):
    """Figures of a network as they were before jsonable."""
    table = [[math.nan if value is None else value for value in row] for row in figures["table"]]
    return {name: math.nan if value is None else value for name, value in figures.items()} | {"table": table}


def read_json(path):
    return json.loads(Path(path).read_text())


def versions(device):
    """What the run ran on."""
    on_gpu = device.startswith("cuda")
    hardware = torch.cuda.get_device_name(device) if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    packages = {"torch": torch.__version__} | {name: version(name) for name in ("torchvision", "numpy", "pillow")}
    return {"python": platform.python_version(), **packages, "hardware": hardware, "machine": platform.platform()}
