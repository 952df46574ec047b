"""The state of a run on disk. It is written aside, flushed and renamed; the one before it is kept beside it.

So whenever a process dies, a whole state is there. A state carries a digest of itself: a damaged one is noticed, and
the one before it is used.
"""

import hashlib
import io
import os
from pathlib import Path

import torch

NAMES = ("checkpoint.pt", "checkpoint-previous.pt")     # the newest first


def save(folder, state):
    """Make state (a dict of numbers, tensors and lists of them) the newest one of the folder."""
    newest, previous = (Path(folder) / name for name in NAMES)
    content = io.BytesIO()
    torch.save({"state": state, "digest": digest(state)}, content)
    aside = newest.with_name(f".{newest.name}.part")
    write_flushed(aside, content.getvalue())
    if newest.exists():
        os.replace(newest, previous)
    os.replace(aside, newest)


def load(folder, say):
    """The newest whole state of the folder, or None. say: told of each file that cannot be used."""
    for path in (Path(folder) / name for name in NAMES):
        try:
            saved = torch.load(io.BytesIO(path.read_bytes()), weights_only=True)
            if saved["digest"] == digest(saved["state"]):
                return saved["state"]
            reason = "its digest does not fit"
        except FileNotFoundError:
            continue
        except Exception as error:      # a damaged archive can fail in any part of the reader
            reason = str(error).partition("\n")[0]
        say(f"warning: {path} is damaged or not a state of this program ({reason}); trying an earlier one")
    return None


def remove(folder):
    """Forget the states: the run is finished."""
    for name in NAMES:
        (Path(folder) / name).unlink(missing_ok=True)


def digest(value):
    """sha256 of a nested value: of every number, string and tensor in it."""
    found = hashlib.sha256()
    _digest(value, found)
    return found.hexdigest()


def _digest(value, found):
    if isinstance(value, torch.Tensor):
        found.update(f"{value.dtype}{tuple(value.shape)}".encode())
        found.update(value.contiguous().numpy().tobytes())
    elif isinstance(value, dict):
        for key in sorted(value):
            _digest([key, value[key]], found)
    elif isinstance(value, list | tuple):
        found.update(f"{len(value)}[".encode())
        for item in value:
            _digest(item, found)
    else:
        found.update(repr(value).encode())


def write_flushed(path, content):
    """Write bytes so that they are on the disk, not only on their way, when this returns."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
