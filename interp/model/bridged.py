"""A TransformerLens bridge that can be run: whole, with hooks, or from any block on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp import sites
from interp.errors import InterpError
from interp.model.arithmetic import at_positions
from interp.model.config import ModelConfig
from interp.model.running import BlockCall, Path, in_evaluation, in_one_dtype, per_row

HookFunction: TypeAlias = Callable[[Tensor], Tensor | None]
Hook: TypeAlias = tuple[str, HookFunction]


class BridgedModel:
    """A bridge of which only the sizes are known: it can be run, and its weights can be read.

    The checks at load take one of these, and so do the families' readers.

    Attributes:
        bridge: the TransformerLens bridge.
        name: what the model was loaded as.
        cfg: sizes.
    """

    def __init__(self, bridge: Any, *, name: str, cfg: ModelConfig) -> None:
        """Take a bridge as it is; it is not modified."""
        self.bridge = bridge
        self.name = name
        self.cfg = cfg
        self._block_calls: dict[int, BlockCall] = {}
        self._per_row: frozenset[Path] | None = None
        self._modules = tuple({*bridge.modules(), *bridge.original_model.modules()})

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

    def to(self, device: torch.device) -> None:
        """Move the weights, in place."""
        self.bridge.to(device)
        self._block_calls.clear()

    def n_heads_of(self, name: str) -> int:
        """Number of heads at a head site: ``n_kv_heads`` for keys and values, ``n_heads`` otherwise."""
        return self.cfg.n_kv_heads if sites.site(name).unit == "kv_head" else self.cfg.n_heads

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
        """Run the model with hooks, which are removed afterwards even if the run fails.

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
            ids = torch.zeros((n_rows, length), dtype=torch.long)
            self.forward(ids, logits_at=ids[:, 0])  # unembedding every position would take as long as many blocks
        finally:
            for handle in handles:
                handle.remove()
        return [found[layer] for layer in range(self.cfg.n_layers)]

    def resume(
        self,
        resid_pre: Float[Tensor, "row position d_model"],
        layer: int,
        *,
        logits_at: Int[Tensor, "row ..."] | None = None,
        stop_at_layer: int | None = None,
        hooks: Iterable[Hook] = (),
    ) -> Tensor:
        """Run blocks ``layer`` and later from a given residual stream, and unembed the asked positions of each row.

        Exactly what ``forward`` computes from there on (checked at load; ``checks["resume"]`` is the difference seen).

        Args:
            resid_pre: the stream before block ``layer``.
            layer: the first block that is run.
            logits_at: as in ``forward``.
            stop_at_layer: as in ``forward``.
            hooks: as in ``forward``.

        Returns:
            As ``forward``.
        """
        call = self.block_call(resid_pre.shape[1])
        stream = resid_pre
        with self._running(), torch.inference_mode(), self._hooked(hooks):
            for index in range(layer, self.cfg.n_layers if stop_at_layer is None else stop_at_layer):
                args, kwargs = call.of(index, len(stream))
                out = self.bridge.blocks[index](stream, *args, **kwargs)
                stream = out[0] if isinstance(out, tuple | list) else out  # a list: GPT-1
            if stop_at_layer is not None:
                return stream
            logits = self._unembed(stream if logits_at is None else at_positions(stream, logits_at))
        return logits.squeeze(1) if logits_at is not None and logits_at.ndim == 1 else logits

    def unembed(self, stream: Float[Tensor, "... d_model"], *, gradients: bool = False) -> Float[Tensor, "... vocab"]:
        """The logits of a residual stream as if no block came after it, on the model's device.

        Args:
            stream: the stream.
            gradients: keep the autograd graph.
        """
        with self._running(), torch.enable_grad() if gradients else torch.inference_mode():
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


def _wrap(function: HookFunction) -> Callable[..., Tensor | None]:
    """TransformerLens calls a hook with the activation and ``hook=``; ours take the activation alone."""

    def call(tensor: Tensor, hook: Any) -> Tensor | None:
        return function(tensor)

    return call


def _without_cache(value: Any) -> Any:
    """A key-value cache would carry one run into the next."""
    return None if hasattr(value, "get_seq_length") else value
