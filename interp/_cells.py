"""How a value shows itself in a cell of a notebook: through ``interp.show``, found when it is asked for.

It is found by name: what draws a value is no part of what results come from, whose fingerprint follows imports.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.report.notebook import Shown


def show(value: Any, *args: Any, **options: Any) -> Shown:
    """``interp.show`` of a value."""
    drawn: Shown = importlib.import_module("interp.display").show(value, *args, **options)
    return drawn


def html(value: Any) -> str:
    """What a notebook puts into the cell."""
    return show(value).html
