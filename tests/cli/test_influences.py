"""Which words matter to a word, held to a plain Hugging Face model with an attention mask and other words."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from transformers import AutoModelForCausalLM, GPT2LMHeadModel

from analyses.cli.explanation import context
from analyses.cli.main import main
from analyses.cli.sentence import lines
from analyses.explaining import beginning, clock
from analyses.explaining.beginning import Beginning
from interp import HookedTransformer, Influences, InterpError, explain, results
from interp.attribution.gradients import Differentiable
from interp.mini import WEIGHTS
from interp.prompts import swaps
from tests.tiny import without_blocks
from tests.tolerance import close

TEXT = "Me encanta el color negro y tengo un gato así"
WIDE = 30.0  # the size of mini's largest logits


@pytest.fixture(scope="module")
def found(raw: HookedTransformer) -> Influences:
    return explain(raw, TEXT, "?", "gato")


def tokens_of(model: HookedTransformer, text: str) -> list[int]:
    return [model.bos_token_id, *model.tokenizer(text, add_special_tokens=False)["input_ids"]]


def read(plain: GPT2LMHeadModel, ids: list[int], hidden: slice = slice(0)) -> tuple[torch.Tensor, torch.Tensor]:
    """Stream after the last block and log-probabilities at the last token, which does not see ``hidden``."""
    n = len(ids)
    mask = torch.full((n, n), -torch.inf).triu(1)
    mask[-1, hidden] = -torch.inf
    kept: list[torch.Tensor] = []
    hook = plain.transformer.h[-1].register_forward_hook(
        lambda _, __, out: kept.append(out[0] if isinstance(out, tuple) else out)
    )
    with torch.no_grad():
        logits = plain(torch.tensor([ids]), attention_mask=mask[None, None]).logits
    hook.remove()
    return kept[0][0, -1].double(), logits[0, -1].double().log_softmax(dim=-1)


def effects(base: Any, other: Any, says: int) -> list[float]:
    (stream, clean), (changed, now) = base, other
    return [
        float((changed - stream).norm() / stream.norm()),
        float((clean.exp() * (clean - now)).sum()),
        float(now[says] - clean[says]),
    ]


NAMES = ("stream", "kl", "log_probability")
SIZES = (1.0, WIDE, WIDE)


def test_cut_attention_is_an_attention_mask_of_the_plain_model(
    found: Influences, raw: HookedTransformer, plain: GPT2LMHeadModel
) -> None:
    ids = tokens_of(raw, "Me encanta el color negro y tengo un gato")
    base = read(plain, ids)
    says = int(base[1].argmax())
    assert found.words.attrs["says"] == raw.tokenizer.decode([says])
    words = found.words
    assert words["text"].values.tolist() == "Me encanta el color negro y tengo un".split()
    starts = [*words["first_token"].values.tolist(), len(ids) - 1]
    for i in range(words.sizes["word"]):
        expected = effects(base, read(plain, ids, slice(starts[i], starts[i + 1])), says)
        for name, value, size in zip(NAMES, expected, SIZES, strict=True):
            close(words[f"knockout_{name}"][i], value, size=size, what=(name, i))


def test_another_word_is_the_plain_models_other_sentence(
    found: Influences, raw: HookedTransformer, plain: GPT2LMHeadModel
) -> None:
    base = read(plain, tokens_of(raw, "Me encanta el color negro y tengo un gato"))
    says = int(base[1].argmax())
    index = found.words["text"].values.tolist().index("negro")
    others = found.words["other_word"].values[index].tolist()
    assert others[0] == "blanco" or all(others)
    for slot, word in enumerate(others):
        expected = effects(base, read(plain, tokens_of(raw, f"Me encanta el color {word} y tengo un gato")), says)
        for name, value, size in zip(NAMES, expected, SIZES, strict=True):
            close(found.words[f"swap_{name}"][index, slot], value, size=size, what=(name, word))


def test_ways_are_compared_by_the_ranks_of_their_sizes(found: Influences) -> None:
    words = found.words
    swap = np.array([np.abs(row[np.isfinite(row)]).mean() if np.isfinite(row).any() else np.nan
                     for row in words["swap_log_probability"].values])  # fmt: skip
    there = np.isfinite(swap)
    ranks = [
        np.argsort(np.argsort(part)) for part in (swap[there], np.abs(words["integrated_gradients"].values[there]))
    ]
    expected = np.corrcoef(*ranks)[0, 1]  # no ties
    close(words["agreement"].sel(way="swap", other_way="integrated_gradients"), expected, "arithmetic")
    close(np.diag(words["agreement"].values), np.ones(5), "arithmetic")


def test_through_hooks_it_is_the_same(raw: HookedTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    own = explain(raw, "The cat is black. The cat is", "?", ">2")
    without_blocks(monkeypatch, raw)
    hooked = explain(raw, "The cat is black. The cat is", "?", ">2")
    assert hooked.order == own.order
    for name in own.words.data_vars:
        if name != "agreement":  # the ranks of what is nearly equal are rounding
            close(hooked.words[name], own.words[name], "gradient", size=WIDE, what=name)


def test_a_generated_token_is_what_the_plain_model_generates(raw: HookedTransformer, plain: GPT2LMHeadModel) -> None:
    ids = torch.tensor([tokens_of(raw, "The cat is black. The cat is")])
    with torch.no_grad():
        new = plain.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False, pad_token_id=0
        )
    for nth in (1, 3):
        found = explain(raw, "The cat is black. The cat is", "?", ">" if nth == 1 else f">{nth}")
        assert found.words.attrs["says"] == raw.tokenizer.decode(new[0, ids.shape[1] + nth - 1])
        assert found.words.sizes["word"] == 8 + nth - 1
        assert np.isnan(found.words["knockout_kl"].values[-1])  # the last token always looks at itself
    found = explain(raw, "The cat is black. The cat is", "?", ">")
    assert found.order[0] == "black"
    asked = re.search(r"place \d of (\d) by attention cut", found.answer)
    assert asked is not None
    assert int(asked[1]) == 7  # the last of eight is not asked


def test_words_that_are_alike_are_told_apart_by_the_name_that_finds_them(raw: HookedTransformer) -> None:
    text = "Un gato, un gato y un perro"
    found = explain(raw, text, "?", "perro")
    names = found.words["text"].values.tolist()
    assert names == ["Un", "gato@1", ",", "un@1", "gato@2", "y", "un@2"]
    assert sorted(found.order) == sorted(names)
    places = [swaps.find(text, name) for name in names]
    assert places == sorted(places)
    assert len(set(places)) == len(places)


def test_the_page_and_the_notebook_show_the_answer(found: Influences, tmp_path: Path) -> None:
    page = html.unescape(found.save(tmp_path / "page").read_text(encoding="utf-8"))
    assert found.answer in page
    assert found.order[0] in found.answer
    assert "¿Qué palabras importan para «gato»" in page
    assert "<title>Qué palabras importan a «gato»</title>" in page
    assert "so this section is left out" not in page
    shown = html.unescape(found._repr_html_())
    assert found.answer in shown
    assert "<svg" in shown
    assert results.load(tmp_path / "page" / "results" / "influences.nc").attrs["answer"] == found.answer


def test_nothing_matters_where_no_head_writes(raw: HookedTransformer, tmp_path: Path) -> None:
    hf = AutoModelForCausalLM.from_pretrained(WEIGHTS)
    for block in hf.transformer.h:
        block.attn.c_proj.weight.data.zero_()
    hf.save_pretrained(tmp_path)
    raw.tokenizer.save_pretrained(tmp_path)
    none = explain(HookedTransformer.from_pretrained(tmp_path), TEXT, "?", "gato")
    assert not none.reaches
    assert none.answer.startswith("No: ninguna palabra anterior cambia nada para «gato»")


def test_the_command_prints_the_answer_and_every_word(
    mini: HookedTransformer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(HookedTransformer, "from_pretrained", lambda name, **_: mini)
    asked = ["explain", "The cat is black. The cat is", "--from", "?", "--quiet"]
    assert main([*asked, "--to", ">", "--out", str(tmp_path / "page")]) == 0
    said = capsys.readouterr().out
    assert said.startswith('"black" matters most to the generated token "␣black"')
    empty = "No number under attention cut: the last token always looks at itself."
    assert said.count(empty) == 1
    assert empty not in "\n".join(lines(explain(mini, "The black cat", "?", "cat")))  # there every word has one
    header = next(line for line in said.splitlines() if line.startswith("  word "))
    assert re.split(r"  +", header.strip())[:2] == ["word", "another word"]
    assert header.endswith("other words")
    for more, says in (
        (["--to", "dog"], "The word 'dog' is not in"),
        (["--to", ">0"], "> is the token generated next"),
        (["--to", "The@1"], "Nothing stands before 'The@1'"),
        (["--to", ">", "--instead", "red"], "takes no --instead"),
    ):
        assert main([*asked, *more]) == 2
        told = capsys.readouterr().err
        assert says in told
        assert told.count("\n") == 1


def test_what_ranks_and_correlations_go_by_is_a_column(raw: HookedTransformer) -> None:
    found = explain(raw, "Me encanta el color negro, espero algún día tener un gato así", "?", "gato")
    header, *table = [re.split(r"  +", line.strip()) for line in lines(found) if line.startswith("  ")]
    assert [row[0] for row in table] == found.order
    cells = {row[0]: row[1:] for row in table if len(row) == len(header)}  # of these there is every number
    sizes, cut = (np.array([abs(float(row[column])) for row in cells.values()]) for column in (1, 2))
    for word, size in zip(cells, sizes, strict=True):
        swapped = found.words["swap_log_probability"].values[found.words["text"].values == word]
        assert float(f"{np.nanmean(np.abs(swapped)):.3g}") == size
    ranks = [np.argsort(np.argsort(part)) for part in (sizes, cut)]
    assert f"atención cortada {np.corrcoef(*ranks)[0, 1]:+.2f}" in found.answer
    assert cells["negro"][-1] == "blanco, rojo, azul"
    assert len(cells) > 5


def test_where_no_two_signs_meet_there_is_no_second_column(found: Influences) -> None:
    signs = np.sign(found.words["swap_log_probability"].values)
    assert (np.abs(np.nansum(signs, axis=1)) == np.isfinite(signs).sum(axis=1)).all()
    header = next(line for line in lines(found) if line.startswith("  palabra "))
    assert "tamaño medio" not in header
    assert "otras palabras" in header


def test_a_word_without_another_is_said_to_have_one_rank(found: Influences, raw: HookedTransformer) -> None:
    says = "solo el puesto por atención cortada da a una palabra su lugar"
    assert not np.isfinite(found.words["swap_stream"]).any("other").values.all()
    assert says in found.answer
    every = explain(raw, "Me encanta el color negro", "?", "negro")
    assert np.isfinite(every.words["swap_stream"]).any("other").values.all()
    assert says not in every.answer


def test_without_time_no_word_is_exchanged(mini: HookedTransformer) -> None:
    found = explain(mini, TEXT, "?", "gato", seconds=1e-6)
    assert np.isnan(found.words["swap_kl"].values).all()
    assert "Ninguna palabra se cambió por otra: no había ninguna, o no hubo tiempo." in found.answer
    assert "Para los gradientes no hubo tiempo." in found.answer
    assert np.isnan(found.words["saliency"].values).all()
    assert np.isfinite(found.words["knockout_kl"].values).any()
    assert found._repr_html_()


@pytest.mark.parametrize(
    ("seconds_of_a_run", "steps", "says"),
    [(0.1, 16, ""), (1.2, 8, "son de 8 pasos en lugar de 16"), (1.9, 4, "son de 4 pasos en lugar de 16"), (4.0, 0, "")],
)
def test_gradients_take_as_many_steps_as_there_is_time_for(
    mini: HookedTransformer, monkeypatch: pytest.MonkeyPatch, seconds_of_a_run: float, steps: int, says: str
) -> None:
    """By a clock that only a run of the sentence moves. Of 100 s half may be spent; a gradient counts as four runs."""
    now = [0.0]
    monkeypatch.setattr(clock.time, "monotonic", lambda: now[0])
    read = Beginning.with_read

    def slow(*arguments: Any) -> Any:
        now[0] += seconds_of_a_run if len(arguments[1]) else 0.0
        return read(*arguments)

    monkeypatch.setattr(Beginning, "with_read", slow)
    found = explain(mini, TEXT, "?", "gato", seconds=100.0)
    assert found.words.attrs["steps"] == steps
    assert bool(np.isfinite(found.words["integrated_gradients"]).all()) is (steps > 0)
    assert says in found.answer
    assert ("Para los gradientes no hubo tiempo" in found.answer) is (steps == 0)


def test_gradients_that_take_longer_than_planned_are_given_up(
    mini: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(clock.time, "monotonic", lambda: now[0])
    record = Differentiable.record

    def slow(*arguments: Any, **how: Any) -> Any:
        now[0] += 10.0
        return record(*arguments, **how)

    monkeypatch.setattr(Differentiable, "record", slow)
    found = explain(mini, TEXT, "?", "gato", seconds=100.0)
    assert 110 < now[0] <= 120  # the pass after which the time was over
    assert np.isnan(found.words["saliency"].values).all()
    assert np.isnan(found.words["swap_kl"].values).all()
    assert "Para los gradientes no hubo tiempo." in found.answer


def test_what_makes_no_sense_is_refused(mini: HookedTransformer) -> None:
    with pytest.raises(InterpError, match="takes no instead="):
        explain(mini, TEXT, "?", "gato", instead=["rojo"])
    with pytest.raises(InterpError, match="but the model reads at most"):
        explain(mini, TEXT, "?", ">100000")


def test_the_answer_names_the_words_in_the_order_of_the_numbers_it_names(
    found: Influences, raw: HookedTransformer
) -> None:
    words = found.words
    swap, cut = words["swap_log_probability"].values, np.abs(words["knockout_log_probability"].values)
    swap = [np.abs(row[np.isfinite(row)]).mean() if np.isfinite(row).any() else np.nan for row in swap]
    ranks = [
        [np.nan if not np.isfinite(value) else 1 + sum(np.isfinite(other) and other > value for other in way)
         for value in way]
        for way in (swap, cut)
    ]  # fmt: skip
    total = np.nanmean(ranks, axis=0)
    assert sorted(total) == [total[i] for i in found.places]
    first = found.places[0]
    says = found.words.attrs["says"]
    for value in (
        np.nanmean(words["swap_log_probability"].values[first]),
        words["knockout_log_probability"].values[first],
    ):
        assert f"{float(value):+.3g} nats" in found.answer
    assert f"«␣{says.strip()}», que se predice después," in found.answer


def test_where_no_word_can_be_changed_the_answer_says_that_nothing_was_tried(
    raw: HookedTransformer, capsys: pytest.CaptureFixture[str]
) -> None:
    found = explain(raw, "Hello", "?", ">")
    assert found.answer.startswith("Nothing was tried")
    assert "ut attention" not in found.answer
    assert np.isfinite(found.words["integrated_gradients"].values).all()
    assert main(["explain", "Hello", "--from", "?", "--to", ">"]) == 0
    told = capsys.readouterr().out
    assert "always looks at itself" in told
    assert "A minus says" not in told


def test_a_correlation_takes_five_words_that_both_ways_have_a_number_of() -> None:
    one, other = np.array([3.0, -1.0, 2.0, -5.0, 4.0]), np.array([-2.0, 1.0, 3.0, 4.0, 9.0])
    expected = spearmanr(np.abs(one), np.abs(other)).statistic
    close(context._agreement(one, other), expected, "arithmetic")
    one[1] = np.nan
    assert np.isnan(context._agreement(one, other))


def test_two_words_have_no_order_to_be_alike(raw: HookedTransformer) -> None:
    found = explain(raw, "The black cat", "?", "cat")
    assert found.words.sizes["word"] == 2
    assert np.isnan(found.words["agreement"].values).all()
    assert "Spearman" not in found.answer


def test_cut_attention_in_small_parts_is_the_same(
    found: Influences, raw: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beginning, "row_bytes", lambda _: 1)
    parts = explain(raw, TEXT, "?", "gato")
    for name in NAMES:
        close(parts.words[f"knockout_{name}"], found.words[f"knockout_{name}"], size=WIDE, what=name)


def test_what_only_begins_a_word_takes_no_words_place(raw: HookedTransformer, plain: GPT2LMHeadModel) -> None:
    text = "The old sailor repaired his wooden boat before the storm"
    found = explain(raw, text, "?", ">").words
    index = found["text"].values.tolist().index("wooden")
    others = [word for word in found["other_word"].values[index].tolist() if word]
    assert others
    vocabulary = [raw.tokenizer.decode([i]) for i in range(len(raw.tokenizer))]
    within = torch.tensor([piece[:1].isalpha() for piece in vocabulary])
    for word in others:
        ids = torch.tensor([tokens_of(raw, f"The old sailor repaired his {word}")])
        with torch.no_grad():
            chances = plain(ids).logits[0, -1, : len(within)].double().softmax(dim=-1)
        assert float(chances[within].sum()) < 0.5, word
