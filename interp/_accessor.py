"""``.interp`` on every labelled array: to look at it, and to take it elsewhere as a table.

xarray has a method of that name, which interpolates. It is called as before: ``effect.interp(layer=0.5)``.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import xarray as xr

from interp import _cells
from interp.errors import InterpError, unknown_name

if TYPE_CHECKING:
    from interp.report.notebook import Shown

LEADING = ("recovered", "ablation_effect", "cut_effect", "estimated_effect", "probability", "difference")
"""What of a result is looked at unless something else is asked for: the first of these that it has, else its first."""


class Accessor:
    """What ``effect.interp`` offers, of a result or of one of its variables.

    >>> from interp import HookedTransformer, sweep, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> effect = sweep(model, tasks.build("color-noun", "recall", tokenizer=model, n=4), "z")
    >>> effect.interp.show(), effect.interp.to_pandas().columns.tolist()
    (Shown('denoising sweep of z', also: patched), ['layer', 'head', 'mean', 'low', 'high', 'n'])
    """

    def __init__(self, data: xr.Dataset | xr.DataArray) -> None:
        self._data = data

    def show(self, name: str | None = None, **options: Any) -> Shown:
        """``interp.show`` of it, with its options."""
        return _cells.show(self._data, name, **options)

    def to_pandas(self, name: str | None = None, *, each: bool = False) -> Any:
        """One row for each cell, with its axes as columns.

        Args:
            name: the variable; None is the one that matters most.
            each: a row for each prompt, with its ``value``, instead of the mean over prompts.

        Returns:
            A ``pandas.DataFrame``: ``mean``, ``low``, ``high`` and ``n`` over prompts (``interp.summary``: 95%, by
            bootstrap; of what is recovered the ratio of means), or ``value`` where there are no prompts. Of a summary
            its own four. The name of its columns, which a notebook shows in the corner, is the variable's; the
            result's further variables of numbers are in ``table.attrs["also"]``.

        Raises:
            InterpError: no such variable, or one that is no number.

        >>> from interp import HookedTransformer, sweep, tasks
        >>> model = HookedTransformer.from_pretrained("mini")
        >>> effect = sweep(model, tasks.build("color-noun", "recall", tokenizer=model, n=4), "z")
        >>> table = effect.interp.to_pandas()
        >>> bool(table.query("layer == 0 and head == 2")["mean"].item() > 0.9)
        True
        >>> len(table), len(effect.interp.to_pandas(each=True))  # 4 x 4 heads, 4 prompts
        (16, 64)
        >>> table.columns.name, "patched" in table.attrs["also"]
        ('recovered', True)
        """
        from interp import summary

        given = self._data
        data = given if isinstance(given, xr.Dataset) else given.to_dataset(name=given.name or "value")
        asked, name = name, leading(data) if name is None else name
        if name not in data.data_vars:
            raise unknown_name("variable", name, map(str, data.data_vars))
        if data[name].dtype.kind not in summary.NUMBERS:
            raise InterpError(f"{name!r} holds words. Its table is .to_dataframe().")
        if "prompt" in data[name].dims and not each:
            found = summary.of(data, name) if data is given else summary.mean(data[name])
        elif asked is None and data is given and all(part in data.data_vars for part in summary.PARTS):
            found = data[[*summary.PARTS]]
        else:
            found = data[name].to_dataset(name="value")
        table = found.to_dataframe().reset_index()
        last = [str(one) for one in found.data_vars]
        table = table[[one for one in table.columns if one not in last] + last]
        table.columns.name = name
        others = [str(one) for one in data if data[one].dtype.kind in summary.NUMBERS]
        table.attrs["also"] = [one for one in others if one not in (name, *last)]
        return table


def leading(data: xr.Dataset) -> str:
    """The variable of a result that is looked at first.

    >>> leading(xr.Dataset({"patched": 1.0, "recovered": 0.5}))
    'recovered'
    """
    names = [str(one) for one in data.data_vars]
    return next((one for one in LEADING if one in names), names[0])


def register() -> None:
    """Give every dataset and every array the accessor, once however often this is imported or reloaded."""
    for kind, give in (
        (xr.Dataset, xr.register_dataset_accessor),
        (xr.DataArray, xr.register_dataarray_accessor),
    ):
        given: Any = kind.interp
        if not isinstance(given, type):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the name is taken
                give("interp")(_calling(given))  # type: ignore[no-untyped-call]


def _calling(interpolate: Callable[..., Any]) -> type[Accessor]:
    """The accessor, which interpolates where it is called, as the method did that had its name."""

    class Interp(Accessor):
        __doc__ = Accessor.__doc__

        @functools.wraps(interpolate)
        def __call__(self, *arguments: Any, **more: Any) -> Any:
            return interpolate(self._data, *arguments, **more)

    return Interp
