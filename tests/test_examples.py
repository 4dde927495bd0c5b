"""The examples in docstrings: all of them run, and every public name has one."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from types import ModuleType
from typing import Any

import pytest

import analyses
import interp
from interp import HookedTransformer

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
NOT_IMPORTED = ("analyses.__main__", "interp.sweep")  # the command itself, and the earlier place of the sweeps
WITHOUT = {"__version__", "metrics"}
"""A text, and the earlier name of ``readouts``."""


def modules() -> list[str]:
    found = (one for room in (interp, analyses) for one in pkgutil.walk_packages(room.__path__, f"{room.__name__}."))
    return ["interp", "analyses", *(one.name for one in found if one.name not in NOT_IMPORTED)]


def examples(module: ModuleType) -> list[doctest.DocTest]:
    return [test for test in doctest.DocTestFinder().find(module) if test.examples]


@pytest.mark.parametrize("name", modules())
def test_the_examples_of_a_module_run(name: str, mini: HookedTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    load = HookedTransformer.from_pretrained

    def loaded_once(*given: Any, **how: Any) -> HookedTransformer:
        return mini if given == ("mini",) and not how else load(*given, **how)

    monkeypatch.setattr(HookedTransformer, "from_pretrained", loaded_once)
    for test in examples(importlib.import_module(name)):
        said: list[str] = []
        failed = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=said.append).failed
        assert not failed, "".join(said)


@pytest.mark.parametrize("name", sorted(set(interp.__all__) - WITHOUT))
def test_a_public_name_has_an_example(name: str) -> None:
    public: Any = getattr(interp, name)
    if isinstance(public, ModuleType):
        assert examples(public), f"no docstring of {public.__name__} has an example"
    else:
        assert ">>> " in (public.__doc__ or ""), f"the docstring of interp.{name} has no example"


def test_an_example_that_is_wrong_is_seen() -> None:
    wrong = ModuleType("wrong", ">>> 1 + 1\n3\n")
    (test,) = examples(wrong)
    assert doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=lambda _: None).failed == 1
