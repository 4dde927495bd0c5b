"""Attribution patching: what replacing an activation would do to the answer, from the gradient at that activation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import sites
from interp._arguments import check_pairs
from interp.attribution.audit import DEFAULT, Audit, Exact
from interp.attribution.gradients import Differentiable, Place, Tape, at_value, differentiating
from interp.attribution.result import Estimates, Part, Question, check_gradient, check_method, in_products, labelled
from interp.errors import InterpError
from interp.prompts import PromptPairs
from interp.readouts import AnyReadout
from interp.results import Variable
from interp.sweeps import (
    Axis,
    Cells,
    Direction,
    Meter,
    Progress,
    Reading,
    Where,
    described,
    patch_cells,
    sweep,
    token_coords,
)

if TYPE_CHECKING:
    from interp.model import HookedTransformer

Method: TypeAlias = Literal["gradient", "integrated", "atp*"]

QK_SITES = ("q", "k")
"""Sites whose effect "atp*" takes through the softmax exactly."""

SOURCES = {
    "gradient": "Nanda 2023, attribution patching",
    "integrated": "Sundararajan et al. 2017, arXiv 1703.01365; Marks et al. 2024, arXiv 2403.19647",
    "atp*": "Kramar et al. 2024, arXiv 2403.00745",
}


@differentiating
def attribution_patching(
    model: HookedTransformer,
    pairs: PromptPairs,
    site: str,
    direction: Direction = "denoising",
    metric: AnyReadout = "logit_difference",
    *,
    axis: Axis | None = None,
    roles: Sequence[str] | None = None,
    positions: Sequence[int] | None = None,
    layers: Sequence[int] | int | None = None,
    method: Method = "gradient",
    steps: int = 5,
    graddrop: bool = True,
    audit: Audit | None = DEFAULT,
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Estimate every cell of ``sweep(model, pairs, site, direction, metric, ...)`` from gradients.

    With base the run that is patched and source the run whose activations are patched in, an activation's estimate is
    ``(source - base) . d metric / d activation``, summed over the tokens and heads of the cell. Methods differ in
    where the gradient is taken:

    * ``"gradient"``: on the base run.
    * ``"integrated"``: averaged over ``base + a (source - base)``, a = (i + 1/2) / steps. The path moves the whole
      activation of one layer, all tokens and heads together, and leaves everything before it at base; so the cells of
      a layer that cover it add up to the exact effect of replacing all of it (with steps to infinity), and steps x
      layers passes are run. (EAP-IG's code takes one end of each interval, with the same limit.)
    * ``"atp*"``: on the base run. At ``q`` and ``k`` the attention pattern is computed again with the cell's patched
      queries or keys and the estimate is ``(new pattern - base pattern) . d metric / d pattern`` (the QK fix), which is
      exact up to the head's own output. Besides, at every site, ``graddrop`` = sum over layers l of abs(estimate
      without the gradient through what the attention and the MLP of layer l write) / (n_layers - 1): large where
      ``estimated_effect`` is small because direct and indirect effects cancel. A cell inside layer l has no other
      gradient, so that one of the n_layers terms is 0; a stream site has none such and divides by n_layers.

    Args:
        model: the model.
        pairs: clean and corrupted prompts. Whole answers (``sum_logprob``) are estimated by role.
        site: any site that ``sweep`` patches.
        direction: ``"denoising"`` or ``"noising"``.
        metric: a name from ``interp.readouts`` or a read-out, of those with a gradient.
        axis: as for ``sweep``.
        roles: as for ``sweep``.
        positions: as for ``sweep``.
        layers: as for ``sweep``.
        method: see above.
        steps: of ``"integrated"``.
        graddrop: of ``"atp*"``: whether to take ``graddrop`` too, with one more backward pass for each layer.
            The estimates are the same without it.
        audit: what is patched exactly to check the estimates; None checks nothing.
        seed: of the audit's random sample.
        progress: True for a bar, or called with passes done and passes in all, a pass being one prompt forward and
            backward.

    Returns:
        The dims and coordinates of ``sweep``: ``estimated_effect`` (change of the metric, its units), ``estimated`` =
        unpatched + ``estimated_effect`` (to compare with ``patched``), ``recovered`` from it, ``clean`` and
        ``corrupted``; ``audited`` and ``exact_effect`` (NaN where not audited), figures of the audit as ``audit_...``
        attributes, of which ``audit_use`` says what the estimates are good for (``numbers``, ``ranking``, ``nothing``),
        and ``trusted``: 1 for numbers, else 0. ``graddrop`` for ``"atp*"``, if asked for.

    Raises:
        InterpError: what ``sweep`` refuses, an unknown method, a metric without a gradient, or a model whose
            arithmetic the method needs and does not have (``"atp*"`` at q and k).

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> estimate = attribution_patching(model, pairs, "z", audit=None)
    >>> (estimate.estimated_effect.mean("prompt") > 5).values[:2].tolist()  # logits, layer head: L0H2 and L1H0
    [[False, False, True, False], [True, False, False, False]]
    """
    check_pairs(model, pairs)
    check_method(method, get_args(Method), steps)
    check_gradient(metric, direction, at_base=method != "integrated")
    model.check_editable(site)
    question = Question.of(model, pairs, direction, metric)
    if question.whole_answers and (axis == "position" or positions is not None):
        raise InterpError("With whole answers (sum_logprob) prompts end at different places: estimate by role.")
    if question.whole_answers and axis is None and roles is None and not sites.site(site).has_heads:
        axis = "role"
    where = Where(axis=axis, roles=roles, positions=positions, layers=layers)
    dropping = graddrop and method == "atp*"
    plans = [_Plan.of(model, part, site, method, steps, where, dropping) for part in question.parts]
    total = sum(plan.n_passes for plan in plans)
    report = Meter(progress, total).add
    found = [plan.estimate(report) for plan in plans]
    passes = sum(part.sign * one for part, (one, _) in zip(question.parts, found, strict=True))
    cells = plans[0].cells
    effects = np.asarray(passes).reshape(-1, len(pairs), *cells.shape)
    variables = {}
    if dropping:
        dims, (_, units) = ("prompt", *cells.dims), described(pairs, metric)
        meaning = "mean absolute estimate with a layer dropped"
        variables["graddrop"] = Variable(dims, _graddrop(effects, site), units, meaning)
    return labelled(
        question,
        Estimates(
            effect=effects[0],
            eligible=np.logical_or.reduce([eligible for _, eligible in found]).reshape(cells.shape),
            dims=cells.dims,
            coords=token_coords(pairs, cells),
            exact=_exact(question, site, cells),
        ),
        audit,
        what=site,
        method=method,
        reading="estimated_effect: first-order change of the metric by the patch; recovered: 0 corrupted, 1 clean.",
        source=SOURCES[method],
        seed=seed,
        extra={"site": site, "steps": steps if method == "integrated" else 1},
        variables=variables,
    )


def _graddrop(effects: Float[np.ndarray, "pass ..."], site: str) -> Float[np.ndarray, ...]:
    """Mean absolute estimate over the passes with one layer dropped (all but the first)."""
    n_layers = len(effects) - 1
    own = 0 if sites.site(site).is_stream else 1
    return np.asarray(np.abs(effects[1:]).sum(axis=0) / max(n_layers - own, 1))


@dataclass(frozen=True)
class _Plan:
    """The estimates of one reading.

    Attributes:
        engine: the model.
        part: the reading and the two runs.
        site: what is patched.
        cells: every cell.
        layers: their layers.
        method: how the gradient is taken.
        steps: of "integrated".
        dropping: whether gradients are taken with each layer dropped too.
    """

    engine: Differentiable
    part: Part
    site: str
    cells: Cells
    layers: tuple[int, ...]
    method: str
    steps: int
    dropping: bool

    @classmethod
    def of(
        cls, model: HookedTransformer, part: Part, site: str, method: str, steps: int, where: Where, dropping: bool
    ) -> _Plan:
        cells = patch_cells(model, part.pairs, site, where)
        read = part.reading.inside
        engine = Differentiable.of(model, site, *(() if read is None else (read.site,)))
        plan = cls(engine, part, site, cells, tuple(cells.coords["layer"]), method, steps, dropping)
        if plan.fixed:
            engine.pieces("The QK fix")
        return plan

    @property
    def reached(self) -> list[int]:
        """Layers at which a change can reach what is read."""
        place = self.part.reading.readout.place
        return [layer for layer in self.layers if place is None or place.reached_by(self.site, layer)]

    @property
    def fixed(self) -> list[int]:
        """Layers whose effect is taken through the softmax: there is none before queries or keys that are read."""
        if self.method != "atp*" or self.site not in QK_SITES:
            return []
        place = self.part.reading.readout.place
        return [layer for layer in self.reached if place is None or place.reached_by("pattern", layer)]

    @property
    def n_drops(self) -> int:
        return self.engine.model.cfg.n_layers if self.dropping else 0

    @property
    def n_passes(self) -> int:
        per_prompt = self.steps * len(self.layers) if self.method == "integrated" else 1 + self.n_drops
        return per_prompt * len(self.part.base)

    def estimate(
        self, report: Callable[[int], None]
    ) -> tuple[Float[np.ndarray, "pass prompt cell"], Bool[np.ndarray, " cell"]]:
        """Estimates of the whole gradient and, for "atp*", of those with one layer dropped; and the eligible cells."""
        out, eligible = [], np.zeros(len(self.cells), dtype=bool)
        cfg, length = self.engine.model.cfg, self.part.base.ids.shape[1]
        grids = (self.n_drops + 1) * len(self.fixed)
        for rows in self.engine.batches(self.part.base, more=grids * cfg.n_heads * length**2):
            batch = _Batch.of(self, rows)
            out.append(torch.stack([_flat(effects) for effects in batch.passes(report)]).double().cpu().numpy())
            eligible |= _flat(batch.differs()).any(dim=0).cpu().numpy()
        return np.concatenate(out, axis=1), eligible


def _flat(per_layer: Sequence[Tensor]) -> Float[Tensor, "prompt cell"]:
    """Layers' [prompt, head, place] in the order of the cells."""
    return torch.stack(list(per_layer), dim=1).flatten(1)


@dataclass(frozen=True)
class _Batch:
    """Some of the prompts.

    Attributes:
        plan: what is estimated.
        rows: which prompts.
        ids: the base run's tokens.
        reading: what is measured of them.
        tokens: which of them each place of the cells covers.
        base: activations of the base run.
        source: those of the other run.
    """

    plan: _Plan
    rows: Int[np.ndarray, " prompt"]
    ids: Int[Tensor, "prompt position"]
    reading: Reading
    tokens: Bool[Tensor, "place prompt position"]
    base: dict[Place, Tensor]
    source: dict[Place, Tensor]

    @classmethod
    def of(cls, plan: _Plan, rows: Int[np.ndarray, " prompt"]) -> _Batch:
        part, index = plan.part, torch.from_numpy(rows)
        wanted = QK_SITES if plan.fixed else (plan.site,)
        places = [(site, layer) for site in wanted for layer in plan.layers]
        ids, other = (torch.from_numpy(np.array(run.ids[rows])) for run in (part.base, part.source))
        reading = part.reading.rows(index).with_known(plan.engine.model)
        base, source = (plan.engine.activations(tokens, places) for tokens in (ids, other))
        return cls(plan, rows, ids, reading, plan.cells.tokens[:, index].to(plan.engine.model.device), base, source)

    def differs(self) -> list[Bool[Tensor, "prompt head place"]]:
        """Per layer, the cells in which some activation that can reach the answer differs between the runs."""
        found = []
        for layer in self.plan.layers:
            place = (self.plan.site, layer)
            changed = self._per_token((self.base[place] != self.source[place]).float(), None)
            found.append(self._cells(changed * self._reaching(layer)) > 0)
        return found

    def _reaching(self, layer: int) -> Float[Tensor, "prompt position one"]:
        """Which tokens can still reach the answer: 1 or 0.

        After the attention of the last layer only the scored positions can. Where an activation is read instead of an
        answer, that is the last attention that comes before it, and what comes after it reaches nothing.
        """
        reaching = torch.ones(*self.ids.shape, device=self.tokens.device)
        place = self.reading.readout.place
        n_layers = self.plan.engine.model.cfg.n_layers if place is None else place.n_attentions
        if layer not in self.plan.reached:
            return torch.zeros_like(reaching).unsqueeze(-1)
        if layer == n_layers or (layer == n_layers - 1 and not sites.site(self.plan.site).later_tokens_read):
            scored = self.reading.positions.to(reaching.device)
            reaching = torch.zeros_like(reaching).scatter_(1, scored, 1.0)
        return reaching.unsqueeze(-1)

    def passes(self, report: Callable[[int], None]) -> Iterator[list[Float[Tensor, "prompt head place"]]]:
        """The effects of each layer, once for every gradient that the method takes."""
        if self.plan.method not in get_args(Method):
            raise InterpError(f"Where method '{self.plan.method}' takes its gradients is not written here.")
        if self.plan.method == "integrated":
            yield [self._integrated(layer, report) for layer in self.plan.layers]
            return
        fixed = self.plan.fixed
        watched = [("pattern" if layer in fixed else self.plan.site, layer) for layer in self.plan.reached]
        tape = self.plan.engine.record(self.ids, self.reading, watched, droppable=self.plan.n_drops > 0)
        found: list[dict[int, Tensor]] = []  # per gradient, by layer
        at_patterns = []
        for drop in (None, *range(self.plan.n_drops)):
            gradient = tape.gradient(drop=drop)
            report(len(self.rows))
            found.append(
                {layer: self._first_order(layer, gradient) for layer in self.plan.layers if layer not in fixed}
            )
            at_patterns.append({layer: gradient["pattern", layer] for layer in fixed})
        for layer in fixed:
            effects = self._through_softmax(layer, tape, [at_pattern[layer] for at_pattern in at_patterns])
            for of_layers, effect in zip(found, effects, strict=True):
                of_layers[layer] = effect
        yield from ([of_layers[layer] for layer in self.plan.layers] for of_layers in found)

    def _integrated(self, layer: int, report: Callable[[int], None]) -> Float[Tensor, "prompt head place"]:
        place = (self.plan.site, layer)
        if layer not in self.plan.reached:
            report(self.plan.steps * len(self.rows))
            return self._first_order(layer, {})
        total = torch.zeros_like(self.base[place])
        for step in range(self.plan.steps):
            share = (step + 0.5) / self.plan.steps
            between = torch.lerp(self.base[place], self.source[place], share)
            tape = self.plan.engine.record(self.ids, self.reading, [place], edits={place: at_value(between)})
            total += tape.gradient()[place] / self.plan.steps
            report(len(self.rows))
        return self._first_order(layer, {place: total})

    def _first_order(self, layer: int, gradients: Mapping[Place, Tensor]) -> Float[Tensor, "prompt head place"]:
        """The change times its gradient; 0 at a layer that comes after what is read, which has none."""
        place = (self.plan.site, layer)
        gradient = gradients.get(place, torch.zeros_like(self.base[place]))
        return self._cells(self._per_token(self.source[place] - self.base[place], gradient))

    def _per_token(self, change: Tensor, gradient: Tensor | None) -> Float[Tensor, "prompt position head"]:
        """The change, times its gradient, summed over features; one head where the site has none."""
        site = sites.site(self.plan.site)
        value = change if gradient is None else change * gradient
        if site.is_pattern:
            return value.sum(dim=-1).transpose(1, 2)
        return value.sum(dim=-1, keepdim=not site.has_heads)

    def _cells(self, per_token: Float[Tensor, "prompt position head"]) -> Float[Tensor, "prompt head place"]:
        return torch.einsum("psh,tps->pht", per_token, self.tokens.to(per_token.dtype))

    # ---- the QK fix ----

    def _through_softmax(
        self, layer: int, tape: Tape, gradients: Sequence[Float[Tensor, "prompt head dest src"]]
    ) -> Float[Tensor, "gradient prompt head place"]:
        """The change of the attention pattern, computed exactly, times each gradient at the pattern."""
        at_pattern = torch.stack(list(gradients))
        columns = []
        for place in range(len(self.tokens)):
            change = self._pattern(layer, place) - tape.values["pattern", layer]
            by_query_head = torch.einsum("phds,gphds->gph", change, at_pattern)
            n_heads = self.plan.engine.model.n_heads_of(self.plan.site)
            columns.append(by_query_head.reshape(*by_query_head.shape[:2], n_heads, -1).sum(dim=-1))
        return torch.stack(columns, dim=-1)

    def _pattern(self, layer: int, place: int) -> Float[Tensor, "prompt head dest src"]:
        """The pattern of every head with the queries or keys of one place patched; heads do not see one another."""
        blocks = self.plan.engine.pieces("The QK fix")
        at, length = (self.plan.site, layer), self.ids.shape[1]
        patched = torch.where(self.tokens[place][:, :, None, None], self.source[at], self.base[at])
        now = {"q": self.base["q", layer], "k": self.base["k", layer], self.plan.site: patched}
        positions = torch.arange(length, device=patched.device)
        q, k = (blocks.rotate(now[name], positions, length) for name in QK_SITES)
        future = positions[:, None] < positions[None, :]
        return blocks.scores(q, k).masked_fill(future, -torch.inf).softmax(dim=-1)


# ---- the audit's exact effects ----


def _exact(question: Question, site: str, cells: Cells) -> Exact:
    """Exact effects of chosen cells; a unit is a layer, or a head of one."""
    place_dim = cells.dims[-1] if cells.dims[-1] in ("position", "role") else None
    labels, n_places = (cells.coords[place_dim], cells.shape[-1]) if place_dim else ([], 1)

    def run(unit: Int[np.ndarray, " unit"], place: Int[np.ndarray, " place"]) -> Float[np.ndarray, "prompt unit place"]:
        parts = [cells.parts[index * n_places][0] for index in unit]
        members = [(part.layer, *part.units) if part.units else part.layer for part in parts]
        asked: dict[str, Any] = {"sets": {str(member): [member] for member in members}}
        if place_dim is not None:
            asked |= {"axis": place_dim, f"{place_dim}s": [labels[index] for index in place]}
        found = sweep(
            question.model, question.pairs, site, question.direction, question.readout, minimum_gap=0.0, **asked
        )
        return question.effect_of(found).reshape(-1, len(unit), len(place))

    return lambda chosen: in_products(chosen, n_places, run)
