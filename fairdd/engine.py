"""How work is cut and spread, by device: on the CPU parts that fit the cache, over worker threads; elsewhere whole.

One operation over two cores waits for memory: its maps are far larger than a cache. Two threads that each take small
parts of the batch through the whole network keep them there (docs/performance.md). The results of parts are put
together in their order, so the same number of threads gives the same bytes.
"""

import functools
import os
import sys
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import chain, islice, pairwise

import torch
from torch import nn

PART_BYTES = {"cpu": 8 * 2**20, "cuda": 2**30}      # of the first map of a part: a cache, or a bound on memory
current = threading.local()                         # .stop: what tells the work of this thread to end


class Abandoned(Exception):
    """Raised in a worker thread whose result nobody waits for any more."""


def in_order(work, items, device):
    """work(item) of each item, on the CPU by as many worker threads as torch has threads. -> yields results, in order

    Items are taken in the calling thread, one more than there are workers ahead of the reader. In a worker, with one
    thread, for a single item, or on another device, everything happens in the calling thread.
    """
    items, workers = iter(items), worker_count(device)
    taken = list(islice(items, 2)) if workers > 1 else []
    items = chain(taken, items)
    if len(taken) < 2:
        yield from map(unless_stopped(work), items)
        return
    stop, pending = threading.Event(), deque()
    try:
        for item in items:
            pending.append(pool(workers).submit(in_worker, stop, work, item))
            if len(pending) > workers:
                yield pending[0].result()
                pending.popleft()
        while pending:
            yield pending[0].result()
            pending.popleft()
    finally:                        # also when the reader wants no more, or a signal came
        stop.set()
        for future in pending:
            future.cancel()
        wait(pending)


def worker_count(device):
    """How many threads share the work: as many as torch has on the CPU; a GPU spreads it by itself."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def in_worker(stop, work, item):
    """work(item) in a worker thread; in_order within it raises Abandoned as soon as stop is set."""
    current.stop = stop
    return work(item)


def unless_stopped(work):
    """The same work, but Abandoned is raised where nobody waits for this thread any more."""
    stop = getattr(current, "stop", None)

    def checked(item):
        if stop and stop.is_set():
            raise Abandoned
        return work(item)

    return checked


@functools.cache
def pool(workers):
    """Worker threads of one intra-op thread each, made once. (torch keeps that number for each thread by itself.)"""
    return ThreadPoolExecutor(workers, "worker", initializer=torch.set_num_threads, initargs=(1,))


os.register_at_fork(after_in_child=pool.cache_clear)    # a forked process has no threads but its own


def part_size(net, image):
    """How many images like image (1, C, H, W) a part should hold at most."""
    if needs_whole_batch(net):
        return sys.maxsize
    first = next(net.parameters(), image)
    pixels = image.shape[-2] * image.shape[-1] if first.ndim == 4 else 1
    numbers = max(image.numel(), len(first) * pixels)           # of the image, or of the first layer's map
    return max(1, PART_BYTES[image.device.type] // (numbers * image.element_size()))


def needs_whole_batch(net):
    """Whether what the network gives for one image depends on the others: batch norm in training."""
    return any(isinstance(module, nn.BatchNorm2d) and module.training for module in net.modules())


def parts(count, size):
    """The rows 0..count in consecutive parts of nearly equal length, at most size. -> list of slices"""
    number = -(-count // size)
    ends = [count * place // number for place in range(number + 1)]
    return [slice(*pair) for pair in pairwise(ends)]


def total(gradients):
    """The sum of gradients, each a list of tensors, added in their order. -> list of tensors"""
    gradients = iter(gradients)
    sums = next(gradients)
    for gradient in gradients:
        sums = [one + more for one, more in zip(sums, gradient, strict=True)]
    return sums


class Known(torch.autograd.Function):
    """A loss whose gradient with respect to images is known already: Known.apply(images, loss, gradient) -> loss."""

    @staticmethod
    def forward(ctx, images, loss, gradient):
        ctx.save_for_backward(gradient)
        return loss.clone()

    @staticmethod
    def backward(ctx, slope):
        return slope * ctx.saved_tensors[0], None, None
