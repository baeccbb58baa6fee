"""Bursts at the same time of each half hour, hour or day, as KEDA's cron triggers.

A schedule is learned from the images for which a plain autoscaler is late. They are folded by the phase of a period.
If few minutes of the period hold most of them, pods are wanted before those minutes. ``shaken`` is the control: each
day is moved by some minutes, so a schedule that follows the clock gains nothing there.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from autoscaling.fleet import Fleet, Load, course
from autoscaling.hpa import Autoscaler, Cron

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

DAY = 1440
# The periods to try, in minutes, shortest first.
PERIODS = (30, 60, DAY)
# A phase is found where at most so much of a period holds at least so much of what is late, at so many times at least.
NARROW, MOST, OFTEN = 0.2, 0.5, 5


@dataclass(frozen=True)
class Burst:
    """Minutes ``first`` to ``last`` of each ``period`` minutes, counted from midnight UTC, and the pods they need.

    ``pods``: the median, the 90th percentile and up to two more, over the times at which a plain autoscaler was late.
    """

    period: int
    first: int
    last: int
    pods: tuple[int, ...]


@dataclass(frozen=True)
class Minutes:
    """A run by minute of the clock: ``offset`` is its first minute of the day, the other fields are float64[n]."""

    offset: int
    late: NDArray[np.float64]
    needed: NDArray[np.float64]


def minutes(load: Load, autoscaler: Autoscaler, fleet: Fleet, begin: int, end: int) -> Minutes:
    """Late images of ``autoscaler``, and pods for the fullest 5 seconds, in each minute of the span."""
    begin += int(-(load.start + begin) % 60)
    end -= (end - begin) % 60
    late = course(load, autoscaler, fleet, begin, end).late * load.counted[begin:end]
    fives = load.offered[begin:end].reshape(-1, 12, 5).mean(2).max(1)
    offset = int((load.start + begin) // 60 % DAY)
    return Minutes(offset, late.reshape(-1, 60).sum(1), np.ceil(fives / fleet.rate))


def bursts(run: Minutes) -> list[Burst]:
    """The phases at which ``run`` is late, of the shortest period that explains as much as a longer one."""
    total = float(run.late.sum())
    if total <= 0:
        return []
    found: list[Burst] = []
    held = narrow = 0.0
    for period in PERIODS:
        phase = (run.offset + np.arange(len(run.late))) % period
        if len(run.late) < 3 * period:
            break
        folded: NDArray[np.float64] = np.bincount(phase, run.late, period) / total
        rising = np.argsort(-folded, kind="stable")
        count = int(np.searchsorted(np.cumsum(folded[rising]), 0.8)) + 1
        hot = np.zeros(period, np.bool_)
        hot[rising[: max(1, min(count, int(period * NARROW)))]] = True
        hot &= (folded > 3 / period) & (np.bincount(phase[run.late > 0], minlength=period) >= OFTEN)
        share, width = float(folded[hot].sum()), float(hot.mean())
        # A burst of each hour also shows at the period of a half hour, but in every second one.
        if share >= MOST and (not found or (width < 0.6 * narrow and share > 0.95 * held)):
            found = [_burst(run, phase, period, first, last) for first, last in _runs(hot)]
            held, narrow = share, width
    return found


def _burst(run: Minutes, phase: NDArray[np.int64], period: int, first: int, last: int) -> Burst:
    inside = (phase >= first) & (phase <= last) & (run.late > 0)
    needed = run.needed[inside]
    middle, most = (int(np.ceil(np.quantile(needed, share))) for share in (0.5, 0.9))
    return Burst(period, first, last, tuple(dict.fromkeys((middle, most, most + 1, most + 2))))


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return [(int(first), int(end) - 1) for first, end in edges.reshape(-1, 2)]


def windows(burst: Burst, lead: int, hold: int, pods: int) -> dict[int, tuple[int, int]]:
    """For each time of the day at which ``burst`` may come: its start, and (length, pods), in minutes from midnight."""
    length = burst.last - burst.first + 1 + lead + hold
    return {(burst.first - lead + number * burst.period) % DAY: (length, pods) for number in range(DAY // burst.period)}


def by_worth(run: Minutes, wanted: dict[int, tuple[int, int]], period: int) -> list[int]:
    """The starts of ``wanted``, ordered by the late images a pod in ``run``, most first.

    A fortnight has few of each time of the day, so a quarter of the late images of the neighbouring periods counts too.
    """
    once = np.bincount((run.offset + np.arange(len(run.late))) % DAY, run.late, DAY)
    folded: NDArray[np.float64] = once + (np.roll(once, period) + np.roll(once, -period)) / 4
    worth = {
        start: sum(folded[(start + minute) % DAY] for minute in range(length)) / (length * pods)
        for start, (length, pods) in wanted.items()
    }
    return sorted(wanted, key=lambda start: (-worth[start], start))


def triggers(wanted: dict[int, tuple[int, int]]) -> tuple[Cron, ...]:
    """``wanted`` (start minute of the day: length, pods) as the fewest cron triggers, in UTC."""
    kinds: dict[tuple[int, int], dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for start, (length, pods) in wanted.items():
        kinds[length, pods][start % 60].add(start // 60)
    found = []
    for (length, pods), starts in kinds.items():
        together: dict[tuple[int, frozenset[int]], list[int]] = defaultdict(list)
        for minute, hours in starts.items():
            # Only windows that end equally many hours later can share a trigger.
            together[(minute + length) // 60, frozenset(hours)].append(minute)
        for (later, of_day), at in together.items():
            ends = [(minute + length) % 60 for minute in at]
            gone = {(hour + later) % 24 for hour in of_day}
            begins = f"{_list(at)} {_hours(of_day)} * * *"
            found.append(Cron(begins, f"{_list(ends)} {_hours(gone)} * * *", pods))
    return tuple(sorted(found, key=lambda one: (one.start, one.end, one.replicas)))


def _list(numbers: Iterable[int]) -> str:
    return ",".join(map(str, sorted(numbers)))


def _hours(hours: Iterable[int]) -> str:
    listed = sorted(hours)
    return "*" if len(listed) == 24 else _list(listed)


def of_day(load: Load, fleet: Fleet, begin: int, end: int, share: float, block: int = 30) -> tuple[Cron, ...]:
    """Pods by the time of day that suffice on ``share`` of the days, in blocks of ``block`` minutes."""
    begin += int(-(load.start + begin) % 60)
    end -= (end - begin) % (60 * block)
    means = load.offered[begin:end].reshape(-1, 60).mean(1)
    offset = int((load.start + begin) // 60 % DAY)
    slot = (offset + np.arange(len(means))) % DAY // block
    pods = [
        int(np.ceil(np.quantile(means[slot == one], share) / fleet.rate)) if (slot == one).any() else 0
        for one in range(DAY // block)
    ]
    wanted: dict[int, tuple[int, int]] = {}
    for place, count in enumerate(pods):
        before = max(wanted, default=None)
        if before is not None and wanted[before][1] == count:
            wanted[before] = (wanted[before][0] + block, count)
        elif count > 1:
            wanted[place * block] = (block, count)
        elif before is not None:
            wanted[place * block] = (block, 0)
    # A trigger that is always active has no end; the smallest size says that.
    return triggers({start: one for start, one in wanted.items() if one[1] > 1 and one[0] < DAY})


def shaken(load: Load, seed: int, period: int) -> Load:
    """The control: ``load`` with each day rotated by 1 to ``period`` - 1 minutes, at random."""
    random = np.random.default_rng(seed)
    offered, counted = load.offered.copy(), load.counted.copy()
    for first in range(0, len(load), 86400):
        by = 60 * int(random.integers(1, period))
        offered[first : first + 86400] = np.roll(offered[first : first + 86400], by)
        counted[first : first + 86400] = np.roll(counted[first : first + 86400], by)
    return Load(offered, counted, load.start)
