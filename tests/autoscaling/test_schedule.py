"""Phases found in what a plain autoscaler is late for, as cron triggers; and the control that takes them away."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling import schedule
from autoscaling.fleet import Fleet, Load
from autoscaling.hpa import Autoscaler, Offered, Policy, Rules
from autoscaling.schedule import Burst, bursts, by_worth, minutes, of_day, shaken, triggers, windows

FLEET = Fleet(rate=100)
LEAN = Autoscaler(1, 30, (Offered(85),), Rules((Policy("Pods", 30, 15),), 0, "Max", 0.0),
                  Rules((Policy("Percent", 100, 15),), 0, "Max", 0.1))  # fmt: skip


def bursty(days: int = 2, every: int = 3600, at: int = 1200, start: float = 1_699_920_000.0) -> Load:
    """200 images/s, and 900 for three minutes at second ``at`` of each ``every`` seconds."""
    second = np.arange(days * 86400)
    mean = np.where((second % every >= at) & (second % every < at + 180), 900, 200)
    return Load(np.random.default_rng(0).poisson(mean).astype(np.float64), np.ones(len(second), np.bool_), start)


def test_a_burst_of_each_hour_is_found_with_its_minute_and_its_size() -> None:
    load = bursty()
    (found,) = bursts(minutes(load, LEAN, FLEET, 3600, len(load)))
    assert (found.period, found.first) == (60, 20)
    assert 9 <= found.pods[0] <= 10


def test_a_burst_of_each_half_hour_is_found_at_the_shorter_period() -> None:
    load = bursty(every=1800, at=600)
    (found,) = bursts(minutes(load, LEAN, FLEET, 3600, len(load)))
    assert (found.period, found.first) == (30, 10)


def test_bursts_at_random_have_no_phase() -> None:
    random = np.random.default_rng(1)
    offered = np.full(2 * 86400, 200.0)
    for first in random.integers(0, len(offered) - 200, 48):
        offered[first : first + 180] = 900
    load = Load(offered, np.ones(len(offered), np.bool_), 1_699_920_000.0)
    assert [one for one in bursts(minutes(load, LEAN, FLEET, 3600, len(load))) if one.period < 1440] == []


def test_the_control_takes_the_phase_away_and_keeps_all_else() -> None:
    load = bursty(days=12)
    control = shaken(load, 3, 60)
    assert control.offered.sum() == load.offered.sum() and (control.offered != load.offered).any()
    found = bursts(minutes(control, LEAN, FLEET, 3600, len(load)))
    assert not any(one.period == 60 and one.first == 20 for one in found)
    assert (shaken(load, 3, 60).offered == control.offered).all()


@given(st.dictionaries(st.integers(0, 1439), st.tuples(st.integers(1, 90), st.integers(2, 9)), min_size=1, max_size=12))
@settings(deadline=None, max_examples=60)
def test_triggers_want_what_the_windows_say(wanted: dict[int, tuple[int, int]]) -> None:
    starts = sorted(wanted)
    # Windows that overlap are the other test's.
    kept = {
        start: wanted[start]
        for start, following in zip(starts, [*starts[1:], starts[0] + 1440], strict=True)
        if start + wanted[start][0] < following
    }
    load = Load(np.zeros(86400), np.ones(86400, np.bool_), 1_699_920_000.0)
    expected = np.zeros(1440, int)
    for start, (length, pods) in kept.items():
        expected[(start + np.arange(length)) % 1440] = pods
    got = load.scheduled(triggers(kept))
    assert (got[:1440] if len(got) else np.zeros(1440)).tolist() == expected.tolist()


def test_windows_of_every_half_hour_are_one_trigger() -> None:
    (one,) = triggers(windows(Burst(30, 2, 3, (17,)), 1, 0, 17))
    assert (one.start, one.end, one.replicas) == ("1,31 * * * *", "4,34 * * * *", 17)


def test_windows_are_ordered_by_what_was_late_in_them() -> None:
    late = np.zeros(1440)
    late[[61, 62, 700]] = [50, 50, 10]
    run = schedule.Minutes(0, late, np.zeros(1440))
    assert by_worth(run, {60: (3, 5), 699: (3, 5), 1000: (3, 5)}, 30) == [60, 699, 1000]


def test_pods_by_the_time_of_day_follow_the_quantile() -> None:
    second = np.arange(3 * 86400)
    offered = np.where((second % 86400 >= 8 * 3600) & (second % 86400 < 20 * 3600), 950.0, 150.0)
    load = Load(offered, np.ones(len(offered), np.bool_), 1_699_920_000.0)
    day = load.scheduled(of_day(load, FLEET, 0, len(offered), 0.5))[:1440]
    assert set(day[8 * 60 : 20 * 60]) == {10} and set(day[: 8 * 60]) == {2}


def test_a_load_that_never_is_late_has_no_phase() -> None:
    load = Load(np.full(86400, 50.0), np.ones(86400, np.bool_))
    assert bursts(minutes(load, LEAN, FLEET, 3600, len(load))) == []
