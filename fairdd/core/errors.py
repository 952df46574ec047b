"""User errors and termination signals: each ends a command with one clear message and an exit status, no traceback."""

import functools
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fairdd.core import distributed

TERMINATION_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class UserError(ValueError):
    """A mistake of the user: a wrong flag, a missing folder, an unreadable image. The message says how to fix it."""


class Interrupted(BaseException):
    """The process was asked to terminate by the signal of this number."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def catch_termination() -> Iterator[None]:
    """Raise Interrupted at the first SIGTERM or SIGINT inside the block; ignore later ones while saving.

    Do nothing outside the main thread, where Python allows no signal handlers: the caller's stay; nor on other ranks
    than 0, which go on until rank 0 has saved.
    """
    if threading.current_thread() is not threading.main_thread() or distributed.rank():
        yield
        return

    def interrupt(number, _frame):
        for each in TERMINATION_SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    previous = {each: signal.signal(each, interrupt) for each in TERMINATION_SIGNALS}
    try:
        yield
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)


def report_user_errors(main: Callable) -> Callable:
    """Decorate an entry point: a UserError exits with its message and status 2, a signal with 128 + its number.

    An OSError that names a file (a disk or a permission) exits with that file, the reason, and status 2. Under torchrun
    any failure ends all processes, with one message.
    """

    @functools.wraps(main)
    def wrapped(*args, **kwargs):
        with distributed.joined_ranks():
            try:
                return main(*args, **kwargs)
            except (Exception, Interrupted) as error:
                status_and_message = describe_failure(error)
                if status_and_message is None and distributed.world_size() == 1:
                    raise
                distributed.end(*status_and_message or (1, traceback.format_exc()))

    return wrapped


def describe_failure(error: BaseException) -> tuple[int, str] | None:
    """Return the exit status and the message of an error that has one; None for a bug."""
    if isinstance(error, UserError):
        return 2, f"error: {error}"
    if isinstance(error, OSError) and error.filename is not None:
        return 2, f"error: {error.filename}: {error.strerror}"
    if isinstance(error, Interrupted):
        return 128 + error.number, f"interrupted by {error}; re-run the same command to resume"
    if isinstance(error, distributed.RankLost):
        return 1, ("error: another process of this run has ended, maybe for lack of memory; re-run the same command to "
                   "resume")
    return None
