"""Time of our way against the published way of doing it, on the same inputs, after checking that both agree.

    python scripts/benchmark.py --out benchmark.json
    python scripts/benchmark.py --quick                     # small sizes, seconds: does it run, do both agree?
    python scripts/benchmark.py --growth docs/growth.png    # time of our step against the size of the problem

The published way is in reference_implementation.py. Times are interleaved A B A B, ratios are medians of pairs. The floor of a row
is what its operations take at the measured rate of a matrix product, and what the inputs and outputs of its operations
take at the measured bandwidth of memory.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

sys.path.insert(0, str(Path(__file__).parent.parent))

from reference_implementation import (
    Scene,
    our_dc,
    our_dm,
    our_evaluation,
    our_inner,
    published_dc,
    published_dm,
    published_evaluation,
    published_inner,
    published_table,
    test_set,
)

from fairdd.evaluation.metrics import accuracy_table

FULL = dict(model="ConvNet", side=32, batch=256, classes=10, networks=4, epochs=30, tests=1000)
QUICK = dict(model="ConvNetD1W32", side=16, batch=12, classes=2, networks=2, epochs=1, tests=200)
GROWING = dict(model="ConvNetW32", side=32, batch=128, classes=4), 4        # and the number of groups
GROWTH = {
    "batch": (16, 32, 64, 128, 256, 512),
    "groups": (1, 2, 4, 10, 20, 40),
    "classes": (2, 5, 10, 20, 50, 100),
    "side": (16, 32, 64, 128),
}
WORDS = {"batch": "real images per class", "groups": "groups", "classes": "classes", "side": "pixels per side"}
STEPS = {"DM + FairDD": our_dm, "DC + FairDD": our_dc}


def check(size):
    """The largest relative difference of loss and pixel gradient between both ways, in float64."""
    small = size | dict(batch=min(size["batch"], 24), classes=min(size["classes"], 2))
    worst = 0.0
    for align in ("vanilla", "fairdd"):
        for ours, published in ((our_dm, published_dm), (our_dc, published_dc)):
            scene = Scene(small, 3, torch.float64)
            pairs = zip(ours(scene, align), published(scene, align), strict=True)
            worst = max(worst, *(((a - b).norm() / b.norm()).item() for a, b in pairs))
    assert worst < 1e-10, f"ours differs from the published way by {worst}"
    return worst


def rows(size):
    """name -> (the published way, ours, the ratio to reach). For a share of vanilla: (vanilla, FairDD, 1 / 1.1)."""
    scene, answers = Scene(size, 10), torch.randint(10, (3, 10_000), generator=torch.Generator().manual_seed(2))
    test = test_set(scene, size)
    found = {
        "DM": (lambda: published_dm(scene, "vanilla"), lambda: our_dm(scene, "vanilla"), 2),
        "DM+FairDD": (lambda: published_dm(scene, "fairdd"), lambda: our_dm(scene, "fairdd"), 2),
        "inner": (lambda: published_inner(scene), lambda: our_inner(scene), 1.2),
        "evaluation": (lambda: published_evaluation(scene, test, size), lambda: our_evaluation(scene, test, size), 1.5),
        "table": (lambda: published_table(*answers, 10, 10), lambda: accuracy_table(*answers, 10, 10), 50),
        "DC+FairDD": (lambda: published_dc(scene, "fairdd"), lambda: our_dc(scene, "fairdd"), 8),
    }
    for groups in (2, 4, 10):
        one = Scene(size, groups)
        found[f"vanilla/FairDD-{groups}"] = (
            lambda one=one: our_dc(one, "vanilla"), lambda one=one: our_dc(one, "fairdd"), 1 / 1.1)
    return found


def compare(size, args, result):
    """Time the rows that are asked for, print each and write it down at once."""
    rates = matrix_rate(), bandwidth()
    result["machine"] |= dict(gflops=rates[0] / 1e9, gigabytes_per_second=rates[1] / 1e9)
    result |= dict(size=size, repeats=args.repeats, error=check(size), rows={})
    print(f"{result['machine']}\n{size}\nloss and pixel gradient agree to {result['error']:.1e}", flush=True)
    for name, (published, ours, target) in rows(size).items():
        if args.rows and name not in args.rows:
            continue
        floor = [amount / rate for amount, rate in zip(work_of(ours), rates, strict=True)]      # warms up, too
        pairs = [(seconds(published), seconds(ours)) for _ in range(args.repeats)]
        ratio = statistics.median(a / b for a, b in pairs)
        a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
        result["rows"][name] = dict(seconds=pairs, ratio=ratio, target=target, floor=floor)
        print(f"{name:18} {a:9.4f} s {b:9.4f} s   ratio {ratio:7.2f}   to reach {target:.2f}   "
              f"floor {floor[0]:.4f} s of operations, {floor[1]:.4f} s of memory", flush=True)
        write(args.out, result)


def grow(args, result):
    """Time of our step when one size grows and the others stay; a plot of it."""
    base, groups = GROWING
    print(f"{result['machine']}\n{base}, {groups} groups", flush=True)
    result |= dict(size=base, groups=groups, growth={})
    for name, values in GROWTH.items():
        for value in values:
            size = base | {name: value} if name != "groups" else base
            scene = Scene(size, value if name == "groups" else groups)
            for title, step in STEPS.items():
                seconds(lambda: step(scene, "fairdd"))              # noqa: B023  called at once
                times = [seconds(lambda: step(scene, "fairdd")) for _ in range(args.repeats)]       # noqa: B023
                result["growth"].setdefault(title, {}).setdefault(name, []).append(statistics.median(times))
            found = "   ".join(f"{title} {result['growth'][title][name][-1]:.3f} s" for title in STEPS)
            print(f"{WORDS[name]:22} {value:4}   {found}", flush=True)
        write(args.out, result)
    plot(result["growth"], args.growth)


def plot(growth, path):
    """One panel for each size, both axes logarithmic: a line of slope 1 grows in proportion."""
    from matplotlib.figure import Figure

    figure = Figure((10, 3), layout="constrained")
    for axes, (name, values) in zip(figure.subplots(1, len(GROWTH), sharey=True), GROWTH.items(), strict=True):
        for title in STEPS:
            axes.loglog(values, growth[title][name], marker="o", label=title)
        axes.set(xlabel=WORDS[name], xticks=values, xticklabels=values)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("seconds per step")
    figure.axes[0].legend()
    figure.savefig(path, dpi=120)


def seconds(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Count(TorchDispatchMode):
    """Inside, counts floating-point operations, and the bytes of the inputs and outputs of every operation."""

    operations = bytes = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        output = operation(*args, **(kwargs or {}))
        if operation._overloadpacket in flop_registry:
            self.operations += flop_registry[operation._overloadpacket](*args, **(kwargs or {}), out_val=output)
        tensors = (leaf for leaf in tree_leaves((args, kwargs, output)) if torch.is_tensor(leaf))
        self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return output


def work_of(work):
    """Floating-point operations and bytes of a piece of work, counted in a single thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with Count() as count:
        work()
    torch.set_num_threads(threads)
    return count.operations, count.bytes


def matrix_rate(side=2048):
    """Floating-point operations per second of a product of square matrices, the best of five."""
    a, b = torch.randn(2, side, side)
    return 2 * side**3 / min(seconds(lambda: a @ b) for _ in range(5))


def bandwidth(count=2**27):
    """Bytes per second read and written by a copy, the best of five."""
    a, b = torch.zeros(2, count)
    return 2 * 4 * count / min(seconds(lambda: b.copy_(a)) for _ in range(5))


def write(path, result):
    if path:
        path.write_text(json.dumps(result, indent=1) + "\n")


def machine():
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
    return dict(cpu=model, threads=torch.get_num_threads(), torch=torch.__version__)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--rows", nargs="+", help="names of rows (default: all)")
    parser.add_argument("--growth", type=Path, metavar="PNG", help="time how our step grows instead; its plot")
    parser.add_argument("--repeats", type=int, default=3, help="pairs of times per row")
    parser.add_argument("--classes", type=int, help="number of classes (default: 10; 2 with --quick)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    if args.growth:
        grow(args, dict(machine=machine()))
    else:
        size = (QUICK if args.quick else FULL) | ({"classes": args.classes} if args.classes else {})
        compare(size, args, dict(machine=machine()))


if __name__ == "__main__":
    main()
