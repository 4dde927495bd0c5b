"""What a sweep changes: one cell per layer (or window, or named set), head or group of neurons, and place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp import run, sites
from interp.errors import InterpError, shown, whole_number, whole_numbers
from interp.errors import names as checked_names
from interp.prompts.tokens import Prompts
from interp.sweeps.options import WHERE, Axis, Where, completed
from interp.sweeps.reading import AnyPairs

if TYPE_CHECKING:
    from interp.model import HookedTransformer


@dataclass(frozen=True)
class Part:
    """What a cell changes in one layer: ``units`` are heads or neurons, None where the site has neither."""

    layer: int
    units: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Cells:
    """Every cell of a sweep, in the order of the result's axes.

    Attributes:
        parts: per cell, what it changes, layers ascending.
        place: [cell] index into ``tokens``.
        tokens: [place, prompt, position] which tokens a cell changes (destinations, where attention is cut).
        shape: sizes of the cell axes.
        dims: names of the cell axes, ``layer`` first where there is one.
        coords: labels of the cell axes.
        sources: [place, prompt, position] which tokens are not attended to any more (knockouts only).

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", tokenizer=model, n=2)
    >>> cells = patch_cells(model, pairs, "z", {"roles": ["color"], "layers": [0]})
    >>> cells.dims, cells.shape, len(cells), cells.parts[2]
    (('layer', 'head', 'role'), (1, 4, 1), 4, (Part(layer=0, units=(2,)),))
    """

    parts: tuple[tuple[Part, ...], ...]
    place: Int[np.ndarray, " cell"]
    tokens: Bool[Tensor, "place prompt position"]
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    coords: dict[str, list[Any]]
    sources: Bool[Tensor, "place prompt position"] | None = None

    def __len__(self) -> int:
        """How many cells there are."""
        return len(self.parts)

    def of_prompts(self, rows: Int[np.ndarray, " prompt"], length: int) -> Cells:
        """The same cells for some of the prompts, whose longest has ``length`` tokens."""
        index = torch.from_numpy(rows)
        sources = None if self.sources is None else self.sources[:, index, :length]
        tokens = self.tokens[:, index, :length]
        return Cells(self.parts, self.place, tokens, self.shape, self.dims, self.coords, sources)


@dataclass(frozen=True)
class Places:
    """The token axis of a sweep: its name, labels and masks [place, prompt, position]."""

    dim: str | None
    labels: list[Any]
    masks: Bool[Tensor, "place prompt position"]


def patch_cells(model: HookedTransformer, pairs: AnyPairs, name: str, where: Where) -> Cells:
    """The cells of a sweep of one site.

    Raises:
        InterpError: what is asked for does not exist, or does not go together.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", tokenizer=model, n=2)
    >>> patch_cells(model, pairs, "resid_pre", {"roles": ["color", "asked"]}).shape  # layer role
    (4, 2)
    """
    where = completed(where, WHERE)
    sets, layers, window = where["sets"], where["layers"], where["window"]
    site = model.check_site(name)
    if not site.swept:
        raise InterpError(f"Site '{name}' is not swept. Sweep '{site.instead}' instead.")
    found = places(pairs, where["axis"], where["roles"], where["positions"], all_at_once=site.has_heads)
    if sets is not None:
        if layers is not None or window != 1 or where["neuron_groups"] is not None:
            raise InterpError(
                "sets name their own layers and heads: give no layers, window or neuron_groups with them."
            )
        if not isinstance(sets, Mapping) or not sets:
            raise InterpError("sets must be a mapping of names to members, with at least one.")
        groups = [_set_parts(model, name, label, members) for label, members in sets.items()]
        return _crossed(groups, [("set", list(sets))], found)
    chosen = sites.check_layers(layers, model.cfg.n_layers)
    spans = [window_of(layer, window, model.cfg.n_layers) for layer in chosen]
    unit_axes, units = _units(model, name, where["neuron_groups"])
    groups = [tuple(Part(layer, unit) for layer in span) for span in spans for unit in units]
    return _crossed(groups, [("layer", list(chosen)), *unit_axes], found)


def _crossed(groups: Sequence[tuple[Part, ...]], axes: list[tuple[str, list[Any]]], found: Places) -> Cells:
    """Every group of changes at every place."""
    n = len(found.masks)
    if found.dim is not None:
        axes = [*axes, (found.dim, found.labels)]
    return Cells(
        parts=tuple(group for group in groups for _ in range(n)),
        place=np.tile(np.arange(n), len(groups)),
        tokens=found.masks,
        shape=tuple(len(labels) for _, labels in axes),
        dims=tuple(dim for dim, _ in axes),
        coords=dict(axes),
    )


def _units(
    model: HookedTransformer, name: str, neuron_groups: int | None
) -> tuple[list[tuple[str, list[Any]]], list[tuple[int, ...] | None]]:
    """The axis of heads or groups of neurons, and what each label means; nothing at other sites."""
    site = sites.site(name)
    if neuron_groups is not None and site.unit != "neuron":
        raise InterpError(f"neuron_groups is for mlp_post; site '{name}' has no neurons.")
    if site.has_heads:
        n = model.n_heads_of(name)
        dim = next(dim for dim in model.dims(name) if dim in ("head", "kv_head"))
        return [(dim, list(range(n)))], [(head,) for head in range(n)]
    if neuron_groups is None:
        return [], [None]
    neuron_groups = whole_number(neuron_groups, "neuron_groups")
    if not 1 <= neuron_groups <= model.cfg.d_mlp:
        raise InterpError(
            f"neuron_groups is {shown(neuron_groups)}; {model.name} has {model.cfg.d_mlp} neurons per layer."
        )
    split = [tuple(int(n) for n in part) for part in np.array_split(np.arange(model.cfg.d_mlp), neuron_groups)]
    return [("neuron_group", [f"{part[0]}-{part[-1]}" for part in split])], list(split)


def window_of(layer: int, window: int, n_layers: int) -> range:
    """The layers of a window centred on a layer, cut off at the first and last."""
    if whole_number(window, "window") < 1:
        raise InterpError(f"window is {shown(window)}; it counts layers and is at least 1.")
    first = layer - (window - 1) // 2
    return range(max(first, 0), min(first + window, n_layers))


def _set_parts(model: HookedTransformer, name: str, label: str, members: Sequence[Any]) -> tuple[Part, ...]:
    site = sites.site(name)
    found: dict[int, set[int]] = {}
    if isinstance(members, str) or not isinstance(members, Iterable):
        raise InterpError(f"Set '{label}' is {type(members).__name__}: give a list of its members.")
    for member in members:
        if site.has_heads != isinstance(member, tuple | list):
            wanted = "(layer, head) pairs" if site.has_heads else "layers"
            raise InterpError(f"Set '{label}' holds {shown(member)}; at site '{name}' a set holds {wanted}.")
        layer, *head = whole_numbers(member, f"A member of set '{label}'")
        if len(head) != site.has_heads:
            raise InterpError(f"Set '{label}' holds {shown(member)}; write (layer, head).")
        (layer,) = sites.check_layers(layer, model.cfg.n_layers)
        found.setdefault(layer, set()).update(head)
    if not found:
        raise InterpError(f"Set '{label}' is empty: name at least one member.")
    n = model.n_heads_of(name) if site.has_heads else 0
    outside = sorted((layer, h) for layer, heads in found.items() for h in heads if not 0 <= h < n)
    if outside:
        raise InterpError(f"Set '{label}' holds head {outside[0]}, but {model.name} has {n} heads at '{name}'.")
    return tuple(Part(layer, tuple(sorted(found[layer])) or None) for layer in sorted(found))


# ---- places ----


def places(
    pairs: AnyPairs,
    axis: Axis | None,
    roles: Sequence[str] | None,
    positions: Sequence[int] | None,
    *,
    all_at_once: bool,
) -> Places:
    """The token axis of the cells; ``all_at_once`` gives one nameless place when none was asked for.

    Raises:
        InterpError: an unknown axis or role, both kinds of places, or positions that mean different things in
            different prompts.
    """
    if axis not in (None, *get_args(Axis)):
        raise InterpError(f"Unknown axis {shown(axis)}. Choose 'position' or 'role'.")
    if roles is not None and positions is not None:
        raise InterpError("Give roles or positions, not both.")
    prompts = pairs.clean
    if axis is None:
        if roles is not None or positions is not None:
            axis = "role" if roles is not None else "position"
        elif all_at_once:
            return Places(None, [], torch.from_numpy(run.token_mask(prompts, None)).unsqueeze(0))
        else:
            axis = "position" if prompts.aligned_positions else "role"
    if axis == "role":
        names = list(pairs.roles if roles is None else checked_names(roles, "roles"))
        return Places("role", names, torch.from_numpy(np.stack([run.token_mask(prompts, name) for name in names])))
    if not prompts.aligned_positions:
        a, b = _unaligned_example(prompts)
        raise InterpError(
            f"A position does not mean the same in every prompt: prompts {a} and {b} differ in "
            "length or in where their roles stand. Sweep by role."
        )
    chosen = list(range(prompts.ids.shape[1])) if positions is None else whole_numbers(positions, "positions")
    masks = np.stack([run.token_mask(prompts, position) for position in chosen])
    return Places("position", [position % prompts.ids.shape[1] for position in chosen], torch.from_numpy(masks))


def _unaligned_example(prompts: Prompts) -> tuple[int, int]:
    """Two prompts that differ in length or in the place of a role."""
    for i in range(1, len(prompts)):
        same = prompts.lengths[i] == prompts.lengths[0]
        if not same or any((spans[i] != spans[0]).any() for spans in prompts.roles.values()):
            return 0, i
    return 0, 0
