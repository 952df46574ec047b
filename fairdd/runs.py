"""A run is a folder: its flags, log, evaluations, synthetic set, pictures and results, all machine-readable.

Files are written aside and then renamed, so a reader never meets half of one; nothing written is ever overwritten by
another run.
"""

import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import torch
from tqdm import tqdm

from fairdd.datasets.grouped import denormalise
from fairdd.errors import UserError

SAME_RUN = {"device", "save_path", "data_path"}      # flags that may differ: they do not change what is computed
FLAGS, RESULTS, SYNTHETIC = "flags.json", "results.json", "synthetic.pt"
EVALUATIONS, LOG = "evaluations.jsonl", "log.txt"


class Run:
    """The folder of one run, open for writing."""

    def __init__(self, args):
        self.folder = Path(args.save_path)
        self.results = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._meet_earlier_run(args)
            if self.results is None:
                self.write_json(FLAGS, {"flags": args.as_dict(), "versions": versions(args.device)})
        except OSError as error:
            raise UserError(f"--save_path {self.folder} cannot be written: {error.strerror}") from None

    def _meet_earlier_run(self, args):
        """A finished run of the same flags is taken over, an unfinished one moves aside, any other is refused."""
        if not (self.folder / FLAGS).exists():
            return
        earlier = read_json(self.folder / FLAGS)["flags"]
        for name, value in args.as_dict().items():
            if name not in SAME_RUN and earlier.get(name) != value:
                raise UserError(f"{self.folder} holds a run with {name} = {earlier.get(name)}, this one has {value}; "
                                "give another --save_path")
        if (self.folder / RESULTS).exists():
            self.results = read_json(self.folder / RESULTS)
        else:
            self._move_aside()

    def _move_aside(self):
        number = 1
        while (aside := self.folder / f"unfinished-{number}").exists():
            number += 1
        aside.mkdir()
        for path in self.folder.iterdir():
            if path.is_file():
                path.rename(aside / path.name)

    def log(self, text):
        """Say it in the terminal, above any progress bar, and keep it in the log."""
        tqdm.write(text)
        with open(self.folder / LOG, "a") as file:
            file.writelines(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n" for line in text.splitlines())

    def write_json(self, name, content):
        """One JSON file. NaN, which JSON lacks, becomes null."""
        self._write(name, lambda path: path.write_text(json.dumps(jsonable(content), indent=1) + "\n"))

    def add_evaluation(self, content):
        """One more line of the evaluations."""
        with open(self.folder / EVALUATIONS, "a") as file:
            file.write(json.dumps(jsonable(content)) + "\n")

    def save_synthetic(self, content):
        """The synthetic sets in the field's format, readable with torch.load(weights_only=True)."""
        self._write(SYNTHETIC, lambda path: torch.save(content, path))

    def save_picture(self, name, images, ipc, mean, std):
        """A grid of images (M, C, H, W), one row per class."""
        from torchvision.utils import make_grid, save_image  # here, because it takes seconds to import

        grid = make_grid(denormalise(images, mean, std), nrow=ipc)
        self._write(name, lambda path: save_image(grid, path, format="png"))

    def _write(self, name, write):
        aside = self.folder / f".{name}.part"
        write(aside)
        os.replace(aside, self.folder / name)


def jsonable(value):
    """The same value without NaN."""
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return None if isinstance(value, float) and value != value else value


def read_json(path):
    return json.loads(Path(path).read_text())


def versions(device):
    """What the run ran on."""
    on_gpu = device.startswith("cuda")
    hardware = torch.cuda.get_device_name(device) if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    packages = {"torch": torch.__version__} | {name: version(name) for name in ("torchvision", "numpy", "pillow")}
    return {"python": platform.python_version(), **packages, "hardware": hardware, "machine": platform.platform()}
