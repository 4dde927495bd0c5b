"""``interp.show``, the short reprs, and ``.interp`` on results: what is drawn is what was measured."""

from __future__ import annotations

import html
import importlib
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import xarray as xr

import interp
from analyses import attention_lesson, ground_truth, lenses, places, probing, qk_attribution
from interp import _accessor, results, summary, track_record
from interp.errors import InterpError
from interp.model import HookedTransformer
from interp.prompts import AnsweredPrompts, PromptPairs, Template
from interp.report import figures, multiples, notebook
from tests.report_fixture import NASTY, RunSpec, write_run
from tests.tiny import scattered_pairs
from tests.tolerance import close, near

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def pairs(mini: HookedTransformer) -> PromptPairs:
    return interp.tasks.build("color-noun", "recall", tokenizer=mini, n=6)


@pytest.fixture(scope="module")
def effect(mini: HookedTransformer, pairs: PromptPairs) -> xr.Dataset:
    return interp.sweep(mini, pairs, "z")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, xr.Dataset]:
    """The results of a run of made numbers, by name."""
    place = write_run(tmp_path_factory.mktemp("run"), RunSpec())
    return {path.stem: results.load(path) for path in sorted((place / "results").glob("*.nc"))}


class Found:
    """What interp.study and interp.explain give, as far as it is shown."""

    def __init__(self, found: dict[str, xr.Dataset]) -> None:
        self.answer, self.results = "No: <b>it</b> does not.", found


def words(shown: notebook.Shown) -> str:
    """The text of a cell, as a reader sees it."""
    body = re.sub(r"<style>.*?</style>", "", shown.html, flags=re.DOTALL)
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", body).split()))


def values(shown: notebook.Shown) -> list[float]:
    """The numbers that are written into the cells of a map, in order."""
    found = re.findall(r'class="value [^"]*"[^>]*>([^<]+)<', shown.html)
    return [float(text.replace("\N{MINUS SIGN}", "-")) for text in found]


KINDS: dict[str, Callable[[Any, PromptPairs, xr.Dataset], Any]] = {
    "model": lambda m, p, e: m,
    "pairs": lambda m, p, e: p,
    "prompts": lambda m, p, e: p.clean,
    "prompts with answers": lambda m, p, e: AnsweredPrompts.from_texts(["A cat", "A dog"], correct=" is", tokenizer=m),
    "template": lambda m, p, e: Template("The {noun} is", answer=" {color}"),
    "sweep": lambda m, p, e: e,
    "variable": lambda m, p, e: e["patched"],
    "patterns": lambda m, p, e: interp.capture(m, p.clean, sites=["pattern"]),
    "one head": lambda m, p, e: interp.capture(m, p.clean, sites=["pattern"]).isel(layer=1, head=0, prompt=2),
    "ablation": lambda m, p, e: interp.ablation_sweep(m, p, "z", "zero"),
    "knockout": lambda m, p, e: interp.knockout_sweep(m, p, ["noun<-color"]),
    "paths": lambda m, p, e: interp.path_patching(m, p, senders=["L0H2"], receivers=["logits", "L1H0.v"]),
    "attribution": lambda m, p, e: interp.attribution.attribution_patching(m, p, "z", audit=None),
    "edges": lambda m, p, e: interp.attribution.edge_attribution(m, p, audit=None),
    "lens": lambda m, p, e: interp.lenses.logit_lens(m, p),
    "tuned lens": lambda m, p, e: interp.lenses.tuned_lens(m, p.clean, sites=["resid_post"], steps=0),
    "what it says": lambda m, p, e: interp.lenses.jacobian_lens(m, p.clean.select([0]), sites=["resid_post"]).read(
        m, p
    ),
    "lenses side by side": lambda m, p, e: lenses.run(m, p, sites=["resid_post"], steps=0, jacobian_prompts=1),
    "places": lambda m, p, e: places.run(m, p, layers=[3], roles=["answer"], steps=2, controls=False),
    "circuit": lambda m, p, e: interp.circuits.discover(m, p, "eap", size=10, audit=None),
    "circuit evaluation": lambda m, p, e: interp.circuits.evaluate(
        m, p, interp.circuits.Circuit.of(m, p, [("embed", "logits")]), ablations=["zero"], n_random=1, n_knockouts=1
    ),
    "probe": lambda m, p, e: probing.run(m, p, layers=[3], roles=["answer"], n_permutations=2),
    "probe elsewhere": lambda m, p, e: interp.probes.transfer(m, p, p, roles=["answer"], n_permutations=2),
    "ground truth": lambda m, p, e: interp.groundtruth.build("plain"),
    "methods on trial": lambda m, p, e: ground_truth.run(m, p, known=["plain"], methods=["denoising"]),
    "roles": lambda m, p, e: interp.heads.roles(m, n=2),
    "composition": lambda m, p, e: interp.heads.composition(m),
    "why it looks": lambda m, p, e: qk_attribution.run(m, p, layer=1, head=0, dest="answer", src="color", writers=3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_made_is_shown_without_a_script_a_request_or_an_id_that_another_has(
    kind: str, mini: HookedTransformer, pairs: PromptPairs, effect: xr.Dataset, tmp_path: Path
) -> None:
    shown = interp.show(KINDS[kind](mini, pairs, effect))
    assert shown._repr_html_() == shown.html
    assert "<script" not in shown.html
    assert not re.search(r"https?://|@import|url\(|\bon\w+=", shown.html)
    ids = re.findall(r' id="([^"]*)"', shown.html)
    assert len(ids) == len(set(ids))
    for name in re.findall(r'aria-labelledby="([^"]*)"', shown.html):
        assert set(name.split()) <= set(ids)
    for selector in re.findall(r"^([^{}\n@]+)\{", shown.html.split("<style>")[1].split("</style>")[0], re.MULTILINE):
        assert all(notebook.SCOPE in one for one in selector.split(",")), selector
    assert shown.save(tmp_path / "all.html").read_text("utf-8").startswith("<!doctype html>")
    if shown.drawing is None:
        with pytest.raises(InterpError, match=r"shown in words, without a figure. Save it as .html."):
            shown.save(tmp_path / "figure.svg")
        return
    ElementTree.parse(shown.save(tmp_path / "deep" / "figure.svg"))
    assert shown.svg == (tmp_path / "deep" / "figure.svg").read_text("utf-8")
    if figures.can_draw_text():
        assert shown.save(tmp_path / "figure.png").read_bytes()[1:4] == b"PNG"


def test_two_cells_share_no_id(effect: xr.Dataset) -> None:
    ids = [set(re.findall(r' id="([^"]*)"', interp.show(effect, name).html)) for name in ("recovered", "patched")]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_the_map_of_a_sweep_has_its_ratios_of_means(effect: xr.Dataset) -> None:
    gap = (effect.clean - effect.corrupted).values.mean()
    expected = (effect.patched - effect.corrupted).values.mean(axis=0) / gap
    near(values(interp.show(effect)), expected.ravel().tolist(), 0.006, why="written with two decimals")
    assert "sufficient: share recovered" in words(interp.show(effect))


def test_of_noising_the_share_that_is_lost_is_shown(mini: HookedTransformer, pairs: PromptPairs) -> None:
    noised = interp.sweep(mini, pairs, "z", "noising")
    lost = 1 - (noised.patched - noised.corrupted).mean("prompt") / (noised.clean - noised.corrupted).mean("prompt")
    shown = interp.show(noised)
    near(values(shown), lost.values.ravel().tolist(), 0.006, why="written with two decimals")
    assert "needed: share lost" in words(shown)
    whole = summary.effect(summary.of(noised, "recovered"), "noising")
    tips = re.findall(r"<title>layer (\d), head (\d)|<title>L(\d)H(\d): (\S+) \[(\S+), (\S+)\]", shown.html)
    for _, _, layer, head, *numbers in tips:
        at = whole.isel(layer=int(layer), head=int(head))
        read = [float(text.rstrip(",").replace("\N{MINUS SIGN}", "-")) for text in numbers]
        near(read, [float(at[end]) for end in ("mean", "low", "high")], 0.0006, why="written with three decimals")
    assert len(tips) == noised.sizes["layer"] * noised.sizes["head"]
    raw = interp.show(noised, "patched")  # stays what it is
    near(values(raw), noised.patched.mean("prompt").values.ravel().tolist(), 0.06, why="written with one decimal")


def test_positions_are_named_by_their_tokens(mini: HookedTransformer, pairs: PromptPairs) -> None:
    one = pairs.select([0])
    shown = words(interp.show(interp.sweep(mini, one, "resid_pre")))
    differ = int(np.flatnonzero(one.clean.ids[0] != one.corrupted.ids[0])[0])
    clean, corrupted = (str(p.tokens[0][differ]).strip() for p in (one.clean, one.corrupted))
    assert f"{differ} ␣{clean}/␣{corrupted}" in shown


def test_every_weight_of_the_grid_has_its_colour(mini: HookedTransformer, pairs: PromptPairs) -> None:
    """The paths are read back, and each cell's colour is that of the captured weight."""
    acts = interp.capture(mini, pairs.clean, sites=["pattern"])
    shown = interp.show(acts)
    weights = acts.pattern.isel(prompt=0).values
    squares = re.findall(r'<g transform="translate[^>]*>(<title>L\d+H\d+.*?)</g>', str(shown.body), re.DOTALL)
    assert len(squares) == weights.shape[0] * weights.shape[1]
    for square, one in zip(squares, weights.reshape(-1, *weights.shape[2:]), strict=True):
        steps = np.full(one.shape, multiples.SCALE.step(0.0), dtype=object)
        for step, path in re.findall(r'<path class="(\w+)" d="([^"]+)"', square):
            for x, y, width in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\d+z", path):
                steps[int(y), int(x) : int(x) + int(width)] = step
        expected = [multiples.SCALE.step(float(value)) for value in one.ravel()]
        assert steps.ravel().tolist() == expected


def test_one_head_is_shown_with_the_words_of_its_prompt(mini: HookedTransformer, pairs: PromptPairs) -> None:
    acts = interp.capture(mini, pairs.clean, sites=["pattern"])
    one = interp.show(acts.isel(layer=0, head=2, prompt=3), prompts=pairs.clean)
    assert repr(one) == "Shown('Attention pattern of L0H2')"
    color = str(pairs[3].slots["color"])
    (said,) = re.findall(rf"L0H2: full stop reads ␣{color} (\d\.\d\d)", words(one))
    weight = acts.pattern.values[3, 0, 2, pairs.clean.role_positions("clause_end")[3]].max()
    near(float(said), float(weight), 0.006, why="written with two decimals")
    alone = interp.capture(mini, ["The cat is black."], sites=["pattern"])
    assert "␣black" in words(interp.show(alone.isel(layer=0, head=0)))  # one text says its own tokens
    stored = attention_lesson.patterns(mini, pairs)  # so does a result
    assert f"L0H2: full stop reads ␣{pairs[1].slots['color']}" in words(
        interp.show(stored.isel(layer=0, head=2, prompt=1))
    )


def test_the_padding_of_a_shorter_prompt_is_not_drawn(mini: HookedTransformer) -> None:
    acts = interp.capture(mini, ["The cat is black.", "The cat"], sites=["pattern"])
    assert 'width="3" height="3"' in interp.show(acts.isel(prompt=1)).html
    assert 'width="6" height="6"' in interp.show(acts.isel(prompt=0)).html


def test_pairs_show_their_roles_and_what_differs(pairs: PromptPairs) -> None:
    shown = interp.show(pairs)
    text = words(shown)
    assert f"{len(pairs)} pairs of color-noun/recall" in text
    for role in ("color", "noun", "asked"):
        assert f">{role}</small>" in shown.html
    for one in (pairs[0], pairs[5]):  # in full, and in the table of all
        assert one.correct.strip() in text
    changed = re.findall(r'<span class="changed">([^<]+)</span><small>color', shown.html)
    assert changed[:2] == [pairs[0].slots["color"], pairs[0].corrupted_slots["color"]]
    without = PromptPairs.from_tokens([[5, 6, 7]], [[5, 8, 7]], correct=9, incorrect=10, roles={"noun": 1})
    assert "#6" in words(interp.show(without))


def test_texts_are_shown_as_texts() -> None:
    nasty = NASTY[0]
    template = Template(nasty.replace("{", "{{") + " {noun}", answer=nasty)
    assert "<script" not in interp.show(template).html
    data = xr.Dataset({"effect": (("prompt", "word"), [[1.0, 2.0]])}, coords={"word": [nasty, NASTY[1]]})
    data["effect"].attrs["long_name"] = nasty
    shown = interp.show(data.assign_attrs(title=nasty, question=nasty, reading=nasty))
    assert "<script" not in shown.html
    ElementTree.fromstring(shown.svg)


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("behavior", "Baselines"),
        ("probing", ""),
        ("activation_patching", "resid_pre"),
        ("head_attribution", ""),
        ("approximation_audit", "exact"),
        ("attention_patterns", "Attention patterns"),
        ("attention_lesson", ""),
        ("verdict", "Which heads"),
    ],
)
def test_a_result_of_an_analysis_is_shown_by_its_own_section(
    name: str, figure: str, run: dict[str, xr.Dataset]
) -> None:
    shown = interp.show(run[name])
    assert figure in words(shown)
    right = track_record.line(name)
    assert right is None or right in words(shown)
    for other in shown.names[:1]:
        assert interp.show(run[name], other).drawing is not None or other.startswith("lesson")


def test_what_a_study_found_is_its_answer_with_the_picture(run: dict[str, xr.Dataset]) -> None:
    shown = interp.show(Found(run))
    assert "No: <b>it</b> does not." in words(shown)
    assert shown.names == tuple(run)
    assert interp.show(Found(run), "probing").html == interp.show(run["probing"]).html
    few = {"probing": run["probing"]}
    assert interp.show(Found(few)).drawing is None
    with pytest.raises(InterpError, match=r"Unknown result 'probin'. Did you mean 'probing'"):
        interp.show(Found(run), "probin")


def test_an_explanation_is_shown_in_its_own_language(mini: HookedTransformer) -> None:
    found = interp.explain(mini, "Me encanta el color negro y tengo un gato", "negro", "gato", n=2)
    shown = interp.show(found)
    assert shown.language == "es"
    assert found.answer.split(".")[0] in words(shown)
    assert shown.drawing is not None
    assert interp.show(found, "route").language == "es"


def test_what_matters_to_a_word_is_shown_as_a_map(mini: HookedTransformer) -> None:
    found = interp.explain(mini, "The cat is black. The cat is", "?", ">")
    assert found._repr_html_() == interp.show(found).html
    shown = interp.show(found)
    assert shown.drawing is not None
    assert found.answer.split(":")[0] in words(shown)
    assert interp.show(found, "influences").drawing is not None


def test_the_words_are_spanish_where_asked_for(effect: xr.Dataset, pairs: PromptPairs) -> None:
    shown = interp.show(effect, language="es")
    assert "suficiente: parte que se recupera" in words(shown)
    assert 'lang="es"' in shown.html
    assert "6 pares de color-noun/recall" in words(interp.show(pairs, language="es"))
    with pytest.raises(InterpError, match="'fr' is no language of the page"):
        interp.show(effect, language="fr")


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda e: interp.show(3), "int is not shown. What can be: a model, pairs, prompts"),
        (lambda e: interp.show(HookedTransformer), "type is not shown. What can be"),
        (lambda e: interp.show(e, "patche"), "Unknown figure 'patche' of this result. Did you mean 'patched'"),
        (lambda e: interp.show(scattered_pairs(), "z"), "name= and prompts= choose within results"),
        (lambda e: interp.show(e, prompts=[1]), "prompts= takes Prompts with tokens"),
        (lambda e: interp.show(xr.Dataset({"a": 1.0})), "no numbers along an axis"),
        (lambda e: interp.show(xr.Dataset({"z": (("layer", "d_head"), np.ones((2, 3)))})), "vectors (d_head) are not"),
        (lambda e: interp.show(e).save("figure.jpg"), "A figure is written as .svg or .png"),
        (lambda e: e.interp.to_pandas("patche"), "Unknown variable 'patche'. Did you mean 'patched'"),
    ],
)
def test_what_cannot_be_shown_is_said_in_one_line(
    ask: Callable[[xr.Dataset], Any], says: str, effect: xr.Dataset
) -> None:
    with pytest.raises(InterpError) as refused:
        ask(effect)
    assert says in str(refused.value)


# ---- the accessor ----


def test_one_call_makes_a_table_of_means_with_their_intervals(effect: xr.Dataset) -> None:
    table = effect.interp.to_pandas()
    assert list(table.columns) == ["layer", "head", "mean", "low", "high", "n"]
    for row in table.itertuples():
        moved = (effect.patched - effect.corrupted).sel(layer=row.layer, head=row.head).values.mean()
        close(row.mean, moved / (effect.clean - effect.corrupted).values.mean())
        assert row.low <= row.mean <= row.high
        assert row.n == effect.sizes["prompt"]
    of_one = effect["patched"].interp.to_pandas()
    close(of_one["mean"].values, effect["patched"].mean("prompt").values.ravel())
    every = effect.interp.to_pandas("patched", each=True)
    close(every["value"].values, effect["patched"].values.ravel())
    assert list(summary.of(effect, "recovered").interp.to_pandas("mean").columns) == ["layer", "head", "value"]
    assert (table.columns.name, every.columns.name) == ("recovered", "patched")
    assert set(table.attrs["also"]) == {str(name) for name in effect.data_vars} - {"recovered"}


def test_a_summarys_table_holds_its_interval(effect: xr.Dataset) -> None:
    whole = summary.of(effect, "recovered")
    table = whole.interp.to_pandas()
    assert list(table.columns) == ["layer", "head", "mean", "low", "high", "n"]
    close(table["high"].values, whole["high"].values.ravel())
    assert table.attrs["also"] == []


def test_interpolation_is_as_it_was(effect: xr.Dataset) -> None:
    between = effect.interp(layer=0.5)["patched"].values
    close(between, (effect["patched"].isel(layer=0) + effect["patched"].isel(layer=1)).values / 2)
    one = effect["patched"].interp(layer=[0.5])
    close(one.isel(layer=0).values, between)
    like = effect["patched"].isel(layer=[0, 1]).assign_coords(layer=[0.5, 1.5])
    close(effect["patched"].interp_like(like).isel(layer=0).values, between)
    assert "interpolat" in (effect.interp.__call__.__doc__ or "").lower()


def test_the_accessor_comes_with_results_once_and_without_a_warning(python: Run) -> None:
    code = "import sys, interp; assert 'xarray' not in sys.modules; interp.results; import xarray as xr"
    again = "import importlib; importlib.reload(interp._accessor); importlib.reload(interp.results)"
    check = "print(xr.Dataset({'a': ('x', [1.0])}).interp.to_pandas().shape)"
    done = python("-W", "error", "-c", "\n".join((*code.split("; "), *again.split("; "), check)))
    assert (done.stdout.strip(), done.stderr) == ("(1, 2)", "")
    importlib.import_module("interp._accessor")
    assert isinstance(xr.Dataset.interp, type)
    assert issubclass(xr.Dataset.interp, _accessor.Accessor)  # type: ignore[arg-type]


# ---- reprs and names ----


def test_a_repr_is_a_line_that_says_what_it_is(mini: HookedTransformer, pairs: PromptPairs) -> None:
    assert repr(mini) == (
        "HookedTransformer('mini', GPT2LMHeadModel, 4 layers, 4 heads, d_model 128, vocab 1280, float32, cpu, "
        "engine weights)"
    )
    first = repr(pairs)
    assert first.startswith("PromptPairs(6 of color-noun/recall, first '")
    assert f"{pairs[0].slots['color']}[color]" in first
    assert first.endswith("0 left out)")
    assert repr(pairs.clean).startswith("Prompts(6 of 22 tokens, BOS prepended, first '")
    answered = AnsweredPrompts.from_texts("The cat is", correct=" black", tokenizer=mini)
    assert repr(answered).startswith("AnsweredPrompts(1, first 'The cat is' -> #")
    for one in (mini, pairs, pairs.clean, answered, Template("The {noun}", answer=" is")):
        assert one._repr_html_().startswith('<div class="interp-drawing"')
        assert "\n" not in repr(one)


def test_the_names_of_interp_are_the_public_ones(python: Run) -> None:
    done = python("-c", "import interp; print(*dir(interp)); interp.show; interp.results; print(*dir(interp))")
    assert [line.split() for line in done.stdout.splitlines()] == [sorted(interp.__all__)] * 2
