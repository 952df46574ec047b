"""SIGTERM and SIGINT, what schedulers and users send to end a run, as an exception that lets it save first."""

import signal
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """The process was asked to end. number: of the signal; the exit status is 128 + number, as the shell's."""

    def __init__(self, number):
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def stoppable():
    """Inside, the first of these signals raises Stopped; further ones are ignored, so that saving is not cut off."""

    def stop(number, _frame):
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    before = {each: signal.signal(each, stop) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
