"""Every sentence that the code says has its translation, with the same places to fill in."""

from __future__ import annotations

import ast
import string
from collections import Counter
from importlib import resources
from pathlib import Path

import jinja2
import pytest
from jinja2 import nodes

from interp import _yaml, language
from interp.errors import InterpError

REPOSITORY = Path(__file__).parent.parent
SPEAKERS = sorted(path for package in ("interp", "analyses") for path in (REPOSITORY / package).rglob("*.py"))
TEMPLATES = sorted((REPOSITORY / "interp/report/templates").rglob("*.html"))


def fields(text: str) -> Counter[str]:
    """The names that a text asks for."""
    return Counter(name for _, name, _, _ in string.Formatter().parse(text) if name is not None)


def said(source: str) -> list[str]:
    """The texts that a source hands to ``say``; one that is no constant is a mistake that no catalogue can mend."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "say":
            text = node.args[0]
            assert isinstance(text, ast.Constant), f"line {node.lineno}: say() takes a text as it stands"
            found.append(text.value)
    return found


def said_in_template(source: str) -> list[str]:
    """The texts that a template of the page hands to ``say``."""
    calls = jinja2.Environment().parse(source).find_all(nodes.Call)
    said = [call.args[0] for call in calls if isinstance(call.node, nodes.Name) and call.node.name == "say"]
    assert all(isinstance(text, nodes.Const) for text in said), "say() takes a text as it stands"
    return [text.value for text in said if isinstance(text, nodes.Const)]


@pytest.mark.parametrize("spoken", language.LANGUAGES[1:])
def test_every_sentence_has_its_translation(spoken: str) -> None:
    known = language.catalogue(spoken)
    texts = {text for path in SPEAKERS for text in said(path.read_text(encoding="utf-8"))}
    texts |= {text for path in TEMPLATES for text in said_in_template(path.read_text(encoding="utf-8"))}
    assert texts - set(known) == set()


@pytest.mark.parametrize("spoken", language.LANGUAGES[1:])
def test_a_translation_asks_for_the_same_values(spoken: str) -> None:
    different = {text for text, other in language.catalogue(spoken).items() if set(fields(text)) != set(fields(other))}
    assert different == set()


@pytest.mark.parametrize("spoken", language.LANGUAGES[1:])
def test_no_two_files_translate_one_text_differently(spoken: str) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for file in resources.files("interp").joinpath("languages", spoken).iterdir():
        for text, other in _yaml.parse(file.read_text(encoding="utf-8"), file.name).items():
            assert seen.setdefault(text, (other, file.name))[0] == other, f"{text!r}: {seen[text][1]}, {file.name}"


def test_what_is_said_belongs_to_its_block_alone() -> None:
    with language.speaking("es"):
        with language.speaking("en"):
            assert language.say("layer") == "layer"
        assert language.say("layer") == "capa"
    assert language.say("layer") == "layer"


def test_a_language_without_words_is_refused() -> None:
    with pytest.raises(InterpError, match=r"'fr' is no language of the page. Choose one of en, es."):
        language.check("fr")


def test_a_sentence_without_a_translation_is_a_mistake() -> None:
    with language.speaking("es"), pytest.raises(LookupError):
        language.say("nobody wrote this")


def test_a_stored_text_without_a_translation_stays() -> None:
    with language.speaking("es"):
        assert language.say_stored("my own measure") == "my own measure"
        assert language.say_stored("layer") == "capa"
