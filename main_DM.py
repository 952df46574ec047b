"""Distribution matching (DM, Zhao & Bilen 2023) and feature alignment (CAFE, Wang et al. 2022).

    python main_DM.py --dataset CelebA --ipc 50 --FairDD
    python main_DM.py --method CAFE --FairDD
"""

import math
from dataclasses import replace

from fairdd.core import distributed
from fairdd.core.errors import UserError, report_user_errors
from fairdd.core.rng import torch_generator
from fairdd.evaluation.training import TrainConfig, predict, sgd, train_epochs
from fairdd.flags import DSA as ALL_OPERATIONS
from fairdd.flags import int_at_least, parse_flags
from fairdd.matching.augment import augment, draw
from fairdd.matching.embedding import EMBEDDING_DISTANCES, embedding_loss, squared_l2
from fairdd.matching.features import feature_loss
from fairdd.matching.sampling import RandomSampler
from fairdd.method import Method
from fairdd.run.loop import distill
from networks import EVAL_POOLS, get_eval_pool, get_network, network_factory

SETTLED, MOVED, WATCHED = 0.04, 0.03, 128       # CAFE: spans of accuracies; real images of each class they rest on


def update(context, syn, *key):
    """Make one step: match the mean embedding of every class's synthetic images to its targets. Return the loss.

    The network is new at every step; one augmentation is drawn per class, for its real and its synthetic images.
    """
    args, num_classes = context.args, context.real.num_classes
    net = context.compiled(warm_up(context, syn, *key).requires_grad_(False))
    draws = draw(args.dsa_strategy, num_classes, torch_generator(*key, "augment"))
    real = context.real_batch(draws, *key)
    targets = context.targets(real)
    syn_images = augment(syn.expanded(), draws, syn.labels)
    losses, gradient = embedding_loss(net, real, syn_images, syn.labels, targets, METHOD.distances[args.dis_metric])
    syn.step(syn_images, gradient)
    return losses.sum()


def warm_up(context, syn, *key):
    """Return a new network, trained for --warmup_epochs on the augmented synthetic set (COBRA; 0 in DM and FairDD)."""
    args = context.args
    net = context.init_network(args.model, *key)
    optimizer = sgd(net, args.lr_net, momentum=0, weight_decay=0)
    config = TrainConfig(args.warmup_epochs, args.lr_net, args.batch_train, args.dsa_strategy)
    train_epochs(net, syn.as_dataset(), config, optimizer, torch_generator(*key, "warm-up"))
    return distributed.synchronize(net) if args.warmup_epochs else net


def update_cafe(context, syn, *key):
    """Make one iteration of CAFE: a new network; steps of the pixels, between which it learns the synthetic set.

    The pixels are updated until the network's accuracy on real images has settled, and the network is trained until its
    accuracy moves again (CAFE, section 3.4). Return the mean loss of a step and class.
    """
    args, num_classes = context.args, context.real.num_classes
    net = context.init_network(args.model, *key).train()
    optimizer = sgd(net, args.lr_net, momentum=0, weight_decay=0)
    config = TrainConfig(1, args.lr_net, args.batch_train, args.dsa_strategy)
    syn.optimizer.param_groups[0]["lr"] = learning_rate(args, key[-1])
    watch, losses = [], []
    for step in range(args.max_steps):
        losses.append(match_features(context, syn, net, *key, step))
        watch = [*watch, accuracy(context, net, *key, step)][-args.watch:]
        if step + 1 == args.max_steps or (len(watch) == args.watch and max(watch) - min(watch) < SETTLED):
            break
        inner = []
        for epoch in range(args.max_epochs):
            train_epochs(net, syn.as_dataset(), config, optimizer, torch_generator(*key, step, epoch, "inner"))
            distributed.synchronize(net)
            inner = [*inner, accuracy(context, net, *key, step, epoch)][-args.watch:]
            if len(inner) == args.watch and max(inner) - min(inner) > MOVED:
                break
    return sum(losses) / (len(losses) * num_classes)


def match_features(context, syn, net, *key):
    """Match the mean features of every class's synthetic images to its targets, update the pixels, return the loss."""
    args = context.args
    draws = draw(args.dsa_strategy, context.real.num_classes, torch_generator(*key, "augment"))
    real = context.real_batch(draws, *key)
    targets = context.targets(real)
    syn_images = augment(syn.expanded(), draws, syn.labels)
    losses, gradient = feature_loss(net, real, syn_images, syn.labels, targets, real.labels)
    syn.step(syn_images, gradient)
    return losses.sum()


def accuracy(context, net, *key):
    """Return the network's accuracy on WATCHED random real images of every class."""
    rows = RandomSampler(context.real, WATCHED).rows(*key, "watch")
    predictions = predict(net, context.real, rows)
    net.train()
    return distributed.from_rank_0((predictions == context.real.labels[rows]).double().mean().item())


def learning_rate(args, iteration):
    """Return the learning rate of the pixels: halved at 60, 80 and 90 % of the iterations."""
    return args.lr_img * 0.5 ** sum(iteration >= share * args.Iteration for share in (0.6, 0.8, 0.9))


def add_flags(add):
    add("--max_steps", type=int_at_least(1), help="CAFE: steps of the pixels per iteration, at most; default: 100")
    add("--max_epochs", type=int_at_least(1), help="CAFE: epochs of the network between them, at most; default: 100")
    add("--watch", type=int_at_least(2), help="CAFE: accuracies that are compared to end either; paper: 10")
    add("--warmup_epochs", type=int_at_least(0), default=0,
        help="epochs that each new network is first trained on the synthetic set; COBRA: 10, at ipc 50 and 100 "
             "as many; default: %(default)s, as in DM and FairDD")


def min_memory(step):
    """Bytes: two layers of the real images' chunks, which need no graph; all layers of the synthetic images' chunk."""
    batch, num_classes = step.class_sizes.sum().item(), len(step.class_sizes)
    classes = math.ceil(min(step.max_chunk, step.syn_per_class * num_classes) / step.syn_per_class)
    return max(2 * max(step.layer_bytes) * min(step.workers * step.max_chunk, batch),
               sum(step.layer_bytes) * min(classes * step.syn_per_class, step.max_graph))


def check_dm(args):
    """DM has no dynamic loops."""
    for name in ("max_steps", "max_epochs", "watch"):
        if getattr(args, name) is not None:
            raise UserError(f"--{name} is not a flag of --method {args.method}")


def check_cafe(args):
    """CAFE trains its networks anyway."""
    if args.warmup_epochs:
        raise UserError("--warmup_epochs is not a flag of --method CAFE")


METHOD = Method(
    name="DM", update=update, distances=EMBEDDING_DISTANCES, add_flags=add_flags, check_flags=check_dm,
    min_memory=min_memory,
    paper=dict(Iteration=20_000, lr_img=lambda args: 10.0 if args.ipc >= 100 else 1.0),
    quick=dict(Iteration=300, lr_img=10.0),             # docs/results.md says what else was tried
)
CAFE = replace(
    METHOD, name="CAFE", update=update_cafe, distances={"ours": squared_l2}, check_flags=check_cafe,
    steps_per_iteration=lambda args: args.max_steps,
    paper=dict(Iteration=2000, lr_img=0.1, init="noise", dsa_strategy="none", max_steps=100, max_epochs=100, watch=10,
               eval_overrides={"*": {"strategy": ALL_OPERATIONS}}),
    quick=dict(Iteration=6, lr_img=0.3, init="real", max_steps=10, max_epochs=5, watch=3),
)


def parse(argv=None):
    """Return the method and the flags of a command line."""
    return parse_flags([METHOD, CAFE], network_factory, ["S", "SS", *EVAL_POOLS], argv)


@report_user_errors
def main(argv=None):
    method, args = parse(argv)
    distill(args, method, get_network, get_eval_pool(args.eval_mode, args.model))


if __name__ == "__main__":
    main()
