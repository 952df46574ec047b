"""What several processes give: measured on this CPU, and modeled for 1 to 64 GPUs.

    python scripts/scaling.py --measure             # 2 ranks x 1 thread beside 1 process x 2 threads, interleaved
    python scripts/scaling.py --model               # a table on paper, from counts and assumed rates

Both commands print a table in Markdown (docs/scaling.md).
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent.parent))

import main_DC
import main_DM
from fairdd.core import distributed
from fairdd.evaluation.training import train_and_test
from fairdd.run.context import Context, evaluation_config
from fairdd.run.loop import initial_synset, load_data
from networks import get_network

SETTING = ["--dataset", "Colored_Digits", "--im_size", "32", "--model", "ConvNetW32", "--batch_real", "100", "--FairDD",
           "--num_eval", "4", "--epoch_eval_train", "30", "--device", "cpu"]
TASKS = ["a step of DM", "an outer loop of DC", "4 evaluation networks"]
GPUS = (1, 2, 4, 8, 16, 32, 64)
LAUNCH_SECONDS = 5e-6           # between kernels of a step that waits for its host
LAUNCHES = {"DM": 122, "DC": 1076}              # of a step, counted in tests/test_gpu_path.py
FLOPS_PER_SECOND = 20e12        # sustained in 32-bit convolutions of a current GPU
LINK_BYTES_PER_SECOND = 25e9    # of all-reduce, each way, between machines
LINK_SECONDS = 15e-6            # of an all-reduce of nothing, for each doubling of the ranks


def context_of(entry, *flags) -> tuple[Context, object]:
    """Return the context of a run without a folder, and its initial synthetic set."""
    method, args = entry.parse([*SETTING, *flags])
    data = load_data(args)
    context = Context(None, args, method, data.train, data.test, get_network, [])
    return context, initial_synset(context, 0)


def seconds_of_tasks() -> list[float]:
    """Return the seconds of each of TASKS on these ranks; the first of a few steps does not count."""
    (dm, dm_syn), (dc, dc_syn) = context_of(main_DM), context_of(main_DC, "--outer_loop", "1", "--inner_loop", "1")
    times = []
    for context, syn, repeats in ((dm, dm_syn, 6), (dc, dc_syn, 3)):
        seconds = []
        for iteration in range(repeats):
            start = time.perf_counter()
            context.method.update(context, syn, 0, "experiment", 0, iteration)
            seconds.append(time.perf_counter() - start)
        times.append(statistics.median(seconds[1:]))
    keys = [(0, "evaluation", number) for number in range(dm.args.num_eval)]
    config, start = evaluation_config(dm.args, "ConvNetW32"), time.perf_counter()
    tested = train_and_test(lambda: dm.build_network("ConvNetW32"), dm_syn.as_dataset(), dm.test, config,
                            distributed.share_of(keys))
    list(distributed.collect(keys, tested))
    distributed.from_rank_0()
    return [*times, time.perf_counter() - start]


def work(path: str) -> None:
    """Time the tasks on the ranks of this process and write the seconds."""
    with distributed.joined_ranks():
        seconds = seconds_of_tasks()
        if distributed.rank() == 0:
            Path(path).write_text(json.dumps(seconds))


def measure(repeats: int) -> None:
    """Run one process and two ranks in turn and print the times of each and their ratio, medians over repeats."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    ways, times = {"2": [], "1": launcher}, {"2": [], "1": []}           # by threads of each process
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats):
            for threads, extra in ways.items():
                path = f"{folder}/seconds.json"
                subprocess.run([sys.executable, *extra, __file__, "--work", path], check=True, capture_output=True,
                               env=os.environ | {"OMP_NUM_THREADS": threads})
                times[threads].append(json.loads(Path(path).read_text()))
    print("| | 1 process x 2 threads, s | 2 ranks x 1 thread, s | ratio |\n|---|---|---|---|")
    for number, task in enumerate(TASKS):
        process, ranks = ([seconds[number] for seconds in times[threads]] for threads in ("2", "1"))
        ratios = [b / a for a, b in zip(process, ranks, strict=True)]
        print(f"| {task} | {statistics.median(process):.2f} | {statistics.median(ranks):.2f} | "
              f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |")


def flops_of_image(backward: bool) -> float:
    """Return the operations of one image of 32 x 32 pixels in the paper's ConvNet: forward, or forward and backward."""
    net = get_network("ConvNet", 3, 10, (32, 32))
    images = torch.zeros(1, 3, 32, 32, requires_grad=backward)
    with FlopCounterMode(display=False) as counter:
        output = net(images).sum()
        if backward:
            output.backward()
    return counter.get_total_flops()


def step_seconds(method: str, gpus: int, classes: int = 10, groups: int = 10, ipc: int = 10, batch: int = 256) -> float:
    """Return the modeled seconds of a step of one method: kernels, at least as long as their launches, and all-reduces.

    The real images of DM are shared evenly; those of DC by class, and by image above one rank per class. The synthetic
    images are shared by class.
    """
    busiest, syn_share = math.ceil(classes / gpus) / classes, math.ceil(classes / min(gpus, classes)) / classes
    real_share = 1 / gpus if method == "DM" else busiest / max(1, gpus // classes)
    forward, both = flops_of_image(False), flops_of_image(True)
    numbers, pixels = sum(p.numel() for p in get_network("ConvNet", 3, 10, (32, 32)).parameters()), 3 * 32 * 32
    if method == "DM":
        flops = classes * (batch * forward * real_share + ipc * both * syn_share)
        sums = [classes * groups * 2048, classes * ipc * pixels]
    else:
        flops = classes * (batch * both * real_share + 3 * ipc * both * syn_share)       # the pass is differentiated
        sums = [classes * ipc * pixels] + [groups * numbers] * (gpus > classes)
    kernels = max(flops / FLOPS_PER_SECOND, LAUNCHES[method] * LAUNCH_SECONDS)
    return kernels + sum(all_reduce_seconds(4 * count, gpus) for count in sums)


def all_reduce_seconds(count: int, gpus: int) -> float:
    """Return the modeled seconds in which count bytes are summed over that many ranks (ring)."""
    return 0.0 if gpus == 1 else LINK_SECONDS * math.log2(gpus) + 2 * (gpus - 1) / gpus * count / LINK_BYTES_PER_SECOND


def model() -> None:
    """Print the modeled step times and speed-ups for the paper's setting."""
    print("| GPUs | DM step, ms | faster | DC outer loop, ms | faster | 20 evaluation networks, rounds |\n"
          "|---|---|---|---|---|---|")
    for gpus in GPUS:
        cells = []
        for method in ("DM", "DC"):
            seconds = step_seconds(method, gpus)
            cells += [f"{1e3 * seconds:.2f}", f"{step_seconds(method, 1) / seconds:.1f}"]
        print(f"| {gpus} | {' | '.join(cells)} | {math.ceil(20 / gpus)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--measure", action="store_true", help="time this machine's two ways")
    way.add_argument("--model", action="store_true", help="print the model for GPUs")
    way.add_argument("--work", metavar="FILE", help="time the tasks on these ranks into a file (what --measure starts)")
    parser.add_argument("--repeats", type=int, default=3, help="of each way; default: %(default)s")
    args = parser.parse_args()
    if args.work:
        work(args.work)
    else:
        measure(args.repeats) if args.measure else model()


if __name__ == "__main__":
    main()
