"""The one table of places in a transformer that can be read or changed.

A *site* names a tensor by the field's word for it (``resid_pre``, ``q``, ``pattern``, ...). Its row says which named
axes it has besides ``prompt`` and ``layer``, where in a block it stands, who reads it, and which TransformerLens hook
carries it. What runs the model asks the row. Nothing here touches a tensor.

>>> site("z").hook_name(3)
'blocks.3.attn.hook_z'
>>> site("k").unit, site("k").later_tokens_read, site("z").later_tokens_read
('kv_head', True, False)
>>> site("result").swept, site("result").instead
(False, 'z')
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from interp.errors import InterpError, shown, unknown_name, whole_numbers

Stage: TypeAlias = Literal["embedding", "before", "projection", "attention", "between", "mlp", "after"]
"""Where in a block a site stands, in the order of computation.

``embedding`` comes before the first block. ``before``, ``between`` and ``after`` are the residual stream itself:
before attention, between attention and MLP, after the MLP. ``projection`` is what a token makes of its own stream for
attention (queries, keys, values). ``attention`` has seen other tokens, ``mlp`` is within the MLP or what it adds.
"""

STAGES: tuple[Stage, ...] = ("embedding", "before", "projection", "attention", "between", "mlp", "after")

Unit: TypeAlias = Literal["stream", "head", "kv_head", "neuron"]
"""The parts of a site that can be changed one by one. ``stream`` has none: it is one vector per token."""

InRaw: TypeAlias = Literal["same", "shifted", "unknown"]
"""What a zero of the raw model is in a model whose norms are folded into its weights: zero too (``same``), a constant
that folding moved out of the values (``shifted``), or nothing that is known."""


@dataclass(frozen=True)
class Site:
    """One readable place in the model.

    Attributes:
        name: the public name, as in ``capture(model, texts, sites=["q"])``.
        dims: named axes after ``prompt`` and ``layer``; ``kv_head`` is ``head`` in a model whose heads share no keys.
        stage: where in the block it stands.
        hook: TransformerLens hook name, with ``{layer}`` where the site exists once per layer.
        description: what the tensor is, in one line.
        later_tokens_read: whether the same layer's attention reads a token's activation for later tokens too.
        follows: the site of the same stage that it is computed from; empty for the first of a stage.
        instead: the site to sweep instead, where this one is read but not swept; empty where it is swept.
        derived_from: the site that it is computed from, where no hook carries it.
        edited_at: TransformerLens hook at which it is changed, where that is not its own.
        edit_needs: the site whose activation is needed to make such a change.
        in_raw: what its zero is in the raw model.

    >>> z = SITES["z"]
    >>> z.dims, z.unit, z.hook_name(3)
    (('position', 'head', 'd_head'), 'head', 'blocks.3.attn.hook_z')
    >>> z.shape({"head": 12, "d_head": 64})
    (12, 64)
    """

    name: str
    dims: tuple[str, ...]
    stage: Stage
    hook: str
    description: str
    later_tokens_read: bool = False
    follows: str = ""
    instead: str = ""
    derived_from: str = ""
    edited_at: str = ""
    edit_needs: str = ""
    in_raw: InRaw = "same"

    @property
    def per_layer(self) -> bool:
        """Whether the site exists once per layer (``embed`` and ``pos_embed`` do not)."""
        return "{layer}" in self.hook

    @property
    def unit(self) -> Unit:
        """What its parts are."""
        units: tuple[Unit, ...] = ("head", "kv_head", "neuron")
        return next((unit for unit in units if unit in self.dims), "stream")

    @property
    def has_heads(self) -> bool:
        """Whether the site has an axis of attention heads."""
        return self.unit in ("head", "kv_head")

    @property
    def is_pattern(self) -> bool:
        """Whether the site is indexed by destination and source position."""
        return "dest_position" in self.dims

    @property
    def has_vectors(self) -> bool:
        """Whether the site has one vector, or one per head, for each layer and position."""
        return self.per_layer and not self.is_pattern

    @property
    def is_stream(self) -> bool:
        """Whether it is the residual stream itself, and not what is read from it or added to it."""
        return self.stage in ("before", "between", "after")

    @property
    def enters(self) -> Stage:
        """The first state of the residual stream that a change of it changes."""
        return next(
            stage for stage in ("before", "between", "after") if STAGES.index(self.stage) <= STAGES.index(stage)
        )

    @property
    def swept(self) -> bool:
        """Whether sweeps change it."""
        return not self.instead

    @property
    def of_own_token(self) -> bool:
        """Whether in layer 0 it depends on its own token and on no other."""
        return self.precedes("attention")

    def precedes(self, stage: Stage) -> bool:
        """Whether it stands before a stage of its block."""
        return STAGES.index(self.stage) < STAGES.index(stage)

    def leads_to(self, other: Site) -> bool:
        """Whether, within one block, a change of it can change another site (or is a change of that very site).

        >>> [site("q").leads_to(site(name)) for name in ("q", "k", "rot_q", "z")]
        [True, False, True, True]
        """
        if self.stage != other.stage:
            return self.precedes(other.stage)
        return self.name == other.name or (bool(other.follows) and self.leads_to(SITES[other.follows]))

    def hook_name(self, layer: int) -> str:
        """The TransformerLens hook name at ``layer``."""
        return self.hook.format(layer=layer)

    def edit_hook(self, layer: int) -> str:
        """The hook at which it is changed at ``layer``: its own, or where what is made of it enters."""
        return (self.edited_at or self.hook).format(layer=layer)

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Its shape at one token; at the pattern, that of one destination and one source of every head.

        Args:
            sizes: axis -> length.

        Raises:
            InterpError: an axis without a length.
        """
        lengths = {"dest_position": 1, "src_position": 1, **sizes}
        own = [dim for dim in self.dims if dim != "position"]
        unknown = [dim for dim in own if dim not in lengths]
        if unknown:
            raise InterpError(
                f"The length of axis '{unknown[0]}' of site '{self.name}' is not known. State it in ModelConfig.sizes."
            )
        return tuple(lengths[dim] for dim in own)

    def width(self, sizes: Mapping[str, int], length: int) -> int:
        """Numbers per token of prompts of ``length`` tokens."""
        return math.prod(self.shape({**sizes, "src_position": length}))


_STREAM = ("position", "d_model")
_HEAD = ("position", "head", "d_head")
_KV_HEAD = ("position", "kv_head", "d_head")
_EDGE = ("head", "dest_position", "src_position")
_NEURON = ("position", "neuron")
_BLOCK = "blocks.{layer}."
_ATTN_OUT = _BLOCK + "hook_attn_out"

SITES: dict[str, Site] = {
    site.name: site
    for site in (
        Site("embed", _STREAM, "embedding", "hook_embed", "token embedding", instead="resid_pre"),
        Site(
            "pos_embed",
            _STREAM,
            "embedding",
            "hook_pos_embed",
            "position embedding (learned positions only)",
            instead="resid_pre",
        ),
        Site(
            "resid_pre",
            _STREAM,
            "before",
            _BLOCK + "hook_resid_pre",
            "residual stream before attention",
            later_tokens_read=True,
        ),
        # The hook of this name sits on the MLP's branch: a change there would miss the skip connection.
        Site(
            "resid_mid",
            _STREAM,
            "between",
            _BLOCK + "hook_resid_mid",
            "residual stream between attention and MLP",
            edited_at=_ATTN_OUT,
            edit_needs="resid_pre",
        ),
        Site("resid_post", _STREAM, "after", _BLOCK + "hook_resid_post", "residual stream after the MLP"),
        Site(
            "attn_out",
            _STREAM,
            "attention",
            _ATTN_OUT,
            "what attention adds to the stream (after the block's own norm or scale)",
            follows="result",
        ),
        Site(
            "mlp_out",
            _STREAM,
            "mlp",
            _BLOCK + "hook_mlp_out",
            "what the MLP adds to the stream (after the block's own norm or scale)",
            follows="mlp_post",
        ),
        Site("q", _HEAD, "projection", _BLOCK + "attn.hook_q", "queries (before rotation, where positions are rotary)"),
        Site(
            "k",
            _KV_HEAD,
            "projection",
            _BLOCK + "attn.hook_k",
            "keys (before rotation, where positions are rotary)",
            later_tokens_read=True,
        ),
        Site("v", _KV_HEAD, "projection", _BLOCK + "attn.hook_v", "values", later_tokens_read=True, in_raw="shifted"),
        Site(
            "rot_q",
            _HEAD,
            "projection",
            _BLOCK + "attn.hook_rot_q",
            "queries after rotation (rotary models only)",
            instead="q",
            follows="q",
        ),
        Site(
            "rot_k",
            _KV_HEAD,
            "projection",
            _BLOCK + "attn.hook_rot_k",
            "keys after rotation (rotary models only)",
            later_tokens_read=True,
            instead="k",
            follows="k",
        ),
        Site(
            "scores",
            _EDGE,
            "attention",
            _BLOCK + "attn.hook_attn_scores",
            "QK^T / sqrt(d_head), before softmax, masked",
            instead="pattern",
            in_raw="unknown",
        ),
        Site(
            "pattern",
            _EDGE,
            "attention",
            _BLOCK + "attn.hook_pattern",
            "attention weights, after softmax",
            in_raw="unknown",
            follows="scores",
        ),
        Site(
            "z",
            _HEAD,
            "attention",
            _BLOCK + "attn.hook_z",
            "attention-weighted values, before W_O",
            in_raw="shifted",
            follows="pattern",
        ),
        # Changed through the output of W_O, before a block normalises or scales it.
        Site(
            "result",
            ("position", "head", "d_model"),
            "attention",
            _BLOCK + "attn.hook_result",
            "z @ W_O, per head (before the block's norm or scale)",
            instead="z",
            derived_from="z",
            edited_at=_BLOCK + "attn.o.hook_out",
            edit_needs="z",
            in_raw="shifted",
            follows="z",
        ),
        Site(
            "mlp_pre",
            _NEURON,
            "mlp",
            _BLOCK + "mlp.hook_pre",
            "MLP neurons before the activation (of the gate, where there is one)",
        ),
        Site(
            "mlp_post",
            _NEURON,
            "mlp",
            _BLOCK + "mlp.hook_post",
            "MLP neurons after the activation",
            follows="mlp_pre",
        ),
    )
}


def site(name: str) -> Site:
    """Look up a site by name.

    Raises:
        InterpError: the name is unknown; the message gives the nearest match and the whole list.

    >>> site("resid_mid").description
    'residual stream between attention and MLP'
    >>> site("hook_z")
    Traceback (most recent call last):
    interp.errors.InterpError: 'hook_z' is TransformerLens's name of site 'z'. Ask for 'z'.
    """
    if not isinstance(name, str):
        raise InterpError(
            f"A site is named by a word, not by {type(name).__name__}. The sites are: {', '.join(SITES)}."
        )
    if name not in SITES:
        raise _of_hook(name) or unknown_name("site", name, SITES)
    return SITES[name]


def _of_hook(name: str) -> InterpError | None:
    """The error for TransformerLens's name of a hook, whole (``blocks.0.attn.hook_z``) or its end (``hook_z``)."""
    *_, end = name.split(".")
    for one in SITES.values():
        if one.hook.split(".")[-1] == end:
            at = next((part for part in name.split(".") if part.isdigit()), None)
            where = "" if at is None or not one.per_layer else f" with layers=[{int(at)}]"
            return InterpError(f"'{name}' is TransformerLens's name of site '{one.name}'. Ask for '{one.name}'{where}.")
    return None


def check_sites(names: str | Iterable[str]) -> tuple[Site, ...]:
    """Look up several sites; a lone string counts as one name, an empty list is an error.

    >>> [one.name for one in check_sites(["q", "k", "q"])]
    ['q', 'k']
    """
    wanted = (names,) if isinstance(names, str) or not isinstance(names, Iterable) else tuple(names)
    if not wanted:
        raise InterpError(f"No site was asked for. The sites are: {', '.join(SITES)}.")
    return tuple(dict.fromkeys(site(name) for name in wanted))


def vector_site(name: str, use: str = "Probe") -> Site:
    """Look up a site of which a vector is read: one with a vector per layer and position.

    Args:
        name: of the site.
        use: what is done with it, for the message.

    Raises:
        InterpError: an unknown site, or one without such vectors.

    >>> vector_site("z").name
    'z'
    >>> vector_site("pattern")
    Traceback (most recent call last):
    interp.errors.InterpError: Site 'pattern' has no vector per layer and position. Probe 'resid_pre' or 'z'.
    """
    found = site(name)
    if not found.has_vectors:
        raise InterpError(f"Site '{name}' has no vector per layer and position. {use} 'resid_pre' or 'z'.")
    return found


def projected_site(name: str, layer: int, head: int | None = None) -> Site:
    """Look up a site in which a direction is read, and hold the layer and the head to it.

    >>> projected_site("z", 2, head=1).unit
    'head'

    Raises:
        InterpError: a site without a vector per layer and position, a head where there are none, or the stream before
            layer 0, which nothing changes.
    """
    found = vector_site(name, "Project")
    if (found.name, layer) == ("resid_pre", 0):
        raise InterpError("Nothing comes before the stream of layer 0. Project a later one.")
    if head is not None and not found.has_heads:
        raise InterpError(f"Site '{name}' has no heads, but head={head} was given. Leave it out.")
    return found


def check_layers(layers: int | Sequence[int] | None, n_layers: int) -> tuple[int, ...]:
    """Resolve layer indices (``None`` is all, negative counts from the end) to sorted, unique, valid ones.

    >>> check_layers([-1, 0], n_layers=12)
    (0, 11)
    """
    if layers is None:
        return tuple(range(n_layers))
    resolved = []
    for layer in whole_numbers(layers, "layers"):
        if not -n_layers <= layer < n_layers:
            raise InterpError(
                f"Layer {shown(layer)} is out of range: the model has {n_layers} layers (0 to {n_layers - 1})."
            )
        resolved.append(layer % n_layers)
    return tuple(sorted(set(resolved)))


def head_label(layer: int, head: int) -> str:
    """Format a head the field's way.

    >>> head_label(9, 6)
    'L9H6'
    """
    return f"L{layer}H{head}"
