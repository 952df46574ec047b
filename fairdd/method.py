"""A method is an object that its entry script owns: the update step, and everything the rest must know about it.

No file but the entry knows a method by its name. A new method is one Method and one update function.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from fairdd.core.errors import UserError


@dataclass(frozen=True)
class StepSize:
    """What the memory of a step depends on.

    layer_bytes: of every layer's output for one image; max_chunk: images per chunk; max_graph: synthetic images whose
    graph is kept at once; workers: threads; class_sizes: (C,) real images per class and step; syn_per_class: expanded
    synthetic images; needs_whole_batch: batch norm is present.
    """

    layer_bytes: list[int]
    max_chunk: int
    max_graph: int
    workers: int
    class_sizes: Tensor
    syn_per_class: int
    needs_whole_batch: bool


@dataclass(frozen=True)
class Method:
    """A distillation method.

    update: update(context, syn, *key) makes one iteration and returns its mean loss (a scalar tensor);
    distances: name -> function, the choices of --dis_metric, "ours" first;
    paper, quick: defaults of flags, as published and for minutes on a CPU (Colored_Digits); a value may be a function
    of the flags (method, dataset, ipc and align are set); eval_overrides: network name (or "*")
    -> fields of TrainConfig in which its evaluation differs. add_flags: adds the method's own flags to a parser;
    check_flags: raises UserError for flags that contradict the method, before defaults are filled in;
    min_memory: bytes that a step holds at the same time, at least; steps_per_iteration: batches of real images that an
    iteration sees; pixel_optimizer: (flags, number of classes, side of the images) -> learning rate, momentum of
    the pixels; unit_range: whether pixels are optimized in [0, 1] instead of normalized.
    What a method keeps from one iteration to the next, it puts into context.method_state, a dictionary of tensors,
    numbers and lists, which every checkpoint holds. After a resume its tensors are on the CPU.
    """

    name: str
    update: Callable[..., Tensor]
    distances: Mapping[str, Callable]
    paper: Mapping[str, object]
    quick: Mapping[str, object]
    add_flags: Callable[[Callable], None] = lambda add: None
    check_flags: Callable[[object], None] = lambda args: None
    min_memory: Callable[[StepSize], int] = lambda step: 0
    steps_per_iteration: Callable[[object], int] = lambda args: 1
    pixel_optimizer: Callable[[object, int, int], tuple[float, float]] = lambda args, *_: (args.lr_img, 0.5)
    unit_range: bool = False

    def check_distance(self, name: str) -> None:
        """Raise UserError if --dis_metric names a distance of another method."""
        if name not in self.distances:
            raise UserError(f"--dis_metric {name} is not supported by {self.name}; "
                            f"supported: {', '.join(self.distances)}")
