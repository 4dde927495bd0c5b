"""Chats, held to the tokenizer's own template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from interp import HookedTransformer, InterpError, explain
from interp.mini import WEIGHTS
from interp.prompts import swaps
from interp.prompts.chat import Written, read_chat
from tests.tolerance import close

TEMPLATE = (
    "{% for message in messages %}<|endoftext|>{{ message['role'] }}\n{{ message['content'] | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|endoftext|>assistant\n{% endif %}"
)
CHAT = [
    {"role": "system", "content": "The user likes a cat. "},
    {"role": "user", "content": "The cat is black."},
    {"role": "assistant", "content": "The cat is black."},
    {"role": "user", "content": "The dog is white. The cat is"},
]
WIDE = 30.0  # the size of mini's largest logits


@pytest.fixture(scope="module")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> HookedTransformer:
    """Mini with a chat template, whose BOS begins every message (as SmolLM2's does)."""
    path = tmp_path_factory.mktemp("chatty")
    AutoModelForCausalLM.from_pretrained(WEIGHTS).save_pretrained(path)
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(path)
    return HookedTransformer.from_pretrained(path, numerics="raw")


def test_words_are_found_in_the_messages(chatty: HookedTransformer) -> None:
    written = Written.of(chatty, CHAT)
    assert written.text == chatty.tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert list(written.roles) == ["system", "user", "assistant", "user 2"]
    assert written.text[slice(*written.roles["user 2"])] == CHAT[3]["content"]
    assert written.said == (
        "system: The user likes a cat. user: The cat is black. assistant: The cat is black. "
        "user: The dog is white. The cat is"
    )
    assert swaps.find(written.text, "user", written.within) == (written.text.index("user likes"), 28)


def test_a_chat_is_explained_as_the_template_writes_it(chatty: HookedTransformer, tmp_path: Path) -> None:
    found = explain(chatty, CHAT, "white", "cat@4", instead=["black", "red"], continuation=2)
    ids = chatty.tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert list(found.pairs.clean.rows()[0]) == list(ids)
    plain = AutoModelForCausalLM.from_pretrained(WEIGHTS, attn_implementation="eager").eval()
    at = int(found.predictions["position"][0])
    with torch.no_grad():
        clean, other = (
            plain(torch.tensor(side.ids)).logits.double().log_softmax(dim=-1)[:, at:]
            for side in (found.pairs.clean, found.pairs.corrupted)
        )
    close(found.predictions["kl"], (clean.exp() * (clean - other)).sum(dim=-1), size=WIDE)
    said = found.reach["message"].values.tolist()
    assert said[at] == "user 2"
    assert said[0] == "" == said[1]  # what the template adds is no one's
    assert found.save(tmp_path / "page").is_file()


def test_which_words_of_a_chat_matter(chatty: HookedTransformer) -> None:
    found = explain(chatty, CHAT, "?", ">")
    assert found.words["text"].values.tolist()[:3] == ["The@1", "user", "likes"]
    assert "system" not in found.words["text"].values.tolist()


def test_a_model_without_a_template_reads_no_chat(mini: HookedTransformer) -> None:
    with pytest.raises(InterpError, match="mini has no chat template"):
        explain(mini, CHAT, "white", "cat@4")


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([], "A chat is a list of messages"),
        ([{"role": "user"}], "Give each a role and a content"),
        (["hello"], "Message 0 is 'hello'"),
    ],
)
def test_what_is_no_chat_is_one_line(chatty: HookedTransformer, messages: list[Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(InterpError, match=says) as caught:
        explain(chatty, messages, "white", "cat")
    assert "\n" not in str(caught.value)
    path = tmp_path / "chat.json"
    path.write_text(json.dumps(messages))
    with pytest.raises(InterpError, match=says):
        read_chat(path)


def test_a_file_that_is_no_json_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    with pytest.raises(InterpError, match="cannot be read"):
        read_chat(path)
    path.write_text("[")
    with pytest.raises(InterpError, match="is no JSON") as caught:
        read_chat(path)
    assert "\n" not in str(caught.value)


def test_a_template_that_refuses_is_one_line(chatty: HookedTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chatty.tokenizer, "chat_template", "{{ raise_exception('roles must\ntake turns') }}")
    with pytest.raises(InterpError, match="refuses this chat: roles must take turns") as caught:
        explain(chatty, CHAT, "white", "cat@4")
    assert "\n" not in str(caught.value)
