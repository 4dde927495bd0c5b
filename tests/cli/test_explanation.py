"""One sentence and two words, held to the plain Hugging Face model and to hooks written by hand."""

from __future__ import annotations

import html
import json
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GPT2LMHeadModel, PreTrainedTokenizerFast

from analyses.cli import explanation as module
from analyses.cli.explanation import words
from analyses.explaining.carriers import head_effects
from interp import Explanation, HookedTransformer, InterpError, explain, report, tasks
from interp.mini import WEIGHTS
from interp.prompts.chat import Written
from interp.report import notebook
from tests.tiny import without_blocks
from tests.tiny_tokenizers import byte_bpe
from tests.tolerance import close

TEXT = "Me encanta el color negro, espero algún día tener un gato así"
OTHERS = ["rojo", "blanco", "azul"]
WIDE = 30.0  # the size of mini's largest logits


@pytest.fixture(scope="module")
def found(raw: HookedTransformer) -> Explanation:
    return explain(raw, TEXT, "negro", "gato", instead=OTHERS)


def streams(hf: Any, ids: np.ndarray, edit: Any = None) -> torch.Tensor:
    """[layer, prompt, position, d_model] after each block; ``edit`` may change what ``c_proj`` of a layer is given."""
    kept: list[torch.Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _, __, out: kept.append(out[0] if isinstance(out, tuple) else out))
        for block in hf.transformer.h
    ]
    if edit is not None:
        layer, change = edit
        hooks.append(hf.transformer.h[layer].attn.c_proj.register_forward_pre_hook(change))
    with torch.no_grad():
        hf(torch.tensor(ids))
    for hook in hooks:
        hook.remove()
    return torch.stack(kept).double()


def test_what_arrives_is_the_difference_of_the_plain_models_streams(found: Explanation, plain: GPT2LMHeadModel) -> None:
    clean, other = (streams(plain, side.ids) for side in (found.pairs.clean, found.pairs.corrupted))
    expected = ((clean - other).norm(dim=-1) / clean.norm(dim=-1)).permute(1, 0, 2)
    close(found.reach["difference"].values, expected, size=1.0)
    assert (found.reach["difference"].sel(position=slice(0, 4)) == 0).all()  # nothing before the source
    here = found.reach["token"].values.tolist().index(" gato")
    close(found.arrived["mean"], expected[:, -1, here].mean(), size=1.0)
    assert int(found.arrived["n"]) == 3


def test_what_changes_in_the_predictions_is_the_plain_models(found: Explanation, plain: GPT2LMHeadModel) -> None:
    with torch.no_grad():
        said = [plain(torch.tensor(side.ids)).logits.double() for side in (found.pairs.clean, found.pairs.corrupted)]
    clean, other = (logits.log_softmax(dim=-1)[:, 12:] for logits in said)
    close(found.predictions["kl"].values, (clean.exp() * (clean - other)).sum(dim=-1), size=WIDE)
    assert found.predictions["position"].values.tolist() == [12, 13]
    reader = AutoReader.of(found)
    for word in found.predictions["word"].values.tolist():
        token = reader[word]
        here = found.predictions.sel(word=word)
        close(here["clean_probability"].values, clean[0, :, token].exp(), size=1.0)
        close(here["corrupted_probability"].values, other[:, :, token].exp(), size=1.0)
    moved = (other.exp() - clean.exp()).mean(dim=0)[0]
    assert reader[str(found.predictions["word"].values[0])] in range(len(moved))
    for best in (moved.argmax(), moved.argmin()):
        assert int(best) in {reader[word] for word in found.predictions["word"].values.tolist()}


class AutoReader(dict[str, int]):
    """Word -> token."""

    @classmethod
    def of(cls, found: Explanation) -> AutoReader:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
        return cls({tokenizer.decode([token]): token for token in range(len(tokenizer))})


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_a_heads_effect_is_that_of_a_hook_by_hand(found: Explanation, plain: GPT2LMHeadModel, direction: str) -> None:
    """The head's slice of what c_proj is given, exchanged at the target; the stream there, projected by hand."""
    clean, other = found.pairs.clean.ids, found.pairs.corrupted.ids
    base, source = (other, clean) if direction == "denoising" else (clean, other)
    at, width = 12, plain.config.n_embd // plain.config.n_head
    whole, worst = (streams(plain, ids)[-1][:, at] for ids in (clean, other))
    difference = whole - worst
    size = float((whole.norm(dim=-1) / difference.norm(dim=-1)).max())  # the streams round, their difference is small
    for layer, head in ((0, 0), (2, 1), (3, 2), (3, 3)):
        given: list[torch.Tensor] = []
        streams(plain, source, (layer, lambda _, args, given=given: given.append(args[0].clone())))
        part = slice(head * width, (head + 1) * width)

        def put(_: Any, args: Any, given: list[torch.Tensor] = given, part: slice = part) -> Any:
            changed = args[0].clone()
            changed[:, at, part] = given[0][:, at, part]
            return (changed,)

        after = streams(plain, base, (layer, put))[-1][:, at]
        expected = ((after - worst) * difference).sum(-1) / (difference**2).sum(-1)
        here = found.heads["patched"].sel(direction=direction, layer=layer, head=head, role="target")
        close(here.values, expected, size=size)


def test_the_heads_are_in_order_and_in_both_directions(found: Explanation) -> None:
    enough, needed = found.head_effects
    values = enough["mean"].values
    assert (np.diff(values) <= 0).all()
    assert enough["cell"].values.tolist() == needed["cell"].values.tolist()
    best = str(enough["cell"].values[0])
    layer, head = int(best[1]), int(best[3])
    lost = 1 - found.heads["recovered"].sel(direction="noising", layer=layer, head=head, role="target").mean("prompt")
    close(needed["mean"][0], lost, size=1.0)


def test_heads_that_there_was_no_time_for_are_not_listed(found: Explanation) -> None:
    patched = found.heads.assign(patched=found.heads["patched"].where(found.heads["layer"] == 3))
    for part in head_effects(patched):
        assert sorted(part["cell"].values.tolist()) == ["L3H0", "L3H1", "L3H2", "L3H3"]


def test_what_a_head_takes_from_each_word_is_weight_times_value(found: Explanation, plain: GPT2LMHeadModel) -> None:
    layer, head, at, width = 3, 2, 12, plain.config.n_embd // plain.config.n_head
    mixed = []
    for side in (found.pairs.clean, found.pairs.corrupted):
        kept: list[torch.Tensor] = []
        hook = plain.transformer.h[layer].attn.c_attn.register_forward_hook(
            lambda _, __, out, kept=kept: kept.append(out)
        )
        with torch.no_grad():
            weights = plain(torch.tensor(side.ids), output_attentions=True).attentions[layer][:, head, at].double()
        hook.remove()
        values = kept[0][..., 2 * plain.config.n_embd :][..., head * width : (head + 1) * width].double()
        mixed.append(weights[..., None] * values)
    moved = mixed[0] - mixed[1]
    whole = moved.sum(dim=1, keepdim=True)
    expected = (moved * whole).sum(-1) / (whole**2).sum(-1)
    close(found.sources["share"].sel(layer=layer, head=head).values, expected, size=float(expected.abs().max()))
    sums = found.sources["share"].sum("position").values
    close(sums[np.isfinite(sums) & (sums != 0)], np.ones(int((sums != 0).sum())), size=1.0)


def test_the_page_has_the_answer_the_picture_and_nothing_of_a_study(found: Explanation, tmp_path: Path) -> None:
    text = found.save(tmp_path / "page").read_text(encoding="utf-8")
    read = html.unescape(re.sub(r"<[^>]+>", "", text))  # words of the glossary and heads are marked
    assert [sentence for sentence in re.split(r"(?<=\.) ", found.answer) if sentence not in read] == []
    assert (
        json.loads((tmp_path / "page" / "report.json").read_text(encoding="utf-8"))["verdict"]["answer"] == found.answer
    )
    assert "¿Qué de «negro» llega a «gato»" in text
    arcs = re.findall(r'<(?:path|circle) class="arc[^"]*"', text)
    assert arcs
    assert all("none" not in arc for arc in arcs)
    assert "so this section is left out" not in text
    assert "L3H2" in text
    with pytest.raises(InterpError, match="holds an explanation already"):
        found.save(tmp_path / "page")
    assert report.render(tmp_path / "page", interactive=False).read_text(encoding="utf-8") == text


def test_no_thread_is_left_that_keeps_the_process_from_ending(mini: HookedTransformer) -> None:
    before = set(threading.enumerate())
    explain(mini, "I 🐈 love the color black and my 🐈‍⬛ cat", "black", "cat", n=2, seconds=5)
    assert all(thread.daemon for thread in set(threading.enumerate()) - before)


def test_a_notebook_shows_the_answer_and_the_picture_in_a_style_of_its_own(found: Explanation) -> None:
    shown = found._repr_html_()
    assert found.answer in html.unescape(shown)
    assert "<svg" in shown
    rules = [line for line in re.findall(r"<style>(.*)</style>", shown, re.DOTALL)[0].splitlines() if "{" in line]
    assert all(notebook.SCOPE in rule for rule in rules)


def test_the_continuations_are_the_plain_models(raw: HookedTransformer, plain: GPT2LMHeadModel, tmp_path: Path) -> None:
    found = explain(raw, TEXT, "negro", "gato", instead=OTHERS, continuation=5)
    own = found.continuation
    assert own is not None
    clean, other = (torch.tensor(side.ids) for side in (found.pairs.clean, found.pairs.corrupted))
    length = clean.shape[1]

    def generated(ids: torch.Tensor) -> list[int]:
        with torch.no_grad():
            said = plain.generate(ids[None], attention_mask=torch.ones_like(ids[None]), max_new_tokens=5,
                                  do_sample=False, pad_token_id=0)  # fmt: skip
        return said[0, length:].tolist()

    first, others = generated(clean[0]), [generated(row) for row in other]
    reader = raw.tokenizer
    assert own.attrs["continuation"] == reader.decode(first)
    assert own["continuation"].values.tolist() == [reader.decode(row) for row in others]
    assert own["alike"].values.tolist() == [
        next((i for i, (a, b) in enumerate(zip(first, row, strict=True)) if a != b), len(first)) for row in others
    ]
    for ids, values in (
        (clean[:1], own["clean_log_probability"].expand_dims("prompt")),
        (other, own["log_probability"]),
    ):
        both = torch.cat([ids, torch.tensor([first] * len(ids))], dim=1)
        with torch.no_grad():
            chances = plain(both).logits.double().log_softmax(dim=-1)[:, length - 1 : -1]
        expected = chances.gather(-1, torch.tensor([first] * len(ids))[..., None])[..., 0]
        close(values.values, expected, size=WIDE)
    assert "La frase sigue con «" in found.answer
    page = html.unescape(found.save(tmp_path / "page").read_text(encoding="utf-8"))
    assert own.attrs["continuation"].strip() in page


def test_a_model_of_hooks_alone_says_the_same(raw: HookedTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    own = explain(raw, TEXT, "negro", "gato", instead=OTHERS[:2], continuation=3)
    without_blocks(monkeypatch, raw)
    hooked = explain(raw, TEXT, "negro", "gato", instead=OTHERS[:2], continuation=3)
    for name, size in (("reach", 1.0), ("predictions", WIDE), ("continuation", WIDE)):
        for variable in own.results[name].data_vars:
            close(hooked.results[name][variable], own.results[name][variable], size=size, what=variable)
    shares = (one.sources["share"].sel(layer=3, head=2) for one in (hooked, own))  # a head that writes enough
    close(*shares, size=float(own.sources["share"].sel(layer=3, head=2).max()))


def test_the_route_begins_at_the_source_and_ends_at_the_target(found: Explanation) -> None:
    route = found.route["recovered"].mean("prompt")
    close(route.sel(layer=0, position=5), 1.0, size=1.0)  # the whole source before layer 0
    assert (route.sel(layer=0, position=slice(6, 12)) == 0).all()  # the other words are the same there
    assert float(route.sel(layer=3, position=12)) > 0.1


def test_nothing_arrives_where_no_head_writes(raw: HookedTransformer, tmp_path: Any) -> None:
    hf = AutoModelForCausalLM.from_pretrained(WEIGHTS)
    for block in hf.transformer.h:
        block.attn.c_proj.weight.data.zero_()
    hf.save_pretrained(tmp_path)
    raw.tokenizer.save_pretrained(tmp_path)
    model = HookedTransformer.from_pretrained(tmp_path)
    found = explain(model, TEXT, "negro", "gato", instead=OTHERS)
    assert not found.reaches
    assert found.answer.startswith("No: nada de «negro» llega a «gato».")
    assert "cabezas" not in found.answer
    assert 'class="arc none"' in found._repr_html_()
    assert (found.reach["difference"].sel(position=12) == 0).all()


def test_words_come_from_the_lists_then_from_the_model(mini: HookedTransformer) -> None:
    found = explain(mini, TEXT, "negro", "gato", n=2)
    assert [slots["source"] for slots in found.pairs.corrupted_slots] == ["blanco", "rojo"]
    assert set(found.origins.values()) == {"list"}
    assert "In no list" not in explain(mini, TEXT, "negro", "gato", n=2, language="en").answer
    chosen = words.origins(mini, Written.of(mini, "Me encanta el color"), (11, 13), 3)  # in no list
    own = [word for word, origin in chosen.items() if origin == "model"]
    assert own
    assert all(word.isalpha() and word.islower() and word != "el" for word in own)
    letters = [token for token in range(len(mini.tokenizer)) if mini.tokenizer.decode([token])[:1].isalpha()]
    lead = mini.tokenizer("Me encanta", add_special_tokens=False)["input_ids"]
    for word in own:  # each is one token, and no beginning of a word
        (token,) = mini.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        after = mini.forward(torch.tensor([[mini.bos_token_id, *lead, token]]))[0, -1].softmax(dim=-1)
        assert float(after[letters].sum()) < 0.5


def test_of_the_whole_vocabulary_words_of_the_sources_kind_come_first(
    mini: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any list: of all whole tokens, those beside *black* in the embedding are other colours."""
    monkeypatch.setattr(words, "of_lists", lambda word, spoken: iter(()))
    monkeypatch.setattr(words, "_kinds", lambda language: {})
    text = "The cat is black. The cat is"
    chosen = words.origins(mini, Written.of(mini, text), (11, 16), 6)
    assert set(chosen.values()) == {"model"}
    colors = {*tasks.load("color-noun").lexicon["color"], *tasks.load("color-noun-es").lexicon["color"]}
    assert set(list(chosen)[:4]) <= colors
    found = explain(mini, text, "black", "is@2", n=4)
    assert f"In no list of words of its kind: {', '.join(list(chosen)[:4])}; of the model" in found.answer


def test_a_word_of_several_tokens_is_put_together_only_where_no_list_has_one(
    mini: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "The huge sequoia stood near the river"
    found = explain(mini, text, "sequoia", "river")
    (word,) = found.origins
    assert found.origins == {word: "model"}
    assert f"In no list of words of its kind: {word}; mini put them together from tokens that it" in found.answer
    length = int(np.diff(found.pairs.clean.spans("source")[0])[0])
    assert length > 1
    monkeypatch.setattr(words, "of_lists", lambda *_: iter(["sequoia", word]))
    monkeypatch.setattr(words, "_expected", lambda *_: pytest.fail("put together beside a word of a list"))
    assert words.origins(mini, Written.of(mini, text), (9, 16), 6) == {word: "list"}


def test_where_a_language_has_no_word_of_that_length_those_of_another_stand_in(
    mini: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "of_lists", lambda word, spoken: iter([word, "rojoazul", "verderojo"]))
    found = explain(mini, "Me encanta el color negro y tengo un gato", "negro", "gato", n=3, language="en")
    used = [slots["source"] for slots in found.pairs.corrupted_slots]
    assert set(used) <= set(tasks.load("color-noun").lexicon["color"])
    assert f"Of its kind, but of another language: {', '.join(used)}." in found.answer
    assert 'Of its kind (rojoazul, verderojo) none has as many tokens as "negro"' in found.answer


@pytest.mark.parametrize(
    ("sentence", "word", "others"),
    [
        ("The cat is black", "black", {"white", "red"}),
        ("THE CAT IS BLACK", "BLACK", {"WHITE", "RED"}),
        ("Mi perro come pan", "perro", {"gato", "pájaro"}),
        ("Mi amigo Juan come pan", "Juan", {"Pedro", "Carlos"}),
        ("Ayer compré tres libros", "tres", {"cuatro", "cinco"}),
        ("Ayer compré tres libros", "compré", {"vendí", "comí"}),
        ("She walked home", "walked", {"ran", "jumped"}),
        ("I have 7 cats", "7", {"6", "8"}),
        ("It was in 1998", "1998", {"1997", "1999"}),
        ("El gato 😀", "😀", {"😢", "😂"}),
    ],
)
def test_lists_hold_colours_animals_names_numbers_and_verbs(sentence: str, word: str, others: set[str]) -> None:
    assert others <= set(words.of_lists(word, words.language_of(sentence)))


def test_forms_of_one_word_are_not_compared_with_each_other() -> None:
    pairs = [("walked", "walks"), ("doctor", "doctors"), ("compré", "compra"), ("Seven", "seventy")]
    assert all(words._one_stem(*pair) for pair in pairs)
    assert not any(words._one_stem(*pair) for pair in [("cat", "car"), ("blanco", "negro"), ("three", "thirty")])


def sentencepiece(vocab: list[str]) -> PreTrainedTokenizerFast:
    """Marks spaces as SentencePiece does, and leaves out the first of a text when it decodes."""
    raw = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocab)}, unk_token=vocab[0]))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    raw.decoder = decoders.Metaspace(prepend_scheme="first")
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token=vocab[0])


def test_a_space_before_a_word_is_seen_whatever_the_tokenizer() -> None:
    reader = sentencepiece(["<unk>", "\u2581cat", "\u2581red", "s", "\u2581blue"])
    assert reader.decode([2]) == "red"  # alone it has lost its space
    pieces = words.pieces(reader, 1)
    assert pieces[1:] == [" cat", " red", "s", " blue"]
    assert [words._as_whole(piece, " cat") for piece in pieces[1:]] == [True, True, False, True]
    chances = torch.tensor([[0.1, 0.3, 0.1, 0.4, 0.1], [0.1, 0.5, 0.2, 0.1, 0.1]]).log()
    assert words.word_ends(chances, pieces, "t") == [True, True]
    going_on = torch.tensor([[0.1, 0.1, 0.1, 0.6, 0.1]]).log()
    assert words.word_ends(going_on, pieces, "t") == [False]
    assert words.word_ends(going_on, pieces, "\u732b") == [True]  # a script without spaces does not say
    bytes_too = byte_bpe(["the cat is red and the cat is blue"] * 4, 290)
    marked = words.pieces(bytes_too, bytes_too(" cat", add_special_tokens=False)["input_ids"][-1])
    assert {" cat", " is"} <= set(marked)


def test_kinds_hold_no_word_twice_and_every_kind_has_words_enough() -> None:
    for language in ("en", "es"):
        for kind, held in words._kinds(language).items():
            assert len(set(held)) == len(held) >= 5, kind


def test_it_says_where_no_word_of_the_sources_kind_has_its_number_of_tokens(
    mini: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "of_lists", lambda word, spoken: iter([word, "rojoazul", "verderojo", "rojoazulverde"]))
    text = "Me encanta el color negro y tengo un gato"
    found = module.explain(mini, text, "negro", "gato", n=2)
    assert found.listed == ("rojoazul", "verderojo")
    assert "De su clase (rojoazul, verderojo) ninguna palabra tiene tantos tokens como «negro»" in found.answer
    assert "Con «rojoazul» en la frase, 1 de su clase" in found.answer
    other = text.replace("negro", "rojoazul")  # the way out that the answer names, tried
    way_out = module.explain(mini, other, "rojoazul", "gato", instead=["verderojo"])
    assert len(way_out.pairs) == 1


def test_words_of_the_lexicon_have_the_sources_capital(mini: HookedTransformer) -> None:
    found = explain(mini, "Black cats love the dog", "Black", "dog", n=2)
    assert [slots["source"] for slots in found.pairs.corrupted_slots] == ["White", "Blue"]


def test_pieces_that_make_no_word_take_no_words_place(mini: HookedTransformer) -> None:
    with pytest.raises(InterpError, match=r"No other word was found for 'so very'.* --instead"):
        explain(mini, "The cat is so very black. The cat is", "so very", "cat@2")


def test_of_a_phrase_the_words_of_a_lexicon_are_exchanged(mini: HookedTransformer) -> None:
    found = explain(mini, "The cat is black. The cat is", "is black", "cat@2", n=2)
    assert [slots["source"] for slots in found.pairs.corrupted_slots] == ["is white", "is red"]


@pytest.mark.parametrize("phrase", ["black,", "(black)", '"black"'])
def test_signs_about_a_word_stay_where_they_are(mini: HookedTransformer, phrase: str) -> None:
    text = f"The cat is {phrase} and the dog"
    chosen = words.origins(mini, Written.of(mini, text), (11, 11 + len(phrase)), 2)
    assert phrase.replace("black", "white") in chosen


def test_few_words_give_no_interval_and_many_do(mini: HookedTransformer) -> None:
    for n in (4, 5):
        found = explain(mini, TEXT, "negro", "gato", n=n)
        assert ("[" in found.answer) == (n == 5)


def test_the_answer_says_yes_or_no_in_the_sentences_language(mini: HookedTransformer) -> None:
    spanish = explain(mini, TEXT, "negro", "gato", instead=OTHERS)
    assert spanish.language == "es"
    assert str(spanish) == spanish.answer
    assert spanish.answer.startswith("Sí, un poco: con otra palabra que «negro», lo que mini guarda en «gato» difiere")
    assert f"{float(spanish.arrived['mean']):.1%}".replace("%", "") in spanish.answer
    assert "de GPT-2 esto no dice nada" in spanish.answer
    english = explain(mini, "The cat is black. The cat is", "black", "is@2", instead=["white"])
    assert english.answer.startswith('Yes: with another word than "black", what mini holds at "is@2" differs by')
    assert "Compared after its last layer, with 1 other word in its place (white)." in english.answer
    assert "give no interval" in english.answer
    assert "[" not in english.answer
    assert explain(mini, TEXT, "negro", "gato", instead=OTHERS, language="en").answer.startswith("Yes, a little: ")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n": 0}, "n is 0"),
        ({"continuation": 0}, "continuation is 0"),
        ({"continuation": 10**6}, "tokens, but the model reads at most"),
        ({"language": "fr"}, "Unknown language 'fr'"),
        ({"instead": ["zzzq"]}, "None of 1 other words"),
        ({"source": "verde"}, "The word 'verde' is not in"),
        ({"source": None}, "The word is None"),
        ({"text": ""}, "The text is ''"),
    ],
)
def test_what_cannot_be_explained_is_one_line(mini: HookedTransformer, options: dict[str, Any], says: str) -> None:
    asked = {"text": TEXT, "source": "negro", "target": "gato", **options}
    with pytest.raises(InterpError, match=says) as caught:
        explain(mini, **asked)
    assert "\n" not in str(caught.value)


def test_the_short_answer_says_how_much_and_whether_it_is_used(mini: HookedTransformer) -> None:
    unused = explain(mini, "I love the color black, I hope to have a cat like that", "black", "cat", n=4)
    assert unused.answer.startswith(unused.short)
    assert unused.short.endswith("; what it predicts after it hardly changes (< 0.0001 nats).")
    used = explain(mini, "The cat is black. The cat is", "black", "is@2", n=4)
    changes = float(used.predictions["kl"][:, 0].mean())
    assert used.short.endswith(f"; what it predicts after it changes by {changes:.3g} nats.")


def test_the_way_from_the_source_is_said_where_the_head_takes_it_from_another_word(mini: HookedTransformer) -> None:
    text = "I love the color black, I hope to have a cat like that"
    found = explain(mini, text, "black", "cat")
    best = str(found.head_effects[0]["cell"].values[0])
    layer, head = int(best[1]), int(best[3])
    share = found.sources["share"].sel(layer=layer, head=head).mean("prompt")
    at = int(np.argmax(share.values))
    assert str(share["role"].values[at]) == ""
    assert f'{best} takes it from "{str(share["token"].values[at]).strip()}"' in found.answer
    assert f'"black" → L2H0 → {best} → "cat"' in found.answer
    unmeasured = explain(mini, text, "black", "cat", n=4, seconds=1e-6)
    assert 'which by then holds something of "black" already' in unmeasured.answer
