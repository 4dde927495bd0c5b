"""The layer at which the answer appears, from what a lens says of it at each layer."""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Float

from interp.errors import InterpError

CRITERIA = ("top", "ahead")
"""When an answer has appeared: it stays the top token; it is more probable than the incorrect one, if there is one."""


def appears(lens: xr.Dataset) -> xr.DataArray:
    """The layer at which the correct answer appears, in each prompt.

    Args:
        lens: what a lens reads: ``rank`` and ``log_probability`` with the dims prompt, layer and answer among others.

    Returns:
        Dims prompt, criterion, then the others but layer and answer. ``top``: the first layer from which on the
        answer's rank is 0, up to the last layer. ``ahead``: the first layer at which its log-probability is above the
        incorrect answer's, whatever comes later; left out where there is no incorrect answer. Infinite where it never
        appears.

    Raises:
        InterpError: no such variables.

    >>> from interp import HookedTransformer, lenses, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> lens = lenses.logit_lens(model, tasks.build("color-noun", "recall", tokenizer=model, n=2))
    >>> lenses.appears(lens).sel(criterion="top", site="resid_post", role="answer").values.tolist()
    [1.0, 1.0]
    """
    for name in ("rank", "log_probability"):
        if name not in lens:
            raise InterpError(f"The result has no variable '{name}'. Give what lenses.logit_lens returns.")
    said = lens["log_probability"]
    holds = {"top": _from_then_on(lens["rank"].sel(answer="correct", drop=True) == 0)}
    if "incorrect" in lens["answer"].values:
        holds["ahead"] = said.sel(answer="correct", drop=True) > said.sel(answer="incorrect", drop=True)
    found = xr.concat([_first(one) for one in holds.values()], dim="criterion").assign_coords(criterion=list(holds))
    return found.transpose("prompt", "criterion", ...).rename("appears_in").assign_attrs(
        units="layer", long_name="layer at which the answer appears; infinite: it never does"
    )  # fmt: skip


def _from_then_on(holds: xr.DataArray) -> xr.DataArray:
    """Whether it holds at a layer and at all later ones."""
    axis = holds.get_axis_num("layer")
    backwards = np.flip(holds.values, axis)
    return holds.copy(data=np.flip(np.logical_and.accumulate(backwards, axis=axis), axis))


def _first(holds: xr.DataArray) -> xr.DataArray:
    """The label of the first layer at which it holds; infinite where it never does."""
    layers: Float[np.ndarray, " layer"] = holds["layer"].values.astype(np.float64)
    first = layers[holds.values.argmax(axis=holds.get_axis_num("layer"))]
    anywhere = holds.any("layer")
    return anywhere.copy(data=np.where(anywhere.values, first, np.inf))
