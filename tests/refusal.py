"""What every command does with a user error: one line on stderr, exit status 2, no traceback."""

from collections.abc import Callable

import pytest


def refusal(capsys: pytest.CaptureFixture, command: Callable, *arguments) -> str:
    """Return the error message of command(*arguments); assert that it is one line and that the exit status is 2."""
    with pytest.raises(SystemExit) as caught:
        command(*arguments)
    message = capsys.readouterr().err
    assert caught.value.code == 2 and message.startswith("error: ") and message.count("\n") == 1
    return message
