"""The loop every method shares: evaluate if due, save if due, update, log; N + 1 rounds, the last only evaluates.

So the set that is saved is the set that was evaluated. A method is one function, update(task, syn, *key) -> loss.
Whenever the process ends, the same command goes on from the last saved state and comes to the same bytes.
"""

import functools
import math
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from tqdm import tqdm

from fairdd import preflight, synset, tables
from fairdd.augment import Draws, augment
from fairdd.datasets import get_dataset
from fairdd.datasets.grouped import GroupedImages
from fairdd.errors import UserError
from fairdd.events import Nothing, add_scalars, recorder
from fairdd.fairness import summarise
from fairdd.flags import Flags
from fairdd.outcome import field_format, results, view
from fairdd.runs import DATA, EMBEDDING, Run, open_run, picture_name
from fairdd.seeds import numpy_generator, seeded
from fairdd.signals import Stopped, stoppable
from fairdd.training import Recipe, evaluate_networks

LOG_EVERY = 100         # iterations between losses in the log
SAVE_SECONDS = 120      # between saved states, if --save_every is not reached before


def distill(args, update, make_network, eval_pool):
    """The whole job of an entry: data, checks, num_exp distillations, results. Raises UserError."""
    with open_run(args) as run, stoppable():
        if run.results is not None:
            run.log(f"{run.folder} holds this run, finished; nothing is left to do")
            return
        task = prepare(run, args, make_network, eval_pool)
        try:
            for experiment in range(len(task.sets), args.num_exp):
                syn, first = begin(task, experiment)
                with recorder(args, run.folder, experiment, first) as task.events:
                    distill_one(task, update, experiment, syn, first)
        except Stopped:
            save(task)
            raise
        run.write_json(EMBEDDING, view(task, start(task, 0)))
        run.finish(results(task))
        run.log(f"{args.num_exp} synthetic set(s), results and pictures are in {run.folder}")


def distill_one(task, update, experiment, syn, first):
    """Distil one synthetic set: from its start, or from where it was stopped (iteration first), to the last update."""
    args, key = task.args, (task.args.seed, "experiment", experiment)
    saved_at = time.monotonic()
    bar = tqdm(range(first, args.Iteration + 1), f"{args.method} {args.align}", args.Iteration, initial=first,
               disable=None)
    for iteration in bar:
        task.here = dict(experiment=experiment, iteration=iteration, **syn.state())
        is_last = iteration == args.Iteration
        is_due = is_last or (args.eval_every and iteration % args.eval_every == 0)
        if is_due or iteration % args.save_every == 0 or time.monotonic() - saved_at > SAVE_SECONDS:
            save(task)
            saved_at = time.monotonic()
        if is_due:
            evaluate(task, syn, experiment, iteration)
        if is_last:
            break
        loss = update(task, syn, *key, iteration).item()
        check_loss(loss, iteration)
        bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
        task.events.add_scalar("loss", loss, iteration)
        if iteration % LOG_EVERY == 0:
            task.run.log(f"iteration {iteration} | loss {loss:.4f}")
    task.sets.append(syn.content())


def begin(task, experiment):
    """The synthetic set of an experiment and its next iteration: as saved, or at its start."""
    syn, state = start(task, experiment), task.run.state
    if state is None or state["experiment"] != experiment:
        save_picture(task, syn, experiment, 0)
        return syn, 0
    syn.restore(state)
    task.run.log(f"going on at iteration {state['iteration']} of experiment {experiment}")
    return syn, state["iteration"]


def start(task, experiment):
    """The synthetic set of an experiment before its first iteration."""
    args = task.args
    return synset.start(task.real, args.ipc, args.init, args.lr_img, args.seed, "experiment", experiment)


def save(task):
    """Write down where the run stands: at the head of an iteration."""
    if task.here:
        here = {name: value.cpu() if torch.is_tensor(value) else value for name, value in task.here.items()}
        task.events.flush()
        task.run.save_state(**here, sets=task.sets)


def evaluate(task, syn, experiment, iteration):
    """Test networks trained on the set as it is now, then save exactly this set, its picture and its figures."""
    for name in task.eval_pool:
        place = (experiment, iteration, name)
        figures = evaluate_model(task, syn, *place)
        task.run.add_evaluation(place, figures)
        words = f"iteration {iteration} | {name} x {len(figures)} | {tables.figures_line(summarise(figures))}"
        task.run.log(words)
        add_scalars(task.events, name, iteration, figures)
    task.run.save_synthetic(field_format(task, syn))
    task.events.add_image("synthetic", save_picture(task, syn, experiment, iteration), iteration)


def save_picture(task, syn, experiment, iteration):
    """A picture of the set as it is now. -> its grid"""
    name, real = picture_name(experiment, iteration), task.real
    return task.run.save_picture(name, syn.content()[0], task.args.ipc, real.mean, real.std)


def evaluate_model(task, syn, *place):
    """The figures of all networks of a model, tested before or now. place: experiment, iteration, model"""
    name, networks = place[-1], task.run.networks
    places = [(*place, number) for number in range(task.args.num_eval)]
    missing = [one for one in places if one not in networks]
    new, recipe = functools.partial(task.new_network, name), evaluation_recipe(task.args, name)
    keys = [(task.args.seed, "evaluation", *one) for one in missing]
    for one, figures in zip(missing, evaluate_networks(new, syn, task.test, recipe, keys, name), strict=True):
        task.run.add_network(one, figures)      # at once: a killed run keeps it
    return [networks[one] for one in places]


@dataclass
class Task:
    """What a step needs: the flags, the real images, new networks; and how far the run has come.

    sets: [images, labels] of each finished experiment; here: where the current one stands, as a state to save;
    events: takes what TensorBoard shows of it.
    """

    run: Run
    args: Flags
    real: GroupedImages
    test: GroupedImages
    make_network: Callable
    eval_pool: list
    sets: list
    here: dict = field(default_factory=dict)
    events: object = field(default_factory=Nothing)

    def __post_init__(self):
        self._rows = [(self.real.labels == label).nonzero().flatten() for label in range(self.real.num_classes)]

    def network(self, name, *key):
        """A freshly initialised network on the device, its weights drawn from the key."""
        with seeded(*key, "weights"):
            return self.new_network(name)

    def new_network(self, name):
        channels, *side = self.real.images.shape[1:]
        return self.make_network(name, channels, self.real.num_classes, tuple(side)).to(self.args.device)

    def real_batch(self, draws, *key):
        """batch_real random images of every class (all, if it has fewer), drawn from the key. -> RealBatch"""
        generator = numpy_generator(*key, "real")
        chosen = [rows[generator.permutation(len(rows))[: self.args.batch_real]] for rows in self._rows]
        return RealBatch(self.real, torch.cat(chosen), draws)


@dataclass(frozen=True)
class RealBatch:
    """Real images, made when asked for, so that never all are in memory: batch[index] is (., C, H, W), augmented.

    rows: (B,) of data; draws: one augmentation for each class, or None.
    """

    data: GroupedImages
    rows: torch.Tensor
    draws: Draws | None

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        rows = self.rows[index]
        return augment(self.data.batch(rows), self.draws, self.data.labels[rows])

    @property
    def labels(self):
        return self.data.labels[self.rows]

    @property
    def groups(self):
        return self.data.groups[self.rows]


def prepare(run, args, make_network, eval_pool):
    """Load the data, say what was found, and refuse now what would fail after hours. -> Task"""
    run.log(textwrap.fill(", ".join(f"{name} {value}" for name, value in args.as_dict().items()), 110))
    data = get_dataset(
        args.dataset, args.data_path, data_seed=args.data_seed, im_size=args.im_size, skew=args.skew,
        target_attr=args.target_attr, protected_attr=args.protected_attr, skip_bad_images=args.skip_bad_images,
    )
    real, test = data.train.to(args.device), data.test.to(args.device)
    task = Task(run, args, real, test, make_network, eval_pool, run.state["sets"] if run.state else [])
    preflight.check(task, data)
    run.write_json(DATA, data.summary())
    return task


def check_loss(loss, iteration):
    """Stop at a loss that is no number: everything after it would be lost."""
    if not math.isfinite(loss):
        raise UserError(f"the loss is {loss} at iteration {iteration}; a smaller --lr_img may help "
                        "(what was evaluated before is saved)")


def evaluation_recipe(args, model):
    """How evaluation networks are trained: as published for the method. DC augments for ConvNetBN alone."""
    if args.method == "DC" and model == "ConvNetBN":
        return Recipe(args.epoch_eval_augmented, args.lr_net, args.batch_train, "crop_noise")
    return Recipe(args.epoch_eval_train, args.lr_net, args.batch_train, args.dsa_strategy)
