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
from interp.language import say
from interp.prompts.template import ANSWER
from interp.prompts.vocabulary import Vocabulary
from interp.sites import head_label

MINIMUM_EFFECT = 0.1
"""Least share of the gap between clean and corrupted that counts, where no other is given."""
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
    counts as places to meet. ``target_later`` is the share of prompts in which the target is the later one; None where
    that is not known. ``answers`` says whether the answer is given at the target itself.
    """

    role: str
    other: str
    places: tuple[str, ...]
    vocabulary: Vocabulary
    target_later: float | None
    answers: bool

    @classmethod
    def of(cls, used: Mapping[str, xr.Dataset], vocabulary: Vocabulary) -> Meeting:
        """Told from where the roles stand; the target is assumed to be last where that is not known."""
        source, target = ends(vocabulary)
        later = _target_comes_later(used, source, target)
        share = None if later is None else float(np.mean(later))
        role, other = (target, source) if share is None or share >= 0.5 else (source, target)
        answers = target == ANSWER or _same_place(used, target, ANSWER)
        return cls(role, other, vocabulary.places(role), vocabulary, share, answers)

    @property
    def source_is_last(self) -> bool:
        """Whether the source comes after the target, which then cannot look at it."""
        return self.role == self.vocabulary.source

    def note(self) -> str:
        """What has to be said of it, in words."""
        first, second = self.vocabulary.name(self.other), self.vocabulary.name(self.role)
        if self.target_later is None:
            return say(
                "it is not known which of {first} and {second} comes later; {second} is assumed",
                first=first,
                second=second,
            )
        if self.role == ANSWER:
            note = say("{second} comes after {first}, so they can meet at {second}", first=first, second=second)
        else:
            note = say(
                "{second} comes after {first}, so they can meet at {second} or behind it", first=first, second=second
            )
        if self.source_is_last:
            note += say(
                "; the prompts differ there, so patching at {second} also counts what a head copies of its own token "
                "and cannot see a head that brings {first}, the same in both; a mover must therefore also look at "
                "{first}",
                first=first,
                second=second,
            )
        mixed = min(self.target_later, 1 - self.target_later)
        if mixed:
            note += say("; in {share:.0%} of prompts it is the other way round", share=mixed)
        return note


def ends(vocabulary: Vocabulary) -> tuple[str, str]:
    """The roles of source and target.

    Raises:
        InterpError: one of them is not known.
    """
    if vocabulary.source is None or vocabulary.target is None:
        raise InterpError("The vocabulary has no source or no target. Name both roles.")
    return vocabulary.source, vocabulary.target


def _target_comes_later(used: Mapping[str, xr.Dataset], source: str, target: str) -> Bool[np.ndarray, " prompt"] | None:
    found = _places(used, source, target)
    return None if found is None else found[1] > found[0]


def _same_place(used: Mapping[str, xr.Dataset], one: str, other: str) -> bool:
    """Whether two roles are one token in every prompt, as far as that is known."""
    found = _places(used, one, other)
    return found is not None and bool((found[0] == found[1]).all())


def _places(
    used: Mapping[str, xr.Dataset], one: str, other: str
) -> tuple[Int[np.ndarray, " prompt"], Int[np.ndarray, " prompt"]] | None:
    """Where two roles stand in each prompt that has both, counted in tokens or in characters; None if not known."""
    for name, variable in (("head_attribution", "role_position"), ("behavior", "role_start")):
        if name not in used or variable not in used[name]:
            continue
        places = used[name][variable]
        if name == "behavior" and "rung_of" in places.coords:
            rung = str(used[name]["rung"].values[rung_index(used)])
            places = places.isel(prompt=np.flatnonzero(places["rung_of"].values.astype(str) == rung))
        if {one, other} <= set(places["role"].values):
            first, second = places.sel(role=one).values, places.sel(role=other).values
            known = (first >= 0) & (second >= 0)
            if known.any():
                return first[known], second[known]
    return None


@dataclass(frozen=True)
class Estimate:
    """A summary over prompts (``interp.summary``) with its 95% bootstrap interval, per head."""

    mean: Float[np.ndarray, " head"]
    low: Float[np.ndarray, " head"]
    high: Float[np.ndarray, " head"]

    @classmethod
    def of(cls, found: xr.Dataset) -> Estimate:
        """The heads (or MLPs) of a summary in order, layer by layer."""
        return cls(*(_flat(found[name]) for name in ("mean", "low", "high")))

    def text(self, head: int) -> str:
        """Mean and interval of one head, in words."""
        return f"{number(self.mean[head])} [{number(self.low[head])}, {number(self.high[head])}]"


@dataclass(frozen=True)
class Cell:
    """The effect of patching each head's z, or each MLP's output, at one role in one direction: large, it does much."""

    role: str
    direction: str
    effect: Estimate
    p_values: Float[np.ndarray, " head"]
    counts: Bool[np.ndarray, " head"]
    against: Bool[np.ndarray, " head"]


@dataclass(frozen=True)
class Passage:
    """What patching the target's own residual stream moves, at the layer and in the direction where that is most.

    Attributes:
        layer: the layer before which it was patched.
        direction: ``denoising`` or ``noising``.
        effect: the effect there, as a fraction of the gap, with its 95% interval.
        passes: whether an effect counts, as a head's does; None where that is neither sure nor excluded, or where the
            prompts differ at the target itself, so that its own word is patched too.
    """

    layer: int
    direction: str
    effect: Estimate
    passes: bool | None

    @classmethod
    def of(
        cls,
        patching: xr.Dataset,
        stream: xr.Dataset | None,
        target: str,
        minimum_effect: float,
        seed: int,
        *,
        level: float = LEVEL,
    ) -> Passage | None:
        """Over all layers and directions of ``stream``, the summary; None where it was not patched at the target."""
        if stream is None or target not in stream["role"].values:
            return None
        ways = [str(way) for way in patching["direction"].values]
        whole = stream.sel(role=target)
        patched = patching["patched_resid_pre"].sel(role=target)
        effects = xr.concat([summary.effect(whole.sel(direction=way), way) for way in ways], "cell")
        moved = [
            summary.moved(patched.sel(direction=way, drop=True), patching["clean"], patching["corrupted"], way)
            for way in ways
        ]
        p_values = summary.p_values(xr.concat(moved, "cell").transpose("prompt", "cell", "layer"), seed=seed)
        effects = effects.transpose("cell", "layer")
        mean, low, high = (np.asarray(effects[bound].values, dtype=np.float64) for bound in ("mean", "low", "high"))
        if not np.isfinite(mean).any():
            return None
        counts = (p_values.values <= level) & (mean >= minimum_effect) & (low > 0)
        way, layer = (int(i) for i in np.unravel_index(int(np.nanargmax(mean)), mean.shape))
        passes = True if counts.any() else None if (high >= minimum_effect).any() else False
        if counts[:, 0].any():  # before layer 0 there is nothing but the word itself
            passes = None
        at = (way, slice(layer, layer + 1))
        return cls(int(effects["layer"].values[layer]), ways[way], Estimate(mean[at], low[at], high[at]), passes)


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
        mlps: the same of ``mlp_out``, one MLP a layer, at every role that was patched.
        recovered: (role, direction) -> recovered fraction.
        everywhere: direction -> effect of patching ``z`` at all words at once.
        attention: edge -> attention weight.
        uniform: role -> weight of one token if its attention were spread evenly over what it sees.
        contribution: direct logit attribution, in logits; None where it was not run.
        ablation: kind -> ablated - clean, in logits.
        gap: mean clean - corrupted of the patched prompts, in logits; NaN where no logits were patched for.
        passage: what patching the target's own stream moves; None where that was not done.
        stations: role -> the same of every other word but the answer position, where the source surely passes.
    """

    layer: Int[np.ndarray, " head"]
    head: Int[np.ndarray, " head"]
    meeting: Meeting
    minimum_effect: float
    cells: tuple[Cell, ...]
    mlps: tuple[Cell, ...]
    recovered: Mapping[tuple[str, str], Estimate]
    everywhere: Mapping[str, Estimate]
    attention: Mapping[str, Estimate]
    uniform: Mapping[str, float]
    contribution: Estimate | None
    ablation: Mapping[str, Estimate]
    gap: float
    passage: Passage | None
    stations: Mapping[str, Passage]
    n_patched: int

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
        recovered = _recovered(patching, "recovered_z_role", (*meeting.places, *(vocabulary.readers or ())))
        of_mlps = _recovered(patching, "recovered_mlp_out")
        attention, uniform = _attention(attribution)
        passage, stations = _passages(patching, ends(vocabulary)[1], minimum_effect, seed)
        return cls(
            layer=np.repeat(np.arange(layers), heads),
            head=np.tile(np.arange(heads), layers),
            meeting=meeting,
            minimum_effect=minimum_effect,
            cells=_cells(patching, "patched_z_role", recovered, minimum_effect, seed),
            mlps=_cells(patching, "patched_mlp_out", of_mlps, minimum_effect, seed),
            recovered={key: Estimate.of(found) for key, found in recovered.items()},
            everywhere=_everywhere(patching),
            attention=attention,
            uniform=uniform,
            contribution=_contribution(attribution),
            ablation=_ablation(attribution),
            gap=_gap(patching),
            passage=passage,
            stations=stations,
            n_patched=0 if patching is None else patching.sizes["prompt"],
        )

    def __len__(self) -> int:
        return len(self.layer)

    @property
    def names(self) -> list[str]:
        """Head labels such as ``L9H6``."""
        return [head_label(int(layer), int(head)) for layer, head in zip(self.layer, self.head, strict=True)]

    @property
    def too_few(self) -> int | None:
        """How many prompts were patched, if these are too few for any p-value at the level; None if they are enough.

        Of the 2 ** n ways to choose the signs of n prompts, two are as extreme as the most extreme one.
        """
        return self.n_patched if self.cells and 2 / 2**self.n_patched > LEVEL else None

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
        return sorted(found, key=lambda head: -self.strength(head))

    def strength(self, head: int) -> float:
        """The largest effect that counts of a labelled head."""
        return float(self.acting(head)[0].effect.mean[head])

    def sources(self, head: int) -> tuple[str, ...]:
        """Where a labelled head can find the source: at its own word or at the other of the two that meet.

        A reader can find it too where it may have been brought.
        """
        own = (self.meeting.other, self.meeting.vocabulary.source or "")
        if self.label(head) == "mover":
            return own
        return (*own, *self.meeting.places, *(self.acts_at(mover) for mover in self.labelled("mover")))

    def strongest_edge(self, head: int) -> str | None:
        """The edge from where a labelled head acts to where it looks most, of the words that may hold the source."""
        edges = dict.fromkeys(f"{self.acts_at(head)}<-{word}" for word in self.sources(head))
        known = [edge for edge in edges if edge in self.attention and np.isfinite(self.attention[edge].mean[head])]
        return max(known, key=lambda edge: self.attention[edge].mean[head], default=None)


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
    return np.asarray(array.transpose("layer", ...).values, dtype=np.float64).reshape(-1)


def _recovered(
    patching: xr.Dataset | None, name: str, places: tuple[str, ...] | None = None
) -> dict[tuple[str, str], xr.Dataset]:
    """(role, direction) -> what is recovered there, for those of the places that were patched; None is every role."""
    if patching is None or name not in patching:
        return {}
    whole = summary.of(patching, name)
    roles = [str(role) for role in whole["role"].values]
    found = {}
    for role in roles if places is None else [role for role in dict.fromkeys(places) if role in roles]:
        for direction in map(str, whole["direction"].values):
            one = whole.sel(role=role, direction=direction)
            if np.isfinite(one["mean"].values).any():
                found[role, direction] = one
    return found


def _passages(
    patching: xr.Dataset | None, target: str, minimum_effect: float, seed: int
) -> tuple[Passage | None, dict[str, Passage]]:
    """What passes at the target; and the words, but for it and the answer position, where the source surely does."""
    name = "recovered_resid_pre"
    if patching is None or name not in patching:
        return None, {}
    stream = summary.of(patching, name)
    roles = [role for role in map(str, patching["role"].values) if role not in (target, ANSWER)]
    found = {
        role: Passage.of(patching, stream, role, minimum_effect, seed, level=LEVEL / len(roles)) for role in roles
    }  # each role's layers are adjusted for by themselves, the roles by Bonferroni
    at_target = Passage.of(patching, stream, target, minimum_effect, seed)
    return at_target, {role: one for role, one in found.items() if one is not None and one.passes}


def _everywhere(patching: xr.Dataset | None) -> dict[str, Estimate]:
    if patching is None or "recovered_z" not in patching:
        return {}
    whole = summary.of(patching, "recovered_z")
    directions = map(str, whole["direction"].values)
    return {way: Estimate.of(summary.effect(whole.sel(direction=way), way)) for way in directions}


def _cells(
    patching: xr.Dataset | None,
    name: str,
    recovered: Mapping[tuple[str, str], xr.Dataset],
    minimum_effect: float,
    seed: int,
) -> tuple[Cell, ...]:
    """Effects with p-values adjusted over every head or MLP, role and direction at once; ``name`` of what was patched.

    What is tested is how far each patch moves the metric, which is the top of the ratio that is shown.
    """
    if patching is None or not recovered:
        return ()
    patched = patching[name]
    moved = [
        summary.moved(
            patched.sel(role=role, direction=direction, drop=True), patching["clean"], patching["corrupted"], direction
        )
        for role, direction in recovered
    ]
    p_values = summary.p_values(xr.concat(moved, "cell").transpose("prompt", "cell", "layer", ...), seed=seed)
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
