"""A run is a folder: its flags, log, evaluations, synthetic sets, pictures and results; until it ends, a checkpoint.

Files are written aside and then renamed, so a reader never sees half of one. Nothing written is ever overwritten by
another run.
"""

import csv
import json
import math
import os
import platform
import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from io import BytesIO, StringIO
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import Tensor
from tqdm import tqdm

from fairdd.core import distributed
from fairdd.core.errors import UserError
from fairdd.datasets.base import Dataset, denormalize
from fairdd.flags import RUNTIME_FLAGS, Flags
from fairdd.run import checkpoint
from fairdd.run.legacy import existing_file, upgrade_flags

FLAGS, RESULTS, SYNTHETIC, TIME, LOG = "flags.json", "results.json", "synthetic.pt", "time.json", "log.txt"
DATASET, PROJECTION, EVENTS, SPLIT = "dataset.json", "projection.json", "tensorboard", "split.csv"
EVALUATIONS, NETWORKS, PROCESSES = "evaluations.jsonl", "metrics_per_network.jsonl", "processes.jsonl"
LOCK, OWNER = ".lock", ".owner"
MADE_FROM_RUN = re.compile(f"{EVENTS}|report|(synthetic_)?evaluated.*")      # subfolders that the commands make
EVAL_KEY = ("experiment", "iteration", "model", "network")
MIN_PICTURE_SIDE = 64           # pixels per side of an image in a picture


@contextmanager
def open_run(args: Flags) -> Iterator["RunFolder"]:
    """Yield the run folder of args, locked for this process. Raises UserError if it is in use or holds another run.

    Other ranks of torchrun than 0 get what it holds, but do not write to it.
    """
    folder = Path(args.save_path).expanduser()
    if distributed.rank():
        yield ReadOnlyRun(folder, *distributed.from_rank_0())
        return
    with report_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder):
        run = RunFolder(folder, args)
        distributed.from_rank_0((run.results, run.state, run.network_metrics))
        yield run


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Keep other processes from writing to the folder. The lock is released when the process ends, however it ends.

    Raises UserError with the process id and host of the current owner.
    """
    lock, owner = FileLock(folder / LOCK), folder / OWNER
    try:
        with report_write_errors(folder):
            lock.acquire(blocking=False)
    except Timeout:
        name = owner.read_text().strip() if owner.exists() else "another process"
        raise UserError(f"{folder} is in use by {name}; wait for it or use another --save_path") from None
    try:
        with report_write_errors(folder):
            owner.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
        yield
    finally:
        lock.release()


@contextmanager
def report_write_errors(path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into a UserError that names the file."""
    try:
        yield
    except OSError as error:
        if isinstance(error, Timeout):
            raise
        raise UserError(f"{error.filename or path} cannot be written: {error.strerror or error}; "
                        "files saved earlier are intact") from None


class RunFolder:
    """The folder of one run, open for writing.

    results: of a finished run, else None; state: the checkpoint of an unfinished one, else None; network_metrics: eval
    key (experiment, iteration, model, network) -> metrics of a tested network; digest: of the data, after check_data.
    """

    def __init__(self, folder: Path, args: Flags):
        self.folder, self.started = folder, time.monotonic()
        if args.restart:
            self._move_aside()
        if (folder / FLAGS).exists():
            self._check_same_run(args)
        self.results = read_json(folder / RESULTS) if (folder / RESULTS).exists() else None
        self.state = checkpoint.load(folder, self.log) if self.results is None else None
        self.network_metrics = {eval_key(line): restore_nan(line["metrics"]) for line in self._read_lines(NETWORKS)}
        self.evaluations = {eval_key(line) for line in self._read_lines(EVALUATIONS)}
        self.seconds_before = self.state["seconds"] if self.state else 0.0

    def _check_same_run(self, args: Flags) -> None:
        """Refuse to continue a run of other flags; a flag that an older version did not know has its default there."""
        earlier = upgrade_flags(read_json(self.folder / FLAGS))["flags"]
        ignored = RUNTIME_FLAGS | {"non_default", "entry"}
        ignored -= {"data_path"} if args.dataset == "Folder" else set()         # there it names the data
        non_default = getattr(args, "non_default", ())
        for name, value in args.as_dict().items():
            is_same = earlier[name] == value if name in earlier else name not in non_default
            if name not in ignored and not is_same:
                raise UserError(f"{self.folder} holds a run with {name} = {earlier.get(name)}, but {name} = {value} is "
                                "requested; use another --save_path, or --restart to move that run aside")

    def _move_aside(self) -> None:
        """Move all that came from the earlier run to earlier-1, earlier-2, ...; other runs inside the folder stay."""
        files = [path for path in self.folder.iterdir() if path.name not in (LOCK, OWNER)
                 and (path.is_file() or MADE_FROM_RUN.fullmatch(path.name))]
        number = 1
        while (aside := self.folder / f"earlier-{number}").exists():
            number += 1
        if files:
            aside.mkdir()
        for path in files:
            path.rename(aside / path.name)

    def _read_lines(self, name: str) -> list[dict]:
        """Return the lines of a JSONL file; an incomplete last line is removed from the file too."""
        path = self.folder / name
        content = path.read_bytes() if path.exists() else b""
        complete = content[: content.rfind(b"\n") + 1]
        if complete != content:
            self._write(name, complete)
        return [json.loads(line) for line in complete.splitlines()]

    def log(self, text: str, show: bool = True) -> None:
        """Write text to the log and, with show, to the terminal, above any progress bar."""
        if show:
            tqdm.write(text)
        with report_write_errors(self.folder / LOG), open(self.folder / LOG, "a") as file:
            file.writelines(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n" for line in text.splitlines())

    def seconds(self) -> float:
        """Return how long the run has worked, summed over its processes."""
        return self.seconds_before + time.monotonic() - self.started

    def save_state(self, **state) -> None:
        """Write a checkpoint, from which the same command resumes."""
        with report_write_errors(self.folder):
            checkpoint.save(self.folder, {**state, "seconds": self.seconds()})

    def finish(self, results: dict) -> None:
        """Write the last files of a run and remove its checkpoint."""
        self.write_json(TIME, {"minutes": self.seconds() / 60})
        self.write_json(RESULTS, results)
        self.results = to_jsonable(results)
        checkpoint.remove(self.folder)

    def write_json(self, name: str, content: dict) -> None:
        """Write a JSON file. NaN, which JSON lacks, becomes null."""
        self._write(name, (json.dumps(to_jsonable(content), indent=1) + "\n").encode())

    def check_data(self, data: Dataset, **others: str) -> None:
        """Raise UserError if the run began with other data. others: digests of further files, by what they are."""
        self.digest, path = data.digest() | others, existing_file(self.folder, DATASET)
        earlier = read_json(path).get("digest", self.digest) if path.exists() else self.digest
        changed = [name.replace("train ", "training ") for name in self.digest | earlier
                   if self.digest.get(name) != earlier.get(name)]
        if changed:
            raise UserError(f"{self.folder}: since this run began, these have changed: {', '.join(changed)}; restore "
                            "the data, use another --save_path, or --restart to move that run aside")

    def begin(self, args: Flags, data: Dataset) -> None:
        """Record the flags, versions, data summary and drawn split. From now on the folder holds this run."""
        record = {"flags": args.as_dict(), "versions": versions(args.device)}
        for name in ("non_default", "entry"):
            if name in record["flags"]:
                record[name] = record["flags"].pop(name)
        if not (self.folder / FLAGS).exists():
            self.write_json(FLAGS, record)
        self._append(PROCESSES, {"started": time.strftime("%Y-%m-%d %H:%M:%S"), **record["versions"]})
        self.write_json(DATASET, data.summary() | {"digest": self.digest})
        if data.split:
            lines = StringIO()
            csv.writer(lines, lineterminator="\n").writerows([("path", "part"), *data.split])
            self._write(SPLIT, lines.getvalue().encode())

    def add_network(self, key: tuple, metrics: dict) -> None:
        """Record the metrics of one network. key: (experiment, iteration, model, network)"""
        self.network_metrics[key] = metrics
        self._append(NETWORKS, dict(zip(EVAL_KEY, key, strict=True)) | {"metrics": metrics})

    def add_evaluation(self, key: tuple, metrics: list[dict]) -> None:
        """Record one line per evaluation, once even if a resumed run repeats it. key: (experiment, iteration, model)"""
        if key not in self.evaluations:
            self.evaluations.add(key)
            self._append(EVALUATIONS, dict(zip(EVAL_KEY, key, strict=False)) | {"networks": metrics})

    def save_synthetic(self, content: dict) -> None:
        """Write the synthetic sets in the DC/DM `.pt` format, readable with torch.load(weights_only=True)."""
        buffer = BytesIO()
        torch.save(content, buffer)
        self._write(SYNTHETIC, buffer.getvalue())

    def save_picture(self, name: str, images: Tensor, ipc: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
        """Write a grid of images (M, C, H, W), one row per class, small ones enlarged; return the grid."""
        from torchvision.utils import make_grid, save_image  # imported here because it takes seconds

        buffer = BytesIO()
        images = denormalize(images, mean, std)
        zoom = max(1, MIN_PICTURE_SIDE // images.shape[-1])
        grid = make_grid(images.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3), nrow=ipc)
        save_image(grid, buffer, format="png")
        self._write(name, buffer.getvalue())
        return grid

    def _append(self, name: str, content: dict) -> None:
        with report_write_errors(self.folder / name), open(self.folder / name, "a") as file:
            file.write(json.dumps(to_jsonable(content)) + "\n")

    def _write(self, name: str, content: bytes) -> None:
        aside = self.folder / f".{name}.part"
        with report_write_errors(self.folder / name):
            checkpoint.write_flushed(aside, content)
            os.replace(aside, self.folder / name)


class ReadOnlyRun:
    """What other ranks than 0 have of a run: its state as rank 0 read it. What they would write is dropped."""

    def __init__(self, folder: Path, results: dict | None, state: dict | None, network_metrics: dict):
        self.folder, self.results, self.state, self.network_metrics = folder, results, state, network_metrics

    def finish(self, results: dict) -> None:
        """Know the results, as a RunFolder does."""
        self.results = to_jsonable(results)

    def __getattr__(self, name: str):
        if not callable(getattr(RunFolder, name, None)):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


def picture_name(experiment: int, iteration: int) -> str:
    return f"experiment{experiment}_iteration{iteration:05d}.png"


def eval_key(line: dict) -> tuple:
    """Return the evaluation that a line of a JSONL file is about, or the network of it."""
    return tuple(line[name] for name in EVAL_KEY if name in line)


def to_jsonable(value):
    """Return the same value with None instead of NaN."""
    if isinstance(value, dict):
        return {key: to_jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_jsonable(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def restore_nan(metrics: dict) -> dict:
    """Return the metrics of a network as they were before to_jsonable."""
    table = [[math.nan if value is None else value for value in row] for row in metrics["table"]]
    return {name: math.nan if value is None else value for name, value in metrics.items()} | {"table": table}


def read_json(path: str | Path) -> dict:
    return json.loads(Path(path).read_text())


def versions(device: str) -> dict[str, str]:
    """Return the versions and the hardware that a process runs on."""
    hardware = f"CPU, {torch.get_num_threads()} threads" if device == "cpu" else device
    if device.startswith("cuda"):
        hardware = torch.cuda.get_device_name(device)
    packages = {"torch": torch.__version__} | {name: version(name) for name in ("torchvision", "numpy", "pillow")}
    return {"python": platform.python_version(), **packages, "hardware": hardware, "machine": platform.platform()}
