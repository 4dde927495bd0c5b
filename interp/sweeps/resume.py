"""What the numbers of a sweep depend on, as short texts for a store."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from torch import Tensor

from interp.prompts.tokens import Prompts
from interp.store import Store
from interp.sweeps.readout import Reading

if TYPE_CHECKING:
    from interp.model import HookedTransformer

AnyStore: TypeAlias = Store | str | os.PathLike[str] | None
"""A store, or the directory of one."""


def digest(*values: object) -> str:
    """A hash of arrays, tensors and whatever ``repr`` tells apart."""
    found = hashlib.sha256()
    for value in values:
        array = value.detach().cpu().double().numpy() if isinstance(value, Tensor) else value
        if isinstance(array, np.ndarray):
            found.update(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        else:
            found.update(repr(array).encode())
    return found.hexdigest()


def facts_of(model: HookedTransformer, base: Prompts, source: str, reading: Reading) -> dict[str, str]:
    """The weights as loaded, what was made of them, the runs, how they are read, and the version of this library."""
    from interp import __version__

    return {
        "weights": model.weights_sha256,
        "config": model.config_sha256,
        "numerics": model.numerics,
        "dtype": str(model.dtype),
        "library": __version__,
        "base": base.sha256(),
        "source": source,
        "readout": digest(*reading.facts()),
    }
