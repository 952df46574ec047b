"""Event files for TensorBoard, beside what a run always writes: losses, metrics and pictures, with --tensorboard."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from fairdd.core import distributed
from fairdd.flags import Flags
from fairdd.run.folder import EVENTS
from fairdd.run.formatting import MAIN_METRICS


class NullWriter:
    """Accepts the calls of TensorBoard's SummaryWriter and writes nothing."""

    def add_scalar(self, *_args):
        pass

    add_image = flush = add_scalar


@contextmanager
def open_writer(args: Flags, folder: Path, experiment: int, first: int) -> Iterator:
    """Yield the writer of an experiment's losses, metrics and pictures; without --tensorboard it writes nothing.

    first: the iteration from which the run resumes; events that an earlier process wrote from there on are discarded.
    """
    if not args.tensorboard or distributed.rank():
        yield NullWriter()
        return
    from torch.utils.tensorboard import SummaryWriter  # imported here because it is not a requirement

    with SummaryWriter(folder / EVENTS / f"experiment{experiment}", purge_step=first) as writer:
        yield writer


def add_metrics(writer, model: str, iteration: int, metrics: Sequence[dict]) -> None:
    """Write the mean over networks of the main metrics. metrics: one dictionary per network"""
    for name in MAIN_METRICS:
        mean = torch.tensor([network[name] for network in metrics]).mean().item()
        writer.add_scalar(f"{name}/{model}", mean, iteration)
