"""``plan``: what a sweep will compute, whichever kind of sweep it is; ``passes``: what whole runs come to.

What ``plans_of`` decorates plans the work of another function, whose parameters are then stated once.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, Unpack, cast

from interp.errors import InterpError
from interp.prompts import PromptPairs
from interp.prompts.tokens import Prompts
from interp.readouts import AnyReadout
from interp.run import rows_per_batch
from interp.sweeps.ablation import Ablation
from interp.sweeps.exact.planner import Plan
from interp.sweeps.knockout import AttentionKnockout
from interp.sweeps.options import Precision, Where, shows
from interp.sweeps.patching import Direction, Patching
from interp.sweeps.paths import PathPatching
from interp.sweeps.reading import AnyPairs
from interp.sweeps.through_hooks import layer_flop

if TYPE_CHECKING:
    from interp.model import HookedTransformer

COSTLY = 1e9
"""Operations of one run of one prompt from which on some analyses do less, unless they are told how much."""

Planned = TypeVar("Planned", bound=Callable[..., Any])

Statement: TypeAlias = Patching | Ablation | AttentionKnockout | PathPatching
"""What a sweep is asked, as a value."""


@dataclass(frozen=True)
class Timed:
    """Work whose time was measured once: its models are too small for operations to say how long it takes.

    Attributes:
        rows: how many of what is timed.
        seconds: of all of them, about, on one core.
        flop: too few to count.
        peak_bytes: too few to count.

    >>> Timed(rows=200, seconds=300).rows_in_all
    200
    """

    rows: int
    seconds: float
    flop: float = 0.0
    peak_bytes: int = 0

    @property
    def rows_in_all(self) -> int:
        """The same: none is left out."""
        return self.rows

    @property
    def batches(self) -> int:
        """One for each."""
        return self.rows


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


def passes(
    model: HookedTransformer,
    prompts: Prompts,
    *,
    forward: float = 1,
    backward: float = 0,
    unembedded: float = 1,
    besides: float = 0.0,
) -> Plan:
    """What whole runs of some prompts come to: the plan of what is no sweep.

    Args:
        model: the model.
        prompts: what is run.
        forward: runs of each prompt; half a run is one that stops halfway up.
        backward: runs of each prompt that are differentiated. Weights have no gradient, so that one makes about as many
            products as a forward run.
        unembedded: tokens of each run whose logits are computed.
        besides: floating-point operations of what is computed from the runs.

    Returns:
        A plan whose rows are runs of one prompt. Memory is that of one batch, from above.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", tokenizer=model, n=2)
    >>> once, with_gradient = passes(model, pairs.clean), passes(model, pairs.clean, backward=1)
    >>> once.rows, with_gradient.flop / once.flop
    (2, 2.0)
    """
    cfg, n, length = model.cfg, len(prompts), int(prompts.ids.shape[1])
    size = min(n, rows_per_batch(model, length))
    each = _layer(model, length) * cfg.n_layers + 2.0 * cfg.d_model * cfg.vocab_out * unembedded
    runs = n * (forward + backward)
    held = length * (8 * cfg.d_model + 2 * cfg.d_mlp + 3 * cfg.n_heads * length)
    graph = cfg.n_layers * length * (12 * cfg.d_model + 4 * cfg.d_mlp + 5 * cfg.n_heads * length) if backward else 0
    return Plan(
        site="whole runs",
        rows_in_all=math.ceil(runs),
        rows=math.ceil(runs),
        chunks=(n,),
        batches=math.ceil(runs / size),
        flop=runs * each + besides,
        peak_bytes=int(model.dtype.itemsize * (size * held + graph + size * unembedded * cfg.vocab_out)),
        tokens_per_batch=size * length,
    )


def costly(model: HookedTransformer, prompts: PromptPairs | Prompts) -> bool:
    """Whether one run of one prompt takes more than ``COSTLY`` operations: 20 tokens of a model as large as GPT-2 do.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> costly(model, tasks.build("color-noun", "recall", tokenizer=model, n=1))
    False
    """
    texts = prompts.clean if isinstance(prompts, PromptPairs) else prompts
    return passes(model, texts.select([0])).flop > COSTLY


def plans_of(run: Callable[..., Any]) -> Callable[[Planned], Planned]:
    """A decorator: the function takes what ``run`` takes but for ``progress`` and ``found``, with its defaults.

    It names the parameters that it needs, and is given those.

    >>> def run(model, pairs, *, sites=("z",), layers=None, progress=None): ...
    >>> @plans_of(run)
    ... def planned(pairs, sites):
    ...     return [len(pairs), sites]
    >>> planned("a model", "pairs")
    [5, ('z',)]
    >>> import inspect
    >>> print(inspect.signature(planned))
    (model, pairs, *, sites=('z',), layers=None)
    """
    taken = [one for one in inspect.signature(run).parameters.values() if one.name not in ("progress", "found")]
    signature = inspect.Signature(taken)

    def decorated(function: Planned) -> Planned:
        needed = inspect.signature(function).parameters

        @functools.wraps(function)
        def planned(*arguments: Any, **options: Any) -> Any:
            given = signature.bind(*arguments, **options)
            given.apply_defaults()
            return function(**{name: value for name, value in given.arguments.items() if name in needed})

        planned.__signature__ = signature  # type: ignore[attr-defined]
        return cast(Planned, planned)

    return decorated


def _layer(model: HookedTransformer, length: int) -> float:
    """Operations of one layer for one prompt, attention to what comes later among them."""
    if model.blocks is None:
        return layer_flop(model, length)
    of_scores = 4.0 * model.cfg.n_heads * model.cfg.d_head * length**2
    return sum(model.blocks.flop_per_token().values()) * length + of_scores


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
