"""An autoscaler's decisions, sync by sync: what a KEDA ScaledObject or an HPA does under a load."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling.hpa import (
    SYNC_S,
    UP_DEFAULT,
    Autoscaler,
    Before,
    Cpu,
    Cron,
    Decision,
    GpuMemory,
    Offered,
    Policy,
    Queue,
    Rules,
    State,
    Trigger,
    decide,
    milli,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Monday, 24 November 2025, 00:00 UTC
MONDAY = 1763942400
QUICK = Rules((Policy("Percent", 900, 15),), 0, tolerance=0.0)
SLOW = Rules((Policy("Percent", 100, 15),), 60, tolerance=0.0)


def one(trigger: Trigger, value: float | None, replicas: int, ready: int | None = None, **rules: Any) -> Decision:
    autoscaler = Autoscaler(1, 100, (trigger,), **({"up": QUICK, "down": SLOW} | rules))
    return decide(autoscaler, State(replicas, replicas if ready is None else ready), [value], MONDAY)


def run(
    autoscaler: Autoscaler, load: Callable[[float], Sequence[float | None]], seconds: int, replicas: int = 1
) -> list[int]:
    """The sizes that each sync of ``seconds`` asks for, if pods are ready at once."""
    state, sizes = State(replicas, replicas), []
    for now in range(MONDAY, MONDAY + seconds, SYNC_S):
        decision = decide(autoscaler, state, load(now), now)
        state = State(decision.replicas, decision.replicas, decision.history)
        sizes.append(decision.replicas)
    return sizes


def test_the_offered_rate_asks_for_what_it_needs() -> None:
    assert one(Offered(100), 951, 4).replicas == 10
    assert one(Offered(100), 400, 4).replicas == 4
    assert one(Offered(100), 401, 4).replicas == 5


def test_values_and_targets_are_cut_to_thousandths() -> None:
    assert one(Offered(100), 400.0009, 4).replicas == 4
    assert one(Offered(100), 400.001, 4).replicas == 5
    assert one(Offered(100.0009), 400.003, 4).replicas == 5
    assert (milli(1.2345), milli(2)) == (1234, 2000)


@pytest.mark.parametrize("trigger", [Offered(50), Queue(50), GpuMemory(50), Before(50, 86400)])
def test_each_average_is_counted_alike(trigger: Trigger) -> None:
    assert one(trigger, 220, 3).replicas == 5


def test_a_cron_trigger_goes_through_the_tolerance() -> None:
    """20 wanted of 19 does nothing at 10 %: the trap of KEDA's cron trigger."""
    hours = Cron("0 0 * * *", "0 1 * * *", 20)
    assert one(hours, None, 19, up=UP_DEFAULT).replicas == 19
    assert one(hours, None, 18, up=UP_DEFAULT).replicas == 20  # 1.11
    assert one(hours, None, 19).replicas == 20  # without a tolerance


def test_a_cron_trigger_asks_for_one_pod_outside_its_hours() -> None:
    autoscaler = Autoscaler(0, 100, (Cron("0 8 * * *", "0 9 * * *", 7), Offered(100)), QUICK, SLOW)
    assert decide(autoscaler, State(3, 3), [None, 150.0], MONDAY).proposal == 2
    assert decide(autoscaler, State(3, 3), [None, 10.0], MONDAY).proposal == 1
    assert decide(autoscaler, State(3, 3), [None, 150.0], MONDAY + 8 * 3600).proposal == 7


def test_pods_that_are_not_ready_dampen_cpu_and_nothing_else() -> None:
    # 90 % of 50 on two ready pods of four: 45 % of all, which would be going down.
    assert one(Cpu(50), 90, 4, ready=2).replicas == 4
    assert one(Cpu(50), 90, 4, ready=4).replicas == 8
    assert one(Cpu(50), 90, 4, ready=3).replicas == 6  # 67 % of 50
    assert one(Offered(50), 360, 4, ready=2).replicas == one(Offered(50), 360, 4).replicas == 8


def test_cpu_is_cut_to_a_whole_per_cent() -> None:
    assert one(Cpu(70), 70.99, 4).replicas == 4
    assert one(Cpu(70), 71, 4).replicas == 5


def test_cpu_without_a_ready_pod_cannot_be_told() -> None:
    assert one(Cpu(50), 90, 4, ready=0).reason == "FailedGetResourceMetric"
    assert one(Cpu(50), 0, 4, ready=4).proposal == 0


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
@pytest.mark.parametrize(
    ("trigger", "reason"), [(Offered(50), "FailedGetExternalMetric"), (Cpu(50), "FailedGetResourceMetric")]
)
def test_a_query_that_failed_changes_nothing(trigger: Trigger, reason: str, value: float | None) -> None:
    decision = one(trigger, value, 4)
    assert (decision.replicas, decision.reason) == (4, reason)


def test_one_query_that_failed_forbids_going_down() -> None:
    autoscaler = Autoscaler(1, 100, (Offered(100), Queue(50)), QUICK, SLOW)
    assert decide(autoscaler, State(4, 4), [100.0, None], MONDAY).replicas == 4
    assert decide(autoscaler, State(4, 4), [900.0, None], MONDAY).replicas == 9


def test_a_number_of_values_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        decide(Autoscaler(1, 9, (Offered(1),)), State(1, 1), [], 0)


def test_the_defaults_double_every_quarter_minute_and_wait_five_minutes_to_go_down() -> None:
    autoscaler = Autoscaler(1, 100, (Offered(100),))
    sizes = run(autoscaler, lambda now: [5000.0 if now < MONDAY + 600 else 100.0], 1200)
    assert sizes[:6] == [5, 10, 20, 40, 50, 50]
    down = sizes.index(1, 10)
    # The last recommendation of 50 was at 585 s.
    assert (sizes[down - 1], down * SYNC_S) == (50, 585 + 300)


def test_a_day_of_load_is_followed() -> None:
    autoscaler = Autoscaler(2, 30, (Offered(100),), QUICK, SLOW)
    load = [1500 - 1400 * math.cos((now - MONDAY) / 86400 * 2 * math.pi) for now in range(MONDAY, MONDAY + 86400, 15)]
    sizes = run(autoscaler, lambda now: [load[int(now - MONDAY) // 15]], 86400, 2)
    assert max(sizes) == 29
    assert all(100 * size >= rate for size, rate in zip(sizes, load, strict=True))
    assert sum(sizes) * 100 < 1.05 * sum(load)


def test_keda_starts_the_first_pod_and_stops_the_last() -> None:
    autoscaler = Autoscaler(0, 10, (Offered(100),), QUICK, SLOW)
    busy = (MONDAY + 60, MONDAY + 120)
    sizes = run(autoscaler, lambda now: [250.0 if busy[0] <= now < busy[1] else 0.0], 900, 0)
    assert sizes[:6] == [0, 0, 0, 0, 1, 3]
    # Within the HPA's window the size stays; then one pod waits for the cooldown after the last load, at 105 s.
    stopped = sizes.index(0, 8)
    assert sizes[stopped - 1] == 1
    assert stopped * SYNC_S == 105 + 300 + SYNC_S
    assert set(sizes[stopped:]) == {0}


def test_no_pod_is_stopped_while_a_query_fails_or_a_cron_trigger_is_active() -> None:
    failing = Autoscaler(0, 10, (Offered(100), Queue(50)), QUICK, SLOW)
    assert decide(failing, State(1, 1), [0.0, None], MONDAY).replicas == 1
    assert decide(failing, State(1, 1), [0.0, 0.0], MONDAY).replicas == 0
    assert decide(failing, State(0, 0), [0.0, None], MONDAY).replicas == 0
    assert decide(failing, State(0, 0), [None, 1.0], MONDAY).replicas == 1
    hours = Autoscaler(0, 10, (Offered(100), Cron("0 0 * * *", "0 1 * * *", 3)), QUICK, SLOW)
    assert decide(hours, State(0, 0), [0.0, None], MONDAY).replicas == 1
    assert decide(hours, State(1, 1), [0.0, None], MONDAY).replicas == 3
    assert decide(hours, State(1, 1), [0.0, None], MONDAY + 3600).replicas == 0


def test_cpu_never_starts_a_first_pod() -> None:
    autoscaler = Autoscaler(0, 10, (Offered(100), Cpu(50)), QUICK, SLOW)
    idle = decide(autoscaler, State(0, 0), [0.0, 90.0], MONDAY)
    assert (idle.replicas, idle.reason) == (0, "Idle")
    first = decide(autoscaler, State(0, 0), [0.001, 0.0], MONDAY)
    assert (first.replicas, first.reason) == (1, "Activated")


@pytest.mark.parametrize(("lowest", "highest"), [(3, 2), (-1, 2), (0, 0)])
def test_bounds_without_a_size_in_them_are_refused(lowest: int, highest: int) -> None:
    with pytest.raises(ValueError, match=f"{lowest} to {highest} pods is no range"):
        Autoscaler(lowest, highest, (Offered(1),))


def test_the_narrowest_bounds_and_targets_are_taken() -> None:
    assert [Autoscaler(*bounds, (Offered(0.001), Cpu(1))).maximum for bounds in ((0, 1), (1, 1), (3, 3))] == [1, 1, 3]


def test_the_defaults_are_those_of_the_manifests() -> None:
    assert (Offered(1).window_s, Before(1, 2).window_s, Autoscaler(0, 1, ()).cooldown_s) == (60, 300, 300)


@pytest.mark.parametrize("trigger", [Offered(0), Queue(0.0001), Cpu(0), GpuMemory(-1), Before(0, 1)])
def test_a_target_of_nothing_is_refused(trigger: Trigger) -> None:
    with pytest.raises(ValueError, match=r"a target is 0\.001 or more"):
        Autoscaler(1, 2, (trigger,))


POLICIES = st.lists(
    st.builds(Policy, st.sampled_from(["Pods", "Percent"]), st.integers(1, 200), st.integers(1, 120)),
    min_size=1,
    max_size=3,
).map(tuple)
RULES = st.builds(Rules, POLICIES, st.integers(0, 120), st.sampled_from(["Max", "Min", "Disabled"]), st.floats(0, 0.5))
TRIGGERS = st.one_of(
    st.builds(Offered, st.floats(1, 200)),
    st.builds(Cpu, st.integers(1, 100)),
    st.builds(Queue, st.floats(1, 100)),
    st.just(Cron("*/7 * * * *", "3-59/7 * * * *", 6)),
)
AUTOSCALERS = st.builds(
    lambda lowest, more, triggers, up, down: Autoscaler(lowest, lowest + more, tuple(triggers), up, down),
    st.integers(1, 10),
    st.integers(0, 40),
    st.lists(TRIGGERS, min_size=1, max_size=3),
    RULES,
    RULES,
)
LOADS = st.lists(st.one_of(st.none(), st.floats(0, 5000)), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(AUTOSCALERS, LOADS, st.integers(0, 5))
def test_decisions_stay_within_the_bounds_and_have_no_memory_but_the_history(
    autoscaler: Autoscaler, loads: list[float | None], late: int
) -> None:
    state = State(autoscaler.minimum, autoscaler.minimum)
    for number, value in enumerate(loads):
        now = MONDAY + number * SYNC_S
        values = [value] * len(autoscaler.triggers)
        decision = decide(autoscaler, state, values, now)
        assert decision == decide(autoscaler, state, values, now)
        assert autoscaler.minimum <= decision.replicas <= autoscaler.maximum
        if value is None and not any(isinstance(trigger, Cron) for trigger in autoscaler.triggers):
            assert decision.replicas == state.replicas
        state = State(decision.replicas, max(decision.replicas - late, 0), decision.history)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(AUTOSCALERS, st.floats(0, 5000), st.integers(1, 50))
def test_a_load_that_stays_ends_in_a_size_that_stays(autoscaler: Autoscaler, rate: float, start: int) -> None:
    triggers = tuple(trigger for trigger in autoscaler.triggers if isinstance(trigger, Offered | Queue))
    if not triggers:
        triggers = (Offered(100),)
    still = Autoscaler(autoscaler.minimum, autoscaler.maximum, triggers, autoscaler.up, autoscaler.down)
    first = min(max(start, still.minimum), still.maximum)
    # One pod a policy's longest period at the slowest, and the windows before it.
    sizes = run(still, lambda _: [rate] * len(triggers), (still.maximum + 4) * 120 + 240, first)
    assert len(set(sizes[-16:])) == 1
