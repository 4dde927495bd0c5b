"""A whole study of a model made by hand, of attention alone and with shared keys and values: its answer is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import interp
from interp import groundtruth
from interp.groundtruth.prompts import COLORS, NOUNS, WORDS
from tests.report.test_report import read_page
from tests.tiny_tokenizers import pieces

pytestmark = pytest.mark.slow

TASK = {
    "name": "made", "language": "en", "title": "A colour and its noun", "question": "Does the colour reach the noun?",
    "source": "made by hand", "answer_policy": "first_differing",
    "lexicon": {"color": [*COLORS], "color_other": [*COLORS], "noun": [*NOUNS], "noun_other": [*NOUNS]},
    "vocabulary": {
        "source": "color", "target": "noun", "readers": ["answer"], "distractors": ["color_other", "noun_other"],
        "words": {"en": {"color": "the colour", "noun": "the noun", "color_other": "the other colour",
                         "noun_other": "the other noun"}},
    },
    "rungs": [{
        "name": "asked", "description": "Two nouns with a colour each, and one of them again.", "main": True,
        "templates": {
            "first": " {color} {noun}. {color_other} {noun_other}. {noun}",
            "second": " {color_other} {noun_other}. {color} {noun}. {noun}",
        },
        "answer": " {color}", "corrupted": {"other": "color"},
        "roles": ["color", "noun", "color_other", "noun_other", "answer"],
    }],
}  # fmt: skip
"""The prompts of ``groundtruth``, as text."""
ANALYSES = (
    "behavior", "attention_lesson", "activation_patching", "head_attribution", "probing", "logit_lens",
    "qk_attribution", "approximation_audit", "context_flow",
)  # fmt: skip
"""Those of the study of colours."""


def test_a_study_of_an_attention_only_grouped_query_model_says_what_it_was_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = groundtruth.build("grouped").model
    assert model.cfg.grouped_query
    assert not model.has_site("mlp_out")
    monkeypatch.setattr(model, "tokenizer", pieces(WORDS[1], *(f" {word}" for word in WORDS[2:])))
    study = {"name": "made", "title": "Made", "question": "Does the colour reach the noun?", "task": TASK, "n": 8}
    found = interp.study({**study, "analyses": ANALYSES}, model=model, out=tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["not_asked"] == {}
    verdict = found.verdict
    assert verdict is not None
    labels = dict(zip(verdict["head_label"].values.tolist(), verdict["label"].values.tolist(), strict=True))
    labels = {head: label for head, label in labels.items() if label != "none"}
    assert labels == {"L0H0": "mover", "L1H0": "reader"}
    assert verdict.attrs["answer_short"] == (
        "Yes: the colour passes through the noun; it comes there through L0H0 and from there to the answer position "
        "through L1H0."
    )
    assert verdict.attrs["answer"] in read_page(tmp_path).text
