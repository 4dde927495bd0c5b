"""A researcher's own question: writing a first file, looking a file over, and showing what a task asks.

Nothing here reads a model's weights; where a model is named, its tokenizer is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.cli import asking
from analyses.cli import study as studies
from analyses.registry import Analysis
from interp import _yaml, tasks
from interp._names import component
from interp.errors import InterpError
from interp.prompts.pairing import SHORTFALL

if TYPE_CHECKING:
    from interp.prompts import Drop, PromptPairs
    from interp.prompts.template import Rendered
    from interp.prompts.tokens import SupportsTokenizer
    from interp.tasks import Rung, Task

FIRST_FILE = Path(__file__).parent / "new_question.yaml"
ANSWERED_BY = ("activation_patching", "context_flow")
"""What the answer to a study's question is made from and by."""
SHOWN_DROPS = 5
"""Of each rung; the manifest of a run holds all of them."""


def write_new(name: str) -> Path:
    """Write a first study with its task in it, which runs as it is, and return its path: ``NAME.yaml`` here.

    Raises:
        InterpError: the name cannot be a file's, a file of that name is there, or it cannot be written.
    """
    stem = component(name.removesuffix(".yaml"), "The name of a question")
    path = Path(f"{stem}.yaml")
    text = FIRST_FILE.read_text(encoding="utf-8").format(name=stem)
    _check_reads_back(text, stem)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InterpError(f"{path} is already there, and is left as it is. Choose another name.") from None
    except OSError as error:
        raise InterpError(f"Cannot write {path} ({error.strerror}). Go to a directory that can be written.") from error
    return path


def _check_reads_back(text: str, stem: str) -> None:
    """A name such as ``1`` or ``true`` is not text in YAML."""
    try:
        study = studies.parse(_yaml.parse(text, f"{stem}.yaml"), where=f"{stem}.yaml")
    except InterpError:
        study = None
    if study is None or study.name != stem:
        raise InterpError(f"{stem!r} does not read as text in YAML. Choose a name of letters, such as agreement.")


def look_over(file: str, model: str | None) -> Iterator[str]:
    """The lines of ``interp check``: what a study or a task says, and with a model how its prompts are read.

    Raises:
        InterpError: what is wrong, where, and what to do.
    """
    study, task = _read(file)
    n, seed = (study.n, study.seed) if study else (48, 0)
    joined = list(_joined_answers(task))
    unanswered = [] if study is None else list(_no_verdict(study))
    unreached = dict(_unreached(task))
    settled = (study.ladder(task)[1] if study else task.main.name) in unreached
    built = {} if model is None else _built(task, _reader(model), n, seed)
    left_out = {} if study is None else _left_out(study, task, built)
    kind = "task" if study is None else "study"
    if joined or unanswered or settled or any(_is_short(pairs) for pairs in built.values()):
        yield f"{file} is a {kind} that can be read. What is probably not meant is said below."
    else:
        yield f"{file} is a {kind} without a mistake."
    if study is None:
        yield f"Task {task.name}: rungs {_names(task)}."
    else:
        yield (
            f"Study {study.name}: {study.n} pairs of each rung of {task.name} ({_names(task)}), model {study.model}, "
            f"analyses {', '.join(study.analyses)}."
        )
    yield from joined
    yield from unreached.values()
    yield from unanswered
    yield from _pairs_lines(task, built)
    yield from (f"{name} cannot be asked here: {reason}" for name, reason in left_out.items())


def show(name: str, model: str | None) -> Iterator[str]:
    """The lines of ``interp show``: a task's rungs and roles, and of each rung one prompt with its roles marked.

    Raises:
        InterpError: no such task, a mistake in it, or with a model, one whose tokenizer cannot be had.
    """
    _, task = _read(name)
    yield f"{task.name}: {task.title}"
    yield task.question
    yield f"Source: {task.source}"
    reader = None if model is None else _reader(model)
    for rung in task.rungs:
        yield ""
        yield f"{rung.name}{' (main)' if rung.main else ''}: {rung.description}"
        if rung.roles:
            yield f"  roles      {', '.join(rung.roles)}"
        if reader is not None:
            yield from _one_as_read(task, rung, reader)
        elif task.kind == "words":
            yield from _as_written(task, rung)
        elif task.kind == "file":
            yield f"  Its pairs are in {rung.file}: name a model with --model."
        else:
            yield "  Its prompts are random tokens of a vocabulary: name a model with --model."


def _read(name: str) -> tuple[studies.Study | None, Task]:
    """A study with its task, or a task alone: bundled ones by name, tasks before studies, or a file."""
    if not name.endswith(tasks.FILES):
        if name not in tasks.names() and name in studies.names():
            study = studies.load(name)
            return study, tasks.load(study.task)
        return None, tasks.load(name)
    if not Path(name).exists():
        raise InterpError(f"There is no file {name}. 'interp new NAME' writes a first one.")
    content = _yaml.read(Path(name), name)
    if isinstance(content, Mapping) and "language" in content:  # which every task says, and no study
        return None, tasks.parse_task(tasks.located(content, Path(name).parent), name)
    study = studies.load(name)
    return study, tasks.load(study.task)


def _names(task: Task) -> str:
    return ", ".join(rung.name for rung in task.rungs)


def _reader(model: str) -> SupportsTokenizer:
    from interp.model.source import reader

    return reader(model)


def _written(task: Task) -> Iterator[tuple[Rung, Rendered]]:
    """Of each rung that is made of words one clean prompt, before any tokenizer reads it."""
    from interp.tasks.drawing import example

    for rung in task.rungs if task.kind == "words" else ():
        yield rung, example(task, rung)[0]


def _joined_answers(task: Task) -> Iterator[str]:
    """The rungs whose answer would make one word with the end of the prompt, or comes after a space in it."""
    for rung, clean in _written(task):
        if clean.text[-1].isalpha() and clean.answer[0].isalpha():
            word = f"{clean.text.split()[-1]}{clean.answer}"
            yield f'{rung.name}: the answer makes one word with the prompt, "{word}". Begin it with a space.'
        elif clean.text[-1].isspace():
            yield (
                f"{rung.name}: the prompt ends with a space, which belongs to the answer's first token. "
                "End the template without it, and begin the answer with one."
            )


def _unreached(task: Task) -> Iterator[tuple[str, str]]:
    """The rungs in which the target stands before the source, so that the answer is no without any measurement."""
    source, target = task.vocabulary.source, task.vocabulary.target
    for rung, clean in _written(task):
        roles = clean.roles
        if source in roles and target in roles and roles[target][1] <= roles[source][0]:
            yield (
                rung.name,
                f"{rung.name}: {target} stands before {source}, and attention only looks back, so that nothing of "
                f"{source} can reach it there. What can be found is where {source} is read. To ask of the token behind "
                f"{source}, add after_{source} to the roles of each rung and make it the target.",
            )


def _no_verdict(study: studies.Study) -> Iterator[str]:
    """That a study with only one of the two analyses that an answer takes gets numbers, but no answer."""
    missing = [name for name in ANSWERED_BY if name not in study.analyses]
    if len(missing) == 1:
        yield (
            f"Without {missing[0]} among its analyses its question is not answered. Add it, "
            "unless only the other analyses' numbers are wanted."
        )


def _is_short(pairs: PromptPairs | InterpError) -> bool:
    """Whether fewer pairs than were asked for line up."""
    return isinstance(pairs, InterpError) or any(drop.kind == SHORTFALL for drop in pairs.drops)


def _built(task: Task, reader: SupportsTokenizer, n: int, seed: int) -> dict[str, PromptPairs | InterpError]:
    """The pairs of each rung, or why there are none."""
    built: dict[str, PromptPairs | InterpError] = {}
    for rung in task.rungs:
        try:
            built[rung.name] = tasks.build(task, rung.name, tokenizer=reader, n=n, seed=seed)
        except InterpError as error:
            built[rung.name] = error
    return built


def _left_out(study: studies.Study, task: Task, built: Mapping[str, PromptPairs | InterpError]) -> dict[str, str]:
    """Analysis -> why it cannot be asked of the study's main rung, as far as its pairs are known.

    Raises:
        InterpError: the study itself asks for it.
    """
    pairs = built.get(study.ladder(task)[1])
    return {} if pairs is None or isinstance(pairs, InterpError) else asking.check(study, pairs, Analysis.function)


def _pairs_lines(task: Task, built: Mapping[str, PromptPairs | InterpError]) -> Iterator[str]:
    """Of each rung, how many pairs a tokenizer lets line up, the first of them, and what was dropped."""
    for rung, pairs in built.items():
        yield ""
        if isinstance(pairs, InterpError):
            yield f"{rung}: {pairs}"
            continue
        yield f"{rung}: {replace(pairs, drops=()).summary()}"
        yield from _as_read(pairs)
        yield from _dropped(pairs.drops)
    if built and all(isinstance(pairs, InterpError) for pairs in built.values()):
        raise InterpError(f"No rung of {task.name} can be built with this tokenizer; the reasons are above.")


def _dropped(drops: Sequence[Drop]) -> Iterator[str]:
    """The first drops with their texts, how many more there are, and whether pairs are missing in the end."""
    dropped = [drop for drop in drops if drop.kind != SHORTFALL]
    for drop in dropped[:SHOWN_DROPS]:
        yield f'  dropped    "{drop.clean_text}": {drop.reason}'
    if len(dropped) > SHOWN_DROPS:
        yield f"  dropped    {len(dropped) - SHOWN_DROPS} more"
    yield from (f"  missing    {drop.reason}" for drop in drops if drop.kind == SHORTFALL)


def _as_written(task: Task, rung: Rung) -> Iterator[str]:
    """One pair in words, its roles marked, before any tokenizer reads it."""
    from interp.tasks.drawing import example

    clean, corrupted = example(task, rung)
    yield f"  clean      {_marked(clean.text, clean.roles)} ->{clean.answer}"
    yield f"  corrupted  {_marked(corrupted.text, corrupted.roles)}"


def _marked(text: str, spans: Mapping[str, tuple[int, int]]) -> str:
    """A text with each role in brackets: ``The [cat noun] is``."""
    for role, (start, end) in sorted(spans.items(), key=lambda item: item[1], reverse=True):
        text = f"{text[:start]}[{text[start:end]} {role}]{text[end:]}"
    return text


def _one_as_read(task: Task, rung: Rung, reader: SupportsTokenizer) -> Iterator[str]:
    """One pair of a rung as tokens, or why a tokenizer has none."""
    try:
        yield from _as_read(tasks.build(task, rung.name, tokenizer=reader, n=1))
    except InterpError as error:
        yield f"  {error}"


def _as_read(pairs: PromptPairs) -> Iterator[str]:
    """The first pair as tokens, with the roles under the clean ones."""
    pair = pairs[0]
    yield f"  clean      {pair.clean!r} -> {pair.correct!r}, not {pair.incorrect!r}"
    yield f"  corrupted  {pair.corrupted!r}"
    tokens = pairs.clean.tokens[0] if pairs.clean.tokens else tuple(str(token) for token in pairs.clean.rows()[0])
    yield "  tokens     " + " | ".join(repr(token)[1:-1] for token in tokens)
    for role in pairs.roles:
        start, end = (int(edge) for edge in pairs.clean.spans(role)[0])
        yield f"  {role:<10} {start if end == start + 1 else f'{start} to {end - 1}'}: {''.join(tokens[start:end])!r}"
