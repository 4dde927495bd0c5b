"""``plan``: what a sweep will compute, whichever kind of sweep it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias, Unpack, cast

from interp.errors import InterpError
from interp.prompts import PromptPairs
from interp.readouts import AnyReadout
from interp.sweeps.ablation import Ablation
from interp.sweeps.exact.planner import Plan
from interp.sweeps.knockout import AttentionKnockout
from interp.sweeps.options import Precision, Where, shows
from interp.sweeps.patching import Direction, Patching
from interp.sweeps.paths import PathPatching
from interp.sweeps.reading import AnyPairs

if TYPE_CHECKING:
    from interp.model import HookedTransformer

Statement: TypeAlias = Patching | Ablation | AttentionKnockout | PathPatching
"""What a sweep is asked, as a value."""


@shows(Where)
def plan(
    model: HookedTransformer,
    pairs: AnyPairs,
    site: Statement | str | Sequence[str],
    direction: Direction | None = None,
    metric: AnyReadout | None = None,
    *,
    precision: Precision = "float32",
    memory: int | None = None,
    **where: Unpack[Where],
) -> Plan:
    """What a sweep would compute, without computing it; printing it says it in words.

    It is known from the tokens alone: rows whose activations turn out to be equal save more.

    Args:
        model: the model.
        pairs: the prompts.
        site: a site, or several: short for ``Patching`` of them with the arguments that follow. Or a statement:
            ``Patching``, ``Ablation``, ``AttentionKnockout`` or ``PathPatching``.
        direction: of ``Patching``, where a site is given; ``"denoising"`` where it is left out.
        metric: the same; ``"logit_difference"`` where it is left out.
        precision: as for the sweep itself. Knockouts and paths are computed in ``"float32"`` alone.
        memory: as for the sweep itself.
        where: which cells, where a site is given; see ``interp.sweeps.Where``.

    Returns:
        Rows, batches, floating-point operations and bytes.

    Raises:
        InterpError: what the sweep itself refuses, something that is no statement, or arguments that a statement holds
            itself.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", tokenizer=model, n=2)
    >>> planned = plan(model, pairs, "z")
    >>> planned.rows_in_all, planned.rows <= planned.rows_in_all  # 2 prompts, 4 layers, 4 heads
    (32, True)
    """
    asked: Statement
    if not isinstance(site, Statement):
        asked = Patching(
            _sites(site), direction or "denoising", "logit_difference" if metric is None else metric, where
        )
    elif where or direction is not None or metric is not None:
        raise InterpError(
            f"direction, metric and what is changed belong to the statement. Give them to {type(site).__name__}(...)."
        )
    else:
        asked = site
    match asked:
        case Patching():
            # What is no pair is refused by the plan itself.
            return asked.plan(model, cast(PromptPairs, pairs), precision=precision, memory=memory)
        case Ablation():
            return asked.plan(model, pairs, precision=precision, memory=memory)
    if precision != "float32":
        raise InterpError(f"{type(asked).__name__} is computed in float32 alone. Leave precision= out.")
    match asked:
        case AttentionKnockout():
            return asked.plan(model, pairs, memory=memory)
        case PathPatching():
            return asked.plan(model, cast(PromptPairs, pairs), memory=memory)


def _sites(asked: object) -> str | Sequence[str]:
    """What was asked for, if it names sites.

    Raises:
        InterpError: it does not.
    """
    if isinstance(asked, str) or (isinstance(asked, Sequence) and all(isinstance(one, str) for one in asked)):
        return asked
    raise InterpError(
        f"The third argument is {type(asked).__name__}. Give a statement, such as Ablation('z', 'mean'), or a site."
    )
