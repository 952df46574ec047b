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
            except UserError as error:
                status, message = 2, f"error: {error}"
            except OSError as error:
                if error.filename is None:
                    raise
                status, message = 2, f"error: {error.filename}: {error.strerror}"
            except Interrupted as interrupt:
                status = 128 + interrupt.number
                message = f"interrupted by {interrupt}; re-run the same command to resume"
            except distributed.RankLost:
                status = 1
                message = ("error: another process of this run has ended, maybe for lack of memory; re-run the same "
                           "command to resume")
            except Exception:
                if distributed.world_size() == 1:
                    raise
                status, message = 1, traceback.format_exc()
            distributed.end(status, message)

    return wrapped
