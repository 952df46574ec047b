"""How work is divided: on a CPU into chunks that fit the cache, for worker threads to process; on a GPU not at all.

A single operation spread over two cores waits for memory, because its feature maps are far larger than the cache. Two
threads that each take small chunks of the batch through the whole network keep the maps in the cache
(docs/performance.md). Results are combined in order, so the same number of threads gives the same bytes.
"""

import ctypes
import functools
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import chain, islice, pairwise

import torch
from torch import Tensor, nn

from fairdd.core.errors import UserError

CHUNK_BYTES = {"cpu": 8 * 2**20, "cuda": 2**30}     # of a chunk's first feature map: fits the cache; bounds memory
GRAPH_BYTES = 2**28         # of the first feature map of images whose graph is kept at once; more are taken in parts
BATCH_NORM = nn.modules.batchnorm._BatchNorm        # BatchNorm1d to 3d, SyncBatchNorm, ...
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3         # of mallopt, in malloc.h
PRECISIONS = ("fp32", "tf32", "bf16")
worker_state = threading.local()                    # .stop: the event that tells this thread's work to end


class Cancelled(Exception):
    """Raised in a worker thread whose result is no longer wanted."""


def ordered_map(fn: Callable, items: Iterable, device: torch.device) -> Iterator:
    """Yield fn(item) for each item, in order; on a CPU in as many worker threads as torch has threads.

    Items are taken in the calling thread, at most one more than there are workers ahead of the consumer. Inside a
    worker, with one thread, for a single item, or on another device, everything happens in the calling thread.
    """
    items, workers = iter(items), worker_count(device)
    taken = list(islice(items, 2)) if workers > 1 else []
    items = chain(taken, items)
    if len(taken) < 2:
        yield from map(cancellable(fn), items)
        return
    stop, pending = threading.Event(), deque()
    try:
        for item in items:
            pending.append(thread_pool(workers).submit(run_in_worker, stop, fn, item))
            if len(pending) > workers:
                yield pending[0].result()
                pending.popleft()
        while pending:
            yield pending[0].result()
            pending.popleft()
    finally:                        # also when the consumer stops early or a signal arrives
        stop.set()
        for future in pending:
            future.cancel()
        wait(pending)


def map_chunks(fn: Callable, segments: Sequence[Tensor], net: nn.Module, image: Tensor,
               merge: bool = False) -> Iterator:
    """Yield fn(rows) for each chunk of rows, in order, in worker threads.

    segments: row indices (n,) of each segment; image: (1, C, H, W), one of the images that fn gives to the network.
    A segment is cut into chunks of nearly equal length that the network can process at once. With merge=True segments
    stay whole, and consecutive small ones share a chunk.
    """
    size = max_chunk_size(net, image)
    yield from ordered_map(fn, merge_segments(segments, size) if merge else cut_segments(segments, size), image.device)


def example(images) -> Tensor:
    """Return one of the images, or a tensor like one. images: (B, C, H, W) or an object indexed like it -> (1, C, H, W)

    An object that computes images when it is indexed may have it as an attribute.
    """
    return images[:1] if isinstance(images, Tensor) else images.example if hasattr(images, "example") else images[:1]


def cut_segments(segments: Sequence[Tensor], size: int) -> list[Tensor]:
    """Cut every segment into chunks of nearly equal length, at most size."""
    return [rows[chunk] for rows in segments for chunk in chunk_slices(len(rows), size)]


def merge_segments(segments: Sequence[Tensor], size: int) -> list[Tensor]:
    """Join consecutive segments into chunks of about size rows; a segment is never cut."""
    chunks, start = {}, 0
    for rows in segments:
        chunks.setdefault(start // size, []).append(rows)
        start += len(rows)
    return [torch.cat(chunk) for chunk in chunks.values()]


def chunk_slices(count: int, size: int) -> list[slice]:
    """Split the rows 0..count into consecutive slices of nearly equal length, at most size."""
    number = max(-(-count // size), 1)
    ends = [count * index // number for index in range(number + 1)]
    return [slice(*pair) for pair in pairwise(ends)] if count else []


def sum_gradients(gradients: Iterable[Sequence[Tensor]]) -> list[Tensor]:
    """Sum gradients (lists of tensors, one per parameter) in order."""
    gradients = iter(gradients)
    total = next(gradients)
    for gradient in gradients:
        total = [a + b for a, b in zip(total, gradient, strict=True)]
    return total


def worker_count(device: torch.device) -> int:
    """Return the number of threads that share the work: torch's number on a CPU; one inside a worker and for a GPU."""
    return torch.get_num_threads() if device.type == "cpu" and not hasattr(worker_state, "stop") else 1


def max_chunk_size(net: nn.Module, image: Tensor) -> int:
    """Return how many images like image (1, C, H, W) a chunk may hold."""
    return sys.maxsize if needs_whole_batch(net) else images_per_chunk(net, image)


def max_graph_size(net: nn.Module, image: Tensor) -> int:
    """Return for how many images like image (1, C, H, W) a graph may be kept at once."""
    return sys.maxsize if needs_whole_batch(net) else images_per_chunk(net, image, GRAPH_BYTES)


def images_per_chunk(net: nn.Module, image: Tensor, least: int = 0) -> int:
    """Return how many images like image (1, C, H, W) have feature maps of a chunk's size, or of least bytes."""
    first = next(net.parameters(), image)
    pixels = image.shape[-2] * image.shape[-1] if first.ndim == 4 else 1
    numbers = max(image.numel(), len(first) * pixels)           # of the image, or of the first layer's feature map
    chunk_bytes = max(least, CHUNK_BYTES.get(image.device.type, CHUNK_BYTES["cuda"]))
    return max(1, chunk_bytes // (numbers * image.element_size()))


def needs_whole_batch(net: nn.Module) -> bool:
    """Return whether the output for an image depends on the rest of the batch: batch norm that uses its statistics."""
    return any(isinstance(module, BATCH_NORM) and (module.training or module.running_mean is None)
               for module in net.modules())


def run_in_worker(stop: threading.Event, fn: Callable, item):
    """Return fn(item), in a worker thread; an ordered_map inside it raises Cancelled as soon as stop is set."""
    worker_state.stop = stop
    return fn(item)


def cancellable(fn: Callable) -> Callable:
    """Wrap fn so that it raises Cancelled once the result of this thread is no longer wanted."""
    stop = getattr(worker_state, "stop", None)

    def checked(item):
        if stop and stop.is_set():
            raise Cancelled
        return fn(item)

    return checked


@functools.cache
def thread_pool(workers: int) -> ThreadPoolExecutor:
    """Return the worker threads, created once, each with one intra-op thread. workers: torch's number of threads.

    torch keeps that number per thread, but a new thread starts with the number that any thread set last; so all
    workers start here, and the caller's number is set again afterwards.
    """
    pool = ThreadPoolExecutor(workers, "worker", initializer=use_single_thread)
    all_started = threading.Barrier(workers, timeout=60)    # a thread is started for a task that no idle one can take
    wait([pool.submit(all_started.wait) for _ in range(workers)])
    torch.set_num_threads(workers)
    return pool


def use_single_thread() -> None:
    """Give this thread one intra-op thread."""
    torch.get_num_threads()         # initializes the thread's number, which would otherwise happen later and undo this
    torch.set_num_threads(1)


os.register_at_fork(after_in_child=thread_pool.cache_clear)     # a forked process has only the thread that forked


def keep_freed_memory() -> None:
    """Tell glibc to keep the memory that a chunk leaves for the next one, where the system has glibc.

    Otherwise it returns every large block, and the next chunk waits for the system to clear the same pages again
    (docs/performance.md). The limits bound what is kept: blocks above 32 MiB, glibc's largest value, are returned.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):        # no glibc
        return
    mallopt(M_MMAP_THRESHOLD, 2**25)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def set_precision(name: str, device: str) -> None:
    """Allow or forbid tf32 products on a GPU. Weights, pixels, losses and sums stay 32-bit in every precision.

    Raises UserError for tf32 on a device that is not an NVIDIA GPU.
    """
    if name == "tf32" and not device.startswith("cuda"):
        raise UserError(f"--precision tf32 needs an NVIDIA GPU; the device is {device}")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = name == "tf32"


def with_precision(name: str, net: nn.Module) -> nn.Module:
    """Return the network, wrapped to compute in bf16 if name is "bf16"."""
    return AutocastBf16(net) if name == "bf16" else net


class AutocastBf16(nn.Module):
    """A network whose layers run under autocast to bf16, in any thread, and whose outputs are 32-bit."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self._autocast(self.net, images)

    def embed(self, images: Tensor) -> Tensor:
        return self._autocast(self.net.embed, images)

    def _autocast(self, layers: Callable, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16):
            return layers(images).float()
