"""Distribution matching (DM, Zhao & Bilen 2023), with or without FairDD.

    python main_DM.py --dataset CelebA --ipc 50 --FairDD
"""

import math

import torch

from fairdd.core.errors import report_user_errors
from fairdd.core.rng import torch_generator
from fairdd.evaluation.training import TrainConfig, train_epochs
from fairdd.flags import int_at_least, parse_flags
from fairdd.matching.alignment import ALIGNMENTS
from fairdd.matching.augment import augment, draw
from fairdd.matching.embedding import EMBEDDING_DISTANCES, embedding_loss
from fairdd.method import Method
from fairdd.run.loop import distill
from networks import EVAL_POOLS, find_network, get_eval_pool, get_network


def update(context, syn, *key):
    """Make one step: match the mean embedding of every class's synthetic images to its targets. Return the loss.

    The network is new at every step; one augmentation is drawn per class, for its real and its synthetic images.
    """
    args, num_classes = context.args, context.real.num_classes
    net = warm_up(context, syn, *key).requires_grad_(False)
    draws = draw(args.dsa_strategy, num_classes, torch_generator(*key, "augment"))
    real = context.real_batch(draws, *key)
    targets = ALIGNMENTS[args.align](real.labels, real.groups)
    syn_images = augment(syn.expanded(), draws, syn.labels)
    losses, gradient = embedding_loss(net, real, syn_images, syn.labels, targets, METHOD.distances[args.dis_metric])
    syn.step(syn_images, gradient)
    return losses.sum()


def warm_up(context, syn, *key):
    """Return a new network, trained for --warmup_epochs on the synthetic set (COBRA; 0 in DM and FairDD)."""
    args = context.args
    net = context.init_network(args.model, *key)
    optimizer = torch.optim.SGD(net.parameters(), lr=args.lr_net)
    config = TrainConfig(args.warmup_epochs, args.lr_net, args.batch_train)
    train_epochs(net, syn.as_dataset(), config, optimizer, torch_generator(*key, "warm-up"))
    return net


def add_flags(add):
    add("--warmup_epochs", type=int_at_least(0), default=0,
        help="epochs that each new network is first trained on the synthetic set; COBRA: 10, at ipc 50 and 100 "
             "as many; default: %(default)s, as in DM and FairDD")


def min_memory(step):
    """Bytes: two layers of the real images' chunks, which need no graph; all layers of the synthetic images' chunk."""
    batch, num_classes = step.class_sizes.sum().item(), len(step.class_sizes)
    classes = math.ceil(min(step.max_chunk, step.syn_per_class * num_classes) / step.syn_per_class)
    return max(2 * max(step.layer_bytes) * min(step.workers * step.max_chunk, batch),
               sum(step.layer_bytes) * classes * step.syn_per_class)


METHOD = Method(
    name="DM", update=update, distances=EMBEDDING_DISTANCES, add_flags=add_flags, min_memory=min_memory,
    paper=dict(Iteration=20_000, lr_img=lambda args: 10.0 if args.ipc >= 100 else 1.0),
    quick=dict(Iteration=300, lr_img=10.0),             # docs/results.md says what else was tried
)


@report_user_errors
def main(argv=None):
    method, args = parse_flags([METHOD], find_network, ["S", "SS", *EVAL_POOLS], argv)
    distill(args, method, get_network, get_eval_pool(args.eval_mode, args.model))


if __name__ == "__main__":
    main()
