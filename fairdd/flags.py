"""The flags both entries share. The published scripts' names and meanings stay; what is left open is derived once.

A default of None means "from the tables below": the paper's setting of the method, or, for the embedded data set, a
setting that shows the effect in minutes on two CPU cores. `parse` prints nothing and gives read-only flags.
"""

import argparse
from importlib.util import find_spec

import numpy as np
import torch

from fairdd.datasets import DATASETS
from fairdd.core.errors import UserError
from fairdd.flag_types import model_name, real, strategy, whole
from fairdd.matching.gradient import ALIGNMENTS, DISTANCES, EMBEDDING_DISTANCES
from fairdd.core.parallel import PRECISIONS
from fairdd.matching.synset import INITS

DSA = "color_crop_cutout_flip_scale_rotate"
EMBEDDED = "Colored_Digits"
DM_LARGE_IPC = 100          # from here on DM's lr_img is 10

PAPER = {
    "DM": dict(Iteration=20000, lr_img=1.0, dsa_strategy=DSA, epoch_eval_train=1000),
    "DC": dict(Iteration=1000, lr_img=0.1, dsa_strategy="none", epoch_eval_train=300),
    "DSA": dict(Iteration=1000, lr_img=0.1, dsa_strategy=DSA, epoch_eval_train=1000),
}
PAPER_ALWAYS = dict(model="ConvNet", ipc=10, batch_real=256, num_eval=10, epoch_eval_augmented=1000)
SMALL = dict(model="ConvNetW32", batch_real=128, num_eval=5, epoch_eval_train=300, epoch_eval_augmented=300)
IN_MINUTES = {              # measured on two CPU cores; README.md says what else was tried
    "DM": dict(SMALL, lr_img=10.0, Iteration=300),
    "DC": dict(SMALL, lr_img=3.0, Iteration=6),
    "DSA": dict(SMALL, lr_img=3.0, Iteration=6),
}

LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10), 51: (100, 10)}


def get_loops(ipc):
    """DC's (outer, inner) loops for any ipc: the published table, linear between its entries, (100, 10) above 50."""
    known = list(LOOPS)
    outer, inner = (np.interp(ipc, known, column) for column in zip(*LOOPS.values(), strict=True))
    return round(float(outer)), round(float(inner))


class Flags(argparse.Namespace):
    """Parsed flags; read-only after freeze()."""

    def freeze(self):
        object.__setattr__(self, "_frozen", True)
        return self

    def __setattr__(self, name, value):
        assert not getattr(self, "_frozen", False), f"flags are read-only: {name}"
        object.__setattr__(self, name, value)

    def as_dict(self):
        return {name: value for name, value in vars(self).items() if name != "_frozen"}


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UserError(f"{message} (--help lists the flags)")


def parse(methods, find_network, eval_modes, argv=None):
    """Flags of an entry. methods: those it runs, its default first; find_network: refuses an unknown name. -> Flags"""
    args = make_parser(methods, find_network, eval_modes).parse_args(argv, namespace=Flags())
    return resolve(args).freeze()


def make_parser(methods, find_network, eval_modes):
    """The parser, in groups: what is distilled, how it is matched, how it is evaluated, the data, the run."""
    parser = Parser(
        description=f"Distill a synthetic set with {' or '.join(methods)}, with or without FairDD, and evaluate it.",
        epilog=f"'paper' marks what holds for every data set but {EMBEDDED}, which has a setting of minutes instead.",
        allow_abbrev=False,
    )
    add_what(parser.add_argument_group("what is distilled").add_argument, methods, find_network)
    add_matching(parser.add_argument_group("how it is matched").add_argument)
    add_evaluation(parser.add_argument_group("how it is evaluated").add_argument, eval_modes)
    add_data(parser.add_argument_group("the data").add_argument)
    add_run(parser.add_argument_group("the run").add_argument)
    return parser


def add_what(add, methods, find_network):
    add("--method", choices=methods, default=methods[0], help="default: %(default)s")
    add("--dataset", choices=list(DATASETS), default=EMBEDDED, metavar="NAME",
        help=f"one of {', '.join(DATASETS)}; default: %(default)s, which needs no files")
    add("--model", type=model_name(find_network), metavar="NAME",
        help="network to distill with: ConvNet, ConvNetD2W32, VGG11, ... (networks.py lists them); paper: ConvNet")
    add("--ipc", type=whole(1), help="synthetic images per class; paper: 10, 50, 100; default: 10")
    add("--factor", type=whole(1), default=1, metavar="F",
        help="store F x F small images in each synthetic image, cut out and enlarged before use; default: %(default)s")
    add("--init", choices=INITS, default="real",
        help="start from random real images, as many of every group, or noise; default: %(default)s")
    add("--Iteration", type=whole(0),
        help="steps; 0 evaluates the start itself; paper: 20000 for DM, 1000 for DC and DSA")
    add("--num_exp", type=whole(1), default=1, help="synthetic sets to distil; default: %(default)s")


def add_matching(add):
    add("--FairDD", action="store_true", help="match every group's center at once: the same as --align fairdd")
    add("--align", choices=list(ALIGNMENTS),
        help="targets of a class: the mean of its batch (vanilla, the default), the center of every group (fairdd), "
             "or the plain mean of these centers (barycenter)")
    add("--lr_img", type=real(0), help="learning rate of the pixels; paper: 0.1; for DM 1, and 10 from ipc 100 on")
    add("--batch_real", type=whole(1), help="real images per class and step; paper: 256")
    add("--group_balance", action="store_true",
        help="take as many of them from every group (all of a small one), no image again before all of its group were "
             "seen; default: random ones")
    add("--dsa_strategy", type=strategy, metavar="OPS",
        help=f"siamese augmentation, any of {DSA}, or none; paper: all of them for DM and DSA, none for DC")
    add("--dis_metric", choices=list(DISTANCES | EMBEDDING_DISTANCES), default="ours",
        help="distance: of gradients (DC, DSA) cosine by layers (ours), squared (mse) or one cosine (cos); "
             "of embeddings (DM) squared (ours) or absolute (l1, as COBRA); default: ours")
    add("--warmup_epochs", type=whole(0), default=0,
        help="DM: epochs that each new network is trained on the synthetic set first; COBRA: 10, at ipc 50 and 100 "
             "as many; default: %(default)s, as in DM and FairDD")


def add_evaluation(add, eval_modes):
    add("--eval_mode", choices=eval_modes, default="S",
        help="networks: the model without batch norm (S), the model as it is (SS), several architectures (M), "
             "batch norms (B), widths (W), depths (D), activations (A), poolings (P), normalizations (N); default: S")
    add("--eval_every", type=whole(0), default=0,
        help="iterations from one evaluation to the next; 0, the default: only the last")
    add_networks(add)


def add_networks(add):
    add("--num_eval", type=whole(1), help="fresh networks per evaluation and model; paper: 10")
    add("--epoch_eval_train", type=whole(1), help="epochs each is trained; paper: 300, with augmentation 1000")
    add("--lr_net", type=real(0), default=0.01, help="learning rate of networks; default: %(default)s")
    add("--batch_train", type=whole(1), default=256, help="images per batch of a network; default: %(default)s")


def add_data(add):
    add("--data_path", default="data",
        help="folder that holds the data sets' folders, or the images of Folder; default: ./%(default)s")
    add("--data_seed", type=whole(0), default=30, help="seed of splits and colors; default: %(default)s, as published")
    add("--labels", metavar="CSV",
        help="for Folder: a line per image, its path and attributes; default: labels.csv in --data_path, or, where "
             "there is none, folders class/group/")
    add("--target_attr", metavar="NAME",
        help="attribute that is the class: for CelebA a name or number of its 40 (Attractive), for UTKface age, gender "
             "or race (age), for Folder a column (class), of numbers with cuts: age:20,40; "
             "of several joined by commas every combination is one")
    add("--protected_attr", metavar="NAME", help="attribute that is the group: likewise (Male; race; group)")
    add("--skew", type=real(0, 1),
        help="share of a training class in its own color, for Colored_* and CIFAR10_S; default: 0.9")
    add("--im_size", type=whole(8), help="side of the images in pixels; default: 16, 32 or 64, by data set")
    add("--skip_bad_images", action="store_true", help="leave out and count images that cannot be read")


def add_run(add):
    add("--save_path", help="folder of the run, made with its parents; default: results/<what is run>")
    add("--save_every", type=whole(1), default=500,
        help="iterations between saved states (also every two minutes); default: %(default)s")
    add("--restart", action="store_true", help="move what --save_path holds aside and begin anew")
    add("--tensorboard", action="store_true",
        help="also write event files for TensorBoard (pip install tensorboard)")
    add_machine(add)


def add_machine(add):
    add("--seed", type=whole(0), default=0, help="of every draw that is not the data set's; default: %(default)s")
    add("--device", default="auto", help="cpu, cuda or cuda:N; default: cuda where there is one")
    add("--precision", choices=PRECISIONS, default="fp32",
        help="what networks calculate with; tf32 is for GPUs, bf16 slow on most CPUs; default: %(default)s")


def resolve(args):
    """Fill in what was left open and refuse contradictions. -> the same flags, complete"""
    defaults = PAPER_ALWAYS | PAPER[args.method] | (IN_MINUTES[args.method] if args.dataset == EMBEDDED else {})
    args.ipc = args.ipc or defaults["ipc"]
    if args.method == "DM" and args.ipc >= DM_LARGE_IPC:
        defaults["lr_img"] = 10.0
    refuse_contradictions(args)
    args.epoch_eval_augmented = args.epoch_eval_train       # an explicit number holds for every network
    for name, value in defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    args.align = "fairdd" if args.FairDD else args.align or "vanilla"
    args.FairDD = args.align == "fairdd"
    args.outer_loop, args.inner_loop = (None, None) if args.method == "DM" else get_loops(args.ipc)
    args.device = resolve_device(args.device)
    args.save_path = args.save_path or default_save_path(args)
    return args


def refuse_contradictions(args):
    """Flags that cannot both be meant."""
    if args.FairDD and args.align not in (None, "fairdd"):
        raise UserError(f"--FairDD means --align fairdd, but --align {args.align} was given too; drop one of them")
    if args.tensorboard and not find_spec("tensorboard"):
        raise UserError("--tensorboard needs a package that is not here: pip install tensorboard")
    if args.method == "DM" and args.dis_metric not in EMBEDDING_DISTANCES:
        raise UserError(f"--dis_metric {args.dis_metric} compares gradients; DM compares embeddings, use main_DC.py")
    if args.method != "DM" and args.dis_metric not in DISTANCES:
        raise UserError(f"--dis_metric {args.dis_metric} compares embeddings; {args.method} compares gradients, "
                        "use main_DM.py")
    if args.method != "DM" and args.warmup_epochs:
        raise UserError(f"--warmup_epochs is of DM; {args.method} trains its networks in the inner loops anyway")
    if args.method == "DC" and args.dsa_strategy not in (None, "none"):
        raise UserError("DC is matched without augmentation; --method DSA is DC with --dsa_strategy")


def resolve_device(name):
    """A device that is there. -> "cpu" or "cuda..." """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name} cannot be used here: {str(error).splitlines()[0]}") from None
    return name


def default_save_path(args):
    """A readable folder for what is run."""
    what = [f"start-{args.init}"] if args.Iteration == 0 else [args.align] + [args.init] * (args.init != "real")
    what += [args.dis_metric] * (args.dis_metric != "ours") + ["group_balance"] * args.group_balance
    what += [f"warmup{args.warmup_epochs}"] * (args.warmup_epochs > 0)
    ipc = f"ipc{args.ipc}" + f"x{args.factor**2}" * (args.factor > 1)
    parts = [args.method, args.dataset, args.model, ipc, *what, f"seed{args.seed}"]
    return "results/" + "_".join(parts)
