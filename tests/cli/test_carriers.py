"""What carries it within a time: what is patched first, what is left, and paths, held to hooks written by hand."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from analyses.cli.explanation.answer import _whole_word
from analyses.explaining import carriers, clock
from interp import Explanation, HookedTransformer, InterpError, explain
from interp.mini import WEIGHTS
from tests.tolerance import close

TEXT = "Me encanta el color negro, espero algún día tener un gato así"
OTHERS = ["rojo", "blanco", "azul"]


@pytest.fixture(scope="module")
def found(raw: HookedTransformer) -> Explanation:
    return explain(raw, TEXT, "negro", "gato", instead=OTHERS)


def test_without_time_the_heads_that_write_most_are_patched_and_the_rest_is_said(
    found: Explanation, raw: HookedTransformer
) -> None:
    short = explain(raw, TEXT, "negro", "gato", instead=OTHERS, continuation=3, seconds=1e-6)
    assert short.reach.sizes["prompt"] == len(short.pairs) == 2
    assert short.heads.sizes["prompt"] == 1
    assert short.continuation is not None
    assert short.continuation.sizes == {"prompt": 2, "step": 1}
    patched = np.isfinite(short.heads["patched"].values[0, 0, :, :, 0])
    assert patched.sum() == carriers.FEWEST_HEADS
    written = np.abs(short.sources["written"].mean("prompt").values)
    assert written[patched].min() >= written[~patched].max()
    whole = found.heads["patched"].values[:1]
    close(short.heads["patched"].values[:, :, patched], whole[:, :, patched], size=1.0)
    assert short.route is None
    assert short.paths is None
    assert (
        "En el tiempo dado (1e-06 s): se compararon 2 de 3 palabras; se generaron 1 de 3 tokens; las cabezas se "
        "parchearon con 1 de 2 palabras; se parchearon 4" in short.answer
    )
    assert short.answer.startswith("Sí, un poco: ")
    assert re.search(
        r"De las 4 cabezas que se parchearon, L\dH\d es la que más escribe allí: su salida en «gato» devuelve por sí "
        r"sola [\d.]+ de la diferencia con rojo en su lugar, y sin ella",
        short.answer,
    )
    assert re.search(r"De las cabezas, L\dH\d es .* devuelve por sí sola [\d.]+ de la diferencia, y sin", found.answer)
    assert short._repr_html_()
    assert "route" not in short.results


def test_with_time_enough_it_is_refined_to_the_whole(
    found: Explanation, raw: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carriers, "FIRST_HEADS", 4)
    earlier: list[Explanation] = []
    last = explain(raw, TEXT, "negro", "gato", instead=OTHERS, seconds=1e6, refined=earlier.append)
    assert [one.heads.sizes["prompt"] for one in earlier] == [2, 2, 3, 3]
    assert all(one.answer.startswith("Sí, un poco: ") for one in earlier)
    assert "En el tiempo dado" not in last.answer
    for name in found.results:
        for variable in found.results[name].data_vars:
            close(last.results[name][variable], found.results[name][variable], size=1.0, what=(name, variable))


def test_an_answer_is_told_before_the_next_one_is_worked_out(
    raw: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(carriers, "FIRST_HEADS", 4)
    monkeypatch.setattr(carriers._Heads, "patch_more", stopped)
    earlier: list[Explanation] = []
    with pytest.raises(KeyboardInterrupt):
        explain(raw, TEXT, "negro", "gato", instead=OTHERS, seconds=1e6, refined=earlier.append)
    assert len(earlier) == 1


def test_a_sweep_of_paths_is_given_up_where_the_time_is_long_over(
    raw: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "MOST_OVER", 0.0)
    monkeypatch.setattr(carriers, "_words_for_route", lambda *_: 0)
    last = explain(raw, TEXT, "negro", "gato", instead=OTHERS, seconds=1e6)
    assert last.paths is None
    assert last.heads.sizes["prompt"] == 2  # as in the first answer: further ones are given up too


def test_time_that_is_left_goes_to_more_words(raw: HookedTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carriers, "FOR_HEADS", 0.0)
    monkeypatch.setattr(carriers, "_words_for_route", lambda *_: 0)
    last = explain(raw, TEXT, "negro", "gato", instead=OTHERS, seconds=1e6)
    assert last.heads.sizes["prompt"] == 3
    assert last.paths is not None
    assert last.paths.sizes["prompt"] == 2
    assert "el flujo del camino no se parcheó" in last.answer


def test_what_a_head_writes_along_the_difference_is_by_hand(found: Explanation) -> None:
    plain = AutoModelForCausalLM.from_pretrained(WEIGHTS, attn_implementation="eager").eval()
    at, layer, head, width = 12, 3, 2, plain.config.n_embd // plain.config.n_head
    streams, given = [], []
    for side in (found.pairs.clean, found.pairs.corrupted):
        hooks = [
            plain.transformer.h[-1].register_forward_hook(
                lambda _, __, out: streams.append((out[0] if isinstance(out, tuple) else out)[:, at].double())
            ),
            plain.transformer.h[layer].attn.c_proj.register_forward_pre_hook(
                lambda _, args: given.append(args[0][:, at, head * width : (head + 1) * width].double())
            ),
        ]
        with torch.no_grad():
            plain(torch.tensor(side.ids))
        for hook in hooks:
            hook.remove()
    weight = plain.transformer.h[layer].attn.c_proj.weight.double()[head * width : (head + 1) * width]
    difference = streams[0] - streams[1]
    expected = (((given[0] - given[1]) @ weight) * difference).sum(-1) / (difference**2).sum(-1)
    close(found.sources["written"].sel(layer=layer, head=head), expected.detach(), size=1.0)


def test_a_path_into_a_heads_values_is_that_of_a_hook_by_hand(found: Explanation) -> None:
    """The values of one head are made of a stream in which the source's own token is the clean one; nothing else."""
    assert found.paths is not None
    plain = AutoModelForCausalLM.from_pretrained(WEIGHTS, attn_implementation="eager").eval()
    at, width, size = 12, plain.config.n_embd // plain.config.n_head, plain.config.n_embd
    layer, head = carriers.leading(found.heads)[0]
    clean, other = (torch.tensor(side.ids) for side in (found.pairs.clean, found.pairs.corrupted))
    embedded = plain.transformer.wte.weight
    block = plain.transformer.h[layer]

    def last(ids: torch.Tensor, change: Any = None) -> torch.Tensor:
        kept: list[torch.Tensor] = []
        hooks = [
            plain.transformer.h[-1].register_forward_hook(
                lambda _, __, out: kept.append((out[0] if isinstance(out, tuple) else out)[:, at].double())
            )
        ]
        streams: list[torch.Tensor] = []
        if change is not None:
            hooks += [
                block.register_forward_pre_hook(lambda _, args: streams.append(args[0])),
                block.attn.c_attn.register_forward_hook(lambda _, __, out: change(out, streams[0])),
            ]
        with torch.no_grad():
            plain(ids)
        for hook in hooks:
            hook.remove()
        return kept[0]

    part = slice(2 * size + head * width, 2 * size + (head + 1) * width)

    def put(out: torch.Tensor, stream: torch.Tensor) -> torch.Tensor:
        changed = out.clone()
        given = block.ln_1(stream + embedded[clean] - embedded[other])
        c_attn = block.attn.c_attn
        changed[..., part] = (given @ c_attn.weight + c_attn.bias)[..., part]
        return changed

    whole, worst, after = last(clean), last(other), last(other, put)
    difference = whole - worst
    expected = ((after - worst) * difference).sum(-1) / (difference**2).sum(-1)
    here = found.paths["patched"].sel(direction="denoising", sender="embed", receiver=f"L{layer}H{head}.v")
    close(here, expected, size=1.0)


def test_the_strongest_paths_are_in_the_answer_and_end_at_the_stream(found: Explanation) -> None:
    assert (
        "Los caminos más fuertes entre las cabezas principales, según el menor de los dos efectos, devuelven: "
        in found.answer
    )
    assert "→ el flujo" in found.answer
    assert found.paths is not None
    assert found.paths["receiver"].values.tolist()[-1] == "L3.resid_post"


def test_the_way_to_a_head_says_what_its_weaker_link_counts(found: Explanation) -> None:
    said = re.search(
        r"(L\dH\d) lo toma de .*«negro» → (L\dH\d) → \1 → «gato»\. .* devuelve ([\d.e-]+)\. ", found.answer
    )
    assert said is not None
    head, first, number = said.groups()
    assert found.paths is not None
    recovered = found.paths["recovered"].mean("prompt")

    def counts(sender: str, into: str) -> float:
        inputs = [name for name in recovered["receiver"].values.tolist() if name.startswith(f"{into}.")]
        links = recovered.sel(sender=sender, receiver=inputs)
        return float(np.minimum(links.sel(direction="denoising"), 1 - links.sel(direction="noising")).max())

    assert number == f"{min(counts('embed', first), counts(first, head)):.2g}"


@pytest.mark.parametrize(
    ("tokens", "index", "word"),
    [
        ([" gat", "it", "o", " es"], 1, " gatito"),
        ([" gat", "it", "o"], 2, " gatito"),
        (["El", " perro", ",", " s", "í"], 3, " sí"),
        (["El", " perro", ",", " s", "í"], 2, ","),
        (["黒", "い", "猫"], 1, "い"),
        ([" can", "'t"], 0, " can"),
        ([" ", "x"], 0, " "),
    ],
)
def test_a_piece_of_a_word_is_named_by_its_word(tokens: list[str], index: int, word: str) -> None:
    assert _whole_word(tokens, index) == word


@pytest.mark.parametrize("seconds", [0, -1, "soon"])
def test_a_time_that_is_none_is_refused(seconds: Any, mini: HookedTransformer) -> None:
    with pytest.raises(InterpError, match="seconds is"):
        explain(mini, TEXT, "negro", "gato", seconds=seconds)
