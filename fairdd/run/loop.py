"""The loop that every method shares: evaluate if due, save if due, update, log. N + 1 rounds; the last only evaluates.

The set that is saved is therefore the set that was evaluated. Whenever the process ends, the same command resumes from
the last checkpoint and produces the same bytes.
"""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, fields, replace

import torch
from tqdm import tqdm

from fairdd.core import distributed
from fairdd.core.device import free_bytes
from fairdd.core.errors import Interrupted, UserError, catch_termination
from fairdd.core.parallel import keep_freed_memory, set_precision
from fairdd.datasets import Dataset, DatasetRequest, get_dataset
from fairdd.datasets.base import GroupedImages
from fairdd.evaluation.metrics import summarize
from fairdd.evaluation.training import train_and_test
from fairdd.flags import Flags
from fairdd.groups import with_training_groups
from fairdd.groups.file import file_digest
from fairdd.matching.synset import LabeledImages, SynSet, init_synthetic
from fairdd.method import Method
from fairdd.run import preflight
from fairdd.run.context import Context, evaluation_config
from fairdd.run.folder import PROJECTION, RunFolder, open_run, picture_name
from fairdd.run.formatting import format_coverage, format_flags, format_metric, format_metrics, run_name
from fairdd.run.results import expand, project_images, run_results, to_saved_format
from fairdd.run.selection import VALIDATION, Selected, better, with_cell_accuracy, with_validation
from fairdd.run.tensorboard import add_metrics, open_writer

LOG_EVERY = 100         # iterations between losses in the log
SAVE_SECONDS = 120      # between checkpoints, unless --save_every comes first


def distill(args: Flags, method: Method, make_network: Callable, eval_pool: list[str]) -> None:
    """Do the whole job of an entry script: load and check the data, distill num_exp sets, write results.

    Raises UserError.
    """
    with open_run(args) as run, catch_termination():
        data = load_data(args)
        run.check_data(data, **file_digest(args.groups))
        if run.results is not None:
            run.log(f"{run.folder}: this run is finished; nothing left to do")
            return
        context = prepare(run, args, method, data, make_network, eval_pool)
        try:
            for experiment in range(len(context.synsets), args.num_exp):
                syn, first = resume_or_init(context, experiment)
                with open_writer(args, run.folder, experiment, first) as context.writer:
                    run_experiment(context, experiment, syn, first)
        except Interrupted:
            save_checkpoint(context)
            raise
        run.write_json(PROJECTION, project_images(context, data.train, initial_synset(context, 0)))
        run.finish(run_results(context))
        run.log(f"{args.num_exp} synthetic set(s), results and pictures are in {run.folder}")


def run_experiment(context: Context, experiment: int, syn: SynSet, first: int) -> None:
    """Distill one synthetic set, from iteration first to the last update."""
    args, key = context.args, (context.args.seed, "experiment", experiment)
    saved_at = time.monotonic()
    bar = tqdm(range(first, args.Iteration + 1), run_name(args.as_dict()), args.Iteration, initial=first, disable=None)
    for iteration in bar:
        context.resume_state = dict(experiment=experiment, iteration=iteration, **syn.state(),
                                    method_state=copy.deepcopy(context.method_state),
                                    selected=context.selected and asdict(context.selected))
        is_last = iteration == args.Iteration
        is_due = is_last or (args.eval_every and iteration % args.eval_every == 0)
        if is_due or iteration % args.save_every == 0 or time.monotonic() - saved_at > SAVE_SECONDS:
            save_checkpoint(context)
            saved_at = time.monotonic()
        if is_due:
            evaluate_and_save(context, syn, experiment, iteration)
        if is_last:
            break
        context.losses[iteration] = context.method.update(context, syn, *key, iteration)
        if context.real.device.type == "cpu" or iteration % LOG_EVERY == 0:
            bar.set_postfix(loss=f"{log_losses(context):.4g}", refresh=False)
    context.synsets.append(context.selected.synset if context.selected else syn.to_list())
    if context.selected:
        context.selections.append({"iteration": context.selected.iteration, args.select_by: context.selected.value})


def log_losses(context: Context) -> float:
    """Log and check the losses since the last call; return the last one. On a GPU the host waits for them here.

    Raises UserError for the first one that is not finite: all later iterations would be lost.
    """
    iterations, losses = list(context.losses), list(context.losses.values())
    context.losses.clear()
    values = torch.stack(losses).cpu().tolist() if losses else []
    for iteration, loss in zip(iterations, values, strict=True):
        check_finite("loss", loss, iteration)
        context.writer.add_scalar("loss", loss, iteration)
        if iteration % LOG_EVERY == 0:
            context.run.log(f"iteration {iteration} | loss {loss:.4f}")
    return values[-1] if values else math.nan


def resume_or_init(context: Context, experiment: int) -> tuple[SynSet, int]:
    """Return the synthetic set of an experiment and its next iteration: from the checkpoint, or the initial ones."""
    syn, state = initial_synset(context, experiment), context.run.state
    distributed.copy_from_rank_0(syn.images)
    if state is None or state["experiment"] != experiment:
        context.method_state, context.selected = {}, None
        save_picture(context, syn, experiment, 0)
        return syn, 0
    syn.restore(state)
    context.method_state = state.get("method_state", {})
    context.selected = Selected(**state["selected"]) if state.get("selected") else None
    context.run.log(f"resuming at iteration {state['iteration']} of experiment {experiment}")
    return syn, state["iteration"]


def initial_synset(context: Context, experiment: int) -> SynSet:
    """Return the synthetic set of an experiment before its first iteration."""
    args, real, key = context.args, context.real, (context.args.seed, "experiment", experiment)
    lr, momentum = context.method.pixel_optimizer(args, real.num_classes, real.images.shape[-1])
    normalization = (real.mean, real.std) if context.method.unit_range else None
    choose = (lambda label, count: context.representatives(*key, label=label, count=count)) \
        if args.init == "kmeans" else None
    return init_synthetic(real, args.ipc, args.init, lr, *key, factor=args.factor, choose=choose, momentum=momentum,
                          normalization=normalization)


def save_checkpoint(context: Context) -> None:
    """Write where the run stands, as it was at the beginning of the current iteration. Raises UserError for NaN."""
    log_losses(context)
    if context.resume_state:
        context.writer.flush()
        context.run.save_state(**context.resume_state, sets=context.synsets, selections=context.selections)


def evaluate_and_save(context: Context, syn: SynSet, experiment: int, iteration: int) -> None:
    """Test networks trained on the current set, then save exactly this set, its picture and its metrics.

    With --select val they predict validation images instead; the best set so far is saved, and tested at the end.
    """
    check_finite("largest pixel", syn.images.abs().max().item(), iteration)
    if context.val is None:
        run_evaluation(context, syn.as_dataset(), experiment, iteration)
    else:
        select(context, syn, experiment, iteration)
        if iteration == context.args.Iteration:
            best = LabeledImages(*expand(*context.selected.synset, syn.factor))
            run_evaluation(context, best.to(context.args.device), experiment, iteration)
    synset = context.selected.synset if context.selected else syn.to_list()
    context.run.save_synthetic(to_saved_format(context, synset, iteration))
    context.writer.add_image("synthetic", save_picture(context, syn, experiment, iteration), iteration)


def select(context: Context, syn: SynSet, experiment: int, iteration: int) -> None:
    """Evaluate the current set on validation images, and keep it if it is the best of this experiment so far."""
    model = context.eval_pool[0]
    name = VALIDATION.format(model)
    metrics = evaluate_model(context, syn.as_dataset(), context.val, model, experiment, iteration, name)
    summary = summarize([with_cell_accuracy(of_network) for of_network in metrics])
    context.selected = better(context.selected, summary, context.args, iteration, syn.to_list())
    context.run.log(f"iteration {iteration} | {name} x {len(metrics)} | {format_metrics(summary)} | "
                    f"best so far: iteration {context.selected.iteration}")


def save_picture(context: Context, syn: SynSet, experiment: int, iteration: int) -> torch.Tensor:
    """Write a picture of the current set; return its grid."""
    name, real = picture_name(experiment, iteration), context.real
    return context.run.save_picture(name, syn.to_list()[0], context.args.ipc, real.mean, real.std)


def run_evaluation(context: Context, data, experiment: int, iteration: int) -> None:
    """Train networks of every model on data, test them, and log and save their metrics."""
    for model in context.eval_pool:
        eval_key = (experiment, iteration, model)
        metrics = evaluate_model(context, data, context.test, model, *eval_key)
        context.run.add_evaluation(eval_key, metrics)
        summary = summarize(metrics)
        context.run.log(f"iteration {iteration} | {model} x {len(metrics)} | {format_metrics(summary)}"
                        f"{format_coverage(summary['table'])}")
        add_metrics(context.writer, model, iteration, metrics)
        if per_attribute := [f"{name} {format_metric(summary[name])}" for name in summary if "[" in name]:
            context.run.log(f"each attribute alone | {' | '.join(per_attribute)}")


def evaluate_model(context: Context, data, test: GroupedImages, model: str, *eval_key) -> list[dict]:
    """Return the metrics of all networks of a model; those tested by an earlier process are read from the run.

    Under torchrun every rank trains its share of the networks.
    eval_key: (experiment, iteration, name of the model in the files of the run)
    """
    args, done = context.args, context.run.network_metrics
    keys = [(*eval_key, number) for number in range(args.num_eval)]
    missing = [key for key in keys if key not in done]
    tested = train_and_test(lambda: context.compiled(context.build_network(model)), data, test,
                            evaluation_config(args, model),
                            [(args.seed, "evaluation", *key) for key in distributed.share_of(missing)], model)
    for key, metrics in distributed.collect(missing, tested):
        context.run.add_network(key, metrics)      # at once, so that a killed run keeps it
    done.update(distributed.from_rank_0({key: done.get(key) for key in keys}))
    return [done[key] for key in keys]


def prepare(run: RunFolder, args: Flags, method: Method, data: Dataset, make_network: Callable,
            eval_pool: list[str]) -> Context:
    """Report what the data contain, and refuse now what would fail after hours."""
    set_precision(args.precision, args.device)
    keep_freed_memory()
    run.log(format_flags(args.as_dict()), show=False)
    run.log("flags: " + format_flags({name: getattr(args, name) for name in args.non_default}), show=not args.quiet)
    real, test, *val = on_device(args, data.train, data.test, *([data.val] if args.select == "val" else []))
    state = run.state or {"sets": []}
    context = Context(run, args, method, real, test, make_network, eval_pool, state["sets"],
                      val=val[0] if val else None, selections=state.get("selections", []))
    matched = with_training_groups(replace(data, train=real), args, context.init_network)
    context.real = matched.train
    preflight.check(context, matched)
    run.begin(args, replace(data, notes=matched.notes))
    return context


def load_data(args: Flags) -> Dataset:
    """Return the data set that the flags ask for."""
    options = {field.name: getattr(args, field.name) for field in fields(DatasetRequest) if hasattr(args, field.name)}
    unknown = () if args.unknown is None else tuple(args.unknown.split(","))
    options |= {"unknown": unknown, "read_validation": getattr(args, "select", "") == "val",
                "train_unknown_groups": bool(unknown) and getattr(args, "unknown_groups", None) is not None}
    with distributed.first_on_machine("data"):          # it decodes the images; the others map its cache
        data = get_dataset(args.dataset, **options)
    return with_validation(data, args.val_share, args.data_seed) if options["read_validation"] else data


def on_device(args: Flags, *splits: GroupedImages) -> list[GroupedImages]:
    """Return splits of the data for the device of the flags; with their images on it, unless --device_data says no.

    auto: on it if all of them take at most half of its free memory. Raises UserError for yes if they do not fit at all.
    """
    size, free = sum(images.images.numel() for images in splits), free_bytes(torch.device(args.device))
    if args.device_data == "yes" and size > free:
        raise UserError(f"--device_data yes: the images take {size / 2**30:.1f} GiB and {args.device} has "
                        f"{free / 2**30:.1f} GiB free; use auto or no")
    copy = args.device_data == "yes" or (args.device_data == "auto" and size <= free / 2)
    return [images.to(args.device, copy) for images in splits]


def check_finite(name: str, value: float, iteration: int) -> None:
    """Raise UserError if the loss or the largest pixel is not finite: all later iterations would be lost."""
    if not math.isfinite(value):
        raise UserError(f"the {name} is {value} at iteration {iteration}; a smaller --lr_img may help "
                        "(earlier evaluations are saved)")
