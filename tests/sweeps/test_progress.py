"""``progress=True`` draws one bar, wherever a function is told of progress."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import interp
from analyses import (
    activation_patching,
    approximation_audit,
    attention_lesson,
    behavior,
    head_attribution,
    lenses,
    logit_lens,
    probing,
)
from interp import HookedTransformer, tasks
from interp.errors import InterpError
from interp.prompts import PromptPairs
from interp.sweeps import progress as module

Ask = Callable[..., Any]

ASKS: dict[str, Ask] = {
    "sweep": lambda m, p, progress: interp.sweep(m, p, "z", layers=[0], progress=progress),
    "sweep_sites": lambda m, p, progress: interp.sweep_sites(m, p, ["z", "v"], layers=[0], progress=progress),
    "ablation": lambda m, p, progress: interp.ablation_sweep(m, p, "z", "zero", layers=[0], progress=progress),
    "knockout": lambda m, p, progress: interp.knockout_sweep(m, p, ["noun<-color"], progress=progress),
    "paths": lambda m, p, progress: interp.path_patching(
        m, p, senders=["L0H2"], receivers=["logits"], progress=progress
    ),
    "attribution": lambda m, p, progress: interp.attribution.attribution_patching(m, p, "z", progress=progress),
    "edges": lambda m, p, progress: interp.attribution.edge_attribution(m, p, audit=None, progress=progress),
    "lens": lambda m, p, progress: interp.lenses.logit_lens(m, p, progress=progress),
    "analysis of the lens": lambda m, p, progress: logit_lens.run(m, p, progress=progress),
    "analysis of lenses": lambda m, p, progress: lenses.run(
        m, p, sites=["resid_post"], steps=1, jacobian_prompts=1, progress=progress
    ),
    "behavior": lambda m, p, progress: behavior.run(m, p, progress=progress),
    "patching": lambda m, p, progress: activation_patching.run(m, p, sites=["z"], by_position=False, progress=progress),
    "heads": lambda m, p, progress: head_attribution.run(m, p, ablations=["zero", "mean"], progress=progress),
    "lesson": lambda m, p, progress: attention_lesson.run(m, p, progress=progress),
    "audit": lambda m, p, progress: approximation_audit.run(
        m, p, sites=["z"], methods=["gradient"], edge_methods=[], progress=progress
    ),
    "probing": lambda m, p, progress: probing.run(
        m, p, target="color", roles=["color"], layers=[0], n_folds=2, progress=progress
    ),
}


@pytest.fixture(scope="module")
def pairs(mini: HookedTransformer) -> PromptPairs:
    return tasks.build("color-noun", "recall", tokenizer=mini, n=8)


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the bars that are drawn have shown: steps done, in all, and whether they were closed."""
    drawn: list[dict[str, Any]] = []

    class Bar:
        def __init__(self, total: int, desc: str | None) -> None:
            self.total, self.n = total, 0
            self.record: dict[str, Any] = {"total": total, "done": 0, "closed": 0, "name": desc}
            drawn.append(self.record)

        def update(self, steps: int) -> None:
            self.n += steps
            self.record.update(total=self.total, done=self.n)

        def close(self) -> None:
            self.record["closed"] += 1

    monkeypatch.setattr("tqdm.auto.tqdm", Bar)
    return drawn


@pytest.mark.parametrize("name", ASKS)
def test_true_draws_one_bar_to_its_end(
    name: str, mini: HookedTransformer, pairs: PromptPairs, bars: list[dict[str, Any]]
) -> None:
    ASKS[name](mini, pairs, True)
    (bar,) = bars
    assert bar["done"] == bar["total"] > 0
    assert bar["closed"]
    ASKS[name](mini, pairs, False)
    ASKS[name](mini, pairs, None)
    assert len(bars) == 1
    heard: list[tuple[int, int]] = []
    ASKS[name](mini, pairs, lambda done, total: heard.append((done, total)))
    assert heard[-1] == (bar["total"], bar["total"])


def test_a_study_has_a_bar_for_each_stage(mini: HookedTransformer, tmp_path: Path, bars: list[dict[str, Any]]) -> None:
    asked = {
        "name": "recall", "title": "Recall", "question": "Does it?", "task": "color-noun", "rungs": ["recall"],
        "main_rung": "recall", "analyses": {"behavior": {}, "logit_lens": {}},
    }  # fmt: skip
    interp.study(asked, model=mini, n=4, out=tmp_path / "run", progress=True)
    assert [bar["name"] for bar in bars] == ["behavior", "logit_lens"]
    assert all(bar["closed"] for bar in bars)


def test_a_bar_shows_where_it_is() -> None:
    """With tqdm's own bar."""
    bar = module.listener(True)
    assert bar is not None
    bar(1, 4)
    assert (bar.bar.n, bar.bar.total, bar.bar.disable) == (1, 4, False)  # type: ignore[attr-defined]
    bar(4, 4)
    assert (bar.bar.n, bar.bar.disable) == (4, True)  # type: ignore[attr-defined]  # closed


@pytest.mark.parametrize("wrong", [3, "yes", [print]])
def test_anything_else_is_refused(wrong: Any, mini: HookedTransformer, pairs: PromptPairs) -> None:
    with pytest.raises(InterpError, match=f"progress must be True, or a function .*, not {type(wrong).__name__}"):
        interp.sweep(mini, pairs, "z", progress=wrong)
