"""What is proved about a model each time one is loaded. A model that fails is refused, not used with a warning."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.blocks import Blocks, UnsupportedModelError
from interp.errors import InterpError
from interp.sites import SITES

if TYPE_CHECKING:
    from interp.model import HookedTransformer

log = logging.getLogger(__name__)

TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4, torch.bfloat16: 5e-2, torch.float16: 2e-2}
"""Allowed difference, as a share of the largest value: rounding of one layer's sums in that data type."""


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
        InterpError: names the identity that does not hold.
    """
    ids = _probe_ids(model)
    tolerance = TOLERANCE.get(model.dtype, 5e-2)
    plain = model.forward(ids)
    if not torch.isfinite(plain).all():
        raise InterpError(
            f"{model.name} gives logits that are not finite in {model.dtype}. Load it with dtype='float32'."
        )
    kept: dict[str, Tensor] = {}
    last = model.cfg.n_layers - 1
    names = [name for name in model.sites if name != "result"]
    watched = model.forward(ids, hooks=[_keeper(name, last, kept) for name in names])
    if not torch.equal(plain, watched):
        raise InterpError(f"Reading activations changed the logits of {model.name}; its figures cannot be trusted.")
    checks = {
        "result_sum": _result_sum(model, kept, last),
        "pattern_sum": _pattern_sum(kept),
        "padding": _share((model.forward(ids[:1, :6])[0] - plain[0, :6]).abs().max(), plain),
        "resume": _resume(model, ids, plain),
    }
    for name, difference in checks.items():
        if not difference <= tolerance:
            raise InterpError(
                f"{model.name} fails its self-check '{name}' ({CHECKS[name]}): "
                f"difference {difference:.3g}, allowed {tolerance:.0e}. Load it with numerics='raw' or another dtype."
            )
    return checks


def read_only_sites(model: HookedTransformer) -> tuple[str, ...]:
    """Sites that can be read but whose edits the bridge discards, found by trying each.

    Only for models without ``interp.blocks``: of the others it is known that there are none (``tests/test_run.py``).
    """
    if not model.no_blocks:
        return ()
    ids = _probe_ids(model)
    plain = model.forward(ids)

    def change(tensor: Tensor) -> Tensor:
        return torch.where(torch.isfinite(tensor), 0.5 * tensor + 0.1, tensor)

    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the bridge's own warning of a discarded edit
        for name in model.sites:
            direct = name not in ("resid_mid", "result")  # these two are edited through attn_out
            if direct and torch.equal(model.forward(ids, hooks=[(SITES[name].hook_name(0), change)]), plain):
                found.append(name)
    return tuple(found)


def check_blocks(model: HookedTransformer) -> str:
    """Compare ``interp.blocks`` with the bridge at every site of every layer, and note the difference in ``checks``.

    Returns:
        Why the pieces cannot be used for this model; empty where they can. The model itself stays usable through hooks.
    """
    reason = ""
    try:
        difference = _blocks(model, Blocks.of(model))
        model.checks["blocks"] = difference
        allowed = TOLERANCE.get(model.dtype, 5e-2)
        if not difference <= allowed:
            reason = (
                f"its arithmetic differs from the bridge's by {difference:.3g} of the largest value, {allowed:.0e} "
                "is allowed"
            )
    except UnsupportedModelError as error:
        reason = str(error)
    if reason:
        log.warning("%s is swept through hooks, which is slower: %s.", model.name, reason)
    return reason


CHECKS = {
    "result_sum": "head results plus bias equal attn_out",
    "pattern_sum": "attention rows are causal, lie in [0, 1] and sum to 1",
    "padding": "tokens to the right change nothing before them",
    "resume": "running the blocks one by one equals the whole forward pass",
}
"""Check name -> the identity, in words."""


def live_sites(model: HookedTransformer) -> tuple[tuple[str, ...], dict[str, str]]:
    """Names of the sites whose hooks really fire, found by running the model once.

    Asking the bridge which names it knows is not enough: some are aliases of hooks that an architecture never calls,
    and some give another tensor than their name says.

    Returns:
        The sites, in the order of the table; and those that are left out though they fire, each with the reason.
    """
    last = model.cfg.n_layers - 1
    known = [
        name for name, site in SITES.items() if name != "result" and site.hook_name(last) in model.bridge.hook_dict
    ]
    kept: dict[str, Tensor] = {}
    model.forward(_probe_ids(model), hooks=[_keeper(name, last, kept) for name in known])
    misnamed = {}
    if {"scores", "pattern"} <= set(kept) and not _are_scores(kept["scores"], kept["pattern"]):
        misnamed["scores"] = "its hook gives something else, of which the pattern is not the softmax"
    fires = [name for name in SITES if name in kept or (name == "result" and "z" in kept)]
    return tuple(name for name in fires if name not in misnamed), misnamed


def _are_scores(scores: Tensor, pattern: Tensor) -> bool:
    if scores.shape != pattern.shape:
        return False
    made = scores.float().masked_fill(_future(scores), -torch.inf).softmax(dim=-1)
    return bool((made - pattern.float()).abs().max() <= 1e-2)  # half precision rounds; another tensor is far off


@torch.inference_mode()
def reference(hf_model: Any) -> Reference:
    """Log-probabilities by Hugging Face's own model, before a bridge is put round it."""
    sizes = hf_model.config
    ids = _ids(int(sizes.vocab_size), int(getattr(sizes, "max_position_embeddings", 10)))
    logits: Tensor = hf_model(ids.to(next(hf_model.parameters()).device), use_cache=False).logits
    return Reference(ids, logits.float().log_softmax(dim=-1).cpu())


@torch.inference_mode()
def check_reference(model: HookedTransformer, of: Reference) -> None:
    """Hold the loaded model to Hugging Face's own, and note the difference in ``checks``.

    Raises:
        InterpError: a float32 or float64 model says something else. Half precision, whose rounding is no error of the
            bridge, is warned of.
    """
    expected = of.log_probabilities
    found = model.forward(of.ids).float().log_softmax(dim=-1).cpu()
    difference = float("inf")
    if found.shape == expected.shape:
        difference = _share((found - expected).abs().max(), expected[torch.isfinite(expected)])
    model.checks["hugging_face"] = difference
    allowed = max(TOLERANCE.get(model.dtype, 5e-2), TOLERANCE[torch.float32])
    if difference <= allowed:
        return
    said = (
        f"{model.name} as TransformerLens runs it differs from Hugging Face's own {model.cfg.architecture} by "
        f"{difference:.3g} of the largest log-probability, {allowed:.0e} is allowed"
    )
    if model.dtype.itemsize >= 4:
        raise InterpError(f"{said}: its configuration has something that TransformerLens does not know.")
    log.warning("%s. Load it with dtype='float32' before its numbers are quoted.", said)


def _keeper(name: str, layer: int, kept: dict[str, Tensor]) -> tuple[str, Callable[[Tensor], None]]:
    def read(tensor: Tensor) -> None:
        kept[name] = tensor.detach().clone()

    return SITES[name].hook_name(layer), read


def _probe_ids(model: HookedTransformer) -> Int[Tensor, "prompt position"]:
    return _ids(model.cfg.vocab, model.cfg.n_ctx)


def _ids(vocab: int, n_ctx: int) -> Int[Tensor, "prompt position"]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, vocab, (2, min(10, n_ctx)), generator=generator)


def _share(difference: Tensor, of: Tensor) -> float:
    return float(difference) / max(float(of.abs().max()), 1e-12)


def _result_sum(model: HookedTransformer, kept: dict[str, Tensor], layer: int) -> float:
    if "z" not in kept or "attn_out" not in kept:
        return 0.0
    summed = torch.einsum("bphd,hdm->bpm", kept["z"], model.W_O(layer)) + model.b_O(layer)
    return _share((summed - kept["attn_out"]).abs().max(), kept["attn_out"])


def _future(pattern: Tensor) -> Bool[Tensor, "dest src"]:
    """What no token may look at."""
    return torch.triu(torch.ones(pattern.shape[-2:], dtype=torch.bool, device=pattern.device), diagonal=1)


def _pattern_sum(kept: dict[str, Tensor]) -> float:
    if "pattern" not in kept:
        return 0.0
    pattern = kept["pattern"].float()
    outside = torch.maximum(-pattern.min(), pattern.max() - 1).clamp(min=0)
    worst = torch.stack([(pattern.sum(-1) - 1).abs().max(), pattern[..., _future(pattern)].abs().max(), outside])
    return float(worst.max())


def _blocks(model: HookedTransformer, blocks: Blocks) -> float:
    """Compare every site of every layer, and the logits with attention in one step and in its parts."""
    ids = _probe_ids(model).to(model.device)
    ours: dict[tuple[str, int], Tensor] = {}

    def tap(site: str, layer: int, value: Tensor) -> Tensor:
        ours[site, layer] = value
        return value

    # Scores are masked in two ways, and the rest is made of what is compared.
    names = [
        name for name in model.sites if SITES[name].per_layer and name not in ("scores", "result", "rot_q", "rot_k")
    ]
    theirs: list[dict[str, Tensor]] = [{} for _ in range(model.cfg.n_layers)]
    plain = model.forward(
        ids, hooks=[_keeper(name, layer, kept) for layer, kept in enumerate(theirs) for name in names]
    )
    with torch.inference_mode():
        logits = [blocks.logits(blocks.forward(ids, tap=watched)) for watched in (tap, None)]
    compared = [(mine, plain) for mine in logits]
    compared += [
        (ours[name, layer], kept[name]) for layer, kept in enumerate(theirs) for name in kept if (name, layer) in ours
    ]
    if any(mine.shape != other.shape for mine, other in compared):
        return float("inf")
    shares = [_share((mine - other).abs().max(), other) for mine, other in compared]
    return float(torch.tensor(shares).max())  # unlike the built-in, keeps a NaN


def _resume(model: HookedTransformer, ids: Int[Tensor, "prompt position"], plain: Tensor) -> float:
    """Compare both ends: everything from block 0, and the last block alone."""
    at = torch.full((ids.shape[0],), ids.shape[1] - 1)
    worst = 0.0
    for layer in {0, model.cfg.n_layers - 1}:
        stream = model.forward(ids, stop_at_layer=layer) if layer else _embedded(model, ids)
        worst = max(worst, _share((model.resume(stream, layer, logits_at=at) - plain[:, -1]).abs().max(), plain))
    return worst


def _embedded(model: HookedTransformer, ids: Int[Tensor, "prompt position"]) -> Tensor:
    kept: list[Tensor] = []
    model.forward(ids, hooks=[(SITES["resid_pre"].hook_name(0), lambda t: kept.append(t.clone()))])
    return kept[0]
