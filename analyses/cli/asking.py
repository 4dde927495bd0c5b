"""Whether the questions of a study can be asked of its prompts, told before the model is loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from analyses import registry
from analyses.registry import Analysis
from interp.errors import InterpError, UnaskableError, shown

if TYPE_CHECKING:
    from analyses.cli.study import Study
    from interp.prompts import PromptPairs

CHECK = "check_askable"
"""The function of an analysis's module that refuses pairs it cannot ask."""


def check(study: Study, pairs: PromptPairs, function: Callable[[Analysis, str], Callable[..., Any]]) -> dict[str, str]:
    """Ask every analysis whether the pairs leave room for its question. Imports their modules.

    Args:
        study: the study.
        pairs: those of its main rung.
        function: gives a function of an analysis by its name.

    Returns:
        Analysis -> why it cannot be asked of these pairs, where the study leaves its question to the default.

    Raises:
        InterpError: the study itself asks a question that cannot be asked; names the analysis and its options.
    """
    left_out = {}
    for name, analysis in registry.ordered(study.analyses).items():
        if not analysis.asks:
            continue
        given = study.analyses[name]
        try:
            function(analysis, CHECK)(pairs, **{key: given[key] for key in analysis.asks if key in given})
        except UnaskableError as error:
            refuse_what_was_asked_for(study, name, error)
            left_out[name] = str(error)
        except InterpError as error:
            raise InterpError(f"In analyses.{name}: {error}") from error
    return left_out


def refuse_what_was_asked_for(study: Study, name: str, error: UnaskableError) -> None:
    """What cannot be asked is left out with its reason, but not where the study set it itself.

    Raises:
        InterpError: names the options that the study gives.
    """
    given = {key: study.analyses[name][key] for key in error.by if key in study.analyses[name]}
    if given:
        said = ", ".join(f"{key}: {shown(value)}" for key, value in given.items())
        raise InterpError(f"In analyses.{name} ({said}): {error} Leave it out to run without.") from error
