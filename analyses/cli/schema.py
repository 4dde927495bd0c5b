"""The JSON schemas of studies and tasks, for editors that complete and check YAML as it is written.

They are made from the keys that the parsers read. What joins one part of a file to another (a slot and its words, a
role and its prompt) no schema can say; ``interp check`` does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from analyses import registry
from analyses.cli.study import KEYS
from analyses.options import Option
from interp import tasks
from interp._keys import Holds, mapping, one_of, some
from interp.errors import unknown_name
from interp.tasks import keys

_DRAFT = {"$schema": "https://json-schema.org/draft/2020-12/schema"}


def text(what: str) -> str:
    """The schema of a ``study`` or a ``task`` as JSON.

    Raises:
        InterpError: there is no schema of that name.
    """
    if what not in SCHEMAS:
        raise unknown_name("schema", what, SCHEMAS)
    return json.dumps(SCHEMAS[what](), indent=2, ensure_ascii=False)


def task() -> Holds:
    """What a task file may hold."""
    return {**_DRAFT, "title": "A task of interp", **keys.json_schema()}


def study() -> Holds:
    """What a study file may hold, with the tasks and analyses that are installed here."""
    installed = {"task": _task(), "gate": _gate(), "analyses": _analyses()}
    all_keys = [replace(key, holds=installed.get(key.name, key.holds)) for key in KEYS]
    return {**_DRAFT, "title": "A study of interp", **mapping(all_keys)}


def _task() -> Holds:
    path = {"type": "string", "pattern": rf"({'|'.join(re.escape(end) for end in tasks.FILES)})$"}
    return {"anyOf": [one_of(tasks.names()), path, keys.json_schema()]}


def _gate() -> Holds:
    """The behavior analysis's own minimums."""
    return _options(option for name, option in registry.get("behavior").option.items() if name.startswith("minimum_"))


def _analyses() -> Holds:
    """A list of names, or a mapping of name to options, in which behavior must be."""
    options = {name: _options(registry.get(name).options) for name in registry.names()}
    listed = {**some(one_of(tuple(options))), "contains": {"const": "behavior"}}
    return {
        "anyOf": [
            listed,
            {"type": "object", "properties": options, "additionalProperties": False, "required": ["behavior"]},
        ]
    }


def _options(options: Iterable[Option]) -> Holds:
    known = {option.name: option.schema() for option in options}
    return {"type": ["object", "null"], "properties": known, "additionalProperties": False}


SCHEMAS: Mapping[str, Callable[[], Holds]] = {"study": study, "task": task}
