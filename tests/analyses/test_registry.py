"""The registry: what is declared of the analyses is what their code takes; another package's are found and refused."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest

from analyses import registry
from analyses.bundled import BUNDLED, PROJECTION, READOUTS
from analyses.options import Either, Flag, Kind, Number, Option, Settings, Several, Text
from analyses.registry import Analysis, File
from interp import sites
from interp.errors import InterpError

ALL = [(name, option) for name, analysis in BUNDLED.items() for option in analysis.options]
NAMES = [f"{name}.{option.name}" for name, option in ALL]


# --- what is declared, and the code ---


@pytest.mark.parametrize("name", BUNDLED)
def test_the_parameters_of_each_function_are_those_declared_with_their_defaults(name: str) -> None:
    analysis = BUNDLED[name]
    for file in analysis.files:
        parameters = inspect.signature(analysis.function(file.function)).parameters.values()
        given = {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}
        assert set(given) == {*file.options, *file.settled}
        assert {key: given[key] for key in file.options} == {key: analysis.option[key].default for key in file.options}
        assert len(parameters) - len(given) == (1 if analysis.needs == "results" else 2)


@pytest.mark.parametrize(("name", "option"), ALL, ids=NAMES)
def test_a_default_is_right_and_no_other_kind_of_thing_is(name: str, option: Option) -> None:
    assert option.meaning
    option.check(list(option.default) if isinstance(option.default, tuple) else option.default, name)
    with pytest.raises(InterpError, match=f"'{option.name}' in {name} must be"):
        option.check(object(), name)
    if not option.null:
        with pytest.raises(InterpError, match=f"'{option.name}' in {name} must be"):
            option.check(None, name)


def test_the_lists_of_choices_are_those_of_the_library() -> None:
    from typing import get_args

    from interp.interventions import ABLATIONS
    from interp.readouts import READOUTS as KNOWN
    from interp.sweeps import Direction

    def choices(analysis: str, option: str) -> tuple[str, ...]:
        kind: Any = BUNDLED[analysis].option[option].kind
        (kind,) = (one for one in getattr(kind, "kinds", (kind,)) if not isinstance(one, Settings))
        return tuple((kind.item if isinstance(kind, Several) else kind).choices)

    assert tuple(KNOWN) == READOUTS
    assert choices("approximation_audit", "metric") == tuple(one.name for one in KNOWN.values() if one.differentiable)
    assert choices("activation_patching", "directions") == get_args(Direction)
    assert choices("head_attribution", "ablations") == ABLATIONS
    assert choices("activation_patching", "sites") == tuple(sites.SITES)
    assert choices("probing", "sites") == tuple(name for name in sites.SITES if _has_vectors(name))


def test_the_settings_of_a_metric_are_those_of_the_library() -> None:
    from interp.readouts import PROJECTION_SETTINGS, projection

    declared = {option.name: option.default for option in PROJECTION.options}
    taken = inspect.signature(projection).parameters
    assert set(declared) == set(taken) == set(PROJECTION_SETTINGS)
    assert PROJECTION.required == PROJECTION_SETTINGS[:2]
    assert {key: one.default for key, one in taken.items() if one.default is not one.empty} == {
        key: default for key, default in declared.items() if key not in PROJECTION.required
    }


def _has_vectors(name: str) -> bool:
    try:
        sites.vector_site(name)
    except InterpError:
        return False
    return True


def _audit(**options: Any) -> object:
    from interp.attribution import Audit

    return Audit(**options)


def _checked(module: str, **options: Any) -> object:
    analysis = BUNDLED[module]
    defaults = {key: option.default for key, option in analysis.option.items()}
    check = analysis.function("check")
    return check(**{key: options.get(key, defaults[key]) for key in inspect.signature(check).parameters})


def _edges(option: Option) -> tuple[list[float], list[float]]:
    """Values just inside and just outside the range of a number."""
    kind = option.kind
    assert isinstance(kind, Number)
    step = 1 if kind.whole else 1e-9
    inside = [kind.least, kind.most, kind.above + step, kind.below - step]
    outside = [kind.least - step, kind.most + step, kind.above, kind.below]
    return [x for x in inside if math.isfinite(x)], [x for x in outside if math.isfinite(x)]


RANGED = [
    (name, option)
    for name, option in ALL
    if isinstance(option.kind, Number)
    and option.kind.range
    and option.name not in ("max_prompts", "layer", "head", "prompt")  # held to the prompts or the model
]


@pytest.mark.parametrize(("name", "option"), RANGED, ids=[f"{name}.{option.name}" for name, option in RANGED])
def test_the_range_that_is_declared_is_the_range_that_the_code_takes(name: str, option: Option) -> None:
    def code(value: float) -> object:
        if name == "approximation_audit":
            return _audit(**{option.name: value})
        return _checked(name, **{option.name: value})

    inside, outside = _edges(option)
    assert outside
    for value in inside:
        option.check(value, name)
        code(value)
    for value in outside:
        with pytest.raises(InterpError, match=f"In {name}: {option.name} is .*Give "):
            option.check(value, name)
        with pytest.raises(InterpError):
            code(value)


def test_an_edge_is_of_the_form_that_the_code_reads() -> None:
    from interp.interventions import parse_edge

    option = BUNDLED["head_attribution"].option["edges"]
    for good in ("noun<-color", "a <- b"):
        option.check([good], "here")
        parse_edge(good)
    for bad in ("noun", "<-color", "noun<-", " <- ", ""):
        with pytest.raises(InterpError, match=r"In here: edges has .* which is not destination<-source"):
            option.check([bad], "here")
        with pytest.raises(InterpError, match="is not destination<-source"):
            parse_edge(bad)


# --- kinds ---


KINDS: list[tuple[Kind, object, list[object], list[object]]] = [
    (Flag(), {"type": "boolean"}, [True], [1, "true"]),
    (Number(whole=True), {"type": "integer"}, [-3], [True, 2.0, "2"]),
    (Number("0 to 1", least=0, most=1), {"type": "number", "minimum": 0, "maximum": 1}, [0, 1, 0.5], [1.1, math.nan]),
    (Number("x", above=0), {"type": "number", "exclusiveMinimum": 0}, [1e-300], [0, math.inf]),
    (Text(), {"type": "string"}, ["", "z"], [1, None]),
    (Text(("a", "b")), {"enum": ["a", "b"]}, ["a"], ["c"]),
    (Text(form="a+", like=("letters a", "aa")), {"type": "string", "pattern": "^a+$"}, ["aa"], ["ab", ""]),
    (Several(Text(("a",))), {"type": "array", "items": {"enum": ["a"]}}, [[], ["a"]], ["a", ["b"]]),
    (Several(Flag(), "flag"), {"type": "array", "items": {"type": "boolean"}, "minItems": 1}, [[True]], [[], [2]]),
    (Either((Text(), Flag())), {"anyOf": [{"type": "string"}, {"type": "boolean"}]}, ["a", True], [1]),
]


@pytest.mark.parametrize(("kind", "schema", "good", "bad"), KINDS, ids=lambda value: type(value).__name__)
def test_a_kind_knows_its_values_and_its_schema(
    kind: Kind, schema: object, good: list[object], bad: list[object]
) -> None:
    assert kind.schema() == schema
    option = Option("x", kind, good[0], "what it is")
    for value in good:
        option.check(value, "here")
    for value in bad:
        with pytest.raises(InterpError, match="here") as caught:
            option.check(value, "here")
        assert "\n" not in str(caught.value)


def test_an_option_says_what_null_is_and_gives_its_default() -> None:
    option = Option("layers", Several(Number(whole=True)), (1, 2), "where", "every layer")
    assert option.schema() == {
        "anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "null"}],
        "description": "where; null is every layer",
        "default": [1, 2],
    }


# --- the registry ---


def test_analyses_are_found_and_ordered_without_torch(python: Any) -> None:
    code = """
        import sys
        from analyses import registry
        found = registry.ordered(["context_flow", "probing", "behavior"])
        found["probing"].check({"n_folds": 3})
        print(*found, "torch" in sys.modules)
    """
    done = python("-c", inspect.cleandoc(code))
    assert (done.stdout, done.stderr) == ("behavior probing context_flow False\n", "")


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"needs": "models"}, "Unknown need 'models' of the analysis mine"),
        ({"needs": "results"}, "must name files to read"),
        ({"reads": ("behavior",)}, "must name files to read"),
        ({"settled": ("sed",)}, "Unknown parameter 'sed' of the analysis mine. Did you mean 'seed'?"),
        ({"options": (Option("seed", Flag(), True, "no"),)}, "Unknown option 'seed' of the analysis mine"),
        ({"further": (File("more", "more", ("deep",)),)}, "Unknown option 'deep' of the analysis mine"),
        ({"file": "a/b"}, "A file of the analysis mine must be a name that a file can have"),
        ({"name": ""}, "The name of an analysis must be a name that a file can have"),
    ],
)
def test_what_cannot_be_declared_is_refused(declared: dict[str, Any], words: str) -> None:
    with pytest.raises(InterpError) as caught:
        Analysis(**{"name": "mine", "module": "mine", "meaning": "Is it?", **declared})
    assert words in str(caught.value)


def test_an_unknown_analysis_gets_the_nearest_name() -> None:
    with pytest.raises(InterpError, match=r"Unknown analysis 'probbing'\. Did you mean 'probing'\? Choose from: behav"):
        registry.ordered(["probbing"])
