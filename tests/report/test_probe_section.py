"""The section of probes: what a transfer to another task comes to, in words and as maps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import xarray as xr

from interp import language
from interp.report.blocks import Facts, Figure
from interp.report.inputs import Result
from interp.report.sections import probe
from interp.report.verdict import Verdict

ENTRIES = ["one -> other", "other -> one"]


def result() -> Result:
    """Two layers and two roles: the colour is read across tasks after layer 1, one way only."""
    dims = ("transfer", "site", "layer", "role")
    p_values, accuracy = np.ones((2, 1, 2, 2)), np.full((2, 1, 2, 2), 0.1)
    p_values[0, 0, 1, 0], accuracy[0, 0, 1, 0] = 0.01, 0.9
    p_values[1, 0, 1, 0], accuracy[1, 0, 1, 0] = 0.01, 0.05  # surely below chance: nothing is read
    folds = ("site", "layer", "role", "fold")
    data = {name: (folds, np.full((1, 2, 2, 2), 0.5)) for name in ("accuracy", "control_accuracy", "selectivity")}
    data |= {"transfer_accuracy": (dims, accuracy), "transfer_p_value": (dims, p_values)}
    data |= {
        "transfer_accuracy_interval": ((*dims, "ci_bound"), np.stack([accuracy - 0.01, accuracy + 0.01], -1)),
        "transfer_chance": (("transfer",), np.array([0.1, 0.1])),
    }
    named: dict[str, Any] = {
        name: (of, values, {"units": "share", "long_name": name}) for name, (of, values) in data.items()
    }
    coords = {
        "site": ["resid_pre"],
        "layer": [0, 1],
        "role": ["color", "noun"],
        "fold": [0, 1],
        "transfer": ENTRIES,
        "ci_bound": ["lower", "upper"],
    }
    attrs = {"question": "Where?", "reading": "", "source": "", "n_features": 2, "classifier_role": "noun"}
    return Result("probing", xr.Dataset(named, coords=coords, attrs=attrs))


def test_where_a_probe_of_one_task_reads_another_is_said_of_each_way() -> None:
    section = probe.section(result(), cast(Verdict, SimpleNamespace(marks=dict)))
    (facts,) = (block for block in section.blocks if isinstance(block, Facts))
    said = dict(facts.items)
    assert said["one → other:"] == "at 1 of 4 places the probe is above chance with a p of at most 0.05, at color."
    assert said["other → one:"] == "at none of 4 places is the probe above chance with a p of at most 0.05."
    (crossed,) = (
        block for block in section.blocks if isinstance(block, Figure) and block.key.endswith("transfer_accuracy")
    )
    assert len(crossed.panels) == 2
    assert {"low", "high"} <= {column.name for column in crossed.tables[0].columns}
    with language.speaking("es"):
        spanish = probe.section(result(), cast(Verdict, SimpleNamespace(marks=dict)))
    (facts,) = (block for block in spanish.blocks if isinstance(block, Facts))
    assert "por encima del azar" in dict(facts.items)["one → other:"]
