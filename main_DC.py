"""Gradient matching (DC, Zhao et al. 2021; DSA, Zhao & Bilen 2021), with or without FairDD.

    python main_DC.py --dataset UTKface --ipc 10 --FairDD
"""

from dataclasses import replace

import numpy as np
import torch

from fairdd.core.errors import UserError, report_user_errors
from fairdd.core.rng import torch_generator
from fairdd.evaluation.training import TrainConfig, train_epochs
from fairdd.flags import DSA as ALL_OPERATIONS
from fairdd.flags import int_at_least, parse_flags
from fairdd.matching.alignment import ALIGNMENTS
from fairdd.matching.augment import augment, draw
from fairdd.matching.gradient import GRADIENT_DISTANCES, frozen_batchnorm, gradient_loss
from fairdd.method import Method
from fairdd.run.loop import distill
from networks import EVAL_POOLS, get_eval_pool, get_network, network_factory

LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10), 51: (100, 10)}   # by ipc


def update(context, syn, *key):
    """Make one iteration: a new network; outer loops update the images, inner loops train the network on them.

    Return the mean loss of an outer loop and class.
    """
    args = context.args
    net = context.init_network(args.model, *key).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=args.lr_net)
    config = TrainConfig(args.inner_loop, args.lr_net, args.batch_train, args.dsa_strategy)
    total = 0
    for outer in range(args.outer_loop):
        total = total + match(context, syn, net, *key, outer)
        if outer < args.outer_loop - 1:                 # after the last one the network is discarded
            train_epochs(net, syn.as_dataset(), config, optimizer, torch_generator(*key, outer, "inner"))
    return total / (args.outer_loop * context.real.num_classes)


def match(context, syn, net, *key):
    """Make one outer loop: match the gradient of every class's synthetic images to its targets. Return the loss."""
    args = context.args
    draws = draw(args.dsa_strategy, context.real.num_classes, torch_generator(*key, "augment"))
    real = context.real_batch(draws, *key)
    targets = ALIGNMENTS[args.align](real.labels, real.groups)
    syn_images = [augment(syn.of_class(label), draws, syn.labels[syn.labels == label])
                  for label in range(context.real.num_classes)]
    distance = context.method.distances[args.dis_metric]
    with frozen_batchnorm(net, real):
        losses, gradients = gradient_loss(net, real, syn_images, targets, distance)
    syn.step(syn_images, gradients)
    return losses.sum()


def get_loops(ipc):
    """Return DC's (outer, inner) loops for any ipc: the published table, interpolated linearly; (100, 10) above 50."""
    outer, inner = (np.interp(ipc, list(LOOPS), column) for column in zip(*LOOPS.values(), strict=True))
    return round(float(outer)), round(float(inner))


def add_flags(add):
    add("--outer_loop", type=int_at_least(1), help="updates of the images per iteration; paper: 1, 10, 50 at ipc 1, "
        "10, 50; default: by ipc")
    add("--inner_loop", type=int_at_least(1), help="epochs of the network between them; paper: 1, 50, 10; default: "
        "by ipc")


def refuse_augmentation(args):
    """DC has none; DSA is DC with siamese augmentation."""
    if args.dsa_strategy not in (None, "none"):
        raise UserError("DC matches without augmentation; --method DSA is DC with --dsa_strategy")


def min_memory(step):
    """Bytes: all layers of one class's chunks, or of its synthetic images twice; batch norm needs a whole batch."""
    statistics = 2 * max(step.layer_bytes) * step.class_sizes.sum().item() if step.needs_whole_batch else 0
    chunks = min(step.workers * step.max_chunk, step.class_sizes.max().item())
    return max(statistics, sum(step.layer_bytes) * max(chunks, 2 * step.syn_per_class))


LOOPS_BY_IPC = dict(outer_loop=lambda ipc: get_loops(ipc)[0], inner_loop=lambda ipc: get_loops(ipc)[1])
CROP_NOISE = {"strategy": "crop_noise"}                 # DC augments for its batch-norm network alone
DC = Method(
    name="DC", update=update, distances=GRADIENT_DISTANCES, add_flags=add_flags, check_flags=refuse_augmentation,
    min_memory=min_memory, steps_per_iteration=lambda args: args.outer_loop,
    paper=dict(Iteration=1000, lr_img=0.1, dsa_strategy="none", epoch_eval_train=300, **LOOPS_BY_IPC,
               eval_overrides={"ConvNetBN": {**CROP_NOISE, "epochs": 1000}}),
    quick=dict(Iteration=6, lr_img=3.0, eval_overrides={"ConvNetBN": CROP_NOISE}),
)
DSA = replace(
    DC, name="DSA", check_flags=lambda args: None,
    paper=dict(Iteration=1000, lr_img=0.1, dsa_strategy=ALL_OPERATIONS, **LOOPS_BY_IPC),
    quick=dict(Iteration=6, lr_img=3.0),
)


def parse(argv=None):
    """Return the method and the flags of a command line."""
    return parse_flags([DC, DSA], network_factory, ["S", "SS", *EVAL_POOLS], argv)


@report_user_errors
def main(argv=None):
    method, args = parse(argv)
    distill(args, method, get_network, get_eval_pool(args.eval_mode, args.model))


if __name__ == "__main__":
    main()
