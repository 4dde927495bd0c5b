"""Every function that takes a model and prompts refuses the same bad arguments, each in the same words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from analyses import (
    activation_patching,
    approximation_audit,
    attention_lesson,
    behavior,
    head_attribution,
    lenses,
    logit_lens,
    places,
    probing,
)
from interp import ablation, interventions, metrics, readouts, results, run, sites, tasks
from interp.attribution import attribution_patching, edge_attribution
from interp.errors import InterpError, names, whole_number, whole_numbers
from interp.interventions import Ablate, AddNoise, Erase, Replace, Steer, Where
from interp.model import HookedTransformer
from interp.model.arithmetic import TAPS
from interp.prompts import PromptPairs, Template
from interp.prompts.tokens import Prompts
from interp.sweeps import (
    Ablation,
    AttentionKnockout,
    PathPatching,
    ablation_sweep,
    engine,
    knockout_sweep,
    path_patching,
    plan,
    score,
    sweep,
    sweep_sites,
)
from interp.sweeps.exact.change import CHANGES, NEW_Z
from interp.sweeps.exact.planner import OWN_FLOP
from tests.oracle import patched
from tests.tiny import LOGITS, VOCAB, random_ids, scattered_pairs
from tests.tiny_tokenizers import byte_bpe, stand_in
from tests.tolerance import close

Call = Callable[[Any, Any], object]
EDGES = ["noun<-color"]

OF_PAIRS: dict[str, Call] = {
    "score": score,
    "sweep": lambda m, p: sweep(m, p, "z"),
    "sweep_sites": lambda m, p: sweep_sites(m, p, ["z"]),
    "plan": lambda m, p: plan(m, p, "z"),
    "plan of sites": lambda m, p: plan(m, p, ["z"]),
    "ablation_sweep": lambda m, p: ablation_sweep(m, p, "z", "zero"),
    "plan of an ablation": lambda m, p: plan(m, p, Ablation("z", "zero")),
    "knockout_sweep": lambda m, p: knockout_sweep(m, p, EDGES),
    "plan of a knockout": lambda m, p: plan(m, p, AttentionKnockout(EDGES)),
    "path_patching": lambda m, p: path_patching(m, p),
    "plan of paths": lambda m, p: plan(m, p, PathPatching()),
    "attribution_patching": lambda m, p: attribution_patching(m, p, "z", audit=None),
    "edge_attribution": lambda m, p: edge_attribution(m, p, audit=None),
    "behavior": behavior.run,
    "attention_lesson": attention_lesson.run,
    "attention_lesson.patterns": attention_lesson.patterns,
    "attention_lesson.vectors": attention_lesson.vectors,
    "activation_patching": activation_patching.run,
    "activation_patching.planned": activation_patching.planned,
    "head_attribution": head_attribution.run,
    "probing": probing.run,
    "logit_lens": logit_lens.run,
    "places": places.run,
    "lenses": lenses.run,
    "approximation_audit": approximation_audit.run,
}
OF_PROMPTS: dict[str, Call] = {
    "capture": lambda m, p: run.capture(m, p.clean, "z"),
    "activations": lambda m, p: run.activations(m, p.clean, "z"),
    "logits_at": lambda m, p: run.logits_at(m, p.clean),
}


def made(length: int = 8, top: int = 7, *, corrupted_top: int | None = None, **answers: int) -> PromptPairs:
    clean = random_ids(2, length, seed=1)
    clean[:, 1] = top
    corrupted = clean.copy()
    corrupted[:, 3] = (corrupted[:, 3] + 1) % VOCAB
    if corrupted_top is not None:
        corrupted[:, 1] = corrupted_top
    chosen = {"correct": 5, "incorrect": 9, **answers}
    return PromptPairs.from_tokens(clean, corrupted, roles={"color": 3, "noun": 5}, **chosen)


TOO_LONG = "Prompt 0 has 25 tokens, but the model reads at most 24 (n_ctx). Shorten it, or choose"
OUTSIDE = "Prompt 0 holds token id 60, but the model's vocabulary ends at 59. Use ids of this model's own tokenizer."
NO_LOGIT = "id of prompt 0 is 60, but the model's output vocabulary is 0 to 59. Use ids of this model's own answers."

UNREADABLE = {
    "too long": (made(length=25), TOO_LONG),
    "outside the vocabulary": (made(top=60), OUTSIDE),
}
UNSCORABLE = {
    "outside the vocabulary, in the corrupted half": (made(corrupted_top=60), OUTSIDE),
    "an answer without a logit": (made(correct=60), f"The correct {NO_LOGIT}"),
    "a wrong answer without a logit": (made(incorrect=60), f"The incorrect {NO_LOGIT}"),
    "text": ("The cat", "The second argument is str, not pairs. Make them with PromptPairs.from_template(...) or"),
    "texts": (["The cat"], "The second argument is list, not pairs. Make them with"),
    "ids": (np.zeros((2, 5), dtype=int), "The second argument is ndarray, not pairs. Make them with"),
    "parts": ([made(), made()], "The second argument is list, not pairs. Join them with PromptPairs.concat(...)."),
    "nothing": (None, "The second argument is NoneType, not pairs."),
}


def said(call: Callable[[], object]) -> str:
    with pytest.raises(InterpError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("what", [*UNREADABLE, *UNSCORABLE])
def test_every_function_says_the_same_of_bad_pairs(what: str, gpt2: HookedTransformer) -> None:
    bad, expected = (UNREADABLE | UNSCORABLE)[what]
    asked = OF_PAIRS | (OF_PROMPTS if what in UNREADABLE else {})
    messages = {name: said(partial(call, gpt2, bad)) for name, call in asked.items()}
    assert len(set(messages.values())) == 1, messages
    assert messages["score"].startswith(expected)


def test_every_function_says_the_same_of_what_is_no_model(gpt2: HookedTransformer) -> None:
    pairs = made()
    for model, second, expected in (
        (pairs, gpt2, "The first argument is PromptPairs and the second the model. Give the model first."),
        (
            "mini",
            pairs,
            "The first argument is str, not a model. Load it with HookedTransformer.from_pretrained('mini').",
        ),
        (
            gpt2.bridge,
            pairs,
            "The first argument is TransformerBridge, not a model. Wrap it with HookedTransformer.from_b",
        ),
        (None, pairs, "The first argument is NoneType, not a model. Load one with HookedTransformer.from_pretrained"),
        (HookedTransformer, pairs, "The first argument is type, not a model. "),
    ):
        messages = {name: said(partial(call, model, second)) for name, call in OF_PAIRS.items()}
        prompts = second.clean if isinstance(second, PromptPairs) else second
        messages["capture"] = said(partial(run.capture, model, prompts, "z"))
        assert len(set(messages.values())) == 1, messages
        assert messages["score"].startswith(expected)


def test_whole_answers_that_would_grow_too_long_or_have_no_logit_are_refused(gpt2: HookedTransformer) -> None:
    pairs = replace(made(length=23), answer_policy="sum_logprob", correct_tokens=((5, 6, 7),) * 2)
    for call in (score, OF_PAIRS["sweep"], head_attribution.run, behavior.run):
        assert said(lambda call=call: call(gpt2, pairs)).startswith(
            "Prompt 0 has 25 tokens, but the model reads at most"
        )
    pairs = replace(made(), answer_policy="sum_logprob", correct_tokens=((5, 60),) * 2)
    assert said(lambda: score(gpt2, pairs)).startswith(f"The answer {NO_LOGIT}")


def test_prompts_and_pairs_are_told_apart(gpt2: HookedTransformer) -> None:
    pairs = made()
    assert "Give its .clean or its .corrupted." in said(lambda: run.capture(gpt2, pairs, "z"))
    assert "Make AnsweredPrompts of it" in said(lambda: ablation_sweep(gpt2, pairs.clean, "z", "zero"))
    assert "Make them with tokens.encode" in said(lambda: run.logits_at(gpt2, [[1, 2]]))
    assert "Give one of its values" in said(lambda: sweep(gpt2, {"one": pairs}, "z"))


def test_negative_ids_are_refused_however_prompts_are_made() -> None:
    for make in (
        lambda: Prompts.from_ids([[1, -2, 3]]),
        lambda: Prompts(np.array([[1, -2, 3]]), np.array([3])),
        lambda: made(correct=-1),
    ):
        assert "negative" in said(make)


def test_hook_names_point_to_their_site(gpt2: HookedTransformer) -> None:
    pairs = made()
    for name, site, layers in (
        ("blocks.0.hook_resid_pre", "resid_pre", " with layers=[0]"),
        ("hook_z", "z", ""),
        ("blocks.2.attn.hook_attn_scores", "scores", " with layers=[2]"),
        ("blocks.1.mlp.hook_post", "mlp_post", " with layers=[1]"),
        ("hook_embed", "embed", ""),
    ):
        expected = f"'{name}' is TransformerLens's name of site '{site}'. Ask for '{site}'{layers}."
        for call in (
            lambda name=name: sweep(gpt2, pairs, name),
            lambda name=name: run.capture(gpt2, pairs.clean, name),
            lambda name=name: ablation_sweep(gpt2, pairs, name, "zero"),
            lambda name=name: attribution_patching(gpt2, pairs, name),
            lambda name=name: score(gpt2, pairs, interventions=[Ablate(site=name, kind="zero")]),
        ):
            assert said(call) == expected
    asked = run.capture(gpt2, pairs.clean, "resid_pre", layers=[0])  # what the first message advises
    assert asked["resid_pre"].sizes["layer"] == 1


OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "no layer": ({"layers": []}, "layers is empty"),
    "a layer as text": ({"layers": "0"}, "layers must be a whole number, not str"),
    "half a layer": ({"layers": [0.5]}, "layers must be a whole number, not float"),
    "a yes for a layer": ({"layers": True}, "layers must be a whole number, not bool"),
    "no position": ({"positions": []}, "positions is empty"),
    "half a position": ({"positions": [1.5]}, "positions must be a whole number"),
    "no role": ({"roles": []}, "roles is empty"),
    "a role by number": ({"roles": [3]}, "roles must be names, not int"),
    "an unknown role": ({"roles": "colour"}, "Unknown role 'colour'. Did you mean 'color'?"),
    "half a window": ({"window": 1.5}, "window must be a whole number"),
    "no window": ({"window": 0}, "window is 0"),
    "no set": ({"sets": {}}, "sets must be a mapping"),
    "a set that is a head": ({"sets": {"a": 3}}, "Set 'a' is int: give a list"),
    "a set of layers at heads": ({"sets": {"a": [3]}}, "holds 3; at site 'z' a set holds (layer, head) pairs"),
    "a set of triples": ({"sets": {"a": [(0, 1, 2)]}}, "write (layer, head)"),
    "memory as text": ({"memory": "2GB"}, "memory (bytes) must be a whole number, not str"),
    "no memory": ({"memory": 0}, "memory (bytes) is 0. Give 1 or more"),
    "a negative gap": ({"minimum_gap": -1.0}, "minimum_gap is -1.0"),
    "a gap that is none": ({"minimum_gap": float("nan")}, "minimum_gap is nan"),
    "neurons of heads": ({"neuron_groups": 2}, "neuron_groups is for mlp_post"),
    "a metric that is a function": ({"metric": metrics.rank}, "A metric is a name or a read-out, not function"),
}


@pytest.mark.parametrize("what", OPTIONS)
def test_bad_options_of_a_sweep_get_one_line(what: str, gpt2: HookedTransformer) -> None:
    options, expected = OPTIONS[what]
    assert expected in said(lambda: sweep(gpt2, made(), "z", **options))


def test_numpy_numbers_and_single_names_are_taken(gpt2: HookedTransformer) -> None:
    pairs = scattered_pairs()
    one = sweep(gpt2, pairs, "z", layers=np.int64(1), roles="color")
    two = sweep(gpt2, pairs, "z", layers=[1], roles=["color"])
    np.testing.assert_array_equal(one.patched, two.patched)
    assert whole_numbers(np.array([1, 2]), "x") == (1, 2)
    assert whole_numbers(np.array(3), "x") == (3,)
    assert names("a", "x") == ("a",)
    assert whole_number(np.int32(2), "x", least=2) == 2


def test_other_odd_arguments_get_one_line(gpt2: HookedTransformer) -> None:
    pairs = made()
    for call, expected in (
        (lambda: run.capture(gpt2, [], "z"), "There are no prompts"),
        (lambda: run.capture(gpt2, "", "z"), "Prompt 0 is empty"),
        (lambda: run.capture(gpt2, "a", "z"), "has no tokenizer"),
        (lambda: run.capture(gpt2, pairs.clean, []), "No site was asked for"),
        (lambda: run.capture(gpt2, pairs.clean, None), "A site is named by a word, not by NoneType"),
        (lambda: run.capture(gpt2, pairs.clean, [["z"]]), "A site is named by a word, not by list"),
        (lambda: sweep(gpt2, pairs, ["z"]), "A site is named by a word, not by list"),
        (lambda: run.capture(gpt2, pairs.clean, "z", at=[]), "at is empty"),
        (lambda: run.capture(gpt2, pairs.clean, "z", at="colour"), "Unknown role 'colour'"),
        (lambda: run.capture(gpt2, pairs.clean, "z", at=1.5), "A position must be a whole number, not float"),
        (lambda: run.capture(gpt2, pairs.clean, "z", at=8), "Position 8 is outside prompt 0"),
        (lambda: run.capture(gpt2, pairs.clean, "z", interventions=Ablate(site="z", kind="zero")), "must be a list"),
        (lambda: sweep_sites(gpt2, pairs, []), "No site was asked for"),
        (lambda: knockout_sweep(gpt2, pairs, []), "edges is empty"),
        (lambda: knockout_sweep(gpt2, pairs, [3]), "edges must be names, not int"),
        (lambda: path_patching(gpt2, pairs, receivers=[]), "receivers is empty"),
        (lambda: edge_attribution(gpt2, pairs, senders=[1]), "senders must be names, not int"),
        (
            lambda: attribution_patching(gpt2, pairs, "z", method="integrated", steps="5"),
            "steps must be a whole number",
        ),
        (lambda: ablation_sweep(gpt2, pairs, "z", "resample", seed=-1), "seed is -1"),
        (lambda: activation_patching.run(gpt2, pairs, max_prompts="3"), "max_prompts must be a whole number"),
        (lambda: attention_lesson.run(gpt2, pairs, prompt="0"), "prompt must be a whole number"),
        (lambda: attention_lesson.run(gpt2, pairs, layer=0.5), "layer must be a whole number"),
        (lambda: probing.run(gpt2, pairs, n_folds=2.5), "n_folds must be a whole number"),
        (lambda: probing.run(gpt2, pairs, layers=["a"]), "layers must be a whole number"),
    ):
        assert expected in said(call)


def test_odd_interventions_get_one_line(gpt2: HookedTransformer) -> None:
    pairs = made()
    z = torch.zeros(2, 8, 4, 8)
    for make, expected in (
        (lambda: Replace(site="z", values={1: z}), "Replace has no values for layer 0, only for 1"),
        (lambda: Replace(site="z", values=z), "values of Replace must be a mapping of layer to activations"),
        (lambda: Steer(site="z", vector=torch.zeros(7)), "shape (7,), but 'z' has (4, 8) at a token"),
        (lambda: Steer(site="z", vector=[1.0] * 8), "vector of Steer must be a tensor, not list"),
        (lambda: Steer(site="z", vector=torch.zeros(8), scale="2"), "scale of Steer must be a number"),
        (lambda: Erase(site="resid_pre", directions=torch.zeros(2, 7)), "have 7 numbers, but 'resid_pre' has 32"),
        (lambda: Erase(site="resid_pre", directions=torch.ones(32)), "must be rows, [direction, d]"),
        (lambda: Ablate(site="z", kind="zero", heads=[]), "heads is empty"),
        (lambda: Ablate(site="z", kind="zero", heads="1"), "heads must be a whole number, not str"),
        (lambda: Ablate(site="z", kind="zero", heads=[4]), "Head 4 does not exist at 'z'"),
        (lambda: Ablate(site="z", kind="none"), "Unknown ablation 'none'"),
        (lambda: AddNoise(scale=float("nan")), "scale of AddNoise must be a number, not nan"),
        (lambda: AddNoise(scale=1.0, seed=-1), "seed is -1. Give 0 or more"),
    ):
        assert expected in said(lambda make=make: score(gpt2, pairs, interventions=[make()]))
    one = Replace(site="z", values={1: z}, layers=[1])  # what the first message advises
    assert np.isfinite(score(gpt2, pairs, interventions=[one])).all()


def test_odd_ways_to_make_prompts_and_files_get_one_line(gpt2: HookedTransformer) -> None:
    slots, template = [{"noun": "cat"}], Template("The {noun} is", answer=" black")
    reader = stand_in(byte_bpe(["The cat is black"], 300))
    effect = sweep(gpt2, made(), "z", layers=0)
    for call, expected in (
        (
            lambda: PromptPairs.from_template("The", clean=slots, corrupted=slots, tokenizer=reader),
            "The template is str",
        ),
        (
            lambda: PromptPairs.from_template(template, clean=slots[0], corrupted=slots[0], tokenizer=reader),
            "clean must be a list of slots",
        ),
        (
            lambda: PromptPairs.from_template(template, clean=slots, corrupted=["dog"], tokenizer=reader),
            "corrupted must be a list of slots",
        ),
        (lambda: Prompts.from_ids(None), "Token ids must be one list per prompt, not NoneType"),
        (lambda: made().select(["a"]), "The selection must be whole numbers"),
        (lambda: made().select([]), "The selection has no prompts"),
        (lambda: tasks.build("color-noun", tokenizer=reader, n="3"), "n must be a whole number, not str"),
        (lambda: tasks.build("color-noun", tokenizer=None), "A task is built for a model"),
        (lambda: tasks.build(None, tokenizer=reader), "A task is named by a word or a path, not by NoneType"),
        (lambda: results.save("x.nc", effect), "The path is Dataset. Give the result, then its path."),
        (lambda: sweep(gpt2, made(), "z", store=3), "store is int. Give the path of a directory."),
        (lambda: sweep(gpt2, made(), "z", progress="yes"), "progress must be True, or a function"),
    ):
        assert expected in said(call)


def test_a_site_asked_for_twice_is_read_once(gpt2: HookedTransformer) -> None:
    pairs = made()
    assert list(run.capture(gpt2, pairs.clean, ["z", "z", "q"]).data_vars) == ["z", "q"]
    assert list(sweep_sites(gpt2, pairs, ["z", "z"])) == ["z"]


# ---- what nobody has written is refused, not taken for something else ----


@pytest.fixture
def with_normalised(gpt2: HookedTransformer, monkeypatch: pytest.MonkeyPatch) -> HookedTransformer:
    """A model with a site that is in the table and nowhere else: what attention reads, normalised."""
    new = sites.Site(
        "ln1_out", ("position", "d_model"), "projection", "blocks.{layer}.ln1.hook_out", "what attention reads",
        later_tokens_read=True,
    )  # fmt: skip
    monkeypatch.setitem(sites.SITES, "ln1_out", new)
    monkeypatch.setattr(gpt2, "sites", (*gpt2.sites, "ln1_out"))
    return gpt2


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_a_new_site_needs_its_row_only(direction: Any, with_normalised: HookedTransformer) -> None:
    model, pairs = with_normalised, made()
    swept = sweep_sites(model, pairs, ["z", "ln1_out"], direction, positions=[3, 5, 7], window=2)["ln1_out"]
    cells = [([(layer, None), (layer + 1, None)][: 3 - layer], at) for layer in range(3) for at in (3, 5, 7)]
    expected = patched(model, pairs, "ln1_out", direction, cells)
    close(swept["patched"].values.reshape(2, -1), expected, size=LOGITS)
    assert swept.attrs["engine_reason"] == "site 'ln1_out' has no tap in interp.model.arithmetic"
    assert plan(model, pairs, "ln1_out", direction).engine == swept.attrs["engine_reason"]
    assert "needs the model's own weights: site 'ln1_out'" in said(
        lambda: sweep(model, pairs, "ln1_out", precision="bfloat16")
    )
    zeroed = ablation_sweep(model, pairs, "ln1_out", "zero", positions=[5])["ablated"]
    zero = Ablate(site="ln1_out", kind="zero_raw", layers=[1], at=[5])
    close(zeroed[:, 1, 0], score(model, pairs, interventions=[zero]), size=LOGITS)
    parts = [
        attribution_patching(model, pairs, site, direction, positions=[3, 5, 7], audit=None)["estimated_effect"]
        for site in ("ln1_out", "q", "k", "v")
    ]
    of_heads = sum(part.sum("head") for part in parts[1:])  # queries, keys and values are linear in what is read
    close(parts[0].transpose(*of_heads.dims), of_heads, size=LOGITS)
    assert activation_patching.run(model, pairs, sites=["ln1_out"])["recovered_ln1_out"].attrs["units"] == "fraction"


def test_what_is_not_written_of_a_new_site_is_said(
    with_normalised: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, pairs = with_normalised, made()

    def given(**columns: Any) -> None:
        monkeypatch.setitem(sites.SITES, "ln1_out", replace(sites.SITES["ln1_out"], **columns))

    given(dims=("position", "expert"))
    assert "The length of axis 'expert' of site 'ln1_out' is not known" in said(
        lambda: ablation_sweep(model, pairs, "ln1_out", "zero", positions=[5])
    )
    given(dims=("position", "d_model"), in_raw="shifted")
    moved = torch.ones(3, 4, 8)
    monkeypatch.setattr(model, "folded_values", moved)
    assert "What folding moved out of site 'ln1_out' is not written" in said(
        lambda: ablation_sweep(model, pairs, "ln1_out", "zero_raw", positions=[5])
    )
    given(edited_at="blocks.{layer}.hook_attn_out", edit_needs="resid_pre")
    assert "How a change of site 'ln1_out' enters is not written" in said(
        lambda: score(model, pairs, interventions=[Ablate(site="ln1_out", kind="zero")])
    )
    given(derived_from="resid_pre")
    assert "How site 'ln1_out' is computed is not written" in said(lambda: run.capture(model, pairs.clean, "ln1_out"))
    given(instead="q")
    for call in (
        lambda: sweep(model, pairs, "ln1_out"),
        lambda: ablation_sweep(model, pairs, "ln1_out", "zero"),
        lambda: attribution_patching(model, pairs, "ln1_out"),
    ):
        assert said(call) == "Site 'ln1_out' is not swept. Sweep 'q' instead."


def test_the_tables_of_the_arithmetic_have_the_same_sites(gpt2: HookedTransformer, llama: HookedTransformer) -> None:
    """A site that one of them lacks would be run as another, or not at all."""
    shown: list[str] = []

    def tap(site: str, layer: int, value: torch.Tensor) -> torch.Tensor:
        shown.append(site)
        return value

    for model in (gpt2, llama):
        model.blocks.forward(torch.arange(4)[None], tap=tap)
    assert tuple(dict.fromkeys(shown)) == TAPS
    assert len(shown) == 2 * 3 * len(TAPS)
    assert set(OWN_FLOP) == set(CHANGES) <= set(TAPS) <= set(sites.SITES)
    assert {name for name in CHANGES if sites.SITES[name].has_heads} == set(NEW_Z)
    for table, column in ((run._DERIVED, "derived_from"), (run._EDITED, "edited_at")):
        assert set(table) == {name for name, site in sites.SITES.items() if getattr(site, column)}
    assert set(ablation._MOVED) == {name for name, site in sites.SITES.items() if site.in_raw == "shifted"}


def test_a_new_intervention_is_not_run_as_another(gpt2: HookedTransformer) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Flip(Where):
        site: str = "z"
        scale: float = 1.0
        seed: int = 0

    pairs = made()
    for item in (Flip(), {"site": "z"}, "z", None):
        for call in (
            lambda item=item: run.capture(gpt2, pairs.clean, "z", interventions=[item]),
            lambda item=item: run.activations(gpt2, pairs.clean, "z", interventions=[item]),
            lambda item=item: score(gpt2, pairs, interventions=[item]),
            lambda item=item: run.compile_interventions(gpt2, pairs.clean, [item]),
        ):
            assert f"{type(item).__name__} is no intervention that is known here" in said(call)


def test_a_new_ablation_is_not_run_as_another(gpt2: HookedTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interventions, "ABLATIONS", (*interventions.ABLATIONS, "median"))
    monkeypatch.setattr(head_attribution, "ABLATIONS", interventions.ABLATIONS)
    pairs = made()
    for call in (
        lambda: ablation_sweep(gpt2, pairs, "z", "median"),
        lambda: plan(gpt2, pairs, Ablation("z", "median")),
        lambda: score(gpt2, pairs, interventions=[Ablate(site="z", kind="median")]),
        lambda: head_attribution.run(gpt2, pairs, ablations=["median"]),
    ):
        assert "'median'" in said(call)


def test_a_new_metric_in_the_table_is_not_read_as_another(
    gpt2: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up = readouts.Readout("made", "logits", lambda logits, answers: logits[:, 0, 0], 0.1, needs="answers")
    monkeypatch.setitem(readouts.READOUTS, "made", made_up)
    pairs = made()
    for call in (
        lambda: sweep(gpt2, pairs, "z", metric="made"),
        lambda: ablation_sweep(gpt2, pairs, "z", "zero", "made"),
        lambda: knockout_sweep(gpt2, pairs, EDGES, "made"),
        lambda: path_patching(gpt2, pairs, metric="made"),
    ):
        assert "What read-out 'made' makes of the answers' logits is not written" in said(call)
    close(score(gpt2, pairs, metric="made"), gpt2.bridge(torch.tensor(pairs.clean.ids))[:, -1, 0].detach(), size=6.0)
    swept = replace(made_up, needs="logits", differentiable=False)
    monkeypatch.setitem(readouts.READOUTS, "made", swept)
    for call in (
        lambda: attribution_patching(gpt2, pairs, "z", metric="made"),
        lambda: edge_attribution(gpt2, pairs, metric="made"),
    ):
        assert "Metric 'made' has no gradient" in said(call)
    assert sweep(gpt2, pairs, "z", metric="made").patched.attrs["units"] == "logits"
    assert activation_patching.run(gpt2, pairs, metric="made").attrs["metric"] == "made"


def test_a_new_precision_is_not_run_as_another(gpt2: HookedTransformer) -> None:
    assert "float8" in said(lambda: engine._in(gpt2.blocks, "float8"))
    assert "Unknown precision 'float8'" in said(lambda: sweep(gpt2, made(), "z", precision="float8"))
