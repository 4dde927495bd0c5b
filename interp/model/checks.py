"""What is looked at in a model each time one is loaded: pure findings, of which ``load`` makes its decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.model.arithmetic import TAPS, Blocks
from interp.model.bridged import BridgedModel
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

IDENTITIES = {
    "result_sum": "head results plus bias equal the output of W_O",
    "pattern_sum": "attention rows are causal, lie in [0, 1] and sum to 1, less what a sink takes",
    "padding": "tokens to the right change nothing before them",
    "resume": "running the blocks one by one equals the whole forward pass",
}
"""Name of an identity -> what it says, in words."""


class Finding(NamedTuple):
    """What one check found.

    Attributes:
        name: of the check.
        difference: the largest seen, as a share of the largest value compared. A check whose answer is yes or no has 0
            for yes and infinity for no.
        allowed: the largest difference that rounding may make.
        wrong: what to tell the user if the check fails.
    """

    name: str
    difference: float
    allowed: float
    wrong: str

    @property
    def holds(self) -> bool:
        """Whether the difference is allowed; NaN is not."""
        return self.difference <= self.allowed


class Reference(NamedTuple):
    """What Hugging Face's own model says."""

    ids: Int[Tensor, "prompt position"]
    log_probabilities: Float[Tensor, "prompt position vocab"]


def rounded_products(model: BridgedModel) -> str:
    """A warning where PyTorch rounds the factors of a model's products before it multiplies them; else empty."""
    precision = torch.get_float32_matmul_precision()
    if model.dtype != torch.float32 or precision == "highest":
        return ""
    return (
        f"PyTorch may round the factors of float32 products (precision '{precision}'), so that effects can be off by "
        f"some percent. torch.set_float32_matmul_precision('highest') before {model.name} is used makes them exact."
    )


@torch.inference_mode()
def identities(model: BridgedModel, sites: Iterable[str]) -> Iterator[Finding]:
    """Check the identities that every analysis relies on, on ten tokens, one after the other.

    Two checks without a name among ``IDENTITIES`` come first: that the logits are finite, and that reading changes
    nothing. Once a check fails, those after it say nothing.
    """
    ids = probe_ids(model)
    plain = model.forward(ids)
    wider = " dtype='float32' holds larger numbers." if model.dtype == torch.float16 else ""
    yield _yes(
        "finite",
        bool(torch.isfinite(plain).all()),
        f"{model.name} gives logits that are not finite in {model.dtype}.{wider}",
    )
    kept: dict[tuple[str, int], Tensor] = {}
    names = [name for name in sites if not SITES[name].derived_from]
    watched = model.forward(ids, hooks=readers(model, names, kept))
    yield _yes(
        "reading",
        torch.equal(plain, watched),
        f"Reading activations changed the logits of {model.name}; its figures cannot be trusted.",
    )
    short = max(1, ids.shape[1] * 6 // 10)
    found: dict[str, Callable[[], float]] = {
        "result_sum": lambda: _result_sum(model, ids) if "result" in sites else 0.0,
        "pattern_sum": lambda: _pattern_sum(model, kept),
        "padding": lambda: share(model.forward(ids[:1, :short])[0] - plain[0, :short], plain),
        "resume": lambda: _resume(model, ids, plain),
    }
    for name, look in found.items():
        difference, limit = look(), allowed(model.dtype)
        yield Finding(
            name,
            difference,
            limit,
            f"{model.name} ({model.cfg.architecture}) fails its self-check '{name}' ({IDENTITIES[name]}): "
            f"difference {difference:.3g}, allowed {limit:.0e}.",
        )


def _yes(name: str, holds: bool, wrong: str) -> Finding:
    return Finding(name, 0.0 if holds else float("inf"), 0.0, wrong)


@torch.inference_mode()
def against_blocks(model: BridgedModel, blocks: Blocks, sites: Iterable[str]) -> Finding:
    """Compare the arithmetic piece by piece with the bridge, at every site of every layer.

    Raises:
        UnsupportedModelError: a variant that is only met when the pieces run.
    """
    difference, limit = _blocks(model, blocks, sites), allowed(model.dtype)
    wrong = f"its arithmetic differs from the bridge's by {difference:.3g} of the largest value, {limit:.0e} is allowed"
    return Finding("blocks", difference, limit, wrong)


@torch.inference_mode()
def reference(hf_model: Any) -> Reference:
    """Log-probabilities by Hugging Face's own model, before a bridge is put round it."""
    sizes, weight = hf_model.config, next(hf_model.parameters())
    ids = random_ids(int(sizes.vocab_size), int(getattr(sizes, "max_position_embeddings", None) or 10))
    with in_one_dtype(weight.dtype):
        logits: Tensor = hf_model(ids.to(weight.device), use_cache=False).logits
    return Reference(ids, logits.double().log_softmax(dim=-1).cpu())


@torch.inference_mode()
def against_reference(model: BridgedModel, of: Reference) -> Finding:
    """Compare the loaded model with Hugging Face's own."""
    expected = of.log_probabilities
    found = model.forward(of.ids).double().log_softmax(dim=-1).cpu()
    difference, limit = float("inf"), allowed(model.dtype)
    if found.shape == expected.shape:
        difference = share(found - expected, expected[torch.isfinite(expected)])
    wrong = (
        f"{model.name} as TransformerLens runs it differs from Hugging Face's own {model.cfg.architecture} by "
        f"{difference:.3g} of the largest log-probability, {limit:.0e} is allowed"
    )
    return Finding("hugging_face", difference, limit, wrong)


def _result_sum(model: BridgedModel, ids: Int[Tensor, "prompt position"]) -> float:
    """How far the head results plus the bias are from the output of W_O, in the worst layer."""
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


def _pattern_sum(model: BridgedModel, kept: Kept) -> float:
    """How far attention is from what its rows must be, in the worst layer; the scores say what a sink takes."""
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


def _blocks(model: BridgedModel, blocks: Blocks, sites: Iterable[str]) -> float:
    """Compare every site of every layer, and the logits with attention in one step and in its parts."""
    ids = probe_ids(model).to(model.device)
    ours: dict[tuple[str, int], Tensor] = {}

    def tap(site: str, layer: int, value: Tensor) -> Tensor:
        ours[site, layer] = value
        return value

    names = [name for name in sites if name in TAPS and name != "scores"]  # the two mask scores differently
    theirs: dict[tuple[str, int], Tensor] = {}
    plain = model.forward(ids, hooks=readers(model, names, theirs))
    logits = [blocks.logits(blocks.forward(ids, tap=watched)) for watched in (tap, None)]
    compared = [(mine, plain) for mine in logits]
    compared += [(ours[place], value) for place, value in theirs.items() if place in ours]
    if any(mine.shape != other.shape for mine, other in compared):
        return float("inf")
    return _worst([share(mine - other, other) for mine, other in compared])


def _resume(model: BridgedModel, ids: Int[Tensor, "prompt position"], plain: Tensor) -> float:
    """How far a resumed run is from the whole one, where it is resumed at block 0 and at the last block."""
    at = torch.full((ids.shape[0],), ids.shape[1] - 1)
    found = []
    for layer in {0, model.cfg.n_layers - 1}:
        stream = watch(model, ids, ["resid_pre"])["resid_pre", layer]
        found.append(share(model.resume(stream, layer, logits_at=at) - plain[:, -1], plain))
    return _worst(found)
