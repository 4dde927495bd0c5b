"""The one table of places in a transformer that can be read or changed.

A *site* names a tensor by the field's word for it (``resid_pre``, ``q``, ``pattern``, ...), says which named axes it
has besides ``prompt`` and ``layer``, and which TransformerLens hook carries it. Nothing here touches a tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from interp.errors import InterpError, shown, unknown_name, whole_numbers


@dataclass(frozen=True)
class Site:
    """One readable place in the model.

    Attributes:
        name: the public name, as in ``capture(model, texts, sites=["q"])``.
        dims: named axes after ``prompt`` and ``layer``; ``head`` of ``k`` and ``v`` becomes ``kv_head`` in a
            grouped-query model.
        hook: TransformerLens hook name, with ``{layer}`` where the site exists once per layer.
        description: what the tensor is, in one line.
    """

    name: str
    dims: tuple[str, ...]
    hook: str
    description: str

    @property
    def per_layer(self) -> bool:
        """Whether the site exists once per layer (``embed`` and ``pos_embed`` do not)."""
        return "{layer}" in self.hook

    @property
    def has_heads(self) -> bool:
        """Whether the site has an axis of attention heads."""
        return "head" in self.dims

    @property
    def is_pattern(self) -> bool:
        """Whether the site is indexed by destination and source position."""
        return "dest_position" in self.dims

    @property
    def has_vectors(self) -> bool:
        """Whether the site has one vector, or one per head, for each layer and position."""
        return self.per_layer and not self.is_pattern

    def hook_name(self, layer: int) -> str:
        """The TransformerLens hook name at ``layer``."""
        return self.hook.format(layer=layer)


_STREAM = ("position", "d_model")
_HEAD = ("position", "head", "d_head")
_EDGE = ("head", "dest_position", "src_position")
_BLOCK = "blocks.{layer}."

SITES: dict[str, Site] = {
    site.name: site
    for site in (
        Site("embed", _STREAM, "hook_embed", "token embedding"),
        Site("pos_embed", _STREAM, "hook_pos_embed", "position embedding (learned positions only)"),
        Site("resid_pre", _STREAM, _BLOCK + "hook_resid_pre", "residual stream before attention"),
        Site("resid_mid", _STREAM, _BLOCK + "hook_resid_mid", "residual stream between attention and MLP"),
        Site("resid_post", _STREAM, _BLOCK + "hook_resid_post", "residual stream after the MLP"),
        Site(
            "attn_out",
            _STREAM,
            _BLOCK + "hook_attn_out",
            "what attention adds to the stream (after the block's own norm or scale)",
        ),
        Site(
            "mlp_out",
            _STREAM,
            _BLOCK + "hook_mlp_out",
            "what the MLP adds to the stream (after the block's own norm or scale)",
        ),
        Site("q", _HEAD, _BLOCK + "attn.hook_q", "queries (before rotation, where positions are rotary)"),
        Site("k", _HEAD, _BLOCK + "attn.hook_k", "keys (before rotation, where positions are rotary)"),
        Site("v", _HEAD, _BLOCK + "attn.hook_v", "values"),
        Site("rot_q", _HEAD, _BLOCK + "attn.hook_rot_q", "queries after rotation (rotary models only)"),
        Site("rot_k", _HEAD, _BLOCK + "attn.hook_rot_k", "keys after rotation (rotary models only)"),
        Site("scores", _EDGE, _BLOCK + "attn.hook_attn_scores", "QK^T / sqrt(d_head), before softmax, masked"),
        Site("pattern", _EDGE, _BLOCK + "attn.hook_pattern", "attention weights, after softmax"),
        Site("z", _HEAD, _BLOCK + "attn.hook_z", "attention-weighted values, before W_O"),
        Site(
            "result",
            ("position", "head", "d_model"),
            _BLOCK + "attn.hook_result",
            "z @ W_O, per head (before the block's norm or scale)",
        ),
        Site("mlp_post", ("position", "neuron"), _BLOCK + "mlp.hook_post", "MLP neurons after the activation"),
    )
}


def edited_at(name: str, layer: int) -> str:
    """The hook at which a site is changed: its own, or where what is made of it enters.

    ``result`` is changed through the output of ``W_O``, before a block normalises or scales it. ``resid_mid`` has no
    hook that would change the skip connection too, and is changed through ``attn_out``.
    """
    through = {"result": _BLOCK + "attn.o.hook_out", "resid_mid": SITES["attn_out"].hook}
    return through.get(name, SITES[name].hook).format(layer=layer)


KV_SITES = frozenset({"k", "v", "rot_k"})
"""Sites whose head axis is ``kv_head`` in a grouped-query model."""


def site(name: str) -> Site:
    """Look up a site by name.

    Raises:
        InterpError: the name is unknown; the message gives the nearest match and the whole list.
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
    """Look up several sites; a lone string counts as one name, an empty list is an error."""
    wanted = (names,) if isinstance(names, str) or not isinstance(names, Iterable) else tuple(names)
    if not wanted:
        raise InterpError(f"No site was asked for. The sites are: {', '.join(SITES)}.")
    return tuple(dict.fromkeys(site(name) for name in wanted))


def vector_site(name: str) -> Site:
    """Look up a site that a probe can read: one with a vector per layer and position.

    Raises:
        InterpError: an unknown site, or one without.
    """
    found = site(name)
    if not found.has_vectors:
        raise InterpError(f"Site '{name}' has no vector per layer and position. Probe 'resid_pre' or 'z'.")
    return found


def check_layers(layers: int | Sequence[int] | None, n_layers: int) -> tuple[int, ...]:
    """Resolve layer indices (``None`` is all, negative counts from the end) to sorted, unique, valid ones."""
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
