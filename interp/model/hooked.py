"""``HookedTransformer``: a model whose every query, key, value, pattern and residual stream can be read and changed.

It holds a TransformerLens 4 ``TransformerBridge`` in compatibility numerics (LayerNorm folded into the next weights,
writing weights and unembedding centred: logits shift by a constant per position, probabilities do not change) and
keeps the field's hook names, so anything written for TransformerLens works on ``model.bridge``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp import sites
from interp.errors import InterpError, UnusableModelError, shown, told
from interp.model.arithmetic import Blocks, UnsupportedModelError, at_positions
from interp.model.checks import check_blocks, check_reference, reference, self_check
from interp.model.families import blocks_of
from interp.model.folding import Unfolded
from interp.model.live_sites import live_sites, read_only_sites
from interp.model.running import BlockCall, Path, in_evaluation, in_one_dtype, per_row
from interp.prompts.tokens import BosPolicy, bos_policy_of
from interp.sites import Site

if TYPE_CHECKING:
    from interp.model.load import Loaded

log = logging.getLogger(__name__)

HookFunction: TypeAlias = Callable[[Tensor], Tensor | None]
Hook: TypeAlias = tuple[str, HookFunction]


@dataclass(frozen=True)
class ModelConfig:
    """The sizes of a model.

    ``n_kv_heads < n_heads`` means grouped-query attention. ``vocab`` counts the ids that prompts may hold and
    ``vocab_out`` those that have a logit, as many but in models whose answers are not what they read.

    ``length_boundary`` is a number of tokens above which rotary angles change for a whole batch: prompts on both sides
    of it cannot be run together, since a prompt's numbers would depend on its neighbours. None for most models.
    """

    architecture: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    n_ctx: int
    vocab: int
    vocab_out: int
    length_boundary: int | None = None

    @property
    def grouped_query(self) -> bool:
        """Whether several query heads share one key-value head."""
        return self.n_kv_heads != self.n_heads

    @property
    def sizes(self) -> dict[str, int]:
        """Length of every axis of a site that is the same for all prompts."""
        return {
            "head": self.n_heads,
            "kv_head": self.n_kv_heads,
            "d_model": self.d_model,
            "d_head": self.d_head,
            "neuron": self.d_mlp,
        }


class HookedTransformer:
    """A causal language model with named, readable and writable insides.

    Attributes:
        bridge: the TransformerLens bridge, for everything that TransformerLens offers.
        cfg: sizes.
        tokenizer: a Hugging Face tokenizer, or None for a model that works on ids.
        name: what it was loaded as.
        weights_sha256: fingerprint of the weights as loaded, before any folding.
        config_sha256: fingerprint of the configuration; the same weights give other numbers with another.
        numerics: which weight processing is in force; stated in every result.
        bos_policy: ``"prepend"`` puts exactly one beginning-of-sequence token before every text; ``"none"`` puts none.
        sites: names of the sites this model has (those whose hooks fire), in the order of the table.
        checks: the figures of the self-check at load.
        misnamed: sites that are left out because their hooks give something else, each with the reason.
        read_only: sites that can be read but not changed, each with the reason.
        folded_values: what folding took out of the values, and so out of ``z``, of each head: the raw model's are these
            more. None where it is not known (a bridge that was folded before it was wrapped).
        no_blocks: why the model's arithmetic cannot be run piece by piece (``blocks``); empty where it can.
    """

    def __init__(
        self,
        bridge: Any,
        *,
        tokenizer: Any | None,
        name: str,
        weights_sha256: str,
        numerics: str,
        bos: Literal["auto", "prepend", "none"] = "auto",
        check: bool = True,
    ) -> None:
        """Wrap a bridge. Prefer ``from_pretrained`` or ``from_bridge``."""
        from interp.model.load import config_sha256

        self.bridge = bridge
        self.tokenizer = tokenizer
        self.name = name
        self.weights_sha256 = weights_sha256
        self.config_sha256 = config_sha256(getattr(bridge.original_model, "config", bridge.cfg))
        self.numerics = numerics
        self.cfg = _config(bridge)
        self.bos_policy: BosPolicy = bos_policy_of(bos, tokenizer)
        self._block_calls: dict[int, BlockCall] = {}
        self._per_row: frozenset[Path] | None = None
        self._modules = tuple({*bridge.modules(), *bridge.original_model.modules()})
        self.checks: dict[str, float] = {}
        self.no_blocks = ""
        self.folded_values: Float[Tensor, "layer kv_head d_head"] | None = None
        if numerics == "raw":
            self.folded_values = torch.zeros(self.cfg.n_layers, self.cfg.n_kv_heads, self.cfg.d_head)
        with told(f"{name} is a {self.cfg.architecture}, which TransformerLens cannot run as it is read here"):
            found = live_sites(self)
            self.sites, self.misnamed = found.sites, found.misnamed
            self.cfg = replace(self.cfg, d_mlp=found.d_mlp or self.cfg.d_mlp)
            if check:
                self.checks = self_check(self)
                self.no_blocks = check_blocks(self)
            self.read_only: Mapping[str, str] = read_only_sites(self)

    @classmethod
    @torch.inference_mode(False)  # weights made in inference mode could never enter a gradient
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

        if dtype not in load.DTYPES:
            raise InterpError(f"Unknown dtype {shown(dtype)}. Choose one of {', '.join(load.DTYPES)}.")
        if numerics not in ("compatibility", "raw"):
            raise InterpError(f"Unknown numerics {shown(numerics)}. Choose 'compatibility' or 'raw'.")
        place = resolve_device(device)
        start = torch.device("cpu" if place.type == "mps" else place)

        def read(numerics: Literal["compatibility", "raw"]) -> HookedTransformer:
            loaded = load.load(source, dtype=load.DTYPES[dtype], device=start)
            return cls._of_loaded(loaded, numerics, bos)

        try:
            model = read(numerics)
        except UnusableModelError as error:
            if numerics == "raw":
                raise
            raise InterpError(f"{error} {_tried_raw(read)}") from error
        if place.type == "mps":
            model._move_checked(place)
        return model

    @classmethod
    def _of_loaded(
        cls, loaded: Loaded, numerics: Literal["compatibility", "raw"], bos: Literal["auto", "prepend", "none"]
    ) -> HookedTransformer:
        """Put a bridge round a Hugging Face model (in place), and hold it to what the model said before."""
        architecture = type(loaded.model).__name__
        with told(f"{loaded.name} is a {architecture}, which cannot be run on token ids alone"):
            expected = reference(loaded.model)
        bridge = _bridge(loaded)
        # The bridge would reload the tokenizer from the hub if it were handed one at boot; a first assignment does not.
        bridge.tokenizer = loaded.tokenizer
        with told(f"{loaded.name} is a {architecture}, which TransformerLens cannot put into {numerics} numerics"):
            with in_one_dtype(loaded.dtype), warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("default")
                unfolded = Unfolded(bridge)
                bridge.enable_compatibility_mode(disable_warnings=True, no_processing=numerics == "raw")
        for warning in said:
            log.warning("TransformerLens says of %s: %s", loaded.name, warning.message)
        bridge.original_model.requires_grad_(False)  # folding makes new parameters
        model = cls(
            bridge,
            tokenizer=loaded.tokenizer,
            name=loaded.name,
            weights_sha256=loaded.weights_sha256,
            numerics=numerics,
            bos=bos,
        )
        check_reference(model, expected)
        with in_one_dtype(loaded.dtype):
            model.folded_values = unfolded.taken_out(model.cfg.n_kv_heads)
        return model

    @classmethod
    def from_bridge(
        cls, bridge: Any, *, name: str | None = None, bos: Literal["auto", "prepend", "none"] = "auto"
    ) -> HookedTransformer:
        """Wrap a ``TransformerBridge`` that you booted yourself, with the numerics you gave it. It is not modified.

        (But for weights that were made in ``torch.inference_mode``: they are replaced by equal ones, since such tensors
        can never enter a gradient.)

        The fingerprint is that of the bridge's weights as they are now, so it differs from the fingerprint of the
        same model loaded by ``from_pretrained`` if weights were folded.
        """
        from interp.model.load import weights_sha256

        if not hasattr(bridge, "run_with_hooks") or not hasattr(bridge, "blocks"):
            raise InterpError(
                f"from_bridge needs a TransformerLens 4 TransformerBridge with blocks, got {type(bridge).__name__}."
            )
        _leave_inference_mode(bridge)
        processed = bool(getattr(bridge, "_weights_processed", False))
        return cls(
            bridge,
            tokenizer=bridge.tokenizer,
            name=name or str(getattr(bridge.cfg, "model_name", "bridge")),
            weights_sha256=weights_sha256(bridge.original_model),
            numerics="compatibility" if processed else "raw",
            bos=bos,
        )

    # ---- what it is ----

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        return self._weight.dtype

    @property
    def _weight(self) -> Tensor:
        weight: Tensor = next(iter(self.bridge.original_model.parameters()))
        return weight

    @property
    def bos_token_id(self) -> int | None:
        """Id of the beginning-of-sequence token, or None."""
        return None if self.tokenizer is None else self.tokenizer.bos_token_id

    def has_site(self, name: str) -> bool:
        """Whether the model has the site (rotary models have no ``pos_embed``, others no ``rot_q``)."""
        return sites.site(name).name in self.sites

    def dims(self, name: str) -> tuple[str, ...]:
        """Named axes of a site in this model, after ``prompt`` and ``layer``."""
        table = sites.site(name).dims
        if self.cfg.grouped_query:
            return table
        return tuple("head" if dim == "kv_head" else dim for dim in table)

    def n_heads_of(self, name: str) -> int:
        """Number of heads at a head site: ``n_kv_heads`` for keys and values, ``n_heads`` otherwise."""
        return self.cfg.n_kv_heads if sites.site(name).unit == "kv_head" else self.cfg.n_heads

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
            "numerics": self.numerics,
            "dtype": str(self.dtype).removeprefix("torch."),
            "matmul_precision": torch.get_float32_matmul_precision(),
            "device": str(self.device),
            "bos": self.bos_policy,
        }

    def __repr__(self) -> str:
        """One line: name, architecture, sizes, device."""
        c = self.cfg
        return (
            f"HookedTransformer({self.name!r}, {c.architecture}, {c.n_layers} layers, {c.n_heads} heads"
            f"{f' ({c.n_kv_heads} kv)' if c.grouped_query else ''}, d_model {c.d_model}, vocab {c.vocab}, "
            f"{self.device})"
        )

    # ---- weights ----

    def W_O(self, layer: int) -> Float[Tensor, "head d_head d_model"]:
        """Output weights of a layer's heads."""
        weight: Tensor = self.bridge.blocks[layer].attn.W_O
        return weight.detach().reshape(self.cfg.n_heads, self.cfg.d_head, self.cfg.d_model)

    def b_O(self, layer: int) -> Float[Tensor, " d_model"]:
        """Output bias of a layer's attention; zeros where the architecture has none."""
        bias: Tensor | None = self.bridge.blocks[layer].attn.b_O
        return torch.zeros(self.cfg.d_model, device=self.device, dtype=self.dtype) if bias is None else bias.detach()

    def W_U(self) -> Float[Tensor, "d_model vocab"]:
        """Unembedding weights, in the numerics in force."""
        weight: Tensor = self.bridge.unembed.W_U
        return weight.detach()

    def blocks(self) -> Blocks:
        """The model's arithmetic piece by piece, on the bridge's weights as they are now.

        Raises:
            UnsupportedModelError: an architecture that ``interp.model.families`` does not know, or one whose numbers
                differed from the bridge's at load; ``no_blocks`` says which.
        """
        if self.no_blocks:
            raise UnsupportedModelError(self.no_blocks)
        return blocks_of(self)

    # ---- running ----

    def forward(
        self,
        ids: Int[Tensor, "prompt position"],
        *,
        hooks: Iterable[Hook] = (),
        logits_at: Int[Tensor, "prompt ..."] | None = None,
        stop_at_layer: int | None = None,
        gradients: bool = False,
    ) -> Tensor:
        """Run the model, with hooks that are gone afterwards whatever happens.

        Args:
            ids: token ids, padded on the right (padding is never seen by the tokens before it).
            hooks: pairs of TransformerLens hook name and function; a function gets the activation and returns its
                replacement, or None to leave it. Functions on one name run in the order given.
            logits_at: one position per prompt, or several [prompt, answer]; only those are unembedded.
            stop_at_layer: do not run this layer nor those after it; the return value is then the residual stream.
            gradients: keep the autograd graph.

        Returns:
            Logits [prompt, position, vocab]; with ``logits_at`` [prompt, vocab] or [prompt, answer, vocab]; with
            ``stop_at_layer`` the residual stream [prompt, position, d_model].
        """
        ids = ids.to(self.device)
        if ids.shape[1] > self.cfg.n_ctx:
            raise InterpError(
                f"The prompt has {ids.shape[1]} tokens, {self.name} reads at most {self.cfg.n_ctx}. Shorten it."
            )
        wrapped = [(name, _wrap(function)) for name, function in hooks]
        if logits_at is not None and stop_at_layer is None:
            positions = logits_at
            wrapped.append(("unembed.hook_in", _wrap(lambda stream: at_positions(stream, positions))))
        with self._running(), torch.enable_grad() if gradients else torch.inference_mode():
            out: Tensor = self.bridge.run_with_hooks(ids, fwd_hooks=wrapped, stop_at_layer=stop_at_layer)
        return out.squeeze(1) if logits_at is not None and logits_at.ndim == 1 and stop_at_layer is None else out

    def block_call(self, length: int) -> BlockCall:
        """What each block is called with for prompts of ``length`` tokens (recorded once per length)."""
        if self._per_row is None:
            few = min(2, self.cfg.n_ctx)
            self._per_row = per_row(self._block_arguments(1, few), self._block_arguments(2, few))
        if length not in self._block_calls:
            args, kwargs = zip(*self._block_arguments(1, length), strict=True)
            self._block_calls[length] = BlockCall(length, args, kwargs, self._per_row)
        return self._block_calls[length]

    def _block_arguments(self, n_rows: int, length: int) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        """What each block is called with, positional and named, besides the stream."""
        found: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = {}

        def record(layer: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            named = {key: _without_cache(value) for key, value in kwargs.items() if key != "hidden_states"}
            found[layer] = tuple(_without_cache(value) for value in args[1:]), named

        handles = [
            block.register_forward_pre_hook(lambda _, a, k, layer=layer: record(layer, a, k), with_kwargs=True)
            for layer, block in enumerate(self.bridge.blocks)
        ]
        try:
            self.forward(torch.zeros((n_rows, length), dtype=torch.long))
        finally:
            for handle in handles:
                handle.remove()
        return [found[layer] for layer in range(self.cfg.n_layers)]

    def resume(
        self,
        resid_pre: Float[Tensor, "row position d_model"],
        layer: int,
        *,
        logits_at: Int[Tensor, "row ..."],
        hooks: Iterable[Hook] = (),
    ) -> Float[Tensor, "row *answer vocab"]:
        """Run blocks ``layer`` and later from a given residual stream, and unembed the asked positions of each row.

        Exactly what ``forward`` computes from there on (checked at load; ``checks["resume"]`` is the difference seen).
        """
        call = self.block_call(resid_pre.shape[1])
        stream = resid_pre
        with self._running(), torch.inference_mode(), self._hooked(hooks):
            for index in range(layer, self.cfg.n_layers):
                args, kwargs = call.of(index, len(stream))
                out = self.bridge.blocks[index](stream, *args, **kwargs)
                stream = out[0] if isinstance(out, tuple | list) else out  # a list: GPT-1
            logits = self._unembed(at_positions(stream, logits_at))
        return logits.squeeze(1) if logits_at.ndim == 1 else logits

    def unembed(self, stream: Float[Tensor, "... d_model"]) -> Float[Tensor, "... vocab"]:
        """The logits of a residual stream as if no block came after it, on the model's device."""
        with self._running(), torch.inference_mode():
            return self._unembed(stream.to(self.device, self.dtype))

    def _unembed(self, stream: Float[Tensor, "... d_model"]) -> Float[Tensor, "... vocab"]:
        """Everything after the last block.

        That is the final norm and projection where there are any, and what an architecture does to its logits (a soft
        cap, a scale).
        """
        for name in ("ln_final", "project_out", "prediction_head"):
            part = getattr(self.bridge, name, None)
            stream = stream if part is None else part(stream)
        logits: Tensor = self.bridge.adapter.apply_output_logits_transform(self.bridge.unembed(stream))
        return logits

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        """Every run of the bridge: in evaluation mode and in one data type."""
        with in_evaluation(self._modules), in_one_dtype(self.dtype):
            yield

    @contextlib.contextmanager
    def _hooked(self, hooks: Iterable[Hook]) -> Iterator[None]:
        wrapped = [(name, _wrap(function)) for name, function in hooks]
        if not wrapped:
            yield
            return
        with self.bridge.hooks(fwd_hooks=wrapped):
            yield

    def _move_checked(self, place: torch.device) -> None:
        """Move to a device whose arithmetic is not trusted, and refuse it if it disagrees with the CPU."""
        ids = torch.arange(8).reshape(1, 8) % self.cfg.vocab
        expected = self.forward(ids)
        self.bridge.to(place)
        self._block_calls.clear()
        difference = float((self.forward(ids).to("cpu") - expected).abs().max())
        scale = float(expected.abs().max())
        if not difference <= 1e-3 * max(scale, 1.0):
            raise InterpError(
                f"Device '{place}' gives other numbers than the CPU (logits differ by {difference:.3g}). "
                "Use device='cpu'."
            )
        self.checks["device_difference"] = difference


def resolve_device(device: str) -> torch.device:
    """``"auto"`` to CUDA where there is one, else CPU; anything else is checked to exist.

    Raises:
        InterpError: an unknown device or one that this machine lacks.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise InterpError(f"Unknown device '{device}'. Use 'auto', 'cpu', 'cuda' or 'mps'.") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise InterpError(f"Device '{device}' was asked for, but torch sees no CUDA GPU. Use device='cpu'.")
    if place.type == "mps" and not torch.backends.mps.is_available():
        raise InterpError("Device 'mps' was asked for, but torch sees no Apple GPU. Use device='cpu'.")
    if place.type not in ("cpu", "cuda", "mps"):
        raise InterpError(f"Device '{device}' is not supported. Use 'auto', 'cpu', 'cuda' or 'mps'.")
    return place


def _wrap(function: HookFunction) -> Callable[..., Tensor | None]:
    """TransformerLens calls a hook with the activation and ``hook=``; ours take the activation alone."""

    def call(tensor: Tensor, hook: Any) -> Tensor | None:
        return function(tensor)

    return call


def _without_cache(value: Any) -> Any:
    """A key-value cache would carry one run into the next."""
    return None if hasattr(value, "get_seq_length") else value


def _bridge(loaded: Loaded) -> Any:
    """Build a bridge round a loaded Hugging Face model (the model is wrapped in place)."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    model, architecture = loaded.model, type(loaded.model).__name__
    with told(f"{loaded.name} is a {architecture}, which this TransformerLens does not bridge"):
        with in_one_dtype(loaded.dtype):
            bridge = build_bridge_from_module(model, architecture, hf_config=model.config, model_name=loaded.name)
    bridge.eval()
    return bridge


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


def _tried_raw(read: Callable[[Literal["raw"]], object]) -> str:
    """What came of loading a refused model with its weights as they are."""
    try:
        read("raw")
    except InterpError:
        return "It cannot be used with numerics='raw' either."
    return "With numerics='raw' it loads and passes the checks."


def _config(bridge: Any) -> ModelConfig:
    c = bridge.cfg
    return ModelConfig(
        architecture=str(c.architecture),
        n_layers=int(c.n_layers),
        n_heads=int(c.n_heads),
        n_kv_heads=int(c.n_key_value_heads or c.n_heads),
        d_model=int(c.d_model),
        d_head=int(c.d_head),
        d_mlp=int(c.d_mlp or 4 * c.d_model),
        n_ctx=int(c.n_ctx),
        vocab=int(c.d_vocab),
        vocab_out=int(c.d_vocab_out if c.d_vocab_out and c.d_vocab_out > 0 else c.d_vocab),
        length_boundary=_length_boundary(getattr(bridge.original_model, "config", None)),
    )


_ONE_ROTATION = ("default", "linear", "yarn", "llama3", "proportional", "ntk_alpha", "mrope")
"""Rotary scalings that turn a token at a position by one angle, however long its prompt is."""


def _length_boundary(hf_config: Any) -> int | None:
    """Where rotary angles begin to depend on the longest prompt of a batch: 0 if everywhere, None if nowhere.

    Dynamic scaling starts above the context that the model was trained with, which is all that may be read here.
    """
    stated = getattr(hf_config, "rope_parameters", None) or {}
    found = []
    for scaling in (stated, *(part for part in stated.values() if isinstance(part, dict))):  # one per kind of layer
        kind = scaling.get("rope_type")
        if kind == "longrope":
            found.append(int(scaling["original_max_position_embeddings"]))
        elif kind not in (None, "dynamic", *_ONE_ROTATION):
            found.append(0)
    return min(found, default=None)
