"""Interventions: small frozen values that say what to change. They hold no model and run nothing.

Each names a site, the layers, optionally heads, and ``at``: roles (every token of the span) or positions. ``at=None``
is every token. ``interp.run`` turns them into hooks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from jaxtyping import Float
from torch import Tensor

from interp.errors import InterpError, shown, unknown_name, whole_number, whole_numbers
from interp.prompts.tokens import Prompts

At: TypeAlias = Sequence[str | int] | str | int | None
AblationKind: TypeAlias = Literal["zero", "zero_raw", "mean", "resample"]
ABLATIONS: tuple[AblationKind, ...] = ("zero", "zero_raw", "mean", "resample")


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where an intervention acts.

    Attributes:
        layers: layer indices; None is every layer.
        heads: head indices (``kv_head`` for keys and values); None is every head.
        at: roles or positions; None is every token.
    """

    layers: Sequence[int] | int | None = None
    heads: Sequence[int] | None = None
    at: At = None

    def __post_init__(self) -> None:
        """Refuse heads that are none."""
        if self.heads is not None:
            object.__setattr__(self, "heads", whole_numbers(self.heads, "heads"))


@dataclass(frozen=True, kw_only=True)
class Replace(Where):
    """Put given activations in place of the model's own (activation patching).

    Attributes:
        site: site name.
        values: layer -> activations [prompt, *site dims], as ``run.activations`` returns them.
    """

    site: str
    values: Mapping[int, Float[Tensor, "prompt ..."]] = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse values that are not said to be of a layer."""
        super().__post_init__()
        if not isinstance(self.values, Mapping) or not self.values:
            raise InterpError("values of Replace must be a mapping of layer to activations, with at least one.")


@dataclass(frozen=True, kw_only=True)
class Ablate(Where):
    """Remove what a site carries.

    Attributes:
        site: site name.
        kind: ``zero``: zeros, in the numerics in force. In folded numerics (the default) a head whose ``z`` is zero
            still writes what the biases of its values and of the norm before them write, since folding has moved that
            into attention's output bias. ``zero_raw``: what is zero in the raw model, as a hook on the Hugging Face
            model would set it. It differs from ``zero`` at ``v``, ``z`` and ``result`` of models with such biases.
            ``mean``: the mean over the references, per position when every prompt has the same length, else over all
            tokens. ``resample``: the value of a reference of equal length, drawn with ``seed``.
        seed: for ``resample``.
        references: prompts whose activations give the mean or the resample; None is the prompts of the run.
    """

    site: str
    kind: AblationKind
    seed: int = 0
    references: Prompts | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown kind."""
        super().__post_init__()
        check_ablation(self.kind)


def check_ablation(kind: str) -> None:
    """Refuse anything but the names of the ablations."""
    if kind not in ABLATIONS:
        raise unknown_name("ablation", kind, ABLATIONS)


@dataclass(frozen=True, kw_only=True)
class Knockout(Where):
    """Cut attention from destination tokens to source tokens before the softmax, so that the rest still sums to 1.

    Geva et al. 2023 (arXiv 2304.14767). ``at`` is not used: ``dest`` and ``src`` say where.

    Attributes:
        dest: roles or positions that may not look.
        src: roles or positions that may not be looked at.
    """

    dest: At
    src: At


def parse_edge(edge: str) -> tuple[str, str]:
    """Destination and source of an edge written ``"noun<-color"``.

    Raises:
        InterpError: malformed.
    """
    dest, arrow, src = (part.strip() for part in edge.partition("<-"))
    if not (dest and arrow and src):
        raise InterpError(f"Edge {shown(edge)} is not destination<-source. Write it like 'noun<-color'.")
    return dest, src


@dataclass(frozen=True, kw_only=True)
class Steer(Where):
    """Add a vector: ``activation + scale * vector``.

    Attributes:
        site: site name.
        vector: broadcast against the site's last axes, e.g. [d_model] for ``resid_pre``, [d_head] for ``z``.
        scale: multiplier.
    """

    site: str
    vector: Float[Tensor, "*dims"] = field(repr=False)
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no tensor, or no number."""
        super().__post_init__()
        _check_tensor("vector of Steer", self.vector)
        _check_number("scale of Steer", self.scale)


@dataclass(frozen=True, kw_only=True)
class Erase(Where):
    """Project out a subspace: ``x - (x - offset) B^T B`` with orthonormal rows B.

    Attributes:
        site: site name.
        directions: spanning vectors [direction, d]; orthonormalised here.
        offset: point that the projection leaves in place, [d]; None is the origin.
    """

    site: str
    directions: Float[Tensor, "direction d"] = field(repr=False)
    offset: Float[Tensor, " d"] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse directions that are no rows."""
        super().__post_init__()
        _check_tensor("directions of Erase", self.directions)
        if self.directions.ndim != 2:
            raise InterpError("directions of Erase must be rows, [direction, d]. Write vector[None] for one.")
        if self.offset is not None:
            _check_tensor("offset of Erase", self.offset)


@dataclass(frozen=True, kw_only=True)
class AddNoise(Where):
    """Add Gaussian noise of a stated standard deviation (causal tracing; Meng et al. 2022, arXiv 2202.05262).

    Attributes:
        site: site name, usually ``embed``.
        scale: standard deviation, in the site's units.
        seed: every call with one seed adds the same noise.
    """

    scale: float
    site: str = "embed"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no number."""
        super().__post_init__()
        _check_number("scale of AddNoise", self.scale)
        whole_number(self.seed, "seed", least=0)


def _check_tensor(what: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise InterpError(f"{what} must be a tensor, not {type(value).__name__}.")


def _check_number(what: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InterpError(f"{what} must be a number, not {shown(value)}.")


Intervention: TypeAlias = Replace | Ablate | Knockout | Steer | Erase | AddNoise
