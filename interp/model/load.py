"""From a name, or from a bridge, to a model: read, wrapped, folded, examined, and held to what Hugging Face says."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from interp.errors import InterpError, UnusableModelError, shown, told
from interp.model.arithmetic import Blocks, UnsupportedModelError
from interp.model.bridged import BridgedModel
from interp.model.checks import (
    IDENTITIES,
    Reference,
    against_blocks,
    against_reference,
    identities,
    reference,
    rounded_products,
)
from interp.model.config import config_of
from interp.model.families import blocks_of
from interp.model.folding import Unfolded
from interp.model.hooked import Capabilities, HookedTransformer, Identity
from interp.model.live_sites import live_sites, read_only_sites
from interp.model.running import in_one_dtype, resolve_device
from interp.model.source import DTYPES, Source, config_sha256, read, weights_sha256
from interp.prompts.tokens import BosPolicy, bos_policy_of

log = logging.getLogger(__name__)

Bos: TypeAlias = Literal["auto", "prepend", "none"]
Numerics: TypeAlias = Literal["compatibility", "raw"]


def from_name(
    source: str | os.PathLike[str], *, device: str, dtype: str, bos: Bos, numerics: Numerics
) -> HookedTransformer:
    """``HookedTransformer.from_pretrained``, whose docstring says what the arguments are."""
    if dtype not in DTYPES:
        raise InterpError(f"Unknown dtype {shown(dtype)}. Choose one of {', '.join(DTYPES)}.")
    if numerics not in ("compatibility", "raw"):
        raise InterpError(f"Unknown numerics {shown(numerics)}. Choose 'compatibility' or 'raw'.")
    place = resolve_device(device)
    try:
        return _load(source, DTYPES[dtype], place, bos, numerics)
    except UnusableModelError as error:
        if numerics == "raw":
            raise
        raise InterpError(f"{error} {_tried(lambda: _load(source, DTYPES[dtype], place, bos, 'raw'))}") from error


@torch.inference_mode(False)  # weights made in inference mode could never enter a gradient
def _load(
    source: str | os.PathLike[str], dtype: torch.dtype, place: torch.device, bos: Bos, numerics: Numerics
) -> HookedTransformer:
    found = read(source, dtype=dtype, device=torch.device("cpu") if place.type == "mps" else place)
    return of_source(found, place, bos, numerics)


@torch.inference_mode(False)
def of_source(found: Source, place: torch.device, bos: Bos, numerics: Numerics) -> HookedTransformer:
    """The model that a Hugging Face model becomes: wrapped, folded, examined, and held to what it said before.

    Raises:
        UnusableModelError: a check fails.
    """
    policy = bos_policy_of(bos, found.tokenizer)
    with told(f"{found.name} is a {found.architecture}, which cannot be run on token ids alone"):
        expected = reference(found.model)
    n_parameters = _count(found.model)  # before folding, which adds biases
    bridge, unfolded = _wrapped(found, numerics)
    with told(f"{found.name} has a tokenizer that reads no text"):
        _told_of_text(bridge, found.tokenizer, policy)
    model = BridgedModel(bridge, name=found.name, cfg=config_of(bridge))
    capabilities = _examined(model)
    checks = {**capabilities.checks, "hugging_face": _held_to(model, expected)}
    with in_one_dtype(found.dtype):
        values = unfolded.taken_out(model.cfg.n_kv_heads)
    capabilities = replace(capabilities, checks=checks, folded_values=values)
    if place.type == "mps":
        capabilities = _moved(model, place, capabilities)
    identity = Identity(found.weights_sha256, config_sha256(bridge.original_model.config), numerics, n_parameters)
    return HookedTransformer(
        model, identity=identity, capabilities=capabilities, tokenizer=found.tokenizer, bos_policy=policy
    )


def from_bridge(bridge: Any, *, name: str | None, bos: Bos) -> HookedTransformer:
    """``HookedTransformer.from_bridge``, whose docstring says what the arguments are."""
    if not hasattr(bridge, "run_with_hooks") or not hasattr(bridge, "blocks"):
        raise InterpError(
            f"from_bridge needs a TransformerLens 4 TransformerBridge with blocks, got {type(bridge).__name__}."
        )
    _leave_inference_mode(bridge)
    policy = bos_policy_of(bos, bridge.tokenizer)
    cfg = config_of(bridge)
    model = BridgedModel(bridge, name=name or str(getattr(bridge.cfg, "model_name", "bridge")), cfg=cfg)
    capabilities = _examined(model)
    is_raw = not getattr(bridge, "_weights_processed", False)
    if is_raw:
        nothing = torch.zeros(cfg.n_layers, cfg.n_kv_heads, cfg.d_head)
        capabilities = replace(capabilities, folded_values=nothing)
    identity = Identity(
        weights_sha256(bridge.original_model),
        config_sha256(getattr(bridge.original_model, "config", bridge.cfg)),
        "raw" if is_raw else "compatibility",
        _count(bridge.original_model),
    )
    return HookedTransformer(
        model, identity=identity, capabilities=capabilities, tokenizer=bridge.tokenizer, bos_policy=policy
    )


def _count(model: torch.nn.Module) -> int:
    """Numbers in the weights; ``parameters`` gives what is tied once."""
    return sum(weight.numel() for weight in model.parameters())


# ---- wrapping ----


def _wrapped(found: Source, numerics: Numerics) -> tuple[Any, Unfolded]:
    """A bridge round a Hugging Face model (in place) in the numerics asked for, and what was measured before."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    with told(f"{found.name} is a {found.architecture}, which this TransformerLens does not bridge"):
        with in_one_dtype(found.dtype):
            bridge: Any = build_bridge_from_module(
                found.model, found.architecture, hf_config=found.model.config, model_name=found.name
            )
    bridge.eval()
    # The bridge would reload the tokenizer from the hub if it were handed one at boot; a first assignment does not.
    bridge.tokenizer = found.tokenizer
    with told(f"{found.name} is a {found.architecture}, which TransformerLens cannot put into {numerics} numerics"):
        with in_one_dtype(found.dtype), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("default")
            unfolded = Unfolded(bridge)
            bridge.enable_compatibility_mode(disable_warnings=True, no_processing=numerics == "raw")
    for warning in said:
        log.warning("TransformerLens says of %s: %s", found.name, warning.message)
    bridge.original_model.requires_grad_(False)  # folding makes new parameters
    return bridge, unfolded


def _told_of_text(bridge: Any, tokenizer: Any | None, policy: BosPolicy) -> None:
    """Let the bridge read text as everything else here does: with exactly one BOS, or with none.

    It asks its configuration what the tokenizer puts round a text by itself; unasked, it takes a BOS for granted.
    """
    if tokenizer is None:
        return
    alone, framed = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    longer = len(framed) > len(alone)
    bridge.cfg.default_prepend_bos = policy == "prepend"
    bridge.cfg.tokenizer_prepends_bos = longer and framed[0] == tokenizer.bos_token_id
    bridge.cfg.tokenizer_appends_eos = longer and framed[-1] == tokenizer.eos_token_id


@torch.inference_mode(False)
def _leave_inference_mode(bridge: Any) -> None:
    """Copy the weights and buffers that were made in inference mode, those that are tied once."""
    copies: dict[Tensor, Tensor] = {}
    for module in bridge.modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is None or not tensor.is_inference():
                    continue
                if tensor not in copies:
                    copy = tensor.detach().clone()
                    copies[tensor] = torch.nn.Parameter(copy, False) if table is module._parameters else copy
                table[name] = copies[tensor]


# ---- examining: the checks find, and here it is decided ----


def _examined(model: BridgedModel) -> Capabilities:
    """What a model can do; not yet what folding took out of its values.

    Raises:
        UnusableModelError: it cannot be run, or an identity does not hold.
    """
    if warning := rounded_products(model):
        log.warning(warning)
    with told(f"{model.name} is a {model.cfg.architecture}, which TransformerLens cannot run as it is read here"):
        live = live_sites(model)
        checks = held_identities(model, live.sites)
        blocks, found, why_no_blocks = _examined_blocks(model, live.sites)
        read_only = read_only_sites(model, live.sites) if blocks is None else {}
    return Capabilities(
        sites=live.sites,
        misnamed=live.misnamed,
        read_only=read_only,
        checks={**checks, **found},
        blocks=blocks,
        why_no_blocks=why_no_blocks,
        folded_values=None,
        d_mlp=live.d_mlp,
    )


def held_identities(model: BridgedModel, sites: Iterable[str]) -> dict[str, float]:
    """Prove the identities that every analysis leans on, on ten tokens.

    Returns:
        The largest difference seen per identity, as a share of the largest value compared.

    Raises:
        UnusableModelError: names the identity that does not hold.
    """
    checks = {}
    for finding in identities(model, sites):
        if not finding.holds:
            raise UnusableModelError(finding.wrong)
        if finding.name in IDENTITIES:
            checks[finding.name] = finding.difference
    return checks


def _examined_blocks(model: BridgedModel, sites: Iterable[str]) -> tuple[Blocks | None, dict[str, float], str]:
    """The model's arithmetic in pieces, or None; the difference from the bridge that was seen; and why it is None."""
    checks = {}
    try:
        blocks = blocks_of(model)
        finding = against_blocks(model, blocks.measured(), sites)
        checks[finding.name] = finding.difference
        if finding.holds:
            return blocks, checks, ""
        reason = finding.wrong
    except UnsupportedModelError as error:
        reason = str(error)
    log.warning("%s is swept through hooks, which is slower: %s.", model.name, reason)
    return None, checks, reason


def _held_to(model: BridgedModel, expected: Reference) -> float:
    """The difference from Hugging Face's own model.

    Raises:
        UnusableModelError: a float32 or float64 model says something else. Half precision, whose rounding is no
            error of the bridge, is warned of.
    """
    finding = against_reference(model, expected)
    if not finding.holds:
        if model.dtype.itemsize >= 4:
            raise UnusableModelError(
                f"{finding.wrong}: its configuration has something that TransformerLens does not know."
            )
        log.warning("%s. Load it with dtype='float32' before its numbers are quoted.", finding.wrong)
    return finding.difference


def _moved(model: BridgedModel, place: torch.device, found: Capabilities) -> Capabilities:
    """Move to a device whose arithmetic is not trusted, and refuse it if it disagrees with the CPU."""
    ids = torch.arange(8).reshape(1, 8) % model.cfg.vocab
    expected = model.forward(ids)
    model.to(place)
    difference = float((model.forward(ids).to("cpu") - expected).abs().max())
    scale = float(expected.abs().max())
    if not difference <= 1e-3 * max(scale, 1.0):
        raise InterpError(
            f"Device '{place}' gives other numbers than the CPU (logits differ by {difference:.3g}). Use device='cpu'."
        )
    blocks = None if found.blocks is None else blocks_of(model)  # moving made new weights
    return replace(found, blocks=blocks, checks={**found.checks, "device_difference": difference})


def _tried(read_raw: Callable[[], object]) -> str:
    """For the message about a refused model: whether it can be loaded with its weights as they are."""
    try:
        read_raw()
    except InterpError:
        return "It cannot be used with numerics='raw' either."
    return "With numerics='raw' it loads and passes the checks."
