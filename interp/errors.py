"""The one family of errors a user can cause and mend."""


class InterpError(ValueError):
    """Bad input: says what was wrong, where, and what to do, on one line.

    The command line prints it and exits with 2; in a notebook it is an ordinary ``ValueError``.
    """
