"""The processes of one run that torchrun starts (ranks): what they add up, what rank 0 tells them, how they end.

Rank 0 owns the run folder and the terminal. Whatever ends a rank ends all of them with rank 0's one message and exit
status: every rank watches a store of keys that they share. Without torchrun there is one rank, and nothing here costs
anything. Collective calls are made in the main thread alone, by all ranks in the same order.
"""

import contextlib
import functools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

WATCH_SECONDS = 0.1             # between looks at the store
SAVE_SECONDS = 20               # that rank 0 has to save and end all ranks, after another rank was signaled
END_SECONDS = 5                 # that ranks wait for each other when one has failed
POLL_SECONDS = 1e-4            # between looks at a collective call
TIMEOUT = timedelta(days=1)     # of a collective call: a rank may be busy with a network, and dead ones are noticed

LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")       # that torchrun sets


class RankLost(Exception):
    """Another process of the run has ended."""


class Ranks:
    """This process's place among the ranks, and the store that they share."""

    def __init__(self):
        self.store, self.rank, self.size = next(dist.rendezvous("env://", timeout=TIMEOUT))
        self.store = dist.PrefixStore(f"fairdd/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", self.store)
        self.watched = self.store.clone()       # of the thread; a call of the main thread may wait in the other
        self.ending, self.finished, self.signal = threading.Lock(), threading.Event(), None
        if self.rank:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  the terminal is rank 0's
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._on_signal)
        threading.Thread(target=self._watch, name="watch ranks", daemon=True).start()
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=self.store, rank=self.rank, world_size=self.size, timeout=TIMEOUT)

    def _on_signal(self, number, _frame) -> None:
        """Remember the signal for rank 0, which saves and then ends all; work goes on, so that rank 0 never waits."""
        self.signal = self.signal or number

    def _watch(self) -> None:
        deadline = None
        while not self.finished.wait(WATCH_SECONDS):
            try:
                if self.rank == 0:
                    self._watch_others()
                elif self.watched.check(["end"]):
                    self._exit(int(self.watched.get("end")))
                elif self.signal and deadline is None:
                    deadline = time.monotonic() + SAVE_SECONDS
                    self.watched.set("signal", str(self.signal))
            except RuntimeError:                # the store is gone, and with it rank 0 or the launcher
                deadline = deadline or time.monotonic() + 1
            if deadline and time.monotonic() > deadline:
                os._exit(128 + self.signal if self.signal else 1)

    def _watch_others(self) -> None:
        """On rank 0: end all for another rank's error, and pass another rank's signal on to the main thread."""
        if self.watched.check(["error"]):
            error = json.loads(self.watched.get("error"))
            if self.ending.acquire(blocking=False):
                self._end(error["status"], error["message"])
                os._exit(error["status"])
        elif self.watched.check(["signal"]) and self.signal is None:
            self.signal = int(self.watched.get("signal"))
            os.kill(os.getpid(), self.signal)

    def _exit(self, status: int) -> None:
        self.watched.add("gone", 1)
        os._exit(status)

    def _end(self, status: int, message: str) -> None:
        """On rank 0: print the message, tell the others, and wait until they are gone."""
        print(message, file=sys.stderr, flush=True)
        with contextlib.suppress(RuntimeError):
            self.watched.set("end", str(status))
            deadline = time.monotonic() + END_SECONDS
            while self.watched.add("gone", 0) < self.size - 1 and time.monotonic() < deadline:
                time.sleep(WATCH_SECONDS)

    def end(self, status: int, message: str) -> None:
        """End all ranks with this message and exit status. Does not return on other ranks than 0."""
        for number in (signal.SIGTERM, signal.SIGINT):      # the launcher sends them as soon as one rank has ended
            signal.signal(number, signal.SIG_IGN)
        if self.rank == 0 and self.ending.acquire(blocking=False):
            self._end(status, message)
            self.finished.set()
            return
        if self.rank:
            with contextlib.suppress(RuntimeError):
                self.store.set("error", json.dumps({"status": status, "message": message}))
        time.sleep(2 * END_SECONDS)             # until the thread ends this process
        os._exit(status)

    def finish(self) -> None:
        """Leave when all ranks have come here."""
        with contextlib.suppress(RuntimeError):             # of one that ends now, nothing is missing
            dist.barrier()
        self.finished.set()
        dist.destroy_process_group()


ranks: Ranks | None = None


@contextlib.contextmanager
def joined_ranks() -> Iterator[None]:
    """Inside the block, this process is one of the ranks that torchrun started, if it started several."""
    global ranks
    is_launched = all(name in os.environ for name in LAUNCHER_VARIABLES) and int(os.environ["WORLD_SIZE"]) > 1
    if ranks is not None or not is_launched:
        yield
        return
    ranks = Ranks()
    yield
    ranks.finish()
    ranks = None


def end(status: int, message: str) -> None:
    """End this process, and with it all ranks, with one message on standard error."""
    if ranks is None:
        print(message, file=sys.stderr)
    else:
        ranks.end(status, message)
    sys.exit(status)


def rank() -> int:
    """Return this process's number, from 0."""
    return ranks.rank if ranks else 0


def world_size() -> int:
    """Return the number of processes of the run."""
    return ranks.size if ranks else 1


def local_rank() -> int:
    """Return this process's number on its machine, which is that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", 0)) if ranks else 0


@contextlib.contextmanager
def notice_lost_ranks() -> Iterator[None]:
    """Raise RankLost for what torch raises inside the block when another process, or the store, is gone."""
    try:
        yield
    except RuntimeError as error:
        raise RankLost from error


def wait_for(start: Callable[[], dist.Work], device: torch.device) -> None:
    """Start a collective call and wait for it, on a CPU so that signals are handled meanwhile. Raises RankLost."""
    with notice_lost_ranks():
        work = start()
        while device.type == "cpu" and not work.is_completed():
            time.sleep(POLL_SECONDS)
        work.wait()


def sum_over_ranks(*tensors: Tensor, team: dist.ProcessGroup | None = None) -> Sequence[Tensor]:
    """Return the sums of tensors of one type over all ranks, or over a team, in one collective call.

    Raises RankLost.
    """
    if ranks is None:
        return tensors
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
    wait_for(lambda: dist.all_reduce(flat, group=team, async_op=True), flat.device)
    sums = flat.split([tensor.numel() for tensor in tensors])
    return [values.view(tensor.shape) for values, tensor in zip(sums, tensors, strict=True)]


def from_rank_0(value=None):
    """Return rank 0's value on every rank. Raises RankLost."""
    if ranks is None:
        return value
    values = [value]
    with notice_lost_ranks():
        dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values[0]


def copy_from_rank_0(*tensors: Tensor) -> None:
    """Overwrite tensors by rank 0's, in place, so that ranks never drift apart. Raises RankLost."""
    if ranks is None:
        return
    for tensor in tensors:
        wait_for(partial(dist.broadcast, tensor.detach(), src=0, async_op=True), tensor.device)


def synchronize(net: nn.Module) -> nn.Module:
    """Give a network rank 0's weights and buffers, in place; return it. Raises RankLost."""
    copy_from_rank_0(*net.parameters(), *net.buffers())
    return net


def share_of(items: Sequence) -> Sequence:
    """Return this rank's share of items: every world_size-th."""
    return items[rank() :: world_size()]


def collect(keys: Sequence[tuple], results: Iterable[dict]) -> Iterator[tuple[tuple, dict]]:
    """Yield (key, result) of all keys, in order, on rank 0; results are of its share. Other ranks send theirs.

    They are sent one by one, so that rank 0 has each as soon as it exists.
    """
    results = iter(results)
    for number, key in enumerate(keys):
        owner = number % world_size()
        if owner == rank():
            result = next(results)
            if owner:
                ranks.store.set(f"result {key}", json.dumps(result))
        if rank() == 0:
            yield key, result if owner == 0 else receive(f"result {key}")


def receive(name: str) -> dict:
    """Return what another rank sends by this name; meanwhile signals are handled. Raises RankLost."""
    with notice_lost_ranks():
        while not ranks.store.check([name]):
            time.sleep(WATCH_SECONDS / 10)
        return json.loads(ranks.store.get(name))


def merge(items: dict) -> dict:
    """Return the items of all ranks. Raises RankLost."""
    if ranks is None:
        return items
    gathered = [None] * ranks.size
    with notice_lost_ranks():
        dist.all_gather_object(gathered, items)
    return {key: value for of_rank in gathered for key, value in of_rank.items()}


@contextlib.contextmanager
def first_on_machine(name: str) -> Iterator[None]:
    """Let the first rank of each machine do the block before the others of that machine. Raises RankLost."""
    key = f"{name} {os.environ.get('GROUP_RANK', 0)}"
    if local_rank():
        receive(key)
    yield
    if ranks and not local_rank():
        ranks.store.set(key, "true")


@functools.cache
def teams(count: int) -> list[dist.ProcessGroup]:
    """Return count groups of ranks; rank r is in group r % count. All ranks call this at the same time."""
    return [dist.new_group(list(range(team, world_size(), count)), timeout=TIMEOUT) for team in range(count)]
