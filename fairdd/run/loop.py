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

from fairdd.run import preflight
from fairdd.matching import synset
from fairdd.report import tables
from fairdd.matching.augment import Draws, augment
from fairdd.datasets import get_dataset
from fairdd.datasets.base import GroupedImages
from fairdd.core.errors import UserError
from fairdd.run.tensorboard import Nothing, add_scalars, recorder
from fairdd.evaluation.metrics import summarize
from fairdd.flags import Flags
from fairdd.run.results import field_format, results, view
from fairdd.core.parallel import with_precision, set_precision
from fairdd.run.folder import EMBEDDING, Run, open_run, picture_name
from fairdd.matching.sampling import StratifiedSampler, RandomSampler
from fairdd.core.rng import seeded
from fairdd.core.errors import Interrupted, catch_termination
from fairdd.evaluation.training import TrainConfig, evaluate_networks, network_for

LOG_EVERY = 100         # iterations between losses in the log
SAVE_SECONDS = 120      # between saved states, if --save_every is not reached before


def distill(args, update, make_network, eval_pool):
    """The whole job of an entry: data, checks, num_exp distillations, results. Raises UserError."""
    with open_run(args) as run, catch_termination():
        if run.results is not None:
            run.log(f"{run.folder} holds this run, finished; nothing is left to do")
            return
        task = prepare(run, args, make_network, eval_pool)
        try:
            for experiment in range(len(task.sets), args.num_exp):
                syn, first = begin(task, experiment)
                with recorder(args, run.folder, experiment, first) as task.events:
                    distill_one(task, update, experiment, syn, first)
        except Interrupted:
            save(task)
            raise
        run.write_json(EMBEDDING, view(task, start(task, 0)))
        run.finish(results(task))
        run.log(f"{args.num_exp} synthetic set(s), results and pictures are in {run.folder}")


def distill_one(task, update, experiment, syn, first):
    """Distill one synthetic set: from its start, or from where it was stopped (iteration first), to the last update."""
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
    task.sets.append(syn.to_list())


def begin(task, experiment):
    """The synthetic set of an experiment and its next iteration: as saved, or at its start."""
    syn, state = start(task, experiment), task.run.state
    if state is None or state["experiment"] != experiment:
        save_picture(task, syn, experiment, 0)
        return syn, 0
    syn.restore(state)
    task.run.log(f"going on at iteration {state['iteration']} of experiment {experiment}")
    return syn, state["iteration"]


def init_synthetic(task, experiment):
    """The synthetic set of an experiment before its first iteration."""
    args = task.args
    key = (args.seed, "experiment", experiment)
    return synset.init_synthetic(task.real, args.ipc, args.init, args.lr_img, *key, factor=args.factor)


def save(task):
    """Write down where the run stands: at the head of an iteration."""
    if task.here:
        here = {name: value.cpu() if torch.is_tensor(value) else value for name, value in task.here.items()}
        task.events.flush()
        task.run.save_state(**here, sets=task.sets)


def evaluate(task, syn, experiment, iteration):
    """Test networks trained on the set as it is now, then save exactly this set, its picture and its figures."""
    evaluate_models(task, syn.as_dataset(), experiment, iteration)
    task.run.save_synthetic(field_format(task, syn))
    task.events.add_image("synthetic", save_picture(task, syn, experiment, iteration), iteration)


def save_picture(task, syn, experiment, iteration):
    """A picture of the set as it is now. -> its grid"""
    name, real = picture_name(experiment, iteration), task.real
    return task.run.save_picture(name, syn.to_list()[0], task.args.ipc, real.mean, real.std)


def evaluate_models(task, data, experiment, iteration):
    """Train networks of every model on data, test them, and say and keep what they came to."""
    for name in task.eval_pool:
        place = (experiment, iteration, name)
        figures = evaluate_model(task, data, *place)
        task.run.add_evaluation(place, figures)
        summary = summarize(figures)
        task.run.log(f"iteration {iteration} | {name} x {len(figures)} | {tables.figures_line(summary)}")
        add_scalars(task.events, name, iteration, figures)
        if alone := [f"{figure} {tables.cell(summary[figure])}" for figure in summary if "[" in figure]:
            task.run.log(f"each attribute alone | {' | '.join(alone)}")


def evaluate_model(task, data, *place):
    """The figures of all networks of a model, tested before or now. place: experiment, iteration, model"""
    name, networks = place[-1], task.run.networks
    places = [(*place, number) for number in range(task.args.num_eval)]
    missing = [one for one in places if one not in networks]
    new, recipe = functools.partial(task.new_network, name), evaluation_recipe(task.args, name)
    keys = [(task.args.seed, "evaluation", *one) for one in missing]
    for one, figures in zip(missing, evaluate_networks(new, data, task.test, recipe, keys, name), strict=True):
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

    @functools.cached_property
    def sampler(self):
        """What chooses the real images of a step."""
        if self.args.group_balance:
            return StratifiedSampler(self.real, self.args.batch_real, self.args.outer_loop or 1)
        return RandomSampler(self.real, self.args.batch_real)

    def network(self, name, *key):
        """A freshly initialized network on the device, its weights drawn from the key."""
        with seeded(*key, "weights"):
            return self.new_network(name)

    def new_network(self, name):
        return with_precision(self.args.precision, network_for(self.make_network, name, self.real))

    def real_batch(self, draws, *key):
        """batch_real images of every class (all, if it has fewer), drawn from the key. -> RealBatch"""
        return RealBatch(self.real, self.sampler.rows(*key), draws)


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
    set_precision(args.precision, args.device)
    run.log(textwrap.fill(", ".join(f"{name} {value}" for name, value in args.as_dict().items()), 110))
    data = load_data(args)
    real, test = data.train.to(args.device), data.test.to(args.device)
    task = Task(run, args, real, test, make_network, eval_pool, run.state["sets"] if run.state else [])
    preflight.check(task, data)
    run.begin(args, data)
    return task


def load_data(args):
    """The data set the flags ask for."""
    return get_dataset(
        args.dataset, args.data_path, data_seed=args.data_seed, im_size=args.im_size, skew=args.skew,
        target_attr=args.target_attr, protected_attr=args.protected_attr, labels=args.labels,
        skip_bad_images=args.skip_bad_images,
    )


def check_loss(loss, iteration):
    """Stop at a loss that is no number: everything after it would be lost."""
    if not math.isfinite(loss):
        raise UserError(f"the loss is {loss} at iteration {iteration}; a smaller --lr_img may help "
                        "(what was evaluated before is saved)")


def evaluation_recipe(args, model):
    """How evaluation networks are trained: as published for the method. DC augments for ConvNetBN alone."""
    if args.method == "DC" and model == "ConvNetBN":
        return TrainConfig(args.epoch_eval_augmented, args.lr_net, args.batch_train, "crop_noise")
    return TrainConfig(args.epoch_eval_train, args.lr_net, args.batch_train, args.dsa_strategy)
