r"""The CircuitsVis script bundle, found in the installed package and made safe to inline.

The package is never imported (that would import torch): the finder only says where it lies. Its bundle is one
classic script that defines the global ``CircuitsVis``. Inside it the text ``</script`` occurs in a string, which
would end the script element early; it is written ``<\/script``, the same string to JavaScript.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from interp.errors import InterpError

_BUNDLE = Path("dist") / "cdn" / "iife.js"
_NEEDED = ("var CircuitsVis=", "AttentionHeads")


@dataclass(frozen=True)
class Bundle:
    """A script that may stand inside a script element, and the version of the package it came from."""

    code: Markup
    version: str


def safe_script(code: str) -> Markup:
    r"""JavaScript that can stand inside a script element with its meaning unchanged.

    ``</script`` becomes ``<\/script`` (equal inside strings, templates and regular expressions) and the pointer
    to a source map, which a browser's tools would fetch, is removed.

    Raises:
        InterpError: the code opens an HTML comment, which the page's parser would take as its own.
    """
    if "<!--" in code:
        raise InterpError("The circuitsvis bundle contains '<!--' and cannot be inlined; install circuitsvis 1.43.")
    code = re.sub(r"</(script)", r"<\\/\1", code, flags=re.IGNORECASE)
    code = re.sub(r"^//# sourceMappingURL=.*$", "", code, flags=re.MULTILINE)
    return Markup(code.strip() + "\n")  # cannot close its element: checked above


def circuitsvis() -> Bundle | None:
    """The installed CircuitsVis bundle, or ``None`` where the package or its bundle is absent."""
    spec = importlib.util.find_spec("circuitsvis")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / _BUNDLE
    if not path.is_file():
        return None
    code = path.read_text(encoding="utf-8")
    if not all(text in code for text in _NEEDED):
        return None
    try:
        version = importlib.metadata.version("circuitsvis")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    return Bundle(safe_script(code), version)
