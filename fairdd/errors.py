"""What a user can get wrong ends in one clear sentence and exit status 2, never in a traceback."""

import functools
import sys


class UserError(ValueError):
    """A mistake of the user's: a wrong flag, a missing folder, a broken image. The message says how to mend it."""


def exit_in_words(main):
    """Decorate an entry: a UserError ends it with its message on stderr and exit status 2."""

    @functools.wraps(main)
    def wrapped(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    return wrapped
