"""The keys of a task file: what may stand there, and what for. The parser reads them, and editors as a JSON schema."""

from __future__ import annotations

from typing import get_args

from interp._keys import FLAG, TEXT, Holds, Key, mapping, named, one_of, some, whole
from interp.prompts import vocabulary
from interp.prompts.alignment import AnswerPolicy

KINDS = ("words", "random_tokens", "file")
POLICIES = get_args(AnswerPolicy)
SMALLEST_BLOCK = 2

_WORD = {**TEXT, "not": {"pattern": r"^\s|\s$"}}
_ROW = {"type": "array", "items": _WORD, "minItems": 2}
_LEXICON = {
    "type": "object",
    "patternProperties": {",": some(_ROW)},
    "additionalProperties": {**some(_WORD), "uniqueItems": True},
}
_PAIR = {"type": "array", "items": TEXT, "minItems": 2, "maxItems": 2, "uniqueItems": True}

TASK = (
    Key("name", TEXT, "A short name.", required=True),
    Key("language", TEXT, "Of the prompts, such as en or es; none for a task without words.", required=True),
    Key("title", TEXT, "For a heading.", required=True),
    Key("question", TEXT, "What the task asks of a model.", required=True),
    Key("source", TEXT, "Where it comes from: a paper, or sentences of your own.", required=True),
    Key(
        "kind",
        one_of(KINDS),
        "words (the default) fills templates; random_tokens needs no words; file reads pairs from a file.",
    ),
    Key(
        "answer_policy",
        one_of(POLICIES),
        "How answers of several tokens are scored: single (the default) refuses them, first_differing scores the first "
        "token that differs, sum_logprob the whole answer.",
    ),
    Key(
        "lexicon",
        _LEXICON,
        "The words of every slot. Slots that are drawn together are one key, such as 'noun, verb', with a row for each "
        "draw: [key, is].",
    ),
    Key("rungs", {"type": "array", "minItems": 1}, "From easy to hard; exactly one is main.", required=True),
    Key("vocabulary", vocabulary.HOLDS, "What the roles are to the analyses, and what to call them."),
)
_NAME = Key("name", TEXT, "A short name.", required=True)
_DESCRIPTION = Key("description", TEXT, "What the prompts hold, and how the corrupted ones are made.", required=True)
_MAIN = Key("main", FLAG, "Whether this is the rung that the task is about.")
CORRUPTED = (
    Key("other", TEXT, "This slot takes another word of its list, or its whole row is another one."),
    Key("swap", _PAIR, "These two slots exchange their words."),
    Key("copy", named(TEXT, least=1), "A slot takes another slot's word: {color: color_other}."),
    Key("keep", TEXT, "With other: the column in which the other row has the same word."),
)
_CORRUPTED = mapping(
    CORRUPTED,
    oneOf=[{"required": [kind]} for kind in ("other", "swap", "copy")],
    dependentRequired={"keep": ["other"]},
)
WORD_RUNG = (
    _NAME,
    _DESCRIPTION,
    Key("answer", TEXT, 'The right answer, with the space before it: " {color}".', required=True),
    Key("corrupted", _CORRUPTED, "What the corrupted prompt changes, token for token.", required=True),
    _MAIN,
    Key(
        "template", TEXT, "The prompt: {noun} is a slot and a role; {noun:asked} is its word again, as the role asked."
    ),
    Key("templates", named(TEXT, least=1), "Several templates, which take turns; each has a name."),
    Key("same", named(TEXT), "A slot repeats another slot's clean word: {second: first}."),
    Key("incorrect_answer", TEXT, "The wrong answer; by default the right one of the corrupted prompt."),
    Key("roles", some(TEXT), "The roles of interest, in the order in which figures show them."),
)
_WORD_RUNG = mapping(WORD_RUNG, oneOf=[{"required": ["template"]}, {"required": ["templates"]}])
TOKEN_RUNG = (
    _NAME,
    _DESCRIPTION,
    Key("block", whole(SMALLEST_BLOCK), "How many random tokens are repeated.", required=True),
    _MAIN,
)

COLUMNS = ("clean", "corrupted", "answer", "incorrect_answer", "spans", "corrupted_spans")
FILE_RUNG = (
    _NAME,
    _DESCRIPTION,
    Key(
        "file",
        TEXT,
        "A .jsonl or .parquet file of pairs, or a data set's directory; relative to this file.",
        required=True,
    ),
    Key("roles", some(TEXT), "The roles of interest, which every pair has in its spans.", required=True),
    _MAIN,
    Key(
        "columns",
        mapping([Key(name, TEXT, "What this column is called.") for name in COLUMNS]),
        "Columns of other names.",
    ),
    Key("labels", some(TEXT), "Further columns, which a probe can be asked to read."),
    Key("split", TEXT, "Of a data set of several."),
)

_ONE_MAIN = {"contains": {"properties": {"main": {"const": True}}, "required": ["main"]}, "maxContains": 1}


def json_schema() -> Holds:
    """What a task file may hold, as a JSON schema (draft 2020-12) says it.

    It cannot say that slots and roles are known, that the rows of a table are equally long, that names differ, that
    braces match, and that corrupted changes the answer; ``interp.tasks.parse_task`` does.
    """

    def of(kind: str) -> Holds:
        return {"properties": {"kind": {"const": kind}}, "required": ["kind"]}

    def without_words(rung: tuple[Key, ...]) -> Holds:
        return {"properties": {"rungs": {"items": mapping(rung), **_ONE_MAIN}, "lexicon": {"maxProperties": 0}}}

    words = {
        "properties": {"rungs": {"items": _WORD_RUNG, **_ONE_MAIN}, "lexicon": {"minProperties": 1}},
        "required": ["lexicon"],
    }
    of_files = {"if": of("file"), "then": without_words(FILE_RUNG), "else": words}
    return mapping(TASK, **{"if": of("random_tokens")}, then=without_words(TOKEN_RUNG), **{"else": of_files})
