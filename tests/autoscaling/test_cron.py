"""Cron triggers are active when KEDA says so: expressions, time zones, clock changes."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling import cron
from autoscaling.cron import CronError


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def active(start: str, end: str, *times: str, zone: str = "UTC") -> list[bool]:
    return cron.active(start, end, zone, [at(time, zone) for time in times])


def days(expression: str, month: str = "2025-11") -> list[int]:
    first = at(f"{month}-01T00:00")
    fired = cron.firings(expression, "UTC", first - 1, first + 30 * 86400 - 1)
    return [datetime.fromtimestamp(one, UTC).day for one in fired]


def test_a_trigger_is_active_from_its_start_to_before_its_end() -> None:
    times = ("2025-11-24T07:59:59", "2025-11-24T08:00:00", "2025-11-24T17:59:59", "2025-11-24T18:00:00")
    assert active("0 8 * * *", "0 18 * * *", *times) == [False, True, True, False]


def test_it_may_go_over_midnight() -> None:
    times = ("2025-11-24T23:30", "2025-11-25T03:00", "2025-11-25T07:00", "2025-11-25T12:00")
    assert active("0 23 * * *", "0 6 * * *", *times) == [True, True, False, False]


def test_working_days_are_left_on_friday_and_begin_on_monday() -> None:
    times = ("2025-11-28T17:59", "2025-11-28T18:00", "2025-11-29T12:00", "2025-11-30T23:59", "2025-12-01T08:00")
    assert active("0 8 * * 1-5", "0 18 * * 1-5", *times) == [True, False, False, False, True]


def test_a_start_that_is_rarer_than_the_end_leaves_it_active() -> None:
    """KEDA asks which comes next: after Monday's end the next end is Tuesday's, before any start."""
    times = ("2025-11-24T07:00", "2025-11-24T12:00", "2025-11-24T20:00", "2025-11-26T12:00")
    assert active("0 8 * * MON", "0 18 * * 1-5", *times) == [False, True, True, True]


def test_start_and_end_at_once_are_active() -> None:
    assert active("0 8 * * *", "0 8 * * *", "2025-11-24T12:00") == [True]


def test_one_that_never_starts_again_is_active_until_its_end() -> None:
    # There is no 30 February: a start that never comes is after every end.
    assert active("0 0 30 2 *", "0 18 * * *", "2025-11-24T12:00") == [True]
    assert active("0 8 * * *", "0 0 30 2 *", "2025-11-24T12:00") == [False]
    # The next leap day is over two years away.
    assert active("0 0 29 2 *", "0 0 1 6 *", "2025-11-24T12:00", "2027-11-24T12:00") == [True, False]
    assert active("0 0 1 6 *", "0 0 29 2 *", "2025-11-24T12:00", "2027-11-24T12:00") == [False, True]


def test_the_firings_are_those_after_the_first_time_up_to_the_last() -> None:
    eight = [at(f"2025-11-{day}T08:00") for day in (24, 25, 26)]
    assert cron.firings("0 8 * * *", "UTC", eight[0], eight[2]) == eight[1:]
    assert cron.firings("0 8 * * *", "UTC", eight[0] - 1, eight[2] - 1) == eight[:2]


def test_times_may_come_in_any_order_and_far_apart() -> None:
    times = ("2025-11-24T12:00", "2025-01-01T03:00", "2025-06-01T09:00")
    assert active("0 8 * * *", "0 18 * * *", *times) == [True, False, True]
    assert cron.active("0 8 * * *", "0 18 * * *", "UTC", []) == []


def test_the_days_of_month_and_week_are_either_or() -> None:
    assert days("0 0 13 * *") == [13]
    assert days("0 0 * * FRI") == [7, 14, 21, 28]
    assert days("0 0 13 * FRI") == [7, 13, 14, 21, 28]
    # A step restricts, a star and a step of one do not.
    assert days("0 0 */10 * FRI") == [1, 7, 11, 14, 21, 28]
    assert days("0 0 */1 * FRI") == days("0 0 ? * FRI") == [7, 14, 21, 28]
    assert days("0 0 1-5/2,20 nov SUN,6") == [1, 2, 3, 5, 8, 9, 15, 16, 20, 22, 23, 29, 30]


def test_a_number_with_a_step_goes_to_the_end_of_its_range() -> None:
    assert cron.parse("10/20 * * * *").minutes == (10, 30, 50)
    assert cron.parse("0 20/2 * * *").hours == (20, 22)


def test_a_clock_change_leaves_times_out_and_repeats_others() -> None:
    def fired(expression: str, day: str) -> list[str]:
        first = at(f"{day}T00:00", "Europe/Berlin")
        return [
            datetime.fromtimestamp(one, UTC).strftime("%H:%M")
            for one in cron.firings(expression, "Europe/Berlin", first, first + 82800)
        ]

    assert fired("30 2 * * *", "2025-03-30") == []
    assert fired("30 3 * * *", "2025-03-30") == ["01:30"]
    assert fired("30 2 * * *", "2025-10-26") == ["00:30", "01:30"]


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("0 8 * *", "'0 8 * *' has 4 fields"),
        ("0 0 8 * * *", "has 6 fields"),
        ("60 8 * * *", "'60' is no minute; 0 to 59 are"),
        ("0 24 * * *", "'24' is no hour"),
        ("0 8 0 * *", "'0' is no day of the month; 1 to 31 are"),
        ("0 8 * 13 *", "'13' is no month"),
        ("0 8 * * 7", "'7' is no day of the week; 0 to 6 are"),
        ("0 8 * * 5-1", "'5-1' is no day of the week; 0 to 6 are, from low to high"),
        ("*/0 8 * * *", "'*/0' is no minute"),
        ("0 8 * * mo", "'mo' is no day of the week"),
        ("-1 8 * * *", "'-1' is no minute"),
        ("1,, 8 * * *", "'' is no minute"),
        ("@daily", "has 1 fields"),
        ("٣ 8 * * *", "is no minute"),
    ],
)
def test_a_bad_expression_is_quoted(expression: str, told: str) -> None:
    with pytest.raises(CronError) as error:
        cron.parse(expression)
    assert told in str(error.value)
    assert repr(expression) in str(error.value)


@pytest.mark.parametrize("name", ["Europe/Bonn", "", "../etc/passwd", "/etc", "UTC\0"])
def test_an_unknown_time_zone_is_quoted(name: str) -> None:
    with pytest.raises(CronError, match="is no time zone"):
        cron.zone(name)


def field(lowest: int, highest: int) -> st.SearchStrategy[str]:
    number = st.integers(lowest, highest)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    stepped = st.tuples(st.one_of(st.just("*"), span), st.integers(1, 9)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    return st.lists(st.one_of(st.just("*"), number.map(str), span, stepped), min_size=1, max_size=2).map(",".join)


EXPRESSIONS = st.tuples(field(0, 59), field(0, 23), field(1, 31), st.just("*"), field(0, 6)).map(" ".join)
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"])


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(EXPRESSIONS, EXPRESSIONS, ZONES, st.sampled_from(["2025-10-26", "2025-03-30", "2025-11-02", "2025-07-01"]))
def test_a_walk_minute_by_minute_comes_to_the_same(start: str, end: str, zone: str, day: str) -> None:
    """The rule as it is told, by brute force: does the next end come before the next start?"""
    where = ZoneInfo(zone)
    first = int(at(f"{day}T00:00"))
    walls = [datetime.fromtimestamp(first + 60 * minute, where) for minute in range(2 * 1440)]

    def fires(expression: str) -> list[bool]:
        schedule = cron.parse(expression)
        return [
            wall.minute in schedule.minutes and wall.hour in schedule.hours and schedule.on(wall.date())
            for wall in walls
        ]

    starts, ends = fires(start), fires(end)
    times = [first + 60 * minute for minute in range(0, 1440, 7)]
    answers = cron.active(start, end, zone, times)
    for time, answer in zip(times, answers, strict=True):
        later = range((time - first) // 60 + 1, 2 * 1440)
        decided = next((ends[minute] for minute in later if starts[minute] or ends[minute]), None)
        assert decided is None or answer is decided
