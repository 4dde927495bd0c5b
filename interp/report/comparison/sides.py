"""The runs of a comparison: who they are, and whether they can be laid beside each other."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from interp import language as languages
from interp.errors import InterpError
from interp.language import say
from interp.report import verdict
from interp.report.inputs import Result, RunInputs
from interp.report.verdict import Verdict

AT_MOST = len(string.ascii_uppercase)


@dataclass(frozen=True)
class Side:
    """One run.

    Attributes:
        letter: what it is called beside the others.
        where: its directory.
        run: its results.
    """

    letter: str
    where: Path
    run: RunInputs

    @classmethod
    def of(cls, i: int, where: Path, run: RunInputs) -> Side:
        """The i-th run of a comparison."""
        return cls(string.ascii_uppercase[i], where, run)

    @cached_property
    def verdict(self) -> Verdict:
        """What it concluded."""
        return verdict.of(self.run)

    @property
    def of_sentence(self) -> bool:
        """Whether it explains one sentence (``interp explain``) and not a study."""
        return "reach" in self.run.files

    @property
    def passed(self) -> bool:
        """Whether there is a behaviour that it explains."""
        return self.of_sentence or self.verdict.passed

    @property
    def model(self) -> str:
        """The model's name."""
        return self.run.first_attr("model")

    @property
    def shape(self) -> tuple[int, int] | None:
        """Layers and heads, where heads were patched."""
        found = self.patched("z") if not self.of_sentence else self.run.get("heads")
        return None if found is None else (found.data.sizes["layer"], found.data.sizes["head"])

    def patched(self, site: str) -> Result | None:
        """The patching of a site, where the run has it and may be explained."""
        found = self.run.get("activation_patching")
        return found if found is not None and self.passed and found.has(f"recovered_{site}") else None

    def in_words(self) -> str:
        """The model, what was asked of it, and what was explained."""
        name = str(self.run.study.get("name") or self.run.first_attr("task"))
        if self.of_sentence:
            return say(
                "{model}, {question} ({directory})",
                model=self.model,
                question=self.run.first_attr("question", ("reach",)),
                directory=self.where,
            )
        rung = self.verdict.rung if self.passed else say("no rung, it does not do the task")
        return say("{model}, {study}, explained: {rung} ({directory})", model=self.model, study=name, rung=rung,
                   directory=self.where)  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "letter": self.letter,
            "directory": str(self.where),
            "model": self.model,
            "task": self.run.first_attr("task"),
            "gate": "passed" if self.passed else "failed",
            "rung": self.verdict.rung,
            "answer": self.verdict.answer,
        }


def check_named(wheres: Sequence[Path]) -> None:
    """Refuse directories that cannot be the runs of a comparison, before any is read.

    Raises:
        InterpError: too few or too many, one twice, or one without the results of a run; says what to do.
    """
    if len(wheres) < 2:
        raise InterpError("A comparison needs two runs or more. Name the directories that 'interp run' wrote.")
    if len(wheres) > AT_MOST:
        raise InterpError(f"At most {AT_MOST} runs are compared at once, and {len(wheres)} are named. Leave some out.")
    for i, where in enumerate(wheres):
        if not any((where / "results" / f"{name}.nc").exists() for name in ("behavior", "reach")):
            raise InterpError(
                f"{where} holds no finished run; name a directory that 'interp run' or 'interp explain --out' wrote."
            )
        if where.resolve() in {other.resolve() for other in wheres[:i]}:
            raise InterpError(f"{where} is named twice. Name two different runs.")


def check_comparable(sides: Sequence[Side]) -> None:
    """Refuse runs that have nothing to compare.

    Raises:
        InterpError: a study beside a sentence, or tasks without a rung in common.
    """
    first = sides[0]
    for side in sides[1:]:
        if side.of_sentence is not first.of_sentence:
            one, other = (first, side) if side.of_sentence else (side, first)
            raise InterpError(
                f"{other.where} explains one sentence and {one.where} a study: they have no number in common. Compare "
                "runs of one kind."
            )
        if not side.of_sentence and not set(rungs(side)) & set(rungs(first)):
            raise InterpError(
                f"{first.where} and {side.where} have no rung in common ({', '.join(rungs(first))}; "
                f"{', '.join(rungs(side))}). Compare runs of one task, or of its translation."
            )


def rungs(side: Side) -> tuple[str, ...]:
    """The rungs of a run of a study."""
    return behaved(side).labels("rung")


def behaved(side: Side) -> Result:
    """The baselines of a run of a study."""
    return side.run.files["behavior"]


def same_prompts(first: Side, other: Side) -> bool:
    """Whether two runs had the same prompts in what they explained, token for token.

    Roles are part of a fingerprint of pairs: runs of one model with other roles have the same prompts if all texts are
    the same.
    """
    name = "reach" if first.of_sentence else "activation_patching"
    found = [side.run.get(name) for side in (first, other)]
    keys = [(one.attr("tokens_sha256"), one.data.sizes["prompt"]) for one in found if one is not None]
    if len(keys) == 2 and keys[0] == keys[1] and keys[0][0] != "":
        return True
    texts = [_texts(side) for side in (first, other)]
    of_one_model = first.run.first_attr("weights_sha256") == other.run.first_attr("weights_sha256") != ""
    sizes = [size for _, size in keys]
    return of_one_model and len(sizes) == 2 and sizes[0] == sizes[1] and texts[0] == texts[1] != []


def _texts(side: Side) -> list[list[str]]:
    """Both texts and both answers of each prompt of the rung that was explained."""
    found = side.run.get("behavior")
    names = ("rung_of", "text", "corrupted_text", "answer", "incorrect_answer")
    if found is None or not found.has(*names):
        return []
    columns = zip(*(found.labels(name) for name in names), strict=True)
    return [texts for rung, *texts in columns if rung == side.verdict.rung]


def language(sides: Sequence[Side]) -> str:
    """The language that all runs are in, if the page can be written in it; else English."""
    found = {side.run.language for side in sides}
    return languages.chosen(None, found.pop() if len(found) == 1 else languages.LANGUAGES[0])
