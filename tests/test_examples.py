"""The examples in docstrings: all of them run, and every public function and class has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import Any

import pytest

import analyses
import interp
from analyses.bundled import BUNDLED
from interp import HookedTransformer

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
NOT_IMPORTED = ("analyses.__main__", "interp.sweep")  # the command itself, and the earlier place of the sweeps
EARLIER = ("interp.metrics", "interp.sweep")  # the earlier names of the read-outs and of the sweeps


def modules() -> list[str]:
    found = (one for room in (interp, analyses) for one in pkgutil.walk_packages(room.__path__, f"{room.__name__}."))
    return ["interp", "analyses", *(one.name for one in found if one.name not in NOT_IMPORTED)]


def examples(module: ModuleType) -> list[doctest.DocTest]:
    return [test for test in doctest.DocTestFinder().find(module) if test.examples]


def public() -> list[str]:
    """The modules that users import from: those directly in ``interp``, the registry, and every analysis."""
    direct = [f"interp.{one.name}" for one in pkgutil.iter_modules(interp.__path__) if not one.name.startswith("_")]
    own = ["analyses.registry", "analyses.options", *(analysis.module for analysis in BUNDLED.values())]
    return ["interp", *(name for name in direct if name not in EARLIER), *own]


def offered(module: ModuleType) -> dict[str, Any]:
    """Functions and classes in ``__all__``; without one, ``run`` of an analysis, or the public ones defined there."""
    if module.__name__ in {analysis.module for analysis in BUNDLED.values()}:
        return {"run": module.run}
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    names = getattr(module, "__all__", [name for name in own if not name.startswith("_")])
    found = {name: getattr(module, name) for name in names}
    return {name: value for name, value in found.items() if inspect.isfunction(value) or inspect.isclass(value)}


@pytest.mark.usefixtures("fingerprint")
@pytest.mark.parametrize("name", modules())
def test_the_examples_of_a_module_run(name: str, mini: HookedTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    load = HookedTransformer.from_pretrained

    def loaded_once(*given: Any, **how: Any) -> HookedTransformer:
        return mini if given == ("mini",) and not how else load(*given, **how)

    monkeypatch.setattr(HookedTransformer, "from_pretrained", loaded_once)
    for test in examples(importlib.import_module(name)):
        said: list[str] = []
        assert not any(doctest.SKIP in example.options for example in test.examples), f"{test.name} is not run"
        failed = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=said.append).failed
        assert not failed, "".join(said)


@pytest.mark.parametrize("name", public())
def test_every_public_function_and_class_has_an_example(name: str) -> None:
    found = offered(importlib.import_module(name))
    lacking = [one for one, value in found.items() if ">>> " not in (value.__doc__ or "")]
    assert not lacking, f"the docstrings of these in {name} have no example: {', '.join(lacking)}"


def test_an_example_that_is_wrong_is_seen() -> None:
    wrong = ModuleType("wrong", ">>> 1 + 1\n3\n")
    (test,) = examples(wrong)
    assert doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=lambda _: None).failed == 1
