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
        ({"layer": 1, "head": 0}, ' data-layer="1" data-head="L1H0"'),
        ({"head": "L12H3"}, ' data-layer="12" data-head="L12H3"'),
        ({"head": 3}, ""),  # an index without its layer is no head
        ({"head": "none"}, ""),
        ({"position": 0, "role": '"<noun>'}, ' data-position="0" data-role="&#34;&lt;noun&gt;"'),
        ({"axis": "x", "layer": None}, ""),
    ],
)
def test_what_a_mark_is_about_is_in_its_attributes(about: dict[str, object], made: str) -> None:
    assert links.markup_attributes(about) == made


def test_heads_that_a_sentence_names_can_be_chosen_and_the_rest_is_text() -> None:
    made = links.heads_in("<b> L0H2, not XL0H2")
    assert made.startswith('&lt;b&gt; <span class="names" data-layer="0" data-head="L0H2">L0H2</span>, not X')
    assert made.count("<span") == 1


def test_every_head_of_every_map_and_table_is_marked(tmp_path: Path) -> None:
    write_run(tmp_path, only("head_attribution", "verdict"))
    page = report.render(tmp_path).read_text(encoding="utf-8")
    cells = re.findall(r'<rect class="cell [^>]*><title>(L\dH\d): ', page)
    linked = re.findall(r'<rect class="cell [^>]*data-layer="(\d)" data-head="(L\1H\d)"><title>\2: ', page)
    assert len(cells) == len(linked) > 0
    for head in ("L0H0", "L1H2"):
        assert f'<tr data-layer="{head[1]}" data-head="{head}">' in page
