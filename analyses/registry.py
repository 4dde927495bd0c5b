"""The registry of analyses: of each its module, what it needs, which files it writes, and what it can be told.

The bundled ones stand in ``analyses.bundled``. Any installed package adds one by an entry point of the group
``interp.analyses`` whose value is an ``Analysis``. Nothing here loads torch, or the module of an analysis.

>>> from analyses import registry
>>> [file.name for file in registry.get("attention_lesson").files]
['attention_lesson', 'attention_patterns', 'attention_vectors']
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, TypeAlias, get_args

from analyses.options import Names, Option, check
from interp._names import component
from interp.errors import InterpError, shown, unknown_name

GROUP = "interp.analyses"
"""The group of entry points by which a package adds analyses."""

Needs = Literal["ladder", "pairs", "results"]
"""The pairs of every rung, by rung; the pairs of the rung that is explained; or results of other analyses, by file.

This is also the order in which analyses run. Only those that need the ladder run if no rung passes the gate.
"""

Settled = Literal["seed", "progress", "main", "descriptions", "not_asked", "found"]
"""Parameters of ``run`` that no option sets: the study's seed; a function told of steps done and in all; the study's
main rung; rung -> its description; analysis -> why it cannot be asked here; and file -> the result there,
for an analysis that needs the pairs and reads results too."""


@dataclass(frozen=True)
class File:
    """A result file, and the function of the analysis's module that makes it.

    Attributes:
        name: of the file, without the ending.
        function: its name. It takes what the analysis needs, and keyword parameters.
        options: keyword parameters that a study can set.
        settled: keyword parameters that the study's other keys, or the run, settle.

    >>> patterns = File("attention_patterns", "patterns", options=("prompt",))
    >>> patterns.arguments({"prompt": 3, "layer": 1})
    {'prompt': 3}
    """

    name: str
    function: str
    options: tuple[str, ...] = ()
    settled: tuple[Settled, ...] = ()

    def arguments(self, offered: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the offered keyword parameters that its function takes."""
        return {name: offered[name] for name in (*self.options, *self.settled) if name in offered}


@dataclass(frozen=True)
class Analysis:
    """What is known of an analysis without importing it.

    Attributes:
        name: as a study names it.
        module: where its function ``run`` is.
        meaning: what it asks, in one line.
        options: what a study can set: keyword parameters of ``run``.
        needs: what ``run`` takes after the model; one that needs results takes no model.
        reads: the files it reads; it runs whichever of them are there. One that needs results takes them in place of
            the pairs. One that needs the pairs takes those that were made before it as the parameter ``found``.
        settled: further keyword parameters of ``run``, which the study's other keys, or the run, settle.
        file: the result file that ``run`` makes, without the ending; by default the name of the analysis.
        further: further result files, each made by a function beside ``run``.
        asks: the options that settle, with the pairs, whether the question can be asked of them. The module's function
            ``check_askable`` takes the pairs and these, and refuses before the model is loaded. Empty: there is none.
        plans: whether the module's function ``planned``, which takes what ``run`` takes but for ``progress`` and
            ``found``, gives the plans of its sweeps.

    Raises:
        InterpError: what is declared cannot be.

    >>> from analyses.options import Number, Option
    >>> counting = Analysis(
    ...     "counting",
    ...     "my_package.counting",
    ...     "How many of them are there?",
    ...     options=(Option("most", Number("at least 1", least=1, whole=True), 10, "where to stop counting"),),
    ... )
    >>> counting.check({"most": 0})
    Traceback (most recent call last):
    interp.errors.InterpError: In analyses.counting: most is 0. Give at least 1.
    """

    name: str
    module: str
    meaning: str
    options: tuple[Option, ...] = ()
    needs: Needs = "pairs"
    reads: tuple[str, ...] = ()
    settled: tuple[Settled, ...] = ("seed", "progress")
    file: str = ""
    further: tuple[File, ...] = ()
    asks: tuple[str, ...] = ()
    plans: bool = False

    def __post_init__(self) -> None:
        component(self.name, "The name of an analysis")
        of_me = f" of the analysis {self.name}"
        if self.needs not in get_args(Needs):
            raise unknown_name("need", self.needs, get_args(Needs), of_me)
        takes_results = self.needs == "results" or (self.needs == "pairs" and "found" in self.settled)
        if bool(self.reads) != takes_results:
            raise InterpError(
                f"The analysis {self.name} must name files to read if it needs results, or needs pairs and takes "
                "'found', and only then."
            )
        for file in self.files:
            component(file.name, f"A file{of_me}")
            for name in (*file.options, *self.asks):
                if name not in self.option or name in get_args(Settled):
                    raise unknown_name("option", name, set(self.option) - set(get_args(Settled)), of_me)
            for parameter in file.settled:
                if parameter not in get_args(Settled):
                    raise unknown_name("parameter", parameter, get_args(Settled), of_me)

    @property
    def files(self) -> tuple[File, ...]:
        """The result files it writes, each with the function that makes it."""
        return (File(self.file or self.name, "run", tuple(self.option), self.settled), *self.further)

    @cached_property
    def option(self) -> Mapping[str, Option]:
        """The options by name."""
        return {option.name: option for option in self.options}

    def check(self, given: Mapping[str, object], where: str = "") -> None:
        """Refuse options that are wrong whatever the model and the prompts; ``where`` names the study's file.

        Raises:
            InterpError: names the option and what it must be.
        """
        check(self.option, given, self._place(where))

    def check_names(self, given: Mapping[str, object], names: Names, where: str = "") -> None:
        """Refuse options, of those that pass ``check``, that name what the prompts do not have.

        Raises:
            InterpError: names the option and the names that there are.
        """
        for name, value in given.items():
            self.option[name].check_names(value, names, self._place(where))

    def _place(self, where: str) -> str:
        return f"analyses.{self.name}{f' of {where}' if where else ''}"

    def function(self, name: str) -> Callable[..., Any]:
        """A function of its module, which is imported for it.

        Raises:
            InterpError: the module cannot be imported or has no such function.
        """
        try:
            found = getattr(importlib.import_module(self.module), name)
        except (ImportError, AttributeError) as error:
            raise InterpError(f"The analysis {self.name} cannot be used: {error}. Install what it needs.") from error
        if not callable(found):
            raise InterpError(f"The analysis {self.name} cannot be used: {self.module}.{name} is no function.")
        return found  # type: ignore[no-any-return]


def names() -> tuple[str, ...]:
    """Every analysis that a study may name: the bundled ones, then those of other packages.

    >>> names()[:3]
    ('behavior', 'attention_lesson', 'activation_patching')
    """
    return tuple(_sources())


def get(name: str) -> Analysis:
    """The analysis of a name.

    Raises:
        InterpError: there is none, two packages have one of this name, or an entry point is broken.

    >>> get("probing").meaning
    'At which layer, and at which word, can a linear probe read the source?'
    """
    return _only(name, _sources())


def ordered(wanted: Collection[str], where: str = "") -> dict[str, Analysis]:
    """Some analyses in the order in which they run; ``where`` they are named, for the message.

    Raises:
        InterpError: one that ``get`` refuses, or two that write the same file.

    >>> list(ordered(["context_flow", "probing", "behavior"]))
    ['behavior', 'probing', 'context_flow']
    """
    sources = _sources()
    found = {name: _only(name, sources, where) for name in wanted}
    turn, place = get_args(Needs).index, list(sources).index
    order = sorted(found, key=lambda name: (turn(found[name].needs), place(name)))
    owner: dict[str, str] = {}
    for name in order:
        for file in found[name].files:
            if owner.setdefault(file.name, name) != name:
                both = f"{owner[file.name]} and {name}"
                raise InterpError(f"The analyses {both} both write the file {shown(file.name)}. Name one only.")
    return {name: found[name] for name in order}


Source: TypeAlias = Analysis | EntryPoint


def _sources() -> dict[str, list[Source]]:
    """Where each analysis comes from, by name: the bundled ones first, then other packages' in alphabetical order.

    A package that is found twice on the path counts once.
    """
    from analyses.bundled import BUNDLED  # which declares them in the words of this module

    found: dict[str, list[Source]] = {name: [analysis] for name, analysis in BUNDLED.items()}
    entries = {(entry.name, entry.value): entry for entry in entry_points(group=GROUP)}
    for key in sorted(entries):
        found.setdefault(key[0], []).append(entries[key])
    return found


def _only(name: str, sources: Mapping[str, Sequence[Source]], where: str = "") -> Analysis:
    if name not in sources:
        raise unknown_name("analysis", name, sources, where)
    first, *others = sources[name]
    if others:
        owners = " and ".join(map(_owner, sources[name]))
        raise InterpError(f"The analysis {shown(name)} comes from {owners}. Uninstall all but one.")
    return first if isinstance(first, Analysis) else _loaded(first)


def _owner(source: Source) -> str:
    if isinstance(source, Analysis):
        return "interp"
    return source.dist.name if source.dist is not None else source.module


def _loaded(entry: EntryPoint) -> Analysis:
    """What an entry point stands for.

    Raises:
        InterpError: it cannot be imported, is no ``Analysis``, or is one of another name.
    """
    from analyses.bundled import BUNDLED

    where = f"The analysis {shown(entry.name)} of the package {_owner(entry)}"
    mend = "Install a version of that package that works, or uninstall it."
    try:
        found = entry.load()
    except Exception as error:  # whatever another package's code raises
        said = " ".join(str(error).split())
        raise InterpError(f"{where} cannot be loaded ({type(error).__name__}: {said}). {mend}") from error
    if not isinstance(found, Analysis):
        raise InterpError(f"{where} is no analyses.registry.Analysis: {entry.value} is {type(found).__name__}. {mend}")
    if found.name != entry.name:
        raise InterpError(f"{where} calls itself {shown(found.name)}: both names must be the same. {mend}")
    taken = {file.name for one in BUNDLED.values() for file in one.files}
    for file in found.files:
        if file.name in taken:
            raise InterpError(f"{where} writes the file {shown(file.name)}, which a bundled analysis does. {mend}")
    return found
