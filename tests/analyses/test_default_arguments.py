"""Every analysis runs with its default arguments on models of other families, or says in one line why it cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analyses.bundled import BUNDLED
from interp import tasks
from interp.errors import UnaskableError
from interp.model import HookedTransformer
from interp.prompts import PromptPairs
from interp.sweeps import budget, score
from tests.families import FAMILIES
from tests.sweeps.test_attention_only import made
from tests.tolerance import close

KINDS = ("attention only", "grouped-query", "neox", "gptj", "gemma2")
REFUSED = {
    # An edge needs an input of its own for each receiver, which hooks do not give.
    **dict.fromkeys(
        [("circuit_evaluation", kind) for kind in ("neox", "gptj", "gemma2")],
        "A circuit is run on the model's own weights only, and ",
    ),
    # The lesson shows softmax(q.k / sqrt(d_head)) v: none of these turns, caps or masks its scores so.
    **dict.fromkeys(
        [("attention_lesson", kind) for kind in ("neox", "gptj", "gemma2")], "attends by another rule here"
    ),
    ("head_attribution", "gemma2"): "Its logits are soft-capped at 3, so they are no sum of parts",
}
"""(Analysis, family) -> why it cannot be asked. A study goes on without it."""
UNSEEN = ("decoded", "control", "selectivity")
"""What is not known of words that only one half of so few prompts has."""
ASKED = tuple(
    name for name, one in BUNDLED.items() if one.needs != "results" and name not in ("ground_truth", "false_alarms")
)
"""All but the two that bring models of their own, and the one that reads results."""


@pytest.fixture(scope="session")
def colours(mini: HookedTransformer) -> PromptPairs:
    return tasks.build("color-noun", "repeated_frame", tokenizer=mini, n=6)


@pytest.fixture(scope="session")
def built() -> dict[str, HookedTransformer]:
    """Two layers of random weights with mini's vocabulary, made when they are first asked for."""
    return {}


def model_of(kind: str, built: dict[str, HookedTransformer], vocab: int, path: Path) -> HookedTransformer:
    if kind not in built:
        sizes = {"vocab_size": vocab}
        match kind:
            case "attention only":
                built[kind] = made("plain", d_vocab=vocab, n_ctx=64)
            case "grouped-query":
                built[kind] = HookedTransformer.from_pretrained(
                    FAMILIES["llama"].build(path, **sizes, num_hidden_layers=2)
                )
            case "gptj":
                built[kind] = HookedTransformer.from_pretrained(FAMILIES[kind].build(path, **sizes, n_layer=2))
            case _:
                built[kind] = HookedTransformer.from_pretrained(
                    FAMILIES[kind].build(path, **sizes, num_hidden_layers=2)
                )
    return built[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ASKED)
def test_an_analysis_runs_with_its_default_arguments(
    kind: str, name: str, built: dict[str, HookedTransformer], mini: HookedTransformer, colours: PromptPairs,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    model = model_of(kind, built, mini.cfg.vocab_out, tmp_path)
    analysis = BUNDLED[name]
    run = analysis.function("run")
    monkeypatch.setattr(budget, "CPU_BUDGET", 1.0)  # what is left open is as little as on a slow model
    if (why := REFUSED.get((name, kind))) is not None:
        with pytest.raises(UnaskableError, match=why):
            run(model, colours)
        return
    found = run(model, {"repeated_frame": colours}) if analysis.needs == "ladder" else run(model, colours)
    for label, numbers in found.data_vars.items():
        if numbers.dtype.kind == "f" and numbers.size and label not in UNSEEN:
            assert np.isfinite(numbers.values).any(), label
    if "clean" in found and found["clean"].dims == ("prompt",) and found.sizes["prompt"] == len(colours):
        close(found["clean"], score(model, colours), size=float(np.abs(found["clean"]).max()))
