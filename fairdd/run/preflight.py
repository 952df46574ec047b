"""What is reported and refused before the first iteration, so that no hours are lost."""

import math
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from scipy.stats import hypergeom
from torch import Tensor, nn

from fairdd.core import parallel
from fairdd.core.errors import UserError
from fairdd.datasets.base import Dataset, GroupedImages
from fairdd.evaluation.metrics import empty_cells
from fairdd.matching import synset
from fairdd.matching.sampling import group_quotas
from fairdd.method import StepSize
from fairdd.run.context import Context
from fairdd.run.formatting import WIDTH, format_cell_range, format_counts

GIB = 2**30
FLOAT_BYTES = 4
SYNTHETIC_COPIES = 3        # the pixels, as they are augmented, and their gradient
RANDOM_LAYERS = (nn.modules.dropout._DropoutNd, nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)


def check(context: Context, data: Dataset) -> None:
    """Log what the data contain, then refuse what cannot work. Raises UserError."""
    log_cells(context, data)
    check_factor(data.train, context.args.factor)
    check_classes(data.train, context.args)
    log_subsampling(context, data.train)
    check_networks({context.args.model, *context.eval_pool}, context.build_network)
    check_memory(context)


def log_cells(context: Context, data: Dataset) -> None:
    """Log the (class, group) table, the empty cells, and how often the smallest is missing from a batch."""
    run, args = context.run, context.args
    lines = [*data.notes, format_counts(data.train), format_cell_range("test", data.test)]
    for split, images in (("training", data.train), ("test", data.test)):
        empty = empty_cells(images.counts(), images.class_names, images.group_names)
        if empty:
            lines.append(textwrap.fill(f"warning: no {split} image for (class, group) {', '.join(empty)}: "
                                       "left out there", WIDTH))
    lines.append(describe_smallest_cell(data.train, args.batch_real, args.group_balance))
    run.log("\n".join(lines), show=not args.quiet)


def describe_smallest_cell(train: GroupedImages, batch_real: int, group_balance: bool = False) -> str:
    """Return a sentence on the cell that is rarest within its class, and on the batches of this class."""
    counts = train.counts()
    share = counts.double().where(counts > 0, math.nan) / train.class_sizes()
    group, label = divmod(share.nan_to_num(2).argmin().item(), train.num_classes)
    cell, size = counts[group, label].item(), train.class_sizes()[label].item()
    batch = min(batch_real, size)
    name = f"smallest cell: ({train.class_names[label]}, {train.group_names[group]}), {cell} of {size} images; "
    if group_balance:
        return name + f"every batch of {batch} holds {group_quotas(counts[:, label], batch)[group]}"
    missing = prob_group_missing(size, cell, batch)
    return name + f"a batch of {batch} holds {batch * cell / size:.2g} on average, none with probability {missing:.2g}"


def prob_group_missing(size: int, cell: int, batch: int) -> float:
    """Return the probability that batch of size images, drawn without replacement, hold none of a cell."""
    return float(hypergeom.pmf(0, size, cell, batch))


def check_factor(train: GroupedImages, factor: int) -> None:
    """Raise UserError if the images cannot hold a grid of factor x factor."""
    height, width = train.images.shape[2:]
    if height % factor or width % factor:
        raise UserError(f"--factor {factor} does not divide images of {height} x {width} pixels; "
                        "use another, or an --im_size that it divides")


def check_classes(train: GroupedImages, args) -> None:
    """Raise UserError for a class without images, too small for ipc, or with more groups than a batch has images."""
    for name, size in zip(train.class_names, train.class_sizes().tolist(), strict=True):
        if size == 0:
            raise UserError(f"class {name!r} has no training image")
    if args.init != "noise":
        synset.check_ipc(train, args.ipc, args.factor)
        check_known(train, args)
    groups = (train.counts() > 0).sum(0).max().item()
    is_clustered = getattr(args, "cluster_every", None)
    if is_clustered and (size := train.class_sizes().min().item()) < args.batch_real:
        name = train.class_names[train.class_sizes().argmin()]
        raise UserError(f"--batch_real {args.batch_real} is the number of clusters of a class, and class {name!r} has "
                        f"only {size} images; use a smaller --batch_real")
    by_cell = is_clustered and args.cluster == "cell"
    if (args.group_balance or by_cell) and args.batch_real < groups:
        reason = "--cluster cell finds clusters" if by_cell else "--group_balance takes images"
        raise UserError(f"{reason} of every group: --batch_real must be at least {groups}")


def check_known(train: GroupedImages, args) -> None:
    """Raise UserError if the initial images are chosen by group and a class has too few whose group is known."""
    known, count = train.counts().sum(0), args.ipc * args.factor**2
    if (args.init == "balanced" or (args.init == "kmeans" and args.cluster == "cell")) and known.min() < count:
        raise UserError(f"--init {args.init} takes {count} images of known group, and class "
                        f"{train.class_names[known.argmin()]!r} has {known.min()}; use --init real")


def log_subsampling(context: Context, train: GroupedImages) -> None:
    """Log that cells, or classes, are too large for clustering, if a run clusters."""
    args, counts = context.args, train.counts()
    if args.init != "kmeans" and not getattr(args, "cluster_every", None):
        return
    what, sizes = ("(class, group)", counts) if args.cluster == "cell" else ("class", train.class_sizes())
    if (number := (sizes > args.max_clustered).sum().item()) > 0:
        context.run.log(f"clustering: of each {what} with more than {args.max_clustered} images, {number} here, "
                        f"{args.max_clustered} random ones are clustered (--max_clustered)", show=not args.quiet)


def check_networks(names: Iterable[str], build_network: Callable[[str], nn.Module]) -> None:
    """Raise UserError if a network does not fit the images or has layers that runs cannot use."""
    for name in names:
        try:
            net = build_network(name)
        except ValueError as error:
            raise UserError(str(error)) from None
        check_layers(name, net)


def check_layers(name: str, net: nn.Module) -> None:
    """Raise UserError for layers whose draws have no key, and for batch norm that always depends on the batch."""
    for path, module in net.named_modules():
        if isinstance(module, RANDOM_LAYERS) and getattr(module, "p", 1) > 0:
            reason = "draws random numbers, so no run could be repeated or resumed; remove it or set p=0"
        elif isinstance(module, parallel.BATCH_NORM) and module.running_mean is None:
            reason = "tests each image with the statistics of others; it needs track_running_stats=True"
        else:
            continue
        raise UserError(f"network {name}: {type(module).__name__} (layer {path!r}) {reason}")


def check_memory(context: Context) -> None:
    """Raise UserError if a step needs more memory than is free."""
    need, free = min_step_memory(context), free_memory(context.args.device)
    if free is not None and need > free:
        raise UserError(f"a step needs at least {need / GIB:.1f} GiB on {context.args.device}, {free / GIB:.1f} GiB "
                        "are free; a smaller --batch_real, --ipc or --im_size, or a narrower --model, needs less")


def min_step_memory(context: Context) -> int:
    """Return the bytes that a step holds at the same time, at least: the layer outputs of the chunks in progress."""
    args, real = context.args, context.real
    net = context.build_network(args.model)
    image = torch.zeros(1, *real.images.shape[1:], device=args.device)
    synthetic = SYNTHETIC_COPIES * real.num_classes * args.ipc * args.factor**2 * image.numel() * FLOAT_BYTES
    return max(synthetic, context.method.min_memory(StepSize(
        layer_bytes=layer_bytes(net, image), max_chunk=parallel.max_chunk_size(net, image),
        max_graph=parallel.max_graph_size(net, image), workers=parallel.worker_count(image.device),
        class_sizes=real.class_sizes().clamp(max=args.batch_real),
        syn_per_class=args.ipc * args.factor**2, needs_whole_batch=parallel.needs_whole_batch(net),
    )))


def layer_bytes(net: nn.Module, image: Tensor) -> list[int]:
    """Return the bytes of the output of every layer for one image (1, C, H, W)."""
    sizes = []
    layers = [module for module in net.modules() if not list(module.children())]
    handles = [layer.register_forward_hook(lambda _m, _i, out: sizes.append(out.numel() * FLOAT_BYTES))
               for layer in layers]
    training = net.training
    with torch.no_grad():
        net.eval()(image)
    net.train(training)
    for handle in handles:
        handle.remove()
    return sizes


def free_memory(device: str) -> int | None:
    """Return the free bytes of a device; None if the system does not tell."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if device != "cpu" or not meminfo.exists():
        return None
    return next(int(line.split()[1]) * 1024 for line in meminfo.read_text().splitlines() if "MemAvailable" in line)
