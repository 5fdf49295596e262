"""The one exception a user can cause, and so the one a command line prints without a traceback."""


class DataError(ValueError):
    """Input that cannot be used, told so that a musician can act on it.

    The message is one sentence or two on one line: the file, the time in it where there is one, what is wrong, and
    the remedy.
    """


class PolyphonyError(DataError):
    """An annotation has more voices than are to be trained on."""
