"""When a KEDA cron trigger is active: five-field cron expressions in a time zone.

The expressions are those that KEDA's parser takes (robfig/cron v3, without the seconds): minute, hour, day of the
month, month, day of the week. Each is ``*``, ``?``, a number, a name (JAN, MON), a range, a step, or a list of these.
Sunday is 0, and 7 is none. Where both days are restricted, either is enough; ``*/2`` restricts, ``*`` does not.
"""

from __future__ import annotations

import bisect
import functools
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
# Name, lowest, highest, and the names of its numbers from the lowest on.
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 6, _DAYS),
)
_DAY_S = 86400
# The parser itself looks no further for the next time.
_HORIZON_DAYS = 5 * 366


class CronError(ValueError):
    """A cron expression or a time zone that can't be read; the message quotes it."""


@dataclass(frozen=True)
class Schedule:
    """A cron expression as the numbers that each field allows; ``either``: one of both days is enough."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool

    def on(self, day: date) -> bool:
        """Whether it fires on ``day`` at any time."""
        weekday = day.isoweekday() % 7 in self.weekdays
        month_day = day.day in self.days
        return day.month in self.months and ((month_day or weekday) if self.either else (month_day and weekday))


@functools.lru_cache(maxsize=1024)
def parse(expression: str) -> Schedule:
    """The schedule of ``expression``. Raises CronError."""
    words, shown = expression.split(), expression[:60]
    if len(words) != len(_FIELDS):
        raise CronError(f"{shown!r} has {len(words)} fields; minute, hour, day, month, weekday are five")
    allowed = [_numbers(word, field, shown) for word, field in zip(words, _FIELDS, strict=True)]
    free = [any(part.removesuffix("/1") in ("*", "?") for part in word.split(",")) for word in words]
    return Schedule(
        tuple(sorted(allowed[0])),
        tuple(sorted(allowed[1])),
        frozenset(allowed[2]),
        frozenset(allowed[3]),
        frozenset(allowed[4]),
        not free[2] and not free[4],
    )


def _numbers(word: str, field: tuple[str, int, int, tuple[str, ...]], shown: str) -> set[int]:
    """The numbers that one field allows; ``shown``: the expression, as a message quotes it."""
    name, lowest, highest, names = field
    found: set[int] = set()
    for part in word.split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        try:
            if span in ("*", "?"):
                start, stop = lowest, highest
            else:
                start = _number(first, lowest, names)
                stop = _number(last, lowest, names) if dash else (highest if step else start)
            stride = _number(step, lowest, ()) if "/" in part else 1
        except ValueError:
            raise CronError(f"{shown!r}: {part[:40]!r} is no {name}") from None
        if not (lowest <= start <= stop <= highest and stride >= 1):
            raise CronError(f"{shown!r}: {part[:40]!r} is no {name}; {lowest} to {highest} are, from low to high")
        found |= set(range(start, stop + 1, stride))
    return found


def _number(text: str, lowest: int, names: Sequence[str]) -> int:
    if text.lower() in names:
        return lowest + names.index(text.lower())
    if not text.isascii() or not text.isdigit():
        raise ValueError(text)
    return int(text)


@functools.lru_cache(maxsize=64)
def zone(name: str) -> ZoneInfo:
    """The time zone called ``name``. Raises CronError."""
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        raise CronError(f"{name[:60]!r} is no time zone that this system knows; such as UTC or Europe/Berlin") from None


def firings(expression: str, timezone: str, start: float, stop: float) -> list[float]:
    """The times after ``start`` up to ``stop`` at which ``expression`` fires, in Unix seconds, rising.

    A time of day that a clock change skips does not fire; a time that it repeats fires twice. Raises CronError.
    """
    schedule, where = parse(expression), zone(timezone)
    day, end = (datetime.fromtimestamp(at, where).date() for at in (start, stop))
    found: set[float] = set()
    while day <= end:
        if schedule.on(day):
            found |= _times(schedule, day, where)
        day += timedelta(days=1)
    return sorted(at for at in found if start < at <= stop)


def _times(schedule: Schedule, day: date, where: ZoneInfo) -> set[float]:
    found = set()
    for hour in schedule.hours:
        for minute in schedule.minutes:
            for fold in (0, 1):
                wall = datetime(day.year, day.month, day.day, hour, minute, tzinfo=where, fold=fold)
                # Through UTC and back: a time that the clocks skip comes back as another time.
                if wall.astimezone(UTC).astimezone(where).replace(tzinfo=None) == wall.replace(tzinfo=None):
                    found.add(wall.timestamp())
    return found


def active(start: str, end: str, timezone: str, times: Sequence[float]) -> list[bool]:
    """Whether a trigger from ``start`` to ``end`` is active at each of ``times``, Unix seconds in any order.

    KEDA's rule (pkg/scalers/cron_scaler.go): a trigger is active while its next end comes before its next start, or
    with it. So it is active from the second of ``start`` until just before the second of ``end``. With a start on
    Mondays and an end on each weekday it is active all week, except on a Monday before its start. Raises CronError.
    """
    if not len(times):
        return []
    starts = _ahead(start, timezone, min(times), max(times))
    ends = _ahead(end, timezone, min(times), max(times))
    return [_next(ends, now) <= _next(starts, now) for now in times]


def _next(rising: Sequence[float], now: float) -> float:
    place = bisect.bisect_right(rising, now)
    return rising[place] if place < len(rising) else float("inf")


@functools.lru_cache(maxsize=256)
def _after(expression: str, timezone: str, day: int) -> tuple[float, ...]:
    """The firings from Unix day ``day`` on, through at least two days and until there is one after them."""
    start = day * _DAY_S - 1
    for days in (2, 9, 33, 368, _HORIZON_DAYS):
        found = firings(expression, timezone, start, start + days * _DAY_S)
        if found and found[-1] > start + _DAY_S:
            return tuple(found)
    return tuple(found)


def _ahead(expression: str, timezone: str, first: float, last: float) -> Sequence[float]:
    """The firings from ``first`` until one that is after ``last``, if there is one within five years."""
    if last - first < _DAY_S:
        today = _after(expression, timezone, int(first // _DAY_S))
        if today and today[-1] > last:
            return today
    between = firings(expression, timezone, first, last)
    return [*between, *(at for at in _after(expression, timezone, int(last // _DAY_S)) if at > last)]
