"""What a study names is in its prompts, and what it asks can be asked of them: found before the model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from analyses import probing
from analyses.bundled import BUNDLED
from analyses.cli import execution
from analyses.cli import study as studies
from analyses.cli.main import main
from analyses.options import Names, Several
from interp import tasks
from interp.errors import InterpError
from interp.model import HookedTransformer
from tests.doubles import MINIMAL, House, Said, refusal

ROLES = "Choose from: color, noun, after_noun, clause_end, color_other, noun_other, asked, answer."


@pytest.mark.parametrize(
    ("analyses", "words"),
    [
        ({"attention_lesson": {"dest": "nuon"}}, f"'nuon' in dest, rung two. Did you mean 'noun'? {ROLES}"),
        ({"attention_lesson": {"src": "colour"}}, f"'colour' in src, rung two. Did you mean 'color'? {ROLES}"),
        ({"activation_patching": {"roles": ["noun", "x"]}}, f"'x' in roles, rung two. {ROLES}"),
        ({"activation_patching": {"head_roles": ["x"]}}, f"'x' in head_roles, rung two. {ROLES}"),
        (
            {"approximation_audit": {"metric": {"projection": {"layer": 1, "at": "nuon"}}}},
            f"'nuon' in metric, rung two. Did you mean 'noun'? {ROLES}",
        ),
        ({"head_attribution": {"edges": ["x<-noun"]}}, f"'x' in edges, rung two. {ROLES}"),
        ({"head_attribution": {"edges": ["noun <- x"]}}, f"'x' in edges, rung two. {ROLES}"),
        ({"logit_lens": {"roles": ["x"]}}, f"'x' in roles, rung two. {ROLES}"),
        ({"probing": {"target": "colour"}}, "'colour' in target, rung two. Did you mean 'color'? Choose from: "),
        ({"probing": {"group": "x"}}, "'x' in group, rung two. Choose from: color, noun, color_other, "),
        ({"probing": {"roles": ["x"]}}, f"'x' in roles, rung two. {ROLES}"),
        ({"context_flow": {"source": "x"}}, f"'x' in source, rung two. {ROLES}"),
        ({"context_flow": {"target": "x"}}, f"'x' in target, rung two. {ROLES}"),
    ],
)
@pytest.mark.parametrize("command", ["check", "run"])
def test_a_role_that_the_prompts_do_not_have_is_found_before_anything_is_loaded(
    command: str, analyses: dict[str, Any], words: str, house: House, tmp_path: Path, capsys: Any
) -> None:
    study = {**MINIMAL, "analyses": {"behavior": {}, **analyses}}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(study))
    said = refusal(capsys, command, "bad.yaml")
    assert said.startswith(f"interp: In analyses.{next(iter(analyses))} of bad.yaml: Unknown role {words}")
    assert house.ran == []
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_every_option_that_names_a_place_is_held_to_the_prompts() -> None:
    """The options whose names say so; a new one of these names must be declared as one of a role."""
    names = Names("two", ("noun", "answer"), ("word",))
    for analysis in BUNDLED.values():
        for option in analysis.options:
            value: Any = "absent<-noun" if option.name == "edges" else "absent"
            value = [value] if isinstance(option.kind, Several) else value
            if option.name in ("dest", "src", "roles", "head_roles", "edges", "source", "target", "group"):
                with pytest.raises(InterpError, match="Unknown role 'absent' in "):
                    option.check_names(value, names, "here")


def test_the_names_of_the_prompts_are_right() -> None:
    options = BUNDLED["probing"].option
    names = Names("two", ("noun", "answer"), ("word",))
    for name, right in {
        "target": ["noun", "word"],
        "group": ["noun", "word", probing.PAIR],
        "roles": [["noun"]],
    }.items():
        for value in (*right, None):
            options[name].check_names(value, names, "here")
    with pytest.raises(InterpError, match="Unknown role 'word' in roles"):
        options["roles"].check_names(["word"], names, "here")
    BUNDLED["attention_lesson"].option["dest"].check_names(-1, names, "here")
    BUNDLED["head_attribution"].option["edges"].check_names(["answer <- noun"], names, "here")


def test_a_role_that_only_the_rung_that_is_explained_lacks_is_found_before_it_is_explained(tmp_path: Path) -> None:
    house = House(passing=("recall",))
    asked = {**MINIMAL, "analyses": {"behavior": None, "probing": {"roles": ["color_other"]}}}
    with pytest.raises(InterpError) as refused:
        execution.execute(
            studies.parse(asked, where="s.yaml"), tmp_path, tools=house.tools(), watcher=Said(), command="interp run s"
        )
    assert "In analyses.probing: Unknown role 'color_other' in roles, rung recall." in str(refused.value)
    assert house.ran == ["load", "behavior"]


# --- questions that the prompts leave no room for ---


@pytest.mark.parametrize(
    ("task", "analyses", "words"),
    [
        (
            "color-noun",
            {"attention_lesson": {"dest": "color", "src": "asked"}},
            "In analyses.attention_lesson (dest: 'color', src: 'asked'): dest 'color' is token",
        ),
        ("color-noun", {"attention_lesson": {"prompt": 5}}, "In analyses.attention_lesson: There is no prompt 5"),
        (
            "induction",
            {"probing": {"target": "copied"}},
            "In analyses.probing (target: 'copied'): Only 0 of 8 labels of 'copied' occur with another 'pair' too",
        ),
        (
            "color-noun",
            {"context_flow": {"source": "noun"}},
            "In analyses.context_flow: The vocabulary has 'noun' as source and as target.",
        ),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused_before_the_model_is_loaded(
    task: str, analyses: dict[str, Any], words: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = {**MINIMAL, "task": task, "n": 4, "analyses": {"behavior": {}, **analyses}}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("interp.model.HookedTransformer.from_pretrained", None)
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(study))
    for command in (["check", "bad.yaml", "--model", "mini"], ["run", "bad.yaml", "--quiet"]):
        assert words in refusal(capsys, *command)
        assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_a_question_by_default_is_left_out_and_check_says_so(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = {**MINIMAL, "task": "induction", "n": 4, "analyses": ["behavior", "probing", "context_flow"]}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(study))
    assert main(["check", "own.yaml", "--model", "mini"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("probing cannot be asked here: Only 0 of 8 labels of 'copied' occur with")


@pytest.mark.parametrize("task", tasks.names())
def test_the_places_of_a_rung_are_those_of_its_pairs(task: str, mini: HookedTransformer) -> None:
    for rung in tasks.load(task).rungs:
        pairs = tasks.build(task, rung.name, tokenizer=mini, n=4)
        assert (pairs.roles, set(pairs.slots[0])) == (rung.pair_roles, set(rung.slots))


@pytest.mark.parametrize("task", ["color-noun", "induction", "agreement-es"])
def test_the_pairs_that_are_built_without_the_model_are_those_it_reads(task: str, mini: HookedTransformer) -> None:
    from interp.model.source import reader

    for rung in tasks.load(task).rungs:
        with_it, without = (tasks.build(task, rung.name, tokenizer=one, n=4) for one in (mini, reader("mini")))
        assert with_it.sha256() == without.sha256()
