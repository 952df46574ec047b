"""What every command does with a user's mistake: one sentence, exit status 2, no traceback."""

import pytest


def refusal(capsys, command, *arguments):
    """The one line that command(*arguments) says on stderr; its exit status must be 2."""
    with pytest.raises(SystemExit) as stop:
        command(*arguments)
    words = capsys.readouterr().err
    assert stop.value.code == 2 and words.startswith("error: ") and words.count("\n") == 1
    return words
