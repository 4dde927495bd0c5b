"""Stand-ins for the library, so that the command and the order of a run are tested in milliseconds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from analyses.cli import asking
from analyses.cli.execution import Tools
from analyses.cli.main import main
from analyses.registry import Analysis
from interp import results
from interp.engines import HERE
from interp.errors import InterpError
from interp.prompts.vocabulary import DOES_NOT, SAYS, Vocabulary
from interp.results import Variable

MINIMAL = {
    "name": "small",
    "title": "A small study",
    "question": "Does it run?",
    "task": "color-noun",
    "analyses": {"behavior": None, "probing": {"n_folds": 3}, "context_flow": None},
}


DROP = {"index": 4, "reason": "two tokens", "clean_text": "The", "corrupted_text": "A"}


class Said:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Callable[[int, int], None]]:
        self.stages.append(name)
        yield lambda done, total: None

    def note(self, text: str) -> None:
        self.notes.append(text)


class Pairs:
    """Stands in for PromptPairs."""

    def __init__(self, rung: str, n: int, seed: int) -> None:
        self.rung, self.n, self.seed = rung, n, seed
        self.drops = (SimpleNamespace(**DROP),)

    def __len__(self) -> int:
        return self.n

    def sha256(self) -> str:
        return f"{self.rung}/{self.n}/{self.seed}"

    vocabulary = Vocabulary(source="color", target="noun")

    def spread(self, n: int) -> Pairs:
        return Pairs(self.rung, n, self.seed)

    def provenance(self) -> dict[str, str | int]:
        return {"task": "color-noun", "n_prompts": self.n, "tokens_sha256": self.sha256()}


MODEL = SimpleNamespace(
    name="double", weights_sha256="00", config_sha256="00", numerics="raw", dtype="torch.float32", device="cpu",
    provenance=lambda: {"model": "double", "weights_sha256": "00"}, engine=HERE,
)  # fmt: skip


@dataclass
class House:
    """Doubles for everything a run is composed of, with a record of what ran."""

    passing: tuple[str, ...] = ("recall", "two")
    ran: list[str] = field(default_factory=list)
    given: dict[str, Any] = field(default_factory=dict)
    tasks: set[str] = field(default_factory=set)
    failing: str | None = None
    failure: BaseException | None = None
    unaskable: InterpError | None = None
    unbuildable: tuple[str, ...] = ()
    afford: int | None = None

    def tools(self, language: str | None = None, *, figures: bool = False) -> Tools:
        return Tools(
            reader=lambda name: MODEL,
            load_model=self.load_model,
            outline=self.load_model,
            build_pairs=self.build_pairs,
            function=self.function,
            save=results.save,
            load=results.load,
            render=self.render,
            affordable=lambda study, model, pairs: self.afford or len(pairs),
        )

    def load_model(self, name: str, *, device: str, dtype: str) -> Any:
        if name != "mini":
            raise InterpError(f"There is no model '{name}'.")
        self.ran.append("load")
        return MODEL

    def build_pairs(self, task: Any, rung: str, *, tokenizer: Any, n: int, seed: int) -> Any:
        if rung in self.unbuildable:
            raise InterpError(f"{rung} needs\nmore tokens.")
        self.tasks.add(task.name)
        return Pairs(rung, n, seed)

    def check_askable(self, pairs: Any, **options: Any) -> None:
        if self.unaskable is not None:
            raise self.unaskable

    def function(self, analysis: Analysis, function: str) -> Callable[..., xr.Dataset]:
        name = analysis.name
        if function == asking.CHECK:
            return self.check_askable

        def behavior(
            model: Any,
            pairs: Mapping[str, Any],
            *,
            descriptions: Mapping[str, str] | None = None,
            minimum_preferred: float = 0.5,
            minimum_gap: float = 0.5,
            main: str | None = None,
            progress: Any = None,
        ) -> xr.Dataset:
            self.given["descriptions"] = descriptions
            return self.dataset("behavior", pairs, rungs=list(pairs), least=minimum_preferred, main=main)

        def probing(model: Any, pairs: Any, *, n_folds: int = 5, seed: int, progress: Any) -> xr.Dataset:
            progress(1, 1)
            return self.dataset("probing", pairs)

        def context_flow(found: Mapping[str, xr.Dataset], *, seed: int, not_asked: Any) -> xr.Dataset:
            return self.dataset("context_flow", found).assign_attrs(answer="The head looks. We are sure.")

        def any_other(model: Any, pairs: Any, **parameters: Any) -> xr.Dataset:
            return self.dataset(f"{name}.{function}", pairs)

        known = {"behavior": behavior, "probing": probing, "context_flow": context_flow}
        return known.get(name, any_other)

    def dataset(
        self, name: str, given: Any, rungs: list[str] | None = None, least: float = 0.5, main: str | None = None
    ) -> xr.Dataset:
        self.ran.append(name)
        self.given[name] = given
        if name == self.failing and self.failure is not None:
            raise self.failure
        variables = {"value": Variable(("prompt",), np.arange(2.0), "logits", "value")}
        extra = {}
        if rungs is not None:
            accuracy = np.array([0.9 if rung in self.passing else 0.1 for rung in rungs])
            passing = [rung for rung, share in zip(rungs, accuracy, strict=True) if share >= least]
            extra["explained_rung"] = main if main in passing else ["", *passing][-1]
            variables |= {
                "accuracy": Variable(("rung",), accuracy, "fraction", "accuracy"),
                "passes": Variable(("rung",), (accuracy >= least).astype(np.int8), "", "passes"),
                "preferred": Variable(("rung",), accuracy, "fraction", "preferred"),
                "outcome": Variable(
                    ("rung",), np.where(accuracy >= least, SAYS, DOES_NOT), "", "what the model does with the answer"
                ),
                "reason": Variable(("rung",), np.array(["fails: measured" for _ in rungs]), "", "reason"),
                "clean_mean": Variable(("rung",), accuracy, "logits", "clean"),
                "corrupted_mean": Variable(("rung",), -accuracy, "logits", "corrupted"),
            }
        coords = {"rung": rungs} if rungs is not None else {}
        text = dict.fromkeys(("title", "question", "reading", "source"), name)
        return results.build(variables, coords=coords, of=[MODEL, Pairs("two", 2, 0)], seed=0, extra=extra, **text)

    def render(self, directory: Path) -> Path:
        self.ran.append("report")
        page = directory / "report.html"
        page.write_text("<!doctype html>")
        return page


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must be refused; the one line that says why."""
    code = main(arguments)
    out, err = capsys.readouterr()
    assert code == 2, err
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("interp: ")
    assert err.endswith("\n")
    assert "Traceback" not in err
    return err
