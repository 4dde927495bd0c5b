"""What a result says of settings that are less than usual, because the usual ones take long on its model."""

from __future__ import annotations

from interp.language import say
from interp.report.inputs import Result


def facts(result: Result) -> tuple[tuple[str, str], ...]:
    """One fact for whatever was bounded; none where nothing was.

    >>> import xarray as xr
    >>> facts(Result("places", xr.Dataset(attrs={"bounded": "steps: 6 of 20"})))
    (('To bound the time:', 'steps: 6 of 20 that are usual. A study can ask for more.'),)
    >>> facts(Result("places", xr.Dataset()))
    ()
    """
    said = [
        say("{setting}: {taken} of {usual} that are usual", setting=setting, taken=taken, usual=usual)
        for each in filter(None, result.attr("bounded").split("; "))
        for setting, _, numbers in [each.partition(": ")]
        for taken, _, usual in [numbers.partition(" of ")]
    ]
    return ((say("To bound the time:"), "; ".join(said) + ". " + say("A study can ask for more.")),) if said else ()
