"""Every random draw belongs to a key, such as (seed, "exp", 0, "iteration", 7, "batch"); never to the clock.

So a draw depends on nothing that was drawn before it: evaluating in the middle of a run changes nothing.
"""

import hashlib
from contextlib import contextmanager

import numpy as np
import torch


def key_to_seed(*key):
    """A 63-bit seed from any tuple of numbers and strings: near keys give unrelated seeds."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1


def numpy_generator(*key):
    """A NumPy generator of its own for this key."""
    return np.random.default_rng(key_to_seed(*key))


def torch_generator(*key):
    """A torch generator of its own for this key. It lives on the CPU, so every device gets the same draws."""
    return torch.Generator().manual_seed(key_to_seed(*key))


@contextmanager
def seeded(*key):
    """Inside, torch's global CPU generator belongs to this key (for initialising networks); outside it is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key_to_seed(*key))
        yield
