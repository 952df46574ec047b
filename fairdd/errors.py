"""What a user can get wrong ends in one clear sentence and exit status 2, never in a traceback."""

import functools
import sys

from fairdd.signals import Stopped


class UserError(ValueError):
    """A mistake of the user's: a wrong flag, a missing folder, a broken image. The message says how to mend it."""


def exit_in_words(main):
    """Decorate an entry: a UserError ends it with its message and status 2, a signal with 128 + its number."""

    @functools.wraps(main)
    def wrapped(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        except Stopped as stop:
            print(f"stopped by {stop}; the same command goes on from here", file=sys.stderr)
            sys.exit(128 + stop.number)

    return wrapped
