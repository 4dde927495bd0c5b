"""``ablation_sweep``: what the answer loses without a site, cell by cell. It needs no second prompt."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Unpack

import xarray as xr
from torch import Tensor

from interp import run
from interp._arguments import check_scored
from interp.ablation import Reference
from interp.interventions import AblationKind, check_ablation
from interp.prompts.tokens import Prompts
from interp.readouts import AnyReadout
from interp.sweeps.cells import Cells, patch_cells
from interp.sweeps.engine import Term, plan_terms, run_terms
from interp.sweeps.exact.planner import Plan
from interp.sweeps.labels import effect_of_change, how_computed
from interp.sweeps.options import How, Options, Precision, Where, parted, shows
from interp.sweeps.reading import AnyPairs, Which, check_one_part, checked_reading, run_named
from interp.sweeps.statement import Sweep

if TYPE_CHECKING:
    from interp.model import HookedTransformer

log = logging.getLogger(__name__)


@shows(Options)
def ablation_sweep(
    model: HookedTransformer,
    pairs: AnyPairs,
    site: str,
    kind: AblationKind,
    metric: AnyReadout = "logit_difference",
    *,
    which: Which = "clean",
    references: Prompts | None = None,
    seed: int = 0,
    **options: Unpack[Options],
) -> xr.Dataset:
    """Ablate every cell of a site, one at a time, and report the metric without it.

    Args:
        model: the model.
        pairs: prompts with their answers: ``PromptPairs``, or ``AnsweredPrompts``, which have no corrupted half.
        site: as in ``sweep``.
        kind: ``zero`` (in the numerics in force); ``zero_raw`` (what is zero in the raw model: differs at ``v`` and
            ``z`` of models whose values or norms have biases); ``mean`` (over the references: per position where all
            have one length, else over all tokens); or ``resample`` (a reference of equal length with other tokens,
            drawn with ``seed``). As ``interp.interventions.Ablate``.
        metric: a name from ``interp.readouts``, or a read-out.
        which: ablate the clean or the corrupted run.
        references: prompts that ``mean`` and ``resample`` are made of; None is the prompts that are ablated.
        seed: of the resample.
        options: as in ``sweep``: which cells (``interp.sweeps.Where``), and how it is run (``interp.sweeps.How``).

    Returns:
        ``ablated`` (prompt, layer, ...) and ``unchanged`` (prompt) in the metric's units, and ``ablation_effect`` =
        ablated - unchanged: negative where the site helps. The attribute ``does_not_vary`` names places at which the
        reference is every prompt's own activation (the same tokens up to there), where the effect is 0 by construction.

    Raises:
        InterpError: an unknown site, kind, metric or role; a prompt that no other can be resampled for; references that
            vary at no place.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> effect = ablation_sweep(model, pairs, "z", "zero", layers=[1])
    >>> (effect.ablation_effect.mean("prompt") < -5).values.tolist()  # in logits: without its first head all is lost
    [[True, False, False, False]]
    """
    where, how = parted(options)
    return Ablation(site, kind, metric, which, references, seed, where).run(model, pairs, **how)


@dataclass(frozen=True)
class Ablation:
    """The statement of an ablation sweep: what ``ablation_sweep`` is asked, of any model and any prompts.

    Attributes:
        site: what is ablated.
        kind: what takes its place: ``zero``, ``zero_raw``, ``mean`` or ``resample``.
        metric: a name from ``interp.readouts``, or a read-out.
        which: the run that is ablated, ``"clean"`` or ``"corrupted"``.
        references: prompts that ``mean`` and ``resample`` are made of; None is the prompts that are ablated.
        seed: of the resample.
        where: which cells are ablated.

    >>> from interp import HookedTransformer, tasks
    >>> from interp.sweeps import Ablation, Where, plan
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", tokenizer=model, n=2)
    >>> asked = Ablation("z", "mean", where=Where(layers=[1]))
    >>> plan(model, pairs, asked).rows_in_all  # 2 prompts, 4 heads
    8
    >>> asked.run(model, pairs).attrs["ablation_kind"]
    'mean'
    """

    site: str
    kind: AblationKind
    metric: AnyReadout = "logit_difference"
    which: Which = "clean"
    references: Prompts | None = None
    seed: int = 0
    where: Where = field(default_factory=Where)

    def plan(
        self,
        model: HookedTransformer,
        pairs: AnyPairs,
        *,
        precision: Precision = "float32",
        memory: int | None = None,
    ) -> Plan:
        """What ``run`` would compute."""
        wanted, reference = self._resolved(model, pairs)
        _unvaried(reference, wanted.cells)
        if reference.donors is not None:
            wanted = replace(wanted, source=reference.donors)
        return plan_terms(model, [Term(1.0, (wanted,))], precision=precision, memory=memory)

    def run(self, model: HookedTransformer, pairs: AnyPairs, **how: Unpack[How]) -> xr.Dataset:
        """What ``ablation_sweep`` returns."""
        wanted, reference = self._resolved(model, pairs)
        same = _unvaried(reference, wanted.cells)
        wanted = replace(wanted, source=_new(model, wanted, reference), origin=_origin(reference))
        ((found, screening),) = run_terms(model, [Term(1.0, (wanted,))], **how)
        return effect_of_change(
            model, pairs, found, "ablated", self.metric, wanted.cells,
            title=f"{self.kind} ablation of {self.site}",
            question=f"What does the answer lose without {self.site}?",
            source="Wang et al. 2022, arXiv 2211.00593; Zhang and Nanda 2023, arXiv 2309.16042",
            seed=self.seed,
            extra={
                "site": self.site, "ablation_kind": self.kind, "run": self.which,
                "window": self.where.get("window", 1),
                "does_not_vary": ", ".join(map(str, same)) or "nowhere",
                **how_computed(found, screening),
            },
        )  # fmt: skip

    def _resolved(self, model: HookedTransformer, pairs: AnyPairs) -> tuple[Sweep, Reference]:
        """The sweep, with nothing yet to replace the activations by, and what that will be made of."""
        check_scored(model, pairs)
        base = run_named(pairs, self.which)
        check_ablation(self.kind)
        check_one_part(pairs, self.metric)
        cells = patch_cells(model, pairs, self.site, self.where)
        wanted = Sweep(base, self.site, cells, checked_reading(model, pairs, self.metric), {})
        wanted = replace(wanted, layers_before=max(wanted.layers) + 1 if self.kind == "mean" else 0, origin=self.kind)
        return wanted, Reference.of(model, base, self.kind, seed=self.seed, references=self.references)


def _new(model: HookedTransformer, wanted: Sweep, reference: Reference) -> Prompts | dict[int, Tensor]:
    """What the activations are replaced by: another prompt's, or a constant per layer."""
    if reference.donors is not None:
        return reference.donors
    return reference.constants(model, wanted.site, wanted.layers, run.in_batches)


def _origin(reference: Reference) -> str:
    """How a constant source is made of the base prompts, for a store."""
    own = reference.references is reference.prompts
    return reference.kind if own else f"{reference.kind} of {reference.references.sha256()}"


def _unvaried(reference: Reference, cells: Cells) -> list[Any]:
    """The places at which the reference does not vary, which are warned of.

    Raises:
        InterpError: it varies at none.
    """
    labels = next((cells.coords[dim] for dim in ("position", "role") if dim in cells.dims), ["every token"])
    same = reference.check_varies(cells.tokens.numpy(), labels)
    if same:
        log.warning(
            "The reference of the '%s' ablation does not vary at %s: all prompts have the same tokens up to there, so "
            "the effect is 0.", reference.kind, ", ".join(map(str, same)),
        )  # fmt: skip
    return same
