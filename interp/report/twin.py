"""``report.json``: what the page concludes, for programs."""

from __future__ import annotations

import json
import math
from typing import Any

from interp import language
from interp.report import verdict
from interp.report.inputs import RunInputs
from interp.report.sections import provenance

SCHEMA = 1


def text(run: RunInputs) -> str:
    """The verdict, the baselines of every rung, the head table and the provenance, as JSON. NaN becomes null."""
    found = verdict.of(run)
    shared, own = provenance.shared_attrs(run)
    record = {
        "schema": SCHEMA,
        "verdict": {
            "answer": found.answer,
            "gate": "passed" if found.passed else "failed",
            "reason": found.reason,
            "rung": found.rung,
        },
        "baselines": _baselines(run),
        "heads": _heads(found) if found.passed else [],
        "provenance": {
            "command": provenance.command_text(run),
            "shared": shared,
            "files": own,
            "manifest": {
                key: value
                for key, value in run.manifest.items()
                if key not in {"command", "timings", *provenance.AFTER_THE_PAGE}
            },
            "timings_s": provenance.timings(run),
            "study": dict(run.study),
        },
    }
    return json.dumps(_plain(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _baselines(run: RunInputs) -> list[dict[str, Any]]:
    behavior = run.get("behavior")
    if behavior is None:
        return []
    names = [
        str(name)
        for name, array in behavior.data.data_vars.items()
        if array.dims == ("rung",) and not language.translated(str(name))
    ]
    names += [str(name) for name, array in behavior.data.coords.items() if array.dims == ("rung",) and name != "rung"]
    intervals = [
        str(name) for name, array in behavior.data.data_vars.items() if set(array.dims) == {"rung", "ci_bound"}
    ]
    rows = []
    for i, rung in enumerate(behavior.labels("rung")):
        row: dict[str, Any] = {"rung": rung}
        row.update({name: behavior.data[name].values[i].item() for name in names})
        row.update({name: behavior.need(name, "rung", "ci_bound").values[i].tolist() for name in intervals})
        row["passes"] = bool(row["passes"]) if "passes" in row else None
        rows.append(row)
    return rows


def _heads(found: verdict.Verdict) -> list[dict[str, Any]]:
    rows = []
    for i, head in enumerate(found.heads):
        values = {
            column.name: {
                "value": column.values[i],
                "low": column.low[i],
                "high": column.high[i],
                "units": column.units,
            }
            if column.numeric
            else {"value": column.values[i]}
            for column in found.columns
        }
        rows.append({"head": head, "label": found.labels[i], "values": values})
    return rows


def _plain(value: Any) -> Any:
    """The value with NaN and infinities as null and anything JSON does not know as text."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) else str(value)
