"""Gradient matching (DC, Zhao et al. 2021; DSA, Zhao & Bilen 2021; IDC, Kim et al. 2022; DREAM, Liu et al. 2023).

    python main_DC.py --dataset UTKface --ipc 10 --FairDD
    python main_DC.py --method IDC --dataset CIFAR10_S --factor 2 --FairDD
"""

import math
from dataclasses import replace

import numpy as np
import torch

from fairdd.core import distributed
from fairdd.core.device import upload
from fairdd.core.errors import UserError, report_user_errors
from fairdd.core.rng import numpy_generator, torch_generator
from fairdd.evaluation.training import TrainConfig, sgd, train_batch, train_epochs
from fairdd.flags import DSA as ALL_OPERATIONS
from fairdd.flags import int_at_least, parse_flags, share
from fairdd.matching.augment import augment, draw, draw_composed
from fairdd.matching.gradient import CONVOLUTION_DISTANCES, GRADIENT_DISTANCES, frozen_batchnorm, gradient_loss
from fairdd.matching.synset import MOMENTUM
from fairdd.method import Method
from fairdd.run.context import RealBatch
from fairdd.run.loop import distill
from networks import EVAL_POOLS, get_eval_pool, get_network, network_factory

LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10), 51: (100, 10)}   # by ipc


def update(context, syn, *key):
    """Make one iteration of DC: a new network; outer loops update the images, inner loops train the network on them.

    Return the mean loss of an outer loop and class.
    """
    args = context.args
    net = context.init_network(args.model, *key).train()
    optimizer = sgd(net, args.lr_net, momentum=0, weight_decay=0)
    config = TrainConfig(args.inner_loop, args.lr_net, args.batch_train, args.dsa_strategy)
    total = 0
    for outer in range(args.outer_loop):
        draws = draw(args.dsa_strategy, context.real.num_classes, torch_generator(*key, outer, "augment"))
        total = total + match(context, syn, net, context.real_batch(draws, *key, outer))
        if outer < args.outer_loop - 1:                 # after the last one the network is discarded
            train_epochs(net, syn.as_dataset(), config, optimizer, torch_generator(*key, outer, "inner"))
            distributed.synchronize(net)
    return total / (args.outer_loop * context.real.num_classes)


def match(context, syn, net, real, rows=None):
    """Match the gradient of every class's synthetic images to its targets, update the pixels, return the loss.

    rows: (B,) of the expanded synthetic images to use, class by class (default: all).
    """
    args = context.args
    targets = context.targets(real)
    syn_images, labels = syn.expanded(), syn.labels
    if rows is not None:
        syn_images, labels = syn_images[upload(syn_images.device, rows)[0]], labels[rows]
    syn_images = augment(syn_images, real.draws, labels)
    classes = syn_images.split(torch.bincount(labels).tolist())
    distance = context.method.distances[args.dis_metric]
    with frozen_batchnorm(net, real):
        losses, gradients = gradient_loss(net, real, classes, targets, distance)
    syn.step(classes, gradients)
    return losses.sum()


def update_idc(context, syn, *key):
    """Make one iteration of IDC or DREAM: a new network, trained on real images between the steps of the pixels.

    Return the mean loss of a pixel step and class.
    """
    args, num_classes = context.args, context.real.num_classes
    net = context.init_network(args.model, *key).train()
    optimizer, total, rows = sgd(net, args.lr_net), 0, None
    syn.clamp()
    for step in range(args.pixel_steps):
        draws = draw_composed(args.dsa_strategy, num_classes, torch_generator(*key, step, "augment"))
        rows = real_rows(context, net, rows, *key, step)
        real = RealBatch(context.real, rows, draws)
        total = total + match(context, syn, net, real, subset_of_classes(syn, args.batch_syn_max, *key, step))
        train_network(context, syn, net, optimizer, *key, step)
        distributed.synchronize(net)
    return total / (args.pixel_steps * num_classes)


def real_rows(context, net, rows, *key):
    """Return the real images of a step: for DREAM, representatives that are chosen anew every few steps. (B,)"""
    args, step = context.args, key[-1]
    if not args.cluster_every:
        return context.ahead(context.sampler.rows, *key)
    if step % args.cluster_every:
        return rows
    classes = range(context.real.num_classes)
    chosen = {label: context.representatives(*key, label=label, count=args.batch_real, net=net)
              for label in distributed.share_of(classes)}
    chosen = distributed.merge(chosen)
    return torch.cat([chosen[label] for label in classes])


def subset_of_classes(syn, limit, *key):
    """Return which expanded images a step uses: of every class at most limit, drawn from the key; None if all. (B,)"""
    sizes = torch.bincount(syn.labels).tolist()
    if max(sizes) <= limit:
        return None
    generator = numpy_generator(*key, "subset")
    return torch.cat([rows if len(rows) <= limit else rows[generator.permutation(len(rows))[:limit]]
                      for rows in torch.arange(len(syn)).split(sizes)])


def train_network(context, syn, net, optimizer, *key):
    """Train the network on n_data images: random real ones, real ones balanced over cells, or synthetic ones."""
    args, generator = context.args, torch_generator(*key, "network")
    data = syn.as_dataset() if args.train_net == "synthetic" else context.real
    weights = torch.ones(len(data.labels)).double()
    if args.train_net == "balanced":
        cells = (data.groups + 1) * data.num_classes + data.labels          # unknown groups, -1, are one more
        weights = 1 / torch.bincount(cells).double()[cells]
    config = TrainConfig(1, args.lr_net, args.batch_real, "color_crop", is_composed=True, cutmix=args.cutmix)
    for _ in range(math.ceil(args.n_data / args.batch_real)):
        rows = torch.multinomial(weights, args.batch_real, replacement=True, generator=generator)
        train_batch(net, data.batch(rows), data.labels[rows], config, optimizer, generator)


def get_loops(ipc):
    """Return DC's (outer, inner) loops for any ipc: the published table, interpolated linearly; (100, 10) above 50."""
    outer, inner = (np.interp(ipc, list(LOOPS), column) for column in zip(*LOOPS.values(), strict=True))
    return round(float(outer)), round(float(inner))


def pixel_optimizer(args, num_classes, side):
    """Return the learning rate and momentum that make all classes' steps of IDC one step.

    IDC updates one class after another, and the momentum of the others carries on meanwhile. C such updates equal one
    update with these values. The learning rate is scaled by ipc and the area of the images, as published.
    """
    lr = args.lr_img * args.ipc / 10 * (side / 32) ** 2
    return lr * (1 - MOMENTUM**num_classes) / (1 - MOMENTUM), MOMENTUM**num_classes


def add_flags(add):
    add("--outer_loop", type=int_at_least(1), help="DC, DSA: updates of the images per iteration; paper: 1, 10, 50 at "
        "ipc 1, 10, 50; default: by ipc")
    add("--inner_loop", type=int_at_least(1), help="DC, DSA: epochs of the network between them; paper: 1, 50, 10; "
        "default: by ipc")
    add("--pixel_steps", type=int_at_least(1), help="IDC, DREAM: steps of the pixels per iteration; paper: 100")
    add("--train_net", choices=["real", "balanced", "synthetic"],
        help="IDC, DREAM: what the network is trained on between these steps: random real images, real images balanced "
             "over (class, group), or synthetic ones; default: balanced, but real, as published, for --align vanilla")
    add("--n_data", type=int_at_least(0), help="IDC, DREAM: that many images after each step; paper: 2000 or 500")
    add("--cutmix", type=share, help="IDC, DREAM: probability that a batch of them is mixed; paper: 0.5")
    add("--batch_syn_max", type=int_at_least(1), help="IDC, DREAM: synthetic images of a class per step; paper: 128")
    add("--cluster_every", type=int_at_least(1), help="DREAM: steps between clusterings of the real images; paper: 10")


def check_dc(args):
    """DC and DSA have loops; DC has no augmentation; DSA is DC with siamese augmentation."""
    if args.method == "DC" and args.dsa_strategy not in (None, "none"):
        raise UserError("DC matches without augmentation; --method DSA is DC with --dsa_strategy")
    refuse(args, "pixel_steps", "train_net", "n_data", "cutmix", "batch_syn_max", "cluster_every")


def check_idc(args):
    """IDC has no loops of DC, and only DREAM has clusters; both match the weights of convolutions alone."""
    if args.model == "MLP":
        raise UserError(f"--method {args.method} matches convolutions, and --model MLP has none")
    refuse(args, "outer_loop", "inner_loop", *(["cluster_every"] if args.method == "IDC" else []))


def refuse(args, *names):
    """Raise UserError for a flag that the method does not have."""
    for name in names:
        if getattr(args, name) is not None:
            raise UserError(f"--{name} is not a flag of --method {args.method}")


def min_memory(step):
    """Bytes: all layers of one class's chunks, or of its synthetic images twice; batch norm needs a whole batch."""
    statistics = 2 * max(step.layer_bytes) * step.class_sizes.sum().item() if step.needs_whole_batch else 0
    chunks = min(step.workers * step.max_chunk, step.class_sizes.max().item())
    return max(statistics, sum(step.layer_bytes) * max(chunks, 2 * min(step.syn_per_class, step.max_graph)))


def idc_setting(args):
    """Return IDC's published settings of a data set: distance, learning rate, n_data, CutMix, iterations."""
    if args.dataset.startswith("CIFAR10"):
        return dict(dis_metric="mse", lr_img=5e-3, n_data=2000, cutmix=0.5, Iteration=2000)
    if args.dataset.startswith("Colored_FashionMNIST"):
        return dict(dis_metric="l1", lr_img=1e-4, n_data=500, cutmix=0.5, Iteration=2000)
    if args.dataset.startswith("Colored_MNIST"):
        return dict(dis_metric="l1", lr_img=1e-4, n_data=500, cutmix=0.0 if args.factor > 1 else 0.5, Iteration=2000)
    return dict(dis_metric="l1", lr_img=5e-3, n_data=500, cutmix=0.5, Iteration=500)        # the defaults of its parser


def of_setting(name):
    """Return a default that depends on the data set."""
    return lambda args: idc_setting(args)[name]


LOOPS_BY_IPC = dict(outer_loop=lambda args: get_loops(args.ipc)[0], inner_loop=lambda args: get_loops(args.ipc)[1])
CROP_NOISE = {"strategy": "crop_noise"}                 # DC augments for its batch-norm network alone
DC = Method(
    name="DC", update=update, distances=GRADIENT_DISTANCES, add_flags=add_flags, check_flags=check_dc,
    min_memory=min_memory, steps_per_iteration=lambda args: args.outer_loop,
    paper=dict(Iteration=1000, lr_img=0.1, dsa_strategy="none", epoch_eval_train=300, **LOOPS_BY_IPC,
               eval_overrides={"ConvNetBN": {**CROP_NOISE, "epochs": 1000}}),
    quick=dict(Iteration=6, lr_img=3.0, eval_overrides={"ConvNetBN": CROP_NOISE}),
)
DSA = replace(
    DC, name="DSA",
    paper=dict(Iteration=1000, lr_img=0.1, dsa_strategy=ALL_OPERATIONS, **LOOPS_BY_IPC),
    quick=dict(Iteration=6, lr_img=3.0),
)
IDC = replace(
    DC, name="IDC", update=update_idc, distances=CONVOLUTION_DISTANCES, check_flags=check_idc,
    steps_per_iteration=lambda args: args.pixel_steps, pixel_optimizer=pixel_optimizer, unit_range=True,
    paper=dict(
        **{name: of_setting(name) for name in ("dis_metric", "lr_img", "n_data", "cutmix", "Iteration")},
        batch_real=64, pixel_steps=100, batch_syn_max=128, dsa_strategy="color_crop_cutout",
        group_balance=lambda args: args.align != "vanilla",
        train_net=lambda args: "real" if args.align == "vanilla" else "balanced",
        eval_overrides={"*": {"strategy": ALL_OPERATIONS}},
    ),
    quick=dict(Iteration=6, pixel_steps=10, lr_img=0.1, n_data=256, batch_real=64),
)
DREAM = replace(
    IDC, name="DREAM",
    paper={**IDC.paper, "batch_real": 128, "cluster_every": 10, "init": "kmeans", "group_balance": False},
    quick=dict(Iteration=6, pixel_steps=10, lr_img=0.03, n_data=256, batch_real=64),
)


def parse(argv=None):
    """Return the method and the flags of a command line."""
    return parse_flags([DC, DSA, IDC, DREAM], network_factory, ["S", "SS", *EVAL_POOLS], argv)


@report_user_errors
def main(argv=None):
    method, args = parse(argv)
    distill(args, method, get_network, get_eval_pool(args.eval_mode, args.model))


if __name__ == "__main__":
    main()
