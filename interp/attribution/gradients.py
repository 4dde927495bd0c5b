"""Gradients of a metric with respect to activations, one per prompt, through weights that are never touched.

A gradient is taken with respect to a tensor of zeros that is added to the activation, so that neither the model's
parameters nor their ``requires_grad`` take part, and the graph is gone with the ``Tape`` that holds it.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp import run
from interp.errors import InterpError
from interp.model.arithmetic import Blocks, at_positions
from interp.prompts.tokens import Prompts
from interp.sweeps import Reading

if TYPE_CHECKING:
    from interp.model import HookedTransformer

log = logging.getLogger(__name__)

_P = ParamSpec("_P")
_T = TypeVar("_T")

Edit: TypeAlias = Callable[[Tensor], Tensor]
Place: TypeAlias = tuple[str, int]
"""A site and a layer."""

GRAPH_BYTES = 256 * 2**20
"""What the graph of one batch may hold, roughly."""


def differentiating(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """A decorator: gradients are on within the function, and the caller's mode is as before when it returns.

    ``torch.set_grad_enabled(False)``, ``torch.no_grad()`` and ``torch.inference_mode()`` are common around
    interpretability code; a gradient that was asked for is wanted all the same.
    """

    @functools.wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        with torch.inference_mode(False), torch.enable_grad():
            return function(*args, **kwargs)

    return run


def at_value(value: Tensor) -> Edit:
    """An edit that puts in ``value``, whatever the activation was."""
    return lambda _: value


@dataclass(frozen=True)
class Tape:
    """One forward pass of a batch whose metric can be differentiated, more than once.

    Attributes:
        values: the watched activations, as they were used.
        metric: [prompt] the metric.
    """

    values: Mapping[Place, Tensor]
    metric: Float[Tensor, " prompt"]
    _zeros: Mapping[Place, Tensor]
    _dropped: list[int] = field(default_factory=list)

    def gradient(self, *, drop: int | None = None) -> dict[Place, Tensor]:
        """The gradient of each prompt's metric at each watched place, each of its activation's shape.

        Args:
            drop: a layer through whose attention and MLP no gradient flows (the tape must be ``droppable``).
        """
        self._dropped[:] = [] if drop is None else [drop]
        if not self.metric.requires_grad:  # what is read comes before every watched place
            return {place: torch.zeros_like(zeros) for place, zeros in self._zeros.items()}
        # Prompts do not see one another, so the gradient of the sum holds each prompt's own.
        found = torch.autograd.grad(
            self.metric.sum(), list(self._zeros.values()), retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return dict(zip(self._zeros, found, strict=True))


@dataclass(frozen=True)
class Differentiable:
    """A model through which gradients are taken: its pieces where they are written, else the bridge and its hooks."""

    model: HookedTransformer
    blocks: Blocks | None
    why_no_blocks: str = ""

    @classmethod
    def of(cls, model: HookedTransformer, *sites: str) -> Differentiable:
        """In float32 or better: the pieces of a half-precision model are copied as float32.

        Args:
            model: the model.
            sites: where gradients will be wanted, or something read; through hooks, if the pieces do not show one.

        Raises:
            InterpError: a half-precision model of an architecture whose pieces are not written.
        """
        blocks, reason = model.own_blocks(sites)
        if blocks is None:
            if model.dtype.itemsize < 4:
                raise InterpError(f"Gradients of {model.name} need float32 ({reason}). Load it with dtype='float32'.")
            log.info("Gradients of %s go through the bridge's hooks: %s.", model.name, reason)
            return cls(model, None, reason)
        if model.dtype.itemsize < 4:
            blocks = mapped(blocks, Tensor.float)
        return cls(model, blocks)

    def pieces(self, what: str) -> Blocks:
        """The pieces of the model.

        Raises:
            InterpError: there are none for this architecture, or for what is asked of it; says what works instead.
        """
        if self.blocks is None:
            raise InterpError(
                f"{what} needs the model's own weights, and {self.why_no_blocks}. "
                "attribution_patching with method='gradient' or 'integrated' works on every model."
            )
        return self.blocks

    def read(
        self, ids: Int[Tensor, "prompt position"], reading: Reading, edits: Mapping[Place, Edit]
    ) -> Float[Tensor, "prompt answer width"]:
        """What a reading looks at in a run under ``edits``, in whatever gradient mode is in force.

        These are logits, or an activation after its own edit; nothing is run that comes after the block that has it.
        """
        place, at = reading.readout.place, reading.positions
        if place is None:
            return self._run(ids, edits, logits_at=at)
        kept: list[Tensor] = []
        if not place.is_stream:
            self._run(ids, edits, stop=place.n_blocks, read=((place.site, place.layer), kept.append))
            return place.of(at_positions(kept[0], at))
        stream = self._run(ids, edits, stop=place.n_blocks)
        edit = edits.get(("resid_pre", place.n_blocks))  # of the same stream, in the block that is not run
        return place.of(at_positions(stream if edit is None else edit(stream), at))

    def stream(
        self, ids: Int[Tensor, "prompt position"], edits: Mapping[Place, Edit]
    ) -> Float[Tensor, "prompt position d_model"]:
        """The residual stream after the last layer of a run under ``edits``, in whatever gradient mode is in force."""
        return self._run(ids, edits, stop=self.model.cfg.n_layers)

    def unembed(self, stream: Float[Tensor, "... d_model"]) -> Float[Tensor, "... vocab"]:
        """The logits of a residual stream, in whatever gradient mode is in force."""
        if self.blocks is None:
            return self.model.unembed(stream, gradients=torch.is_grad_enabled())
        return self.blocks.logits(stream)

    @torch.no_grad()
    def activations(self, ids: Int[Tensor, "prompt position"], places: Sequence[Place]) -> dict[Place, Tensor]:
        """The activations of a plain run, which stops after the last of them."""
        kept: dict[Place, Tensor] = {}

        def keeper(place: Place) -> Edit:
            def keep(value: Tensor) -> Tensor:
                kept[place] = value.clone()
                return value

            return keep

        self._run(ids, {place: keeper(place) for place in places}, stop=1 + max(layer for _, layer in places))
        # Tensors made in inference mode cannot enter a graph; their copies can.
        return {place: value.clone() for place, value in kept.items()}

    def _run(
        self,
        ids: Int[Tensor, "prompt position"],
        edits: Mapping[Place, Edit],
        *,
        logits_at: Int[Tensor, "prompt answer"] | None = None,
        stop: int | None = None,
        read: tuple[Place, Callable[[Tensor], None]] | None = None,
    ) -> Tensor:
        """A run under ``edits``: logits at some positions, or the residual stream before block ``stop``.

        ``read`` is a place, and what is given its activation after its edit.
        """
        if self.blocks is None:
            return self._run_bridge(ids, edits, logits_at, stop, read)

        def tap(site: str, layer: int, value: Tensor) -> Tensor:
            edit = edits.get((site, layer))
            value = value if edit is None else edit(value)
            if read is not None and (site, layer) == read[0]:
                read[1](value)
            return value

        within = () if read is None else read[0][:1]
        stream = self.blocks.forward(ids.to(self.model.device), tap=tap, within=within, stop_at_layer=stop)
        return stream if logits_at is None else self.blocks.logits(at_positions(stream, logits_at))

    def _run_bridge(
        self,
        ids: Int[Tensor, "prompt position"],
        edits: Mapping[Place, Edit],
        logits_at: Int[Tensor, "prompt answer"] | None,
        stop: int | None,
        read: tuple[Place, Callable[[Tensor], None]] | None,
    ) -> Tensor:
        model, last = self.model, self.model.cfg.n_layers - 1
        # resid_mid is edited through attn_out, so what is done to attn_out itself must come first.
        ordered = sorted(edits.items(), key=lambda item: item[0][0] == "resid_mid")
        hooks = [hook for (site, layer), edit in ordered for hook in run.edit_hooks(model, site, layer, edit)]
        if read is not None:
            (site, layer), keep = read
            hooks.append(run.read_hook(model, site, layer, keep))
        final: list[Tensor] = []
        if stop == model.cfg.n_layers:  # before a block that there is not
            hooks.append(run.read_hook(model, "resid_post", last, final.append))
            stop, logits_at = None, torch.zeros(len(ids), 1, dtype=torch.long)
        out = model.forward(
            ids, hooks=hooks, logits_at=logits_at, stop_at_layer=stop, gradients=torch.is_grad_enabled()
        )
        return final[0] if final else out

    def record(
        self,
        ids: Int[Tensor, "prompt position"],
        reading: Reading,
        places: Sequence[Place],
        *,
        kept: Sequence[Place] = (),
        edits: Mapping[Place, Edit] | None = None,
        droppable: bool = False,
    ) -> Tape:
        """Run a batch and keep what is needed to differentiate its metric at ``places``.

        Args:
            ids: token ids.
            reading: of the same prompts.
            places: where gradients will be wanted.
            kept: further places whose values, but not gradients, will be.
            edits: what to change during the run; a place is watched after its edit.
            droppable: let ``Tape.gradient`` drop layers.
        """
        values: dict[Place, Tensor] = {}
        zeros: dict[Place, Tensor] = {}
        dropped: list[int] = []

        def watch(place: Place, edit: Edit | None) -> Edit:
            def add_zeros(value: Tensor) -> Tensor:
                value = value if edit is None else edit(value)
                values[place] = value.detach()
                if place not in differentiated:
                    return value
                zeros[place] = torch.zeros_like(value, requires_grad=True)
                return value + zeros[place]

            return add_zeros

        differentiated = frozenset(places)
        chain = dict(edits or {})
        chain |= {place: watch(place, chain.get(place)) for place in dict.fromkeys([*places, *kept])}
        if droppable:
            for layer in range(self.model.cfg.n_layers):
                for site in filter(self.model.has_site, ("attn_out", "mlp_out")):
                    chain[site, layer] = _droppable(layer, dropped, chain.get((site, layer)))
        with torch.enable_grad():
            metric = reading(self.read(ids, reading, chain))
        return Tape(values, metric, zeros, dropped)

    def batches(self, prompts: Prompts, *, more: int = 0) -> Iterator[np.ndarray]:
        """Row indices in batches whose graphs stay near ``GRAPH_BYTES``.

        Args:
            prompts: what is to be run.
            more: numbers held per prompt besides the graph.
        """
        cfg, length = self.model.cfg, prompts.ids.shape[1]
        per_layer = length * (12 * cfg.d_model + 4 * cfg.d_mlp + 5 * cfg.n_heads * length)
        size = int(max(1, GRAPH_BYTES // (4 * (cfg.n_layers * per_layer + more))))
        return run.chunks_of(len(prompts), size)


def _droppable(layer: int, dropped: list[int], edit: Edit | None) -> Edit:
    """An edit that changes nothing but the gradient: none comes through while ``dropped`` holds ``layer``."""

    def block(gradient: Tensor) -> Tensor:
        return torch.zeros_like(gradient) if layer in dropped else gradient

    def pass_on(value: Tensor) -> Tensor:
        value = value if edit is None else edit(value)
        if value.requires_grad:
            value.register_hook(block)  # type: ignore[no-untyped-call]
        return value

    return pass_on


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nest of frozen dataclasses with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        return tuple(mapped(item, change) for item in value)
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    parts = {entry.name: mapped(getattr(value, entry.name), change) for entry in dataclasses.fields(value)}
    return dataclasses.replace(value, **parts)
