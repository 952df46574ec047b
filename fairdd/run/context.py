"""What a step of any method needs: the flags, the real images of the step, new networks."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from fairdd.core.ahead import Ahead, at_once
from fairdd.core.compiled import CompiledNetwork
from fairdd.core.device import upload_network
from fairdd.core.parallel import with_precision
from fairdd.core.rng import seeded
from fairdd.datasets import DATASETS
from fairdd.datasets.base import GroupedImages
from fairdd.evaluation.training import TrainConfig
from fairdd.flags import Flags
from fairdd.matching.alignment import ALIGNMENTS, Targets, targets_of_each
from fairdd.matching.augment import Draws, augment
from fairdd.matching.clustering import representatives
from fairdd.matching.embedding import embeddings
from fairdd.matching.sampling import RandomSampler, StratifiedSampler
from fairdd.method import Method
from fairdd.run.folder import RunFolder
from fairdd.run.selection import Selected
from fairdd.run.tensorboard import NullWriter

DIGITS = {name for name in DATASETS if name.startswith(("Colored_MNIST", "Colored_Digits"))}    # IDC does not flip them


@dataclass
class Context:
    """A run in progress.

    real, test: the data on the device; make_network(name, channels, classes, im_size); eval_pool: names of networks to
    test with; synsets: [images, labels] of each finished experiment; method_state: what the method keeps from one
    iteration to the next; losses: by iteration, those that were not logged yet; resume_state: where the current
    experiment stands, as saved in a checkpoint; writer: of TensorBoard. With --select val: val: the validation images;
    selected: the best set of the current experiment so far; selections: what was selected in the finished ones.
    """

    run: RunFolder
    args: Flags
    method: Method | None
    real: GroupedImages
    test: GroupedImages
    make_network: Callable
    eval_pool: list[str]
    synsets: list = field(default_factory=list)
    method_state: dict = field(default_factory=dict)
    losses: dict[int, Tensor] = field(default_factory=dict)
    resume_state: dict = field(default_factory=dict)
    writer: object = field(default_factory=NullWriter)
    val: GroupedImages | None = None
    selected: Selected | None = None
    selections: list[dict] = field(default_factory=list)

    @functools.cached_property
    def sampler(self) -> RandomSampler | StratifiedSampler:
        """The sampler of real images."""
        if self.args.group_balance:
            steps = self.method.steps_per_iteration(self.args)
            return StratifiedSampler(self.real, self.args.batch_real, steps)
        return RandomSampler(self.real, self.args.batch_real)

    def init_network(self, name: str, *key) -> nn.Module:
        """Return a new network on the device, its weights drawn from the key."""
        return self.to_device(self.ahead(self.draw_network, *key, name))

    def draw_network(self, *key_and_name) -> nn.Module:
        """Return a new network on the host. key_and_name: the key of its weights, and its name"""
        *key, name = key_and_name
        with seeded(*key, "weights"):
            return make_network(self.make_network, name, self.real)

    def build_network(self, name: str) -> nn.Module:
        """Return a new network for the images and classes of the data, its weights from torch's global generator."""
        return self.to_device(make_network(self.make_network, name, self.real))

    def compiled(self, net: nn.Module) -> nn.Module:
        """Return the network, with --compile a compiled one."""
        return CompiledNetwork(net) if self.args.compile else net

    def to_device(self, net: nn.Module) -> nn.Module:
        """Return a network on the device of the data, computing in the precision of the flags."""
        return with_precision(self.args.precision, upload_network(net, self.real.device))

    @functools.cached_property
    def ahead(self) -> Callable:
        """Calls functions of a key, on a GPU an iteration ahead."""
        return at_once if self.real.device.type == "cpu" else Ahead()

    def real_batch(self, draws: Draws | None, *key) -> "RealBatch":
        """Return batch_real images of every class (all, if it has fewer), drawn from the key."""
        return RealBatch(self.real, self.ahead(self.sampler.rows, *key), draws)

    def targets(self, real: "RealBatch") -> Targets:
        """Return what the synthetic images of every class are matched to, given the real images of a step."""
        align = ALIGNMENTS[self.args.align]
        if self.args.groups_of == "each":
            return targets_of_each(align, real.labels, real.groups, [len(names) for _, names in self.real.attributes])
        return align(real.labels, real.groups)

    def representatives(self, *key, label: int, count: int, net: nn.Module | None = None) -> Tensor:
        """Return count rows of a class that represent it, by k-means on embeddings of net (default: a new network).

        With --cluster cell every group has an equal share of the clusters.
        """
        net = net or self.init_network(self.args.model, *key, "init")

        def embed(rows: Tensor) -> Tensor:
            return embeddings(net, RealBatch(self.real, rows, None))

        by_group = self.args.cluster == "cell"
        return representatives(self.real, embed, label, count, by_group, *key, max_clustered=self.args.max_clustered)


@dataclass(frozen=True)
class RealBatch:
    """Real images that are augmented when they are indexed, so that never all are in memory: batch[index] (., C, H, W).

    rows: (B,) of data; draws: one augmentation per class, or None.
    """

    data: GroupedImages
    rows: Tensor
    draws: Draws | tuple[Draws, ...] | None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        rows = self.rows[index]
        return augment(self.data.batch(rows), self.draws, self.data.labels[rows])

    @property
    def example(self) -> Tensor:
        """A tensor like one of the images. (1, C, H, W)"""
        return torch.empty(1, *self.data.images.shape[1:], device=self.data.device)

    @property
    def labels(self) -> Tensor:
        return self.data.labels[self.rows]

    @property
    def groups(self) -> Tensor:
        return self.data.batch_groups(self.rows)


def make_network(factory: Callable, name: str, data: GroupedImages) -> nn.Module:
    """Return a new network of this name for the images and classes of data, on the host."""
    channels, *size = data.images.shape[1:]
    return factory(name, channels, data.num_classes, tuple(size))


def evaluation_config(args: Flags, model: str) -> TrainConfig:
    """Return how evaluation networks of this name are trained: the flags, and what the method overrides for it."""
    config = TrainConfig(args.epoch_eval_train, args.lr_net, args.batch_train, args.dsa_strategy)
    if args.eval_recipe == "idc":
        flip = "" if args.dataset in DIGITS else "_flip"
        return replace(config, batch_size=64, strategy=f"color_crop{flip}_scale_rotate", cutmix=0.5, schedule="idc")
    return replace(config, **args.eval_overrides.get(model, args.eval_overrides.get("*", {})))
