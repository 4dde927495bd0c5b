"""The circuit on the page: its drawing, its table, and what it says of estimates."""

from __future__ import annotations

import numpy as np
import pytest

from analyses import circuit as analysis
from analyses.bundled import BUNDLED
from analyses.options import Text
from interp import show
from interp.circuits import Circuit, Edge, discover, split
from interp.circuits.planning import METHODS
from interp.language import speaking
from interp.report.blocks import Facts, Figure, Notice
from interp.report.inputs import Result
from interp.report.sections import circuit as section
from interp.report.wiring import MOST
from tests.circuits.planted import path, planted, planted_pairs


@pytest.fixture(scope="module")
def found() -> Circuit:
    return discover(planted(), planted_pairs(), "exact")


def blocks(circuit: Circuit, kind: type) -> list[object]:
    made = section.section(Result("circuit", circuit.data))
    return [block for block in made.blocks if isinstance(block, kind)]


def test_every_edge_is_drawn_and_tabled(found: Circuit) -> None:
    (figure,) = blocks(found, Figure)
    assert isinstance(figure, Figure)
    drawn = str(figure.panels[0].body)
    assert drawn.count('<path class="arc"') == 3
    assert drawn.count("<circle") == 4
    for sender, receiver in path():
        assert f"{sender} → {receiver}" in drawn
    assert {row[:2] for row in figure.tables[0].rows} == path()
    (facts,) = blocks(found, Facts)
    assert isinstance(facts, Facts)
    assert facts.items[0][1] == f"3 of {found.n_possible} edges ({3 / found.n_possible:.1%})."
    assert not blocks(found, Notice)
    (chosen,) = blocks(discover(planted(), planted_pairs()), Facts)
    assert isinstance(chosen, Facts)
    assert ("Why this method:", "it is cheap here.") in chosen.items


def test_only_the_strongest_are_drawn_and_the_rest_is_counted(found: Circuit) -> None:
    scores = found.data["score"].copy(data=np.where(np.isfinite(found.scores), 1.0, np.nan))
    every = Circuit(found.data.assign(score=scores)).at(1.0)
    n = len(every)
    assert n > MOST
    (figure,) = blocks(every, Figure)
    assert isinstance(figure, Figure)
    assert f"Drawn are the {MOST} edges with the largest scores; {n - MOST} more" in figure.reading
    assert len(figure.tables[0].rows) == MOST


def test_estimates_say_what_they_are_good_for() -> None:
    bad = discover(planted(constant=0.0), planted_pairs(), "eap", threshold=0.1)
    notice, *_ = blocks(bad, Notice)
    assert isinstance(notice, Notice)
    assert (notice.level, notice.title) == ("warn", "Do not use this circuit.")
    ranking = discover(planted(), planted_pairs(), "eap", threshold=0.1)
    (notice,) = blocks(ranking, Notice)
    assert isinstance(notice, Notice)
    assert notice.level == "note"
    assert "as a ranking only" in notice.text


def test_an_edge_below_zero_is_dashed_and_one_at_a_word_stands_above_it(found: Circuit) -> None:
    edges = [Edge("embed", "L0H1.v", "color"), Edge("L0H1", "logits", "answer")]
    scores = {edges[0]: -2.0, edges[1]: 1.0}
    made = Circuit.of(planted(), planted_pairs(), edges, scores=scores, roles=["color", "answer"])
    (figure,) = blocks(made, Figure)
    assert isinstance(figure, Figure)
    drawn = str(figure.panels[0].body)
    assert drawn.count('class="arc against"') == 1
    assert "embed → L0H1.v (color)" in drawn
    assert drawn.count(">L0H1<") == 1  # it goes on at the answer, where its value is brought
    assert 'data-role="answer"' in drawn


def test_a_circuit_shows_itself_in_both_languages(found: Circuit) -> None:
    assert "Edges of the circuit" in found._repr_html_()
    with speaking("es"):
        assert "Aristas del circuito" in show(found, language="es").html
    empty = found.at(0)
    assert "No edge was kept" in str(blocks(empty, Notice))


def test_the_analysis_finds_it_on_one_half() -> None:
    pairs = planted_pairs()
    data = analysis.run(planted(), pairs, method="exact", max_prompts=None, seed=3)
    assert {(edge.sender, edge.receiver) for edge in Circuit(data).edges} == path()
    assert data.attrs["n_prompts"] == 2
    assert data.attrs["tokens_sha256"] == split(pairs, 3)[0].sha256()


def test_the_methods_that_are_declared_are_those_of_the_library() -> None:
    kind = BUNDLED["circuit"].option["method"].kind
    assert isinstance(kind, Text)
    assert kind.choices == METHODS
