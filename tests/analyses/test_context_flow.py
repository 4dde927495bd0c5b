"""The verdict on results made by hand: a planted mover and reader, nothing at all, and methods that disagree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import stats as reference

from analyses import context_flow
from interp import results, stats, summary, tasks
from interp.errors import InterpError
from interp.prompts.vocabulary import DOES_NOT, PREFERS, SAYS, Vocabulary
from interp.report.inputs import Result
from interp.report.sections.patching import _Sweep
from interp.results import Variable
from tests.tolerance import close, near

N, LAYERS, HEADS = 32, 3, 4
ROLES = ("color", "noun", "color_other", "noun_other", "asked", "answer")
DIRECTIONS = ("denoising", "noising")
MOVER, READER = (1, 2), (2, 1)


VOCABULARY = tasks.load("color-noun").vocabulary
"""As the pairs of the colour tasks carry it."""


class Made:
    """Stands in for the model and the pairs: where a result came from."""

    def __init__(self, task: str = "color-noun/two", model: str = "mini", n: int = N) -> None:
        self.attrs: dict[str, str | int] = {
            "task": task, "n_prompts": n, "tokens_sha256": "b", "model": model, "weights_sha256": f"w-{model}",
            "numerics": "compatibility", "bos": "prepended", "answer_policy": "single",
            "vocabulary": VOCABULARY.as_json(),
        }  # fmt: skip

    def provenance(self) -> dict[str, str | int]:
        return self.attrs


def build(variables: Mapping[str, Variable], coords: Mapping[str, Any], made: Made, **extra: Any) -> xr.Dataset:
    words = dict.fromkeys(("title", "question", "reading", "source"), "made by hand")
    return results.build(variables, coords=coords, of=[made], seed=0, extra=extra, **words)


def balanced(n: int = N, spread: float = 0.1, seed: int = 0) -> np.ndarray:
    """Values that differ by prompt and whose mean is exactly 0."""
    half = np.random.default_rng(seed).uniform(0.2, 1, n // 2) * spread
    return np.concatenate([half, -half])


def behavior(
    *, passes: bool = True, outcome: str = SAYS, n: int = N, made: Made | None = None
) -> xr.Dataset:  # fmt: skip
    right = round(0.75 * n)
    variables = {
        "accuracy": Variable(("rung",), [1.0, right / n], "share", "accuracy"),
        "accuracy_interval": Variable(
            ("rung", "ci_bound"), [stats.wilson_interval(n, n), stats.wilson_interval(right, n)], "share", "interval"
        ),
        "preferred": Variable(("rung",), [1.0, 1.0 if passes else 0.5], "share", "preferred"),
        "n": Variable(("rung",), [n, n], "prompts", "n"),
        "passes": Variable(("rung",), np.array([1, passes], np.int8), "", "passes"),
        "main": Variable(("rung",), np.array([0, 1], np.int8), "", "main"),
        "outcome": Variable(("rung",), [SAYS, outcome if passes else DOES_NOT], "", "outcome"),
        "reason": Variable(("rung",), ["passes: well", "fails: it guesses" if not passes else ""], "", ""),
    }
    coords = {"rung": ["recall", "two"], "ci_bound": ["lower", "upper"]}
    return build(variables, coords, made or Made("color-noun", n=2 * n), explained_rung="two" if passes else "recall")


def patching(
    effects: Mapping[tuple[int, int, str], tuple[float, float]], *, n: int = N, spread: float = 0.1,
    noise: float = 0.01, roles: tuple[str, ...] = ROLES, made: Made | None = None,
) -> xr.Dataset:  # fmt: skip
    """(layer, head, role) -> what denoising recovers and what noising loses; elsewhere noise around nothing."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, n, LAYERS, HEADS, len(roles))) * noise
    values[1] += 1
    for (layer, head, role), (recovered, lost) in effects.items():
        at = (slice(None), layer, head, roles.index(role))
        values[(0, *at)] = recovered + balanced(n, spread)
        values[(1, *at)] = 1 - lost - balanced(n, spread, seed=1)
    dims = ("direction", "prompt", "layer", "head", "role")
    variables = {
        "recovered_z_role": Variable(dims, values, "fraction", "recovered"),
        "patched_z_role": Variable(dims, 10 * values - 5, "logits", "patched"),
        "clean": Variable(("prompt",), np.full(n, 5.0), "logits", "clean"),
        "corrupted": Variable(("prompt",), np.full(n, -5.0), "logits", "corrupted"),
    }
    coords = {"direction": list(DIRECTIONS), "role": list(roles)}
    return build(variables, coords, made or Made(n=n), minimum_gap=0.5)


def agreeing(patched: xr.Dataset) -> xr.Dataset:
    """The metric after each patch, as what was recovered says it is."""
    for name in [str(name) for name in patched if str(name).startswith("recovered_")]:
        moved = patched[name] * (patched["clean"] - patched["corrupted"]) + patched["corrupted"]
        as_before = moved.transpose(*patched[name].dims)
        patched[name.replace("recovered", "patched")] = as_before.assign_attrs(units="logits", long_name="patched")
    return patched


def attribution(
    *, attention: Mapping[tuple[int, int, str], float] = {}, direct: Mapping[tuple[int, int], float] = {},
    ablated: Mapping[tuple[int, int], tuple[float, float, float]] = {}, color: int = 3, noun: int = 9,
    made: Made | None = None,
) -> xr.Dataset:  # fmt: skip
    rng = np.random.default_rng(1)
    edges = ["noun<-color" if noun > color else "color<-noun", "answer<-color", "answer<-noun", "asked<-noun"]
    weights = np.abs(rng.normal(size=(N, len(edges), LAYERS, HEADS))) * 0.01
    for (layer, head, edge), value in attention.items():
        weights[:, edges.index(edge), layer, head] = value + balanced(spread=0.02)
    written = rng.normal(size=(N, LAYERS * HEADS + 2)) * 0.01
    for (layer, head), value in direct.items():
        written[:, 1 + layer * HEADS + head] = value + balanced()
    effect = rng.normal(size=(3, N, LAYERS, HEADS)) * 0.01
    for (layer, head), values in ablated.items():
        effect[:, :, layer, head] = np.array(values)[:, None] + balanced()
    places = {"color": color, "noun": noun, "color_other": 13, "noun_other": 17, "asked": 19, "answer": 20}
    heads = [(layer, head) for layer in range(LAYERS) for head in range(HEADS)]
    variables = {
        "attention": Variable(("prompt", "edge", "layer", "head"), weights, "share", "attention"),
        "contribution": Variable(("prompt", "component"), written, "logits", "contribution"),
        "ablation_effect": Variable(("ablation", "prompt", "layer", "head"), effect, "logits", "effect"),
        "role_position": Variable(("prompt", "role"), np.tile(list(places.values()), (N, 1)), "tokens", "position"),
    }
    coords = {
        "edge": edges,
        "ablation": ["zero", "mean", "resample"],
        "role": list(places),
        "component": ["embed", *(f"L{layer}H{head}" for layer, head in heads), "bias"],
        "component_layer": ("component", [-1, *(layer for layer, _ in heads), -1]),
        "component_head": ("component", [-1, *(head for _, head in heads), -1]),
    }
    return build(variables, coords, made or Made())


def probing() -> xr.Dataset:
    dims = ("site", "layer", "role", "fold")
    accuracy = np.broadcast_to(np.array([0.1, 0.5, 0.9, 0.8])[None, :, None, None], (1, 4, len(ROLES), 2))
    variables = {
        "accuracy": Variable(dims, accuracy, "share", "accuracy"),
        "control_accuracy": Variable(dims, np.full_like(accuracy, 0.3), "share", "control"),
        "chance": Variable((), 0.1, "share", "chance"),
    }
    coords = {"site": ["resid_pre"], "layer": [0, 1, 2, 3], "role": list(ROLES)}
    return build(variables, coords, Made(), target="color", held_out="noun", held_out_in_words="the noun")


@pytest.fixture(scope="module")
def planted() -> dict[str, xr.Dataset]:
    """L1H2 brings the colour to the noun, L2H1 reads it at the answer, and every method says so."""
    return {
        "behavior": behavior(),
        "activation_patching": patching({(*MOVER, "noun"): (0.6, 0.5), (*READER, "answer"): (0.8, 0.7)}),
        "head_attribution": attribution(
            attention={(*MOVER, "noun<-color"): 0.87, (*READER, "answer<-noun"): 0.75},
            direct={READER: 4.2},
            ablated={MOVER: (-3.0, -2.5, -2.0), READER: (-4.0, -3.5, -3.0)},
        ),
        "probing": probing(),
        "attention_lesson": xr.Dataset(),
    }


@pytest.fixture(scope="module")
def verdict(planted: dict[str, xr.Dataset]) -> xr.Dataset:
    return context_flow.run(planted)


def labels(found: xr.Dataset) -> dict[str, str]:
    pairs = zip(found["head_label"].values, found["label"].values, strict=True)
    return {str(head): str(label) for head, label in pairs if label != "none"}


# ---- the planted case ----


def test_the_planted_mover_and_reader_are_named_and_no_other(verdict: xr.Dataset) -> None:
    assert verdict.sizes["head_label"] == LAYERS * HEADS
    assert labels(verdict) == {"L1H2": "mover", "L2H1": "reader"}
    mover, reader = verdict.sel(head_label="L1H2"), verdict.sel(head_label="L2H1")
    assert (str(mover["acts_at"].values), str(mover["directions"].values)) == ("noun", "both")
    assert (str(reader["acts_at"].values), str(reader["directions"].values)) == ("answer", "both")
    assert (int(mover["layer"]), int(mover["head"])) == MOVER
    assert verdict.attrs["gate"] == "passed"
    assert (verdict.attrs["meeting"], verdict.attrs["rung"]) == ("noun", "two")
    assert verdict.attrs["n_cells_tested"] == LAYERS * HEADS * 3 * 2


def test_the_table_holds_the_means_that_were_put_in(verdict: xr.Dataset) -> None:
    mover, reader = verdict.sel(head_label="L1H2"), verdict.sel(head_label="L2H1")
    close(mover["attention"], 0.87, "product", dtype="float64")
    close(mover["recovered_z_noun"].sel(direction="denoising"), 0.6, "product", dtype="float64")
    close(mover["recovered_z_noun"].sel(direction="noising"), 0.5, "product", dtype="float64")  # 1 - 0.5 lost
    close(reader["recovered_z_answer"].sel(direction="noising"), 0.3, "product", dtype="float64")  # 1 - 0.7 lost
    close(reader["contribution"], 4.2, "product", dtype="float64")
    close(mover["ablation_effect"].sel(ablation="mean"), -2.5, "product", dtype="float64")
    low, high = mover["recovered_z_noun_interval"].sel(direction="denoising").values
    assert 0.55 < low < 0.6 < high < 0.65
    assert float(mover["p_value"]) < 0.001


def test_the_answer_is_two_sentences_with_the_numbers(verdict: xr.Dataset) -> None:
    low, high = stats.wilson_interval(24, 32)
    first, second = verdict.attrs["answer"].split(". ")
    assert first == (
        f"On 32 prompts of color-noun/two mini gives the asked noun's colour as its top token in 75% (95% CI {low:.0%} "
        f"to {high:.0%}) and prefers it to the other answer in 100%"
    )
    words = second.replace("0.62", "#").replace("0.58", "#")
    assert second.startswith(
        "The colour reaches the noun through L1H2 (attention to the colour 0.87, recovered 0.60 [0."
    )
    assert "] when patched in alone, lost 0.50 [0." in second
    assert ", and is read at the answer position by L2H1 (attention to the noun 0.75, recovered 0.80 [0." in second
    assert words.endswith("when patched out).")


def test_agreement_says_that_all_methods_point_the_same_way(verdict: xr.Dataset) -> None:
    assert str(verdict.sel(head_label="L1H2")["agreement"].values) == "all 6 agree"
    assert str(verdict.sel(head_label="L2H1")["agreement"].values) == "all 7 agree"
    assert verdict.attrs["agreement"] == (
        "Every method that measures heads agrees on 2 of 2 named heads. A probe reads the colour at the noun best "
        "after layer 1: 0.90 with the noun held out, control 0.30, chance 0.10."
    )
    assert verdict.attrs["disagreement"] == "none"


def test_baselines_of_an_older_version_are_refused_where_nothing_else_says_the_rung(
    planted: dict[str, xr.Dataset],
) -> None:
    older = behavior()
    del older.attrs["explained_rung"]
    with pytest.raises(InterpError, match="'behavior' does not say which rung is to be explained"):
        context_flow.run({"behavior": older})
    assert context_flow.run({**planted, "behavior": older}).attrs["rung"] == "two"  # the rung that was patched


def test_a_probe_is_held_to_chance_and_to_its_control(planted: dict[str, xr.Dataset]) -> None:
    doubted, blind = probing(), probing()
    doubted["control_accuracy"] = doubted["control_accuracy"] * 0 + 0.95
    blind["accuracy"] = blind["accuracy"] * 0 + 0.1
    said = [context_flow.run({**planted, "probing": one}).attrs["agreement"] for one in (doubted, blind)]
    assert said[0].endswith(
        "A probe says nothing for or against it: it reads the colour at the noun best after layer 1, 0.90 with the "
        "noun held out, control 0.95, chance 0.10, and a control that can only memorize does as well."
    )
    assert said[1].endswith(
        "No probe reads the colour at the noun: the best, before layer 0, has 0.10 with the noun held out, control "
        "0.30, chance 0.10."
    )


def test_a_probe_reads_where_exchanged_labels_would_not(planted: dict[str, xr.Dataset]) -> None:
    """Of the layers that are beyond the null the most accurate is named; without any, none is said to be read."""
    said = []
    for p_values in ([1.0, 0.01, 0.2, 0.03], [1.0, 0.2, 0.3, 0.06]):
        one = probing()
        cells = np.broadcast_to(np.array(p_values)[None, :, None], (1, 4, len(ROLES)))
        one["p_value"] = (("site", "layer", "role"), cells, {"units": "", "long_name": "p"})
        said.append(context_flow.run({**planted, "probing": one}).attrs["agreement"])
    assert said[0].endswith(
        "A probe reads the colour at the noun best after layer 2: 0.80 with the noun held out, control 0.30, chance "
        "0.10, p 0.030 over all places."
    )
    assert said[1].endswith(
        "Whether a probe reads the colour at the noun is not sure: the best, after layer 1, has 0.90 with the noun "
        "held out, control 0.30, chance 0.10, p 0.300 over all places; with labels exchanged within pairs, the best of "
        "all places does as well in about 30% of the draws."
    )


def test_the_verdict_survives_a_file_and_repeats(
    verdict: xr.Dataset, planted: dict[str, xr.Dataset], tmp_path: Path
) -> None:
    xr.testing.assert_identical(results.load(results.save(verdict, tmp_path / "verdict.nc")), verdict)
    xr.testing.assert_equal(context_flow.run(planted), verdict)
    assert verdict.attrs["weights_sha256"] == "w-mini"


# ---- methods that disagree, one direction, negative heads ----


def test_disagreements_are_spelled_out(planted: dict[str, xr.Dataset]) -> None:
    """The mover looks elsewhere and zero ablation helps; another head writes much and hurts when ablated."""
    odd = attribution(
        attention={(*READER, "answer<-noun"): 0.75},
        direct={READER: 4.2, (2, 3): 2.0},
        ablated={MOVER: (1.0, -2.5, -2.0), READER: (-4.0, -3.5, -3.0), (0, 0): (-3.0, -2.0, -1.5)},
    )
    found = context_flow.run({**planted, "head_attribution": odd})
    assert labels(found) == {"L1H2": "mover", "L2H1": "reader"}
    said = str(found.sel(head_label="L1H2")["agreement"].values)
    assert said.startswith(
        "agree: denoising, noising, mean ablation, resample ablation; disagree: attention to the colour 0.01, "
    )
    assert "zero ablation 1.00 [0.9" in said
    assert "every ablation hurts (the mildest by -1.50 [" in str(found.sel(head_label="L0H0")["agreement"].values)
    assert "writes 2.00 [" in str(found.sel(head_label="L2H3")["agreement"].values)
    assert found.attrs["agreement"].startswith("Every method that measures heads agrees on 1 of 2 named heads.")
    assert all(head in found.attrs["disagreement"] for head in ("L1H2 (mover)", "L0H0", "L2H3"))
    assert "L2H1" not in found.attrs["disagreement"]


def test_where_no_head_has_all_methods_on_its_side_that_is_said(planted: dict[str, xr.Dataset]) -> None:
    helped = {head: (1.0, -2.5, -2.0) for head in (MOVER, READER)}
    looks = {(*MOVER, "noun<-color"): 0.9, (*READER, "answer<-noun"): 0.75}
    given = {**planted, "head_attribution": attribution(attention=looks, ablated=helped)}
    found = context_flow.run(given).attrs["agreement"]
    assert found.startswith("The methods that measure heads agree on none of the 2 named heads. ")
    given["activation_patching"] = patching({(*MOVER, "noun"): (0.6, 0.5)})
    found = context_flow.run(given).attrs["agreement"]
    assert found.startswith("The methods that measure heads do not all agree on the one named head. ")


@pytest.mark.parametrize(
    ("effect", "directions", "words"),
    [
        ((0.6, 0.0), "denoising only", "sufficient but not needed"),
        ((0.0, 0.6), "noising only", "needed but not sufficient"),
    ],
)
def test_an_effect_in_one_direction_is_flagged(
    effect: tuple[float, float], directions: str, words: str, planted: dict[str, xr.Dataset]
) -> None:
    one = patching({(*MOVER, "noun"): effect, (*READER, "answer"): (0.8, 0.7)})
    found = context_flow.run({**planted, "activation_patching": one})
    assert labels(found) == {"L1H2": "mover", "L2H1": "reader"}
    assert str(found.sel(head_label="L1H2")["directions"].values) == directions
    assert words in found.attrs["answer"]
    silent = "noising" if directions.startswith("denoising") else "denoising"
    assert f"disagree: {silent}" in str(found.sel(head_label="L1H2")["agreement"].values)


def test_a_head_that_works_against_the_answer_is_not_labelled_but_mentioned(planted: dict[str, xr.Dataset]) -> None:
    found = context_flow.run({**planted, "activation_patching": patching({(*MOVER, "noun"): (-0.5, -0.4)})})
    assert labels(found) == {}
    assert "works against the answer at the noun: denoising -0.50 [" in str(
        found.sel(head_label="L1H2")["agreement"].values
    )


def test_a_long_list_of_disagreements_is_cut_in_words_and_whole_in_the_table(planted: dict[str, xr.Dataset]) -> None:
    hurt = {(layer, head): (-3.0, -2.0, -1.5) for layer in range(LAYERS) for head in range(HEADS)}
    given = {**planted, "activation_patching": patching({}), "head_attribution": attribution(ablated=hurt)}
    found = context_flow.run(given)
    assert found.attrs["disagreement"].endswith(". 4 more heads: see the table")
    assert all("every ablation hurts" in str(said) for said in found["agreement"].values)


def test_a_head_that_acts_at_both_words_is_labelled_by_the_larger(planted: dict[str, xr.Dataset]) -> None:
    two = patching({(*MOVER, "noun"): (0.3, 0.3), (*MOVER, "asked"): (0.6, 0.6)})
    found = context_flow.run({**planted, "activation_patching": two})
    assert labels(found) == {"L1H2": "reader"}
    assert str(found.sel(head_label="L1H2")["acts_at"].values) == "asked"
    assert found.attrs["answer"].split(". ")[1].startswith("No single head brings the colour to the noun (the largest")
    assert "; the colour is read at the asked noun by L1H2 (" in found.attrs["answer"]


def test_a_head_that_acts_at_another_word_is_not_labelled_but_mentioned(planted: dict[str, xr.Dataset]) -> None:
    given = patching({(*READER, "answer"): (0.8, 0.7)})
    everywhere = given["recovered_z_role"].sel(role="color_other", drop=True).copy()
    everywhere.values[0, :, 0, 3] = 0.4 + balanced()
    given["recovered_z"] = everywhere.assign_attrs(units="fraction", long_name="recovered, all positions")
    found = context_flow.run({**planted, "activation_patching": agreeing(given)})
    assert labels(found) == {"L2H1": "reader"}
    said = str(found.sel(head_label="L0H3")["agreement"].values)
    assert said.startswith("denoising at all words at once 0.40 [0.3")
    assert said.endswith("so it acts at a word that was not tested")
    assert found.attrs["answer"].endswith("these heads bring back so much of the gap: L0H3 0.40.")


def test_an_effect_below_the_minimum_is_not_named_however_certain(planted: dict[str, xr.Dataset]) -> None:
    small = {**planted, "activation_patching": patching({(*MOVER, "noun"): (0.08, 0.08)}, spread=0.02)}
    assert labels(context_flow.run(small)) == {}
    assert labels(context_flow.run(small, minimum_effect=0.05)) == {"L1H2": "mover"}


def test_a_large_uncertain_effect_is_not_named_and_a_wide_one_is_hedged(planted: dict[str, xr.Dataset]) -> None:
    loose = {**planted, "activation_patching": patching({(*MOVER, "noun"): (0.3, 0.3)}, spread=3.0)}
    found = context_flow.run(loose)
    assert labels(found) == {}
    assert "the largest effect is L1H2 at the noun with 0.30 [" in found.attrs["answer"]
    assert "not certain among 72 cells tried (adjusted p " in found.attrs["answer"]
    wide = {**planted, "activation_patching": patching({(*MOVER, "noun"): (0.8, 0.8)}, spread=1.2)}
    found = context_flow.run(wide)
    assert labels(found) == {"L1H2": "mover"}
    assert "a wide interval, so take the size as rough" in found.attrs["answer"]


def test_only_three_heads_of_a_kind_are_named_in_the_answer(planted: dict[str, xr.Dataset]) -> None:
    many = patching({(0, head, "noun"): (0.9 - head / 10, 0.5) for head in range(4)})
    answer = context_flow.run({**planted, "activation_patching": many}).attrs["answer"]
    assert "through L0H0 (" in answer
    assert "L0H2 (recovered 0.70, lost 0.50) and 1 more, and no single head stands out as the one that reads" in answer
    assert "L0H3" not in answer


# ---- the vocabulary ----


def test_the_verdict_names_the_words_of_another_task() -> None:
    """The same numbers under other roles: nothing in the verdict knows of colours."""
    other = Vocabulary(
        source="subject", target="verb", readers=("answer",), meeting=(),
        words={"en": {"subject": "the subject", "verb": "the verb"}}, asked_for={"en": "the verb's number"},
    )  # fmt: skip
    made = Made("agreement/plain")
    made.attrs["vocabulary"] = other.as_json()
    roles = ("subject", "verb", "answer")
    given = {
        "behavior": behavior(made=made),
        "activation_patching": patching({(*MOVER, "verb"): (0.6, 0.5)}, roles=roles, made=made),
    }
    found = context_flow.run(given)
    assert labels(found) == {"L1H2": "mover"}
    assert (found.attrs["source_role"], found.attrs["target_role"]) == ("subject", "verb")
    assert "gives the verb's number as its top token in" in found.attrs["answer"]
    assert "The subject reaches the verb through L1H2 (recovered 0.60 [" in found.attrs["answer"]
    assert "patching it at the answer position does" in found.attrs["reading"]
    assert "colo" not in str(found.attrs)
    assert "noun" not in str(found.attrs)


def test_where_the_target_is_the_answer_position_there_are_movers_only() -> None:
    made = Made("own/own")
    made.attrs["vocabulary"] = Vocabulary().completed(("place", "answer"), {"place": N}).as_json()
    effects = {(*MOVER, "answer"): (0.6, 0.5)}
    patched = patching(effects, roles=("place", "answer"), made=made)
    found = context_flow.run({"behavior": behavior(made=made), "activation_patching": patched})
    assert labels(found) == {"L1H2": "mover"}
    second = found.attrs["answer"].split(". ")[1]
    assert second.startswith("'place' reaches the answer position through L1H2 (recovered 0.60 [")
    assert "no single head" not in second


def test_pairs_that_differ_in_no_role_are_told_so(planted: dict[str, xr.Dataset]) -> None:
    made = Made("own/own")
    made.attrs["vocabulary"] = Vocabulary().completed(("answer",), {}).as_json()
    given = {"behavior": behavior(made=made), "activation_patching": patching({}, made=made)}
    found = context_flow.run(given)
    assert "clean and corrupted differ in no word that has a role" in found.attrs["answer"]
    assert "head_label" not in found.sizes


def test_results_without_a_vocabulary_need_both_roles(planted: dict[str, xr.Dataset]) -> None:
    bare = {name: data.drop_attrs(deep=False).assign_attrs({k: v for k, v in data.attrs.items() if k != "vocabulary"})
            for name, data in planted.items()}  # fmt: skip
    with pytest.raises(InterpError, match="do not say which roles"):
        context_flow.run(bare, source="color")
    found = context_flow.run(bare, source="color", target="noun")
    assert labels(found) == {"L1H2": "mover", "L2H1": "reader"}
    assert "'color' reaches 'noun' through L1H2" in found.attrs["answer"]
    with pytest.raises(InterpError, match="'noun' as source and as target"):
        context_flow.run(planted, source="noun")


def test_what_could_not_be_asked_is_told_with_its_reason(planted: dict[str, xr.Dataset]) -> None:
    without = {name: data for name, data in planted.items() if name != "probing"}
    found = context_flow.run(without, not_asked={"probing": "Every prompt has the same noun."})
    assert "probing cannot be asked here: Every prompt has the same noun; " in found.attrs["limits"]
    assert "not run" not in found.attrs["limits"]


def test_a_preference_is_not_called_saying(planted: dict[str, xr.Dataset]) -> None:
    found = context_flow.run({**planted, "behavior": behavior(outcome=PREFERS)})
    low, high = stats.wilson_interval(24, 32)
    assert found.attrs["outcome"] == PREFERS
    assert found.attrs["answer"].split(". ")[0] == (
        "On 32 prompts of color-noun/two mini prefers the asked noun's colour to the other answer in 100% but does not "
        f"say it: it is the top token in 75% (95% CI {low:.0%} to {high:.0%})"
    )
    assert context_flow.run(planted).attrs["outcome"] == SAYS


# ---- nothing there ----


def test_one_number_has_one_interval_in_verdict_page_and_notebook(planted: dict[str, xr.Dataset]) -> None:
    found = context_flow.run(planted, seed=7)  # the seed is that of the sign flips alone
    patched = planted["activation_patching"]
    once = summary.of(patched, "recovered_z_role")
    on_page = _Sweep.of(Result("activation_patching", patched), "z", "_role", "head", "role").mean
    for way in DIRECTIONS:
        place, at = {"direction": way, "role": "noun"}, {"layer": MOVER[0], "head": MOVER[1]}
        mover = found.sel(head_label="L1H2", direction=way)
        said = [float(mover["recovered_z_noun"]), *map(float, mover["recovered_z_noun_interval"].values)]
        for shown in (once, on_page):
            assert said == [float(shown[name].sel(place).isel(at)) for name in ("mean", "low", "high")]


def test_where_no_head_stands_out_the_answer_says_so(planted: dict[str, xr.Dataset]) -> None:
    null = {**planted, "activation_patching": patching({})}
    found = context_flow.run(null)
    assert labels(found) == {}
    assert found.attrs["answer"].split(". ")[1].startswith("No single head stands out: the largest effect is L")
    assert "below the 0.10 that counts" in found.attrs["answer"]


@pytest.mark.slow
def test_noise_names_a_head_in_at_most_one_run_of_twenty(planted: dict[str, xr.Dataset]) -> None:
    """Large noise, so that the minimum and the intervals alone would let heads through: max-T is what stops them."""
    named = uncorrected = 0
    for seed in range(30):
        null = patching({}, n=24)
        rng = np.random.default_rng(seed)
        values = rng.normal(size=null["recovered_z_role"].shape)
        values[1] += 1
        null["recovered_z_role"].values[:] = values
        found = context_flow.run({**planted, "activation_patching": agreeing(null)}, seed=seed)
        named += bool(labels(found))
        low = found["recovered_z_noun_interval"].sel(ci_bound="lower", direction="denoising")
        uncorrected += bool(((low > 0) & (found["recovered_z_noun"].sel(direction="denoising") >= 0.1)).any())
    assert named <= 5  # at 5%, more than 5 of 30 has probability below 0.004
    assert uncorrected > 5


def test_a_model_that_fails_the_gate_gets_no_explanation(planted: dict[str, xr.Dataset]) -> None:
    found = context_flow.run({**planted, "behavior": behavior(passes=False)})
    assert "head_label" not in found.sizes
    assert (found.attrs["gate"], found.attrs["gate_reason"]) == ("failed", "fails: it guesses")
    assert found.attrs["answer"] == (
        "mini does not do color-noun/two (it guesses). So nothing is explained and no head is named."
    )
    assert float(found["accuracy"]) == 0.75
    assert "L1H2" not in str(found.attrs)


def test_a_gate_that_is_open_lets_no_guess_through(planted: dict[str, xr.Dataset]) -> None:
    opened = behavior()
    opened["preferred"][1] = 0.55
    found = context_flow.run({**planted, "behavior": opened})
    assert "head_label" not in found.sizes
    assert (found.attrs["gate"], found.attrs["outcome"]) == ("failed", DOES_NOT)
    assert "preferring the right answer on 55% of 32 prompts is not above guessing" in found.attrs["answer"]


def test_the_rung_is_the_one_that_was_explained_not_the_main_one(planted: dict[str, xr.Dataset]) -> None:
    easier = patching({(*MOVER, "noun"): (0.6, 0.5)}, made=Made("color-noun/recall"))
    found = context_flow.run({"behavior": behavior(passes=False), "activation_patching": easier})
    assert (found.attrs["rung"], found.attrs["gate"]) == ("recall", "passed")
    assert found.attrs["answer"].startswith("On 32 prompts of color-noun/recall mini gives")
    assert float(found["accuracy"]) == 1.0


def test_undefined_recoveries_do_not_become_effects(planted: dict[str, xr.Dataset]) -> None:
    """Prompts that were not patched are NaN; where none was, nothing can be said."""
    some = patching({(*MOVER, "noun"): (0.6, 0.5)})
    some["recovered_z_role"].values[:, :8] = np.nan
    assert labels(context_flow.run({**planted, "activation_patching": agreeing(some)})) == {"L1H2": "mover"}
    none = patching({})
    none["recovered_z_role"].values[:] = np.nan
    found = context_flow.run({**planted, "activation_patching": agreeing(none)})
    assert set(found["label"].values) == {"none"}
    assert "is not answered" in found.attrs["answer"]


def test_a_prompt_with_a_tiny_gap_does_not_outweigh_the_others(planted: dict[str, xr.Dataset]) -> None:
    """By hand: one gap of 0.2 in 32, where the patch moves the metric by 2; the other 31 have 10 and move by 6."""
    one = patching({(*MOVER, "noun"): (0.6, 0.5)}, spread=0.0)
    one["clean"][0] = float(one["corrupted"][0]) + 0.2
    one = agreeing(one)
    at = {"direction": 0, "prompt": 0, "layer": MOVER[0], "head": MOVER[1], "role": ROLES.index("noun")}
    one["patched_z_role"][at] = float(one["corrupted"][0]) + 2
    one["recovered_z_role"][at] = 10.0  # the mean of the prompts' own ratios is 0.89
    found = context_flow.run({**planted, "activation_patching": one}).sel(head_label="L1H2", direction="denoising")
    close(found["recovered_z_noun"], (31 * 6 + 2) / (31 * 10 + 0.2), "product", dtype="float64")
    assert [found.attrs[f"interval_{name}"] for name in ("level", "n_resamples", "seed")] == [0.95, 2000, 0]


# ---- yes or no ----


def through_the_noun(patched: xr.Dataset, recovered: float, *, spread: float = 0.01, own: float = 0.0) -> xr.Dataset:
    """The same patching, and of the noun's own stream: before layer 0 it recovers ``own``, before layer 2 the rest."""
    values = np.random.default_rng(3).normal(size=(2, N, LAYERS, 2)) * 0.001
    for layer, effect in ((0, own), (2, recovered)):
        values[0, :, layer, 1] += effect + balanced(spread=spread)
        values[1, :, layer, 1] -= effect + balanced(spread=spread)
    values[1] += 1
    dims = ("direction", "prompt", "layer", "stream_role")
    stream = xr.Dataset({"recovered_resid_pre": (dims, values), "patched_resid_pre": (dims, 10 * values - 5)})
    stream = stream.assign_coords(stream_role=["color", "noun"]).rename(stream_role="role")
    for name in stream:
        stream[name].attrs = {"units": "fraction", "long_name": "the stream"}
    return patched.merge(stream.reindex(role=patched["role"].values), combine_attrs="override")


WAY = "it comes there through L1H2 and from there to the answer position through L2H1."
CAMINO = "llega allí a través de L1H2 y de allí a la posición de la respuesta a través de L2H1."


@pytest.mark.parametrize(
    ("recovered", "own", "spread", "said", "dicho"),
    [
        (0.0, 0.0, 0.01, "No: the colour does not pass through the noun;", "No: el color no pasa por el sustantivo;"),
        (0.8, 0.0, 0.01, "Yes: the colour passes through the noun;", "Sí: el color pasa por el sustantivo;"),
        (0.05, 0.0, 0.01, "No: hardly anything of the colour passes", "No: casi nada del color pasa por el sustantivo"),
        (0.3, 0.0, 0.01, "Yes, in part: the colour passes", "Sí, en parte: el color pasa"),
        (0.1, 0.0, 2.0, "Not certain: whether the colour passes", "No es seguro: con estos datos"),
        (0.8, 0.5, 0.01, "Not certain: whether the colour passes", "No es seguro: con estos datos"),
    ],
)  # fmt: skip
def test_yes_or_no_follows_from_patching_the_targets_stream(
    planted: dict[str, xr.Dataset], recovered: float, own: float, spread: float, said: str, dicho: str
) -> None:
    patched = through_the_noun(planted["activation_patching"], recovered, spread=spread, own=own)
    found = context_flow.run({**planted, "activation_patching": patched}).attrs
    assert found["answer_short"].startswith(said)
    assert found["answer_short_es"].startswith(dicho)
    assert found["answer_short"].endswith(WAY)
    assert found["answer_short_es"].endswith(CAMINO)
    assert f" the residual stream at the noun recovers at most {recovered:.2f} [" in (
        found["answer"].replace("loses", "recovers")
    )


def test_without_the_stream_the_heads_say_yes_or_nobody_does(
    planted: dict[str, xr.Dataset], verdict: xr.Dataset
) -> None:
    assert verdict.attrs["answer_short"] == f"Yes: the colour passes through the noun; {WAY}"
    nothing = context_flow.run({**planted, "activation_patching": patching({(*READER, "answer"): (0.8, 0.7)})})
    assert nothing.attrs["answer_short"] == (
        "Not measured: whether the colour passes through the noun; no single head stands out that brings it, and it is "
        "read at the answer position by L2H1."
    )


def test_what_reaches_the_answer_position_is_what_the_gate_has_shown() -> None:
    made = Made("own/own")
    made.attrs["vocabulary"] = Vocabulary().completed(("place", "answer"), {"place": N}).as_json()
    patched = patching({(*MOVER, "answer"): (0.6, 0.5)}, roles=("place", "answer"), made=made)
    found = context_flow.run({"behavior": behavior(made=made), "activation_patching": patched}).attrs
    assert found["answer_short"] == "Yes: 'place' reaches the answer position; it comes there through L1H2."
    assert found["answer_short_es"] == "Sí: 'place' llega a la posición de la respuesta; llega allí a través de L1H2."


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ((0.07, 0.28), None, "L1H2 (in part)."),
        ((0.07, 0.9), None, "L1H2."),  # nothing comes without it
        ((0.3, 0.3), (0.25, 0.1), "L1H2 and L0H1."),  # together more than half
        ((0.3, 0.3), (0.1, 0.1), "L1H2 and L0H1 (in part)."),
    ],
)
def test_heads_that_together_do_less_than_half_are_said_to_do_a_part(
    first: tuple[float, float], second: tuple[float, float] | None, said: str
) -> None:
    made = Made("own/own")
    made.attrs["vocabulary"] = Vocabulary().completed(("place", "answer"), {"place": N}).as_json()
    effects = {(*MOVER, "answer"): first} | ({(0, 1, "answer"): second} if second else {})
    patched = patching(effects, roles=("place", "answer"), made=made)
    found = context_flow.run({"behavior": behavior(made=made), "activation_patching": patched}).attrs
    assert found["answer_short"] == f"Yes: 'place' reaches the answer position; it comes there through {said}"


def test_of_five_prompts_no_head_is_named_and_it_is_said(planted: dict[str, xr.Dataset]) -> None:
    """Two of the 32 ways to choose five signs are as extreme as the most extreme one: p is 1/16 at least."""
    strong = patching({(*MOVER, "noun"): (0.9, 0.9), (*READER, "answer"): (0.8, 0.7)})
    for n, named in ((5, False), (7, True)):
        found = context_flow.run({**planted, "activation_patching": strong.isel(prompt=slice(n))}).attrs
        assert ("L1H2" in found["answer_short"]) is named
        assert ("on 5 prompts no head can be told from chance" in found["answer_short"]) is not named
        assert ("con 5 prompts ninguna cabeza se distingue del azar" in found["answer_short_es"]) is not named
        assert ("With 5 prompts no p-value can be as low as 0.05" in found["answer"]) is not named


def test_a_target_before_the_source_gets_nothing_of_it(planted: dict[str, xr.Dataset]) -> None:
    given = {**planted, "activation_patching": patching({(*MOVER, "color"): (0.6, 0.5)})}
    given["head_attribution"] = attribution(attention={(*MOVER, "color<-noun"): 0.9}, color=9, noun=3)
    assert context_flow.run(given).attrs["answer_short"] == (
        "No: the noun stands before the colour, and attention only looks back; it meets the noun at its own word "
        "through L1H2."
    )
    given["activation_patching"] = patching({(*READER, "answer"): (0.8, 0.7)})
    found = context_flow.run(given).attrs
    assert found["answer_short"] == (
        "No: the noun stands before the colour, and attention only looks back; no single head stands out that brings "
        "the noun to the colour, and the colour is read at the answer position by L2H1."
    )
    assert found["answer_short_es"] == (
        "No: el sustantivo está antes que el color, y la atención solo mira hacia atrás; ninguna cabeza destaca por sí "
        "sola como la que lleva el sustantivo hasta el color, y el color se lee en la posición de la respuesta "
        "mediante L2H1."
    )


def test_heads_that_are_needed_and_carry_nothing_are_in_the_answer(planted: dict[str, xr.Dataset]) -> None:
    ablated = {(0, 0): (-3.0, -2.5, -2.0), (0, 3): (-4.0, -5.0, -6.0), (2, 2): (-4.0, -5.0, 0.5)}
    given = {**planted, "head_attribution": attribution(ablated=ablated)}
    answer = context_flow.run(given).attrs["answer"]
    assert "The answer also needs L0H3 and L0H0 (each ablation costs at least 4.00 and 2.00 logits)" in answer
    given["activation_patching"] = patching({(0, 3, "noun"): (-0.5, -0.4), (*READER, "answer"): (0.8, 0.7)})
    answer = context_flow.run(given).attrs["answer"]
    assert "The answer also needs L0H0 (each ablation costs at least 2.00 logits)" in answer  # L0H3 moves the answer


def test_a_failed_gate_is_a_no_in_both_languages(planted: dict[str, xr.Dataset]) -> None:
    found = context_flow.run({**planted, "behavior": behavior(passes=False)}).attrs
    assert found["answer_short"] == "No: mini does not do color-noun/two, so there is nothing to explain."
    assert found["answer_short_es"] == "No: mini no resuelve color-noun/two, así que no hay nada que explicar."


def test_every_sentence_of_the_verdict_is_said_twice(verdict: xr.Dataset) -> None:
    for name in ("answer_short", "answer", "gate_reason", "meeting_note", "agreement", "disagreement", "limits"):
        assert f"{name}_es" in verdict.attrs
    assert verdict.attrs["meeting_note_es"].startswith("el sustantivo viene después del color")
    assert str(verdict.sel(head_label="L1H2")["agreement_es"].values) == "los 6 coinciden"


# ---- the order of the words ----


def test_where_the_color_comes_last_it_is_where_they_meet(planted: dict[str, xr.Dataset]) -> None:
    """A mover must then look at the noun: patching the colour's word also shows heads that copy the colour itself."""
    both = patching({(*MOVER, "color"): (0.6, 0.5), (0, 1, "color"): (0.7, 0.7), (*READER, "answer"): (0.8, 0.7)})
    given = {**planted, "activation_patching": both}
    given["head_attribution"] = attribution(attention={(*MOVER, "color<-noun"): 0.9}, color=9, noun=3)
    found = context_flow.run(given)
    assert labels(found) == {"L1H2": "mover", "L2H1": "reader"}
    assert found.attrs["meeting"] == "color"
    assert "must therefore also look at the noun" in found.attrs["meeting_note"]
    assert found.attrs["meeting_note"] in found.attrs["limits"]
    assert "The colour reaches the colour" not in found.attrs["answer"]
    assert (
        "The colour meets the noun at its own word through L1H2 (attention to the noun 0.90" in (found.attrs["answer"])
    )
    assert "but it does not look at the noun" in str(found.sel(head_label="L0H1")["agreement"].values)
    assert "recovered_z_color" in found


def test_what_follows_the_later_word_is_a_place_to_meet_too(planted: dict[str, xr.Dataset]) -> None:
    """Both words can be gathered at the full stop; heads are listed by the place where they act."""
    effects = {(*MOVER, "clause_end"): (0.6, 0.5), (0, 0, "noun"): (0.3, 0.3), (*READER, "answer"): (0.8, 0.7)}
    given = patching(effects, roles=(*ROLES, "clause_end"))
    found = context_flow.run({**planted, "activation_patching": given})
    assert labels(found) == {"L0H0": "mover", "L1H2": "mover", "L2H1": "reader"}
    assert found.attrs["meeting"] == "clause_end"
    second = found.attrs["answer"].split(". ")[1]
    assert second.startswith("The colour reaches the full stop that ends its clause through L1H2 (recovered 0.60 [")
    assert " and reaches the noun through L0H0 (" in second
    assert "the noun comes after the colour, so they can meet at the noun or behind it" in found.attrs["limits"]


# ---- parts that are missing or do not fit ----


@pytest.mark.parametrize("missing", ["activation_patching", "head_attribution", "probing"])
def test_every_part_but_behavior_may_be_missing(missing: str, planted: dict[str, xr.Dataset]) -> None:
    found = context_flow.run({name: data for name, data in planted.items() if name != missing})
    expected = {} if missing == "activation_patching" else {"L1H2": "mover", "L2H1": "reader"}
    assert labels(found) == expected
    assert f"not run: {missing}" in found.attrs["limits"]
    if missing == "activation_patching":
        assert found.attrs["answer"].endswith("is not answered: this run has no activation_patching.")


def test_behavior_alone_says_what_is_known(planted: dict[str, xr.Dataset]) -> None:
    found = context_flow.run({"behavior": planted["behavior"]})
    assert "head_label" not in found.sizes
    assert found.attrs["answer"].startswith("On 32 prompts of color-noun/two mini gives")


def test_results_that_do_not_belong_together_are_refused(planted: dict[str, xr.Dataset]) -> None:
    with pytest.raises(InterpError, match="needs the result 'behavior'"):
        context_flow.run({"probing": planted["probing"]})
    with pytest.raises(InterpError, match="different weights_sha256"):
        context_flow.run({**planted, "behavior": behavior(made=Made("color-noun", model="gpt2"))})
    with pytest.raises(InterpError, match="different task"):
        context_flow.run({**planted, "activation_patching": patching({}, made=Made("color-noun/recall"))})
    smaller = planted["head_attribution"].isel(layer=slice(2))
    with pytest.raises(InterpError, match="3 x 4 and 2 x 4"):
        context_flow.run({**planted, "head_attribution": smaller})
    with pytest.raises(InterpError, match="minimum_effect is 0"):
        context_flow.run(planted, minimum_effect=0)


# ---- max-T ----


def test_max_t_of_one_cell_is_the_sign_flip_test_on_t() -> None:
    """With eight prompts all 256 sign patterns can be listed: the exact p-value."""
    values = np.random.default_rng(0).normal(size=8) + 0.6
    signs = np.array(np.meshgrid(*[[-1, 1]] * 8)).reshape(8, -1).T
    null = np.abs(reference.ttest_1samp(signs * values, 0, axis=1).statistic)
    exact = np.mean(null >= abs(reference.ttest_1samp(values, 0).statistic) * (1 - 1e-9))
    got = stats.max_t_p_values(values[:, None], n_resamples=20_000)[0]
    near(got, exact, 0.01, why="20,000 draws of signs: three standard errors")


def test_max_t_keeps_the_family_wise_error_on_dependent_cells_of_different_size() -> None:
    rng = np.random.default_rng(1)
    runs, false = 400, 0
    for seed in range(runs):
        common = rng.normal(size=(20, 1))
        values = rng.standard_t(4, size=(20, 40)) * np.linspace(0.1, 5, 40) + common
        false += bool(stats.max_t_p_values(values, n_resamples=299, seed=seed).min() <= 0.05)
    # 400 runs at 5%: 32 or more has probability below 0.01. Uncorrected, nearly every run would have one.
    assert false < 32


def test_max_t_finds_what_is_there_and_scales_do_not_matter() -> None:
    values = np.random.default_rng(2).normal(size=(24, 30))
    values[:, 7] += 2
    p = stats.max_t_p_values(values)
    assert p.argmin() == 7
    assert p[7] < 0.001
    assert np.sort(p)[1] > 0.05
    np.testing.assert_array_equal(stats.max_t_p_values(values * 10.0 ** np.arange(-15, 15)), p)
    np.testing.assert_array_equal(stats.max_t_p_values(-values), p)


def test_max_t_of_missing_constant_and_single_values() -> None:
    values = np.random.default_rng(3).normal(size=(16, 3)) + np.array([0, 3, 0])
    values[4:8, 1] = np.nan
    assert stats.max_t_p_values(values)[1] < 0.01
    values[:, 2] = 0
    assert stats.max_t_p_values(values)[2] == 1
    values[1:, 1] = np.nan
    assert stats.max_t_p_values(values)[1] == 1
    assert stats.max_t_p_values(np.ones((12, 1)))[0] < 0.01
    with pytest.raises(InterpError, match="shape"):
        stats.max_t_p_values(np.ones(3))


def test_the_answer_says_how_many_prompts_were_patched(planted: dict[str, xr.Dataset]) -> None:
    more = context_flow.run({**planted, "behavior": behavior(n=3 * N)})
    first, second = more.attrs["answer"].split(". ", 1)
    assert first.startswith(f"On {3 * N} prompts of ")
    assert second.startswith(f"On the {N} of them that were patched, the colour reaches the noun through L1H2 (")


def test_an_effect_that_is_only_uncertain_in_one_direction_is_not_called_absent(planted: dict[str, xr.Dataset]) -> None:
    patched = patching({(*MOVER, "noun"): (0.3, 0.6), (*READER, "answer"): (0.8, 0.7)})
    at = {"direction": 0, "layer": MOVER[0], "head": MOVER[1], "role": list(ROLES).index("noun")}
    patched["recovered_z_role"][at] = 0.4 + balanced(N, spread=1.5)
    found = context_flow.run({**planted, "activation_patching": agreeing(patched)})
    assert str(found.sel(head_label="L1H2")["directions"].values) == "noising only"
    assert "certain only when patched out" in found.attrs["answer"]
    assert "not sufficient" not in found.attrs["answer"]


def test_a_finding_about_the_model_organism_says_how_it_started(verdict: xr.Dataset) -> None:
    assert verdict.attrs["model"] == "mini"
    assert "mini is a model organism: it started with heads that look back" in verdict.attrs["limits"]


def test_a_finding_about_another_model_does_not(planted: dict[str, xr.Dataset]) -> None:
    others = {name: data.assign_attrs(model="gpt2") for name, data in planted.items()}
    assert "organism" not in context_flow.run(others).attrs["limits"]
