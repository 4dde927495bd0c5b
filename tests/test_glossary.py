"""The glossary of the README has the words that the page and the README use, and no other."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path
from typing import get_args

import pytest

from interp import report
from interp.attribution.audit import Use
from interp.interventions import ABLATIONS
from interp.prompts.alignment import AnswerPolicy
from interp.prompts.vocabulary import OUTCOMES
from interp.readouts import READOUTS
from interp.report import inputs
from interp.report.terms import terms
from interp.sites import SITES, head_label
from tests.report_fixture import ROLES, RUNGS, unfolded, write_run

REPOSITORY = Path(__file__).parent.parent
BEFORE, GLOSSARY, AFTER = re.split(
    r"^## (?:Glossary|Limits)\n", (REPOSITORY / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE
)

STATED = {
    "site": SITES,
    "read-out": READOUTS,
    "ablation": ABLATIONS,
    "policy for answers": get_args(AnswerPolicy),
    "outcome": OUTCOMES,
    "use of estimates": get_args(Use),
    "part of a model": (head_label(9, 6), "L9KV2", "MLP9"),
}
"""Words that results, messages and the page take from the code."""

WORDS = (
    "study", "task", "rung", "role", "source", "target", "distractor", "pair", "clean", "corrupted", "counterfactual",
    "BOS", "gate", "site", "kv_head", "hook", "bridge", "numerics", "logits", "nats", "residual stream", "metric",
    "read-out", "logit difference", "projection", "patching", "denoising", "noising", "gap", "recovered", "lost",
    "ratio of means", "interval", "ablation", "knockout", "sweep", "cell", "row", "window", "set", "plan", "engine",
    "edge", "sender", "receiver", "path patching", "contribution", "attribution patching", "AtP*", "EAP", "EAP-IG",
    "audit", "slope", "logit lens", "probe", "fold", "control", "selectivity", "mover", "reader", "meeting place",
    "LEACE", "erasure", "interchange", "DAS", "placebo",
    "verdict",
)  # fmt: skip
"""Words of the field, or of this library, that the README and the page use without saying each time what they mean."""

PLAIN = (
    "large", "limits", "prompts", "prompts dropped", "sum check", "units", "agreement", "disagreement", "layer",
    "sufficient and needed", "of the approximations",
)  # fmt: skip
"""What the page sets in bold that needs no explanation, or is explained where it stands."""


def plain(word: str) -> str:
    return word.replace("_", " ").replace("-", " ").lower().strip("` ")


def defined() -> list[str]:
    rows = re.findall(r"^\| ([^|]+) \|", GLOSSARY, flags=re.MULTILINE)[1:]
    return [plain(word) for row in rows for word in row.split(", ")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run whose page has every section."""
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    """Its page, without figures and scripts."""
    written = unfolded(report.render(run, interactive=False).read_text(encoding="utf-8"))
    return re.sub(r"<(style|svg|script)\b.*?</\1>", " ", written, flags=re.DOTALL)


@pytest.mark.parametrize("what", STATED)
def test_what_the_code_calls_by_a_name_is_in_the_glossary(what: str) -> None:
    lacking = [word for word in STATED[what] if plain(word) not in defined()]
    assert not lacking, f"the glossary lacks the {what} {', '.join(lacking)}"


def test_the_words_of_readme_and_page_are_in_the_glossary() -> None:
    lacking = [word for word in WORDS if plain(word) not in defined()]
    assert not lacking, f"the glossary lacks {', '.join(lacking)}"


def test_what_the_page_sets_in_bold_is_in_the_glossary(run: Path, page: str) -> None:
    titles = [result.attr("title") for result in inputs.read(run).files.values()]
    known = {*defined(), *map(plain, (*PLAIN, *ROLES, *RUNGS, *titles))}
    bold = [re.sub("<[^>]*>", "", text) for text in re.findall(r"<strong>(.*?)</strong>", page)]
    marked = [re.sub(r" \(.*\)$", "", plain(text.rstrip(":"))) for text in bold]
    assert "slope" in marked
    lacking = [text for text in marked if not any(word in known for word in parts(text))]
    assert not lacking, f"the page marks {', '.join(lacking)}, which the glossary lacks"


def parts(text: str) -> list[str]:
    """A phrase, and each run of its words; a plural is its word, and any head is ``L9H6``."""
    words = [re.sub(r"^l\d+h\d+$", "l9h6", word) for word in text.split()]
    runs = (" ".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1))
    return list(chain.from_iterable((run, run.removesuffix("s")) for run in runs))


def test_every_word_of_the_glossary_is_used(page: str) -> None:
    documents = [*sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "CONTRIBUTING.md"]
    others = (path.read_text(encoding="utf-8") for path in documents)
    text = plain(" ".join([BEFORE, AFTER, re.sub("<[^>]*>", " ", page), *others]))
    stated = {plain(word) for words in STATED.values() for word in words}
    pattern = {word: r"(?<!\w)" + re.escape(word).replace(r"\ ", r"s?\s+") for word in defined() if word not in stated}
    unused = [word for word, form in pattern.items() if not re.search(form, text)]
    assert not unused, f"nothing uses {', '.join(unused)}"


def test_the_page_explains_its_words_as_the_readme_does() -> None:
    rows = dict(re.findall(r"^\| ([^|]+) \| (.+) \|$", GLOSSARY, flags=re.MULTILINE))
    told = {name: re.sub(r"[`*]", "", text) for name, text in rows.items()}
    assert {term.heading: told.get(term.heading) for term in terms()} == {term.heading: term.text for term in terms()}


def test_each_word_is_explained_where_it_first_stands_and_at_the_foot(page: str) -> None:
    links, anchors = (re.findall(pattern, page) for pattern in (r'href="#(term-[\w-]+)"', r'<div id="(term-[\w-]+)"'))
    assert sorted(links) == sorted(set(links)) == sorted(anchors)
    assert {"term-mover", "term-denoising", "term-probe", "term-gap"} <= set(links)
    assert page.index('class="term"') < page.index('id="ladder"')


def test_no_word_is_explained_twice() -> None:
    words = defined()
    assert len(words) == len(set(words)), sorted(words)
