"""Interventions: small frozen values that say what to change, and to what. They hold no model and run nothing.

Each names a site, the layers, optionally heads, and ``at``: roles (every token of the span) or positions. ``at=None``
is every token. The method ``edit`` gives the new value, and ``interp.run`` puts it in at the tokens and heads named.

An intervention of your own is a subclass:

>>> @dataclass(frozen=True, kw_only=True)
... class Double(Intervention):
...     site: str
...
...     def edit(self, activation, layer, rows):
...         return 2 * activation
>>> Double(site="z", layers=[1], heads=[0]).edit(torch.ones(2), 1, np.arange(1)).tolist()
[2.0, 2.0]
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import InterpError, shown, unknown_name, whole_number, whole_numbers
from interp.prompts.places import At, token_mask
from interp.prompts.tokens import Prompts

AblationKind: TypeAlias = Literal["zero", "zero_raw", "mean", "resample"]
ABLATIONS: tuple[AblationKind, ...] = ("zero", "zero_raw", "mean", "resample")


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where an intervention acts.

    Attributes:
        layers: layer indices; None is every layer.
        heads: head indices (``kv_head`` for keys and values); None is every head.
        at: roles or positions; None is every token.

    >>> Where(layers=[3], heads=[0, 2], at=["color"]).heads
    (0, 2)
    """

    layers: Sequence[int] | int | None = None
    heads: Sequence[int] | None = None
    at: At = None

    def __post_init__(self) -> None:
        """Refuse heads that are not whole numbers."""
        if self.heads is not None:
            object.__setattr__(self, "heads", whole_numbers(self.heads, "heads"))


@dataclass(frozen=True, kw_only=True)
class Intervention(Where, ABC):
    """A change of one site.

    Attributes:
        site: site name.

    Every intervention is one, and names its site; the docstring of the module shows how to write one of your own.

    >>> isinstance(Ablate(site="z", kind="zero"), Intervention)
    True
    """

    site: str

    @abstractmethod
    def edit(self, activation: Tensor, layer: int, rows: Int[np.ndarray, " row"]) -> Tensor:
        """The new activation, at every token and head; it is used at those named only.

        Args:
            activation: what the model has ``[row, *site dims]``.
            layer: where.
            rows: the number of each row's prompt among all prompts.
        """

    def tokens(self, prompts: Prompts) -> Bool[np.ndarray, "prompt position *src"]:
        """Which tokens change; of attention, which destinations, or which pairs of destination and source."""
        return token_mask(prompts, self.at)

    def check(self, shape: tuple[int, ...], layer: int) -> None:
        """Refuse what does not fit a site whose activation at one token has this shape.

        Raises:
            InterpError: names both shapes, or the layer.
        """

    def with_values(self, values: Callable[[Ablate], Mapping[int, Tensor]]) -> Intervention:
        """The intervention itself; where its new values come from other runs, one that holds what ``values`` gives."""
        return self


@dataclass(frozen=True, kw_only=True)
class Replace(Intervention):
    """Put given activations in place of the model's own (activation patching).

    Attributes:
        values: layer -> activations ``[prompt, *site dims]``, as ``run.activations`` returns them.

    >>> clean = torch.tensor([[[5.0]]])  # prompt position d_model
    >>> patch = Replace(site="resid_pre", layers=[3], values={3: clean})
    >>> patch.edit(torch.tensor([[[1.0]]]), 3, np.array([0])).item()
    5.0
    """

    values: Mapping[int, Float[Tensor, "prompt ..."]] = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse values that do not say of which layer they are."""
        super().__post_init__()
        _check_values("Replace", self.values)

    def check(self, shape: tuple[int, ...], layer: int) -> None:
        """Refuse a layer without values."""
        _check_layer("Replace", self.values, layer)

    def edit(self, activation: Tensor, layer: int, rows: Int[np.ndarray, " row"]) -> Tensor:
        """The values of these prompts; tokens beyond them (answers that were appended) keep their own."""
        return _values_at(self.values[layer], activation, rows)


@dataclass(frozen=True, kw_only=True)
class Ablate(Intervention):
    """Remove what a site carries.

    Attributes:
        kind: ``zero``: zeros, in the numerics in force. In folded numerics (the default) a head whose ``z`` is zero
            still writes what the biases of its values and of the norm before them write, since folding has moved that
            into attention's output bias. ``zero_raw``: what is zero in the raw model, as a hook on the Hugging Face
            model would set it. It differs from ``zero`` at ``v``, ``z`` and ``result`` of models with such biases.
            ``mean``: the mean over the references, per position when every prompt has the same length, else over all
            tokens. ``resample``: the value of a reference of equal length, drawn with ``seed``.
        seed: for ``resample``.
        references: prompts whose activations give the mean or the resample; None is the prompts of the run.

    Without what attention adds, the model says some other colour:

    >>> from interp import HookedTransformer, run
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> prompts = run.as_prompts(model, "The cat is black. The cat is")
    >>> logits = run.logits_at(model, prompts, interventions=[Ablate(site="attn_out", kind="zero")])
    >>> model.tokenizer.decode(logits.argmax()) == " black"
    False
    """

    kind: AblationKind
    seed: int = 0
    references: Prompts | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown kind."""
        super().__post_init__()
        check_ablation(self.kind)

    def with_values(self, values: Callable[[Ablate], Mapping[int, Tensor]]) -> Intervention:
        """The replacement that this ablation comes to for the prompts of a run (``interp.ablation``)."""
        return Replace(site=self.site, values=values(self), layers=self.layers, heads=self.heads, at=self.at)

    def edit(self, activation: Tensor, layer: int, rows: Int[np.ndarray, " row"]) -> Tensor:
        """Refused: the new value comes from other runs, and is known once ``with_values`` has been called."""
        raise InterpError("What an ablation puts in is known with its prompts only. Give it to interp.run.")


def check_ablation(kind: str) -> None:
    """Refuse anything but the names of the ablations.

    >>> check_ablation("median")
    Traceback (most recent call last):
    interp.errors.InterpError: Unknown ablation 'median'. ... Choose from: zero, zero_raw, mean, resample.
    """
    if kind not in ABLATIONS:
        raise unknown_name("ablation", kind, ABLATIONS)


@dataclass(frozen=True, kw_only=True)
class Knockout(Intervention):
    """Cut attention from destination tokens to source tokens before the softmax, so that the rest still sums to 1.

    Geva et al. 2023 (arXiv 2304.14767). ``at`` is not used: ``dest`` and ``src`` say where.

    Attributes:
        site: ``scores``.
        dest: roles or positions that may not look.
        src: roles or positions that may not be looked at.

    The last of three tokens may no longer look at the first:

    >>> cut = Knockout(dest=[2], src=[0])
    >>> cut.tokens(Prompts.from_ids([[5, 6, 7]]))[0].astype(int).tolist()  # a row for each destination
    [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    """

    site: str = field(default="scores", init=False)
    dest: At
    src: At

    def tokens(self, prompts: Prompts) -> Bool[np.ndarray, "prompt position src"]:
        """Which links are cut.

        Raises:
            InterpError: a token would be left with nothing to attend to.
        """
        dest, src = token_mask(prompts, self.dest), token_mask(prompts, self.src)
        cut: Bool[np.ndarray, "prompt position src"] = dest[:, :, None] & src[:, None, :]
        check_cut(cut, "The knockout")
        return cut

    def edit(self, activation: Tensor, layer: int, rows: Int[np.ndarray, " row"]) -> Tensor:
        """The lowest score, which the softmax makes 0."""
        return activation.new_full((), torch.finfo(activation.dtype).min)


def check_cut(cut: Bool[np.ndarray, "prompt dest src"], what: str) -> None:
    """Refuse to cut a token off from everything.

    Raises:
        InterpError: names the token; ``what`` begins the sentence.

    >>> check_cut(np.array([[[True, False], [False, False]]]), "The knockout")
    Traceback (most recent call last):
    interp.errors.InterpError: The knockout leaves token 0 of prompt 0 with nothing to attend to. Cut fewer tokens.
    """
    places = np.arange(cut.shape[1])
    seen = (places[:, None] >= places[None, :]) & ~cut
    blind = ~seen.any(axis=2)
    if blind.any():
        prompt, position = np.argwhere(blind)[0]
        raise InterpError(
            f"{what} leaves token {position} of prompt {prompt} with nothing to attend to. Cut fewer tokens."
        )


def parse_edge(edge: str) -> tuple[str, str]:
    """Destination and source of an edge written ``"noun<-color"``.

    Raises:
        InterpError: malformed.

    >>> parse_edge("noun<-color")
    ('noun', 'color')
    """
    dest, arrow, src = (part.strip() for part in edge.partition("<-"))
    if not (dest and arrow and src):
        raise InterpError(f"Edge {shown(edge)} is not destination<-source. Write it like 'noun<-color'.")
    return dest, src


@dataclass(frozen=True, kw_only=True)
class Steer(Intervention):
    """Add a vector: ``activation + scale * vector``.

    Attributes:
        vector: broadcast against the site's last axes, e.g. [d_model] for ``resid_pre``, [d_head] for ``z``.
        scale: multiplier.

    >>> more = Steer(site="resid_pre", layers=[3], vector=torch.tensor([1.0, -1.0]), scale=2.0)
    >>> more.edit(torch.tensor([10.0, 10.0]), 3, np.array([0])).tolist()
    [12.0, 8.0]
    """

    vector: Float[Tensor, "*dims"] = field(repr=False)
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no tensor, or no number."""
        super().__post_init__()
        _check_tensor("vector of Steer", self.vector)
        _check_number("scale of Steer", self.scale)

    def check(self, shape: tuple[int, ...], layer: int) -> None:
        """Refuse a vector of another shape."""
        given = tuple(self.vector.shape)
        try:
            fits = np.broadcast_shapes(given, shape)[-len(shape) :] == shape
        except ValueError:
            fits = False
        if not fits:
            raise InterpError(f"The vector of Steer has shape {given}, but '{self.site}' has {shape} at a token.")

    def edit(self, activation: Tensor, layer: int, rows: Int[np.ndarray, " row"]) -> Tensor:
        """The activation plus ``scale`` times the vector."""
        return activation + self.scale * self.vector.to(activation)


@dataclass(frozen=True, kw_only=True)
class Shift(Intervention):
    """Add a vector of its own to each prompt: ``activation + vectors[prompt]``, at every token named.

    Attributes:
        vectors: [prompt, d], a row for each prompt of the run; d as in ``Erase``.

    >>> own = Shift(site="resid_pre", layers=[3], vectors=torch.tensor([[1.0], [2.0]]))
    >>> own.edit(torch.zeros(1, 2, 1), 3, np.array([1])).tolist()  # the second prompt, of two tokens
    [[[2.0], [2.0]]]
    """

    vectors: Float[Tensor, "prompt d"] = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse what is not a row for each prompt."""
        super().__post_init__()
        _check_rows("vectors of Shift", "prompt", self.vectors)

    def check(self, shape: tuple[int, ...], layer: int) -> None:
        """Refuse vectors of another width."""
        _check_width("The vectors of Shift have", self.vectors.shape[1], self.site, shape)

    def edit(self, activation: Tensor, layer: int, rows: Int[np.ndarray, " row"]) -> Tensor:
        """The activation plus the prompt's own vector."""
        own = self.vectors[torch.from_numpy(rows).to(self.vectors.device)].to(activation)
        flat = _side_by_side(activation, own.shape[1])
        return (flat + own.reshape(len(own), *(1,) * (flat.ndim - 2), -1)).reshape(activation.shape)


@dataclass(frozen=True, kw_only=True)
class Erase(Intervention):
    """Take a subspace out: ``x - (x - offset) R^T W``.

    Attributes:
        directions: rows R, [direction, d]: what is read. At a site of heads d is the size of one, and each is edited
            alone; or of all of them side by side.
        offset: point that stays where it is, [d]; None is the origin.
        written: rows W, [direction, d]: what is taken away for each direction read, as in LEACE, where the two
            differ. None: the projection off the span of ``directions``, which are orthonormalised here.

    >>> first = Erase(site="resid_pre", layers=[3], directions=torch.tensor([[1.0, 0.0]]))
    >>> first.edit(torch.tensor([3.0, 4.0]), 3, np.array([0])).tolist()
    [0.0, 4.0]
    """

    directions: Float[Tensor, "direction d"] = field(repr=False)
    offset: Float[Tensor, " d"] | None = field(default=None, repr=False)
    written: Float[Tensor, "direction d"] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse directions that are not the rows of a matrix."""
        super().__post_init__()
        _check_subspace("Erase", self.directions, self.written)
        if self.offset is not None:
            _check_tensor("offset of Erase", self.offset)

    def check(self, shape: tuple[int, ...], layer: int) -> None:
        """Refuse directions of another width."""
        _check_width("The directions of Erase have", self.directions.shape[1], self.site, shape)

    def edit(self, activation: Tensor, layer: int, rows: Int[np.ndarray, " row"]) -> Tensor:
        """The activation without its part in the subspace."""
        read, written = _read_and_written(self.directions, self.written, activation)
        flat = _side_by_side(activation, read.shape[1])
        centred = flat if self.offset is None else flat - self.offset.to(activation)
        return (flat - (centred @ read.T) @ written).reshape(activation.shape)


@dataclass(frozen=True, kw_only=True)
class Interchange(Intervention):
    """Exchange a subspace for another run's: ``x + (other - x) R^T W`` (Geiger et al. 2023, arXiv 2303.02536).

    With directions that span the whole space it is ``Replace``.

    Attributes:
        directions: rows R, as in ``Erase``.
        values: layer -> the other run's activations ``[prompt, *site dims]``, as ``run.activations`` returns them.
        written: rows W, as in ``Erase``. Other rows of the same lengths make a placebo, which moves the activation as
            far, elsewhere.

    >>> other = torch.tensor([[[5.0, 6.0]]])  # prompt position d_model
    >>> first = Interchange(site="resid_pre", layers=[3], directions=torch.tensor([[1.0, 0.0]]), values={3: other})
    >>> first.edit(torch.tensor([[[1.0, 2.0]]]), 3, np.array([0])).tolist()
    [[[5.0, 2.0]]]
    """

    directions: Float[Tensor, "direction d"] = field(repr=False)
    values: Mapping[int, Float[Tensor, "prompt ..."]] = field(repr=False)
    written: Float[Tensor, "direction d"] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse directions that are not the rows of a matrix, and values that do not say of which layer they are."""
        super().__post_init__()
        _check_subspace("Interchange", self.directions, self.written)
        _check_values("Interchange", self.values)

    def check(self, shape: tuple[int, ...], layer: int) -> None:
        """Refuse directions of another width, and a layer without values."""
        _check_width("The directions of Interchange have", self.directions.shape[1], self.site, shape)
        _check_layer("Interchange", self.values, layer)

    def edit(self, activation: Tensor, layer: int, rows: Int[np.ndarray, " row"]) -> Tensor:
        """The activation with the other run's part in the subspace; tokens beyond that run keep their own."""
        read, written = _read_and_written(self.directions, self.written, activation)
        apart = _values_at(self.values[layer], activation, rows) - activation
        moved = (_side_by_side(apart, read.shape[1]) @ read.T) @ written
        return activation + moved.reshape(activation.shape)


@dataclass(frozen=True, kw_only=True)
class AddNoise(Intervention):
    """Add Gaussian noise of a stated standard deviation (causal tracing; Meng et al. 2022, arXiv 2202.05262).

    Attributes:
        site: site name, usually ``embed``.
        scale: standard deviation, in the site's units.
        seed: every call with one seed adds the same noise.

    >>> noise = AddNoise(scale=0.5)
    >>> embedded = torch.zeros(1, 100, 100)  # prompt position d_model
    >>> round(noise.edit(embedded, 0, np.array([0])).std().item(), 1)
    0.5
    """

    scale: float
    site: str = "embed"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no number."""
        super().__post_init__()
        _check_number("scale of AddNoise", self.scale)
        whole_number(self.seed, "seed", least=0)

    def edit(self, activation: Tensor, layer: int, rows: Int[np.ndarray, " row"]) -> Tensor:
        """The activation with noise that depends on the prompt's own number, not on how prompts were batched."""
        shape = tuple(activation.shape[1:])
        draws = [np.random.default_rng([self.seed, layer, int(row)]).standard_normal(shape) for row in rows]
        return activation + self.scale * torch.from_numpy(np.stack(draws)).float().to(activation)


# ---- values of another run ----


def _check_values(what: str, values: object) -> None:
    if not isinstance(values, Mapping) or not values:
        raise InterpError(f"values of {what} must be a mapping of layer to activations, with at least one.")


def _check_layer(what: str, values: Mapping[int, Tensor], layer: int) -> None:
    if layer not in values:
        layers = ", ".join(map(str, values))
        raise InterpError(f"{what} has no values for layer {layer}, only for {layers}. Name these as layers=[...].")


def _values_at(values: Float[Tensor, "prompt ..."], activation: Tensor, rows: Int[np.ndarray, " row"]) -> Tensor:
    """The values of some prompts, and the activation's own at tokens beyond them."""
    new = values[torch.from_numpy(rows).to(values.device)].to(device=activation.device, dtype=activation.dtype)
    if new.shape == activation.shape:
        return new
    if new.ndim != activation.ndim or new.shape[0] != activation.shape[0]:
        raise InterpError(
            f"Replacement of shape {tuple(new.shape)} does not fit an activation of shape {tuple(activation.shape)}."
        )
    out = activation.clone()
    window = tuple(slice(0, min(a, b)) for a, b in zip(new.shape, activation.shape, strict=True))
    out[window] = new[window]
    return out


# ---- subspaces ----


def _check_subspace(what: str, directions: object, written: object) -> None:
    _check_rows(f"directions of {what}", "direction", directions)
    if written is None:
        return
    _check_rows(f"written of {what}", "direction", written)
    read, out = (tuple(getattr(rows, "shape", ())) for rows in (directions, written))
    if read != out:
        raise InterpError(f"directions of {what} have shape {read} and written {out}. Give a row for each direction.")


def _check_width(begun: str, width: int, site: str, shape: tuple[int, ...]) -> None:
    """Refuse vectors that fit neither one head of a site nor all of its numbers at a token."""
    if width not in (shape[-1], math.prod(shape)):
        raise InterpError(f"{begun} {width} numbers, but '{site}' has {shape[-1]}.")


def _side_by_side(activation: Tensor, width: int) -> Float[Tensor, "... width"]:
    """The activation's last axes as one, where vectors are as wide as all of them."""
    if activation.shape[-1] == width:
        return activation
    size, first = 1, activation.ndim
    while size < width:
        first -= 1
        size *= activation.shape[first]
    return activation.flatten(first)


def _read_and_written(
    directions: Tensor, written: Tensor | None, activation: Tensor
) -> tuple[Float[Tensor, "direction d"], Float[Tensor, "direction d"]]:
    """What is read and what is written, in the activation's dtype; one orthonormal basis where it is a projection."""
    if written is not None:
        return directions.to(activation), written.to(activation)
    basis = torch.linalg.qr(directions.to(activation).T).Q.T
    return basis, basis


def _check_rows(what: str, axis: str, value: object) -> None:
    _check_tensor(what, value)
    if getattr(value, "ndim", 0) != 2:
        raise InterpError(f"{what} must be rows, [{axis}, d]. Write vector[None] for one.")


def _check_tensor(what: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise InterpError(f"{what} must be a tensor, not {type(value).__name__}.")


def _check_number(what: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InterpError(f"{what} must be a number, not {shown(value)}.")


INTERVENTIONS: tuple[type[Intervention], ...] = (
    Replace, Ablate, Knockout, Steer, Shift, Erase, Interchange, AddNoise
)  # fmt: skip
