"""Text to markup: the one place where text is made visible and escaped.

Everything the page shows passes through :func:`element` (for SVG and small HTML fragments) or through the
Jinja environment of ``interp.report.page``, whose ``finalize`` is :func:`shown`. Both make characters that
would be invisible, or would reorder the line, visible, and both escape with MarkupSafe.
"""

from __future__ import annotations

import json
import math
import unicodedata

from markupsafe import Markup, escape

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_NAMED = {"\n": "⏎", "\r": "␍", "\t": "⇥"}


def _spell(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def visible(text: str) -> str:
    r"""Text with every control, format and separator character spelled out.

    A newline becomes a return sign, ``\u2028`` and bidirectional overrides become their escape sequence, so a
    token can neither hide on the page nor reorder the line it stands in.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_NAMED.get(c) or (_spell(c) if unicodedata.category(c) in _INVISIBLE else c) for c in text)


def token(text: str) -> str:
    """A token as a word on the page: outer spaces shown as ␣, the rest as :func:`visible`."""
    body = text.strip(" ")
    left = len(text) - len(text.lstrip(" ")) if body else len(text)
    right = len(text) - len(text.rstrip(" ")) if body else 0
    return "␣" * left + visible(body) + "␣" * right if text else "∅"


def shown(value: object) -> object:
    """What Jinja prints for a value: markup unchanged, line breaks kept, other invisible characters spelled."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return ""
    text = str(value)
    if text.isascii() and text.isprintable():
        return text
    return "\n".join(visible(line) for line in text.split("\n"))


def number(value: float) -> str:
    """A coordinate or size: at most two decimals, no trailing zeros, never ``-0``."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text


def figure_number(value: float, digits: int = 3) -> str:
    """A number for a reader: fixed decimals, a true minus sign, an en dash when there is none."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.replace("-", "")
    return text.replace("-", "−")


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """One element, its text and attribute values escaped.

    Attribute names lose a trailing underscore (``class_``) and turn inner ones into hyphens
    (``text_anchor``); ``None`` leaves the attribute out; floats are written by :func:`number`.
    """
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is None:
            continue
        label = key.rstrip("_").replace("_", "-")
        label = "viewBox" if label == "viewbox" else label
        text = number(value) if isinstance(value, float) else visible(str(value))
        parts.append(f' {label}="{escape(text)}"')
    inner = "".join(str(escape(shown(child))) for child in children)
    parts.append(f">{inner}</{name}>")
    return Markup("".join(parts))  # every part was escaped above


def join(parts: list[Markup] | tuple[Markup, ...]) -> Markup:
    """Markup fragments, concatenated."""
    return Markup("").join(parts)


def embedded_json(value: object) -> Markup:
    r"""JSON that is safe inside a script element.

    ASCII only (so ``\u2028`` is an escape), with ``<``, ``>`` and ``&`` escaped: no text can close the
    script, open a comment or start another script. NaN is an error: JSON has none.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # only ASCII without <, > and &
