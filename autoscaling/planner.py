"""The plan: the cost of fixed fleets, default HPAs and tuned autoscalers on a trace, and the one to deploy.

All settings are tuned on the part before ``split``, for two thirds of the images that may be late, because the part
after it may be harder. All figures are of the part after it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from autoscaling.baselines import five_minute_peak, foresight, highest_second, smallest_fixed
from autoscaling.fleet import WARM_UP_S, Fleet, FleetError, Load, RunTotals, simulate_all
from autoscaling.hpa import Autoscaler, Cpu, Policy, Queue, Rules
from autoscaling.schedule import shaken
from autoscaling.search import THRIFT, Fit, Search

if TYPE_CHECKING:
    from collections.abc import Callable

DAY_S = 86400
PLAIN, SCHEDULED = "offered rate, tuned", "offered rate + schedule"
# The loop's phases with which a policy is judged, by its worst lateness and its median cost.
JUDGED_PHASES = (0, 3, 6, 9, 12)
# To be chosen, a schedule or a pre-warm must save so much more than the plain rate, as a share of the fixed fleet.
WORTH = 0.01
# After so long without an image it may be cheaper to have no pod at all.
IDLE_S = 600
# Fewer days can't teach a schedule: the control moves whole days, and of one day it keeps the clock.
LEARNED_S = 2 * DAY_S


@dataclass(frozen=True)
class Terms:
    """The promise and the price: at most ``late`` of the images late, ``usd_per_hour`` a pod, or a machine."""

    late: float = 0.001
    paid: Literal["pods", "machines"] = "pods"
    usd_per_hour: float = 0.08925


@dataclass
class Plan:
    """``body`` is plan.json's; ``autoscalers`` by policy; ``tried`` (late share, share of the fixed fleet's cost)."""

    body: dict[str, Any]
    autoscalers: dict[str, Autoscaler]
    tried: list[tuple[float, float]] = field(default_factory=list)

    @property
    def chosen(self) -> Autoscaler:
        """The autoscaler to deploy."""
        return self.autoscalers[self.body["chosen"]]


class Judge:
    """Figures of the seconds from ``begin`` to ``end`` of ``load``. Raises FleetError where they hold no image."""

    def __init__(self, load: Load, fleet: Fleet, terms: Terms, begin: int, end: int) -> None:
        self.load, self.fleet, self.terms, self.begin, self.end = load, fleet, terms, begin, end
        self.seconds = int(load.counted[begin:end].sum())
        _check_images(load, begin, end, "to be judged")
        self.pods = {
            "fixed_fleet": smallest_fixed(load, fleet, begin, end, terms.late),
            "five_minute_peak": five_minute_peak(load, fleet, begin, end),
            "highest_second": highest_second(load, fleet, begin, end),
        }
        ideal = foresight(load, fleet, begin, end)
        self.bound = {"name": "foresight", **self._money(ideal, ideal / fleet.pods_per_machine)}
        del self.bound["share_of_foresight"]

    def _money(self, pod_seconds: float, machine_seconds: float) -> dict[str, Any]:
        paid = pod_seconds if self.terms.paid == "pods" else machine_seconds
        saved = {name: 1 - paid / (self._units(pods) * self.seconds) for name, pods in self.pods.items()}
        ideal = getattr(self, "bound", {}).get("saved", {}).get("fixed_fleet", 0)
        return {
            "late_share": 0.0,
            "replica_seconds": pod_seconds,
            "machine_seconds": machine_seconds,
            "usd": paid / 3600 * self.terms.usd_per_hour,
            "saved": saved,
            "share_of_foresight": saved["fixed_fleet"] / ideal if ideal > 0 else None,
        }

    def _units(self, pods: int) -> int:
        return pods if self.terms.paid == "pods" else -(-pods // self.fleet.pods_per_machine)

    def row(self, name: str, autoscaler: Autoscaler) -> dict[str, Any]:
        """The entry of ``policies`` for ``autoscaler``."""
        (outcomes,) = simulate_all(self.load, [autoscaler], self.fleet, self.begin, self.end, JUDGED_PHASES)
        return self._row(name, autoscaler, outcomes)

    def _row(self, name: str, autoscaler: Autoscaler, outcomes: list[RunTotals]) -> dict[str, Any]:
        money = self._money(
            median(one.replica_seconds for one in outcomes), median(one.machine_seconds for one in outcomes)
        )
        shares = [one.late_share for one in outcomes]
        return {
            "name": name,
            **money,
            "late_share": max(shares),
            "late_share_median": median(shares),
            "replica_seconds_worst": max(one.replica_seconds for one in outcomes),
            "most_pods": max(one.most for one in outcomes),
            "holds": max(shares) <= self.terms.late,
            "settings": settings(autoscaler),
        }

    def fixed_rows(self) -> list[dict[str, Any]]:
        """The three fixed fleets."""
        names = {"fixed_fleet": "fixed, same promise", "five_minute_peak": "fixed, highest 5 minutes",
                 "highest_second": "fixed, highest second"}  # fmt: skip
        return [self.row(names[key], Autoscaler(pods, pods, ())) for key, pods in self.pods.items()]


def settings(autoscaler: Autoscaler) -> dict[str, Any]:
    """``autoscaler`` as plain values, each trigger with its ``kind``."""
    triggers = [{"kind": type(one).__name__.lower(), **asdict(one)} for one in autoscaler.triggers]
    return {**asdict(autoscaler), "triggers": triggers}


def usual(maximum: int) -> dict[str, Autoscaler]:
    """The autoscalers of a fleet that nobody planned: the HPA's defaults on CPU, and this project's first rules."""
    return {
        "HPA's defaults, CPU 70 %": Autoscaler(1, maximum, (Cpu(70),)),
        "seed: CPU 70 %, queue 50": Autoscaler(
            1, maximum, (Cpu(70), Queue(50)),
            Rules((Policy("Percent", 100, 30), Policy("Pods", 2, 30)), 30, "Max", 0.0),
            Rules((Policy("Pods", 1, 120),), 600, "Max", 0.57),
        ),
    }  # fmt: skip


def plan(
    load: Load, fleet: Fleet, terms: Terms, split: int, seed: int = 0, told: Callable[[str], None] = lambda _: None,
) -> Plan:  # fmt: skip
    """Tune on the seconds before ``split``, judge on those after. Raises FleetError."""
    begin = min(DAY_S, split // 4)
    if split - begin < WARM_UP_S or len(load) - split < WARM_UP_S:
        raise FleetError(
            f"{len(load)} s of trace, split after {split} s, are too few to plan from: an hour and more is needed on "
            "either side"
        )
    _check_images(load, begin, split, "to tune on")
    judge = Judge(load, fleet, terms, split, len(load))
    search = Search(load, fleet, begin, split, terms.late * THRIFT, terms.paid, told)
    found, control = _tuned(search, seed)
    autoscalers = usual(search.maximum) | {
        name: fit.knobs.autoscaler(fleet.rate, search.maximum) for name, fit in found.items()
    }
    told("judging")
    rows = [judge.row(name, one) for name, one in autoscalers.items()]
    if control is not None:
        control["gain"] = _gain(rows)
    tuned = {name: fit for name, fit in found.items() if fit.cost < float("inf")}
    notes = []
    if search.end < LEARNED_S:
        notes.append(
            f"No schedule was tried: the part to tune on has {search.end / DAY_S:.2g} days, and {LEARNED_S // DAY_S} "
            "are needed to tell a habit from a day."
        )
    fixed_cost = judge._units(judge.pods["fixed_fleet"]) * float(load.counted[begin:split].sum())
    chosen = _chosen(tuned, fixed_cost, control)
    body = {
        "bound": judge.bound,
        "baselines": judge.pods,
        "policies": [*judge.fixed_rows(), *distinct(rows, chosen)],
        "chosen": chosen,
        "control": control,
        "notes": notes,
        "split_s": split,
        "judged_s": judge.seconds,
        "fleet": asdict(fleet),
        "terms": asdict(terms),
    }
    return Plan(body, autoscalers, [(late, cost / fixed_cost) for late, cost in search.tried])


def distinct(rows: list[dict[str, Any]], chosen: str) -> list[dict[str, Any]]:
    """``rows`` without those where what was added to the plain rate did nothing."""
    figures = ("late_share", "late_share_median", "replica_seconds", "machine_seconds")
    plain = next((row for row in rows if row["name"] == PLAIN), None)
    return [
        row
        for row in rows
        if plain is None
        or row["name"] in (PLAIN, chosen)
        or not row["name"].startswith("offered rate")
        or any(row[name] != plain[name] for name in figures)
    ]


def _check_images(load: Load, begin: int, end: int, purpose: str) -> None:
    """Raise FleetError if the part from ``begin`` to ``end``, which is there ``purpose``, counts no image."""
    if not load.offered[begin:end][load.counted[begin:end]].sum() > 0:
        raise FleetError(f"the part {purpose} has no image in it; --split leaves it one")


def _tuned(search: Search, seed: int) -> tuple[dict[str, Fit], dict[str, Any] | None]:
    """The tuned policies by name, and the control's verdict on the schedule."""
    found: dict[str, Fit] = {}
    search.told("CPU alone")
    cpu = search.cpu()
    if cpu:
        found["CPU, tuned"] = cpu
    search.told("the offered rate")
    offered = search.offered()
    if offered is None:
        if not found:
            raise FleetError(
                f"no autoscaler is late for {search.late:.4%} of the images or fewer; give it more: --late"
            )
        return found, None
    found[PLAIN] = offered
    search.told("a schedule")
    scheduled = search.scheduled(offered) if search.end >= LEARNED_S else offered
    control = None
    if scheduled.knobs.crons:
        found[SCHEDULED] = scheduled
        search.told("the control: days shifted at random")
        other = replace(search, load=shaken(search.load, seed, search.period), tried=[])
        plain = other.offered()
        with_phase = other.scheduled(plain) if plain else None
        if plain and with_phase:
            control = {
                "shifted_by_minutes": [1, search.period - 1],
                "gain_tuned": 1 - scheduled.cost / offered.cost,
                "gain_shifted": 1 - with_phase.cost / plain.cost,
            }
    search.told("the rate of earlier days")
    before = search.before(offered)
    if before.knobs.before:
        found["offered rate + earlier days"] = before
    if _idles(search):
        search.told("no pods at all")
        zero = search.firm(search.best([replace(offered.knobs, minimum=0)], offered) or offered)
        if zero.knobs.minimum == 0:
            found["offered rate, down to 0"] = zero
    return found, control


def _idles(search: Search) -> bool:
    """Whether no image comes for IDLE_S anywhere in what is tuned on."""
    cumulated = search.load.cumulated[search.begin : search.end + 1]
    return bool((cumulated[IDLE_S:] == cumulated[:-IDLE_S]).any())


def _chosen(tuned: dict[str, Fit], fixed_cost: float, control: dict[str, Any] | None) -> str:
    """The cheapest on the tuned part. An addition to the plain rate must be worth it, and must follow the clock."""
    allowed = dict(tuned)
    if control and control["gain_tuned"] - max(control["gain_shifted"], 0.0) < WORTH:
        del allowed[SCHEDULED]
    cheapest = min(allowed, key=lambda name: allowed[name].cost)
    if PLAIN in allowed and allowed[PLAIN].cost - allowed[cheapest].cost < WORTH * fixed_cost:
        return PLAIN
    return cheapest


def _gain(rows: list[dict[str, Any]]) -> float:
    saved = {row["name"]: row["saved"]["fixed_fleet"] for row in rows}
    return float(saved[SCHEDULED] - saved[PLAIN])
