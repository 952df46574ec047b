"""Settings of the suite: one thread per process, so that tests do not slow down other work, no GPU, seeded draws.

A machine with a GPU therefore runs the same tests. Processes that tests start inherit the first two settings.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"         # before torch is imported
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded_draws():
    """Give every test the same random numbers from torch's global generator."""
    torch.manual_seed(0)
