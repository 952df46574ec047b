"""What is said and refused before the first iteration, so that no hours are lost."""

import math
import textwrap
from pathlib import Path

import torch

from fairdd.core import parallel
from fairdd.matching import synset
from fairdd.report import tables
from fairdd.core.errors import UserError
from fairdd.evaluation.metrics import empty_cells
from fairdd.matching.sampling import group_quotas

GIB = 2**30
FLOAT = 4       # bytes


def check(task, data):
    """Say what was found in the data, then refuse what cannot work. Raises UserError."""
    say_cells(task.run, data, task.args)
    check_factor(data.train, task.args.factor)
    check_classes(data.train, task.args)
    check_networks({task.args.model, *task.eval_pool}, task.new_network)
    check_memory(task)


def say_cells(run, data, args):
    """The (class, group) table, which cells are empty, and how often the smallest will be missing from a batch."""
    run.log("\n".join([*data.notes, tables.cell_table(data.train), tables.cell_range("test", data.test)]))
    for part, images in (("training", data.train), ("test", data.test)):
        empty = empty_cells(images.counts(), images.class_names, images.group_names)
        if empty:
            words = f"warning: no {part} image for (class, group) {', '.join(empty)}: left out there"
            run.log(textwrap.fill(words, 110))
    run.log(describe_smallest_cell(data.train, args.batch_real, args.group_balance))


def describe_smallest_cell(train, batch_real, group_balance=False):
    """A sentence on the cell that is scarcest in its class, and on the batches of this class."""
    counts = train.counts()
    share = counts.double().where(counts > 0, math.nan) / counts.sum(0)
    group, label = divmod(share.nan_to_num(2).argmin().item(), train.num_classes)
    cell, size = counts[group, label].item(), counts[:, label].sum().item()
    batch = min(batch_real, size)
    words = f"scarcest cell: ({train.class_names[label]}, {train.group_names[group]}), {cell} of {size} images; "
    if group_balance:
        return words + f"every batch of {batch} holds {group_quotas(counts[:, label], batch)[group]}"
    none = prob_group_missing(size, cell, batch)
    return words + f"in a batch of {batch}, {batch * cell / size:.2g} are expected, none with chance {none:.2g}"


def prob_group_missing(size, cell, batch):
    """Probability that batch images, drawn without repetition out of size, hold none of cell of them."""
    if batch > size - cell:
        return 0.0
    ways = [math.lgamma(n + 1) - math.lgamma(n - batch + 1) for n in (size - cell, size)]
    return math.exp(ways[0] - ways[1])


def check_factor(train, factor):
    """A grid of images needs a side that it divides."""
    height, width = train.images.shape[2:]
    if height % factor or width % factor:
        raise UserError(f"--factor {factor} does not divide images of {height} x {width} pixels; "
                        "take another, or an --im_size that it divides")


def check_classes(train, args):
    """Every class needs an image to be matched to, and ipc of them to start from."""
    for name, size in zip(train.class_names, train.counts().sum(0).tolist(), strict=True):
        if size == 0:
            raise UserError(f"class {name!r} has no training image")
    if args.init != "noise":
        synset.check_ipc(train, args.ipc, args.factor)
    groups = (train.counts() > 0).sum(0).max().item()
    if args.group_balance and args.batch_real < groups:
        raise UserError(f"--group_balance takes images of every group: --batch_real must be at least {groups}")


def check_networks(names, new_network):
    """Every network of the run must fit the images. new_network(name) makes one for them."""
    for name in names:
        try:
            new_network(name)
        except ValueError as error:
            raise UserError(str(error)) from None


def check_memory(task):
    """Refuse a step that cannot fit: its least need against what is free."""
    need, free = min_step_memory(task), free_memory(task.args.device)
    if free is not None and need > free:
        raise UserError(f"a step needs at least {need / GIB:.1f} GiB on {task.args.device}, {free / GIB:.1f} GiB are "
                        "free; a smaller --batch_real, --ipc or --im_size, or a narrower --model, needs less")


def min_step_memory(task):
    """Bytes that a step holds at the same time, at least: the outputs of layers, for the parts under way (engine)."""
    args, real = task.args, task.real
    sizes = real.counts().sum(0).clamp(max=args.batch_real)     # images of each class in a batch
    net, image = task.new_network(args.model), torch.zeros(1, *real.images.shape[1:], device=args.device)
    layers, workers = layer_bytes(net, image), parallel.worker_count(image.device)
    part = parallel.max_chunk_size(net, image)                         # of real images, and of synthetic ones in DM
    decoded = args.ipc * args.factor**2                         # synthetic images of each class
    if args.method == "DM":     # real images without a graph: two layers at a time; synthetic ones with it
        synthetic = math.ceil(min(part, decoded * real.num_classes) / decoded) * decoded
        return max(2 * max(layers) * min(workers * part, sizes.sum().item()), sum(layers) * synthetic)
    whole = 2 * max(layers) * sizes.sum().item() if parallel.needs_whole_batch(net) else 0    # batch norm's statistics
    return max(whole, sum(layers) * max(min(workers * part, sizes.max().item()), 2 * decoded))


def layer_bytes(net, image):
    """Bytes of the output of every layer for one image (1, C, H, W)."""
    found = []
    layers = [module for module in net.modules() if not list(module.children())]
    handles = [layer.register_forward_hook(lambda _m, _i, out: found.append(out.numel() * FLOAT)) for layer in layers]
    with torch.no_grad():
        training = net.training
        net.eval()(image)
        net.train(training)
    for handle in handles:
        handle.remove()
    return found


def free_memory(device):
    """Free bytes of a device; None where the system does not tell."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    return next(int(line.split()[1]) * 1024 for line in meminfo.read_text().splitlines() if "MemAvailable" in line)
