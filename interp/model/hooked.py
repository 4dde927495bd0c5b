"""``HookedTransformer``: a model whose every query, key, value, pattern and residual stream can be read and changed.

It holds a TransformerLens 4 ``TransformerBridge`` in compatibility numerics (LayerNorm folded into the next weights,
writing weights and unembedding centred: logits shift by a constant per position, probabilities do not change) and
keeps the field's hook names, so anything written for TransformerLens works on ``model.bridge``.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp import _cells, sites
from interp.engines import HERE, Engine
from interp.errors import InterpError
from interp.model.arithmetic import SHOWN, Blocks
from interp.model.bridged import BridgedModel
from interp.prompts.tokens import BosPolicy
from interp.sites import Site


@dataclass(frozen=True)
class Identity:
    """What tells a model from every other, as every result states it.

    Attributes:
        weights_sha256: fingerprint of the weights as loaded, before any folding.
        config_sha256: fingerprint of the configuration; the same weights give other numbers with another.
        numerics: which weight processing is in force.
        n_parameters: numbers in the weights, those that are tied counted once.
    """

    weights_sha256: str
    config_sha256: str
    numerics: str
    n_parameters: int


@dataclass(frozen=True)
class Capabilities:
    """What loading found out about a model, by running it.

    Attributes:
        sites: names of the sites it has (those whose hooks fire), in the order of the table.
        misnamed: sites that are left out because their hooks give something else, each with the reason.
        read_only: sites that can be read but not changed, each with the reason.
        checks: the figures of the checks at load.
        blocks: its arithmetic piece by piece, on the bridge's own weights; None where it cannot be run that way.
        why_no_blocks: why it cannot; empty where it can.
        folded_values: what folding took out of each head's values, and so out of its ``z``: the raw model's values are
            those of this one plus these. None where it is not known (a bridge that was folded before it was wrapped).
        d_mlp: width of ``mlp_post``; None where it has no such site.
    """

    sites: tuple[str, ...]
    misnamed: Mapping[str, str]
    read_only: Mapping[str, str]
    checks: Mapping[str, float]
    blocks: Blocks | None
    why_no_blocks: str
    folded_values: Float[Tensor, "layer kv_head d_head"] | None
    d_mlp: int | None


class HookedTransformer(BridgedModel):
    """A causal language model with named, readable and writable insides.

    Attributes:
        bridge: the TransformerLens bridge, for everything that TransformerLens offers.
        name: what it was loaded as.
        cfg: sizes.
        tokenizer: a Hugging Face tokenizer, or None for a model that works on ids.
        bos_policy: ``"prepend"`` puts exactly one beginning-of-sequence token before every text; ``"none"`` puts none.
        weights_sha256, config_sha256, numerics, n_parameters: what it is; see ``Identity``.
        sites, misnamed, read_only, checks, blocks, why_no_blocks, folded_values: what it can do; see ``Capabilities``.
        engine: who does the pieces of a sweep, a probe, a circuit or a capture of it; see ``interp.engines``.

    >>> model = HookedTransformer.from_pretrained("mini")
    >>> model.cfg.n_layers, model.cfg.n_heads, model.has_site("pattern")
    (4, 4, True)
    """

    def __init__(
        self,
        model: BridgedModel,
        *,
        identity: Identity,
        capabilities: Capabilities,
        tokenizer: Any | None,
        bos_policy: BosPolicy,
    ) -> None:
        """Put together what loading found. Use ``from_pretrained`` or ``from_bridge``, which find it."""
        cfg = replace(model.cfg, d_mlp=capabilities.d_mlp or model.cfg.d_mlp)
        super().__init__(model.bridge, name=model.name, cfg=cfg)
        self.tokenizer = tokenizer
        self.bos_policy: BosPolicy = bos_policy
        self.weights_sha256 = identity.weights_sha256
        self.config_sha256 = identity.config_sha256
        self.numerics = identity.numerics
        self.n_parameters = identity.n_parameters
        self.sites = capabilities.sites
        self.misnamed = capabilities.misnamed
        self.read_only = capabilities.read_only
        self.checks = capabilities.checks
        self.blocks = capabilities.blocks
        self.why_no_blocks = capabilities.why_no_blocks
        self.folded_values = capabilities.folded_values
        self.engine: Engine = HERE
        self._settled = False

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str] = "mini",
        *,
        device: str = "auto",
        dtype: str = "float32",
        bos: Literal["auto", "prepend", "none"] = "auto",
        numerics: Literal["compatibility", "raw"] = "compatibility",
    ) -> HookedTransformer:
        """Load a model.

        Args:
            source: ``"mini"`` (bundled), a hub name such as ``"gpt2"``, a Hugging Face directory, or a ``.gguf`` file.
            device: ``"auto"`` is CUDA where there is one, then CPU. ``"mps"`` must be asked for and is checked against
                the CPU first, since it has returned wrong numbers (TransformerLens issue 1178).
            dtype: ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"float64"``.
            bos: ``"auto"`` prepends one beginning-of-sequence token if the tokenizer has one.
            numerics: ``"compatibility"`` folds and centres weights as TransformerLens always did; ``"raw"`` does not.

        Raises:
            InterpError: no such model, no weights, a pickled checkpoint, a broken file, an unknown device or dtype, or
                a model that fails its self-check.
        """
        from interp.model import load

        return load.from_name(source, device=device, dtype=dtype, bos=bos, numerics=numerics)

    @classmethod
    def from_bridge(
        cls, bridge: Any, *, name: str | None = None, bos: Literal["auto", "prepend", "none"] = "auto"
    ) -> HookedTransformer:
        """Wrap a ``TransformerBridge`` that you booted yourself, with the numerics you gave it. It is not modified.

        One exception: weights that were made in ``torch.inference_mode`` are replaced by equal ones, since such tensors
        can never take part in a gradient.

        The fingerprint is that of the bridge's weights as they are now, so it differs from the fingerprint of the
        same model loaded by ``from_pretrained`` if weights were folded.
        """
        from interp.model import load

        return load.from_bridge(bridge, name=name, bos=bos)

    @property
    def weight_bytes(self) -> int:
        """What the weights take, folded and on their device."""
        return sum(weight.numel() * weight.element_size() for weight in self.bridge.parameters())

    @property
    def bos_token_id(self) -> int | None:
        """Id of the beginning-of-sequence token, or None."""
        return None if self.tokenizer is None else self.tokenizer.bos_token_id

    def on(self, engine: Engine) -> HookedTransformer:
        """The same model, whose sweeps, probes, circuits and captures are done by an engine (``interp.engines``)."""
        one = copy.copy(self)
        one.engine = engine
        return one

    def settled(self) -> HookedTransformer:
        """The same model, whose products are made everywhere in the ways that are fastest here; it runs where it is."""
        one = self.on(HERE)
        if one.blocks is not None:
            one.blocks, one._settled = one.blocks.measured(), True
        return one

    def own_blocks(self, names: Iterable[str] = ()) -> tuple[Blocks | None, str]:
        """Its arithmetic in pieces, each product made the fastest way here; or None and why its runs go through hooks.

        Args:
            names: sites that the pieces have to show.
        """
        if self.blocks is None:
            return None, self.why_no_blocks
        for name in names:
            if name not in SHOWN:
                return None, f"site '{name}' has no tap in interp.model.arithmetic"
        return self.blocks if self._settled else self.blocks.measured(), ""

    def has_site(self, name: str) -> bool:
        """Whether the model has the site (rotary models have no ``pos_embed``, others no ``rot_q``)."""
        return sites.site(name).name in self.sites

    def dims(self, name: str) -> tuple[str, ...]:
        """Named axes of a site in this model, after ``prompt`` and ``layer``."""
        table = sites.site(name).dims
        if self.cfg.grouped_query:
            return table
        return tuple("head" if dim == "kv_head" else dim for dim in table)

    def check_site(self, name: str) -> Site:
        """Look up a site and prove that this model has it.

        Raises:
            InterpError: unknown, or absent from this architecture.
        """
        wanted = sites.site(name)
        if not self.has_site(name):
            because = f": {self.misnamed[name]}" if name in self.misnamed else ""
            raise InterpError(
                f"Site '{name}' does not exist in {self.name} ({self.cfg.architecture}){because}. "
                f"It has: {', '.join(self.sites)}."
            )
        return wanted

    def check_editable(self, name: str) -> Site:
        """Look up a site and prove that this model has it and that a change of it takes effect.

        Raises:
            InterpError: unknown, absent, or read-only in this architecture.
        """
        wanted = self.check_site(name)
        if name in self.read_only:
            raise InterpError(
                f"Site '{name}' of {self.name} ({self.cfg.architecture}) can be read but not changed: "
                f"{self.read_only[name]}. These can be: "
                f"{', '.join(site for site in self.sites if site not in self.read_only)}."
            )
        return wanted

    def editable(self, names: Iterable[str]) -> list[str]:
        """Those of some sites that this model has and that can be changed, in the order given."""
        return [name for name in names if self.has_site(name) and name not in self.read_only]

    def provenance(self) -> dict[str, str | int]:
        """Attributes that identify the model in a result."""
        return {
            "model": self.name,
            "weights_sha256": self.weights_sha256,
            "config_sha256": self.config_sha256,
            "architecture": self.cfg.architecture,
            "n_parameters": self.n_parameters,
            "numerics": self.numerics,
            "dtype": str(self.dtype).removeprefix("torch."),
            "matmul_precision": torch.get_float32_matmul_precision(),
            "device": str(self.device),
            "bos": self.bos_policy,
        }

    def sizes(self) -> dict[str, str]:
        """What there is to say of the model in a line, or in a table: what, and how much of it.

        >>> HookedTransformer.from_pretrained("mini").sizes()["layers"]
        '4'
        """
        c = self.cfg
        return {
            "architecture": c.architecture,
            "layers": str(c.n_layers),
            "heads": f"{c.n_heads} ({c.n_kv_heads} kv)" if c.grouped_query else str(c.n_heads),
            "d_model": str(c.d_model),
            "vocab": str(c.vocab),
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": str(self.device),
            "engine": "hooks" if self.blocks is None else "weights",
        }

    def __repr__(self) -> str:
        """One line: name, architecture, sizes, data type, device, and whether sweeps run on the weights or by hooks."""
        said = self.sizes()
        counts = f"{said['layers']} layers, {said['heads']} heads, d_model {said['d_model']}, vocab {said['vocab']}"
        last = f"{said['dtype']}, {said['device']}, engine {said['engine']}"
        return f"HookedTransformer({self.name!r}, {said['architecture']}, {counts}, {last})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the same as a table."""
        return _cells.html(self)

    def __getattr__(self, name: str) -> Any:
        """Say of a name of TransformerLens where it is, and what is ours."""
        ours = f" Here: {_OURS[name]}." if name in _OURS else ""
        theirs = name in _PARTS or (name[:1] != "_" and hasattr(type(self.__dict__.get("bridge")), name))
        if theirs:
            raise AttributeError(f"{name} is TransformerLens's: use model.bridge.{name}.{ours}", name=name, obj=self)
        raise AttributeError(f"'HookedTransformer' object has no attribute {name!r}", name=name, obj=self)

    def __call__(self, *arguments: object, **more: object) -> Any:
        """Say how a model is run.

        Raises:
            InterpError: always.
        """
        raise InterpError("A model is not called. model.bridge(text) gives logits; model.forward(ids) takes token ids.")


_OURS = {
    "run_with_cache": "interp.capture(model, texts, sites=['resid_pre', 'z'])",
    "run_with_hooks": "interp.sweep(model, pairs, 'z') patches every cell; model.forward(ids, hooks=...) takes hooks",
    "to_tokens": "interp.prompts.tokens.encode(model, texts)",
    "to_str_tokens": "interp.prompts.tokens.encode(model, texts).tokens",
    "W_Q": "interp.capture(model, texts, sites=['q']) has the queries",
    "W_K": "interp.capture(model, texts, sites=['k']) has the keys",
    "W_V": "interp.capture(model, texts, sites=['v']) has the values",
}
"""Names of TransformerLens -> what to call here, where there is something."""

_PARTS = ("embed", "pos_embed", "ln_final")
"""Parts of a bridge, which its class does not know by name."""
