"""A subspace of an activation: what is read along it, what is written, and the edits of a run that use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from interp import _kept, results
from interp.errors import InterpError, shown
from interp.interventions import Erase, Interchange
from interp.prompts.places import At
from interp.results import HasProvenance, Variable

if TYPE_CHECKING:
    from torch import Tensor

    from interp.model import HookedTransformer


@dataclass(frozen=True, eq=False, kw_only=True)
class Subspace:
    """Directions at one site: ``x @ read.T`` is what lies along them, and ``written`` what each of them puts back.

    Attributes:
        read: [direction, d], in float64.
        written: [direction, d]; ``written @ read.T`` is the identity. Equal to ``read`` where the projection is
            orthogonal, as in all but LEACE.
        offset: [d], the point that erasure leaves where it is.
        kind: how it was found, such as ``"LEACE"``.

    >>> first = Subspace.spanned_by([[2.0, 0.0]], kind="by hand")
    >>> first.erased([[3.0, 4.0]]).tolist(), first.rank
    ([[0.0, 4.0]], 1)
    """

    read: Float[np.ndarray, "direction d"] = field(repr=False)
    written: Float[np.ndarray, "direction d"] = field(repr=False)
    offset: Float[np.ndarray, " d"] = field(repr=False)
    kind: str

    @classmethod
    def spanned_by(cls, directions: object, *, kind: str, offset: object = None) -> Subspace:
        """The span of some rows, which are orthonormalised; rows that depend on others add nothing.

        Raises:
            InterpError: no matrix of finite numbers, or rows that are all 0.

        >>> Subspace.spanned_by([[1.0, 1.0], [2.0, 2.0]], kind="by hand").rank
        1
        """
        rows = np.asarray(directions, dtype=np.float64)
        if rows.ndim != 2 or not np.isfinite(rows).all():
            raise InterpError(f"directions must be rows of finite numbers, [direction, d], not {shown(directions)}.")
        _, size, basis = np.linalg.svd(rows, full_matrices=False)
        kept = basis[size > max(rows.shape) * np.finfo(np.float64).eps * size.max(initial=0.0)]
        if not len(kept):
            raise InterpError("directions are all 0, so they span nothing. Give at least one that is not.")
        at = np.zeros(rows.shape[1]) if offset is None else np.asarray(offset, dtype=np.float64)
        return cls(read=kept, written=kept, offset=at, kind=kind)

    @property
    def rank(self) -> int:
        """How many directions there are."""
        return len(self.read)

    def erased(self, x: object) -> Float[np.ndarray, "prompt d"]:
        """Activations without their part in the subspace: ``x - (x - offset) read^T written``."""
        values = np.asarray(x, dtype=np.float64)
        return np.asarray(values - ((values - self.offset) @ self.read.T) @ self.written)

    def erase(self, *, site: str, layer: int, at: At = None, heads: Sequence[int] | None = None) -> Erase:
        """The same as an edit of a run.

        >>> Subspace.spanned_by([[2.0, 0.0]], kind="by hand").erase(site="resid_pre", layer=3, at="noun").at
        'noun'
        """
        read, written, offset = (torch.from_numpy(part) for part in (self.read, self.written, self.offset))
        return Erase(
            site=site, layers=[layer], at=at, heads=heads, directions=read, written=written, offset=offset
        )  # fmt: skip

    def interchange(
        self, values: Mapping[int, Tensor], *, site: str, layer: int, at: At = None, heads: Sequence[int] | None = None
    ) -> Interchange:
        """The edit that puts in another run's part in the subspace; ``values`` as ``run.activations`` gives them."""
        read, written = torch.from_numpy(self.read), torch.from_numpy(self.written)
        return Interchange(
            site=site, layers=[layer], at=at, heads=heads, directions=read, written=written, values=values
        )  # fmt: skip

    def save(self, path: str | Path, *, of: Sequence[HasProvenance], site: str, layer: int, seed: int = 0) -> Path:
        """Write it as a result of this library: NetCDF with a checksum, and no pickle.

        Args:
            path: of the file.
            of: the model and the pairs that it was found with, whose fingerprints go along.
            site: where it belongs.
            layer: where it belongs.
            seed: of its fit.

        Raises:
            InterpError: the file cannot be written.
        """
        dims = ("direction", "entry")
        made = results.build(
            {
                "read": Variable(dims, self.read, "", "what is read along each direction"),
                "written": Variable(dims, self.written, "", "what is written for each direction"),
                "offset": Variable(("entry",), self.offset, "", "point that erasure leaves where it is"),
            },
            coords={"direction": np.arange(self.rank), "entry": np.arange(self.read.shape[1])},
            title="Subspace",
            question="Which directions of the activation?",
            reading="x - (x - offset) read^T written is the activation without its part in the subspace.",
            source="",
            of=of,
            seed=seed,
            extra={"kind": self.kind, "site": site, "layer": layer},
            dims={"direction": "direction of the subspace", "entry": "entry of an activation's vector"},
        )
        return results.save(made, path)

    @classmethod
    def load(cls, path: str | Path, model: HookedTransformer) -> Subspace:
        """Read what ``save`` wrote.

        Raises:
            InterpError: no such file, a damaged one, one of something else, or one of another model.

        >>> import tempfile
        >>> from interp import HookedTransformer, tasks
        >>> model = HookedTransformer.from_pretrained("mini")
        >>> pairs = tasks.build("color-noun", tokenizer=model, n=2)
        >>> with tempfile.TemporaryDirectory() as place:
        ...     made = Subspace.spanned_by(np.eye(1, 128), kind="by hand")
        ...     file = made.save(f"{place}/first.nc", of=(model, pairs), site="resid_pre", layer=2)
        ...     Subspace.load(file, model).kind
        'by hand'
        """
        found = results.load(path)
        if not {"read", "written", "offset"} <= set(found.data_vars):
            raise InterpError(f"{path} holds no subspace. Give a file that Subspace.save wrote.")
        if _kept.differing(model, found.attrs):
            raise InterpError(
                f"The subspace in {path} was found in {found.attrs['model']} ({found.attrs.get('numerics')}), and not "
                f"in these weights of {model.name} ({model.provenance()['numerics']}). Load that model, or find it "
                "again in this one."
            )
        return cls(
            read=found["read"].values, written=found["written"].values, offset=found["offset"].values,
            kind=str(found.attrs["kind"]),
        )  # fmt: skip
