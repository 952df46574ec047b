"""Gradient matching (DC, Zhao et al. 2021; DSA, Zhao & Bilen 2021), with or without FairDD.

    python main_DC.py --dataset UTKface --ipc 10 --FairDD
"""

import torch

from fairdd.matching.augment import augment, draw
from fairdd.run.loop import distill
from fairdd.core.errors import report_user_errors
from fairdd.flags import parse
from fairdd.matching.gradient import ALIGNMENTS, frozen_batchnorm, gradient_losses
from fairdd.core.rng import torch_generator
from fairdd.evaluation.training import TrainConfig, train_epochs
from networks import EVAL_POOLS, find_network, get_eval_pool, get_network


def update(task, syn, *key):
    """One iteration: a new network; outer loops move the images, inner loops train the network on them. -> mean loss"""
    args = task.args
    net = task.network(args.model, *key).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=args.lr_net)
    recipe = TrainConfig(args.inner_loop, args.lr_net, args.batch_train, args.dsa_strategy)
    total = 0
    for outer in range(args.outer_loop):
        total = total + match(task, syn, net, *key, outer)
        if outer < args.outer_loop - 1:                 # after the last one the network is thrown away
            train_epochs(net, syn.as_dataset(), recipe, optimizer, torch_generator(*key, outer, "inner"))
    return total / (args.outer_loop * task.real.num_classes)


def match(task, syn, net, *key):
    """One outer loop: pull the gradients of every class's synthetic images to the class's targets. -> the loss"""
    draws = draw(task.args.dsa_strategy, task.real.num_classes, torch_generator(*key, "augment"))
    real = task.real_batch(draws, *key)
    targets = ALIGNMENTS[task.args.align](real.labels, real.groups)
    classes = range(task.real.num_classes)
    syn_images = [augment(syn.of_class(label), draws, syn.labels[syn.labels == label]) for label in classes]
    with frozen_batchnorm(net, real):
        return syn.step(gradient_losses(net, real, syn_images, targets, task.args.dis_metric))


@report_user_errors
def main(argv=None):
    args = parse(["DC", "DSA"], find_network, ["S", "SS", *EVAL_POOLS], argv)
    distill(args, update, get_network, get_eval_pool(args.eval_mode, args.model))


if __name__ == "__main__":
    main()
