"""Host work of the next iteration, done in a thread while a GPU computes this one.

Keyed draws make that safe: a result depends on its key alone, not on when it is computed.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

ITERATION = 3       # its place in a key (seed, "experiment", experiment, iteration, ...)


class Ahead:
    """Calls functions of a key; each call begins the same call for the next iteration."""

    def __init__(self):
        self.thread = ThreadPoolExecutor(1, "ahead")
        self.futures: dict[tuple, Future] = {}

    def __call__(self, fn: Callable, *key):
        """Return fn(*key), which the previous iteration may have begun."""
        if len(key) <= ITERATION or not isinstance(key[ITERATION], int):        # of the start of an experiment
            return fn(*key)
        future = self.futures.pop((fn, key), None)
        following = (*key[:ITERATION], key[ITERATION] + 1, *key[ITERATION + 1 :])
        result = fn(*key) if future is None else future.result()
        self.futures[fn, following] = self.thread.submit(fn, *following)
        return result


def at_once(fn: Callable, *key):
    """Return fn(*key): what a CPU does, which has no time to spare."""
    return fn(*key)
