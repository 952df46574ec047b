"""The flags that the entry scripts share. The published scripts' names and meanings stay; open values are derived once.

A default of None means "from the tables below": the paper's setting of the method, or, for the embedded data set, a
setting that shows the effect in minutes on two CPU cores. parse_flags prints nothing and returns read-only flags.
"""

import argparse
import hashlib
import inspect
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from fairdd.core import distributed
from fairdd.core.compiled import check_compiler
from fairdd.core.errors import UserError
from fairdd.core.parallel import PRECISIONS
from fairdd.datasets import DATASETS
from fairdd.datasets.colored import MINORITIES
from fairdd.datasets.splits import RARE_CELLS
from fairdd.matching.alignment import ALIGNMENTS
from fairdd.matching.augment import OPERATIONS
from fairdd.matching.synset import INITS
from fairdd.method import Method

DSA = "color_crop_cutout_flip_scale_rotate"
EXAMPLE = argparse.Namespace(dataset="CIFAR10_S", ipc=10, align="vanilla", factor=1)   # --help shows its defaults
EMBEDDED = "Colored_Digits"
PAPER = dict(model="ConvNet", ipc=10, batch_real=256, num_eval=10, dsa_strategy=DSA, epoch_eval_train=1000,
             dis_metric="ours", init="real", group_balance=False, eval_overrides={},
             cluster=lambda args: "class" if args.align == "vanilla" else "cell")
QUICK = dict(model="ConvNetW32", batch_real=128, num_eval=5, epoch_eval_train=300)      # of the embedded data set
RUNTIME_FLAGS = {"device", "device_data", "save_path", "data_path", "save_every", "restart", "source", "tensorboard",
                 "quiet"}
NEVER_REPEATED = {"FairDD", "save_path", "restart", "quiet", "eval_overrides"}         # in a command or a name
READABLE_FLAGS = {"method", "dataset", "model", "ipc", "factor", "init", "seed"}       # in every default folder's name
NEGATABLE_FLAGS = {"group_balance"}
USES_GROUPS = {"group_balance": True, "init": "balanced", "train_net": "balanced"}       # before a batch is drawn
OLD_SPELLINGS = {"barycentre": "barycenter"}


class Flags(argparse.Namespace):
    """Parsed flags; read-only after freeze()."""

    def freeze(self) -> "Flags":
        object.__setattr__(self, "_frozen", True)
        return self

    def __setattr__(self, name, value):
        assert not getattr(self, "_frozen", False), f"flags are read-only: {name}"
        object.__setattr__(self, name, value)

    def as_dict(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "_frozen"}


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UserError(f"{message} (--help lists the flags)")

    def parse_args(self, args=None, namespace=None):
        """Parse the flags; --unknown -1,unknown is understood although its value begins like a flag."""
        args = list(sys.argv[1:] if args is None else args)
        for index in [index for index, arg in enumerate(args[:-1]) if arg == "--unknown"][::-1]:
            args[index : index + 2] = [f"--unknown={args[index + 1]}"]
        return super().parse_args(args, namespace)


def parse_flags(methods: Sequence[Method], network_factory: Callable, eval_modes: Sequence[str],
                argv: Sequence[str] | None = None) -> tuple[Method, Flags]:
    """Return the method and the flags of an entry script.

    methods: those it runs, its default first; network_factory: raises ValueError for an unknown name.
    Raises UserError.
    """
    parser = make_parser(methods, network_factory, eval_modes)
    args = parser.parse_args(argv, namespace=Flags())
    method = next(method for method in methods if method.name == args.method)
    resolve(args, method)
    always = {name: getattr(args, name) for name in ("method", "dataset", "ipc")}
    defaults = resolve(parser.parse_args(to_argv(always | {"align": args.align}), namespace=Flags()), method)
    defaults.align = "vanilla"
    is_epoch_given = args.eval_overrides != defaults.eval_overrides     # maybe as the default, yet for every network
    args.non_default = [name for name, value in args.as_dict().items() if name not in NEVER_REPEATED
                        and (name in always or value != getattr(defaults, name)
                             or (name == "epoch_eval_train" and is_epoch_given))]
    args.save_path = args.save_path or default_save_path(args)
    args.entry = Path(inspect.getfile(method.update)).name
    return method, args.freeze()


def to_argv(flags: dict) -> list[str]:
    """Return flags as they are typed; None is left out, and False unless it can be typed."""
    argv = []
    for name, value in flags.items():
        if value is False and name in NEGATABLE_FLAGS:
            argv.append(f"--no-{name}")
        elif value is not None and value is not False:
            values = [] if value is True else value if isinstance(value, list) else [value]
            argv += [f"--{name}", *map(str, values)]
    return argv


def make_parser(methods: Sequence[Method], network_factory: Callable, eval_modes: Sequence[str]) -> Parser:
    """Return the parser, with flags in groups: distillation, matching, evaluation, data, run."""
    parser = Parser(
        description=f"Distill a synthetic set with {' or '.join(method.name for method in methods)}, with or without "
                    "FairDD, and evaluate it.",
        epilog=f"'paper' marks the default for every data set but {EMBEDDED}, which has a setting of minutes instead.",
        allow_abbrev=False,
    )
    add_distillation_flags(parser.add_argument_group("distillation").add_argument, methods, network_factory)
    add_matching = parser.add_argument_group("matching").add_argument
    add_matching_flags(add_matching, methods)
    for add_flags in dict.fromkeys(method.add_flags for method in methods):
        add_flags(add_matching)
    add_group_flags(parser.add_argument_group("training groups").add_argument)
    add_evaluation_flags(parser.add_argument_group("evaluation").add_argument, eval_modes)
    add_data_flags(parser.add_argument_group("data").add_argument)
    add_run_flags(parser.add_argument_group("run").add_argument)
    return parser


def add_distillation_flags(add: Callable, methods: Sequence[Method], network_factory: Callable) -> None:
    add("--method", choices=[method.name for method in methods], default=methods[0].name, help="default: %(default)s")
    add("--dataset", choices=list(DATASETS), default=EMBEDDED, metavar="NAME",
        help=f"one of {', '.join(DATASETS)}; default: %(default)s, which needs no files")
    add("--model", type=model_name(network_factory), metavar="NAME",
        help="network to distill with: ConvNet, ConvNetD2W32, VGG11, ... (networks.py lists them); paper: ConvNet")
    add("--ipc", type=int_at_least(1), help="synthetic images per class; paper: 10, 50, 100; default: 10")
    add("--factor", type=int_at_least(1), default=1, metavar="F",
        help="store F x F small images in each synthetic image; they are cut out and enlarged before use; "
             "default: %(default)s")
    add("--init", choices=INITS,
        help="initialize from random real images, equally many of every group, noise, or cluster centers; "
             "default: real, for DREAM kmeans")
    add("--cluster", choices=["class", "cell"],
        help="k-means over the whole class, or inside each (class, group) with equally many clusters for every group; "
             "default: cell, but class for --align vanilla")
    add("--max_clustered", type=int_at_least(1), default=4096,
        help="images that k-means sees, of a larger class or cell a random subset; default: %(default)s")
    add("--Iteration", type=int_at_least(0),
        help="iterations; 0 evaluates the initial set; paper: "
             + ", ".join(f"{default_for(method.paper, 'Iteration')} for {method.name}" for method in methods))
    add("--num_exp", type=int_at_least(1), default=1, help="synthetic sets to distill; default: %(default)s")


def add_matching_flags(add: Callable, methods: Sequence[Method]) -> None:
    add("--FairDD", action="store_true", help="match every group's mean at once: the same as --align fairdd")
    add("--align", choices=list(ALIGNMENTS), type=lambda text: OLD_SPELLINGS.get(text, text),
        help="targets of a class: the mean of its batch (vanilla, the default), the mean of every group (fairdd), "
             "or the unweighted mean of the groups' means (barycenter)")
    add("--lr_img", type=positive_float, help="learning rate of the pixels; paper: "
        + ", ".join(f"{default_for(method.paper, 'lr_img')} for {method.name}" for method in methods))
    add("--batch_real", type=int_at_least(1), help="real images per class and step; paper: 256")
    add("--group_balance", action=argparse.BooleanOptionalAction,
        help="take equally many of them from every group (all of a small one), and none again before all of its group "
             "were seen; default: random ones, but for IDC and DREAM unless --align vanilla")
    add("--dsa_strategy", type=augmentation_strategy, metavar="OPS",
        help=f"siamese augmentation, any of {DSA}, or none; paper: "
             + ", ".join(f"{'none' if method.paper.get('dsa_strategy') == 'none' else 'all'} for {method.name}"
                         for method in methods))
    distances = dict.fromkeys(name for method in methods for name in method.distances)
    add("--dis_metric", metavar="NAME",
        help=f"distance of a target and its synthetic counterpart: {', '.join(distances)} (docs/method.md)")


def add_group_flags(add: Callable) -> None:
    add("--groups", type=group_source, default="labels", metavar="SOURCE",
        help="of the training images: labels, as the data set has them; kmeans:K, K clusters of every class; dbscan, "
             "clusters in each batch; or FILE.csv with the columns path (or index) and group; default: %(default)s")
    add("--groups_of", choices=["combinations", "each"], default="combinations",
        help="with several attributes in --protected_attr: match the groups of every combination of their values, or "
             "those of each attribute, side by side; default: %(default)s")
    add("--group_features", choices=["pixels", "random", "trained"],
        help="what clusters and nearest centers are found in: pixels, or embeddings of a random --model or of one that "
             "is trained briefly on the real images; default: pixels")
    add("--group_noise", type=noise_share, default=0.0, metavar="P",
        help="share of training images that get a random other group; default: 0")
    add("--known_groups", type=known_share, default=1.0, metavar="P",
        help="share of training images whose group is used; default: 1")
    add("--unknown_groups", choices=["assign", "omit"],
        help="training images whose group is not known, by --known_groups or --unknown: assign them to the nearest "
             "center of a group in their class, or omit them from the groups' targets; default: assign; without "
             "--known_groups, rows with --unknown values are left out")


def add_evaluation_flags(add: Callable, eval_modes: Sequence[str]) -> None:
    add("--eval_mode", choices=eval_modes, default="S",
        help="networks: the model without batch norm (S), the model as it is (SS), several architectures (M), "
             "batch norms (B), widths (W), depths (D), activations (A), poolings (P), normalizations (N); default: S")
    add("--eval_every", type=int_at_least(0), default=0,
        help="iterations between evaluations; 0, the default: only the last")
    add("--select", choices=["last", "val"], default="last",
        help="result: the last set, or of the sets evaluated every --eval_every iterations the best one on validation "
             "images, so that only this one is tested; default: %(default)s")
    add("--select_by", choices=["accuracy", "worst_cell", "DEO_A"],
        help="validation figure: accuracy, accuracy of the worst (class, group), or DEO_A; default: accuracy")
    add("--min_accuracy", type=percentage, metavar="PERCENT",
        help="validation accuracy that a set needs before DEO_A counts; default: 0")
    add("--val_share", type=held_out_share, metavar="P",
        help="share of the training images of every (class, group) that is held out, if the data set has no validation "
             "images; default: 0.1")
    add_network_flags(add)


def add_network_flags(add: Callable) -> None:
    add("--num_eval", type=int_at_least(1), help="fresh networks per evaluation and model; paper: 10")
    add("--epoch_eval_train", type=int_at_least(1),
        help="epochs each is trained; paper: 1000, or 300 without augmentation")
    add("--eval_recipe", choices=["dc", "idc"], default="dc",
        help="how networks are trained: as in DC and DM, or as in IDC (batches of 64, CutMix, learning rate / 5 at 2/3 "
             "and 5/6 of the epochs); default: %(default)s, the same for every method")
    add("--lr_net", type=positive_float, default=0.01, help="learning rate of networks; default: %(default)s")
    add("--batch_train", type=int_at_least(1), default=256, help="images per batch of a network; default: %(default)s")


def add_data_flags(add: Callable) -> None:
    add("--data_path", type=os.path.expanduser, default="data",
        help="folder that holds the data sets' folders, or the images of Folder; default: ./%(default)s")
    add("--data_seed", type=int_at_least(0), default=30,
        help="seed of splits and colors; default: %(default)s, as published")
    add("--labels", type=expand_paths, metavar="FILE",
        help="for Folder: CSV or parquet file with one row per image, or a file for each of train, val and test "
             "(train.csv,test.csv); default: labels.csv, folders class/group/, or parquet files in --data_path")
    add("--target_attr", metavar="NAME",
        help="attribute that is the class: for CelebA a name or number of its 40 (Attractive), for UTKface age, gender "
             "or race (age), for Folder a column (class); numbers can be cut into ranges: age:20,40; "
             "of several joined by commas every combination is one class")
    add("--protected_attr", metavar="NAME", help="attribute that is the group: likewise (Male; race; group)")
    add("--skew", type=share,
        help="share of a training class in its own color, for Colored_* and CIFAR10_S; default: 0.9; for Folder with "
             "--protected_attr color: share in gray, or in color; default: images as they are")
    add("--minorities", choices=MINORITIES, default="equal",
        help="for Colored_*: divide the rest of a training class among the other nine colors equally, or in the ratio "
             "1:2:...:9; default: %(default)s")
    add("--train_without", metavar="GROUPS",
        help="for Colored_* and CIFAR10_S: leave the training images of these groups out: red,blue; default: none")
    add("--test_without", metavar="GROUPS",
        help="likewise the test images; the classes and groups of the data set stay; default: none")
    add("--im_size", type=int_at_least(8), help="side of the images in pixels; default: 16, 32 or 64, by data set")
    add("--skip_bad_images", action="store_true", help="leave out and count images that are missing or unreadable")
    add("--rare_cells", choices=RARE_CELLS, default="omit",
        help="for a drawn test: leave (class, group) cells with too few images out of it, refuse them, or shrink the "
             "test of all others; default: %(default)s")
    add("--path_column", metavar="NAME",
        help="for Folder: column of image paths; default: found by name or content")
    add("--unknown", metavar="VALUES",
        help="for Folder: comma-separated values that leave a row out if its class or group has one: unknown,-1, (the "
             "last comma: empty cells too; race=4: in that column only); with --unknown_groups a row whose group alone "
             "is unknown trains")
    add("--split_by", metavar="NAME",
        help="for Folder: column (patient, person, lesion) whose images all stay on one side of a drawn split")
    add("--follow_links", action="store_true", help="for Folder: allow links that leave the folder")


def add_run_flags(add: Callable) -> None:
    add("--save_path", type=os.path.expanduser, metavar="DIR",
        help="folder of the run, created with its parents; default: results/<what is run>")
    add("--save_every", type=int_at_least(1), default=500,
        help="iterations between checkpoints (one is also written every two minutes); default: %(default)s")
    add("--restart", action="store_true", help="move what --save_path holds aside and start anew")
    add("--tensorboard", action="store_true",
        help="also write event files for TensorBoard (pip install tensorboard)")
    add("--quiet", action="store_true", help="print neither data nor settings; the log file has both")
    add_device_flags(add)


def add_device_flags(add: Callable) -> None:
    add("--seed", type=int_at_least(0), default=0, help="of every draw but the data set's; default: %(default)s")
    add("--device", default="auto", help="cpu, cuda, cuda:N or another of torch's; default: cuda if available")
    add("--device_data", choices=["auto", "yes", "no"], default="auto",
        help="copy all images to a GPU, or keep them on the host and copy each batch; default: auto, all of them if "
             "they take at most half of its free memory")
    add("--compile", action="store_true",
        help="compile evaluation networks, and for DM the embedding, with torch.compile; minutes at the start")
    add("--precision", choices=PRECISIONS, default="fp32",
        help="number format of network computations; tf32 is for GPUs, bf16 slow on most CPUs; default: %(default)s")


def resolve(args: Flags, method: Method) -> Flags:
    """Fill in what was left open and refuse contradictions. Return the same flags, complete."""
    method.check_flags(args)
    check_contradictions(args)
    defaults = PAPER | dict(method.paper) | (QUICK | dict(method.quick) if args.dataset == EMBEDDED else {})
    args.ipc = args.ipc or defaults["ipc"]
    args.align = "fairdd" if args.FairDD else args.align or "vanilla"
    args.FairDD = args.align == "fairdd"
    is_epoch_given = args.epoch_eval_train is not None     # then it holds for every network
    for name in defaults:
        if getattr(args, name, None) is None:
            setattr(args, name, default_for(defaults, name, args))
    resolve_groups(args)
    resolve_selection(args)
    args.eval_overrides = {name: {key: value for key, value in fields.items() if key != "epochs" or not is_epoch_given}
                           for name, fields in args.eval_overrides.items()}
    method.check_distance(args.dis_metric)
    args.device = resolve_device(args.device)
    return args


def resolve_selection(args: Flags) -> None:
    """Fill in the flags of selection and refuse contradictions. Raises UserError."""
    given = [f"--{name}" for name in ("select_by", "min_accuracy", "val_share") if getattr(args, name) is not None]
    if given and args.select != "val":
        raise UserError(f"{', '.join(given)} is for --select val")
    if args.select == "val" and not args.eval_every:
        raise UserError("--select val chooses among the evaluations of a run: give --eval_every")
    args.select_by = args.select_by or ("accuracy" if args.select == "val" else None)
    if args.min_accuracy is not None and args.select_by != "DEO_A":
        raise UserError("--min_accuracy is for --select_by DEO_A")
    if args.select == "val":
        args.val_share = 0.1 if args.val_share is None else args.val_share
    if args.select_by == "DEO_A":
        args.min_accuracy = args.min_accuracy or 0.0


def resolve_groups(args: Flags) -> None:
    """Fill in the flags of training groups and refuse contradictions. Raises UserError."""
    is_partial, kind = args.known_groups < 1, args.groups.partition(":")[0]
    is_clustered = kind in ("kmeans", "dbscan")
    if args.unknown_groups and not is_partial and args.unknown is None:
        raise UserError("--unknown_groups says what happens to groups that are not known; give --known_groups below 1, "
                        "or --unknown")
    if is_clustered and (is_partial or args.unknown_groups):
        raise UserError(f"--groups {args.groups} finds the group of every image, so --known_groups has no meaning, nor "
                        "has --unknown_groups")
    if kind == "dbscan" and args.group_noise:
        raise UserError("--groups dbscan finds other groups in every batch, so --group_noise has no meaning")
    args.unknown_groups = args.unknown_groups or ("assign" if is_partial else None)
    if args.groups_of == "each":
        check_attributes(args)
    is_used = is_clustered or args.unknown_groups == "assign"
    if args.group_features and not is_used:
        raise UserError("--group_features is for clusters and nearest centers: give --groups kmeans:K or dbscan, or "
                        "--unknown_groups assign")
    args.group_features = args.group_features or ("pixels" if is_used else None)
    if kind == "dbscan":
        check_batch_groups(args)


def check_attributes(args: Flags) -> None:
    """Raise UserError for --groups_of each where it would change nothing, or there are no attributes."""
    if "," not in (args.protected_attr or ""):
        raise UserError("--groups_of each needs several attributes, such as --protected_attr Male,Young")
    if args.groups != "labels":
        raise UserError(f"--groups_of each needs the attributes' labels, and --groups {args.groups} replaces them")
    if args.align == "vanilla":
        raise UserError("--groups_of each is for --FairDD or --align barycenter: vanilla matching knows no groups")


def check_batch_groups(args: Flags) -> None:
    """Raise UserError for flags that need groups before a batch is drawn."""
    flags = [f"--{name}" + f" {value}" * (value is not True) for name, value in USES_GROUPS.items()
             if getattr(args, name, None) == value]
    clusters = args.init == "kmeans" or getattr(args, "cluster_every", None)
    flags += ["--cluster cell"] * bool(clusters and args.cluster == "cell")
    if flags:
        raise UserError(f"--groups dbscan finds groups in a batch that is drawn already, and {', '.join(flags)} (given "
                        "or by default) needs them before; choose another value, or another --groups")


def default_for(defaults: Mapping, name: str, args: argparse.Namespace = EXAMPLE):
    """Return a default, which may be a function of the flags; by default of an example, for --help."""
    return defaults[name](args) if callable(defaults[name]) else defaults[name]


def check_contradictions(args: Flags) -> None:
    """Raise UserError for flags that cannot both be meant."""
    if args.FairDD and args.align not in (None, "fairdd"):
        raise UserError(f"--FairDD means --align fairdd, but --align {args.align} was given too; drop one of them")
    if args.compile:
        check_compiler(resolve_device(args.device))
    if args.tensorboard and not find_spec("tensorboard"):
        raise UserError("--tensorboard needs a package that is not installed: pip install tensorboard")


def resolve_device(name: str) -> str:
    """Return a device that can compute what a run needs, as torch calls it. Raises UserError."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and distributed.world_size() > 1:
        name = f"cuda:{distributed.local_rank()}"
    try:
        torch.zeros(1, dtype=torch.float64, device=name).item()     # not on mps, which has no 64-bit numbers, nor meta
    except (RuntimeError, AssertionError, TypeError, ImportError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise UserError(f"--device {name} cannot be used here: {reason}; cpu always can") from None
    return "cpu" if name.startswith("cpu") else name


def default_save_path(args: Flags) -> str:
    """Return a readable folder name for the run, with a short hash of the other flags that are not defaults."""
    ipc = f"ipc{args.ipc}" + f"x{args.factor**2}" * (args.factor > 1)
    what = [f"start-{args.init}"] if args.Iteration == 0 else [args.align] + [args.init] * (args.init != "real")
    components = [args.method, args.dataset, args.model, ipc, *what, f"seed{args.seed}"]
    shown = READABLE_FLAGS | {"Iteration" if args.Iteration == 0 else "align"}
    others = {name: getattr(args, name) for name in args.non_default
              if name not in RUNTIME_FLAGS | shown or (name, args.dataset) == ("data_path", "Folder")}
    return "results/" + "_".join(components + readable_and_hash(others))


def readable_and_hash(flags: Mapping) -> list[str]:
    """Return two components of a folder name that tell these flags from any others: a readable one and a hash."""
    if not flags:
        return []
    readable = "_".join(name if value is True else f"{name}{value}" for name, value in flags.items())
    digest = hashlib.sha256(repr(sorted(flags.items())).encode()).hexdigest()[:6]
    return [re.sub(r"[^A-Za-z0-9._-]+", "-", readable)[:60], digest]


def comparison_path(args: Flags) -> str:
    """Return the folder of a comparison of alignments: --save_path if it was given, else a name like a run's."""
    default = default_save_path(args)
    return args.save_path if args.save_path != default else default.replace(f"_{args.align}_", "_comparison_", 1)


def int_at_least(low: int) -> Callable[[str], int]:
    """Return an argparse type: an integer, at least low."""
    return lambda text: parse_number(int, text, f"an integer of at least {low}", lambda value: value >= low)


def positive_float(text: str) -> float:
    """Argparse type: a finite number above 0."""
    return parse_number(float, text, "a finite number above 0", lambda value: 0 < value < math.inf)


def expand_paths(text: str) -> str:
    """Argparse type: paths joined by commas, each of which may begin with a tilde."""
    return ",".join(map(os.path.expanduser, text.split(",")))


def share(text: str) -> float:
    """Argparse type: a number from 0 to 1."""
    return parse_number(float, text, "a number from 0 to 1", lambda value: 0 <= value <= 1)


def noise_share(text: str) -> float:
    """Argparse type: a number from 0 to below 1."""
    return parse_number(float, text, "a number from 0 to below 1", lambda value: 0 <= value < 1)


def percentage(text: str) -> float:
    """Argparse type: a number from 0 to 100."""
    return parse_number(float, text, "a number from 0 to 100", lambda value: 0 <= value <= 100)


def held_out_share(text: str) -> float:
    """Argparse type: a number above 0, below 1."""
    return parse_number(float, text, "a number above 0 and below 1", lambda value: 0 < value < 1)


def known_share(text: str) -> float:
    """Argparse type: a number above 0, up to 1."""
    return parse_number(float, text, "a number above 0, up to 1", lambda value: 0 < value <= 1)


def group_source(text: str) -> str:
    """Argparse type: where training groups come from: labels, kmeans:K, dbscan, or the path of a CSV file."""
    kind, _, number = text.partition(":")
    if text in ("labels", "dbscan") or text.endswith(".csv"):
        return os.path.expanduser(text)
    if kind == "kmeans":
        return f"kmeans:{int_at_least(2)(number)}"
    raise argparse.ArgumentTypeError(f"{text!r} is not labels, kmeans:K, dbscan or a file that ends with .csv")


def parse_number(kind: type, text: str, description: str, is_valid: Callable):
    """Return text as a number, or raise argparse's error."""
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not is_valid(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {description}")
    return value


def model_name(network_factory: Callable) -> Callable[[str], str]:
    """Return an argparse type: the name of a network that network_factory knows."""

    def known_name(text):
        try:
            network_factory(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return known_name


def augmentation_strategy(text: str) -> str:
    """Argparse type: "none" or operations of DSA joined by underscores."""
    if text.lower() == "none":
        return "none"
    unknown = [name for name in text.split("_") if name not in OPERATIONS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown operation {unknown[0]!r}; known: {', '.join(OPERATIONS)}, or none")
    return text
