"""Tasks: prompt sets that ask a model one question, as ladders of rungs, kept in YAML with their source.

>>> from interp import tasks
>>> tasks.names()[:4]
('agreement', 'agreement-es', 'binding', 'color-noun')
>>> [rung.name for rung in tasks.load("color-noun").rungs]
['recall', 'repeated_frame', 'two', 'three']
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp import _yaml
from interp.errors import InterpError, shown, unknown_name, whole_number
from interp.prompts.records import PairColumns, read_pairs
from interp.prompts.template import ANSWER
from interp.tasks.schema import Corruption, Rung, Table, Task, parse_task

if TYPE_CHECKING:
    from interp.prompts import PromptPairs
    from interp.prompts.alignment import AnswerPolicy
    from interp.prompts.tokens import SupportsTokenizer

__all__ = ["FILES", "Corruption", "Rung", "Table", "Task", "build", "content", "load", "located", "names", "parse_task"]

_FOLDER = Path(__file__).parent

FILES = (".yaml", ".yml")
"""How a path to a task ends; any other text is the name of a bundled task."""


def names() -> tuple[str, ...]:
    """The bundled tasks, in alphabetical order.

    >>> "ioi" in names()
    True
    """
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def content(name: str | Path) -> Any:
    """What the file of a task holds, not yet checked: a bundled task by name, or any file (``.yaml`` or ``.yml``).

    Raises:
        InterpError: unknown name, or a file that is missing or not YAML.

    >>> content("ioi")["language"]
    'en'
    """
    path = _file(name)
    return located(_yaml.read(path, path.name), path.parent)


def located(content: Any, folder: Path) -> Any:
    """What a task says, with the files of its pairs found from a folder; anything else is left as it is.

    >>> located({"kind": "file", "rungs": [{"file": "/pairs.jsonl"}]}, Path("here"))["rungs"]
    [{'file': '/pairs.jsonl'}]
    """
    if not isinstance(content, dict) or content.get("kind") != "file" or not isinstance(content.get("rungs"), list):
        return content

    def found(rung: Any) -> Any:
        if not isinstance(rung, dict) or not isinstance(rung.get("file"), str):
            return rung
        return {**rung, "file": str((folder / Path(rung["file"]).expanduser()).absolute())}

    return {**content, "rungs": [found(rung) for rung in content["rungs"]]}


def load(task: str | Path | Mapping[str, Any]) -> Task:
    """A bundled task by name, any task file by its path (``.yaml`` or ``.yml``), or a whole task as a mapping.

    Raises:
        InterpError: unknown name, or a file or mapping that is not a valid task.

    >>> task = load("color-noun")
    >>> task.main.name, task.lexicon["color"][:2]
    ('two', ('black', 'white'))
    """
    if isinstance(task, Mapping):
        return parse_task(_yaml.plain(task, "the given mapping"), "the given mapping")
    return parse_task(content(task), _file(task).name)


def _file(name: str | Path) -> Path:
    if not isinstance(name, str | Path):
        raise InterpError(f"A task is named by a word or a path, not by {type(name).__name__}.")
    if Path(name).suffix in FILES:
        return Path(name)
    if str(name) not in names():
        raise unknown_name("task", str(name), names())
    return _FOLDER / f"{name}.yaml"


def build(
    task: str | Path | Mapping[str, Any] | Task,
    rung: str | None = None,
    *,
    tokenizer: SupportsTokenizer,
    n: int = 64,
    seed: int = 0,
    answer_policy: AnswerPolicy | None = None,
) -> PromptPairs:
    """Pairs of one rung: different prompts, balanced over words and over what is asked.

    Words are drawn so that each is used about equally often. A pair that the model's tokenizer does not let line
    up is dropped with its reason and another is drawn; if there are too few, the shortfall ends the drop log.

    Args:
        task: a task, or what ``load`` takes.
        rung: name of the rung; None for the main one.
        tokenizer: the model.
        n: how many pairs.
        seed: fixes the draw. Pairs of a file are the first that line up, in its order.
        answer_policy: instead of the task's own.

    Returns:
        At most ``n`` pairs with ``task`` and ``name`` (the rung's) set; templates of a rung take turns.

    Raises:
        InterpError: unknown task or rung, n below 1, a prompt longer than the context, or no pair at all.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = build("color-noun", "recall", tokenizer=model, n=4)
    >>> len(pairs), pairs.task, pairs.name, pairs[0].correct in pairs[0].clean
    (4, 'color-noun', 'recall', True)
    """
    from interp.tasks import drawing, random_tokens

    if tokenizer is None:
        raise InterpError("A task is built for a model: give it as tokenizer=.")
    task = task if isinstance(task, Task) else load(task)
    chosen = task.rung(rung)
    if whole_number(n, "n") < 1:
        raise InterpError(f"n is {shown(n)}. Ask for at least one pair.")
    if task.kind == "random_tokens":
        return random_tokens.build(task, chosen, tokenizer, n=n, seed=seed)
    if task.kind == "file":
        return read_pairs(
            chosen.file,
            tokenizer,
            n=n,
            columns=PairColumns(**chosen.columns),
            roles=[role for role in chosen.roles if role != ANSWER],
            labels=chosen.labels,
            split=chosen.split,
            answer_policy=answer_policy or task.answer_policy,
            task=task.name,
            name=chosen.name,
            vocabulary=task.vocabulary,
        )
    if answer_policy is not None:
        task = replace(task, answer_policy=answer_policy)
    return drawing.build(task, chosen, tokenizer, n=n, seed=seed)
