"""Load the files that hold synthetic sets: of a run, an export (folder, npz), or a .pt file of other codebases.

Files are not trusted: only tensors and plain values are read.
"""

import codecs
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from fairdd.core.errors import UserError
from fairdd.datasets.base import normalize
from fairdd.run.folder import SYNTHETIC, read_json

EXPORT_LABELS, EXPORT_INFO = "labels.csv", "info.json"      # of an exported folder


def load_source(source: Path, labels_path: str | Path | None = None) -> tuple[Path, Any]:
    """Return the path that was read, and its content in the form of a .pt file, whatever the format.

    source: the folder of a run, an exported folder, or a .npz or .pt file; labels_path: a .pt file with the labels of
    source, if it holds the images alone. Raises UserError for a file that cannot be read.
    """
    if labels_path is not None:
        return source, [load_pt(source), load_pt(Path(labels_path))]
    if not is_export(source) and source.suffix != ".npz":
        path = source / SYNTHETIC if source.is_dir() else source
        return path, load_pt(path)
    try:
        return source, _load_npz(source) if source.suffix == ".npz" else _load_folder(source)
    except Exception as error:      # a damaged file can fail in any part of the readers
        raise UserError(f"{source} is not a complete export of `python -m fairdd.export` "
                        f"({type(error).__name__}: {error})") from None


def is_export(source: str | Path) -> bool:
    """Return whether source is a folder of images written by `python -m fairdd.export`."""
    return (Path(source) / EXPORT_INFO).exists()


def load_pt(path: Path) -> Any:
    """Return the content of a .pt file on the CPU, without executing anything in it. Raises UserError if unreadable."""
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected the folder of a run that was evaluated, or a .pt file")
    registered = list(torch.serialization.get_safe_globals())       # the context manager for this needs torch 2.5
    torch.serialization.add_safe_globals(NUMPY_SCALARS)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:      # a damaged archive can fail in any part of the reader
        raise UserError(f"{path} cannot be read as a .pt file of tensors, numbers, lists and dicts "
                        f"({_reader_reason(error)}); nothing else is read, and no code in a file is executed") from None
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(registered)


def _numpy_scalar(module: str) -> Callable:
    """Return the function that unpickles a NumPy number; `module`.scalar is its name in pickles."""
    def scalar(dtype: np.dtype, data: bytes) -> np.generic:
        return np.frombuffer(data, dtype)[0]

    scalar.__module__, scalar.__qualname__ = module, "scalar"
    return scalar


# The DC, DM and FairDD code save accuracies as numpy.float64, under one name with numpy < 2, under another since.
NUMPY_SCALARS = [_numpy_scalar("numpy.core.multiarray"), _numpy_scalar("numpy._core.multiarray"), np.dtype,
                 codecs.encode, *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}]


def _reader_reason(error: Exception) -> str:
    """Return the one sentence of torch.load's message that says what it refused, without its advice."""
    lines = str(error).rpartition("WeightsUnpickler error:")[2].splitlines()
    specific = [line.strip() for line in lines if line.strip() and "weights_only" not in line]
    reason = (specific or [str(error)])[0].partition(". ")[0].rstrip(".")
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__


def _load_folder(folder: Path) -> dict:
    """Return an exported folder of pictures in the form of a run's synthetic.pt, images normalized."""
    info, table = read_json(folder / EXPORT_INFO), pd.read_csv(folder / EXPORT_LABELS)
    pixels = torch.stack([torch.from_numpy(np.array(Image.open(folder / path))) for path in table["path"]])
    images = pixels.view(*pixels.shape[:3], -1).permute(0, 3, 1, 2)
    data = [normalize(images, info["mean"], info["std"]), torch.tensor(table["label"].to_numpy())]
    return {"data": [data], "factor": 1} | {name: info[name] for name in ("mean", "std", "class_names")}


def _load_npz(path: Path) -> dict:
    """Return an exported .npz file in the form of a run's synthetic.pt, images normalized."""
    with np.load(path, allow_pickle=False) as arrays:
        mean, std, images = arrays["mean"], arrays["std"], arrays["images"]
        data = [torch.from_numpy((images - mean) / std).permute(0, 3, 1, 2), torch.from_numpy(arrays["labels"])]
        return {"data": [data], "factor": 1, "mean": mean, "std": std, "class_names": arrays["class_names"].tolist()}
