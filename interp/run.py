"""Running the model: plain, watched (``capture``), or changed (``interventions``)."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
import xarray as xr
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import _accessor, ablation, sites
from interp._arguments import check_model, check_prompts
from interp.errors import InterpError
from interp.interventions import INTERVENTIONS, Ablate, Intervention
from interp.prompts import PromptPairs, tokens
from interp.prompts.places import At, places_of, positions_of
from interp.prompts.places import token_mask as token_mask
from interp.prompts.tokens import Prompts

if TYPE_CHECKING:
    from interp.model import Hook, HookedTransformer

log = logging.getLogger(__name__)

Texts: TypeAlias = "str | Sequence[str] | Sequence[Sequence[int]] | np.ndarray | Tensor | Prompts"

_Edit: TypeAlias = Callable[[Tensor], Tensor]

MEMORY_SHARE = 0.5
"""Share of free memory that one captured dataset may take before it is refused."""
ROW_BYTES = 16 * 2**20
"""Bytes of activations that one batch may hold on a CPU, roughly. A larger batch leaves its caches, and is slower."""
ACCELERATOR_ROW_BYTES = 1024 * 2**20
"""The same on an accelerator, where large batches are faster."""


# ---- inputs ----


def as_prompts(model: HookedTransformer, inputs: Texts) -> Prompts:
    """Texts, token ids or ``Prompts`` as ``Prompts`` that this model can read.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> as_prompts(model, "The cat").tokens
    (('<|endoftext|>', 'The', ' cat'),)
    """
    check_model(model, inputs)
    if isinstance(inputs, Prompts | PromptPairs):
        check_prompts(model, inputs)
        return inputs
    if isinstance(inputs, str) or (isinstance(inputs, list | tuple) and inputs and isinstance(inputs[0], str)):
        return tokens.encode(model, inputs)
    prompts = Prompts.from_ids(inputs, tokenizer=model.tokenizer)
    check_prompts(model, prompts)
    return prompts


def row_bytes(model: HookedTransformer) -> int:
    """Bytes of activations that one batch of this model may hold.

    >>> from interp import HookedTransformer
    >>> row_bytes(HookedTransformer.from_pretrained("mini")) >= ROW_BYTES
    True
    """
    return ROW_BYTES if model.device.type == "cpu" else ACCELERATOR_ROW_BYTES


def rows_per_batch(model: HookedTransformer, length: int) -> int:
    """How many prompts of ``length`` tokens keep a batch's activations near ``row_bytes``; at least one.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> rows_per_batch(model, 10) > rows_per_batch(model, 100) >= 1
    True
    """
    cfg = model.cfg
    per_row = 4 * length * (8 * cfg.d_model + 2 * cfg.d_mlp + 3 * cfg.n_heads * length)
    return int(max(1, row_bytes(model) // per_row))


def batches(model: HookedTransformer, prompts: Prompts) -> Iterator[np.ndarray]:
    """Row indices in batches whose activations stay near ``row_bytes``.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> [rows.tolist() for rows in batches(model, Prompts.from_ids([[1, 2], [3, 4]]))]
    [[0, 1]]
    """
    return chunks_of(len(prompts), rows_per_batch(model, prompts.ids.shape[1]))


def chunks_of(n: int, size: int) -> Iterator[Int[np.ndarray, " prompt"]]:
    """The numbers of ``n`` prompts, ``size`` at a time.

    >>> [rows.tolist() for rows in chunks_of(5, 2)]
    [[0, 1], [2, 3], [4]]
    """
    for start in range(0, n, size):
        yield np.arange(start, min(start + size, n))


def ids_of(prompts: Prompts) -> Int[Tensor, "prompt position"]:
    """Token ids as a tensor, padded on the right.

    >>> ids_of(Prompts.from_ids([[5, 6, 7], [8, 9, 7]])).tolist()
    [[5, 6, 7], [8, 9, 7]]
    """
    return torch.tensor(prompts.ids, dtype=torch.long)


# ---- reading ----


def capture(
    model: HookedTransformer,
    inputs: Texts,
    sites: str | Sequence[str],
    at: At = None,
    *,
    layers: int | Sequence[int] | None = None,
    interventions: Sequence[Intervention] = (),
    to: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | bool | None = None,
) -> xr.Dataset:
    """Read activations, keeping only what is asked for.

    The pass stops after the last layer needed, and of each activation only the asked tokens are stored.

    Args:
        model: the model.
        inputs: texts, token ids, or ``Prompts`` (which have roles).
        sites: site names.
        at: roles and/or positions. With roles the axis is ``role`` and a role of several tokens is read at its last
            one (the only one that has seen the whole word); with positions it is ``position``. None reads every token;
            padding is NaN.
        layers: layer indices; None is all.
        interventions: what to change during the run.
        to: a directory to write to, some prompts at a time, so that the result need not fit in memory. What an earlier
            call into it has finished is kept (``interp.captures``).
        progress: with ``to``: True for a bar, or called with prompts done and prompts in all.

    Returns:
        One float32 (float64 for a float64 model) variable per site with dims (prompt, layer, position | role, ...) as
        in ``model.dims``; ``pattern`` and ``scores`` have (prompt, layer, head, dest_position | role, src_position).
        Scores of masked (future) tokens are -inf. With ``to``, its arrays lie on the disk and are mapped into memory.

    Raises:
        InterpError: unknown site, role, position or layer, or a result that would not fit in memory; with ``to``, what
            ``interp.captures`` refuses.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> acts = capture(model, ["The cat is black."], sites=["q", "pattern"])
    >>> acts["q"].dims, acts["pattern"].dims
    (('prompt', 'layer', 'position', 'head', 'd_head'), ('prompt', 'layer', 'head', 'dest_position', 'src_position'))
    >>> bool((abs(acts["pattern"].sum("src_position") - 1) < 1e-5).all())  # a row of attention sums to 1
    True
    """
    prompts = as_prompts(model, inputs)
    if to is not None:
        from interp import captures

        if interventions:
            raise InterpError(
                "A capture that goes to a directory is of unchanged runs. Leave interventions or to= out."
            )
        return captures.write(model, prompts, sites, at, layers=layers, to=to, progress=progress).dataset()
    if progress is not None:
        raise InterpError("progress= tells of a capture that goes to a directory. Give to=, or leave it out.")
    reading = Reading.of(model, prompts, sites, at, layers)
    _check_memory(len(prompts) * reading.row_bytes, reading.wanted)
    arrays = reading.empty(len(prompts))
    prepared = _prepared(model, prompts, interventions)
    pieces, work = list(batches(model, prompts)), Reads(prompts, reading, prepared)
    takes = row_bytes(model) + max(map(len, pieces)) * reading.row_bytes
    for rows, found in model.engine.map(model, work, pieces, bytes_each=takes):
        for name, values in found.items():
            arrays[name][rows] = values
    return reading.labelled(arrays)


@dataclass(frozen=True)
class Reading:
    """What a capture reads of each prompt, and how it is laid out.

    Attributes:
        wanted: the sites that are read.
        layers: of the sites that there are one of per layer.
        axis: ``role`` or ``position``.
        labels: of the places along that axis.
        at: as ``capture``.
        length: tokens of the longest prompt.
        dims: site -> names of the axes.
        shapes: site -> their lengths, but for the first, ``prompt``.
        dtype: of the numbers.
        coords: labels of the axes, but for ``prompt``.
        attrs: whose activations, and of which prompts.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> reading = Reading.of(model, as_prompts(model, ["The cat", "A dog"]), "z", at=[-1], layers=[0, 3])
    >>> reading.dims["z"], reading.shapes["z"], reading.row_bytes
    (('prompt', 'layer', 'position', 'head', 'd_head'), (2, 1, 4, 32), 1024)
    """

    wanted: tuple[sites.Site, ...]
    layers: tuple[int, ...]
    axis: str
    labels: tuple[Any, ...]
    at: At
    length: int
    dims: Mapping[str, tuple[str, ...]]
    shapes: Mapping[str, tuple[int, ...]]
    dtype: np.dtype[Any]
    coords: Mapping[str, Any]
    attrs: Mapping[str, str | int]

    @classmethod
    def of(cls, model: HookedTransformer, prompts: Prompts, names: str | Sequence[str], at: At, layers: Any) -> Reading:
        """What is asked for, held to the model and the prompts.

        Raises:
            InterpError: unknown site, role, position or layer.
        """
        wanted = tuple(model.check_site(site.name) for site in sites.check_sites(names))
        chosen = _check_layers(layers, model.cfg.n_layers)
        axis, _, labels = _read_positions(prompts, at)
        length = prompts.ids.shape[1]
        dims, shapes = {}, {}
        for site in wanted:
            dims[site.name], shapes[site.name] = _layout(model, site.name, length, chosen, axis, len(labels))
        return cls(
            wanted=wanted,
            layers=chosen,
            axis=axis,
            labels=tuple(labels),
            at=at,
            length=length,
            dims=dims,
            shapes=shapes,
            dtype=np.dtype("float64" if model.dtype == torch.float64 else "float32"),
            coords=_coords(model, prompts, dims, chosen, axis, labels),
            attrs={**model.provenance(), "n_prompts": len(prompts), "tokens_sha256": prompts.sha256()},
        )

    @property
    def row_bytes(self) -> int:
        """Bytes of one prompt."""
        return sum(math.prod(shape) for shape in self.shapes.values()) * self.dtype.itemsize

    def empty(self, n: int) -> dict[str, np.ndarray]:
        """Arrays for ``n`` prompts, NaN throughout: what is not read stays so."""
        return {name: np.full((n, *shape), np.nan, self.dtype) for name, shape in self.shapes.items()}

    def read(
        self,
        model: HookedTransformer,
        prompts: Prompts,
        arrays: Mapping[str, np.ndarray],
        interventions: Sequence[Intervention] = (),
        rows: Int[np.ndarray, " prompt"] | None = None,
    ) -> None:
        """Run one batch and write what is read to the first rows of the arrays.

        Args:
            model: the model.
            prompts: the batch.
            arrays: site -> array, of which the first ``len(prompts)`` rows are written.
            interventions: what to change; ``rows`` says which of all their prompts the batch is.
            rows: see there.
        """
        here = np.arange(len(prompts))
        _, index, _ = _read_positions(prompts, self.at)
        missing = len(self.labels) - index.shape[1]  # where every token is read and these prompts are shorter
        index = np.pad(index, ((0, 0), (0, missing)), constant_values=-1)
        hooks = compile_interventions(model, prompts, interventions, rows=rows)
        for site in self.wanted:
            for slot, layer in enumerate(self.layers if site.per_layer else (0,)):
                target = arrays[site.name][:, slot] if site.per_layer else arrays[site.name]
                hooks.append(_reader(model, site.name, layer, target, here, index, prompts.lengths))
        stop = max(self.layers) + 1 if any(site.per_layer for site in self.wanted) else 1
        model.forward(ids_of(prompts), hooks=hooks, stop_at_layer=stop if stop < model.cfg.n_layers else None)

    def labelled(self, arrays: Mapping[str, np.ndarray]) -> xr.Dataset:
        """Arrays of all prompts as ``capture`` returns them."""
        return labelled(arrays, self.dims, self.coords, self.attrs)


def labelled(
    arrays: Mapping[str, np.ndarray],
    dims: Mapping[str, Sequence[str]],
    coords: Mapping[str, Any],
    attrs: Mapping[str, str | int],
) -> xr.Dataset:
    """Arrays by site as a dataset, with prompts numbered.

    >>> labelled({"z": np.zeros((2, 3))}, {"z": ("prompt", "layer")}, {"layer": [0, 1, 2]}, {})["z"].sizes["prompt"]
    2
    """
    data = {
        name: (tuple(dims[name]), array, {"units": "", "long_name": sites.site(name).description})
        for name, array in arrays.items()
    }
    numbered = np.arange(len(next(iter(arrays.values()))))
    return xr.Dataset(data, coords={"prompt": numbered, **coords}, attrs=dict(attrs))


def activations(
    model: HookedTransformer,
    prompts: Prompts,
    site: str,
    *,
    layers: Sequence[int] | None = None,
    interventions: Sequence[Intervention] = (),
) -> dict[int, Float[Tensor, "prompt ..."]]:
    """Whole activations per layer on the model's device, as ``Replace`` takes them; padding included.

    With the corrupted run's stream before layer 2, the clean run says the other colour:

    >>> from interp import HookedTransformer
    >>> from interp.interventions import Replace
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> clean, corrupted = (as_prompts(model, f"The cat is {color}. The cat is") for color in ("black", "white"))
    >>> values = activations(model, corrupted, "resid_pre", layers=[2])
    >>> patched = logits_at(model, clean, interventions=[Replace(site="resid_pre", layers=[2], values=values)])
    >>> model.tokenizer.decode(patched.argmax(dim=-1))
    ' white'
    """
    check_prompts(model, prompts)
    model.check_site(site)
    interventions = _prepared(model, prompts, interventions)
    found: dict[int, list[Tensor]] = {layer: [] for layer in _check_layers(layers, model.cfg.n_layers)}
    stop = max(found) + 1
    for rows in batches(model, prompts):
        part = prompts.select(rows)
        hooks = compile_interventions(model, part, interventions, rows=rows)
        for layer, kept in found.items():
            hooks.append(read_hook(model, site, layer, _appender(site, kept, prompts.ids.shape[1])))
        model.forward(ids_of(part), hooks=hooks, stop_at_layer=stop if stop < model.cfg.n_layers else None)
    return {layer: torch.cat(kept) for layer, kept in found.items()}


def logits_at(
    model: HookedTransformer,
    prompts: Prompts,
    positions: Int[np.ndarray, "prompt ..."] | None = None,
    *,
    interventions: Sequence[Intervention] = (),
) -> Float[Tensor, "prompt *answer vocab"]:
    """Logits (CPU, float32 or float64) at given positions of each prompt, by default the last token's.

    Raises:
        InterpError: logits that are not finite.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> logits = logits_at(model, as_prompts(model, "The cat is black. The cat is"))
    >>> model.tokenizer.decode(logits.argmax(dim=-1))
    ' black'
    """
    check_prompts(model, prompts)
    at = prompts.lengths - 1 if positions is None else np.asarray(positions)
    interventions = _prepared(model, prompts, interventions)
    pieces, work = list(batches(model, prompts)), _Logits(prompts, at, interventions)
    found = model.engine.map(model, work, pieces, bytes_each=row_bytes(model))
    out = {int(rows[0]): logits for rows, logits in found}
    logits = torch.cat([out[int(rows[0])] for rows in pieces])
    logits = logits if logits.dtype == torch.float64 else logits.float()
    bad = ~torch.isfinite(logits).reshape(len(prompts), -1).all(dim=1)
    if bool(bad.any()):
        raise InterpError(
            f"Logits of prompt {int(bad.int().argmax())} are not finite. Check the interventions and the dtype."
        )
    return logits


def in_batches(
    model: HookedTransformer, prompts: Prompts, site: str, layers: Sequence[int]
) -> Iterator[tuple[Prompts, dict[int, Float[Tensor, "prompt ..."]]]]:
    """``activations`` of some prompts at a time, with these prompts.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> prompts = Prompts.from_ids([[5, 6, 7], [8, 9, 7]])
    >>> [(len(part), values[3].shape) for part, values in in_batches(model, prompts, "z", [3])]
    [(2, torch.Size([2, 3, 4, 32]))]
    """
    for rows in batches(model, prompts):
        part = prompts.select(rows)
        yield part, activations(model, part, site, layers=layers)


# ---- the pieces of capture ----


@dataclass(frozen=True)
class Reads:
    """Activations of batches of prompts, as work (``interp.engines``).

    Attributes:
        prompts: all prompts.
        reading: what is read of each.
        interventions: what is changed during the run.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> prompts = as_prompts(model, ["The cat", "A dog"])
    >>> work = Reads(prompts, Reading.of(model, prompts, "z", at=[-1], layers=[0]))
    >>> work.do(work.ready(model), np.array([1]))["z"].shape
    (1, 1, 1, 4, 32)
    """

    prompts: Prompts
    reading: Reading
    interventions: Sequence[Intervention] = ()

    def ready(self, model: HookedTransformer) -> HookedTransformer:
        """The model is all that batches share."""
        return model

    def do(self, ready: HookedTransformer, piece: Int[np.ndarray, " prompt"]) -> dict[str, np.ndarray]:
        """One batch, whose prompts are given by their numbers."""
        arrays = self.reading.empty(len(piece))
        self.reading.read(ready, self.prompts.select(piece), arrays, self.interventions, piece)
        return arrays


@dataclass(frozen=True)
class _Logits:
    """Logits of batches of prompts at some positions, as work (``interp.engines``)."""

    prompts: Prompts
    at: Int[np.ndarray, "prompt ..."]
    interventions: list[Intervention]

    def ready(self, model: HookedTransformer) -> HookedTransformer:
        """The model is all that batches share."""
        return model

    def do(self, ready: HookedTransformer, piece: Int[np.ndarray, " prompt"]) -> Float[Tensor, "prompt *answer vocab"]:
        """One batch, whose prompts are given by their numbers."""
        part = self.prompts.select(piece)
        hooks = compile_interventions(ready, part, self.interventions, rows=piece)
        return ready.forward(ids_of(part), hooks=hooks, logits_at=torch.tensor(self.at[piece])).cpu()


def _check_layers(layers: int | Sequence[int] | None, n_layers: int) -> tuple[int, ...]:
    return sites.check_layers(layers, n_layers)


def _read_positions(prompts: Prompts, at: At) -> tuple[str, Int[np.ndarray, "prompt place"], list[Any]]:
    """The axis name, the token positions to read (-1 where a prompt has none), and the labels of the axis."""
    if at is None:
        places = np.arange(prompts.ids.shape[1])
        return "position", np.where(places < prompts.lengths[:, None], places, -1), list(places)
    chosen = places_of(at)
    words = [isinstance(place, str) for place in chosen]
    if any(words) and not all(words):
        raise InterpError("at mixes roles and positions; give one kind, so that the axis has one name.")
    if all(words):
        columns = [prompts.role_positions(str(place)) for place in chosen]
    else:
        columns = [positions_of(prompts, int(place)) for place in chosen]
    return ("role" if all(words) else "position"), np.stack(columns, axis=1), chosen


def _layout(
    model: HookedTransformer, name: str, length: int, layers: Sequence[int], axis: str, n_places: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The axes of a site, and the lengths of all but the first."""
    sizes = {"src_position": length, "layer": len(layers), axis: n_places, "dest_position": n_places}
    place = {"position": axis, "dest_position": "role" if axis == "role" else "dest_position"}
    own = tuple(place.get(dim, dim) for dim in model.dims(name))
    dims = ("layer", *own) if sites.site(name).per_layer else own
    return ("prompt", *dims), tuple(sizes[dim] if dim in sizes else model.cfg.sizes[dim] for dim in dims)


def _check_memory(needed: int, wanted: Sequence[sites.Site]) -> None:
    free = free_memory()
    log.debug("capture of %s needs %.1f MiB", [site.name for site in wanted], needed / 2**20)
    if free is not None and needed > MEMORY_SHARE * free:
        raise InterpError(
            f"Capturing {', '.join(site.name for site in wanted)} needs {needed / 2**30:.1f} GiB, "
            f"{free / 2**30:.1f} GiB is free. Ask for fewer sites or layers, or for roles with at=[...]."
        )


def free_memory() -> int | None:
    """Bytes of memory that can be had without swapping, where the system says so.

    >>> free = free_memory()
    >>> free is None or free > 0
    True
    """
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None


def _hook_name(name: str, layer: int) -> str:
    """The hook at which a site is read; of a site that is computed here from another one, the other one's."""
    return sites.site(sites.site(name).derived_from or name).hook_name(layer)


def _derive(model: HookedTransformer, name: str, layer: int, tensor: Tensor) -> Tensor:
    """A site's activation from what its hook gives."""
    if not sites.site(name).derived_from:
        return tensor
    if name not in _DERIVED:
        raise InterpError(f"How site '{name}' is computed is not written in interp.run. State it in _DERIVED.")
    return _DERIVED[name](model, layer, tensor)


def _results(
    model: HookedTransformer, layer: int, z: Float[Tensor, "prompt position head d_head"]
) -> Float[Tensor, "prompt position head d_model"]:
    return einsum(
        z, model.W_O(layer), "prompt position head d_head, head d_head d_model -> prompt position head d_model"
    )


_DERIVED: dict[str, Callable[[HookedTransformer, int, Tensor], Tensor]] = {"result": _results}
"""Site that no hook carries -> how it is computed from the site that it is derived from."""


def _reader(
    model: HookedTransformer,
    name: str,
    layer: int,
    target: np.ndarray,
    rows: np.ndarray,
    index: Int[np.ndarray, "prompt place"],
    lengths: Int[np.ndarray, " prompt"],
) -> Hook:
    """A hook that copies the asked tokens of one activation into ``target`` (a view of the result)."""
    site = sites.site(name)
    prompt = torch.arange(len(rows)).unsqueeze(1)
    places = torch.from_numpy(np.maximum(index, 0))
    absent = index < 0

    def read(tensor: Tensor) -> None:
        value = tensor.detach()
        value = value.expand(len(rows), *value.shape[1:])  # position embeddings come as one row for all prompts
        p, at = prompt.to(value.device), places.to(value.device)
        if site.is_pattern:
            picked = value.transpose(1, 2)[p, at].transpose(1, 2)  # prompt head place src
        else:
            picked = _derive(model, name, layer, value[p, at])  # prompt place ...
        out = picked.cpu().to(torch.float64 if target.dtype == np.float64 else torch.float32).numpy().copy()
        if site.is_pattern:
            out.swapaxes(1, 2)[absent] = np.nan
            for i, length in enumerate(lengths):
                out[i, ..., length:] = np.nan
            target[rows, ..., : out.shape[-1]] = out
        else:
            out[absent] = np.nan
            target[rows] = out

    return _hook_name(name, layer), read


def read_hook(model: HookedTransformer, name: str, layer: int, keep: Callable[[Tensor], None]) -> Hook:
    """A hook that gives a site's activation to ``keep`` and leaves it as it is.

    It is shown what earlier hooks of the list have made of it.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> seen = []
    >>> hook = read_hook(model, "z", 1, seen.append)
    >>> logits = model.forward(ids_of(as_prompts(model, "The cat")), hooks=[hook])
    >>> seen[0].shape == (1, 3, model.cfg.n_heads, model.cfg.d_head)  # prompt position head d_head, BOS included
    True
    """

    def read(tensor: Tensor) -> None:
        keep(_derive(model, name, layer, tensor))

    return _hook_name(name, layer), read


def _appender(name: str, kept: list[Tensor], length: int) -> Callable[[Tensor], None]:
    """Keeps an activation, padded to ``length`` tokens (a batch is only as long as its own longest)."""
    pattern = sites.site(name).is_pattern

    def keep(tensor: Tensor) -> None:
        value = tensor.detach()
        missing = length - value.shape[-1 if pattern else 1]
        sizes = (0, missing, 0, missing) if pattern else (*(0, 0) * (value.ndim - 2), 0, missing)
        kept.append(torch.nn.functional.pad(value, sizes) if missing else value.clone())

    return keep


def _coords(
    model: HookedTransformer,
    prompts: Prompts,
    dims: Mapping[str, tuple[str, ...]],
    layers: Sequence[int],
    axis: str,
    labels: Sequence[Any],
) -> dict[str, Any]:
    """The labels of the axes, but for that of the prompts."""
    present = {dim for names in dims.values() for dim in names}
    coords: dict[str, Any] = {"layer": list(layers)}
    coords |= {axis: list(labels), "head": np.arange(model.cfg.n_heads), "kv_head": np.arange(model.cfg.n_kv_heads)}
    if axis == "position" and "dest_position" in present:
        coords["dest_position"] = list(labels)
    if "src_position" in present:
        coords["src_position"] = np.arange(prompts.ids.shape[1])
    coords = {name: value for name, value in coords.items() if name in present}
    if prompts.tokens is not None and len(set(prompts.tokens)) == 1:
        texts = np.array(prompts.tokens[0])
        if "position" in present:
            coords["token"] = ("position", texts[np.asarray(labels)])
        if "src_position" in present:
            coords["src_token"] = ("src_position", texts)
    return coords


# ---- changing ----


def compile_interventions(
    model: HookedTransformer,
    prompts: Prompts,
    interventions: Sequence[Intervention],
    *,
    rows: np.ndarray | None = None,
) -> list[Hook]:
    """Interventions as hooks for one batch.

    Args:
        model: the model.
        prompts: the batch.
        interventions: what to change; they act in the order given.
        rows: the batch's rows among all prompts, where the interventions hold values for all of them.

    Raises:
        InterpError: something that is no intervention, or one that asks for what the model or the prompts do not have.

    >>> from interp import HookedTransformer
    >>> from interp.interventions import Steer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> more = Steer(site="resid_pre", layers=[1, 2], vector=torch.ones(128))
    >>> [name for name, _ in compile_interventions(model, as_prompts(model, "The cat"), [more])]
    ['blocks.1.hook_resid_pre', 'blocks.2.hook_resid_pre']
    """
    hooks: list[Hook] = []
    chosen = np.arange(len(prompts)) if rows is None else rows
    for item in _prepared(model, prompts, interventions):
        layers = _check_layers(item.layers, model.cfg.n_layers)
        site = model.check_editable(item.site)
        for layer in layers if site.per_layer else (0,):
            hooks += edit_hooks(model, item.site, layer, _edit(model, prompts, item, layer, chosen))
    return hooks


def _prepared(model: HookedTransformer, prompts: Prompts, interventions: Any) -> list[Intervention]:
    """Interventions with every ablation made a replacement by the values that these prompts get."""
    if not isinstance(interventions, Sequence) or isinstance(interventions, str):
        raise InterpError(f"interventions must be a list, not {type(interventions).__name__}. Write [...] round one.")
    for item in interventions:
        if not isinstance(item, Intervention):
            known = ", ".join(kind.__name__ for kind in INTERVENTIONS)
            raise InterpError(f"{type(item).__name__} is no intervention that is known here. These are: {known}.")
    return [item.with_values(lambda one: _values_of(model, prompts, one)) for item in interventions]


def _values_of(model: HookedTransformer, prompts: Prompts, item: Ablate) -> dict[int, Tensor]:
    """What an ablation puts in: layer -> [prompt, *site dims]."""
    site = model.check_editable(item.site)
    layers = _check_layers(item.layers, model.cfg.n_layers) if site.per_layer else (0,)
    reference = ablation.Reference.of(model, prompts, item.kind, seed=item.seed, references=item.references)
    reference.check_varies(token_mask(prompts, item.at)[None], ["at"])
    if reference.donors is not None:
        return activations(model, reference.donors, item.site, layers=layers)
    n, length = prompts.ids.shape
    constants = reference.constants(model, item.site, layers, in_batches)
    return {layer: ablation.laid_out(value, site, n, length) for layer, value in constants.items()}


def edit_hooks(model: HookedTransformer, name: str, layer: int, edit: Callable[[Tensor], Tensor]) -> list[Hook]:
    """Hooks that change a site for all that use it: at its own hook, or at ``edited_at``, where what it becomes enters.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> hooks = edit_hooks(model, "z", 3, lambda activation: 0 * activation)
    >>> logits = model.forward(ids_of(as_prompts(model, "The cat is")), hooks=hooks)
    >>> [name for name, _ in hooks], logits.shape
    (['blocks.3.attn.hook_z'], torch.Size([1, 4, 1280]))
    """
    site = sites.site(name)
    if not site.edited_at:
        return [(_hook_name(name, layer), edit)]
    if name not in _EDITED:
        raise InterpError(f"How a change of site '{name}' enters is not written in interp.run. State it in _EDITED.")
    needed: list[Tensor] = []

    def remember(tensor: Tensor) -> None:
        needed[:] = [tensor]

    def change(output: Tensor) -> Tensor:
        return _EDITED[name](model, layer, needed.pop(), output, edit)

    return [(_hook_name(site.edit_needs, layer), remember), (site.edit_hook(layer), change)]


def _through_attn_out(
    model: HookedTransformer, layer: int, resid_pre: Tensor, attn_out: Tensor, edit: _Edit
) -> Float[Tensor, "prompt position d_model"]:
    """What attention has to add so that the stream after it is the edited one."""
    return edit(resid_pre + attn_out) - resid_pre


def _through_output(
    model: HookedTransformer, layer: int, z: Tensor, output: Tensor, edit: _Edit
) -> Float[Tensor, "prompt position d_model"]:
    """The output of W_O with the change of every head's result added."""
    results = _results(model, layer, z)
    return output + (edit(results) - results).sum(dim=2)


_EDITED: dict[str, Callable[[HookedTransformer, int, Tensor, Tensor, _Edit], Tensor]] = {
    "resid_mid": _through_attn_out,
    "result": _through_output,
}
"""Site that is changed at another hook -> what that hook's activation becomes, from what ``edit_needs`` names."""


def _edit(model: HookedTransformer, prompts: Prompts, item: Intervention, layer: int, rows: np.ndarray) -> _Edit:
    """The function activation -> changed activation, acting only where the intervention says."""
    site = sites.site(item.site)
    mask = torch.from_numpy(item.tokens(prompts))  # prompt position, or prompt dest src
    item.check(site.shape(model.cfg.sizes), layer)
    heads = _head_mask(model, item.site, item.heads) if site.has_heads else None
    if heads is None and item.heads is not None:
        raise InterpError(f"Site '{item.site}' has no heads, but heads={list(item.heads)} were given.")
    if site.is_pattern:
        mask = mask[:, None] if mask.ndim == 3 else mask[:, None, :, None]
        mask = mask if heads is None else mask & heads[None, :, None, None]
    else:
        mask = mask.reshape(*mask.shape, *(1,) * (len(site.dims) - 1))
        mask = mask if heads is None else mask & heads[None, None, :, None]

    def edit(tensor: Tensor) -> Tensor:
        new = item.edit(tensor, layer, rows)
        return torch.where(mask.to(tensor.device), new.to(tensor.dtype), tensor)

    return edit


def _head_mask(model: HookedTransformer, name: str, heads: Sequence[int] | None) -> Bool[Tensor, " head"]:
    n = model.n_heads_of(name)
    if heads is None:
        return torch.ones(n, dtype=torch.bool)
    outside = [head for head in heads if not 0 <= head < n]
    if outside:
        raise InterpError(f"Head {outside[0]} does not exist at '{name}': {model.name} has {n} there (0 to {n - 1}).")
    mask = torch.zeros(n, dtype=torch.bool)
    mask[list(heads)] = True
    return mask


_accessor.register()
