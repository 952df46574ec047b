"""Checkpoints. A checkpoint is written aside, flushed and renamed; the previous one is kept beside it.

Whenever a process dies, a complete checkpoint exists. Each begins with a digest of its content: a damaged one is
detected, and the previous one is used.
"""

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

import torch

NAMES = ("checkpoint.pt", "checkpoint-previous.pt")     # the newest first
DIGEST_BYTES = 32


def save(folder: Path, state: dict) -> None:
    """Make state (a nested dictionary or list of numbers, strings and tensors) the newest checkpoint of the folder."""
    newest, previous = (Path(folder) / name for name in NAMES)
    buffer = io.BytesIO()
    torch.save(to_cpu(state), buffer)
    aside = newest.with_name(f".{newest.name}.part")
    write_flushed(aside, hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue())
    if newest.exists():
        os.replace(newest, previous)
    os.replace(aside, newest)


def load(folder: Path, warn: Callable[[str], None]) -> dict | None:
    """Return the newest intact checkpoint of the folder, or None. warn is called for each file that cannot be used."""
    for path in (Path(folder) / name for name in NAMES):
        if not path.exists():
            continue
        content = path.read_bytes()
        digest, state = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(state).digest() == digest:
            return torch.load(io.BytesIO(state), weights_only=True)
        warn(f"warning: {path} is corrupt or not a FairDD checkpoint; trying the previous one")
    return None


def remove(folder: Path) -> None:
    """Delete the checkpoints: the run is finished."""
    for name in NAMES:
        (Path(folder) / name).unlink(missing_ok=True)


def to_cpu(value):
    """Return the same nested value with its tensors on the CPU."""
    if isinstance(value, dict):
        return {key: to_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_cpu(item) for item in value]
    return value.detach().cpu() if isinstance(value, torch.Tensor) else value


def write_flushed(path: Path, content: bytes) -> None:
    """Write bytes and return only when they are on the disk."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
