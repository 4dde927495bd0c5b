"""Every mark says what it is about, so that a script can light up all that is about the same thing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from interp import report
from interp.report import links
from tests.report_fixture import only, write_run


@pytest.mark.parametrize(
    ("about", "made"),
    [
        ({"layer": 1, "head": 0}, {"data_head": "L1H0"}),
        ({"head": "L12H3"}, {"data_head": "L12H3"}),
        ({"head": 3}, {}),  # an index without its layer is no head
        ({"layer": "2", "head": "none"}, {"data_layer": "2"}),
        ({"position": 0, "role": "noun"}, {"data_position": "0", "data_role": "noun"}),
        ({"axis": "x", "layer": None}, {}),
    ],
)
def test_what_a_mark_is_about_is_in_its_attributes(about: dict[str, object], made: dict[str, str]) -> None:
    assert links.attributes(about) == made


def test_heads_that_a_sentence_names_can_be_chosen_and_the_rest_is_text() -> None:
    made = links.heads_in("<b> L0H2, not XL0H2")
    assert made.startswith('&lt;b&gt; <span class="names" data-head="L0H2">L0H2</span>, not X')
    assert made.count("<span") == 1


def test_every_head_of_every_map_and_table_is_marked(tmp_path: Path) -> None:
    write_run(tmp_path, only("head_attribution", "verdict"))
    page = report.render(tmp_path).read_text(encoding="utf-8")
    cells = re.findall(r'<rect class="cell [^>]*><title>(L\dH\d): ', page)
    linked = re.findall(r'<rect class="cell [^>]*data-head="(L\dH\d)"><title>\1: ', page)
    assert len(cells) == len(linked) > 0
    assert '<th scope="col" data-facet="layer">layer</th><th scope="col" data-facet="head">head</th>' in page
