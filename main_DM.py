"""Distribution matching (DM, Zhao & Bilen 2023), with or without FairDD.

    python main_DM.py --dataset CelebA --ipc 50 --FairDD
"""

from fairdd.augment import augment, draw
from fairdd.distill import distill
from fairdd.errors import exit_in_words
from fairdd.flags import parse
from fairdd.matching import ALIGNMENTS, embedding_loss
from fairdd.seeds import torch_generator
from networks import EVAL_POOLS, find_network, get_eval_pool, get_network


def update(task, syn, *key):
    """One step: pull the mean embedding of every class's synthetic images to the class's targets. -> the loss

    The network is new at every step; one augmentation is drawn per class, for its real and its synthetic images.
    """
    net = task.network(task.args.model, *key).requires_grad_(False)
    draws = draw(task.args.dsa_strategy, task.real.num_classes, torch_generator(*key, "augment"))
    real = task.real_batch(draws, *key)
    targets = ALIGNMENTS[task.args.align](real.labels, real.groups)
    loss = embedding_loss(net, real, augment(syn.images, draws, syn.labels), syn.labels, targets)
    return syn.step([loss])


@exit_in_words
def main(argv=None):
    args = parse(["DM"], find_network, ["S", "SS", *EVAL_POOLS], argv)
    distill(args, update, get_network, get_eval_pool(args.eval_mode, args.model))


if __name__ == "__main__":
    main()
