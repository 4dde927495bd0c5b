"""What one head reads of each part of the residual stream, with every norm's scale as it was in the run.

The stream is a sum: of the embedding, and of what every earlier head and MLP wrote. A norm whose scale is held at the
run's value is linear, and so are the maps to queries, keys and values, and a rotation. So a query is a sum over
writers too, and a score is a sum over pairs of writers (Elhage et al. 2021). Nothing is assumed of a model: each map
is read off its own run, and each sum is held to what the model computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp import run
from interp.errors import InterpError
from interp.heads.entering import TOLERANCE, Entering, agrees, off
from interp.heads.head import Head, Kind
from interp.heads.turning import Turn, turns
from interp.model.frozen import FrozenNorm
from interp.prompts.tokens import Prompts
from interp.sites import head_label

if TYPE_CHECKING:
    from interp.model import HookedTransformer

PART_BYTES = 2**27
"""Bytes of parts of the stream that are held at a time."""

EMBED, POS_EMBED, OUTPUT_BIAS, POST_BIAS = "embed", "pos_embed", "b_O", "post-norm bias"
NORM_BIAS = "norm bias"


# ---- what wrote the stream ----


@dataclass(frozen=True)
class Stream:
    """The residual stream at some places, as a sum over what wrote it.

    Attributes:
        labels: the writers: ``embed``, ``position``, heads, MLPs; and where there are any the biases of attention,
            which are one writer, ``b_O``, and those of norms behind it.
        parts: what each of them is in the stream, in float64.
    """

    labels: tuple[str, ...]
    parts: Float[Tensor, "prompt role writer d_model"]


def written(model: HookedTransformer, prompts: Prompts, layer: int, roles: Sequence[str]) -> Stream:
    """What wrote to the stream before a layer, at the last token of some roles.

    Where blocks multiply or normalise what they add, or normalise the stream after each addition, each part goes
    through the same, a norm having the scale that it had in the run.

    Raises:
        InterpError: the stream is no such sum.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> found = written(model, pairs.clean, 1, ["color"])
    >>> found.labels, found.parts.shape
    (('embed', 'pos_embed', 'L0H0', 'L0H1', 'L0H2', 'L0H3', 'MLP0', 'b_O'), torch.Size([2, 1, 8, 128]))
    """
    names = [name for name in ("z", "attn_out", "mlp_out") if layer and model.has_site(name)]
    found = capture_at(model, prompts, ["resid_pre", *names], roles, list(range(layer + 1)))
    whole = found.pop("resid_pre")
    labels, parts = [EMBED], whole[:, 0].unsqueeze(2)
    if model.has_site("pos_embed"):
        position = capture_at(model, prompts, ["pos_embed"], roles, [0])["pos_embed"].unsqueeze(2)
        labels, parts = [EMBED, POS_EMBED], torch.cat((parts - position, position), dim=2)
    parts = torch.cat((parts, torch.zeros_like(parts[:, :, :1]).expand(-1, -1, 2, -1)), dim=2)  # the biases, behind
    for one in range(layer):
        own = {name: values[:, one] for name, values in found.items()}
        labels += [head_label(one, head) for head in range(model.cfg.n_heads)]
        labels += [f"MLP{one}"] if "mlp_out" in own else []
        parts = _after(model, one, parts, own, whole[:, one + 1])
    biases = parts[:, :, -2:].abs().amax(dim=(0, 1, 3)) > 0
    kept = [*range(len(labels)), *(len(labels) + i for i in range(2) if bool(biases[i]))]
    parts = parts[:, :, kept]
    labels += [label for label, there in zip((OUTPUT_BIAS, POST_BIAS), biases, strict=True) if bool(there)]
    _check(
        model, parts.sum(dim=2), whole[:, -1], parts.abs().sum(dim=2),
        f"The stream before layer {layer}", "blocks do more to it than to add, multiply and normalise",
    )  # fmt: skip
    return Stream(tuple(labels), parts)


def _after(
    model: HookedTransformer,
    layer: int,
    parts: Float[Tensor, "prompt role part d_model"],
    own: Mapping[str, Tensor],
    stream: Float[Tensor, "prompt role d_model"],
) -> Float[Tensor, "prompt role part d_model"]:
    """The parts of the stream after a layer; the last two are the biases, of attention and of norms."""
    before, biases = parts[:, :, :-2], parts[:, :, -2:]
    entering = Entering.of(model, layer, own["z"], own["attn_out"])
    heads = torch.einsum("prhx,hxd->prhd", own["z"], model.W_O(layer).double().cpu())
    width = parts.shape[-1]
    added = entering(model.b_O(layer).double().cpu().expand(*heads.shape[:2], 1, width))
    biases = biases + torch.cat((added, entering.bias(width).expand_as(added)), dim=2)
    mlp = own["mlp_out"].unsqueeze(2) if "mlp_out" in own else heads[:, :, :0]
    plain = torch.cat((before, entering(heads), mlp, biases), dim=2)
    size = plain.abs().sum(dim=2)
    if agrees(model, plain.sum(dim=2), stream, size):
        return plain
    factor = float((plain.sum(dim=2) * stream).sum() / plain.sum(dim=2).square().sum())
    if agrees(model, factor * plain.sum(dim=2), stream, size):
        return factor * plain
    block, normed = model.bridge.blocks[layer], torch.cat((before, entering(heads), biases), dim=2)
    for name, more in (("ln1", mlp), ("ln2", mlp[:, :, :0])):
        norm = getattr(block, name, None)
        if norm is not None:
            normed = _normed(FrozenNorm.of(model, norm, normed.sum(dim=2)), normed)
        normed = torch.cat((normed[:, :, :-2], more, normed[:, :, -2:]), dim=2)
    return normed


def _normed(norm: FrozenNorm, parts: Float[Tensor, "*place part d_model"]) -> Float[Tensor, "*place part d_model"]:
    """What a norm makes of each part; its bias is added to the last."""
    made = norm.before_scale(parts) / norm.scale.unsqueeze(-2)
    return torch.cat((made[..., :-1, :], made[..., -1:, :] + norm.bias), dim=-2)


def stream_chunks(model: HookedTransformer, layer: int, prompts: Prompts) -> Iterator[Int[np.ndarray, " prompt"]]:
    """So many prompts at a time that the parts of their stream fit in ``PART_BYTES``.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> [len(rows) for rows in stream_chunks(model, 3, Prompts.from_ids([[1, 2], [3, 4]]))]
    [2]
    """
    each = 2 * 8 * (4 + layer * (model.cfg.n_heads + 1)) * model.cfg.d_model
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
class HeadReader:
    """One head of a model, for prompts of at most some length."""

    model: HookedTransformer
    head: Head
    turns: Mapping[Kind, Turn | None]

    @classmethod
    def of(cls, model: HookedTransformer, head: Head, length: int, kinds: Sequence[Kind]) -> HeadReader:
        """The head as it reads.

        Raises:
            InterpError: a site is missing, or layers before it have another attention.
        """
        for name in ("resid_pre", "z", "attn_out", "pattern", *kinds):
            model.check_site(name)
        if any(not hasattr(block, "attn") for block in model.bridge.blocks[: head.layer + 1]):
            raise InterpError(
                f"Some layers of {model.name} ({model.cfg.architecture}) before {head.label} have no attention that is "
                "read here, so that what they wrote cannot be split. Choose a head of an earlier layer."
            )
        return cls(model, head, turns(model, head, kinds, length))

    def weight(self, kind: Kind) -> Float[Tensor, "d_model d_head"]:
        """The map of this head to its queries, keys or values, in float64."""
        return head_weight(self.model, self.head, kind)

    def parts(
        self,
        kind: Kind,
        stream: Float[Tensor, "prompt writer d_model"],
        writers: Sequence[str],
        positions: Int[np.ndarray, " prompt"],
        own: Float[Tensor, "prompt d_head"],
        turned: Float[Tensor, "prompt d_head"] | None,
    ) -> Sum:
        """The query, key or value at one position of each prompt as a sum.

        Args:
            kind: which.
            stream: what each writer wrote there.
            writers: their labels.
            positions: where it stands.
            own: what the model computed there.
            turned: the same after the turn, where there is one.

        Raises:
            InterpError: the parts do not sum to what the model computed.
        """
        model, head, name = self.model, self.head, {"q": "queries", "k": "keys", "v": "values"}[kind]
        made = [self._projected(kind, stream, writers, norm) for norm in self._norms(stream.sum(dim=1))]
        found = min(made, key=lambda one: off(one.total, own, one.parts.abs().sum(dim=1)))
        labels, parts = list(found.labels), found.parts
        _check(
            model, parts.sum(dim=1), own, parts.abs().sum(dim=1), f"The {name} of {head.label}",
            "something acts between the norm before attention and its projections",
        )  # fmt: skip
        if turned is None:
            return Sum(tuple(labels), parts)
        turn = self.turns[kind]
        assert turn is not None
        at = torch.from_numpy(positions)
        parts = torch.einsum("pwx,pxy->pwy", parts, turn.matrix[at])
        offset, total = turn.offset[at], parts.sum(dim=1)
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

    def _norms(self, stream: Float[Tensor, "prompt d_model"]) -> Iterator[FrozenNorm | None]:
        """The norm before attention; and none, for families whose attention reads the stream itself."""
        norm = getattr(self.model.bridge.blocks[self.head.layer], "ln1", None)
        if norm is not None:
            yield FrozenNorm.of(self.model, norm, stream)
        yield None

    def _projected(
        self,
        kind: Kind,
        stream: Float[Tensor, "prompt writer d_model"],
        writers: Sequence[str],
        norm: FrozenNorm | None,
    ) -> Sum:
        """The parts of a projection of the stream, normalised or not; biases are parts of their own."""
        weight, read, extra = self.weight(kind), stream, {f"b_{kind.upper()}": head_bias(self.model, self.head, kind)}
        if norm is not None:
            read = norm.before_scale(stream) / norm.scale.unsqueeze(1)
            extra = {NORM_BIAS: norm.bias @ weight, **extra}
        labels, parts = [*writers], read @ weight
        for label, value in extra.items():
            if bool(value.any()):
                labels.append(label)
                parts = torch.cat((parts, value.expand(len(parts), 1, -1)), dim=1)
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
    error = off(made, own, size)
    allowed = TOLERANCE.get(model.dtype, 5e-2)
    if not error <= allowed:
        hint = " Load it with dtype='float32'." if model.dtype in (torch.float16, torch.bfloat16) else ""
        raise InterpError(
            f"{what} of {model.name} ({model.cfg.architecture}) is no sum of what was written: {error:.2g} off, "
            f"relative, where {allowed:g} is allowed, since {why}.{hint} Use path patching or knockout instead."
        )
