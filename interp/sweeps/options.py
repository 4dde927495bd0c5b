"""The keywords that sweeps share: which cells are changed (``Where``), and how a sweep is run (``How``).

A sweep takes them one by one: ``sweep(model, pairs, "z", roles=["color"], memory=2**30)``. A statement, such as
``Patching``, holds the first kind as one value: ``Patching("z", where=Where(roles=["color"]))``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict, TypeVar, cast

from interp.errors import unknown_name
from interp.sweeps.progress import Progress
from interp.sweeps.resume import AnyStore

Axis: TypeAlias = Literal["position", "role"]
Precision: TypeAlias = Literal["float32", "bfloat16"]
Sets: TypeAlias = Mapping[str, Sequence[tuple[int, int]]] | Mapping[str, Sequence[int]]
"""Name of a set -> its (layer, head) pairs, or its layers at sites without heads."""


class Where(TypedDict, total=False):
    """Which cells of a site are changed, one at a time. Every keyword may be left out.

    Attributes:
        axis: ``"position"`` or ``"role"``. None takes positions where all prompts line up, else roles; at sites with
            heads it takes all positions at once.
        roles: only these roles (the tokens of a role are changed together).
        positions: only these positions.
        layers: only these layers.
        window: change that many layers together, centred on each layer (cut off at the first and last).
        sets: name -> (layer, head) pairs (layers, at sites without heads) that are changed together. The axis ``set``
            then takes the place of ``layer`` and ``head``.
        neuron_groups: change ``mlp_post`` in that many groups of neighbouring neurons (axis ``neuron_group``).

    >>> from interp import HookedTransformer, tasks
    >>> from interp.sweeps import Patching, plan
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", tokenizer=model, n=2)
    >>> where = Where(roles=["color", "asked"], layers=[0, 1])
    >>> plan(model, pairs, Patching("resid_pre", where=where)).rows_in_all  # 2 prompts, 2 layers, 2 roles
    8
    """

    axis: Axis | None
    roles: Sequence[str] | None
    positions: Sequence[int] | None
    layers: Sequence[int] | int | None
    window: int
    sets: Sets | None
    neuron_groups: int | None


class Resources(TypedDict, total=False):
    """What a sweep may use, and whom it tells how far it is. Every keyword may be left out.

    Attributes:
        memory: bytes that may be used beside the model; None is half of what is free.
        store: a directory (or ``interp.store.Store``) that keeps finished rows. A sweep that was interrupted goes on
            where it stopped, and one that was finished is read.
        progress: True for a bar, or called with rows done and rows in all; a row is one prompt with one change.

    >>> from interp import HookedTransformer, tasks
    >>> from interp.sweeps import PathPatching
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", tokenizer=model, n=2)
    >>> told = []
    >>> use = Resources(memory=2**28, progress=lambda done, total: told.append(done == total))
    >>> result = PathPatching(senders=["L0H2"], receivers=["logits"]).run(model, pairs, **use)
    >>> told[-1]
    True
    """

    memory: int | None
    store: AnyStore
    progress: Progress | None


class How(Resources, total=False):
    """How a sweep is run: its ``Resources``, and its precision. Every keyword may be left out.

    Attributes:
        precision: ``"float32"`` computes in the model's own data type. ``"bfloat16"`` makes the matrix products of the
            blocks in bfloat16, for screening: effects come from it, baselines do not. The attributes
            ``screening_max_error`` and ``screening_rms_error`` (the metric's units) then say how far off a random
            sample of ``screening_rows`` rows was.

    >>> from interp import HookedTransformer, sweep, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", tokenizer=model, n=2)
    >>> how = How(precision="float32", memory=2**28)
    >>> sweep(model, pairs, "z", **how).attrs["engine"]
    'weights'
    """

    precision: Precision


class Options(Where, How, total=False):
    """All keywords: those of ``Where`` and those of ``How``.

    >>> from interp import HookedTransformer, sweep, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> options = Options(roles=["color"], layers=[0], memory=2**28)
    >>> sweep(model, pairs, "resid_pre", **options).recovered.round(3).values.tolist()  # prompt layer role
    [[[1.0]], [[1.0]]]
    """


WHERE: Where = {
    "axis": None,
    "roles": None,
    "positions": None,
    "layers": None,
    "window": 1,
    "sets": None,
    "neuron_groups": None,
}
RESOURCES: Resources = {"memory": None, "store": None, "progress": None}
HOW: How = {"precision": "float32", **RESOURCES}

Keywords = TypeVar("Keywords", Where, Resources, How)
Function = TypeVar("Function", bound=Callable[..., Any])


def completed(given: Keywords, defaults: Keywords) -> Keywords:
    """Keywords with the defaults of those that were left out.

    Raises:
        InterpError: a keyword that is not one of them.
    """
    _check_known(given, defaults)
    return cast(Keywords, {**defaults, **given})


def parted(options: Options) -> tuple[Where, How]:
    """The keywords of one call, by their two kinds.

    Raises:
        InterpError: a keyword that is of neither kind.
    """
    _check_known(options, [*WHERE, *HOW])
    where, how = ({name: options[name] for name in kind if name in options} for kind in (WHERE, HOW))  # type: ignore[literal-required]
    return cast(Where, where), cast(How, how)


def _check_known(given: Mapping[str, object], known: Mapping[str, object] | Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise unknown_name("keyword", name, known)


def shows(keywords: type) -> Callable[[Function], Function]:
    """Let ``help`` and notebooks show each of these keywords with its default, where a function takes ``**options``.

    (Editors and type checkers see them without it.)
    """
    defaults: dict[str, object] = {**WHERE, **HOW}

    def with_signature(function: Function) -> Function:
        own = inspect.signature(function)
        named = [one for one in own.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
        shared = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=defaults[name],
                annotation=getattr(hint, "__forward_arg__", hint),
            )
            for name, hint in keywords.__annotations__.items()
        ]
        function.__signature__ = own.replace(parameters=[*named, *shared])  # type: ignore[attr-defined]
        return function

    return with_signature
