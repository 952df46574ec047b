"""Train fresh networks on a saved synthetic set, or on all real images, and test them.

    python -m fairdd.evaluate results/my_run --model ConvNet AlexNet VGG11 ResNet18

An evaluation is a run that only evaluates: a folder with its flags, each network's figures and the results; stopped,
the same command goes on. What is not given holds as in the run, or as in main_DM.py on that data set.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from fairdd.run import checkpoint
from fairdd.report import tables
from fairdd.report.comparison import run_name
from fairdd.datasets import DATASETS
from fairdd.run.loop import Task, evaluate_models, load_data, results
from fairdd.core.errors import UserError, report_user_errors
from fairdd.flags import (
    EMBEDDED,
    Flags,
    Parser,
    add_data,
    add_machine,
    add_networks,
    model_name,
    resolve_device,
    strategy,
    whole,
)
from fairdd.flags import parse as parse_entry
from fairdd.core.parallel import set_precision
from fairdd.run.preflight import check_networks
from fairdd.run.folder import RESULTS, open_run, read_json
from fairdd.run.synset_io import check_fits, flags_of, read
from fairdd.core.errors import catch_termination
from fairdd.evaluation.training import network_for

REAL_EPOCHS = 30            # passes over all real images, which are hundreds of times as many as synthetic ones;
REAL_EPOCHS_EMBEDDED = 300  # but not here
SPLIT = ("dataset", "data_seed", "labels", "target_attr", "protected_attr")        # they decide which images are tested
ALSO = ("method", "epoch_eval_augmented", "Iteration")      # what a recipe and the keys of networks depend on besides
OWN = ("device", "save_path", "restart")                    # not taken from the run


@report_user_errors
def main(argv=None):
    # here, not above: this command is an entry, but the package it lies in knows no networks
    from networks import find_network, get_eval_pool, get_network

    args = parse(find_network, get_eval_pool, argv)
    set_precision(args.precision, args.device)
    saved = None if args.data == "real" else read(args.source)
    data = load_data(args)
    check_networks(args.model, partial(network_for, get_network, data=data.test))
    if saved:
        check_fits(saved, data.test)
        data = replace(data, test=on_scale_of(saved, data.test))
    sets = saved.choose(args.experiment) if saved else {0: data.train}
    args.images = checkpoint.digest([vars(one) for one in sets.values()]) if saved else "real"
    evaluate(args.freeze(), data, sets, get_network)


def evaluate(args, data, sets, make_network):
    """Test networks trained on each of sets (number -> images), keep and print what they came to."""
    with open_run(args) as run, catch_termination():
        notes = [f"networks trained on {args.trained_on}", *data.notes, tables.cell_range("test", data.test)]
        run.log("\n".join(notes))
        if run.results is None:
            run.begin(args, data)
            real, test = data.train.to(args.device), data.test.to(args.device)
            task = Task(run, args, real, test, make_network, args.model, [])
            for number, images in sets.items():
                evaluate_models(task, images.to(args.device), number, args.Iteration)
            run.finish(results(task))
        print(f"\n{table(read_json(run.folder / RESULTS)['by_model'])}\n")
        print(f"results and the figures of every network are in {run.folder}")


def on_scale_of(saved, test):
    """The test images normalized as the synthetic ones were, if their file says how."""
    return replace(test, mean=saved.mean or test.mean, std=saved.std or test.std)


def table(by_model):
    """Every figure of every model, mean ± std over networks, those that are undefined left out. -> text"""
    summaries = list(by_model.values())
    names = [name for name, value in summaries[0].items()
             if isinstance(value, dict) and any(summary[name]["mean"] is not None for summary in summaries)]
    rows = [[model, *(tables.cell(summary[name]) for name in names)] for model, summary in by_model.items()]
    return tables.text_table([["%", *names], *rows])


def parse(find_network, get_eval_pool, argv):
    """The flags as given, the others from the run or from main_DM.py. -> Flags, not yet frozen"""
    parser = make_parser(find_network)
    given = parser.parse_args(argv)
    refuse_contradictions(given)
    flags = flags_elsewhere(given, find_network)
    known = {name: value for name, value in flags.items() if (name in vars(given) or name in ALSO) and name not in OWN}
    parser.set_defaults(**known | {"model": get_eval_pool(flags["eval_mode"], flags["model"])})
    args = parser.parse_args(argv, namespace=Flags())
    args.device = resolve_device(args.device)
    args.save_path = args.save_path or default_folder(args)
    args.trained_on = trained_on(args, flags)
    if is_run(args) and args.data == "synthetic":
        warn_of_another_split(args, flags)
    return args


def warn_of_another_split(args, flags):
    """Say that a run may have learned from what are test images now."""
    others = [f"--{name}" for name in SPLIT if getattr(args, name) != flags.get(name)]
    if others:
        print(f"warning: {', '.join(others)} not as in the run; where a data set has no test part of its own "
              "(UTKface), test images may be among those the run learned from")


def refuse_contradictions(given):
    """Flags that cannot all be meant."""
    if given.data == "synthetic" and given.source is None:
        raise UserError("the folder of a run or a .pt file is needed, or --data real")
    if given.data == "real" and given.experiment is not None:
        raise UserError("--experiment chooses a synthetic set, and --data real has none; drop one of them")
    if given.source is not None and not Path(given.source).exists():
        raise UserError(f"{given.source} does not exist; expected the folder of a run, or a .pt file")
    if given.dataset is None and not is_run(given):
        raise UserError(f"--dataset is needed: only the folder of a run brings its own; one of {', '.join(DATASETS)}")


def is_run(args):
    return args.source is not None and Path(args.source).is_dir()


def flags_elsewhere(given, find_network):
    """The flags that hold where none are given: the run's, or what main_DM.py would take for this data set."""
    if is_run(given):
        flags = flags_of(given.source)
    else:
        flags = parse_entry(["DM"], find_network, ["S"], ["--dataset", given.dataset]).as_dict() | {"Iteration": 0}
    if given.data == "real":
        epochs = REAL_EPOCHS_EMBEDDED if (given.dataset or flags["dataset"]) == EMBEDDED else REAL_EPOCHS
        flags |= {"Iteration": 0, "epoch_eval_train": epochs, "epoch_eval_augmented": epochs}
    return flags | ({"epoch_eval_augmented": given.epoch_eval_train} if given.epoch_eval_train else {})


def default_folder(args):
    """Where results go: into the run, or beside the .pt file."""
    name = "evaluated-real" if args.data == "real" else "evaluated"
    if args.source is None:
        return f"results/{name}_{args.dataset}_seed{args.seed}"
    path = Path(args.source)
    return str(path / name if path.is_dir() else path.with_name(f"{path.stem}_{name}"))


def trained_on(args, flags):
    """What the networks learn from, in a reader's words."""
    if args.data == "real":
        return "all real images"
    return run_name(flags) if is_run(args) else Path(args.source).name


def make_parser(find_network):
    parser = Parser(prog="python -m fairdd.evaluate", description=__doc__.partition("\n")[0], allow_abbrev=False,
                    epilog="What is not given holds as in the run; without one, as in main_DM.py on that data set.")
    add_images(parser.add_argument_group("what networks are trained on").add_argument)
    add = parser.add_argument_group("how").add_argument
    add("--model", type=model_name(find_network), nargs="+", metavar="NAME",
        help="networks to train, as in networks.py; the paper's table: ConvNet AlexNet VGG11 ResNet18")
    add("--dsa_strategy", type=strategy, metavar="OPS", help="augmentation of the training images, or none")
    add_networks(add)
    add_data(parser.add_argument_group("the data").add_argument)
    add = parser.add_argument_group("the results").add_argument
    add("--out", "--save_path", dest="save_path", metavar="DIR",
        help="folder of the results; default: evaluated/ in the run, or beside the .pt file")
    add("--overwrite", "--restart", dest="restart", action="store_true",
        help="begin anew; what the folder holds is moved to earlier-1/ in it")
    add_machine(add)
    return parser


def add_images(add):
    add("source", nargs="?", metavar="RUN_OR_PT",
        help="folder of a run, or a .pt file: [images, labels] or a dict with 'data'")
    add("--data", choices=["synthetic", "real"], default="synthetic",
        help=f"the saved images, or all real training images, by default for {REAL_EPOCHS} epochs "
             f"({REAL_EPOCHS_EMBEDDED} for {EMBEDDED}); default: %(default)s")
    add("--experiment", type=whole(0), metavar="K", help="only this synthetic set, counted from 0; default: all")
    add("--dataset", choices=list(DATASETS), metavar="NAME",
        help=f"whose test part is predicted, one of {', '.join(DATASETS)}; default: the run's")


if __name__ == "__main__":
    main()
