"""A study in one call from Python: what the command ``interp run`` does, for notebooks and scripts."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyses.cli import execution, scaling
from analyses.cli import study as studies
from analyses.cli.execution import Outcome, Progress
from interp import _yaml
from interp._arguments import check_model
from interp.errors import InterpError

if TYPE_CHECKING:
    from interp.model import HookedTransformer

log = logging.getLogger("interp.study")


def study(
    study: str | Path | Mapping[str, Any] | studies.Study,
    *,
    model: str | HookedTransformer | None = None,
    n: int | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    dtype: str = "float32",
    language: str | None = None,
    progress: bool = False,
    engine: str = "local",
    workers: int | None = None,
    address: str | None = None,
) -> Outcome:
    """Run a study: its results, its verdict and its page. Imports torch.

    Finished results are kept in ``out`` and reused: the same call again goes on, or reads what is there.

    Args:
        study: the name of a bundled study, the path of a ``.yaml`` file, or the same keys as a mapping, with
            ``task`` a name, a path or a whole task.
        model: instead of the study's own: what ``HookedTransformer.from_pretrained`` takes, or a loaded model.
        n: pairs for each rung, instead of the study's own.
        seed: instead of the study's own.
        out: where to write; by default where ``interp run`` writes, under ``reports/``.
        device: what ``HookedTransformer.from_pretrained`` takes; a loaded model stays where it is.
        dtype: likewise.
        language: of the page and the answer, ``"en"`` or ``"es"``; None is that of the prompts, else English.
        progress: whether to draw a bar for each stage.
        engine: who computes: ``"local"`` is this process, ``"ray"`` several (``pip install 'interp[ray]'``).
        workers: how many of them; None is one per GPU, or where there is none one for every four cores, at least two.
        address: of a Ray cluster that runs already; None starts a Ray of this machine's own.

    Returns:
        The answer in words, the path of the page, every result by its name as a labelled ``xarray.Dataset``, among
        them the verdict, and the rung that was explained.

    Raises:
        InterpError: bad input, before anything is computed wherever that can be known; or ``out`` holds another run.

    >>> import tempfile
    >>> import interp
    >>> asked = {
    ...     "name": "recall",
    ...     "title": "Recall",
    ...     "question": "Does the model recall one colour?",
    ...     "task": "color-noun",
    ...     "rungs": ["recall"],
    ...     "main_rung": "recall",
    ...     "analyses": {"behavior": {}},
    ... }
    >>> with tempfile.TemporaryDirectory() as place:
    ...     found = interp.study(asked, model=interp.HookedTransformer.from_pretrained("mini"), n=4, out=place)
    >>> found.results["behavior"].preferred.values.tolist(), found.report.name
    ([1.0], 'report.html')
    """
    who = scaling.Engine(engine, workers, address)
    who.check(prefix="")
    tools = execution.real_tools(language)
    command = _call(study, model=model, n=n, seed=seed, out=out, language=language)
    if model is not None and not isinstance(model, str):
        check_model(model)
        loaded, dtype = model, str(model.dtype).removeprefix("torch.")
        tools = replace(tools, reader=lambda source: loaded, load_model=lambda source, **options: loaded)
        model = loaded.name
    written = _written(study)
    chosen = studies.with_overrides(written, model=model, n=n, seed=seed, where="the call", prefix="")
    place = Path(out) if out is not None else execution.default_place(chosen, written, dtype)
    watcher = _ToLog(progress)
    with who.of(tools, watcher) as parts:
        return execution.execute(
            chosen,
            place,
            tools=parts,
            watcher=watcher,
            command=command,
            device=device,
            dtype=dtype,
            every_prompt=n is not None,
            language=language,
        )


def _call(study: object, **options: object) -> str:
    """The call as the page tells it; what is no text and no number stands there by its name."""
    told = {"study": study, **{name: value for name, value in options.items() if value is not None}}
    known = {
        name: repr(str(value) if isinstance(value, Path) else value) if isinstance(value, str | Path | int) else name
        for name, value in told.items()
    }
    return f"interp.study({known.pop('study')}{''.join(f', {name}={value}' for name, value in known.items())})"


def _written(study: object) -> studies.Study:
    if isinstance(study, studies.Study):
        return study
    if isinstance(study, str | Path):
        return studies.load(study)
    if isinstance(study, Mapping):
        return studies.parse(_yaml.plain(dict(study), "the given study"), where="the given study")
    raise InterpError(f"A study is a name, a path or a mapping of its keys, not {type(study).__name__}.")


@dataclass(frozen=True)
class _ToLog:
    """Tells the log ``interp.study`` of stages and notes; with bars it draws one for each stage, too."""

    bars: bool

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Progress]:
        """A stage begins."""
        from interp.sweeps import listener

        log.info("%s", name)
        yield listener(self.bars, name) or (lambda done, total: None)

    def note(self, text: str) -> None:
        """One line worth reading."""
        log.info("%s", text)
