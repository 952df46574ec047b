"""Time FairDD against the reference implementation on the same inputs, after checking that both agree.

    python scripts/benchmark.py --out benchmark.json
    python scripts/benchmark.py --quick                     # small sizes, seconds: does it run, do both agree?
    python scripts/benchmark.py --growth docs/growth.png    # time of a FairDD step against the size of the problem

The reference is in reference_implementation.py. Times are interleaved A B A B; ratios are medians of pairs. The floor
of a row is the time of its operations at the measured rate of a matrix product, and that of the inputs and outputs of
its operations at the measured bandwidth of memory.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

sys.path.insert(0, str(Path(__file__).parent.parent))

from reference_implementation import (
    Problem,
    cafe_step,
    clusters,
    dc_step,
    dm_step,
    evaluation,
    idc_step,
    inner_loop,
    random_test_set,
    reference_cafe_step,
    reference_clusters,
    reference_dc_step,
    reference_dm_step,
    reference_evaluation,
    reference_idc_step,
    reference_inner_loop,
    reference_table,
)

from fairdd.core.compiled import CompiledNetwork
from fairdd.evaluation.metrics import accuracy_table

FULL = dict(model="ConvNet", side=32, batch=256, classes=10, networks=4, epochs=30, tests=1000)
REDUCED = FULL | dict(model="ConvNetW32", batch=100)        # the setting of docs/results.md
QUICK = dict(model="ConvNetD1W32", side=16, batch=12, classes=2, networks=2, epochs=1, tests=200)
GROWTH_SIZE, GROWTH_GROUPS = dict(model="ConvNetW32", side=32, batch=128, classes=4), 4
GROWTH = {
    "batch": (16, 32, 64, 128, 256, 512),
    "groups": (1, 2, 4, 10, 20, 40),
    "classes": (2, 5, 10, 20, 50, 100),
    "side": (16, 32, 64, 128),
}
AXIS_LABELS = {"batch": "real images per class", "groups": "groups", "classes": "classes", "side": "pixels per side"}
STEPS = {"DM + FairDD": dm_step, "DC + FairDD": dc_step}


def max_difference(size: dict) -> float:
    """Return the largest relative difference of losses and pixel gradients of both implementations, in float64."""
    small = size | dict(batch=min(size["batch"], 24), classes=min(size["classes"], 2))
    largest = 0.0
    for align in ("vanilla", "fairdd"):
        for step, reference_step in ((dm_step, reference_dm_step), (dc_step, reference_dc_step),
                                     (idc_step, reference_idc_step), (cafe_step, reference_cafe_step)):
            problem = Problem(small, 3, torch.float64)
            pairs = zip(step(problem, align), reference_step(problem, align), strict=True)
            largest = max(largest, *(((a - b).norm() / b.norm()).item() for a, b in pairs))
    assert largest < 1e-10, f"FairDD differs from the reference implementation by {largest}"
    return largest


def benchmark_rows(size: dict) -> dict[str, tuple[Callable, Callable, float]]:
    """Return, for each row, its two functions A and B and the ratio A / B to reach.

    A is the reference and B FairDD; in rows "vanilla/FairDD-G" A is vanilla and B FairDD with G groups; in rows
    "compiled-..." B is A with --compile.
    """
    problem, tables = Problem(size, 10), torch.randint(10, (3, 10_000), generator=torch.Generator().manual_seed(2))
    test = random_test_set(problem, size)
    rows = {
        "DM": (partial(reference_dm_step, problem, "vanilla"), partial(dm_step, problem, "vanilla"), 2),
        "DM+FairDD": (partial(reference_dm_step, problem, "fairdd"), partial(dm_step, problem, "fairdd"), 2),
        "inner": (partial(reference_inner_loop, problem), partial(inner_loop, problem), 1.2),
        "evaluation": (partial(reference_evaluation, problem, test, size),
                       partial(evaluation, problem, test, size), 1.5),
        "table": (partial(reference_table, *tables, 10, 10), partial(accuracy_table, *tables, 10, 10), 50),
        "DC+FairDD": (partial(reference_dc_step, problem, "fairdd"), partial(dc_step, problem, "fairdd"), 8),
        "IDC": (partial(reference_idc_step, problem, "vanilla"), partial(idc_step, problem, "vanilla"), 1),
        "IDC+FairDD": (partial(reference_idc_step, problem, "fairdd"), partial(idc_step, problem, "fairdd"), 1),
        "clusters": (partial(reference_clusters, problem), partial(clusters, problem), 1),
        "CAFE": (partial(reference_cafe_step, problem, "vanilla"), partial(cafe_step, problem, "vanilla"), 1),
        "CAFE+FairDD": (partial(reference_cafe_step, problem, "fairdd"), partial(cafe_step, problem, "fairdd"), 1),
        "vanilla/FairDD-IDC": (partial(idc_step, problem, "vanilla"), partial(idc_step, problem, "fairdd"), 1 / 1.1),
        "vanilla/FairDD-CAFE": (partial(cafe_step, problem, "vanilla"), partial(cafe_step, problem, "fairdd"), 1 / 1.1),
    }
    rows["vanilla/FairDD-DM"] = partial(dm_step, problem, "vanilla"), partial(dm_step, problem, "fairdd"), 1 / 1.15
    compiled = {"DM": partial(dm_step, problem, "fairdd"), "evaluation": partial(evaluation, problem, test, size)}
    for name, work in compiled.items():
        rows[f"compiled-{name}"] = work, partial(work, wrap=CompiledNetwork), 1
    for groups in (2, 4, 10):
        problem = Problem(size, groups)
        vanilla, fairdd = (partial(dc_step, problem, align) for align in ("vanilla", "fairdd"))
        rows[f"vanilla/FairDD-{groups}"] = vanilla, fairdd, 1 / 1.1
    return rows


def compare(size: dict, args: argparse.Namespace, result: dict) -> None:
    """Time the rows that are asked for; print and write each as soon as it is measured."""
    rates = matrix_rate(), bandwidth()
    result["machine"] |= dict(gflops=rates[0] / 1e9, gigabytes_per_second=rates[1] / 1e9)
    result |= dict(size=size, repeats=args.repeats, error=max_difference(size), rows={})
    print(f"{result['machine']}\n{size}\nlosses and pixel gradients agree to {result['error']:.1e}", flush=True)
    for name, (first, second, target) in benchmark_rows(size).items():
        if args.rows and name not in args.rows:
            continue
        floor = [amount / rate for amount, rate in zip(count_work(second), rates, strict=True)]     # also warms up,
        second()                                                    # and this compiles what is to be compiled
        pairs = [(seconds(first), seconds(second)) for _ in range(args.repeats)]
        ratio = statistics.median(a / b for a, b in pairs)
        a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
        result["rows"][name] = dict(seconds=pairs, ratio=ratio, target=target, floor=floor)
        print(f"{name:18} {a:9.4f} s {b:9.4f} s   ratio {ratio:7.2f}   target {target:.2f}   "
              f"floor {floor[0]:.4f} s of operations, {floor[1]:.4f} s of memory", flush=True)
        write(args.out, result)


def measure_growth(args: argparse.Namespace, result: dict) -> None:
    """Time FairDD's steps while one size grows and the others stay; plot the times."""
    print(f"{result['machine']}\n{GROWTH_SIZE}, {GROWTH_GROUPS} groups", flush=True)
    result |= dict(size=GROWTH_SIZE, groups=GROWTH_GROUPS, growth={title: {} for title in STEPS})
    for name, values in GROWTH.items():
        for value in values:
            groups, changes = (value, {}) if name == "groups" else (GROWTH_GROUPS, {name: value})
            problem = Problem(GROWTH_SIZE | changes, groups)
            for title, step in STEPS.items():
                step(problem, "fairdd")                             # warms up
                times = [seconds(partial(step, problem, "fairdd")) for _ in range(args.repeats)]
                result["growth"][title].setdefault(name, []).append(statistics.median(times))
            summary = "   ".join(f"{title} {result['growth'][title][name][-1]:.3f} s" for title in STEPS)
            print(f"{AXIS_LABELS[name]:22} {value:4}   {summary}", flush=True)
        write(args.out, result)
    plot(result["growth"], args.growth)


def plot(growth: dict, path: Path) -> None:
    """Save one panel per size, both axes logarithmic: a line of slope 1 grows in proportion."""
    from matplotlib.figure import Figure

    fig = Figure((10, 3), layout="constrained")
    for axes, (name, values) in zip(fig.subplots(1, len(GROWTH), sharey=True), GROWTH.items(), strict=True):
        for title in STEPS:
            axes.loglog(values, growth[title][name], marker="o", label=title)
        axes.set(xlabel=AXIS_LABELS[name], xticks=values, xticklabels=values)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    fig.axes[0].set_ylabel("seconds per step")
    fig.axes[0].legend()
    fig.savefig(path, dpi=120)


def seconds(work: Callable) -> float:
    """Return the wall-clock time of work()."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class OperationCounter(TorchDispatchMode):
    """Counts floating-point operations, and the bytes of the inputs and outputs of every operation."""

    operations = bytes = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        output = operation(*args, **(kwargs or {}))
        if operation._overloadpacket in flop_registry:
            self.operations += flop_registry[operation._overloadpacket](*args, **(kwargs or {}), out_val=output)
        tensors = (leaf for leaf in tree_leaves((args, kwargs, output)) if torch.is_tensor(leaf))
        self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return output


def count_work(work: Callable) -> tuple[int, int]:
    """Return the floating-point operations and bytes of work(), counted in a single thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with OperationCounter() as counter:
        work()
    torch.set_num_threads(threads)
    return counter.operations, counter.bytes


def matrix_rate(side: int = 2048) -> float:
    """Return floating-point operations per second of a product of square matrices, the best of five."""
    a, b = torch.randn(2, side, side)
    return 2 * side**3 / min(seconds(lambda: a @ b) for _ in range(5))


def bandwidth(count: int = 2**27) -> float:
    """Return bytes per second read and written by a copy, the best of five."""
    a, b = torch.zeros(2, count)
    return 2 * 4 * count / min(seconds(lambda: b.copy_(a)) for _ in range(5))


def write(path: Path | None, result: dict) -> None:
    if path:
        path.write_text(json.dumps(result, indent=1) + "\n")


def describe_machine() -> dict[str, object]:
    """Return the CPU's name, torch's number of threads and its version."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
    return dict(cpu=model, threads=torch.get_num_threads(), torch=torch.__version__)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--reduced", action="store_true", help="width 32 and 100 real images per class")
    parser.add_argument("--rows", nargs="+", help="names of rows (default: all)")
    parser.add_argument("--growth", type=Path, metavar="PNG", help="plot how the time of a FairDD step grows instead")
    parser.add_argument("--repeats", type=int, default=3, help="pairs of times per row")
    parser.add_argument("--classes", type=int, help="number of classes (default: 10; 2 with --quick)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    if args.growth:
        measure_growth(args, dict(machine=describe_machine()))
    else:
        size = QUICK if args.quick else REDUCED if args.reduced else FULL
        compare(size | ({"classes": args.classes} if args.classes else {}), args, dict(machine=describe_machine()))


if __name__ == "__main__":
    main()
