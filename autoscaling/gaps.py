"""Gaps of a trace, found, filled and not counted; and the load that the simulation makes of the whole."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from autoscaling.fleet import Load
from autoscaling.traces import DAY_S, MAX_COUNT, TraceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from autoscaling.traces import Trace

# A run of zeros that is longer than this, where at least so many images would have been expected, is a gap.
GAP_S = 60
EXPECTED = 20
# The traffic so far around a gap tells the traffic to be expected in it.
AROUND_S = 600
# A gap is filled with the same time of the first of these days that is known.
DAYS = (-1, 1, -7, 7, -2, 2)


@dataclass(frozen=True)
class Prepared:
    """The ``load`` of a trace, and its ``gaps``: (first second, seconds, how it was filled).

    ``dated``: the trace tells when it begins.
    """

    load: Load
    gaps: tuple[tuple[int, int, str], ...]
    dated: bool

    def at(self, second: int) -> str:
        """The time of a ``second`` of the trace, in words."""
        if not self.dated:
            return f"second {second:,} of the trace (day {second / DAY_S:.4g})"
        return f"{datetime.fromtimestamp(self.load.start + second, UTC):%Y-%m-%d %H:%M:%S} UTC"


def prepare(trace: Trace, scale: float = 1.0, smooth_s: int = 0, seed: int = 0, *, zeros: bool = False) -> Prepared:
    """The load of ``trace`` times ``scale``, its gaps filled and not counted. Raises TraceError.

    Steps longer than a second, and steps that were smoothed (a moving mean over ``smooth_s``), are taken for the mean
    rate of Poisson arrivals, drawn with ``seed``. ``zeros``: runs of zeros are traffic, not gaps.
    """
    counts = trace.counts
    missing = np.isnan(counts)
    runs = _runs(missing) + ([] if zeros else _silences(np.where(missing, 0.0, counts), missing, trace.step_s))
    known = ~missing
    for first, end in runs:
        known[first:end] = False
    if 2 * known.sum() < len(counts):
        raise TraceError(
            f"{len(counts) - known.sum()} of the trace's {len(counts)} steps are gaps; at most half may be. "
            "Runs of zeros are kept with --zeros"
        )
    filled, gaps = counts.copy(), []
    for first, end in sorted(runs):
        how = _fill(filled, known, first, end, trace.step_s)
        gaps.append((first * trace.step_s, (end - first) * trace.step_s, how))
    if smooth_s > trace.step_s:
        filled = _moving_mean(filled, max(1, round(smooth_s / trace.step_s)))
    highest = float(filled.max()) / trace.step_s * scale
    if highest > MAX_COUNT:
        raise TraceError(
            f"the trace times {scale:g} has {highest:g} images a second; at most {MAX_COUNT:g} are allowed"
        )
    rates = np.repeat(filled / trace.step_s * scale, trace.step_s)
    if trace.step_s > 1 or smooth_s > 1:
        rates = np.random.default_rng(seed).poisson(rates).astype(np.float64)
    return Prepared(
        Load(rates, np.repeat(known, trace.step_s), trace.start or 0.0), tuple(gaps), trace.start is not None
    )


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Runs of True in ``flags``: (first, end)."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]


def _silences(counts: NDArray[np.float64], missing: NDArray[np.bool_], step_s: int) -> list[tuple[int, int]]:
    """Runs of zeros beside traffic, or at an end of it, that are too long for chance: (first, end)."""
    around = max(1, AROUND_S // step_s)
    found = []
    for first, end in _runs((counts == 0) & ~missing):
        if (end - first) * step_s <= GAP_S:
            continue
        sides = [side for side in (counts[max(0, first - around) : first], counts[end : end + around]) if len(side)]
        if min((float(side.mean()) for side in sides), default=0.0) * (end - first) >= EXPECTED:
            found.append((first, end))
    return found


def _fill(counts: NDArray[np.float64], known: NDArray[np.bool_], first: int, end: int, step_s: int) -> str:
    """Fill ``counts`` from ``first`` to ``end`` in place; says how."""
    at = np.arange(first, end)
    for days in DAYS if DAY_S % step_s == 0 else ():
        there = at + days * (DAY_S // step_s)
        if there[0] >= 0 and there[-1] < len(counts) and known[there].all():
            counts[at] = counts[there]
            return f"the same time {abs(days)} day{'s' if abs(days) > 1 else ''} {'before' if days < 0 else 'after'}"
    around = max(1, AROUND_S // step_s)
    before, after = counts[max(0, first - around) : first], counts[end : end + around][known[end : end + around]]
    sides = [float(np.nanmean(side)) for side in (before, after) if len(side)]
    counts[at] = np.linspace(sides[0], sides[-1], len(at))
    return "a straight line"


def _moving_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """The mean of ``width`` values around each, of fewer at the ends."""
    summed = np.concatenate(([0.0], np.cumsum(values)))
    at = np.arange(len(values))
    low, high = np.maximum(at - width // 2, 0), np.minimum(at - width // 2 + width, len(values))
    means: NDArray[np.float64] = np.maximum(summed[high] - summed[low], 0.0) / (high - low)
    return means
