"""What the results of a run say of every head, as arrays over heads, and which heads earn a label.

Reads the datasets that ``context_flow`` joins; runs nothing and words nothing but the note on where words can meet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from interp import summary
from interp.errors import InterpError
from interp.prompts.template import ANSWER
from interp.prompts.vocabulary import Vocabulary
from interp.sites import head_label

LEVEL = 0.05
"""Chance, at most, that any head at all is named where none does anything."""


def rung_index(used: Mapping[str, xr.Dataset]) -> int:
    """Index of the rung that the explaining results are about, else of the one to be explained, else of the main one.

    Raises:
        InterpError: the baselines are those of an older version, which did not say what is to be explained.
    """
    rungs = [str(name) for name in used["behavior"]["rung"].values]
    for name, data in used.items():
        rung = str(data.attrs["task"]).rpartition("/")[2]
        if name != "behavior" and rung in rungs:
            return rungs.index(rung)
    explained = used["behavior"].attrs.get("explained_rung")
    if explained is None:
        raise InterpError("The result 'behavior' does not say which rung is to be explained. Run the study again.")
    return rungs.index(explained) if explained else int(np.argmax(used["behavior"]["main"].values))


@dataclass(frozen=True)
class Meeting:
    """The later of source and target, the earlier one, and what has to be said about it.

    The token behind the later one and the end of its clause have seen both words whole too, and models often gather
    things there (full stops: Tigges et al. 2023, arXiv 2310.15154): ``places`` are all the roles that the vocabulary
    counts as places to meet.
    """

    role: str
    other: str
    source_is_last: bool
    places: tuple[str, ...]
    note: str

    @classmethod
    def of(cls, used: Mapping[str, xr.Dataset], vocabulary: Vocabulary) -> Meeting:
        """Told from where the roles stand; the target is assumed to be last where that is not known."""
        source, target = ends(vocabulary)
        later = _target_comes_later(used, source, target)
        share = 1.0 if later is None else float(np.mean(later))
        role, other = (target, source) if share >= 0.5 else (source, target)
        first, second = vocabulary.name(other), vocabulary.name(role)
        behind = "" if role == ANSWER else " or behind it"
        note = f"{second} comes after {first}, so they can meet at {second}{behind}"
        if later is None:
            note = f"it is not known which of {first} and {second} comes later; {second} is assumed"
        elif role == source:
            note += (
                f"; the prompts differ there, so patching at {second} also counts what a head copies of its own token "
                f"and cannot see a head that brings {first}, the same in both; a mover must therefore also look at "
                f"{first}"
            )
        mixed = min(share, 1 - share)
        note += f"; in {mixed:.0%} of prompts it is the other way round" if mixed else ""
        return cls(role, other, role == source, vocabulary.places(role), note)


def ends(vocabulary: Vocabulary) -> tuple[str, str]:
    """The roles of source and target.

    Raises:
        InterpError: one of them is not known.
    """
    if vocabulary.source is None or vocabulary.target is None:
        raise InterpError("The vocabulary has no source or no target. Name both roles.")
    return vocabulary.source, vocabulary.target


def _target_comes_later(used: Mapping[str, xr.Dataset], source: str, target: str) -> Bool[np.ndarray, " prompt"] | None:
    for name, variable in (("head_attribution", "role_position"), ("behavior", "role_start")):
        if name not in used or variable not in used[name]:
            continue
        places = used[name][variable]
        if name == "behavior" and "rung_of" in places.coords:
            rung = str(used[name]["rung"].values[rung_index(used)])
            places = places.isel(prompt=np.flatnonzero(places["rung_of"].values.astype(str) == rung))
        if {source, target} <= set(places["role"].values):
            first, second = places.sel(role=source).values, places.sel(role=target).values
            known = (first >= 0) & (second >= 0)
            if known.any():
                return np.asarray((second > first)[known])
    return None


@dataclass(frozen=True)
class Estimate:
    """A summary over prompts (``interp.summary``) with its 95% bootstrap interval, per head."""

    mean: Float[np.ndarray, " head"]
    low: Float[np.ndarray, " head"]
    high: Float[np.ndarray, " head"]

    @classmethod
    def of(cls, found: xr.Dataset) -> Estimate:
        """The heads of a summary in order, layer by layer."""
        return cls(*(_flat(found[name]) for name in ("mean", "low", "high")))

    def text(self, head: int) -> str:
        """Mean and interval of one head, in words."""
        return f"{number(self.mean[head])} [{number(self.low[head])}, {number(self.high[head])}]"


@dataclass(frozen=True)
class Cell:
    """The effect of patching each head's z at one role in one direction: the larger, the more the head does."""

    role: str
    direction: str
    effect: Estimate
    p_values: Float[np.ndarray, " head"]
    counts: Bool[np.ndarray, " head"]
    against: Bool[np.ndarray, " head"]


def number(value: float) -> str:
    """Two decimals, without a negative zero."""
    return f"{0.0 if abs(value) < 0.005 else value:.2f}"


@dataclass(frozen=True)
class Evidence:
    """What is known about every head of a model, and the label it earns.

    Attributes:
        layer: layer of each head.
        head: index of each head within its layer.
        meeting: where source and target can meet.
        minimum_effect: least fraction of the clean-corrupted gap that counts.
        cells: effects of patching ``z`` at one role in one direction.
        recovered: (role, direction) -> recovered fraction.
        everywhere: direction -> effect of patching ``z`` at all words at once.
        attention: edge -> attention weight.
        uniform: role -> weight of one token if its attention were spread evenly over what it sees.
        contribution: direct logit attribution, in logits; None where it was not run.
        ablation: kind -> ablated - clean, in logits.
        gap: mean clean - corrupted of the patched prompts, in logits; NaN where no logits were patched for.
    """

    layer: Int[np.ndarray, " head"]
    head: Int[np.ndarray, " head"]
    meeting: Meeting
    minimum_effect: float
    cells: tuple[Cell, ...]
    recovered: Mapping[tuple[str, str], Estimate]
    everywhere: Mapping[str, Estimate]
    attention: Mapping[str, Estimate]
    uniform: Mapping[str, float]
    contribution: Estimate | None
    ablation: Mapping[str, Estimate]
    gap: float

    @classmethod
    def of(
        cls,
        used: Mapping[str, xr.Dataset],
        vocabulary: Vocabulary,
        minimum_effect: float,
        seed: int,
    ) -> Evidence:
        """Read what the results hold.

        Raises:
            InterpError: results with different numbers of layers or heads.
        """
        meeting = Meeting.of(used, vocabulary)
        patching, attribution = used.get("activation_patching"), used.get("head_attribution")
        grids = [data[name] for data, name in _head_arrays(patching, attribution)]
        layers, heads = (grids[0].sizes["layer"], grids[0].sizes["head"]) if grids else (0, 0)
        for grid in grids:
            if (grid.sizes["layer"], grid.sizes["head"]) != (layers, heads):
                raise InterpError(
                    f"The results to join have {layers} x {heads} and {grid.sizes['layer']} x {grid.sizes['head']} "
                    "(layers x heads). Join the results of one run."
                )
        recovered = _recovered(patching, (*meeting.places, *(vocabulary.readers or ())))
        attention, uniform = _attention(attribution)
        return cls(
            layer=np.repeat(np.arange(layers), heads),
            head=np.tile(np.arange(heads), layers),
            meeting=meeting,
            minimum_effect=minimum_effect,
            cells=_cells(patching, recovered, minimum_effect, seed),
            recovered={key: Estimate.of(found) for key, found in recovered.items()},
            everywhere=_everywhere(patching),
            attention=attention,
            uniform=uniform,
            contribution=_contribution(attribution),
            ablation=_ablation(attribution),
            gap=_gap(patching),
        )

    def __len__(self) -> int:
        return len(self.layer)

    @property
    def names(self) -> list[str]:
        """Head labels such as ``L9H6``."""
        return [head_label(int(layer), int(head)) for layer, head in zip(self.layer, self.head, strict=True)]

    @property
    def n_tested(self) -> int:
        """Cells over which the p-values are adjusted."""
        return sum(len(cell.p_values) for cell in self.cells)

    # ---- labels ----

    def acting(self, head: int) -> list[Cell]:
        """The cells in which a head's effect counts, largest first."""
        cells = [cell for cell in self.cells if cell.counts[head] and self.believed(cell, head)]
        return sorted(cells, key=lambda cell: -cell.effect.mean[head])

    def believed(self, cell: Cell, head: int) -> bool:
        """Where the source is the meeting role, only a head that looks at the target brings it there."""
        if cell.role != self.meeting.role or not self.meeting.source_is_last:
            return True
        return self.looks(head, self.meeting.role, self.meeting.other) is True

    def label(self, head: int) -> str:
        """``mover``, ``reader`` or ``none``."""
        acting = self.acting(head)
        if not acting:
            return "none"
        return "mover" if acting[0].role in self.meeting.places else "reader"

    @property
    def arrival(self) -> str:
        """Where the strongest mover acts; the later word itself where there is no mover."""
        movers = self.labelled("mover")
        return self.acts_at(movers[0]) if movers else self.meeting.role

    def acts_at(self, head: int) -> str:
        """The role at which a labelled head does most; empty for the others."""
        acting = self.acting(head)
        return acting[0].role if acting else ""

    def directions(self, head: int) -> str:
        """The directions that count at the role where the head acts."""
        counting = [cell.direction for cell in self.acting(head) if cell.role == self.acts_at(head)]
        if len(counting) == 2:
            return "both"
        return f"{counting[0]} only" if counting else ""

    def looks(self, head: int, dest: str, src: str) -> bool | None:
        """Whether attention is above an even spread over what can be seen; None where it was not measured."""
        edge = self.attention.get(f"{dest}<-{src}")
        if edge is None or not np.isfinite(edge.mean[head]):
            return None
        return bool(edge.low[head] > self.uniform.get(dest, 0.0))

    def labelled(self, label: str) -> list[int]:
        """Heads with a label, largest effect first."""
        found = [head for head in range(len(self)) if self.label(head) == label]
        return sorted(found, key=lambda head: -self.acting(head)[0].effect.mean[head])

    def strongest_edge(self, head: int) -> str | None:
        """The edge from where a labelled head acts to where it looks most; a mover's is the one to the other word."""
        wanted = self.meeting.other if self.label(head) == "mover" else None
        edges = [
            name
            for name, estimate in self.attention.items()
            if name.startswith(f"{self.acts_at(head)}<-")
            and (wanted is None or name.endswith(f"<-{wanted}"))
            and np.isfinite(estimate.mean[head])
        ]
        return max(edges, key=lambda name: self.attention[name].mean[head], default=None)


# ---- reading the other results ----


def _head_arrays(patching: xr.Dataset | None, attribution: xr.Dataset | None) -> Iterator[tuple[xr.Dataset, str]]:
    for data, names in (
        (patching, ("recovered_z_role", "recovered_z")),
        (attribution, ("attention", "ablation_effect")),
    ):
        for name in names:
            if data is not None and name in data:
                yield data, name


def _flat(array: xr.DataArray) -> Float[np.ndarray, " head"]:
    return np.asarray(array.transpose("layer", "head").values, dtype=np.float64).reshape(-1)


def _recovered(patching: xr.Dataset | None, places: tuple[str, ...]) -> dict[tuple[str, str], xr.Dataset]:
    """(role, direction) -> what is recovered there, for those places where a head can be named that were patched."""
    if patching is None or "recovered_z_role" not in patching:
        return {}
    whole = summary.of(patching, "recovered_z_role")
    roles = [role for role in dict.fromkeys(places) if role in whole["role"].values]
    found = {}
    for role in roles:
        for direction in map(str, whole["direction"].values):
            one = whole.sel(role=role, direction=direction)
            if np.isfinite(one["mean"].values).any():
                found[role, direction] = one
    return found


def _everywhere(patching: xr.Dataset | None) -> dict[str, Estimate]:
    if patching is None or "recovered_z" not in patching:
        return {}
    whole = summary.of(patching, "recovered_z")
    directions = map(str, whole["direction"].values)
    return {way: Estimate.of(summary.effect(whole.sel(direction=way), way)) for way in directions}


def _cells(
    patching: xr.Dataset | None,
    recovered: Mapping[tuple[str, str], xr.Dataset],
    minimum_effect: float,
    seed: int,
) -> tuple[Cell, ...]:
    """Effects with p-values adjusted over every head, role and direction at once.

    What is tested is how far each patch moves the metric, which is the top of the ratio that is shown.
    """
    if patching is None or not recovered:
        return ()
    patched = patching["patched_z_role"]
    moved = [
        summary.moved(
            patched.sel(role=role, direction=direction, drop=True), patching["clean"], patching["corrupted"], direction
        )
        for role, direction in recovered
    ]
    p_values = summary.p_values(xr.concat(moved, "cell").transpose("prompt", "cell", "layer", "head"), seed=seed)
    cells = []
    for i, ((role, direction), found) in enumerate(recovered.items()):
        one, p = Estimate.of(summary.effect(found, direction)), _flat(p_values.isel(cell=i))
        certain = p <= LEVEL
        counts = certain & (one.mean >= minimum_effect) & (one.low > 0)
        against = certain & (one.mean <= -minimum_effect) & (one.high < 0)
        cells.append(Cell(role, direction, one, p, counts, against))
    return tuple(cells)


def _gap(patching: xr.Dataset | None) -> float:
    """The mean gap of the logit difference, to which contributions are held; NaN of any other metric."""
    if patching is None or patching.attrs.get("metric", "logit_difference") != "logit_difference":
        return float("nan")
    return float(np.mean(patching["clean"] - patching["corrupted"]))


def _attention(attribution: xr.Dataset | None) -> tuple[dict[str, Estimate], dict[str, float]]:
    """Edge -> attention, and destination role -> the weight of one token if attention were spread evenly."""
    if attribution is None or "attention" not in attribution:
        return {}, {}
    whole = summary.mean(attribution["attention"])
    edges = {str(edge): Estimate.of(whole.sel(edge=edge)) for edge in whole["edge"].values}
    if "role_position" not in attribution:
        return edges, {}
    places = attribution["role_position"]
    return edges, {str(role): float((1 / (places.sel(role=role) + 1)).mean()) for role in places["role"].values}


def _contribution(attribution: xr.Dataset | None) -> Estimate | None:
    if attribution is None or "contribution" not in attribution:
        return None
    heads = attribution["component_head"].values >= 0
    order = np.lexsort((attribution["component_head"].values, attribution["component_layer"].values))
    chosen = [int(index) for index in order if heads[index]]
    found = summary.mean(attribution["contribution"]).isel(component=chosen)
    return Estimate(*(np.asarray(found[name].values, dtype=np.float64) for name in ("mean", "low", "high")))


def _ablation(attribution: xr.Dataset | None) -> dict[str, Estimate]:
    if attribution is None or "ablation_effect" not in attribution:
        return {}
    whole = summary.mean(attribution["ablation_effect"])
    return {str(kind): Estimate.of(whole.sel(ablation=kind)) for kind in whole["ablation"].values}
