"""A fleet second by second: the compiled loop against the controller's own functions, and what pods and machines do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from autoscaling import hpa
from autoscaling.baselines import five_minute_peak, foresight, highest_second, smallest_fixed
from autoscaling.fleet import Fleet, FleetError, Load, course, fixed, simulate, simulate_all
from autoscaling.hpa import Autoscaler, Before, Cpu, Cron, Offered, Policy, Queue, Rules, State

POLICIES = st.lists(
    st.builds(Policy, st.sampled_from(["Pods", "Percent"]), st.integers(1, 100), st.sampled_from([15, 30, 60, 120])),
    min_size=1, max_size=3,
).map(tuple)  # fmt: skip
RULES = st.builds(
    Rules, POLICIES, st.sampled_from([0, 15, 30, 47, 60, 300]), st.sampled_from(["Max", "Min", "Disabled"]),
    st.sampled_from([0.0, 0.02, 0.1, 0.5]),
)  # fmt: skip
TRIGGERS = st.tuples(
    st.lists(
        st.one_of(
            st.builds(Offered, st.floats(10, 200).map(lambda value: round(value, 2)), st.sampled_from([30, 60])),
            st.builds(Before, st.floats(20, 200).map(lambda value: round(value, 2)), st.sampled_from([600, 1000]),
                      st.sampled_from([0.9, 1.0, 1.3])),
            st.builds(Cron, st.sampled_from(["20 * * * *", "*/20 * * * *"]),
                      st.sampled_from(["25 * * * *", "*/7 * * * *"]), st.integers(1, 12)),
        ), max_size=3,
    ),
    st.lists(st.builds(Queue, st.integers(5, 100)), max_size=1),
    st.lists(st.builds(Cpu, st.integers(30, 95)), max_size=1),
).map(lambda parts: (*parts[0], *parts[1], *parts[2])).filter(bool)  # fmt: skip
AUTOSCALERS = st.builds(
    lambda minimum, more, triggers, up, down: Autoscaler(minimum, max(minimum, 1) + more, triggers, up, down),
    st.integers(0, 3), st.integers(0, 25), TRIGGERS, RULES, RULES,
)  # fmt: skip


def a_load(seed: int, seconds: int = 1800) -> Load:
    """Bursts, lulls and silence, Poisson."""
    random = np.random.default_rng(seed)
    levels = random.choice([0, 5, 100, 400, 900, 1500], seconds // 120 + 1) * random.uniform(0.5, 1.5)
    offered = random.poisson(np.repeat(levels, 120)[:seconds]).astype(np.float64)
    return Load(offered, np.ones(seconds, np.bool_), 1_700_000_040.0)


def by_hand(load: Load, autoscaler: Autoscaler, fleet: Fleet, phase: int) -> list[tuple[int, int, float]]:
    """(wanted, ready, late) of each second, with ``hpa.decide`` and lists: what the kernel has to do."""
    size = min(max(int(np.ceil(load.offered[:60].mean() / (0.7 * fleet.rate))), autoscaler.minimum), autoscaler.maximum)
    pods = [-1] * size  # when each is ready
    state = State(size, size)
    queue = 0.0
    queues: list[float] = []
    used: list[float] = []
    able: list[float] = []
    rows = []

    def mean(until: int, window: int) -> float:
        return float(load.offered[max(0, until - window) : max(until, 0)].sum()) / window

    for now, images in enumerate(load.offered):
        if (now - phase) % fleet.sync_s == 0:
            seen = now - fleet.lag_s
            believed = [at for at in pods if at <= seen - fleet.cpu_window_s]
            values: list[float | None] = []
            for trigger in autoscaler.triggers:
                match trigger:
                    case Offered():
                        values.append(mean(seen, trigger.window_s))
                    case Before():
                        values.append(mean(seen - trigger.offset_s, trigger.window_s) * trigger.headroom)
                    case Queue():
                        values.append(queues[seen - 1] if seen >= 1 else 0.0)
                    case Cpu():
                        window = slice(seen - fleet.cpu_window_s, seen)
                        there = seen > fleet.cpu_window_s and believed and sum(able[window]) > 0
                        values.append(100.0 * sum(used[window]) / sum(able[window]) if there else None)
                    case _:
                        values.append(None)
            state = State(len(pods), len([at for at in pods if at <= now]), state.history)
            has_cpu = any(isinstance(one, Cpu) for one in autoscaler.triggers)
            if has_cpu:
                state = State(len(pods), len(believed), state.history)
            decision = hpa.decide(autoscaler, state, values, load.start // 60 * 60 + now)
            state = State(decision.replicas, 0, decision.history)
            ready = len([at for at in pods if at < now])
            if decision.replicas < ready:
                queue -= queue * (ready - decision.replicas) / ready
            del pods[decision.replicas :]
            pods += [now + fleet.start_s] * (decision.replicas - len(pods))
        ready = len([at for at in pods if at <= now])
        capacity = ready * fleet.rate
        served = min(queue + images, capacity)
        waiting = queue + images - served
        queue = min(waiting, fleet.slo_s * capacity)
        queues.append(queue)
        used.append(served)
        able.append(capacity)
        rows.append((len(pods), ready, waiting - queue))
    return rows


@pytest.mark.slow
@settings(max_examples=100, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(AUTOSCALERS, st.integers(0, 50), st.integers(0, 14), st.sampled_from([5, 30, 90]))
def test_the_compiled_loop_decides_as_the_controller_does(
    autoscaler: Autoscaler, seed: int, phase: int, start_s: int
) -> None:
    load, fleet = a_load(seed), Fleet(rate=100, start_s=start_s)
    run = course(load, autoscaler, fleet, 0, len(load), phase)
    expected = by_hand(load, autoscaler, fleet, phase)
    got = list(zip(run.wanted.astype(int), run.ready.astype(int), run.late, strict=True))
    for second, (one, other) in enumerate(zip(got, expected, strict=True)):
        assert one[:2] == other[:2] and one[2] == pytest.approx(other[2], abs=1e-6), (second, one, other)


def test_a_pod_answers_once_it_has_started_and_is_paid_for_from_the_asking() -> None:
    offered = np.concatenate((np.full(4000, 50.0), np.full(600, 250.0)))
    load = Load(offered, np.ones(4600, np.bool_))
    autoscaler = Autoscaler(1, 10, (Offered(100),), Rules((Policy("Pods", 10, 15),), 0, "Max", 0.0))
    run = course(load, autoscaler, Fleet(rate=100, start_s=40), 4000, 4600)
    asked, ready = int(np.argmax(run.wanted > 1)), int(np.argmax(run.ready > 1))
    assert ready == asked + 40
    outcome = simulate(load, autoscaler, Fleet(rate=100, start_s=40), 4000)
    assert outcome.replica_seconds == pytest.approx(run.wanted.sum())
    assert outcome.late == pytest.approx(run.late.sum())
    # 150 a second too many from the first second on, but for the second that may wait.
    assert run.late[:40].sum() == pytest.approx(40 * 150 - 100)


def test_what_is_not_counted_costs_nothing() -> None:
    counted = np.ones(8000, np.bool_)
    counted[5000:6000] = False
    load = Load(np.full(8000, 80.0), counted)
    outcome = simulate(load, fixed(1), Fleet(rate=50), 4000)
    assert (outcome.seconds, outcome.replica_seconds, outcome.offered) == (3000, 3000, 240_000)
    assert outcome.late_share == pytest.approx(30 / 80, rel=1e-3)


def test_a_machine_comes_with_the_first_pod_on_it_and_lingers_after_the_last() -> None:
    offered = np.concatenate((np.full(4000, 50.0), np.full(1000, 450.0), np.full(2000, 50.0)))
    load = Load(offered, np.ones(7000, np.bool_))
    autoscaler = Autoscaler(1, 10, (Offered(100),), Rules((Policy("Pods", 10, 15),), 0, "Max", 0.0),
                            Rules((Policy("Percent", 100, 15),), 0, "Max", 0.0))  # fmt: skip
    bare = Fleet(rate=100, start_s=30)
    plain = simulate(load, autoscaler, bare, 3600)
    assert plain.machine_seconds == pytest.approx(plain.replica_seconds, abs=20)
    packed = simulate(load, autoscaler, Fleet(rate=100, start_s=30, pods_per_machine=5), 3600)
    assert packed.machine_seconds == 3400
    lingering = simulate(load, autoscaler, Fleet(rate=100, start_s=30, linger_s=600), 3600)
    assert lingering.machine_seconds == pytest.approx(plain.machine_seconds + 4 * 600, abs=20)
    slow = course(load, autoscaler, Fleet(rate=100, start_s=30, machine_start_s=100), 3600, 7000)
    fast = course(load, autoscaler, bare, 3600, 7000)
    assert int(np.argmax(slow.ready > 1)) == int(np.argmax(fast.ready > 1)) + 100


def test_removed_pods_answer_what_they_hold() -> None:
    # The queue is full when the schedule ends; nothing of it is late.
    offered = np.concatenate((np.full(3600, 100.0), np.full(60, 100.0), np.zeros(60)))
    offered[3655:3660] = 450
    load = Load(offered, np.ones(len(offered), np.bool_))
    autoscaler = Autoscaler(1, 4, (Cron("0 * * * *", "1 * * * *", 4),), down=Rules((Policy("Percent", 100, 15),), 0))
    run = course(load, autoscaler, Fleet(rate=100), 3600, len(offered))
    assert run.wanted[59] == 4 and run.wanted[60] == 1
    assert run.late[59:].sum() == 0


def test_a_run_stops_once_its_budget_is_spent() -> None:
    load = a_load(1)
    whole = simulate(load, fixed(1), Fleet(rate=100))
    cut = simulate(load, fixed(1), Fleet(rate=100), share=0.01)
    assert whole.late_share > 0.1 and cut.late_share > 0.01
    assert cut.seconds < whole.seconds


def test_two_queue_triggers_are_refused() -> None:
    with pytest.raises(FleetError, match="two triggers of the kind Queue"):
        simulate(a_load(0), Autoscaler(1, 2, (Queue(5), Queue(6))), Fleet(rate=100))


def test_threads_give_what_one_run_gives() -> None:
    load, fleet = a_load(3), Fleet(rate=100)
    several = [Autoscaler(1, 20, (Offered(target),)) for target in (50, 70, 90)]
    together = simulate_all(load, several, fleet, phases=(0, 7))
    assert together == [[simulate(load, one, fleet, phase=phase) for phase in (0, 7)] for one in several]


@given(st.integers(0, 100), st.integers(1, 60))
@settings(deadline=None, max_examples=40)
def test_foresight_is_the_fewest_pods_for_what_comes_while_one_starts(seed: int, start_s: int) -> None:
    load, fleet = a_load(seed, 900), Fleet(rate=100, start_s=start_s)
    slowly = [np.ceil(load.offered[at : at + start_s + 1].max() / 100) for at in range(100, 800)]
    assert foresight(load, fleet, 100, 800) == sum(slowly)


def test_the_smallest_fixed_fleet_keeps_the_promise_and_one_less_does_not() -> None:
    load, fleet = a_load(5, 3600), Fleet(rate=100)
    pods = smallest_fixed(load, fleet, 600, 3600, 0.001)
    assert simulate(load, fixed(pods), fleet, 600).late_share <= 0.001
    assert simulate(load, fixed(pods - 1), fleet, 600).late_share > 0.001
    assert five_minute_peak(load, fleet, 600, 3600) <= highest_second(load, fleet, 600, 3600)
    assert highest_second(load, fleet, 600, 3600) == np.ceil(load.offered[600:].max() / 100)
