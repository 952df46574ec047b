"""What every command does with a user error: one line on stderr, exit status 2, no traceback."""

import pytest


def refusal(capsys, command, *arguments):
    """Return the one line that command(*arguments) prints to stderr; its exit status must be 2."""
    with pytest.raises(SystemExit) as stop:
        command(*arguments)
    message = capsys.readouterr().err
    assert stop.value.code == 2 and message.startswith("error: ") and message.count("\n") == 1
    return message
