"""What lies between a head's projections and its scores: a rotation by position, and a norm of queries and keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp import run, sites
from interp.errors import InterpError
from interp.heads.head import Head, Kind

if TYPE_CHECKING:
    from interp.model import Hook, HookedTransformer

FLAT = 1e-4
"""How far log-weights may differ between positions that have one query and one key, where nothing is turned."""


@dataclass(frozen=True)
class Turn:
    """What lies between a projection and what is compared: a rotation, or a norm of queries and keys and a rotation.

    Up to a scale of each vector it is linear: ``x -> scale * (matrix x) + offset``.

    Attributes:
        matrix: by position.
        offset: by position, what a vector of zeros becomes.
        strength: what the model multiplies the product of turned vectors by, where its attention weights alone show
            the turn; None where a site shows what is turned (``rot_q``, ``rot_k``).
    """

    matrix: Float[Tensor, "position d_head d_head"]
    offset: Float[Tensor, "position d_head"]
    strength: float | None = None

    def __call__(
        self, vectors: Float[Tensor, "*vector d_head"], positions: Int[Tensor, "*vector"]
    ) -> Float[Tensor, "*vector d_head"]:
        """Vectors as they are when they are compared, a norm's scale aside."""
        return torch.einsum("...x,...xy->...y", vectors, self.matrix[positions]) + self.offset[positions]


def turn(model: HookedTransformer, head: Head, kind: Kind, length: int) -> Turn | None:
    """How a head's queries or keys are turned at each position of prompts of a length; None where they are not.

    One block is run on a stream of zeros with every unit vector in the place of its queries or keys. Where no site
    shows what becomes of them (GPT-NeoX, GPT-J, Phi-3), the attention weights do: see ``_unseen``.

    Raises:
        InterpError: what is turned unseen cannot be read off the attention of this model.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> turn(model, Head.of(model, (1, 0)), "q", 5) is None  # learned positions
    True
    """
    site = f"rot_{kind}"
    if kind == "v":
        return None
    if not model.has_site(site):
        return _unseen(model, head, length) if _turns(model, head, length) else None
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


def turns(model: HookedTransformer, head: Head, kinds: Sequence[Kind], length: int) -> dict[Kind, Turn | None]:
    """``turn`` of some kinds; what is turned unseen is read once, since queries and keys are turned alike there.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> turns(model, Head.of(model, (1, 0)), ["q", "v"], 5)
    {'q': None, 'v': None}
    """
    found: dict[Kind, Turn | None] = {}
    for kind in kinds:
        unseen = [one for one in found.values() if one is not None and one.strength is not None and kind != "v"]
        found[kind] = unseen[0] if unseen else turn(model, head, kind, length)
    return found


# ---- where no site shows it ----


def _turns(model: HookedTransformer, head: Head, length: int) -> bool:
    """Whether one query and one key have another score at another distance, biases by distance aside."""
    length = min(length, model.cfg.n_ctx - 1)
    if length < 2 or not model.has_site("pattern"):
        return False
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 1, model.cfg.d_head, generator=generator) for _ in range(2))
    scores = _scores(
        model, head.layer, query.expand(-1, model.cfg.n_heads, -1), key.expand(-1, model.cfg.n_kv_heads, -1), length
    )[0, head.head]
    scores = scores[torch.isfinite(scores)]
    return bool((scores - scores.mean()).abs().max() > FLAT * (1 + scores.abs().max()))


def _unseen(model: HookedTransformer, head: Head, length: int) -> Turn:
    """The turn as attention weights show it, up to a rotation that queries and keys share.

    A rotation by position makes ``q R(a)^T R(b) k`` of a query at a and a key at b. With unit vectors in the place of
    queries and keys, the scores from one word L on are the matrices ``R(L)^T R(b)``, and these turn both sides: the
    rotation of L cancels in every product. All heads are taken to turn alike, so that each shows another entry; the
    model's own attention is the proof (``scores.Rule``).
    """
    cfg = model.cfg
    if length >= cfg.n_ctx:
        raise InterpError(
            f"{model.name} ({cfg.architecture}) turns its queries where no site shows it. What it does can be read "
            f"off prompts of fewer than {cfg.n_ctx} tokens only. Shorten them."
        )
    width, groups, shared = cfg.d_head, cfg.n_kv_heads, cfg.n_heads // cfg.n_kv_heads
    steps = torch.cartesian_prod(torch.arange(0, width, groups), torch.arange(0, width, shared))
    key = (steps[:, :1] + torch.arange(groups)).clamp(max=width)  # row kv_head
    query = (steps[:, 1:] + torch.arange(shared)).clamp(max=width).repeat(1, groups)  # row head
    units = torch.cat((torch.eye(width), torch.zeros(1, width)))
    form = torch.full((length, width + 1, width + 1), torch.nan, dtype=torch.float64)
    for rows in run.chunks_of(len(steps), run.rows_per_batch(model, length + 1)):
        chosen = torch.from_numpy(rows)
        scores = _scores(model, head.layer, width**0.5 * units[query[chosen]], units[key[chosen]], length)
        form[:, key[chosen].repeat_interleave(shared, dim=1), query[chosen]] = scores.movedim(-1, 0) / width**0.5
    form = form[:, :width, :width]
    strength = form.square().sum((1, 2), keepdim=True).div(width).sqrt()
    if not bool(torch.isfinite(form).all()) or not bool((strength > 0).all()):
        raise InterpError(
            f"{model.name} ({cfg.architecture}) turns its queries where no site shows it, and its attention ends "
            "before it could be read there. Choose another model, or use path patching or knockout."
        )
    return Turn(form / strength, torch.zeros(length, width, dtype=torch.float64), float(strength.mean()))


def _scores(
    model: HookedTransformer,
    layer: int,
    queries: Float[Tensor, "row head d_head"],
    keys: Float[Tensor, "row kv_head d_head"],
    length: int,
) -> Float[Tensor, "row head src"]:
    """What a query and a key add to the score from the word behind ``length`` others to each of these.

    Read off log-weights: the key of the word itself is zero, and a run with zero queries has what is added by distance.
    """
    both = torch.cat((queries, torch.zeros_like(queries[:1])))
    found = _log_weights(model, layer, both, torch.cat((keys, keys[:1])), length)
    against_itself = found[..., :-1] - found[..., -1:]
    return against_itself[:-1] - against_itself[-1:]


def _log_weights(
    model: HookedTransformer,
    layer: int,
    queries: Float[Tensor, "row head d_head"],
    keys: Float[Tensor, "row kv_head d_head"],
    length: int,
) -> Float[Tensor, "row head src"]:
    """Log attention weights from one word behind ``length`` others, which have one query and one key; its own is 0."""
    kept: list[Tensor] = []
    cells: tuple[tuple[Kind, Tensor, int], ...] = (("q", queries, length + 1), ("k", keys, length))

    def putter(kind: Kind, values: Tensor, until: int) -> Hook:
        return sites.site(kind).hook_name(layer), lambda activation: _placed(activation, values, until)

    hooks: list[Hook] = [
        *(putter(*cell) for cell in cells),
        (sites.site("pattern").hook_name(layer), lambda pattern: kept.append(pattern[:, :, length].double().cpu())),
    ]
    nothing = torch.zeros(len(queries), length + 1, model.cfg.d_model, device=model.device, dtype=model.dtype)
    model.resume(nothing, layer, stop_at_layer=layer + 1, hooks=hooks)
    return torch.cat(kept).log()


def _placed(activation: Tensor, values: Tensor, until: int) -> Tensor:
    """Vectors [row, head, d_head] at every position before ``until``, zeros behind."""
    made = values[:, None].to(activation).expand_as(activation).clone()
    made[:, until:] = 0
    return made
