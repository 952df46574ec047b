"""Keyed random draws: every draw belongs to a key such as (seed, "experiment", 0, 7, "real"), never to the clock.

A draw therefore depends on nothing that was drawn before it, and evaluating in the middle of a run changes nothing.
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

GLOBAL_GENERATOR = threading.RLock()        # held while torch's global generator is seeded


def key_to_seed(*key) -> int:
    """Return a 63-bit seed for any tuple of numbers and strings; similar keys give unrelated seeds."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1


def numpy_generator(*key) -> np.random.Generator:
    """Return a new NumPy generator for this key."""
    return np.random.default_rng(key_to_seed(*key))


def torch_generator(*key) -> torch.Generator:
    """Return a new torch generator for this key. It is a CPU generator, so every device sees the same draws."""
    return torch.Generator().manual_seed(key_to_seed(*key))


@contextmanager
def seeded(*key) -> Iterator[None]:
    """Seed torch's global CPU generator with the key inside the block (to initialize networks), then restore it.

    One thread at a time is in such a block.
    """
    with GLOBAL_GENERATOR, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key_to_seed(*key))
        yield
