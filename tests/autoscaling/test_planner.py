"""The search and the plan: what is tuned holds where it was tuned, the control speaks, the figures are plan.json's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoscaling import manifests
from autoscaling.fleet import Fleet, FleetError, Load, fixed, simulate
from autoscaling.hpa import Cron, GpuMemory, Offered
from autoscaling.planner import JUDGED_PHASES, PLAIN, SCHEDULED, Judge, Plan, Terms, distinct, plan, usual
from autoscaling.reporting import believe
from autoscaling.search import Knobs, Search
from tests.autoscaling.test_schedule import bursty

pytestmark = pytest.mark.slow

FLEET = Fleet(rate=100)
SEED = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes" / "overlays" / "seed"


def wavy(days: int = 3, seed: int = 0) -> Load:
    """A day's rhythm from 100 to 1,500 images/s."""
    second = np.arange(days * 86400)
    mean = 800 - 700 * np.cos(second / 86400 * 2 * np.pi)
    return Load(np.random.default_rng(seed).poisson(mean).astype(np.float64), np.ones(len(second), np.bool_))


@pytest.fixture(scope="module")
def wave() -> Plan:
    return plan(wavy(), FLEET, Terms(), 2 * 86400)


@pytest.fixture(scope="module")
def bursts() -> Plan:
    return plan(bursty(days=6, every=1800, at=600), FLEET, Terms(), 4 * 86400)


@pytest.mark.parametrize(("late", "target"), [(0.001, 100.0), (5e-6, None)], ids=["a pod's rate", "the promise"])
def test_a_target_is_the_highest_that_keeps_the_promise_or_a_pod_s_rate(late: float, target: float | None) -> None:
    load = wavy(1)
    search = Search(load, FLEET, 3600, len(load), late)
    fit = search.fit(Knobs(window_s=0, up_tolerance=0.0))
    assert fit is not None and fit.late_share <= late
    if target is not None:
        assert fit.knobs.target == target
        return
    bolder = replace(fit.knobs, target=fit.knobs.target + 1).autoscaler(100, search.maximum)
    assert fit.knobs.target < FLEET.rate
    assert simulate(load, bolder, FLEET, 3600).late_share > late


def test_what_no_target_can_keep_fits_nothing() -> None:
    load = wavy(1)
    assert Search(load, FLEET, 3600, len(load), 1e-12, maximum=5).fit(Knobs()) is None


def test_descending_never_costs_more() -> None:
    load = wavy(1)
    search = Search(load, FLEET, 3600, len(load), 0.001)
    fit = search.fit(Knobs())
    assert fit is not None
    assert search.descend(fit, rounds=1).cost <= fit.cost
    assert search.tried and all(late <= 0.001 for late, _ in search.tried)


def test_on_peoples_traffic_the_offered_rate_is_near_foresight_and_is_chosen(wave: Plan) -> None:
    rows = {row["name"]: row for row in wave.body["policies"]}
    row = rows["offered rate, tuned"]
    assert wave.body["chosen"] == "offered rate, tuned" and row["holds"]
    assert row["saved"]["fixed_fleet"] > rows["HPA's defaults, CPU 70 %"]["saved"]["fixed_fleet"] + 0.05
    assert row["share_of_foresight"] > 0.9


def test_bursts_by_the_clock_want_a_schedule_and_the_control_takes_its_worth_away(bursts: Plan) -> None:
    rows = {row["name"]: row for row in bursts.body["policies"]}
    row = rows["offered rate + schedule"]
    assert bursts.body["chosen"] == row["name"] and row["holds"], row
    assert row["saved"]["fixed_fleet"] > rows["offered rate, tuned"]["saved"]["fixed_fleet"] + 0.1
    assert any(isinstance(one, Cron) for one in bursts.chosen.triggers)
    control = bursts.body["control"]
    assert control["gain_tuned"] > 0.1 and control["gain_shifted"] < control["gain_tuned"] / 3


def test_figures_are_those_of_the_simulation(wave: Plan) -> None:
    load, begin = wavy(), 2 * 86400
    row = next(row for row in wave.body["policies"] if row["name"] == wave.body["chosen"])
    outcomes = [simulate(load, wave.chosen, FLEET, begin, phase=phase) for phase in JUDGED_PHASES]
    assert row["late_share"] == max(one.late_share for one in outcomes)
    assert row["replica_seconds"] == sorted(one.replica_seconds for one in outcomes)[2]
    pods = wave.body["baselines"]["fixed_fleet"]
    assert simulate(load, fixed(pods), FLEET, begin).late_share <= 0.001
    assert row["saved"]["fixed_fleet"] == pytest.approx(1 - row["replica_seconds"] / (pods * 86400))
    assert row["usd"] == pytest.approx(row["replica_seconds"] / 3600 * 0.08925)
    assert set(wave.body["bound"]["saved"]) == {"fixed_fleet", "five_minute_peak", "highest_second"}
    json.dumps(wave.body, allow_nan=False)


def test_a_plan_is_the_same_each_time(wave: Plan) -> None:
    assert plan(wavy(), FLEET, Terms(), 2 * 86400).body == wave.body


def test_what_does_not_hold_where_it_is_judged_is_said() -> None:
    load = wavy()
    offered = load.offered.copy()
    random = np.random.default_rng(0)
    for first in random.integers(2 * 86400, 3 * 86400 - 400, 30):
        offered[first : first + 300] += 3000
    made = plan(Load(offered, load.counted), FLEET, Terms(), 2 * 86400)
    row = next(row for row in made.body["policies"] if row["name"] == made.body["chosen"])
    assert not row["holds"] and "It does not hold on the judged part" in believe(made.body)


def test_machines_are_what_is_paid_for_where_they_linger() -> None:
    load = wavy(1)
    fleet = Fleet(rate=100, linger_s=600, pods_per_machine=2)
    judge = Judge(load, fleet, Terms(paid="machines"), 43200, 86400)
    row = judge.row("one", Knobs(window_s=0).autoscaler(100, 30))
    assert row["usd"] == pytest.approx(row["machine_seconds"] / 3600 * 0.08925)
    assert row["saved"]["fixed_fleet"] < 1 - row["replica_seconds"] / (judge.pods["fixed_fleet"] * 43200)


def test_too_short_a_trace_and_a_silent_part_are_refused() -> None:
    load = wavy(1)
    with pytest.raises(FleetError, match="too few to plan from"):
        plan(load, FLEET, Terms(), 86400 - 60)
    silent = Load(np.where(np.arange(86400) < 43200, 100.0, 0.0), load.counted)
    with pytest.raises(FleetError, match="no image in it"):
        plan(silent, FLEET, Terms(), 43200)


@pytest.mark.skipif(not SEED.is_dir(), reason="the overlay seed is not there")
def test_the_seed_row_is_the_seed_manifest() -> None:
    deployed = manifests.read(SEED).autoscaler
    told = usual(deployed.maximum)["seed: CPU 70 %, queue 50"]
    triggers = tuple(one for one in deployed.triggers if not isinstance(one, GpuMemory))
    assert replace(deployed, triggers=triggers) == told


def test_flat_traffic_gets_a_target_that_a_pod_answers_and_is_told_of_the_fixed_fleet() -> None:
    load = Load(np.full(8 * 3600, 190.0), np.ones(8 * 3600, np.bool_))
    found = plan(load, Fleet(rate=150), Terms(), 5 * 3600)
    triggers = [one for each in found.autoscalers.values() for one in each.triggers if isinstance(one, Offered)]
    assert triggers and all(one.per_pod <= 150 for one in triggers)
    assert believe(found.body).startswith("A fixed fleet of 2 pods costs the same or less. ")


def test_of_less_than_two_days_no_schedule_is_tried_and_that_is_said() -> None:
    load = bursty(days=2, every=1800, at=600)
    made = plan(load, FLEET, Terms(), 86400)
    assert not any("schedule" in row["name"] for row in made.body["policies"]) and made.body["control"] is None
    assert made.body["notes"] == [
        "No schedule was tried: the part to tune on has 1 days, and 2 are needed to tell a habit from a day."
    ]


def test_an_addition_that_did_nothing_has_no_row(wave: Plan) -> None:
    (row,) = [row for row in wave.body["policies"] if row["name"] == PLAIN]
    same, other = row | {"name": "offered rate + earlier days"}, row | {"name": SCHEDULED, "late_share": 0.5}
    assert distinct([row, same, other], PLAIN) == [row, other]
    assert distinct([row, same], same["name"]) == [row, same]


def test_a_tuned_part_without_an_image_is_refused() -> None:
    load = Load(np.repeat([0.0, 10.0], 4 * 3600), np.ones(8 * 3600, np.bool_))
    with pytest.raises(FleetError, match="the part to tune on has no image in it"):
        plan(load, FLEET, Terms(), 4 * 3600)
