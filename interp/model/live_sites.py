"""Which sites a model really has, found by running it. A hook may give another tensor than its name says."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.model.bridged import BridgedModel, Hook
from interp.model.families import FAMILIES, family_of
from interp.model.families.reading import original
from interp.sites import SITES

TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4, torch.bfloat16: 5e-2, torch.float16: 2e-2}
"""Allowed difference, as a share of the largest value: rounding of one layer's sums in that data type."""

Kept: TypeAlias = Mapping[tuple[str, int], Tensor]
"""Activations by site and layer."""


class Live(NamedTuple):
    """What a model has.

    Attributes:
        sites: names, in the order of the table.
        misnamed: those that are left out though their hooks exist, each with the reason.
        d_mlp: width of ``mlp_post``, None without it.
    """

    sites: tuple[str, ...]
    misnamed: dict[str, str]
    d_mlp: int | None


@torch.inference_mode()
def live_sites(model: BridgedModel) -> Live:
    """Run the model once and keep the sites whose hooks give, in every layer, what their names say.

    Asking the bridge which names it knows is not enough: some are aliases of hooks that an architecture never calls,
    and some give another tensor.
    """
    ids = probe_ids(model)
    known = [name for name, site in SITES.items() if not site.derived_from]
    kept = watch(model, ids, known)
    misnamed: dict[str, str] = {}
    for check in (_in_some_layers, _shapes, _neurons, _before_activation, _stream, _rows):
        misnamed |= check(model, {place: value for place, value in kept.items() if place[0] not in misnamed})
    if {"scores", "pattern"} <= {name for name, _ in kept} - set(misnamed):
        misnamed |= _scores(model, ids)
    fires = {name for name, _ in kept}
    for name, site in SITES.items():
        if site.derived_from in fires:
            fires.add(name)
            if site.derived_from in misnamed:
                why = f"it is made of {site.derived_from}, which is left out: {misnamed[site.derived_from]}"
                misnamed |= {name: why}
    widths = {value.shape[-1] for (name, _), value in kept.items() if name == "mlp_post" and name not in misnamed}
    return Live(
        tuple(name for name in SITES if name in fires and name not in misnamed), misnamed, next(iter(widths), None)
    )


def read_only_sites(model: BridgedModel, names: Iterable[str]) -> dict[str, str]:
    """Those of a model's sites that can be read but not changed, each with the reason, found by trying each.

    A model whose arithmetic is in the ``families`` has none: ``tests/test_run.py`` proves it, so they are not tried.
    """
    names = tuple(names)
    ids = probe_ids(model)
    plain = model.forward(ids)

    def change(tensor: Tensor) -> Tensor:
        return torch.where(torch.isfinite(tensor), 0.5 * tensor + 0.1, tensor)

    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the bridge's own warning of a discarded edit
        for name in names:
            if name == "resid_mid":
                continue  # below
            hook = SITES[name].edit_hook(0)
            if hook not in model.bridge.hook_dict or torch.equal(model.forward(ids, hooks=[(hook, change)]), plain):
                found[name] = "TransformerLens discards edits of it"
    if "resid_mid" in names:
        if "attn_out" not in names or "attn_out" in found:
            found["resid_mid"] = "it is changed through attn_out, which this architecture does not let anyone change"
        elif not _adds_attention(model, ids):
            found["resid_mid"] = "it is changed through attn_out, and here a norm comes between the two"
    return found


def _adds_attention(model: BridgedModel, ids: Int[Tensor, "prompt position"]) -> bool:
    kept = watch(model, ids, ("resid_pre", "attn_out", "resid_mid"))
    return all(
        agree(kept["resid_pre", layer] + kept["attn_out", layer], kept["resid_mid", layer])
        for layer in range(model.cfg.n_layers)
    )


# ---- looking ----


def watch(
    model: BridgedModel,
    ids: Int[Tensor, "prompt position"],
    names: Iterable[str],
    *,
    hooks: Iterable[Hook] = (),
) -> dict[tuple[str, int], Tensor]:
    """Activations of a run at every layer whose hook exists and fires; ``hooks`` act before they are read."""
    kept: dict[tuple[str, int], Tensor] = {}
    model.forward(ids, hooks=[*hooks, *readers(model, names, kept)])
    return kept


def readers(model: BridgedModel, names: Iterable[str], kept: dict[tuple[str, int], Tensor]) -> list[Hook]:
    """Hooks that copy activations of every layer into ``kept``."""

    def reader(place: tuple[str, int]) -> Callable[[Tensor], None]:
        def read(tensor: Tensor) -> None:
            kept[place] = tensor.detach().clone()

        return read

    places = [(name, layer) for name in names for layer in _layers(model, name)]
    hooks = [(SITES[name].hook_name(layer), reader((name, layer))) for name, layer in places]
    return [hook for hook in hooks if hook[0] in model.bridge.hook_dict]


def _layers(model: BridgedModel, name: str) -> range:
    return range(model.cfg.n_layers if SITES[name].per_layer else 1)


def probe_ids(model: BridgedModel) -> Int[Tensor, "prompt position"]:
    """Two prompts of ten tokens, or fewer where the context or the ``length_boundary`` of the model is shorter."""
    return random_ids(model.cfg.vocab, min(model.cfg.n_ctx, model.cfg.length_boundary or model.cfg.n_ctx))


def random_ids(vocab: int, n_ctx: int) -> Int[Tensor, "prompt position"]:
    """Two prompts of ten random tokens, or of ``n_ctx`` where that is fewer; always the same for one vocabulary."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, vocab, (2, min(10, n_ctx)), generator=generator)


def share(difference: Tensor, of: Tensor) -> float:
    """The largest difference as a share of the largest value; NaN where there is one."""
    return float(difference.abs().max()) / max(float(of.abs().max()), 1e-12)


def allowed(dtype: torch.dtype) -> float:
    """Difference allowed in a data type, as a share of the largest value.

    PyTorch can be told to round the factors of float32 products: to the ten bits of TF32, which float16 has too, or to
    bfloat16. A model is then held to what such products give.
    """
    factors = _FACTORS[torch.get_float32_matmul_precision()] if dtype == torch.float32 else dtype
    return TOLERANCE.get(factors, 5e-2)


_FACTORS = {"highest": torch.float32, "high": torch.float16, "medium": torch.bfloat16}
"""Setting of ``torch.set_float32_matmul_precision`` -> the data type to which the factors of a product are rounded."""


def agree(made: Tensor, of: Tensor) -> bool:
    """Whether two tensors are the same but for rounding."""
    return made.shape == of.shape and share(made - of, of) <= allowed(of.dtype)


def future(pattern: Tensor) -> Bool[Tensor, "dest src"]:
    """True where the source comes after the destination, so that attention may not look there."""
    return torch.triu(torch.ones(pattern.shape[-2:], dtype=torch.bool, device=pattern.device), diagonal=1)


def sinks(model: BridgedModel, layer: int) -> Float[Tensor, " head"] | None:
    """The score of each head's attention sink, which takes part of every row's weight; None if heads have no sink."""
    named = family_of(model).sinks
    found: Tensor | None = getattr(original(model.bridge.blocks[layer].attn), named) if named else None
    return found


def softmax(scores: Float[Tensor, "row head dest src"], sink: Float[Tensor, " head"] | None) -> Tensor:
    """Attention weights from scores: the causal softmax. A sink takes its part of each row, and is not returned."""
    masked = scores.masked_fill(future(scores), -torch.inf)
    if sink is None:
        return masked.softmax(dim=-1)
    column = sink.to(masked)[None, :, None, None].expand(*masked.shape[:-1], 1)
    return torch.cat([masked, column], dim=-1).softmax(dim=-1)[..., :-1]


# ---- what a site has to be ----


def _in_some_layers(model: BridgedModel, kept: Kept) -> dict[str, str]:
    found = {}
    for name in dict.fromkeys(name for name, _ in kept):
        layers = [layer for layer in _layers(model, name) if (name, layer) in kept]
        if len(layers) < len(_layers(model, name)):
            found[name] = f"only layers {', '.join(map(str, layers))} have it"
    return found


def _shapes(model: BridgedModel, kept: Kept) -> dict[str, str]:
    ids, cfg = probe_ids(model), model.cfg
    found: dict[str, str] = {}
    for (name, layer), value in kept.items():
        widths = {"position": ids.shape[1], "dest_position": ids.shape[1], "src_position": ids.shape[1]}
        widths |= {**cfg.sizes, "neuron": kept[name, 0].shape[-1]}  # the one size that is read off the model
        shape = tuple(widths[dim] for dim in SITES[name].dims)
        if tuple(value.shape[1:]) != shape or len(value) not in (1, len(ids)):
            reason = f"in layer {layer} its hook gives a tensor {list(value.shape[1:])}, not {list(shape)}"
            found.setdefault(name, reason)
    return found


def _neurons(model: BridgedModel, kept: Kept) -> dict[str, str]:
    """Refuse ``mlp_post`` where its hook gives the MLP's output, before or after the block's norm or scale."""
    outputs = {layer: value for (name, layer), value in kept.items() if name == "mlp_out"}
    own: dict[int, Tensor] = {}

    def reader(layer: int) -> Callable[[Tensor], None]:
        def read(tensor: Tensor) -> None:
            own[layer] = tensor.clone()

        return read

    hooks = [(f"blocks.{layer}.mlp.hook_out", reader(layer)) for layer in range(model.cfg.n_layers)]
    model.forward(probe_ids(model), hooks=[hook for hook in hooks if hook[0] in model.bridge.hook_dict])
    for (name, layer), value in kept.items():
        if name != "mlp_post":
            continue
        if any(layer in found and torch.equal(value, found[layer]) for found in (outputs, own)):
            return {"mlp_post": "its hook gives the MLP's output: a mixture of experts has no one row of neurons"}
    return {}


def _before_activation(model: BridgedModel, kept: Kept) -> dict[str, str]:
    """Refuse ``mlp_pre`` unless raising one neuron there changes that neuron of ``mlp_post`` and no other.

    It is tried in the first layer and in the last.
    """
    if ("mlp_pre", 0) not in kept:
        return {}
    if ("mlp_post", 0) not in kept:
        return {"mlp_pre": "there is no mlp_post that it leads to"}
    for layer in {0, model.cfg.n_layers - 1}:
        before, after = kept["mlp_pre", layer], kept["mlp_post", layer]
        if before.shape != after.shape:
            return {"mlp_pre": "its hook gives the neurons and their gate in one row"}
        raised = before.clone()
        raised[0, -1, 0] = raised[0, -1, 0].abs() + 4
        hook = (SITES["mlp_pre"].hook_name(layer), at_value(raised))
        changed = watch(model, probe_ids(model), ["mlp_post"], hooks=[hook])["mlp_post", layer] != after
        alone = bool(changed[0, -1, 0]) and int(changed.sum()) == 1
        if not alone or torch.equal(before, after):
            return {"mlp_pre": "its hook does not give the neurons of mlp_post before their activation"}
    return {}


def at_value(value: Tensor) -> Callable[[Tensor], Tensor]:
    """A hook function that puts in this value, whatever the activation was."""
    return lambda _: value


_MISREAD = {
    "attn_out": "its hook does not give what attention adds to the stream",
    "mlp_out": "its hook does not give what the MLP adds to the stream",
    "resid_mid": "its hook does not give the stream between attention and MLP",
}


def _stream(model: BridgedModel, kept: Kept) -> dict[str, str]:
    """Refuse ``attn_out`` and ``mlp_out`` unless the stream gets just them; ``resid_mid`` unless it lies between."""
    has = {name for name, _ in kept} & set(_MISREAD)
    wrong: set[str] = set()
    for layer in range(model.cfg.n_layers):
        post = kept.get(("resid_post", layer), kept.get(("resid_pre", layer + 1)))
        pre = kept.get(("resid_pre", layer))
        if pre is not None and post is not None:
            wrong |= has - _added(model, layer, pre, post, {name: kept[name, layer] for name in has})
    return {name: _MISREAD[name] for name in wrong}


def _added(model: BridgedModel, layer: int, pre: Tensor, post: Tensor, at: Mapping[str, Tensor]) -> set[str]:
    """Those of ``attn_out``, ``resid_mid`` and ``mlp_out`` that add up as they should in this layer."""
    attn, mid, mlp = at.get("attn_out"), at.get("resid_mid"), at.get("mlp_out")
    proved: set[str] = set()
    if mid is not None and attn is not None and agree(pre + attn, mid):
        proved |= {"attn_out", "resid_mid"}
    if mid is not None and mlp is not None and agree(mid + mlp, post):
        proved |= {"mlp_out", "resid_mid"}
    if attn is not None and mlp is not None and agree(pre + attn + mlp, post):
        proved |= {"attn_out", "mlp_out"}
    if attn is not None and mlp is None and agree(pre + attn, post):  # attention alone
        proved |= {"attn_out"}
    if not proved and family_of(model).normed_sums and attn is not None and mlp is not None:
        block = model.bridge.blocks[layer]
        between = block.ln1(pre + attn)
        if agree(block.ln2(between + mlp), post):
            proved |= {"attn_out", "mlp_out"} | ({"resid_mid"} if mid is not None and agree(between, mid) else set())
    return proved


def _rows(model: BridgedModel, kept: Kept) -> dict[str, str]:
    """Refuse ``pattern`` where its rows do not sum to 1, in a model of no known family."""
    if model.cfg.architecture in FAMILIES:
        return {}  # a family may declare a sink, and ``checks`` holds the rows to what it declares
    sums = [value.double().sum(-1) for (name, _), value in kept.items() if name == "pattern"]
    if all(agree(torch.ones_like(found), found.to(model.dtype)) for found in sums):
        return {}
    return {"pattern": "its rows do not sum to 1, and interp.model.families does not say what takes the rest"}


def _scores(model: BridgedModel, ids: Int[Tensor, "prompt position"]) -> dict[str, str]:
    """Refuse ``scores`` unless the pattern is their softmax, in a run whose queries and keys make attention uneven.

    Where attention is uniform, the softmax of any uniform tensor is the pattern, so that nothing would be proved.
    """
    generator = torch.Generator().manual_seed(1)

    def uneven(tensor: Tensor) -> Tensor:
        return (4 * torch.randn(tensor.shape, generator=generator, dtype=torch.float32)).to(tensor)

    places = [(name, layer) for name in ("q", "k") for layer in range(model.cfg.n_layers)]
    hooks = [(SITES[name].hook_name(layer), uneven) for name, layer in places]
    hooks = [hook for hook in hooks if hook[0] in model.bridge.hook_dict]
    kept = watch(model, ids, ("scores", "pattern"), hooks=hooks)
    for layer in range(model.cfg.n_layers):
        scores, pattern = kept["scores", layer].double(), kept["pattern", layer].double()
        seen = ~future(pattern)
        even = seen / seen.sum(-1, keepdim=True)
        if float((pattern - even).abs().max()) < 0.05:
            return {"scores": "attention is uniform whatever its queries and keys are, so that scores cannot be told"}
        made = softmax(scores, sinks(model, layer))
        if not float((made - pattern).abs().max()) <= allowed(model.dtype):
            return {"scores": "its hook gives something else, of which the pattern is not the softmax"}
    return {}
