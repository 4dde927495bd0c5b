"""The proof that two prompts line up, and the two answers that are compared after them.

What does not line up is never mended or cut: it comes back as a `Problem` with the reason.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from interp.errors import unknown_name
from interp.prompts.tokens import Prompts, SupportsTokenizer, encode_plain, excerpt, token_texts, unknown_id

AnswerPolicy = Literal["single", "first_differing", "sum_logprob"]


class Problem(NamedTuple):
    """Why a pair cannot be used: a short kind, and the whole reason."""

    kind: str
    reason: str


def misalignments(
    clean: Prompts, corrupted: Prompts, *, differ_only_at: Collection[str] | None = None
) -> list[Problem | None]:
    """For each pair, why its two prompts do not line up, or None where they do.

    They line up when they have equally many tokens, every role has the same span in both, they differ
    somewhere, and (with ``differ_only_at``) nowhere outside the spans of those roles.
    """
    for role in differ_only_at or ():
        clean.spans(role)  # an unknown role is an error, not a reason to drop every pair
    return [_misalignment(clean, corrupted, i, differ_only_at) for i in range(len(clean))]


def _misalignment(clean: Prompts, corrupted: Prompts, i: int, differ_only_at: Collection[str] | None) -> Problem | None:
    here, there = int(clean.lengths[i]), int(corrupted.lengths[i])
    sizes = {role: (_size(clean, role, i), _size(corrupted, role, i)) for role in clean.roles}
    uneven = [f"{role} {a} and {b}" for role, (a, b) in sizes.items() if a != b]
    if here != there:
        words = f" ({'; '.join(uneven)})" if uneven else ""
        return Problem(
            "length",
            f"clean and corrupted must have equal token counts, but have {here} and {there}{words}; "
            "choose words with the same number of tokens",
        )
    for role in clean.roles:
        a, b = clean.roles[role][i].tolist(), corrupted.roles[role][i].tolist()
        if a != b:
            return Problem(
                "span",
                f"role {role} is at positions {a[0]} to {a[1] - 1} in clean and {b[0]} to {b[1] - 1} in "
                "corrupted; choose words with the same number of tokens",
            )
    different = np.flatnonzero(clean.ids[i, :here] != corrupted.ids[i, :here])
    if len(different) == 0:
        return Problem("identical", "clean and corrupted are the same tokens; change at least one slot")
    if differ_only_at is None:
        return None
    allowed = np.zeros(here, dtype=bool)
    for role in differ_only_at:
        allowed[slice(*clean.roles[role][i])] = True
    outside = [int(position) for position in different if not allowed[position]]
    if not outside:
        return None
    return Problem(
        "difference",
        f"clean and corrupted may differ only at {', '.join(differ_only_at)}, but differ at position "
        f"{outside[0]}; change only those slots",
    )


class Answers(NamedTuple):
    """Two answers as tokens, and how many leading tokens both share (to be appended to the prompt)."""

    correct: tuple[int, ...]
    incorrect: tuple[int, ...]
    shared: int


def resolve_answers(
    model: SupportsTokenizer,
    texts: Sequence[str],
    correct: Sequence[str],
    incorrect: Sequence[str],
    policy: AnswerPolicy,
) -> list[Answers | Problem]:
    """Tokenise each answer in its place after its text, and apply the answer policy.

    Nothing is cut: an answer that the policy cannot score is a problem that names the policies which can.
    """
    if policy not in get_args(AnswerPolicy):
        raise unknown_name("answer policy", policy, get_args(AnswerPolicy))
    plain = [ids for ids, _ in encode_plain(model, texts)]
    first = _continuations(model, texts, plain, correct)
    second = _continuations(model, texts, plain, incorrect)
    return [
        _resolve(model, texts[i], (correct[i], first[i]), (incorrect[i], second[i]), policy) for i in range(len(texts))
    ]


def resolve_answer(model: SupportsTokenizer, text: str, answer: str) -> int | Problem:
    """The one token of an answer in its place after a text."""
    (plain,) = (ids for ids, _ in encode_plain(model, [text]))
    (ids,) = _continuations(model, [text], [plain], [answer])
    return _problem(model, text, answer, ids, "single") or ids[0]


def _problem(
    model: SupportsTokenizer, text: str, word: str, ids: tuple[int, ...], policy: AnswerPolicy
) -> Problem | None:
    """What is wrong with one answer by itself."""
    if not ids:
        return Problem(
            "answer",
            f'answer "{word}" does not begin at a token boundary after "{excerpt(text, end=True)}"; '
            "let the prompt end with a word and the answer begin with the space",
        )
    if unknown_id(model.tokenizer) in ids:
        return Problem(
            "unknown",
            f'answer "{word}" holds a word that the tokenizer does not know and reads as {model.tokenizer.unk_token}; '
            "choose a word that it knows",
        )
    if policy == "single" and len(ids) > 1:
        pieces = ", ".join(f'"{piece}"' for piece in token_texts(model.tokenizer, ids))
        return Problem(
            "answer",
            f'answer "{word}" is {len(ids)} tokens ({pieces}) and answer_policy is "single"; choose '
            'answer_policy="first_differing" or "sum_logprob", or a word of one token',
        )
    return None


def _resolve(
    model: SupportsTokenizer,
    text: str,
    correct: tuple[str, tuple[int, ...]],
    incorrect: tuple[str, tuple[int, ...]],
    policy: AnswerPolicy,
) -> Answers | Problem:
    for word, ids in (correct, incorrect):
        if (problem := _problem(model, text, word, ids, policy)) is not None:
            return problem
    a, b = correct[1], incorrect[1]
    shared = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    if a == b:
        both = f'"{correct[0]}"' if correct[0] == incorrect[0] else f'"{correct[0]}" (also written "{incorrect[0]}")'
        return Problem("answer", f"the correct and the incorrect answer are both {both}; give two answers")
    if shared == min(len(a), len(b)):
        return Problem(
            "answer",
            f'one of the answers "{correct[0]}" and "{incorrect[0]}" begins the other; give two answers',
        )
    return Answers(a, b, shared if policy == "first_differing" else 0)


def _continuations(
    model: SupportsTokenizer, texts: Sequence[str], plain: Sequence[list[int]], answers: Sequence[str]
) -> list[tuple[int, ...]]:
    """The tokens that each answer adds after its text; empty if it would change the text's own tokens."""
    whole = encode_plain(model, [text + answer for text, answer in zip(texts, answers, strict=True)])
    return [
        tuple(ids[len(before) :]) if ids[: len(before)] == before else ()
        for (ids, _), before in zip(whole, plain, strict=True)
    ]


def _size(prompts: Prompts, role: str, i: int) -> int:
    start, stop = prompts.roles[role][i]
    return int(stop - start)
