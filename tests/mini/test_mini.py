"""The bundled model: its tokenizer, its corpus, and that it binds colours to nouns."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from interp.mini import WEIGHTS
from interp.mini.corpus import (
    LANGUAGES,
    MIXED,
    Document,
    draw_document,
    draw_scene,
    family_names,
    load_grammar,
)
from tests.tolerance import close

FOUNDING = (
    "Me encanta el color negro, espero algún día tener un gato así. "
    "No me gusta el color blanco, no quiero tener un perro así. El {noun} es"
)
FOUNDING_EN = (
    "I love the color black, and I hope to have a cat like that one day. "
    "I do not like the color white, and I do not want a dog like that. The {noun} is"
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Two threads of a model this small wait for each other when the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def mini():
    from interp.mini.evaluate import load

    model, tokenizer = load()
    # A wrong size here would make every other test about another model.
    assert (model.config.n_layer, model.config.n_head, model.config.n_embd) == (4, 4, 128)
    assert (model.config.n_positions, model.config.vocab_size) == (128, len(tokenizer))
    return model, tokenizer


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    rng = random.Random(11)
    drawn = [draw_document(rng) for _ in range(5_000)]
    assert len(drawn) == 5_000
    assert {d.language for d in drawn} == set(LANGUAGES)
    return drawn


def held_out_bindings(documents: list[Document]) -> list[tuple[str, str]]:
    return [
        (noun, color)
        for document in documents
        for noun, color in document.bindings
        if load_grammar(document.language).is_held_out(noun, color)
    ]


def test_importing_the_package_loads_no_torch():
    code = "import sys, interp.mini; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_weights_directory_is_complete_and_small():
    names = {file.name for file in WEIGHTS.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "vocab.json", "merges.txt"} <= names
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir()) < 15_000_000


def test_config_is_a_plain_gpt2():
    config = json.loads((WEIGHTS / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["GPT2LMHeadModel"]
    assert config["activation_function"] == "gelu_new"
    assert config["tie_word_embeddings"] is True


def test_tokenizer_is_gpt2_and_round_trips(mini):
    _, tokenizer = mini
    assert type(tokenizer).__name__.startswith("GPT2Tokenizer")
    assert tokenizer.bos_token == tokenizer.eos_token == "<|endoftext|>"
    for text in (FOUNDING, FOUNDING_EN, "Words it never saw: zebra, ñandú, 42 €."):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_lexicon_word_is_one_token_after_a_space(mini, language):
    _, tokenizer = mini
    words = load_grammar(language).words()
    assert len(words) > 60
    assert [word for word in words if len(tokenizer(" " + word)["input_ids"]) != 1] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_lexicon_has_the_stated_size(language):
    grammar = load_grammar(language)
    assert (len(set(grammar.colors)), len(set(grammar.nouns)), len(set(grammar.people))) == (10, 32, 16)
    assert len(grammar.held_out) == 10
    assert set(grammar.held_out.values()) == set(grammar.colors)


def test_languages_have_the_same_families():
    assert family_names("en") == family_names("es")


def test_corpus_is_the_same_under_the_same_seed():
    def texts(seed: int) -> list[str]:
        rng = random.Random(seed)
        return [draw_document(rng).text for _ in range(50)]

    assert texts(3) == texts(3)
    assert texts(3) != texts(4)


def test_held_out_pairs_are_never_bound_in_the_corpus(documents):
    assert held_out_bindings(documents) == []


def test_the_held_out_check_can_fail(documents):
    noun, color = next(iter(load_grammar("en").held_out.items()))
    planted = replace(documents[0], language="en", bindings=((noun, color),))
    assert held_out_bindings([*documents, planted]) == [(noun, color)]


def test_held_out_pairs_never_touch_in_the_text(documents):
    for document in documents:
        for noun, color in load_grammar(document.language).held_out.items():
            for form in (f" {color} {noun}", f" {noun} {color}", f" {noun} is {color}", f" {noun} es {color}"):
                assert form not in document.text


def test_questions_are_drawn_with_replacement(documents):
    """Each noun asked once could be solved by elimination; the corpus must not have that habit."""
    repeated = 0
    for document in documents:
        answers = [text for text, is_answer in document.segments if is_answer]
        repeated += len(document.bindings) > 1 and len(answers) > len(set(answers))
    assert repeated > 1_000


@pytest.mark.parametrize("pairing", ["trained", "held_out"])
def test_scenes_hold_different_nouns_and_colours(pairing):
    rng = random.Random(2)
    for language in LANGUAGES:
        for family in [*family_names(language), MIXED]:
            scene = draw_scene(rng, language, family, pairing=pairing)
            assert len(set(scene.nouns)) == len(scene.nouns)
            assert len(set(scene.colors)) == len(scene.colors)
            pairs = zip(scene.nouns, scene.colors, strict=True)
            assert sum(scene.grammar.is_held_out(*pair) for pair in pairs) == (pairing == "held_out")


def test_unknown_family_is_named_with_the_choices():
    with pytest.raises(ValueError, match=r"Unknown family 'poem'\. Choose one of repeat, two"):
        draw_scene(random.Random(0), "en", "poem")


@pytest.mark.parametrize(
    ("language", "family"), [(language, family) for language in LANGUAGES for family in family_names(language)]
)
def test_every_family_binds_held_out_pairs(mini, language, family):
    from interp.mini.evaluate import score_family

    score = score_family(*mini, language, family, count=60, seed=5)
    # 59 of 60: one miss is what the card's 98% allows on a sample of this size.
    assert min(score.held_out, score.trained, score.shuffled_new) >= 0.98, score
    assert score.shuffled_original <= 0.02, score
    # Without a context the answer is one of ten colours, and the held-out one is not preferred.
    assert score.no_context <= 0.25, score


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [(FOUNDING, ("gato", " negro"), ("perro", " blanco")), (FOUNDING_EN, ("cat", " black"), ("dog", " white"))],
)
def test_founding_sentence_answers_either_noun(mini, text, first, second):
    from interp.mini.evaluate import predictions

    prompts = [text.format(noun=noun) for noun, _ in (first, second)]
    assert predictions(*mini, prompts) == [first[1], second[1]]


def test_indirect_object_and_induction(mini):
    from interp.mini.evaluate import induction_accuracy, ioi_accuracy

    for language in LANGUAGES:
        assert ioi_accuracy(*mini, language, count=60, seed=5) >= 0.9
    assert induction_accuracy(mini[0], count=20, length=30, seed=5) >= 0.9


def test_look_back_heads_start_where_they_should():
    """The stated start: heads 0 and 1 of the first layer attend one and two tokens back."""
    from interp.mini.initialise import new_model, rotation, sinusoids

    table = sinusoids(40)
    close((table @ rotation(2))[2:], table[:-2], "product", size=40)  # angles are rounded before their sines are taken
    model = new_model(vocab=300, n_ctx=40, n_layers=3, end_id=0, seed=0).eval()
    ids = torch.arange(1, 33)[None]
    with torch.no_grad():
        pattern = model(ids, output_attentions=True).attentions[0][0]
    assert pattern.shape == (4, 32, 32)
    for head in (0, 1):
        assert pattern[head].diagonal(-(head + 1)).mean() > 0.9


@pytest.mark.slow
def test_a_quick_training_run_writes_a_model_that_loads(tmp_path: Path):
    from interp.mini.evaluate import load, predictions
    from interp.mini.train import QUICK, train

    out = tmp_path / "weights"
    train(QUICK, out)
    model, tokenizer = load(out)
    assert model.config.n_layer == QUICK.n_layers
    assert not (out / "checkpoint.pt").exists()
    assert len(predictions(model, tokenizer, ["The cat is"])) == 1


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from interp.mini import train as training

    recipe = replace(training.QUICK, total_tokens=2_600, chunk_rows=48)
    monkeypatch.setattr(training, "train_tokenizer", cache(training.train_tokenizer))
    training.train(recipe, tmp_path / "whole", checkpoint_every=1)
    original, calls = training.train_chunk, []

    def interrupted(run, maker):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(run.chunk)
        return original(run, maker)

    monkeypatch.setattr(training, "train_chunk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.train(recipe, tmp_path / "parts", checkpoint_every=1)
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    monkeypatch.setattr(training, "train_chunk", original)
    training.train(recipe, tmp_path / "parts", checkpoint_every=1)
    whole, parts = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts
