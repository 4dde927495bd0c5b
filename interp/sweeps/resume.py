"""Going on with an interrupted sweep: the facts that say which sweep rows belong to, and the rows that are finished."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import InterpError
from interp.prompts.tokens import Prompts
from interp.store import Journal, Store
from interp.sweeps.reading import Reading

if TYPE_CHECKING:
    from interp.model import HookedTransformer

AnyStore: TypeAlias = Store | str | os.PathLike[str] | None
"""A store, or the directory of one."""

SAME_RUN = 1e-3
"""How far the metric of an unchanged run may be from what a journal says: another device rounds otherwise."""


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
        "readout": digest(*reading.identity()),
    }


@dataclass(frozen=True)
class Finished:
    """The rows of a sweep that its journal has.

    Attributes:
        journal: the journal.
        values: [prompt, cell] the metric, NaN where it is not finished.
        runs: [prompt, 2] the metric of both unchanged runs, NaN where it is not known.
    """

    journal: Journal
    values: Float[np.ndarray, "prompt cell"]
    runs: Float[np.ndarray, "prompt two"]

    @classmethod
    def of(cls, journal: Journal, shape: tuple[int, int]) -> Finished:
        """Read a journal of so many prompts and cells."""
        rows = journal.read().within(*shape)
        values, runs = np.full(shape, np.nan), np.full((shape[0], 2), np.nan)
        of_runs = rows.cell < 0
        values[rows.prompt[~of_runs], rows.cell[~of_runs]] = rows.value[~of_runs]
        runs[rows.prompt[of_runs], -1 - rows.cell[of_runs]] = rows.value[of_runs]
        return cls(journal, values, runs)

    @property
    def n_rows(self) -> int:
        """How many rows were finished when it was read."""
        return int(np.isfinite(self.values).sum())

    def fill(
        self,
        out: Float[np.ndarray, "prompt cell"],
        chunk: Int[np.ndarray, " prompt"],
        numbers: tuple[Float[np.ndarray, " prompt"], Float[np.ndarray, " prompt"]],
    ) -> Bool[np.ndarray, "prompt cell"]:
        """Put the finished rows of some prompts into ``out``, and say which they are.

        Raises:
            InterpError: the unchanged runs gave other numbers when the journal was written.
        """
        known, now = self.runs[chunk], np.stack(numbers, axis=1)
        if (np.abs(known - now) > SAME_RUN * np.maximum(1.0, np.abs(now))).any():  # a comparison with NaN is false
            raise InterpError(
                f"{self.journal.path} was written with other weights than the model has now: its unchanged runs "
                "differ. Delete it, or give another store."
            )
        if np.isnan(known).any():
            for which in range(2):
                self.journal.append(-1 - which, chunk, now[:, which])
        has: Bool[np.ndarray, "prompt cell"] = np.isfinite(self.values[chunk])
        out[chunk] = np.where(has, self.values[chunk], out[chunk])
        return has
