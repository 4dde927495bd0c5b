"""A line under the tests that says how close the differential cases came."""

from __future__ import annotations

from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The number of cases, the largest error of each dtype as a share of what is allowed, and the rate."""
    cases = [
        (dict(report.user_properties), report)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        and dict(report.user_properties).get("share_of_what_is_allowed") is not None
    ]
    if not cases:
        return
    worst: dict[str, float] = {}
    for told, _ in cases:
        worst[told["dtype"]] = max(worst.get(told["dtype"], 0.0), told["share_of_what_is_allowed"])
    errors = ", ".join(f"{dtype} {share:.3f}" for dtype, share in sorted(worst.items()))
    moved, seconds = sum(told["moved"] for told, _ in cases), sum(report.duration for _, report in cases)
    terminalreporter.write_line(
        f"{len(cases)} differential cases in {seconds:.0f} s, {moved} of which move the answer; "
        f"largest error as a share of what is allowed: {errors}"
    )
