"""Prompts from files: JSON lines, Parquet, and data sets that Hugging Face's ``datasets`` saved, with labels and spans.

A file is read some records at a time, so that it may be larger than memory. Of a prompt its token ids are kept, and its
text where that is asked for. What does not fit is left out, with its reason and counted; a record that is no record at
all ends the reading, named by its file and line.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from interp.errors import InterpError, nearest, shown, whole_number
from interp.prompts.alignment import AnswerPolicy
from interp.prompts.ids import padded, row_texts
from interp.prompts.pairing import Drop, align, first_reasons, shortfall
from interp.prompts.pairs import PromptPairs
from interp.prompts.template import Rendered
from interp.prompts.tokens import (
    Prompts,
    SupportsTokenizer,
    bos_ids,
    encode_plain,
    token_span,
    unknown_word,
)
from interp.prompts.vocabulary import NOTHING_STATED, Vocabulary

log = logging.getLogger(__name__)

AT_ONCE = 1024
"""Records that are read and tokenised at a time."""
LONGEST_LINE = 16 * 2**20
"""Bytes of a line of JSON that are read; a longer one is no prompt."""
LOGGED = 1000
"""Prompts left out that are kept with their texts; all are counted."""


@dataclass(frozen=True)
class FilePrompts:
    """The prompts of a file.

    Attributes:
        prompts: those that fit, with their roles.
        labels: of each of them; None where no label was asked for.
        rows: the number of each record in the file, from 0.
        drops: what was left out and why, the first ``LOGGED`` of them; ``index`` is the number of the record.
        counts: reason in one word -> how many were left out.

    >>> found = FilePrompts(Prompts.from_ids([[5, 6]]), None, np.array([0]), (), {"span": 2})
    >>> len(found.prompts), found.counts["span"]
    (1, 2)
    """

    prompts: Prompts
    labels: Shaped[np.ndarray, " prompt"] | None
    rows: Shaped[np.ndarray, " prompt"]
    drops: tuple[Drop, ...]
    counts: Mapping[str, int]


@dataclass
class _Left:
    """What is left out, counted."""

    drops: list[Drop] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def out(self, drop: Drop) -> None:
        self.counts[drop.kind] += 1
        if len(self.drops) < LOGGED:
            self.drops.append(drop)

    def logged(self, path: Path) -> None:
        for kind, many in sorted(self.counts.items()):
            log.warning("%s: %d left out (%s).", path, many, kind)


class _Misfit(Exception):
    """A record that does not fit: the reason in one word, and in more."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason


def read_prompts(
    path: str | Path,
    tokenizer: SupportsTokenizer,
    *,
    text: str = "text",
    label: str | None = None,
    spans: str | None = None,
    roles: Sequence[str] | None = None,
    split: str | None = None,
    keep_texts: bool = True,
) -> FilePrompts:
    r"""Read prompts from a file, with labels and roles.

    Args:
        path: a ``.jsonl`` or ``.parquet`` file, or the directory of a data set (``Dataset.save_to_disk``).
        tokenizer: the model.
        text: the column of the texts.
        label: the column of the labels (text or whole numbers); None reads none.
        spans: the column of the roles: role -> its words, which stand once in the text, or ``[first, one past last]``
            character; None reads none.
        roles: the roles to read; None is those of the first record.
        split: of a data set of several.
        keep_texts: keep texts and tokens as text; without them a prompt takes the memory of its ids.

    Raises:
        InterpError: no such file, another kind of file, a record that cannot be read (named by file and line), or no
            prompt that fits.

    >>> import tempfile
    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> with tempfile.TemporaryDirectory() as place:
    ...     file = Path(place) / "cats.jsonl"
    ...     lines = ['{"text": "The cat is black.", "label": "dark", "spans": {"color": "black"}}',
    ...              '{"text": "The dog is white.", "label": "light", "spans": {"color": [11, 16]}}',
    ...              '{"text": "The dog is small.", "label": "none", "spans": {"color": "white"}}']
    ...     _ = file.write_text("\n".join(lines))
    ...     found = read_prompts(file, model, label="label", spans="spans")
    >>> found.labels.tolist(), found.prompts.role_positions("color").tolist(), dict(found.counts)
    (['dark', 'light'], [4, 4], {'span': 1})
    """
    file, left, seen = Path(path), _Left(), set[Any]()
    lead, wanted = bos_ids(tokenizer), None if roles is None else tuple(roles)
    n_ctx = _most_tokens(tokenizer)
    ids: list[np.ndarray] = []
    places: list[list[tuple[int, int]]] = []
    labels: list[str | int] = []
    rows: list[int] = []
    texts: list[str] = []
    for piece in _pieces(_records(file, split)):
        said = [_text(record, text, where) for _, where, record in piece]
        encoded = encode_plain(tokenizer, said)
        for (number, where, record), words, (found, offsets) in zip(piece, said, encoded, strict=True):
            value = None if label is None else _label(record, label, where)
            try:
                stated = {} if spans is None else _spans(record, spans, words, where, wanted)
                if wanted is None:
                    wanted = tuple(stated)
                if n_ctx is not None and len(lead) + len(found) > n_ctx:
                    many = len(lead) + len(found)
                    raise _Misfit("length", f"it has {many} tokens, and the model reads at most {n_ctx}")
                if odd := unknown_word(tokenizer.tokenizer, words, found, offsets, stated):
                    raise _Misfit("unknown", f"it holds {odd}")
                here = _tokens(offsets, stated, words, len(lead))
                key = hash((tuple(found), tuple(here)))
                if key in seen:
                    raise _Misfit("duplicate", "the same prompt with the same roles came before")
            except _Misfit as misfit:
                left.out(Drop(number, misfit.reason, words, kind=misfit.kind))
                continue
            seen.add(key)
            ids.append(np.array([*lead, *found], dtype=np.int32))
            places.append(here)
            rows.append(number)
            if value is not None:
                labels.append(value)
            if keep_texts:
                texts.append(words)
    left.logged(file)
    if not ids:
        raise InterpError(
            f"No prompt of {file} can be used. {first_reasons(left.drops) if left.drops else 'It is empty.'}"
        )
    _check_one_kind(labels, label, file)
    by_role = np.array(places, dtype=np.int64).reshape(len(ids), len(wanted or ()), 2)
    prompts = Prompts(
        ids=padded(ids),
        lengths=np.array([len(row) for row in ids]),
        roles={role: by_role[:, i] for i, role in enumerate(wanted or ())},
        texts=tuple(texts) if keep_texts else None,
        tokens=row_texts(tokenizer.tokenizer, ids) if keep_texts else None,
        bos="prepended" if lead else "none",
    )
    kept = None if label is None else np.array(labels)
    return FilePrompts(prompts, kept, np.array(rows), tuple(left.drops), dict(left.counts))


@dataclass(frozen=True)
class PairColumns:
    """The columns of a file of pairs.

    Attributes:
        clean: the clean prompts.
        corrupted: their partners.
        answer: the right answers, with the space before them where there is one.
        incorrect_answer: the wrong ones.
        spans: the roles of the clean prompts, as ``read_prompts`` takes them.
        corrupted_spans: those of the corrupted prompts; a role that is not there stands as in the clean prompt.

    >>> PairColumns(clean="prompt").corrupted
    'corrupted'
    """

    clean: str = "clean"
    corrupted: str = "corrupted"
    answer: str = "answer"
    incorrect_answer: str = "incorrect_answer"
    spans: str = "spans"
    corrupted_spans: str = "corrupted_spans"


def read_pairs(
    path: str | Path,
    tokenizer: SupportsTokenizer,
    *,
    n: int | None = None,
    columns: PairColumns | None = None,
    roles: Sequence[str] | None = None,
    labels: Sequence[str] = (),
    split: str | None = None,
    answer_policy: AnswerPolicy = "single",
    task: str = "",
    name: str = "",
    vocabulary: Vocabulary = NOTHING_STATED,
) -> PromptPairs:
    """Read pairs of prompts from a file, and keep those that line up token by token.

    Args:
        path: as ``read_prompts``.
        tokenizer: the model.
        n: how many pairs, in the order of the file; None is all.
        columns: how the columns are called, where they are called otherwise.
        roles: the roles to read; None is those of the first record.
        labels: further columns, kept as slots of the pairs: a probe can be asked for one.
        split: of a data set of several.
        answer_policy: how answers of several tokens are scored.
        task: recorded as it is.
        name: recorded as it is.
        vocabulary: what is to be said of the roles; the rest is derived.

    Raises:
        InterpError: as ``read_prompts``.

    >>> import tempfile
    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> line = {"clean": "The cat is black. The cat is", "corrupted": "The cat is white. The cat is",
    ...         "answer": " black", "incorrect_answer": " white",
    ...         "spans": {"color": "black"}, "corrupted_spans": {"color": "white"}}
    >>> with tempfile.TemporaryDirectory() as place:
    ...     file = Path(place) / "cats.jsonl"
    ...     _ = file.write_text(json.dumps(line))
    ...     pairs = read_pairs(file, model)
    >>> pairs.roles, pairs.answers
    (('color', 'answer'), (' black',))
    """
    file, named, left, seen = Path(path), columns or PairColumns(), _Left(), set[Any]()
    most = None if n is None else whole_number(n, "n", least=1)
    wanted = None if roles is None else tuple(roles)
    n_ctx = _most_tokens(tokenizer)
    parts: list[PromptPairs] = []
    for piece in _pieces(_records(file, split)):
        if most is not None and sum(map(len, parts)) >= most:
            break
        whole, other, wrong, slots, numbers = [], [], [], [], []
        for number, where, record in piece:
            texts = [_text(record, column, where) for column in (named.clean, named.corrupted)]
            answers = [_text(record, column, where) for column in (named.answer, named.incorrect_answer)]
            said = {column: str(_label(record, column, where)) for column in labels}
            try:
                clean = _spans(record, named.spans, texts[0], where, wanted)
                if wanted is None:
                    wanted = tuple(clean)
                changed = record.get(named.corrupted_spans) or {}
                stated = {**_mapping(record, named.spans, where), **_mapping_of(changed, named.corrupted_spans, where)}
                both = {named.spans: stated}
                corrupted = _spans(both, named.spans, texts[1], where, wanted)
                if n_ctx is not None:
                    _check_length(tokenizer, [text + answer for text in texts for answer in answers], n_ctx)
                key = hash((*texts, *answers, *sorted(clean.items())))
                if key in seen:
                    raise _Misfit("duplicate", "the same pair with the same roles came before")
            except _Misfit as misfit:
                left.out(Drop(number, misfit.reason, texts[0], texts[1], misfit.kind))
                continue
            seen.add(key)
            whole.append(Rendered(texts[0], answers[0], clean))
            other.append(Rendered(texts[1], answers[1], corrupted))
            wrong.append(answers[1])
            slots.append(said)
            numbers.append(number)
        if not whole:
            continue
        found, drops = align(
            whole, other, wrong, slots=(slots, slots), tokenizer=tokenizer, answer_policy=answer_policy
        )  # fmt: skip
        for drop in drops:
            left.out(Drop(numbers[drop.index], drop.reason, drop.clean_text, drop.corrupted_text, drop.kind))
        if found is not None:
            parts.append(PromptPairs(**found, variants=("",) * len(found["answers"]), task=task, name=name))
    left.logged(file)
    if not parts:
        raise InterpError(
            f"No pair of {file} can be used. {first_reasons(left.drops) if left.drops else 'It is empty.'}"
        )
    pairs = PromptPairs.concat(parts)
    if most is not None and len(pairs) < most:
        left.drops.append(shortfall(most, len(pairs)))
    vocabulary.check(pairs.roles)
    return replace(pairs.select(range(min(len(pairs), most or len(pairs)))), drops=tuple(left.drops), stated=vocabulary)


# ---- records ----

_Record = tuple[int, str, Mapping[str, Any]]
"""The number of a record, how a message names it, and what it holds."""


def _pieces(records: Iterable[_Record]) -> Iterator[list[_Record]]:
    every = iter(records)
    while piece := list(islice(every, AT_ONCE)):
        yield piece


def _records(file: Path, split: str | None) -> Iterator[_Record]:
    """The records of a file, one by one.

    Raises:
        InterpError: no such file, another kind of file, or a record that cannot be read.
    """
    if not file.exists():
        raise InterpError(f"There is no file {file}. Name a .jsonl or .parquet file, or the directory of a data set.")
    if file.is_dir():
        yield from _data_set(file, split)
        return
    if split is not None:
        raise InterpError(f"split={split!r} is of data sets that were saved as a directory; {file} is a file.")
    match file.suffix:
        case ".jsonl" | ".ndjson":
            yield from _json_lines(file)
        case ".parquet":
            yield from _parquet(file)
        case _:
            raise InterpError(
                f"{file} is no file of prompts that is known here. Give .jsonl, .parquet, or a data set's directory."
            )


def _json_lines(file: Path) -> Iterator[_Record]:
    with open(file, "rb") as lines:
        number = 0
        for at in count(1):
            line = lines.readline(LONGEST_LINE + 1)
            if not line:
                return
            where = f"line {at} of {file}"
            if len(line) > LONGEST_LINE:
                raise InterpError(f"{where} holds more than {LONGEST_LINE:,} bytes, which is no prompt. Remove it.")
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InterpError(f"{where} is not JSON ({error}). Each line is one record.") from error
            if not isinstance(record, dict):
                raise InterpError(f"{where} is {shown(record)}, not a record of columns. Mend or remove it.")
            yield number, where, record
            number += 1


def _parquet(file: Path) -> Iterator[_Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(AT_ONCE):
                for record in batch.to_pylist(maps_as_pydicts="strict"):
                    yield number, f"row {number + 1} of {file}", record
                    number += 1
    except (pa.ArrowException, OSError) as error:
        said = " ".join(str(error).split())
        raise InterpError(f"{file} cannot be read as Parquet after row {number} ({said}).") from error


def _data_set(folder: Path, split: str | None) -> Iterator[_Record]:
    import datasets

    try:
        found = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = " ".join(str(error).split())
        raise InterpError(f"{folder} is no data set that datasets.save_to_disk wrote ({said}).") from error
    if isinstance(found, datasets.DatasetDict):
        if split is None or split not in found:
            known = ", ".join(map(str, found))
            raise InterpError(f"{folder} has the splits {known}. Name one: split={next(iter(found))!r}.")
        found = found[split]
    elif split is not None:
        raise InterpError(f"{folder} has no splits, but split={split!r} was given. Leave it out.")
    for number, record in enumerate(found):
        yield number, f"row {number + 1} of {folder}", record


# ---- what a record holds ----


def _value(record: Mapping[str, Any], column: str, where: str) -> Any:
    if column not in record:
        known = ", ".join(map(str, record))
        raise InterpError(f"{where} has no {column!r}.{nearest(column, map(str, record))} It has: {known}.")
    return record[column]


def _text(record: Mapping[str, Any], column: str, where: str) -> str:
    value = _value(record, column, where)
    if not isinstance(value, str) or not value.strip():
        raise InterpError(f"{column!r} in {where} is {shown(value)}, not text. Mend or remove it.")
    return value


def _label(record: Mapping[str, Any], column: str, where: str) -> str | int:
    value = _value(record, column, where)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InterpError(f"{column!r} in {where} is {shown(value)}. A label is text or a whole number.")
    return value


def _check_one_kind(labels: Sequence[str | int], column: str | None, file: Path) -> None:
    if len({type(one) for one in labels}) > 1:
        raise InterpError(f"{column!r} of {file} holds text and whole numbers. Give labels of one kind.")


def _mapping(record: Mapping[str, Any], column: str, where: str) -> dict[str, Any]:
    return _mapping_of(_value(record, column, where), column, where)


def _mapping_of(value: Any, column: str, where: str) -> dict[str, Any]:
    """Role -> its words or characters; roles that a table of columns gives as empty are left out."""
    if not isinstance(value, Mapping):
        raise InterpError(f"{column!r} in {where} is {shown(value)}, not a mapping of roles to words or characters.")
    return {str(role): spec for role, spec in value.items() if spec is not None}


def _spans(
    record: Mapping[str, Any], column: str, text: str, where: str, roles: Sequence[str] | None
) -> dict[str, tuple[int, int]]:
    """The characters of each role.

    Raises:
        _Misfit: a role that is not there, or words that do not stand in the text once.
        InterpError: something that is neither words nor characters.
    """
    given = _mapping(record, column, where)
    found = {}
    for role in given if roles is None else roles:
        if role not in given:
            raise _Misfit("span", f"it has no role {role!r}")
        spec = given[role]
        if isinstance(spec, str) and spec.strip():
            word = spec.strip()
            places = [match.span() for match in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", text)]
            if len(places) != 1:
                many = f"stands in it {len(places)} times; give characters" if places else "is not in it"
                raise _Misfit("span", f"{word!r} of role {role!r} {many}")
            found[role] = places[0]
            continue
        numbers = list(spec) if isinstance(spec, Sequence) and not isinstance(spec, str) else []
        if len(numbers) != 2 or any(isinstance(one, bool) or not isinstance(one, int) for one in numbers):
            raise InterpError(
                f"Role {role!r} in {where} is {shown(spec)}. Give its words, or [first, one past last] character."
            )
        first, last = numbers
        if not 0 <= first < last <= len(text):
            raise _Misfit("span", f"characters {first} to {last} of role {role!r} are outside its {len(text)}")
        found[role] = (first, last)
    return found


def _tokens(
    offsets: Sequence[tuple[int, int]], spans: Mapping[str, tuple[int, int]], text: str, shift: int
) -> list[tuple[int, int]]:
    found = []
    for role, chars in spans.items():
        try:
            span = token_span(offsets, chars, role=role, text=text, shift=shift)
        except InterpError as error:
            raise _Misfit("span", str(error)) from error
        found.append((span.start, span.stop))
    return found


def _most_tokens(tokenizer: SupportsTokenizer) -> int | None:
    """Tokens that the model reads at most; None where that is not known."""
    return getattr(getattr(tokenizer, "cfg", None), "n_ctx", None)


def _check_length(tokenizer: SupportsTokenizer, texts: Sequence[str], n_ctx: int) -> None:
    longest = max(len(ids) for ids, _ in encode_plain(tokenizer, texts)) + len(bos_ids(tokenizer))
    if longest > n_ctx:
        raise _Misfit("length", f"it has {longest} tokens with its answer, and the model reads at most {n_ctx}")
