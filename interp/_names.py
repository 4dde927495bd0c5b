"""Names that can be a file's, on every system: one component of a path and no more."""

from __future__ import annotations

import re
import unicodedata

from interp.errors import InterpError, shown

LONGEST = 120
"""Bytes of UTF-8. A file system takes 255, of which the ending of the file needs some."""

_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])", re.IGNORECASE)
_SPECIAL = frozenset('<>:"/\\|?*')
_UNSEEN = frozenset({"Cc", "Cs", "Cn", "Zl", "Zp"})  # control characters, halves of pairs, line separators


HOLDS = {
    "type": "string",
    "pattern": r"\S",
    "maxLength": LONGEST,
    "not": {"pattern": r"""[<>:"/\\|?*\u0000-\u001f\u007f]|^[. ]|[. ]$"""},
}
"""Most of what ``component`` asks for, as JSON Schema says it: not the bytes, and not the names of devices."""


def component(name: object, what: str) -> str:
    """Check that a name can be one component of a path, on every system.

    Args:
        name: the name.
        what: what it is and where it stands, for the message, such as ``'name' in my.yaml``.

    Raises:
        InterpError: says why it cannot.
    """
    if not isinstance(name, str):
        raise InterpError(f"{what} must be text, not {shown(name)}. Put it in quotes.")
    why = _not_a_component(name)
    if why:
        raise InterpError(f"{what} must be a name that a file can have, but it {why}. Use letters, digits and hyphens.")
    return name


def _not_a_component(name: str) -> str:
    """Why a name cannot be one component of a path; empty if it can."""
    odd = next((letter for letter in name if letter in _SPECIAL or unicodedata.category(letter) in _UNSEEN), None)
    if not name.strip():
        return "is empty"
    if odd is not None:
        return f"holds {shown(odd)}"
    if len(name.encode()) > LONGEST:
        return f"has {len(name.encode())} bytes, more than {LONGEST}"
    if name.startswith((".", " ")) or name.endswith((".", " ")):
        return "begins or ends with a full stop or a space"
    if _DEVICES.fullmatch(name.split(".")[0].strip()):
        return "is the name of a device on Windows"
    return ""
