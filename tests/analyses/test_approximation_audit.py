"""The audit of approximations: its numbers are those of exact patching, and a bad approximation is called bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyses import approximation_audit
from interp import report, results, tasks
from interp.attribution.gradients import Tape
from interp.errors import InterpError
from interp.model import HookedTransformer
from interp.prompts import PromptPairs
from interp.sweeps import path_patching, sweep
from tests.attribution.test_attribution import make_saturated, one_word_pairs
from tests.tiny import LOGITS, make_opt, scattered_pairs
from tests.tolerance import close


@pytest.fixture(scope="module")
def pairs() -> PromptPairs:
    return scattered_pairs()


def test_audited_cells_hold_the_effects_of_exact_patching(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    seen: list[tuple[int, int]] = []
    found = approximation_audit.run(
        gpt2, pairs, sites=["resid_pre", "z", "q"], edge_methods=["eap"], top_k=3, random=4,
        progress=lambda *counts: seen.append(counts),
    )  # fmt: skip
    assert list(found.approximation.values) == [
        "resid_pre, gradient",
        "z, gradient",
        "q, gradient",
        "q, AtP*",
        "edges, EAP",
    ]
    assert seen == [(i + 1, 5) for i in range(5)]
    assert (found.n_audited.values == 7).all()
    exact: dict[str, Any] = {site: sweep(gpt2, pairs, site, minimum_gap=0.0) for site in ("resid_pre", "z", "q")}
    edges = path_patching(gpt2, pairs, minimum_gap=0.0)
    for i, name in enumerate(found.approximation.values):
        site = str(name).split(", ")[0]
        for j, cell in enumerate(found.cell.values[i].tolist()):
            if site == "edges":
                sender, receiver = cell.split(" -> ")
                true = (edges.patched.sel(sender=sender, receiver=receiver) - edges.corrupted).mean()
            elif site == "resid_pre":
                layer, position = (int(word) for word in cell.split() if word.isdigit())
                true = (exact[site].patched.sel(layer=layer, position=position) - exact[site].corrupted).mean()
            else:
                layer, head = (int(n) for n in cell[1:].split("H"))
                true = (exact[site].patched.sel(layer=layer, head=head) - exact[site].corrupted).mean()
            close(found.exact[i, j], true, size=LOGITS)
        pearson = np.corrcoef(found.estimated.values[i], found.exact.values[i])[0, 1]
        close(found.pearson.values[i], pearson, "product", dtype="float64")
        errors = np.abs(found.estimated.values[i] - found.exact.values[i]) / np.abs(found.exact.values[i]).max()
        close(found.largest_error.values[i], errors.max(), "arithmetic", dtype="float64")
        low, high = found.slope_interval.values[i]
        assert low <= found.slope.values[i] <= high
        assert found.looked_largest.values[i].sum() == 3
        largest = found.looked_largest.values[i].astype(bool)
        estimated = np.abs(found.estimated.values[i])
        assert estimated[largest].min() >= estimated[~largest].max()


def test_a_saturated_head_makes_the_gradient_untrusted_and_the_report_says_so(tmp_path: Path) -> None:
    model = make_saturated(tmp_path / "model")
    found = approximation_audit.run(model, one_word_pairs(), sites=["q"], edge_methods=[], top_k=2, random=6)
    use = dict(zip(found.approximation.values.tolist(), found.use.values.tolist(), strict=True))
    assert use == {"q, gradient": "nothing", "q, AtP*": "numbers"}
    assert found.trusted.values.tolist() == [0, 1]
    reason = str(found.reason.sel(approximation="q, gradient").values)
    assert "of the large effects look small" in reason
    results.save(found, tmp_path / "run" / "results" / "approximation_audit.nc")
    page = report.render(tmp_path / "run").read_text(encoding="utf-8")
    assert "Do not use these approximations here" in page
    assert f"q, gradient: {reason}" in page
    assert "1 good as numbers, 1 not to be used." in page


def test_what_an_architecture_does_not_offer_is_named(pairs: PromptPairs, tmp_path: Path) -> None:
    model = HookedTransformer.from_pretrained(make_opt(tmp_path))
    found = approximation_audit.run(model, pairs, sites=["mlp_out", "q"], top_k=2, random=3)
    assert list(found.approximation.values) == ["mlp_out, gradient", "q, gradient"]
    assert found.attrs["left_out"] == "q, AtP*; edges, EAP; edges, EAP-IG (inputs)"


def test_it_survives_a_file_and_uses_as_many_prompts_as_it_is_told(
    llama: HookedTransformer, pairs: PromptPairs, tmp_path: Path
) -> None:
    found = approximation_audit.run(llama, pairs, sites=["k"], edge_methods=[], max_prompts=2, top_k=2, random=3)
    assert found.attrs["n_prompts"] == 2
    assert {cell[:2] for cell in found.cell.values.ravel().tolist() if cell} <= {"L0", "L1", "L2"}
    loaded = results.load(results.save(found, tmp_path / "a.nc"))
    np.testing.assert_array_equal(loaded.exact, found.exact)
    assert loaded.cell.values.tolist() == found.cell.values.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sites": ["resid"]}, "(?i)unknown site 'resid'"),
        ({"methods": ["gradients"]}, "(?i)unknown method 'gradients'.*gradient"),
        ({"sites": [], "edge_methods": []}, "no approximation to check"),
        ({"direction": "forward"}, "Unknown direction 'forward'"),
        ({"top_k": 0}, "top_k >= 1"),
        ({"maximum_factor": 0.8}, "maximum_factor lies between 1 and 100"),
    ],
)
def test_what_is_wrong_is_said(
    gpt2: HookedTransformer, pairs: PromptPairs, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InterpError, match=message) as caught:
        approximation_audit.run(gpt2, pairs, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_bundled_models_gradient_is_a_ranking_and_integrated_edges_are_numbers() -> None:
    """On mini the gradient at z has the order of the effects and three quarters of their size."""
    model = HookedTransformer.from_pretrained("mini")
    prompts = tasks.build("color-noun", tokenizer=model, n=8, seed=0)
    found = approximation_audit.run(
        model, prompts, sites=["z"], methods=["gradient"], edge_methods=["eap-ig-inputs"], max_prompts=8
    )
    assert found.use.values.tolist() == ["ranking", "numbers"]
    assert (found.pearson.values > 0.95).all()
    gradient, integrated = found.slope.values.tolist()
    assert 0.5 < gradient < 0.8
    assert abs(integrated - 1) < 0.1
    assert "times too small" in str(found.reason.values[0])


def test_where_a_run_is_costly_fewer_other_cells_are_patched(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"sites": ["z"], "methods": ["gradient"], "edge_methods": []}
    usual = approximation_audit.run(gpt2, pairs, **asked)
    planned = approximation_audit.planned(gpt2, pairs, **asked)
    monkeypatch.setattr("interp.sweeps.planning.COSTLY", 1.0)
    monkeypatch.setattr(approximation_audit, "FEWER", 2)
    fewer = approximation_audit.run(gpt2, pairs, **asked)
    assert (usual.n_audited.item(), fewer.n_audited.item()) == (12, 5)  # of 12 heads; a quarter looks largest
    known = dict(zip(usual.cell.values[0].tolist(), usual.exact.values[0], strict=True))
    close(fewer.exact.values[0], [known[cell] for cell in fewer.cell.values[0].tolist()], size=LOGITS)
    assert approximation_audit.planned(gpt2, pairs, **asked)[0].flop < planned[0].flop


def test_where_a_run_is_costly_plain_gradients_at_q_k_and_v_are_left_out_unless_sites_are_named(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"edge_methods": [], "top_k": 1, "random": 0}
    plans = [len(approximation_audit.planned(gpt2, pairs, **asked))]
    monkeypatch.setattr("interp.sweeps.planning.COSTLY", 1.0)
    less = approximation_audit.run(gpt2, pairs, **asked)
    assert less.approximation.values.tolist() == [
        "resid_pre, gradient", "mlp_out, gradient", "z, gradient", "q, AtP*", "k, AtP*",
    ]  # fmt: skip
    assert less.attrs["spared"] == "v, gradient; q, gradient; k, gradient"
    plans.append(len(approximation_audit.planned(gpt2, pairs, **asked)))
    assert plans == [8, 5]
    named = approximation_audit.run(gpt2, pairs, **asked, sites=["q"])
    assert named.approximation.values.tolist() == ["q, gradient", "q, AtP*"]
    assert named.attrs["spared"] == "none"
    only = approximation_audit.run(gpt2, pairs, **{**asked, "methods": ["gradient"]}, sites=None)
    assert "q, gradient" not in only.approximation.values.tolist()


def test_where_a_run_is_costly_it_is_on_fewer_prompts_unless_these_are_asked_for(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"sites": ["z"], "methods": ["gradient"], "edge_methods": [], "top_k": 1, "random": 1}
    monkeypatch.setattr("interp.sweeps.planning.COSTLY", 1.0)
    monkeypatch.setattr(approximation_audit, "COSTLY_PROMPTS", 2)
    assert len(pairs) > 2
    found = approximation_audit.run(gpt2, pairs, **asked)
    some = approximation_audit.run(gpt2, pairs.spread(2), max_prompts=100, **asked)
    every = approximation_audit.run(gpt2, pairs, max_prompts=100, **asked)
    assert [one.attrs["n_prompts"] for one in (found, some, every)] == [2, 2, len(pairs)]
    assert found.cell.values.tolist() == some.cell.values.tolist()
    close(found.exact.values, some.exact.values, size=LOGITS)
    plans = [approximation_audit.planned(gpt2, pairs, max_prompts=n, **asked)[0].flop for n in (None, 100)]
    assert plans[0] < plans[1]


def test_the_audit_takes_no_gradient_that_it_does_not_look_at(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int | None] = []
    gradient = Tape.gradient

    def counted(tape: Tape, *, drop: int | None = None) -> Any:
        taken.append(drop)
        return gradient(tape, drop=drop)

    monkeypatch.setattr(Tape, "gradient", counted)
    approximation_audit.run(gpt2, pairs, sites=["q"], methods=["atp*"], edge_methods=[], top_k=1, random=1)
    assert taken == [None]
