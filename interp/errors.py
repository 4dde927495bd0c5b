"""The one family of errors a user can cause and mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InterpError(ValueError):
    """Bad input: says what was wrong, where, and what to do, on one line.

    The command line prints it and exits with 2; in a notebook it is an ordinary ``ValueError``.
    """


def unknown_name(what: str, name: object, options: Iterable[str], where: str = "") -> InterpError:
    """The error for a name that is not one of ``options``: lists them and the nearest match."""
    options = list(options)
    begun = [option for option in options if name and option.startswith(str(name))]
    near = difflib.get_close_matches(str(name), options, n=1) or begun
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return InterpError(f"Unknown {what} {name!r}{where}.{hint} Choose from: {', '.join(options) or 'none'}.")
