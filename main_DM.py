"""Distribution matching (DM, Zhao & Bilen 2023), with or without FairDD.

    python main_DM.py --dataset CelebA --ipc 50 --FairDD
"""

import torch

from fairdd.matching.augment import augment, draw
from fairdd.run.loop import distill
from fairdd.core.errors import report_user_errors
from fairdd.flags import parse
from fairdd.matching.gradient import ALIGNMENTS, embedding_loss
from fairdd.core.rng import torch_generator
from fairdd.evaluation.training import TrainConfig, train_epochs
from networks import EVAL_POOLS, find_network, get_eval_pool, get_network


def update(task, syn, *key):
    """One step: pull the mean embedding of every class's synthetic images to the class's targets. -> the loss

    The network is new at every step; one augmentation is drawn per class, for its real and its synthetic images.
    """
    net = warm_up(task, syn, *key).requires_grad_(False)
    draws = draw(task.args.dsa_strategy, task.real.num_classes, torch_generator(*key, "augment"))
    real = task.real_batch(draws, *key)
    targets = ALIGNMENTS[task.args.align](real.labels, real.groups)
    syn_images = augment(syn.expanded(), draws, syn.labels)
    return syn.step([embedding_loss(net, real, syn_images, syn.labels, targets, task.args.dis_metric)])


def warm_up(task, syn, *key):
    """A new network, trained for --warmup_epochs on the synthetic set as it is (COBRA; none in DM and FairDD)."""
    args = task.args
    net = task.network(args.model, *key)
    optimizer = torch.optim.SGD(net.parameters(), lr=args.lr_net)
    recipe = TrainConfig(args.warmup_epochs, args.lr_net, args.batch_train)
    train_epochs(net, syn.as_dataset(), recipe, optimizer, torch_generator(*key, "warm-up"))
    return net


@report_user_errors
def main(argv=None):
    args = parse(["DM"], find_network, ["S", "SS", *EVAL_POOLS], argv)
    distill(args, update, get_network, get_eval_pool(args.eval_mode, args.model))


if __name__ == "__main__":
    main()
