"""What one head reads of each part of the residual stream, with every norm's scale as it was in the run.

The stream is a sum: of the embedding, and of what every earlier head and MLP wrote. A norm whose scale is held at the
run's value is linear, and so are the maps to queries, keys and values, and a rotation. So a query is a sum over
writers too, and a score is a sum over pairs of writers (Elhage et al. 2021). Nothing is assumed of a model: each map
is read off its own run, and each sum is held to what the model computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp import run, sites
from interp.errors import InterpError, shown
from interp.model.frozen import FrozenNorm
from interp.prompts.tokens import Prompts
from interp.sites import head_label

if TYPE_CHECKING:
    from interp.model import Hook, HookedTransformer

Kind: TypeAlias = Literal["q", "k", "v"]

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""How far a sum of parts may be from the model's own number, as a share of the sizes: rounding in that data type."""

PART_BYTES = 2**27
"""Bytes of parts of the stream that are held at a time."""

EMBED, POSITION, OUTPUT_BIAS, NORM_BIAS = "embed", "position", "b_O", "norm bias"


@dataclass(frozen=True)
class Head:
    """A head by its layer and index, and the key-value head that it reads through.

    >>> from interp import HookedTransformer
    >>> head = Head.of(HookedTransformer.from_pretrained("mini"), (1, 0))
    >>> head.label, head.index("q"), head.index("k")
    ('L1H0', 0, 0)
    """

    layer: int
    head: int
    kv_head: int

    @classmethod
    def of(cls, model: HookedTransformer, head: tuple[int, int]) -> Head:
        """The head of a model.

        Raises:
            InterpError: it is no pair of numbers, or the model has no such head.
        """
        cfg = model.cfg
        if not (
            isinstance(head, tuple | list) and len(head) == 2 and all(isinstance(n, int | np.integer) for n in head)
        ):
            raise InterpError(f"head must be (layer, head), such as (1, 0), not {shown(head)}.")
        layer, index = int(head[0]), int(head[1])
        for name, given, size in (("layer", layer, cfg.n_layers), ("head", index, cfg.n_heads)):
            if not 0 <= given < size:
                raise InterpError(f"There is no {name} {given}: {model.name} has {size} (0 to {size - 1}).")
        return cls(layer, index, index // (cfg.n_heads // cfg.n_kv_heads))

    @property
    def label(self) -> str:
        """Its usual name."""
        return head_label(self.layer, self.head)

    def index(self, kind: Kind) -> int:
        """Its index among the queries, or among the keys or values."""
        return self.head if kind == "q" else self.kv_head

    def receiver(self, kind: Kind, grouped_query: bool) -> str:
        """The label of one of its inputs, as path patching calls it."""
        if kind == "q" or not grouped_query:
            return f"{self.label}.{kind}"
        return f"L{self.layer}KV{self.kv_head}.{kind}"


# ---- what wrote the stream ----


def writers(model: HookedTransformer, layer: int) -> tuple[str, ...]:
    """The labels of everything that writes to the stream before a layer; biases of attention are one writer, ``b_O``.

    >>> from interp import HookedTransformer
    >>> writers(HookedTransformer.from_pretrained("mini"), 1)
    ('embed', 'position', 'L0H0', 'L0H1', 'L0H2', 'L0H3', 'MLP0', 'b_O')
    """
    found = [EMBED, *([POSITION] if model.has_site("pos_embed") else [])]
    for before in range(layer):
        found += [head_label(before, head) for head in range(model.cfg.n_heads)]
        found += [f"MLP{before}"] if model.has_site("mlp_out") else []
    return (*found, *([OUTPUT_BIAS] if bool(_output_bias(model, layer).any()) else []))


def _output_bias(model: HookedTransformer, layer: int) -> Float[Tensor, " d_model"]:
    total = torch.zeros(model.cfg.d_model, dtype=torch.float64)
    for before in range(layer):
        total = total + model.b_O(before).double().cpu()
    return total


def written(
    model: HookedTransformer, prompts: Prompts, layer: int, roles: Sequence[str]
) -> Float[Tensor, "prompt role writer d_model"]:
    """What each of ``writers`` wrote to the stream before a layer, at the last token of some roles, in float64.

    Raises:
        InterpError: the stream is not the sum of what is written, since a block normalises or scales what it adds.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> written(model, pairs.clean, 1, ["color"]).shape
    torch.Size([2, 1, 8, 128])
    """
    stream = capture_at(model, prompts, ["resid_pre"], roles, sorted({0, layer}))["resid_pre"]
    parts = [stream[:, 0]]
    if model.has_site("pos_embed"):
        position = capture_at(model, prompts, ["pos_embed"], roles, [0])["pos_embed"]
        parts = [stream[:, 0] - position, position]
    if layer:
        before = list(range(layer))
        names = ["z", *(["mlp_out"] if model.has_site("mlp_out") else [])]
        found = capture_at(model, prompts, names, roles, before)
        for one in before:
            results = torch.einsum("prhx,hxd->hprd", found["z"][:, one], model.W_O(one).double().cpu())
            parts += [*results, *([found["mlp_out"][:, one]] if "mlp_out" in found else [])]
    bias = _output_bias(model, layer)
    if bool(bias.any()):
        parts.append(bias.expand_as(parts[0]))
    made = torch.stack(parts, dim=2)
    _check(
        model, made.sum(dim=2), stream[:, -1], made.abs().sum(dim=2),
        f"The stream before layer {layer}", "blocks normalise or scale what they add to it",
    )  # fmt: skip
    return made


def stream_chunks(model: HookedTransformer, layer: int, prompts: Prompts) -> Iterator[Int[np.ndarray, " prompt"]]:
    """So many prompts at a time that the parts of their stream fit in ``PART_BYTES``.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> [len(rows) for rows in stream_chunks(model, 3, Prompts.from_ids([[1, 2], [3, 4]]))]
    [2]
    """
    each = 2 * 8 * len(writers(model, layer)) * model.cfg.d_model
    yield from run.chunks_of(len(prompts), max(1, PART_BYTES // (4 * each)))


def capture_at(
    model: HookedTransformer, prompts: Prompts, names: Sequence[str], roles: Sequence[str] | None, layers: Sequence[int]
) -> dict[str, Tensor]:
    """Activations [prompt, layer, role, ...] in float64; of a pattern [prompt, layer, role, head, src].

    A site that is not of a layer has no axis of layers. Where no role is named it is every position.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> capture_at(model, pairs.clean, ["pattern"], ["answer"], [1])["pattern"].shape[:4]
    torch.Size([2, 1, 1, 4])
    """
    found = run.capture(model, prompts, list(names), at=None if roles is None else list(roles), layers=list(layers))
    place = "position" if roles is None else "role"
    made = {}
    for name in names:
        array = found[name]
        first = [dim for dim in ("prompt", "layer", place) if dim in array.dims]
        array = array.transpose(*first, ...)
        made[name] = torch.from_numpy(np.ascontiguousarray(array.values)).double()
    return made


# ---- what a head makes of it ----


@dataclass(frozen=True)
class Sum:
    """A query, key or value of each prompt, as a sum over what wrote the stream.

    Attributes:
        labels: the writers, then ``norm bias`` and the map's own bias (``b_Q``, ``b_K``, ``b_V``) where there are any.
        parts: what the head makes of each.
    """

    labels: tuple[str, ...]
    parts: Float[Tensor, "prompt writer d_head"]

    @property
    def total(self) -> Float[Tensor, "prompt d_head"]:
        """The query, key or value."""
        return self.parts.sum(dim=1)


@dataclass(frozen=True)
class Turn:
    """What lies between a projection and what is compared: a rotation, or a norm of queries and keys and a rotation.

    Up to a scale of each vector it is linear: ``x -> scale * (matrix x) + offset``.

    Attributes:
        matrix: by position.
        offset: by position, what a vector of zeros becomes.
    """

    matrix: Float[Tensor, "position d_head d_head"]
    offset: Float[Tensor, "position d_head"]


def turn(model: HookedTransformer, head: Head, kind: Kind, length: int) -> Turn | None:
    """How a head's queries or keys are turned at each position of prompts of a length; None where they are not.

    One block is run on a stream of zeros with every unit vector in the place of its queries or keys.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> turn(model, Head.of(model, (1, 0)), "q", 5) is None  # learned positions
    True
    """
    site = f"rot_{kind}"
    if kind == "v" or not model.has_site(site):
        return None
    width, index, layer = model.cfg.d_head, head.index(kind), head.layer
    units = torch.cat((torch.eye(width), torch.zeros(1, width))).to(model.device, model.dtype)
    made = []
    for rows in run.chunks_of(width + 1, run.rows_per_batch(model, length)):
        chosen = units[torch.from_numpy(rows).to(units.device)]
        kept: list[Tensor] = []

        def put(activation: Tensor, chosen: Tensor = chosen) -> Tensor:
            return chosen[:, None, None, :].expand_as(activation)

        def keep(activation: Tensor, kept: list[Tensor] = kept) -> None:
            kept.append(activation[:, :, index].double().cpu())

        hooks: list[Hook] = [(sites.site(kind).hook_name(layer), put), (sites.site(site).hook_name(layer), keep)]
        nothing = torch.zeros(len(rows), length, model.cfg.d_model, device=model.device, dtype=model.dtype)
        model.resume(nothing, layer, stop_at_layer=layer + 1, hooks=hooks)
        made += kept
    images = torch.cat(made)  # unit position d_head
    offset = images[-1]
    return Turn((images[:-1] - offset).transpose(0, 1), offset)


@dataclass(frozen=True)
class HeadReader:
    """One head of a model, for prompts of at most some length."""

    model: HookedTransformer
    head: Head
    turns: Mapping[Kind, Turn | None]

    @classmethod
    def of(cls, model: HookedTransformer, head: Head, length: int, kinds: Sequence[Kind]) -> HeadReader:
        """The head as it reads.

        Raises:
            InterpError: the block has no norm before attention, so that its reading is no sum.
        """
        for name in ("resid_pre", "z", "pattern", *kinds):
            model.check_site(name)
        if any(not hasattr(block, "attn") for block in model.bridge.blocks[: head.layer + 1]):
            raise InterpError(
                f"Some layers of {model.name} ({model.cfg.architecture}) before {head.label} have no attention that is "
                "read here, so that what they wrote cannot be split. Choose a head of an earlier layer."
            )
        if getattr(model.bridge.blocks[head.layer], "ln1", None) is None:
            raise InterpError(
                f"{model.cfg.architecture} has no norm before attention that is read here, so that {head.label} "
                "cannot be split into what it reads. Use path patching or knockout instead."
            )
        return cls(model, head, {kind: turn(model, head, kind, length) for kind in kinds})

    def weight(self, kind: Kind) -> Float[Tensor, "d_model d_head"]:
        """The map of this head to its queries, keys or values, in float64."""
        return head_weight(self.model, self.head, kind)

    def parts(
        self,
        kind: Kind,
        stream: Float[Tensor, "prompt writer d_model"],
        positions: Int[np.ndarray, " prompt"],
        own: Float[Tensor, "prompt d_head"],
        turned: Float[Tensor, "prompt d_head"] | None,
    ) -> Sum:
        """The query, key or value at one position of each prompt as a sum.

        Args:
            kind: which.
            stream: what each writer wrote there.
            positions: where it stands.
            own: what the model computed there.
            turned: the same after the turn, where there is one.

        Raises:
            InterpError: the parts do not sum to what the model computed.
        """
        model, head, name = self.model, self.head, {"q": "queries", "k": "keys", "v": "values"}[kind]
        whole = stream.sum(dim=1)
        norm = FrozenNorm.of(model, model.bridge.blocks[head.layer].ln1, whole)
        weight = self.weight(kind)
        parts = norm.before_scale(stream) / norm.scale.unsqueeze(1) @ weight
        labels = [*writers(model, head.layer)]
        extra = {NORM_BIAS: norm.bias @ weight, f"b_{kind.upper()}": head_bias(model, head, kind)}
        for label, value in extra.items():
            if bool(value.any()):
                labels.append(label)
                parts = torch.cat((parts, value.expand(len(parts), 1, -1)), dim=1)
        _check(
            model, parts.sum(dim=1), own, parts.abs().sum(dim=1), f"The {name} of {head.label}",
            "something acts between the norm before attention and its projections",
        )  # fmt: skip
        if turned is None:
            return Sum(tuple(labels), parts)
        found = self.turns[kind]
        assert found is not None
        at = torch.from_numpy(positions)
        parts = torch.einsum("pwx,pxy->pwy", parts, found.matrix[at])
        offset, total = found.offset[at], parts.sum(dim=1)
        # A norm of queries and keys leaves a scale of each vector to be read off the run; a rotation leaves 1.
        scale = ((turned - offset) * total).sum(-1) / total.square().sum(-1)
        parts = parts * torch.where((scale - 1).abs() < 1e-6, 1.0, scale)[:, None, None]
        if bool(offset.any()):
            labels.append("offset")
            parts = torch.cat((parts, offset.unsqueeze(1)), dim=1)
        _check(
            model, parts.sum(dim=1), turned, parts.abs().sum(dim=1), f"The rotated {name} of {head.label}",
            "they go through more than a rotation and a norm",
        )  # fmt: skip
        return Sum(tuple(labels), parts)


def head_weight(model: HookedTransformer, head: Head, kind: Kind) -> Float[Tensor, "d_model d_head"]:
    """The map of a head to its queries, keys or values, in float64.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> head_weight(model, Head.of(model, (1, 0)), "q").shape
    torch.Size([128, 32])
    """
    weight: Tensor = getattr(model.bridge.blocks[head.layer].attn, f"W_{kind.upper()}")[head.index(kind)]
    return weight.detach().double().cpu()


def head_bias(model: HookedTransformer, head: Head, kind: Kind) -> Float[Tensor, " d_head"]:
    """The bias of that map, in float64; zeros where there is none.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> head_bias(model, Head.of(model, (1, 0)), "q").shape
    torch.Size([32])
    """
    bias: Tensor | None = getattr(model.bridge.blocks[head.layer].attn, f"b_{kind.upper()}", None)
    return (
        torch.zeros(model.cfg.d_head, dtype=torch.float64)
        if bias is None
        else bias[head.index(kind)].detach().double().cpu()
    )


def _check(model: HookedTransformer, made: Tensor, own: Tensor, size: Tensor, what: str, why: str) -> None:
    error = float((made - own).abs().max()) / max(float(size.max()), 1e-30)
    allowed = TOLERANCE.get(model.dtype, 5e-2)
    if not error <= allowed:
        hint = " Load it with dtype='float32'." if model.dtype in (torch.float16, torch.bfloat16) else ""
        raise InterpError(
            f"{what} of {model.name} ({model.cfg.architecture}) is no sum of what was written: {error:.2g} off, "
            f"relative, where {allowed:g} is allowed, since {why}.{hint} Use path patching or knockout instead."
        )
