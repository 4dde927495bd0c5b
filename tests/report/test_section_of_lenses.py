"""The section of lenses: the places of the stream in order, each lens by name, and what never appears."""

from __future__ import annotations

import numpy as np
import pytest

from interp import HookedTransformer, PromptPairs, language, lenses
from interp.report.blocks import Details, Facts, Figure, Section
from interp.report.inputs import Result
from interp.report.sections import lenses as drawn

IDS = np.array([[5, 9, 13, 2, 7], [8, 9, 1, 2, 30]])


@pytest.fixture
def result(gpt2: HookedTransformer) -> Result:
    pairs = PromptPairs.from_tokens(IDS, IDS + 1, correct=11, incorrect=20, roles={"noun": 1})
    return Result("logit_lens", lenses.logit_lens(gpt2, pairs))


def part(section: Section, title: str) -> Figure | Details:
    (found,) = (one for one in section.blocks if isinstance(one, Figure | Details) and one.title.startswith(title))
    return found


def test_the_places_of_the_stream_stand_in_order_with_their_numbers(result: Result) -> None:
    section = drawn.section(result)
    answer = part(section, "Log-probability of the answer")
    rows = [row for row in answer.tables[0].rows if row[0] == "log-probability of the answer, correct"]
    assert [row[2] for row in rows] == ["start", "0a", "0", "1a", "1", "2a", "2"]
    means = result.data["log_probability"].sel(role="answer", answer="correct").mean("prompt")
    assert rows[0][3] == float(means.sel(site="resid_pre", layer=0))
    assert rows[3][3] == float(means.sel(site="resid_mid", layer=1))
    assert rows[-1][3] == float(means.sel(site="resid_post", layer=2))


def test_an_answer_that_never_appears_is_counted_and_infinite(result: Result) -> None:
    (table,) = part(drawn.section(result), "The layer at which the answer appears").tables
    top = dict(zip((column.name for column in table.columns), table.rows[0], strict=True))
    assert (top["never"], top["n"], top["after layer"]) == (2, 2, np.inf)
    assert table.texts()[0][2][0] == "∞"


def test_one_site_alone_and_lenses_side_by_side_are_drawn(result: Result) -> None:
    one = Result("lens", result.data.sel(site=["resid_pre"], role=["answer"]))
    section = drawn.section(one)
    assert {row[1] for row in part(section, "Distance").tables[0].rows} == {"start", "0", "1"}
    assert len(section.blocks) == 4  # no map of a single word
    lens = result.data.expand_dims(lens=["logit", "mine"])
    section = drawn.section(Result("lenses", lens))
    assert {row[0] for row in part(section, "Distance").tables[0].rows} == {"logit lens", "mine"}


def test_it_says_what_the_lenses_were_made_from(gpt2: HookedTransformer, result: Result) -> None:
    assert not any(isinstance(block, Facts) for block in drawn.section(result).blocks)
    pairs = PromptPairs.from_tokens(IDS, IDS + 1, correct=11, incorrect=20)
    made = {
        "tuned": lenses.tuned_lens(gpt2, IDS, sites=["resid_post"], steps=1),
        "jacobian": lenses.jacobian_lens(gpt2, IDS, sites=["resid_post"]),
    }
    section = drawn.section(Result("lenses", lenses.side_by_side(gpt2, pairs, made)))
    facts = section.blocks[0]
    assert isinstance(facts, Facts)
    assert [name for name, _ in facts.items] == ["Tuned lens:", "Jacobian lens:", "Read on:"]
    assert "trained on 2 prompts (8 tokens)" in facts.items[0][1]
    rows = part(section, "Log-probability of the answer").tables[0].rows
    assert list(dict.fromkeys(row[1] for row in rows)) == ["logit lens", "tuned lens", "Jacobian lens"]


def test_it_is_said_in_spanish(result: Result) -> None:
    with language.speaking("es"):
        section = drawn.section(result)
    assert (section.title, section.blocks[0].tables[0].rows[0][0]) == (  # type: ignore[union-attr]
        "Lente de logits", "log-probabilidad de la respuesta, correcta",
    )  # fmt: skip
