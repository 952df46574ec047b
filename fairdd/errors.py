"""What a user can get wrong ends in one clear sentence and exit status 2, never in a traceback."""


class UserError(ValueError):
    """A mistake of the user's: a wrong flag, a missing folder, a broken image. The message says how to mend it."""
