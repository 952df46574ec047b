"""Train fresh networks on a saved synthetic set, or on all real images, and test them.

    python -m fairdd.evaluate results/my_run --model ConvNet AlexNet VGG11 ResNet18
    python -m fairdd.evaluate other/res_DM.pt --dataset CIFAR10_S

An evaluation is a run without distillation: a folder with its flags, each network's metrics and the results. If it is
interrupted, the same command resumes. Flags that are not given are those of the run.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from fairdd.core.compiled import check_compiler
from fairdd.core.errors import UserError, catch_termination, report_user_errors
from fairdd.core.parallel import keep_freed_memory, set_precision
from fairdd.datasets import DATASETS, Dataset
from fairdd.flags import (
    EMBEDDED,
    PAPER,
    QUICK,
    RUNTIME_FLAGS,
    Flags,
    Parser,
    add_data_flags,
    add_device_flags,
    add_network_flags,
    augmentation_strategy,
    int_at_least,
    model_name,
    readable_and_hash,
    resolve_device,
)
from fairdd.run.context import Context, make_network
from fairdd.run.folder import open_run
from fairdd.run.formatting import format_cell_range, format_metric, run_name, text_table
from fairdd.run.loop import load_data, on_device, run_evaluation
from fairdd.run.preflight import check_networks
from fairdd.run.results import run_results
from fairdd.run.synset_files import is_export
from fairdd.run.synset_io import SCALES, SavedSets, check_matches_dataset, match_scale, read_saved_sets, run_flags

REAL_EPOCHS = 30            # passes over all real images, which are hundreds of times as many as synthetic ones,
REAL_EPOCHS_EMBEDDED = 300  # except in the embedded data set
SPLIT_FLAGS = ("dataset", "data_seed", "labels", "target_attr", "protected_attr")      # which images are test images
INHERITED = ("Iteration", "eval_overrides", "unknown_groups")       # from the run, without a flag here
NOT_INHERITED = ("device", "save_path", "restart", "factor")


@report_user_errors
def main(argv: Sequence[str] | None = None) -> None:
    # imported here: this command is an entry script, but the package that holds it knows no networks
    from networks import get_eval_pool, get_network, network_factory

    args = parse_flags(network_factory, get_eval_pool, argv)
    set_precision(args.precision, args.device)
    keep_freed_memory()
    saved = None if args.data == "real" else read_saved_sets(args.source, args.labels_pt, args.scale, args.factor)
    data = load_data(args)
    check_networks(args.model, partial(make_network, get_network, data=data.test))
    if saved:
        check_matches_dataset(saved, data.test)
        saved, test = match_scale(saved, data.test)
        data = replace(data, test=test, notes=(*data.notes, *saved.notes))
    sets = saved.choose(args.experiment) if saved else {0: data.train}
    args.images = digest(sets) if saved else "real"
    if saved and saved.iterations:
        name_unfinished(args, saved, sets)
    evaluate(args.freeze(), data, sets, get_network)


def name_unfinished(args: Flags, saved: SavedSets, sets: Mapping[int, object]) -> None:
    """Record the iteration at which the sets were saved, and name an unfinished run. Raises UserError if they mix."""
    iterations = {saved.iterations[number][0] for number in sets}
    if len(iterations) > 1:
        raise UserError(f"{saved.path} holds sets of different iterations ({', '.join(map(str, sorted(iterations)))}), "
                        "for the run is unfinished; choose one with --experiment")
    [args.Iteration] = iterations
    progress = saved.progress(max(sets))
    args.trained_on += f" ({progress})" * bool(progress)


def evaluate(args: Flags, data: Dataset, sets: Mapping[int, object], make_network: Callable) -> None:
    """Test networks trained on each of sets (number -> images), save and print their metrics."""
    with open_run(args) as run, catch_termination():
        run.check_data(data)
        notes = [f"networks trained on {args.trained_on}", *data.notes, format_cell_range("test", data.test)]
        run.log("\n".join(notes))
        if run.results is None:
            run.begin(args, data)
            real, test = on_device(args, data.train, data.test)
            context = Context(run, args, None, real, test, make_network, args.model)
            for number, images in sets.items():
                run_evaluation(context, images.to(args.device), number, args.Iteration)
            run.finish(run_results(context))
        print(f"\n{metrics_table(run.results['by_model'])}\n")
        print(f"results and the metrics of every network are in {run.folder}")


def metrics_table(by_model: Mapping[str, Mapping]) -> str:
    """Return every metric of every model as text, mean ± std over networks; undefined metrics are left out."""
    summaries = list(by_model.values())
    names = [name for name, value in summaries[0].items()
             if isinstance(value, dict) and any(summary[name]["mean"] is not None for summary in summaries)]
    rows = [[model, *(format_metric(summary[name]) for name in names)] for model, summary in by_model.items()]
    return text_table([["%", *names], *rows])


def digest(sets: Mapping[int, object]) -> str:
    """Return a hash of the images and labels of sets."""
    sha = hashlib.sha256()
    for images in sets.values():
        sha.update(images.images.numpy().tobytes() + images.labels.numpy().tobytes())
    return sha.hexdigest()


def parse_flags(network_factory: Callable, get_eval_pool: Callable, argv: Sequence[str] | None) -> Flags:
    """Return the flags as given, the others from the run or the paper's evaluation; not yet frozen."""
    parser = make_parser(network_factory)
    given = parse_source(parser, argv)
    check_contradictions(given)
    inherited = inherited_flags(given)
    known = {name: value for name, value in inherited.items()
             if (name in vars(given) or name in INHERITED) and name not in NOT_INHERITED}
    parser.set_defaults(**known | {"model": get_eval_pool(inherited["eval_mode"], inherited["model"])})
    args = parse_source(parser, argv)
    args.device = resolve_device(args.device)
    args.save_path = args.save_path or default_save_path(args, parser)
    if args.data == "real":
        args.trained_on = "all real images"
    else:
        args.trained_on = run_name(inherited) if is_run(args) and not is_export(args.source) else Path(args.source).name
    if is_run(args) and args.data == "synthetic":
        warn_of_other_split(args, inherited)
    return args


def parse_source(parser: Parser, argv: Sequence[str] | None) -> Flags:
    """Return the parsed flags, with --images FILE as source."""
    args = parser.parse_args(argv, namespace=Flags())
    if args.source and args.images:
        raise UserError(f"both {args.source} and --images {args.images} are given; drop one of them")
    args.source = args.source or args.images
    del args.images
    return args


def inherited_flags(given: Flags) -> dict:
    """Return the flags that hold if none are given: the run's, or the paper's evaluation for this data set."""
    if is_run(given):
        flags = run_flags(given.source)
    else:
        flags = PAPER | (QUICK if given.dataset == EMBEDDED else {}) | {"Iteration": 0, "eval_mode": "S"}
    if given.data == "real":
        epochs = REAL_EPOCHS_EMBEDDED if (given.dataset or flags["dataset"]) == EMBEDDED else REAL_EPOCHS
        flags |= {"Iteration": 0, "epoch_eval_train": epochs}
    if given.data == "real" or given.epoch_eval_train:      # then this number of epochs holds for every network
        flags["eval_overrides"] = {name: {key: value for key, value in fields.items() if key != "epochs"}
                                   for name, fields in flags["eval_overrides"].items()}
    return flags


def warn_of_other_split(args: Flags, inherited: Mapping) -> None:
    """Warn that the run may have learned from images that are test images now."""
    others = [f"--{name}" for name in SPLIT_FLAGS if getattr(args, name) != inherited.get(name)]
    if others:
        print(f"warning: {', '.join(others)} differ from the run; if the data set has no test part of its own "
              "(UTKface), the run may have learned from test images")


def check_contradictions(given: Flags) -> None:
    """Raise UserError for flags that cannot all be meant."""
    if given.data == "synthetic" and given.source is None:
        raise UserError("the folder of a run or a .pt file is needed, or --data real")
    if given.compile:
        check_compiler(resolve_device(given.device))
    for name in ("experiment", "labels_pt", "scale", "factor"):
        if given.data == "real" and getattr(given, name) is not None:
            raise UserError(f"--{name} is about a synthetic set, and --data real has none; drop one of them")
    if given.source is not None and not Path(given.source).exists():
        raise UserError(f"{given.source} does not exist; expected the folder of a run or an export, or a file")
    if given.dataset is None and not is_run(given):
        raise UserError("--dataset is needed: only the folder of a run, or one exported from a run, states it; "
                        f"one of {', '.join(DATASETS)}")


def is_run(args: Flags) -> bool:
    """Return whether the source is the folder of a run or was exported from one, and so states all flags."""
    return args.source is not None and run_flags(args.source) is not None


def default_save_path(args: Flags, parser: Parser) -> str:
    """Return the folder of the results, in the run or beside the file, named by the flags that are not the run's."""
    others = {name: value for name, value in args.as_dict().items()
              if name not in RUNTIME_FLAGS | {"data"} and value != parser.get_default(name)}
    dataset = [] if is_run(args) else [others.pop("dataset")]
    name = "_".join(["evaluated-real" if args.data == "real" else "evaluated", *dataset, *readable_and_hash(others)])
    if args.source is None:
        return f"results/{name}"
    path = Path(args.source)
    if path.is_dir() and not is_export(path):
        return str(path / name)
    return str(path.with_name(f"{path.stem if path.suffix == '.pt' else path.name}_{name}"))


def make_parser(network_factory: Callable) -> Parser:
    parser = Parser(prog="python -m fairdd.evaluate", description=__doc__.partition("\n")[0], allow_abbrev=False,
                    epilog="Flags that are not given are those of the run; without a run, the paper's.")
    add = parser.add_argument_group("training images").add_argument
    add("source", nargs="?", type=os.path.expanduser, metavar="RUN_OR_FILE",
        help="folder of a run; folder or .npz file written by fairdd.export; or .pt file: [images, labels], or a dict "
             "whose 'data' is a list of these")
    add("--images", type=os.path.expanduser, metavar="FILE",
        help="instead: a .pt file of the images alone, with --labels_pt")
    add("--labels_pt", type=os.path.expanduser, metavar="FILE",
        help=".pt file with the labels: whole numbers (M,) or distributions over classes (M, classes)")
    add("--scale", choices=SCALES,
        help="values of the images, if the file states no mean and std: pixels in [0, 1] (unit), normalized like the "
             "data set (normalized), or with the mean and std of ImageNet (imagenet); default: told from their range")
    add("--factor", type=int_at_least(1), metavar="F",
        help="each image is a grid of F x F images (IDC, DREAM: 2), if the file does not state it; default: 1")
    add("--data", choices=["synthetic", "real"], default="synthetic",
        help=f"train on the saved images, or on all real training images, by default for {REAL_EPOCHS} epochs "
             f"({REAL_EPOCHS_EMBEDDED} for {EMBEDDED}); default: %(default)s")
    add("--experiment", type=int_at_least(0), metavar="K", help="only this synthetic set, counted from 0; default: all")
    add("--dataset", choices=list(DATASETS), metavar="NAME",
        help=f"whose test part is predicted, one of {', '.join(DATASETS)}; default: the run's")
    add = parser.add_argument_group("evaluation").add_argument
    add("--model", type=model_name(network_factory), nargs="+", metavar="NAME",
        help="networks to train, as in networks.py; the paper's table: ConvNet AlexNet VGG11 ResNet18")
    add("--dsa_strategy", type=augmentation_strategy, metavar="OPS",
        help="augmentation of the training images, or none")
    add_network_flags(add)
    add_data_flags(parser.add_argument_group("data").add_argument)
    add = parser.add_argument_group("results").add_argument
    add("--out", "--save_path", dest="save_path", type=os.path.expanduser, metavar="DIR",
        help="folder of the results; default: evaluated/ in the run, or beside the .pt file")
    add("--overwrite", "--restart", dest="restart", action="store_true",
        help="start anew; what the folder holds is moved to earlier-1/ in it")
    add_device_flags(add)
    return parser


if __name__ == "__main__":
    main()
