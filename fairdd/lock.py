"""One writer per run folder. The lock belongs to the process: when it dies, however it dies, the lock is free."""

import fcntl
import os
import socket
from contextlib import contextmanager
from pathlib import Path

from fairdd.core.errors import UserError

NAME = ".lock"


@contextmanager
def exclusive_lock(folder):
    """Inside, no other process writes to the folder. Raises UserError with the process id and host of one that does."""
    with open(Path(folder) / NAME, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise UserError(f"{folder} is being written by {owner}; wait for it or give another --save_path") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
