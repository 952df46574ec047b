"""The loop every method shares: evaluate if due, save if due, update, log; N + 1 rounds, the last only evaluates.

So the set that is saved is the set that was evaluated. A method is one function, update(task, syn, *key) -> loss.
"""

import textwrap
import time
from dataclasses import dataclass

import torch
from tqdm import tqdm

from fairdd import report, synset
from fairdd.datasets import get_dataset
from fairdd.datasets.grouped import GroupedImages
from fairdd.errors import UserError
from fairdd.evaluate import Recipe, evaluate_synset
from fairdd.fairness import empty_cells, summarise
from fairdd.runs import RESULTS, Run
from fairdd.seeds import numpy_generator, seeded

LOG_EVERY = 100         # iterations between losses in the log


def distill(args, update, make_network, eval_pool):
    """The whole job of an entry: data, checks, num_exp distillations, results. Raises UserError."""
    run = Run(args)
    if run.results:
        run.log(f"{run.folder} holds this run, finished; nothing is left to do")
        return
    task = prepare(run, args, make_network, eval_pool)
    began = time.monotonic()
    for experiment in range(args.num_exp):
        distill_one(task, update, experiment)
    run.write_json(RESULTS, results(task) | {"minutes": (time.monotonic() - began) / 60})
    run.log(f"{args.num_exp} synthetic set(s), results and pictures are in {run.folder}")


def distill_one(task, update, experiment):
    """Distil one synthetic set: from its start through Iteration updates."""
    args, key = task.args, (task.args.seed, "experiment", experiment)
    syn = synset.start(task.real, args.ipc, args.init, args.lr_img, *key)
    bar = tqdm(range(args.Iteration + 1), f"{args.method} {args.align}", disable=None)
    for iteration in bar:
        is_last = iteration == args.Iteration
        if is_last or (args.eval_every and iteration % args.eval_every == 0):
            evaluate(task, syn, experiment, iteration)
        if is_last:
            break
        loss = update(task, syn, *key, iteration).item()
        check_loss(loss, iteration)
        bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
        if iteration % LOG_EVERY == 0:
            task.run.log(f"iteration {iteration} | loss {loss:.4f}")


def evaluate(task, syn, experiment, iteration):
    """Test networks trained on the set as it is now, then save exactly this set, its picture and its figures."""
    args = task.args
    task.figures[experiment] = {}
    for name in task.eval_pool:
        key = (args.seed, "experiment", experiment, "evaluation", iteration, name)
        recipe = evaluation_recipe(args, name)
        figures = evaluate_synset(lambda name=name: task.new_network(name), syn, task.test, recipe, args.num_eval, *key)
        task.figures[experiment][name] = figures
        task.run.add_evaluation(dict(experiment=experiment, iteration=iteration, model=name, networks=figures))
        task.run.log(f"iteration {iteration} | {name} x {args.num_eval} | {report.figures_line(summarise(figures))}")
    task.sets[experiment] = [syn.images.detach().cpu().clone(), syn.labels.clone()]
    task.run.save_synthetic(field_format(task))
    task.run.save_picture(f"experiment{experiment}_iteration{iteration:05d}.png", syn.images.detach().cpu(), args.ipc,
                          task.real.mean, task.real.std)


@dataclass
class Task:
    """What a step needs: the flags, the real images, new networks; and what a run has come to so far."""

    run: Run
    args: object
    real: GroupedImages
    test: GroupedImages
    make_network: callable
    eval_pool: list

    def __post_init__(self):
        self.sets, self.figures = {}, {}        # by experiment: [images, labels]; by model: one dict per network
        self._rows = [(self.real.labels == label).nonzero().flatten() for label in range(self.real.num_classes)]

    def network(self, name, *key):
        """A freshly initialised network on the device, its weights drawn from the key."""
        with seeded(*key, "weights"):
            return self.new_network(name)

    def new_network(self, name):
        channels, *side = self.real.images.shape[1:]
        return self.make_network(name, channels, self.real.num_classes, tuple(side)).to(self.args.device)

    def real_batch(self, *key):
        """batch_real random images of every class (all, if it has fewer), drawn from the key. -> RealBatch"""
        generator = numpy_generator(*key, "real")
        chosen = [rows[generator.permutation(len(rows))[: self.args.batch_real]] for rows in self._rows]
        rows = torch.cat(chosen)
        return RealBatch(self.real.batch(rows), self.real.labels[rows], self.real.groups[rows])


@dataclass(frozen=True)
class RealBatch:
    """images: (B, C, H, W) normalised, on the device; labels, groups: (B,) int64 on the CPU."""

    images: torch.Tensor
    labels: torch.Tensor
    groups: torch.Tensor


def prepare(run, args, make_network, eval_pool):
    """Load the data, say what was found, and refuse now what would fail after hours. -> Task"""
    run.log(textwrap.fill(", ".join(f"{name} {value}" for name, value in args.as_dict().items()), 110))
    data = get_dataset(
        args.dataset, args.data_path, data_seed=args.data_seed, im_size=args.im_size, skew=args.skew,
        target_attr=args.target_attr, protected_attr=args.protected_attr, skip_bad_images=args.skip_bad_images,
    )
    run.log("\n".join([*data.notes, report.cell_table(data.train), report.cell_range("test", data.test)]))
    task = Task(run, args, data.train.to(args.device), data.test.to(args.device), make_network, eval_pool)
    say_empty_cells(run, data)
    check_classes(task.real, args)
    check_networks(task)
    return task


def say_empty_cells(run, data):
    """A group that a class never has is no error, but is said once."""
    for part, images in (("training", data.train), ("test", data.test)):
        empty = empty_cells(images.counts(), images.class_names, images.group_names)
        if empty:
            run.log(f"warning: no {part} image for (class, group) {', '.join(empty)}: left out there")


def check_classes(real, args):
    """Every class needs an image to be matched to, and ipc of them to start from."""
    for name, size in zip(real.class_names, real.counts().sum(0).tolist(), strict=True):
        if size == 0:
            raise UserError(f"class {name!r} has no training image")
    if args.init != "noise":
        synset.check_ipc(real, args.ipc)


def check_networks(task):
    """Every network of the run must fit the images."""
    for name in {task.args.model, *task.eval_pool}:
        try:
            task.new_network(name)
        except ValueError as error:
            raise UserError(str(error)) from None


def check_loss(loss, iteration):
    """Stop at a loss that is no number: everything after it would be lost."""
    if loss != loss or abs(loss) == float("inf"):
        raise UserError(f"the loss is {loss} at iteration {iteration}; a smaller --lr_img may help "
                        "(what was evaluated before is saved)")


def evaluation_recipe(args, model):
    """How evaluation networks are trained: as published for the method. DC augments for ConvNetBN alone."""
    if args.method == "DC" and model == "ConvNetBN":
        return Recipe(args.epoch_eval_augmented, args.lr_net, args.batch_train, "crop_noise")
    return Recipe(args.epoch_eval_train, args.lr_net, args.batch_train, args.dsa_strategy)


def field_format(task):
    """The synthetic sets as other tools of this field read them: data is a list of [images, labels]."""
    real = task.real
    return {
        "data": [task.sets[experiment] for experiment in sorted(task.sets)],
        "mean": list(real.mean), "std": list(real.std),
        "class_names": list(real.class_names), "group_names": list(real.group_names),
    }


def results(task):
    """Figures over all networks of all experiments; with several models the first one's stand at the top."""
    by_model = {
        name: summarise([figures for experiment in task.figures.values() for figures in experiment[name]])
        for name in task.eval_pool
    }
    first = task.eval_pool[0]
    names = {"class_names": list(task.real.class_names), "group_names": list(task.real.group_names)}
    return by_model[first] | {"model": first, "by_model": by_model} | names
