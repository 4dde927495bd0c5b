"""The baselines and the gate, on a stand-in that says exactly what each test writes down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from transformers import GPT2LMHeadModel

from analyses import behavior
from interp import engines, results, summary, tasks
from interp.errors import InterpError
from interp.model import HookedTransformer
from interp.prompts import PromptPairs, Template
from interp.prompts.vocabulary import DOES_NOT, PREFERS, SAYS
from tests.tiny import VOCAB, random_ids
from tests.tiny_tokenizers import pieces
from tests.tolerance import close

RIGHT, WRONG, THIRD = 5, 6, 7
N_VOCAB = 10
Logits = Sequence[Any] | np.ndarray


class Says:
    """A model that answers each prompt with the logits it was given for it, at every position."""

    def __init__(self, table: Mapping[tuple[int, ...], Logits], tokenizer: Any = None) -> None:
        self.table = {ids: np.asarray(logits, dtype=np.float32) for ids, logits in table.items()}
        self.tokenizer = tokenizer
        self.bos_policy, self.bos_token_id = ("none" if tokenizer is None else "prepend"), 0
        self.cfg = SimpleNamespace(d_model=4, d_mlp=4, n_heads=1, n_ctx=64, vocab=1000, vocab_out=N_VOCAB)
        self.device = torch.device("cpu")
        self.engine = engines.HERE
        self.passes = 0

    def forward(self, ids: torch.Tensor, *, hooks: Any, logits_at: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        rows = []
        for row, positions in zip(ids.tolist(), logits_at.tolist(), strict=True):
            match = max((k for k in self.table if tuple(row[: len(k)]) == k), key=len)
            rows.append([self.table[match][min(p, len(match) - 1)] for p in positions])
        return torch.tensor(np.array(rows))

    def provenance(self) -> dict[str, str | int]:
        return {"model": "says", "weights_sha256": "0"}


def one_hot(scores: Mapping[int, float]) -> np.ndarray:
    """Logits [1, vocab]: 0 everywhere but where scores are given."""
    logits = np.zeros(N_VOCAB, dtype=np.float32)
    for token, value in scores.items():
        logits[token] = value
    return logits


def gate(clean: Sequence[Mapping[int, float]], corrupted: Sequence[Mapping[int, float]], **options: Any) -> Any:
    """The result for prompts (1, i) and (2, i) that get these logits."""
    n = len(clean)
    table = {(1, i): [one_hot(s)] * 2 for i, s in enumerate(clean)}
    table |= {(2, i): [one_hot(s)] * 2 for i, s in enumerate(corrupted)}
    pairs = PromptPairs.from_tokens(
        [[1, i] for i in range(n)], [[2, i] for i in range(n)], correct=RIGHT, incorrect=WRONG
    )
    return behavior.run(Says(table), {"one": pairs}, **options)  # type: ignore[arg-type]


def right(by: float) -> dict[int, float]:
    return {RIGHT: by}


def wrong(by: float) -> dict[int, float]:
    return {WRONG: by}


def test_a_model_that_follows_the_context_passes_with_the_numbers_written_here() -> None:
    result = gate([right(3), right(1)] * 10, [wrong(2)] * 20)
    assert int(result.passes[0]) == 1
    assert result.clean.values.tolist() == [3.0, 1.0] * 10
    assert result.corrupted.values.tolist() == [-2.0] * 20
    assert [float(result[name][0]) for name in ("clean_mean", "corrupted_mean", "gap")] == [2.0, -2.0, 4.0]
    assert [float(result[name][0]) for name in ("n", "accuracy", "preferred", "chance")] == [20, 1.0, 1.0, 0.5]
    low, high = result.gap_interval.values[0]
    assert 3.5 < low < 4.0 < high < 4.5
    reason = str(result.reason.values[0])
    assert reason.startswith("passes: prefers the right answer on 100% of 20 prompts (95% interval 84% to 100%, ")
    assert "moves the answer by 4.00" in reason
    assert "from 2.00 to -2.00" in reason


def test_saying_preferring_and_not_doing_are_told_apart_by_counting() -> None:
    """Of 20 prompts the right answer beats the wrong one on all; it is the top token on 20, 15, 14 and 0 of them."""
    corrupted = [wrong(3)] * 20
    for top, outcome in ((20, SAYS), (15, SAYS), (14, PREFERS), (0, PREFERS)):
        result = gate([right(3)] * top + [{RIGHT: 3, THIRD: 4}] * (20 - top), corrupted)
        assert str(result.outcome.values[0]) == outcome
        assert int(result.passes[0]) == 1
        assert float(result.preferred[0]) == 1.0
        said = "it is the top token on" if outcome == SAYS else "it is not said: it is the top token on only"
        assert str(result.reason.values[0]).endswith(f"; {said} {top / 20:.0%}")
    result = gate([wrong(3)] * 20, corrupted)
    assert (str(result.outcome.values[0]), int(result.passes[0])) == (DOES_NOT, 0)


def test_a_share_near_one_half_fails_with_its_wilson_interval_and_the_number_of_prompts() -> None:
    result = gate([right(3)] * 21 + [wrong(3)] * 19, [wrong(9)] * 40)
    interval = binomtest(21, 40).proportion_ci(0.95, method="wilson")
    close(result.preferred_interval.values[0], [interval.low, interval.high], "product", dtype="float64")
    assert int(result.passes[0]) == 0
    assert str(result.reason.values[0]) == (
        "fails: prefers the right answer on 52% of 40 prompts, 95% interval 37% to 67%, "
        "which includes the 50% of guessing"
    )


def test_a_model_that_prefers_the_wrong_answer_lies_below_guessing() -> None:
    reason = str(gate([wrong(3)] * 40, [wrong(9)] * 40).reason.values[0])
    assert "prefers the right answer on 0% of 40 prompts, 95% interval 0% to 9%, which lies below the 50%" in reason


def test_a_share_above_guessing_but_below_the_required_one_fails_only_for_that() -> None:
    clean, corrupted = [right(3)] * 70 + [wrong(1)] * 30, [wrong(3)] * 100
    result = gate(clean, corrupted)
    assert str(result.reason.values[0]) == (
        "fails: prefers the right answer on 70% of 100 prompts, below the 75% required (95% interval 60% to 78%)"
    )
    assert int(gate(clean, corrupted, minimum_preferred=0.7).passes[0]) == 1


def test_a_high_share_of_few_prompts_is_not_enough() -> None:
    result = gate([right(3)] * 3 + [wrong(1)], [wrong(3)] * 4)
    assert float(result.preferred[0]) == 0.75
    assert "which includes the 50% of guessing" in str(result.reason.values[0])


def test_a_model_that_says_the_same_whatever_the_context_fails_for_that() -> None:
    reason = str(gate([right(5)] * 20, [right(2)] * 20).reason.values[0])
    assert reason == (
        "fails: the corrupted prompts still favour the clean answer, by 2.00 on average, so the context does not decide"
    )


def test_a_gap_below_the_minimum_fails_and_the_minimum_can_be_moved() -> None:
    clean, corrupted = [right(0.1)] * 20, [wrong(0.1)] * 20
    reason = str(gate(clean, corrupted).reason.values[0])
    assert reason == "fails: the gap between clean and corrupted is 0.20, below the 0.5 required"
    assert int(gate(clean, corrupted, minimum_gap=0.1).passes[0]) == 1


def test_a_gap_that_a_few_prompts_make_fails_on_its_interval() -> None:
    # Mean gap 0.9: one prompt of 40 where the two lie 38 apart, the others pulling slightly the other way.
    clean = [right(36)] + [right(0.05)] * 39
    corrupted = [wrong(2)] + [right(0.1)] * 38 + [wrong(2.0)]
    result = gate(clean, corrupted, minimum_preferred=0.5)
    assert float(result.gap[0]) > 0.5
    assert float(result.gap_interval[0, 0]) <= 0
    assert "which does not lie above 0" in str(result.reason.values[0])


def test_one_prompt_passes_no_gate() -> None:
    result = gate([right(3)], [wrong(3)])
    assert int(result.passes[0]) == 0
    assert "give at least two" in str(result.reason.values[0])


def test_accuracy_is_over_the_whole_vocabulary_and_preference_between_the_two_answers() -> None:
    result = gate([{RIGHT: 3, THIRD: 4}] * 15 + [right(3)] * 5, [{WRONG: 3, THIRD: 4}] * 10 + [wrong(3)] * 10)
    assert result.clean_top1.values.tolist() == [0] * 15 + [1] * 5
    assert result.corrupted_top1.values.tolist() == [0] * 10 + [1] * 10
    assert result.clean_preferred.values.tolist() == [1] * 20
    assert result.clean_rank.values.tolist() == [1] * 15 + [0] * 5
    assert float(result.accuracy[0]) == 0.25
    interval = binomtest(5, 20).proportion_ci(0.95, method="wilson")
    close(result.accuracy_interval.values[0], [interval.low, interval.high], "product", dtype="float64")
    exponentials = np.exp(one_hot({RIGHT: 3, THIRD: 4}).astype(np.float64))
    close(result.clean_probability[0], exponentials[RIGHT] / exponentials.sum(), "product")
    assert result.top_token.values.tolist() == [f"#{THIRD}"] * 15 + [f"#{RIGHT}"] * 5


def test_a_tie_counts_against_the_model() -> None:
    result = gate([{}] * 4, [wrong(1)] * 4)
    assert result.clean_preferred.values.tolist() == [0] * 4
    assert result.clean_top1.values.tolist() == [0] * 4


def test_chance_is_one_over_the_different_answers_of_the_rung() -> None:
    ids = [[1, i] for i in range(4)]
    table = {tuple(row): [one_hot({})] * 2 for row in (*ids, *([2, i] for i in range(4)))}
    pairs = PromptPairs.from_tokens(
        ids, [[2, i] for i in range(4)], correct=[3, 4, 3, 4], incorrect=[4, 3, 5, 3], name="colours"
    )
    result = behavior.run(Says(table), pairs)  # type: ignore[arg-type]
    assert result.rung.values.tolist() == ["colours"]
    close(result.chance[0], 1 / 3, "arithmetic", dtype="float64")


def test_whole_answers_are_scored_by_their_summed_log_probability() -> None:
    """Right answer (5, 6), wrong answer (5, 7): after the prompt comes 5, and the second token decides."""
    base = PromptPairs.from_tokens([[1, 2], [1, 3]], [[4, 2], [4, 3]], correct=5, incorrect=6)
    pairs = replace(
        base, answer_policy="sum_logprob", correct_tokens=((5, 6), (5, 6)), incorrect_tokens=((5, 7), (5, 7)),
        answers=("#5#6",) * 2, incorrect_answers=("#5#7",) * 2,
    )  # fmt: skip
    after, second, other = one_hot({5: 2.0}), one_hot({6: 3.0}), one_hot({7: 1.0})
    table: dict[tuple[int, ...], Any] = {
        (start, i, 5): [after, after, end] for start, end in ((1, second), (4, other)) for i in (2, 3)
    }
    model = Says(table)
    result = behavior.run(model, {"whole": pairs})  # type: ignore[arg-type]

    def log_probability(logits: np.ndarray, token: int) -> float:
        return float(logits[token] - np.log(np.exp(logits.astype(np.float64)).sum()))

    first = log_probability(after, 5)
    close(result.clean.values, log_probability(second, 6) - log_probability(second, 7), "product", size=second)
    close(result.corrupted.values, log_probability(other, 6) - log_probability(other, 7), "product", size=other)
    close(result.clean_probability.values, np.exp(first + log_probability(second, 6)), "product", size=second)
    assert result.clean_top1.values.tolist() == [1, 1]
    assert result.corrupted_top1.values.tolist() == [1, 1]
    assert result.top_token.values.tolist() == ["#5", "#5"]
    assert result.clean.attrs["units"] == "nats"
    assert float(result.chance[0]) == 0.5


def test_a_whole_answer_is_right_only_if_every_token_of_it_is() -> None:
    base = PromptPairs.from_tokens([[1, 2], [1, 3]], [[4, 2], [4, 3]], correct=5, incorrect=6)
    pairs = replace(
        base, answer_policy="sum_logprob", correct_tokens=((5, 6), (5, 6)), incorrect_tokens=((5, 7), (5, 7))
    )
    table: dict[tuple[int, ...], Any] = {
        (start, i, 5): [one_hot({5: 2})] * 2 + [one_hot({2: 9, 6: 3})] for start in (1, 4) for i in (2, 3)
    }
    result = behavior.run(Says(table), {"whole": pairs})  # type: ignore[arg-type]
    assert result.clean_top1.values.tolist() == [0, 0]
    assert result.clean_rank.values.tolist() == [1, 1]


def test_logits_of_a_real_model_are_those_of_hugging_face(gpt2: HookedTransformer, gpt2_directory: Path) -> None:
    clean = random_ids(6, 8)
    corrupted = clean.copy()
    corrupted[:, 3] = (corrupted[:, 3] + 5) % VOCAB
    correct, incorrect = np.arange(6), np.arange(6) + 10
    pairs = PromptPairs.from_tokens(clean, corrupted, correct=correct, incorrect=incorrect, answer_position=6)
    result = behavior.run(gpt2, pairs)
    original = GPT2LMHeadModel.from_pretrained(gpt2_directory)
    rows = np.arange(6)
    for which, ids in (("clean", clean), ("corrupted", corrupted)):
        with torch.no_grad():
            logits = original(torch.from_numpy(ids)).logits[:, 6].double().numpy()
        close(result[which].values, logits[rows, correct] - logits[rows, incorrect], size=logits)
        own = correct if which == "clean" else incorrect
        assert result[f"{which}_top1"].values.tolist() == (logits.argmax(1) == own).astype(int).tolist()
        if which == "clean":
            np.testing.assert_array_equal(result.clean_rank.values, (logits > logits[rows, own][:, None]).sum(1))
    assert result.attrs["tokens_sha256"] == pairs.sha256()


def ladder() -> tuple[Says, dict[str, PromptPairs]]:
    """Two rungs with text: the first one is done, the second is not."""
    tokenizer = pieces("the ", "cat", "dog", " is", " red", " blue", ".", " ")
    color = {" red": 5, " blue": 6}
    assert [tokenizer.convert_tokens_to_ids(word) for word in color] == list(color.values())
    shell = Says({}, tokenizer)
    frames = {
        "short": Template("the {noun} is{color}. the {noun:asked} is", answer="{color}"),
        "long": Template("the {noun} is{color}. the {noun:asked} is. the {noun:again} is", answer="{color}"),
    }
    rungs = {}
    for name, template in frames.items():
        clean = [{"noun": noun, "color": c} for noun in ("cat", "dog") for c in color]
        other = [{**slots, "color": " blue" if slots["color"] == " red" else " red"} for slots in clean]
        rungs[name] = PromptPairs.from_template(template, clean=clean, corrupted=other, tokenizer=shell, name=name)
        for prompts in (rungs[name].clean, rungs[name].corrupted):
            for ids, at in zip(prompts.rows(), prompts.role_positions("color"), strict=True):
                shell.table[tuple(ids)] = np.tile(one_hot({ids[at]: 2.0 if name == "short" else 0.0}), (len(ids), 1))
    return shell, rungs


def test_rungs_stand_one_after_the_other_with_their_words() -> None:
    model, rungs = ladder()
    result = behavior.run(model, rungs, main="short", descriptions={"long": "asked twice"})  # type: ignore[arg-type]
    assert result.rung.values.tolist() == ["short", "long"]
    assert result.rung_of.values.tolist() == ["short"] * 4 + ["long"] * 4
    assert result.main.values.tolist() == [1, 0]
    assert result.description.values.tolist() == ["", "asked twice"]
    assert result.n.values.tolist() == [4, 4]
    assert result.preferred.values.tolist() == [1.0, 0.0]
    assert str(result.text.values[0]) == "the cat is red. the cat is"
    assert str(result.corrupted_text.values[0]) == "the cat is blue. the cat is"
    assert [str(result[name].values[0]) for name in ("answer", "incorrect_answer", "top_token")] == [
        " red", " blue", " red",
    ]  # fmt: skip
    assert result.attrs["n_prompts"] == 8
    assert result.attrs["tokens_sha256"] not in {pairs.sha256() for pairs in rungs.values()}


def test_role_ranges_cut_the_role_s_word_out_of_the_text() -> None:
    model, rungs = ladder()
    result = behavior.run(model, rungs)  # type: ignore[arg-type]
    roles = result.role.values.tolist()
    for prefix, text in (("", "text"), ("corrupted_", "corrupted_text")):
        for i in range(8):
            start, stop = (result[f"{prefix}role_{end}"].values[i] for end in ("start", "stop"))
            words = {role: str(result[text].values[i])[a:b] for role, a, b in zip(roles, start, stop, strict=True)}
            slots = rungs[str(result.rung_of.values[i])]
            slot = (slots.slots if prefix == "" else slots.corrupted_slots)[i % 4]
            assert words["noun"] == words["asked"] == slot["noun"]
            assert words["color"] == slot["color"].strip()
            assert (start[roles.index("again")] == -1) == (i < 4)
            assert words["answer"] == "is"
            assert stop[roles.index("answer")] == len(str(result[text].values[i]))


def test_main_and_description_come_from_the_task_unless_they_are_given() -> None:
    model, rungs = ladder()
    task = tasks.load("color-noun")
    names = [rung.name for rung in task.rungs]
    as_task = {
        name: replace(pairs, task="color-noun", name=name)
        for name, pairs in zip(names, [rungs["short"]] * len(names), strict=True)
    }
    result = behavior.run(model, as_task)  # type: ignore[arg-type]
    assert dict(zip(names, result.main.values.tolist(), strict=True)) == {n: int(n == "two") for n in names}
    assert result.description.values.tolist() == [rung.description for rung in task.rungs]
    assert behavior.run(model, rungs).main.values.tolist() == [0, 1]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("passing", "main", "explained"),
    [
        ({1, 2}, "one", "one"),
        ({0, 1, 2}, "one", "one"),
        ({0, 2}, "one", "two"),
        ({0}, "one", "zero"),
        ({0}, "two", "zero"),
        (set(), "one", ""),
    ],
)
def test_the_rung_to_be_explained_is_the_main_one_or_the_last_that_passes(
    passing: set[int], main: str, explained: str
) -> None:
    table, rungs = {}, {}
    for i, name in enumerate(("zero", "one", "two")):
        table |= {(1, i): [one_hot(right(3.0 if i in passing else 0.0))] * 2, (2, i): [one_hot(wrong(3.0))] * 2}
        rungs[name] = PromptPairs.from_tokens([[1, i]] * 20, [[2, i]] * 20, correct=RIGHT, incorrect=WRONG)
    result = behavior.run(Says(table), rungs, main=main)  # type: ignore[arg-type]
    assert set(np.flatnonzero(result.passes.values)) == passing
    assert result.attrs["explained_rung"] == explained


def test_the_interval_of_the_gap_is_the_summary_s_own() -> None:
    sizes = [1.0, 2.0, 4.0, 3.5, 0.5]
    result = gate([right(size) for size in sizes], [wrong(size / 2) for size in sizes])
    one = summary.mean(result.clean - result.corrupted)
    assert result.gap_interval.values[0].tolist() == [float(one.low), float(one.high)]
    assert float(result.gap[0]) == float(one["mean"]) == 3.3
    said = f"{result.attrs['interval_level']:.0%} {result.attrs['interval']}"
    resampled = f"({result.attrs['interval_n_resamples']:,} resamples, seed {result.attrs['interval_seed']})"
    assert f"{said} {resampled}" == summary.in_words(one) == summary.usual_interval()


def test_one_pass_per_prompt_is_enough_where_one_token_is_scored() -> None:
    model, rungs = ladder()
    told: list[tuple[int, int]] = []
    behavior.run(model, rungs, progress=lambda *at: told.append(at))  # type: ignore[arg-type]
    assert model.passes == 4  # clean and corrupted of two rungs
    assert told == [(1, 2), (2, 2)]


def test_the_result_is_the_same_after_saving(tmp_path: Path) -> None:
    model, rungs = ladder()
    result = behavior.run(model, rungs)  # type: ignore[arg-type]
    path = results.save(result, tmp_path / "behavior.nc")
    assert results.load(path).identical(result)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"main": "shrt"}, "Unknown main rung 'shrt'. Did you mean 'short'?"),
        ({"descriptions": {"lang": "x"}}, "Unknown rung in descriptions 'lang'. Did you mean 'long'?"),
        ({"minimum_preferred": 1.5}, "minimum_preferred is 1.5. Give a share between 0 and 1."),
        ({"minimum_gap": -1}, "minimum_gap is -1."),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    model, rungs = ladder()
    with pytest.raises(InterpError) as error:
        behavior.run(model, rungs, **options)  # type: ignore[arg-type]
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_no_rungs_is_an_error() -> None:
    with pytest.raises(InterpError, match="There are no rungs"):
        behavior.run(Says({}), {})  # type: ignore[arg-type]
