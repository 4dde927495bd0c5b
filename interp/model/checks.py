"""What is proved about a model each time one is loaded. A model that fails is refused, not used with a warning."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import UnusableModelError
from interp.model.arithmetic import TAPS, Blocks, UnsupportedModelError
from interp.model.families import blocks_of
from interp.model.live_sites import (
    Kept,
    allowed,
    future,
    probe_ids,
    random_ids,
    readers,
    share,
    sinks,
    softmax,
    watch,
)
from interp.model.running import in_one_dtype
from interp.sites import SITES

if TYPE_CHECKING:
    from interp.model import HookedTransformer

log = logging.getLogger(__name__)


class Reference(NamedTuple):
    """What Hugging Face's own model says."""

    ids: Int[Tensor, "prompt position"]
    log_probabilities: Float[Tensor, "prompt position vocab"]


@torch.inference_mode()
def self_check(model: HookedTransformer) -> dict[str, float]:
    """Prove the identities that every analysis leans on, on ten tokens.

    Returns:
        The largest difference seen per identity, as a share of the largest value compared.

    Raises:
        UnusableModelError: names the identity that does not hold.
    """
    precision = torch.get_float32_matmul_precision()
    if model.dtype == torch.float32 and precision != "highest":
        log.warning(
            "PyTorch may round the factors of float32 products (precision '%s'), so that effects can be off by some "
            "percent. torch.set_float32_matmul_precision('highest') before %s is used makes them exact.",
            precision, model.name,
        )  # fmt: skip
    ids = probe_ids(model)
    plain = model.forward(ids)
    if not torch.isfinite(plain).all():
        wider = " dtype='float32' holds larger numbers." if model.dtype == torch.float16 else ""
        raise UnusableModelError(f"{model.name} gives logits that are not finite in {model.dtype}.{wider}")
    kept: dict[tuple[str, int], Tensor] = {}
    names = [name for name in model.sites if not SITES[name].derived_from]
    watched = model.forward(ids, hooks=readers(model, names, kept))
    if not torch.equal(plain, watched):
        raise UnusableModelError(
            f"Reading activations changed the logits of {model.name}; its figures cannot be trusted."
        )
    short = max(1, ids.shape[1] * 6 // 10)
    checks = {
        "result_sum": _result_sum(model, ids),
        "pattern_sum": _pattern_sum(model, kept),
        "padding": share(model.forward(ids[:1, :short])[0] - plain[0, :short], plain),
        "resume": _resume(model, ids, plain),
    }
    for name, difference in checks.items():
        if not difference <= allowed(model.dtype):
            raise UnusableModelError(
                f"{model.name} ({model.cfg.architecture}) fails its self-check '{name}' ({CHECKS[name]}): "
                f"difference {difference:.3g}, allowed {allowed(model.dtype):.0e}."
            )
    return checks


def check_blocks(model: HookedTransformer) -> str:
    """Compare the arithmetic with the bridge at every site of every layer, and note the difference in ``checks``.

    Returns:
        Why the pieces cannot be used for this model; empty where they can. The model itself stays usable through hooks.
    """
    reason = ""
    try:
        difference = _blocks(model, blocks_of(model))
        model.checks["blocks"] = difference
        if not difference <= allowed(model.dtype):
            reason = (
                f"its arithmetic differs from the bridge's by {difference:.3g} of the largest value, "
                f"{allowed(model.dtype):.0e} is allowed"
            )
    except UnsupportedModelError as error:
        reason = str(error)
    if reason:
        log.warning("%s is swept through hooks, which is slower: %s.", model.name, reason)
    return reason


CHECKS = {
    "result_sum": "head results plus bias equal the output of W_O",
    "pattern_sum": "attention rows are causal, lie in [0, 1] and sum to 1, less what a sink takes",
    "padding": "tokens to the right change nothing before them",
    "resume": "running the blocks one by one equals the whole forward pass",
}
"""Check name -> the identity, in words."""


@torch.inference_mode()
def reference(hf_model: Any) -> Reference:
    """Log-probabilities by Hugging Face's own model, before a bridge is put round it."""
    sizes, weight = hf_model.config, next(hf_model.parameters())
    ids = random_ids(int(sizes.vocab_size), int(getattr(sizes, "max_position_embeddings", None) or 10))
    with in_one_dtype(weight.dtype):
        logits: Tensor = hf_model(ids.to(weight.device), use_cache=False).logits
    return Reference(ids, logits.double().log_softmax(dim=-1).cpu())


@torch.inference_mode()
def check_reference(model: HookedTransformer, of: Reference) -> None:
    """Hold the loaded model to Hugging Face's own, and note the difference in ``checks``.

    Raises:
        UnusableModelError: a float32 or float64 model says something else. Half precision, whose rounding is no
            error of the bridge, is warned of.
    """
    expected = of.log_probabilities
    found = model.forward(of.ids).double().log_softmax(dim=-1).cpu()
    difference = float("inf")
    if found.shape == expected.shape:
        difference = share(found - expected, expected[torch.isfinite(expected)])
    model.checks["hugging_face"] = difference
    if difference <= allowed(model.dtype):
        return
    said = (
        f"{model.name} as TransformerLens runs it differs from Hugging Face's own {model.cfg.architecture} by "
        f"{difference:.3g} of the largest log-probability, {allowed(model.dtype):.0e} is allowed"
    )
    if model.dtype.itemsize >= 4:
        raise UnusableModelError(f"{said}: its configuration has something that TransformerLens does not know.")
    log.warning("%s. Load it with dtype='float32' before its numbers are quoted.", said)


def _result_sum(model: HookedTransformer, ids: Int[Tensor, "prompt position"]) -> float:
    """Over all layers."""
    if not model.has_site("result"):
        return 0.0
    z: dict[tuple[str, int], Tensor] = {}
    out: dict[int, Tensor] = {}

    def keeper(layer: int) -> Callable[[Tensor], None]:
        def keep(tensor: Tensor) -> None:
            out[layer] = tensor.clone()

        return keep

    layers = range(model.cfg.n_layers)
    outputs = [(SITES["result"].edit_hook(layer), keeper(layer)) for layer in layers]
    model.forward(ids, hooks=[*readers(model, ["z"], z), *outputs])
    summed = [torch.einsum("bphd,hdm->bpm", z["z", layer], model.W_O(layer)) + model.b_O(layer) for layer in layers]
    return _worst([share(made - out[layer], out[layer]) for layer, made in enumerate(summed)])


def _pattern_sum(model: HookedTransformer, kept: Kept) -> float:
    """Over all layers; where a head has a sink, its part of a row is known from the scores."""
    found = [0.0]
    for (name, layer), value in kept.items():
        if name != "pattern":
            continue
        pattern, sink = value.double(), sinks(model, layer)
        rows = pattern.sum(-1)
        scores = kept.get(("scores", layer))
        expected = torch.ones_like(rows)
        if sink is not None:
            expected = rows.clamp(0, 1) if scores is None else softmax(scores.double(), sink).sum(-1)
        outside = torch.maximum(-pattern.min(), pattern.max() - 1).clamp(min=0)
        unseen = pattern[..., future(pattern)].abs()
        found += [float((rows - expected).abs().max()), float(outside), float(unseen.sum())]
    return _worst(found)


def _worst(found: list[float]) -> float:
    return float(torch.tensor(found).max())  # unlike the built-in, keeps a NaN


def _blocks(model: HookedTransformer, blocks: Blocks) -> float:
    """Compare every site of every layer, and the logits with attention in one step and in its parts."""
    ids = probe_ids(model).to(model.device)
    ours: dict[tuple[str, int], Tensor] = {}

    def tap(site: str, layer: int, value: Tensor) -> Tensor:
        ours[site, layer] = value
        return value

    names = [name for name in model.sites if name in TAPS and name != "scores"]  # which are masked in two ways
    theirs: dict[tuple[str, int], Tensor] = {}
    plain = model.forward(ids, hooks=readers(model, names, theirs))
    with torch.inference_mode():
        logits = [blocks.logits(blocks.forward(ids, tap=watched)) for watched in (tap, None)]
    compared = [(mine, plain) for mine in logits]
    compared += [(ours[place], value) for place, value in theirs.items() if place in ours]
    if any(mine.shape != other.shape for mine, other in compared):
        return float("inf")
    return _worst([share(mine - other, other) for mine, other in compared])


def _resume(model: HookedTransformer, ids: Int[Tensor, "prompt position"], plain: Tensor) -> float:
    """Compare both ends: everything from block 0, and the last block alone."""
    at = torch.full((ids.shape[0],), ids.shape[1] - 1)
    found = []
    for layer in {0, model.cfg.n_layers - 1}:
        stream = watch(model, ids, ["resid_pre"])["resid_pre", layer]
        found.append(share(model.resume(stream, layer, logits_at=at) - plain[:, -1], plain))
    return _worst(found)
