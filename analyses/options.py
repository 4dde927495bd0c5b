"""What an analysis can be told: an option's name, kind, default and meaning, checked before a model is loaded.

A kind says which values from a YAML file are right, in words and as JSON schema, and which of them name a place in the
prompts. Nothing here loads torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from interp.errors import InterpError, nearest, shown, unknown_name

Schema = dict[str, Any]
"""A JSON schema."""


@dataclass(frozen=True)
class Names:
    """What the prompts of one rung have that can be named.

    Attributes:
        rung: the rung's name.
        roles: its roles.
        slots: the slots whose word every prompt has.

    >>> Names("two", roles=("noun", "answer")).roles
    ('noun', 'answer')
    """

    rung: str
    roles: tuple[str, ...]
    slots: tuple[str, ...] = ()


Named = Iterator[tuple[str, tuple[str, ...]]]
"""Names of places in the prompts, each with the names that there are."""


class Kind(Protocol):
    """The values that an option may have.

    A kind of your own is any class that has these:

    >>> class Even:
    ...     words = "an even number"
    ...
    ...     def fits(self, value):
    ...         return isinstance(value, int) and value % 2 == 0
    ...
    ...     def fault(self, value, name):
    ...         return ""
    ...
    ...     def named(self, value, names):
    ...         return iter(())
    ...
    ...     def schema(self):
    ...         return {"type": "integer", "multipleOf": 2}
    >>> Option("n", Even(), 2, "how many").check(3, "analyses.mine")
    Traceback (most recent call last):
    interp.errors.InterpError: 'n' in analyses.mine must be an even number, not 3.
    """

    @property
    def words(self) -> str:
        """What it is, as a message says it: ``a whole number``."""
        ...

    def fits(self, value: object) -> bool:
        """Whether a value is of this kind at all."""
        ...

    def fault(self, value: Any, name: str) -> str:
        """What is wrong with a value that fits, as a sentence; empty if nothing is."""
        ...

    def named(self, value: Any, names: Names) -> Named:
        """The names in a value that fits; nothing for a kind that names no place in the prompts."""
        ...

    def schema(self) -> Schema:
        """The JSON schema of the values."""
        ...


class _Plain:
    """A kind that names no place in the prompts."""

    def named(self, value: Any, names: Names) -> Named:
        """Nothing."""
        return iter(())


@dataclass(frozen=True)
class Flag(_Plain):
    """True or false.

    >>> Flag().fits(True), Flag().fits("yes")
    (True, False)
    """

    words = "true or false"

    def fits(self, value: object) -> bool:
        """Whether it is a boolean."""
        return isinstance(value, bool)

    def fault(self, value: bool, name: str) -> str:
        """Nothing: both are right."""
        return ""

    def schema(self) -> Schema:
        """A boolean."""
        return {"type": "boolean"}


@dataclass(frozen=True)
class Number(_Plain):
    """A finite number in a range.

    Attributes:
        range: what to give, in words, where there is a range: ``a fraction between 0 and 1``.
        least: the smallest.
        most: the largest.
        above: what it must exceed.
        below: what it must stay below.
        whole: whether it is a whole number.

    >>> share = Number("a fraction between 0 and 1", least=0, most=1)
    >>> share.fits("half"), share.fault(2, "minimum_gap")
    (False, 'minimum_gap is 2. Give a fraction between 0 and 1.')
    >>> share.schema()
    {'type': 'number', 'minimum': 0, 'maximum': 1}
    """

    range: str = ""
    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    whole: bool = False

    @property
    def words(self) -> str:
        """A number, whole or not."""
        return "a whole number" if self.whole else "a number"

    def fits(self, value: object) -> bool:
        """Whether it is a finite number; a boolean is none."""
        if isinstance(value, int):
            return not isinstance(value, bool)
        return isinstance(value, float) and not self.whole and math.isfinite(value)

    def fault(self, value: float, name: str) -> str:
        """Says so if it is out of range."""
        inside = self.least <= value <= self.most and self.above < value < self.below
        return "" if inside else f"{name} is {shown(value)}. Give {self.range}."

    def schema(self) -> Schema:
        """A number or integer with its limits."""
        limits = {
            "minimum": self.least,
            "maximum": self.most,
            "exclusiveMinimum": self.above,
            "exclusiveMaximum": self.below,
        }
        kind = {"type": "integer" if self.whole else "number"}
        return {**kind, **{key: limit for key, limit in limits.items() if math.isfinite(limit)}}


@dataclass(frozen=True)
class Text(_Plain):
    """A text: any, one of a list, or one of a form.

    Attributes:
        choices: the texts that are right; empty is any.
        read: raises InterpError for a text that is not among ``choices``, with what it can say of it; None where the
            list of choices says enough.
        form: a regular expression for the whole text, instead of choices.
        like: the form in words, and an example.

    >>> direction = Text(("denoising", "noising"))
    >>> direction.words, direction.fits("sideways")
    ('one of denoising, noising', False)
    >>> Text(form=r".+<-.+", like=("destination<-source", "noun<-color")).fault("noun", "edges")
    "edges has 'noun', which is not destination<-source. Write it like 'noun<-color'."
    """

    choices: tuple[str, ...] = ()
    read: Callable[[str], object] | None = None
    form: str = ""
    like: tuple[str, str] = ("text", "")

    @property
    def words(self) -> str:
        """One of the choices, unless ``read`` can say more; else the form, or just text."""
        return f"one of {', '.join(self.choices)}" if self.choices and self.read is None else self.like[0]

    def fits(self, value: object) -> bool:
        """Whether it is a text, and among the choices unless ``read`` can say more."""
        return isinstance(value, str) and (not self.choices or self.read is not None or value in self.choices)

    def fault(self, value: str, name: str) -> str:
        """What ``read`` says, or that it has another form."""
        if self.form and not re.fullmatch(self.form, value):
            return f"{name} has {shown(value)}, which is not {self.like[0]}. Write it like {self.like[1]!r}."
        if self.read is not None:
            try:
                self.read(value)
            except InterpError as error:
                return str(error)
        return ""

    def schema(self) -> Schema:
        """A string, one of a list, or of a form."""
        if self.choices:
            return {"enum": list(self.choices)}
        return {"type": "string", **({"pattern": f"^{self.form}$"} if self.form else {})}


@dataclass(frozen=True)
class Role(Text):
    """A role of the prompts.

    Attributes:
        slots: whether a slot of the prompts is right too.
        also: names that are right whatever the prompts.

    >>> option = Option("target", Role(), None, "what to read", "the source")
    >>> option.check_names("nuon", Names("two", ("noun", "answer")), "analyses.probing")
    Traceback (most recent call last):
    interp.errors.InterpError: In analyses.probing: Unknown role 'nuon' in target, rung two. Did you mean 'noun'? ...
    """

    slots: bool = False
    also: tuple[str, ...] = ()

    def named(self, value: Any, names: Names) -> Named:
        """The value itself."""
        known = dict.fromkeys((*(names.slots if self.slots else ()), *names.roles, *self.also))
        yield value, tuple(known)


@dataclass(frozen=True)
class Edge(Text):
    """Two roles, the one that reads and the one that is read.

    >>> Edge().fault("noun", "edges")
    "edges has 'noun', which is not destination<-source. Write it like 'noun<-color'."
    """

    form: str = r".*\S.*<-.*\S.*"
    like: tuple[str, str] = ("destination<-source", "noun<-color")

    def named(self, value: Any, names: Names) -> Named:
        """Both."""
        for role in value.split("<-"):
            yield role.strip(), names.roles


@dataclass(frozen=True)
class Several:
    """A list.

    Attributes:
        item: what each item is.
        name: what an item is called, where the list may not be empty.

    >>> layers = Several(Number(whole=True), "layer")
    >>> layers.words, layers.fits([0, 3]), layers.fault([], "layers")
    ('a list, each item a whole number', True, 'There is no layer in layers. Give at least one.')
    """

    item: Kind
    name: str = ""

    @property
    def words(self) -> str:
        """A list, and what its items are."""
        return f"a list, each item {self.item.words}"

    def fits(self, value: object) -> bool:
        """Whether it is a list of fitting items."""
        return isinstance(value, list) and all(self.item.fits(one) for one in value)

    def fault(self, value: list[Any], name: str) -> str:
        """The first fault of an item, or that there is none."""
        if self.name and not value:
            return f"There is no {self.name} in {name}. Give at least one."
        return next((said for one in value if (said := self.item.fault(one, name))), "")

    def named(self, value: list[Any], names: Names) -> Named:
        """Those of every item."""
        for one in value:
            yield from self.item.named(one, names)

    def schema(self) -> Schema:
        """An array."""
        return {"type": "array", "items": self.item.schema(), **({"minItems": 1} if self.name else {})}


@dataclass(frozen=True)
class Either:
    """One kind or another.

    >>> place = Either((Text(), Number(whole=True)))
    >>> place.words, place.fits("color"), place.fits(3), place.fits(0.5)
    ('text or a whole number', True, True, False)
    """

    kinds: tuple[Kind, ...]

    @property
    def words(self) -> str:
        """All of them, with an or."""
        return " or ".join(kind.words for kind in self.kinds)

    def fits(self, value: object) -> bool:
        """Whether it fits one of them."""
        return any(kind.fits(value) for kind in self.kinds)

    def fault(self, value: object, name: str) -> str:
        """What the kind that it fits says."""
        return self._of(value).fault(value, name)

    def named(self, value: object, names: Names) -> Named:
        """Those that the kind that it fits has."""
        return self._of(value).named(value, names)

    def _of(self, value: object) -> Kind:
        return next(kind for kind in self.kinds if kind.fits(value))

    def schema(self) -> Schema:
        """Any of theirs."""
        return {"anyOf": [kind.schema() for kind in self.kinds]}


@dataclass(frozen=True)
class Settings:
    """A name with settings of its own: ``{projection: {layer: 3, at: noun}}``.

    Attributes:
        name: the only key.
        options: what may stand under it.
        required: which of them must.
        read: raises InterpError for settings that do not go together; it takes them by name. None: all do.

    >>> place = Settings("projection", (Option("layer", Number(whole=True), None, "the layer"),), ("layer",))
    >>> place.words, place.fits({"projection": {"layer": 3}})
    ('{projection: {layer: ...}}', True)
    >>> place.fault({"projection": {}}, "metric")
    "metric.projection lacks the key 'layer'."
    """

    name: str
    options: tuple[Option, ...]
    required: tuple[str, ...] = ()
    read: Callable[..., object] | None = None

    @property
    def words(self) -> str:
        """The form, with what must be given."""
        return f"{{{self.name}: {{{', '.join(f'{key}: ...' for key in self.required)}}}}}"

    def fits(self, value: object) -> bool:
        """Whether it is a mapping of that name alone."""
        return isinstance(value, dict) and list(value) == [self.name]

    def fault(self, value: dict[str, Any], name: str) -> str:
        """The first wrong or missing setting, or what ``read`` says of them all."""
        given, where = value[self.name], f"{name}.{self.name}"
        if not isinstance(given, dict):
            known = ", ".join(option.name for option in self.options)
            return f"{where} must be a mapping of {known}, not {shown(given)}."
        try:
            check({option.name: option for option in self.options}, given, where)
            for key in self.required:
                if key not in given:
                    return f"{where} lacks the key '{key}'."
            if self.read is not None:
                self.read(**given)
        except InterpError as error:
            return str(error).removeprefix(f"In {where}: ")
        return ""

    def named(self, value: dict[str, Any], names: Names) -> Named:
        """Those of every setting."""
        for option in self.options:
            if value[self.name].get(option.name) is not None:
                yield from option.kind.named(value[self.name][option.name], names)

    def schema(self) -> Schema:
        """An object of one key."""
        settings = {
            "type": "object",
            "properties": {option.name: option.schema() for option in self.options},
            "required": list(self.required),
            "additionalProperties": False,
        }
        return {
            "type": "object",
            "properties": {self.name: settings},
            "required": [self.name],
            "additionalProperties": False,
        }


@dataclass(frozen=True)
class Option:
    """One option of an analysis: a keyword parameter of its ``run``.

    Attributes:
        name: of the parameter.
        kind: which values are right.
        default: what ``run`` takes if the study does not say; a list is written as a tuple. Of a setting that must be
            given it is None.
        meaning: what it sets, in one line.
        null: what null means, where null is right: ``every role``. Empty where it is not.

    >>> option = Option("n_folds", Number("at least 2", least=2, whole=True), 5, "at most this many folds")
    >>> option.check(3, "analyses.probing")
    >>> option.check(1, "analyses.probing")
    Traceback (most recent call last):
    interp.errors.InterpError: In analyses.probing: n_folds is 1. Give at least 2.
    """

    name: str
    kind: Kind
    default: Any
    meaning: str
    null: str = ""

    @property
    def words(self) -> str:
        """The kind in words, with null where it is right."""
        return f"{self.kind.words} or null" if self.null else self.kind.words

    def check(self, value: object, where: str) -> None:
        """Refuse a value that is wrong whatever the model and the prompts.

        Args:
            value: as a YAML file has it.
            where: where it stands, for the message.

        Raises:
            InterpError: names the option, where it stands, and what to give.
        """
        if value is None and self.null:
            return
        if not self.kind.fits(value):
            kinds = self.kind.kinds if isinstance(self.kind, Either) else (self.kind,)
            choices = [choice for kind in kinds if isinstance(kind, Text) for choice in kind.choices]
            near = nearest(value, choices)
            raise InterpError(f"'{self.name}' in {where} must be {self.words}, not {shown(value)}.{near}")
        fault = self.kind.fault(value, self.name)
        if fault:
            raise InterpError(f"In {where}: {fault}")

    def check_names(self, value: object, names: Names, where: str) -> None:
        """Refuse a name of a place that the prompts do not have, in a value that passes ``check``.

        Raises:
            InterpError: names the option, where it stands, and the names that there are.
        """
        if value is None:
            return
        for name, known in self.kind.named(value, names):
            if name not in known:
                raise InterpError(
                    f"In {where}: {unknown_name('role', name, known, f' in {self.name}, rung {names.rung}')}"
                )

    def schema(self) -> Schema:
        """The JSON schema of the option, with its meaning and its default."""
        kind = {"anyOf": [self.kind.schema(), {"type": "null"}]} if self.null else self.kind.schema()
        meaning = f"{self.meaning}; null is {self.null}" if self.null else self.meaning
        default = list(self.default) if isinstance(self.default, tuple) else self.default
        return {**kind, "description": meaning, "default": default}


def check(options: Mapping[str, Option], given: Mapping[str, object], where: str) -> None:
    """Refuse an option that is not declared, or one with a wrong value.

    Raises:
        InterpError: names the first, and where it stands.

    >>> check({"n_folds": Option("n_folds", Number(whole=True), 5, "folds")}, {"n_fold": 3}, "analyses.probing")
    Traceback (most recent call last):
    interp.errors.InterpError: Unknown key 'n_fold' in analyses.probing. Did you mean 'n_folds'? Known keys: n_folds.
    """
    for name, value in given.items():
        if name not in options:
            known = ", ".join(options) or "none"
            raise InterpError(f"Unknown key {shown(name)} in {where}.{nearest(name, options)} Known keys: {known}.")
        options[name].check(value, where)
