"""Published figures of GPT-2 small on its own weights, and, without them, that other weights do not have them.

make test MARKERS=hub                       GPT-2 small from the hub or its cache
INTERP_GPT2=DIR make test MARKERS=hub       from a directory
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import huggingface_hub
import pytest

import interp
from interp import HookedTransformer, InterpError
from tests.published.measured import FIGURES, NAME_MOVERS, YEARS, Measured, check
from tests.tiny import make_gpt2
from tests.tiny_tokenizers import pieces


@pytest.fixture(scope="module")
def gpt2_small() -> Measured:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        try:
            model = HookedTransformer.from_pretrained(os.environ.get("INTERP_GPT2", "gpt2"))
        except InterpError as error:
            if "could not be fetched from the hub" not in str(error):
                raise
            pytest.skip(f"GPT-2 small cannot be had: {error}")
    assert (model.cfg.n_layers, model.cfg.n_heads, model.cfg.d_model) == (12, 12, 768)
    return Measured(model)


@pytest.mark.hub
@pytest.mark.parametrize("name", FIGURES)
def test_gpt2_small_has_the_published_figures(name: str, gpt2_small: Measured) -> None:
    check(name, getattr(gpt2_small, FIGURES[name]["measure"]))


# ---- without its weights ----


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """GPT-2 small's layers and heads, narrow, with random weights, and a tokenizer of the tasks' words and years."""
    folder = Path(interp.__file__).parent / "tasks"
    written = "".join((folder / f"{task}.yaml").read_text(encoding="utf-8") for task in ("ioi", "greater-than"))
    words = sorted(set(re.findall(r"[A-Za-z]+|\b1[1-7]\b", written)))
    tokenizer = pieces(*words, *[f" {word}" for word in words], *[y for y in YEARS if y not in words], ",", ".")
    path = tmp_path_factory.mktemp("random")
    tokenizer.save_pretrained(path)
    sizes = {"n_layer": 12, "n_head": 12, "n_embd": 48, "vocab_size": len(tokenizer), "n_positions": 128}
    return Measured(HookedTransformer.from_pretrained(make_gpt2(path, **sizes), device="cpu"), n=8, block=6)


@pytest.mark.parametrize("name", FIGURES)
def test_random_weights_do_not_have_the_published_figures(name: str, random_weights: Measured) -> None:
    figure = FIGURES[name]
    found = getattr(random_weights, figure["measure"])
    if isinstance(found, list):
        assert set(figure["parts"]) <= set(found)
        assert len(set(found)) == len(found) > 100
    with pytest.raises(AssertionError, match=rf"{name}\b.*{re.escape(figure['source'])}"):
        check(name, found)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_says_where_it_is_from_and_is_met_by_itself(name: str) -> None:
    figure = FIGURES[name]
    one_of = {"value", "within", "units"} if "value" in figure else {"parts", "among"}
    assert set(figure) - {"read"} == {"measure", "why", "source", *one_of}
    if "value" in figure:
        check(name, figure["value"] + 0.99 * figure["within"])
        with pytest.raises(AssertionError, match=rf"{name}\b"):
            check(name, figure["value"] - 1.01 * figure["within"])
    else:
        others = ["other"] * (figure["among"] - len(figure["parts"]))
        check(name, [*others, *figure["parts"]])
        with pytest.raises(AssertionError, match=rf"{name}\b"):
            check(name, ["other", *others, *figure["parts"]])


def test_the_name_movers_are_those_of_the_figure() -> None:
    assert set(NAME_MOVERS) == set(FIGURES["name_movers"]["parts"])
