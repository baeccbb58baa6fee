"""Thresholds, and the one line that says which of them broke and by how much."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtests import profiles

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtests.samples import Summary

FILE = Path(__file__).with_name("thresholds.toml")
FIGURES = {
    "p50_ms": "median latency of right answers in ms",
    "p95_ms": "95th percentile of it",
    "p99_ms": "99th percentile of it",
    "p99_9_ms": "99.9th percentile of it",
    "p99_to_slo": "p99 as a share of the SLO",
    "goodput": "right answers within the SLO a second",
    "goodput_share": "right answers within the SLO, as a share of the images that were offered",
    "goodput_to_limit": "goodput as a share of the server's capacity",
    "limit": "the highest rate that holds the SLO, found or given, in requests a second",
    "failed_share": "wrong status, schema or label, or no answer, as a share of all of the run",
    "refused_share": "429 with Retry-After, as a share of all",
    "dropped_share": "sends that the generator could not make in time, as a share of all of the run",
    "recovery_s": "seconds from a phase's begin to its last late, refused or wrong answer",
    "ready_s": "seconds from a server's start until it called itself ready",
    "memory_growth_mb": "growth of the server's memory after warm-up in MB",
    "memory_growth_share": "the same as a share of what it was",
}


class ThresholdError(ValueError):
    """A file of thresholds that can't be used; the message quotes what is wrong."""


@dataclass(frozen=True)
class Threshold:
    """Bounds of one figure of FIGURES."""

    figure: str
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True)
class Finding:
    """One threshold and the figure that was measured; ``value`` is None where none was."""

    threshold: Threshold
    value: float | None

    @property
    def judged(self) -> bool:
        """Whether there was something to judge."""
        return self.value is not None

    @property
    def holds(self) -> bool:
        """Whether the figure is within its bounds, or was not measured."""
        return self._broken() is None

    def _broken(self) -> tuple[str, float] | None:
        low, high = self.threshold.min, self.threshold.max
        if self.value is None:
            return None
        if low is not None and not self.value >= low:
            return "min", low
        if high is not None and not self.value <= high:
            return "max", high
        return None

    def line(self) -> str:
        """In words."""
        bounds = " and ".join(
            f"at {word} {bound:g}"
            for word, bound in (("least", self.threshold.min), ("most", self.threshold.max))
            if bound is not None
        )
        name = self.threshold.figure
        if self.value is None:
            return f"{name} was not measured; it must be {bounds}"
        broken = self._broken()
        if broken is None:
            return f"{name} is {self.value:.4g}, {bounds} as it must be"
        bound = broken[1]
        by = f" ({abs(self.value / bound - 1):.1%} {'under' if broken[0] == 'min' else 'over'})" if bound else ""
        return f"{name} is {self.value:.4g}; it must be {bounds}{by}"

    def body(self) -> dict[str, Any]:
        """For JSON."""
        finite = self.value is not None and math.isfinite(self.value)
        bounds = {"min": self.threshold.min, "max": self.threshold.max}
        return {
            "figure": self.threshold.figure,
            "value": self.value if finite else None,
            **bounds,
            "holds": self.holds,
            "line": self.line(),
        }


def read(profile: str, file: Path = FILE) -> list[Threshold]:
    """The thresholds of a profile. Raises ThresholdError."""
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ThresholdError(f"{file}: {error}") from None
    known = ("all", *profiles.read())
    for table, figures in tables.items():
        if table not in known or not isinstance(figures, dict):
            raise ThresholdError(f"{file.name}: {table!r} is no table of thresholds; there are {', '.join(known)}")
        for figure, bounds in figures.items():
            where = f"{file.name}, [{table}]"
            if figure not in FIGURES:
                raise ThresholdError(f"{where}: there is no figure {figure!r}; there are {', '.join(FIGURES)}")
            if not isinstance(bounds, dict) or set(bounds) - {"min", "max"}:
                raise ThresholdError(f"{where}: {figure} = {bounds!r}; it takes {{ min = … }}, {{ max = … }} or both")
            if wrong := [value for value in bounds.values() if isinstance(value, bool) or not _number(value)]:
                raise ThresholdError(f"{where}: {figure} has the bound {wrong[0]!r}; it must be a number")
    merged = {**tables.get("all", {}), **tables.get(profile, {})}
    thresholds = [Threshold(figure, **bounds) for figure, bounds in merged.items() if bounds]
    if not thresholds:
        raise ThresholdError(
            f"{file.name} has no threshold for the profile {profile!r}; a run without any proves nothing"
        )
    return thresholds


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def figures(
    summary: Summary,
    *,
    total: Summary | None = None,
    recovery_s: float,
    capacity: float | None = None,
    memory: Mapping[str, Any] | None = None,
    ready_s: float | None = None,
) -> dict[str, float | None]:
    """FIGURES of a run, whose judged phase is ``summary`` and all of it ``total``; None is what was not measured.

    What failed or was dropped counts wherever it happened.
    """
    total = total or summary
    images = summary.planned - summary.rejected
    start, growth = (memory or {}).get("start_mb"), (memory or {}).get("growth_mb")
    return {
        **{name: getattr(summary, name) for name in ("p50_ms", "p95_ms", "p99_ms", "p99_9_ms", "goodput")},
        "p99_to_slo": summary.p99_ms / summary.slo_ms,
        "goodput_share": summary.goodput * summary.seconds / images if images else None,
        "goodput_to_limit": summary.goodput / capacity if capacity else None,
        "limit": capacity,
        "failed_share": total.failed / total.planned if total.planned else math.nan,
        "refused_share": summary.refused / summary.planned if summary.planned else math.nan,
        "dropped_share": total.dropped / total.planned if total.planned else math.nan,
        "recovery_s": recovery_s,
        "ready_s": ready_s,
        "memory_growth_mb": growth,
        "memory_growth_share": growth / start if growth is not None and start else None,
    }


def judge(thresholds: Sequence[Threshold], measured: Mapping[str, float | None]) -> list[Finding]:
    """Every threshold held against its figure. A figure that is NaN was to be measured and breaks its threshold."""
    return [Finding(threshold, measured[threshold.figure]) for threshold in thresholds]


def line(findings: Sequence[Finding]) -> str:
    """The verdict: what broke and by how much, or that all held, and what could not be judged."""
    broken = [finding.line() for finding in findings if not finding.holds]
    unknown = [finding.threshold.figure for finding in findings if not finding.judged]
    note = f" (not judged: {', '.join(unknown)})" if unknown else ""
    if broken:
        return f"FAILED: {'; '.join(broken)}{note}"
    return f"PASSED: all {sum(finding.judged for finding in findings)} thresholds hold{note}"
