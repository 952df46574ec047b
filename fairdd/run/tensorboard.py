"""Event files for TensorBoard, beside what a run always leaves: losses, figures and pictures, with --tensorboard."""

from contextlib import contextmanager

import torch

from fairdd.run.folder import EVENTS

SHOWN = ("accuracy", "DEO_M", "DEO_A")


class Nothing:
    """Takes what a writer of event files takes, and keeps nothing."""

    def add_scalar(self, *_args):
        pass

    add_image = flush = add_scalar


@contextmanager
def recorder(args, folder, experiment, first):
    """Inside, what takes the losses, figures and pictures of an experiment; without --tensorboard it drops them.

    first: the iteration it goes on from; what an earlier process recorded from there on is marked as void, so that
    no curve doubles back.
    """
    if not args.tensorboard:
        yield Nothing()
        return
    from torch.utils.tensorboard import SummaryWriter  # here, because it is not a requirement

    with SummaryWriter(folder / EVENTS / f"experiment{experiment}", purge_step=first) as writer:
        yield writer


def add_scalars(events, model, iteration, figures):
    """The mean over networks of the figures that are watched. figures: one dict for each network"""
    for name in SHOWN:
        mean = torch.tensor([of_network[name] for of_network in figures]).mean().item()
        events.add_scalar(f"{name}/{model}", mean, iteration)
