"""What is said and refused before the first iteration, so that no hours are lost."""

import math
import textwrap
from pathlib import Path

import torch

from fairdd import synset, tables
from fairdd.errors import UserError
from fairdd.fairness import empty_cells

GIB = 2**30
FLOAT = 4       # bytes


def check(task, data):
    """Say what was found in the data, then refuse what cannot work. Raises UserError."""
    say_cells(task.run, data, task.args.batch_real)
    check_classes(data.train, task.args)
    check_networks(task)
    check_memory(task)


def say_cells(run, data, batch_real):
    """The (class, group) table, which cells are empty, and how often the smallest will be missing from a batch."""
    run.log("\n".join([*data.notes, tables.cell_table(data.train), tables.cell_range("test", data.test)]))
    for part, images in (("training", data.train), ("test", data.test)):
        empty = empty_cells(images.counts(), images.class_names, images.group_names)
        if empty:
            words = f"warning: no {part} image for (class, group) {', '.join(empty)}: left out there"
            run.log(textwrap.fill(words, 110))
    run.log(rarest(data.train, batch_real))


def rarest(train, batch_real):
    """A sentence on the cell that is scarcest in the batches of its class."""
    counts = train.counts()
    share = counts.double().where(counts > 0, math.nan) / counts.sum(0)
    group, label = divmod(share.nan_to_num(2).argmin().item(), train.num_classes)
    cell, size = counts[group, label].item(), counts[:, label].sum().item()
    batch = min(batch_real, size)
    none = chance_of_none(size, cell, batch)
    return (f"scarcest cell: ({train.class_names[label]}, {train.group_names[group]}), {cell} of {size} images; "
            f"in a batch of {batch}, {batch * cell / size:.2g} are expected, none with chance {none:.2g}")


def chance_of_none(size, cell, batch):
    """Probability that batch images, drawn without repetition out of size, hold none of cell of them."""
    if batch > size - cell:
        return 0.0
    ways = [math.lgamma(n + 1) - math.lgamma(n - batch + 1) for n in (size - cell, size)]
    return math.exp(ways[0] - ways[1])


def check_classes(train, args):
    """Every class needs an image to be matched to, and ipc of them to start from."""
    for name, size in zip(train.class_names, train.counts().sum(0).tolist(), strict=True):
        if size == 0:
            raise UserError(f"class {name!r} has no training image")
    if args.init != "noise":
        synset.check_ipc(train, args.ipc)


def check_networks(task):
    """Every network of the run must fit the images."""
    for name in {task.args.model, *task.eval_pool}:
        try:
            task.new_network(name)
        except ValueError as error:
            raise UserError(str(error)) from None


def check_memory(task):
    """Refuse a step that cannot fit: its least need against what is free."""
    need, free = least_memory(task), free_memory(task.args.device)
    if free is not None and need > free:
        raise UserError(f"a step needs at least {need / GIB:.1f} GiB on {task.args.device}, {free / GIB:.1f} GiB are "
                        "free; a smaller --batch_real, --ipc or --im_size, or a narrower --model, needs less")


def least_memory(task):
    """Bytes that a step holds at the same time, at least: images, activations, the gradient's graph."""
    args, real = task.args, task.real
    sizes = real.counts().sum(0).clamp(max=args.batch_real)     # images of each class in a batch
    image = math.prod(real.images.shape[1:]) * FLOAT
    layers = layer_bytes(task.new_network(args.model), real.images.shape[1:])
    if args.method == "DM":     # real images without a graph: two layers at a time; synthetic ones with it
        step = 2 * max(layers) * sizes.sum().item() + sum(layers) * args.ipc * real.num_classes
    else:                       # one class at a time, with a graph
        step = sum(layers) * max(sizes.max().item(), 2 * args.ipc)
    return step + 2 * image * sizes.sum().item()


def layer_bytes(net, shape):
    """Bytes of the output of every layer for one image of this shape."""
    found = []
    layers = [module for module in net.modules() if not list(module.children())]
    handles = [layer.register_forward_hook(lambda _m, _i, out: found.append(out.numel() * FLOAT)) for layer in layers]
    with torch.no_grad():
        net.eval()(torch.zeros(1, *shape, device=next(net.parameters()).device))
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
