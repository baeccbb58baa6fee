"""The search for the cheapest settings that keep a promise on one part of a trace."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from autoscaling import schedule
from autoscaling.baselines import highest_second
from autoscaling.fleet import MAX_PODS, WORKERS, Fleet, Load, simulate
from autoscaling.hpa import Autoscaler, Before, Cpu, Cron, Offered, Policy, Rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Start minute of the day: length in minutes, pods.
Schedule = dict[int, tuple[int, int]]
# Tuning uses so much of the promise, because the judged part is late for more.
THRIFT = 2 / 3
# Per cent of a pod's rate that a target may be: above what a pod answers, a steady load would be late for ever.
LOWEST, LIKELY, HIGHEST = 5, 70, 100
# The loop's phases, in seconds, that the last fit of a policy has to hold for.
PHASES = (0, 5, 10)
WINDOWS = (0, 15, 30, 60, 120, 300)
TOLERANCES = (0.0, 0.02, 0.05, 0.1, 0.2)
FALLS = ((100, 15), (50, 15), (20, 15), (20, 60))


@dataclass(frozen=True)
class Knobs:
    """The tuned settings: the target in per cent of a pod's rate (or of its CPU), and the rest of a manifest."""

    target: int = 80
    metric: Literal["offered", "cpu"] = "offered"
    up_tolerance: float = 0.1
    down_tolerance: float = 0.1
    window_s: int = 300
    fall: tuple[int, int] = (100, 15)
    minimum: int = 1
    crons: tuple[Cron, ...] = ()
    before: Before | None = None

    def autoscaler(self, rate: float, maximum: int) -> Autoscaler:
        """The manifest for pods of ``rate`` images/s, at most ``maximum`` of them."""
        per_pod = round(self.target / 100 * rate, 2)
        asked: tuple[Offered | Cpu, ...] = (Offered(per_pod),) if self.metric == "offered" else (Cpu(self.target),)
        before = (replace(self.before, per_pod=per_pod),) if self.before else ()
        # All pods at once: a fleet that grows slowly is late.
        up = Rules((Policy("Pods", maximum, 15),), 0, "Max", self.up_tolerance)
        down = Rules((Policy("Percent", *self.fall),), self.window_s, "Max", self.down_tolerance)
        return Autoscaler(self.minimum, maximum, (*asked, *before, *self.crons), up, down)


@dataclass(frozen=True)
class Fit:
    """``knobs`` that keep the promise on the tuned part; their cost there, in paid seconds, and lateness."""

    knobs: Knobs
    cost: float
    late_share: float


@dataclass
class Search:
    """A search in the seconds from ``begin`` to ``end`` of ``load``, for at most ``late`` of its images late.

    ``paid``: the unit that is paid for. ``tried`` gets (late share, cost) of each policy that was run to its end.
    ``held``: from this second on the whole promise must hold too, and no schedule is learned there (0: none).
    ``period``: the period of the schedule that was found, in minutes.
    """

    load: Load
    fleet: Fleet
    begin: int
    end: int
    late: float
    paid: Literal["pods", "machines"] = "pods"
    told: Callable[[str], None] = lambda _: None
    tried: list[tuple[float, float]] = field(default_factory=list)
    maximum: int = 0
    held: int = 0
    period: int = schedule.DAY

    def __post_init__(self) -> None:
        if not self.maximum:
            most = highest_second(self.load, self.fleet, self.begin, self.end)
            self.maximum = min(2 + int(1.5 * most), MAX_PODS)

    def fit(self, knobs: Knobs) -> Fit | None:
        """``knobs`` with the highest target that keeps the promise, by bisection; None if none does."""
        low, high = LOWEST, HIGHEST + 1
        # The loop's phase decides whether a schedule meets its minute early or late; a rate hardly depends on it.
        phases = (0, 10) if knobs.crons else (0,)
        if self._run(replace(knobs, target=LIKELY), phases):
            low = LIKELY - 1
        else:
            high = LIKELY
        best = None
        while high - low > 1:
            middle = (low + high) // 2
            found = self._run(replace(knobs, target=middle), phases)
            if found is None:
                high = middle
            else:
                low, best = middle, found
        return best

    def _run(self, knobs: Knobs, phases: Iterable[int]) -> Fit | None:
        autoscaler = knobs.autoscaler(self.fleet.rate, self.maximum)
        costs, lates = [], []
        if self.held:
            promise = self.late / THRIFT
            held = simulate(self.load, autoscaler, self.fleet, self.held, self.end, 0, promise)
            if held.late_share > promise:
                return None
        for phase in phases:
            outcome = simulate(self.load, autoscaler, self.fleet, self.begin, self.end, phase, self.late)
            if outcome.late_share > self.late:
                return None
            costs.append(outcome.replica_seconds if self.paid == "pods" else outcome.machine_seconds)
            lates.append(outcome.late_share)
        fit = Fit(knobs, float(np.mean(costs)), max(lates))
        self.tried.append((fit.late_share, fit.cost))
        return fit

    def best(self, candidates: Iterable[Knobs], fallback: Fit | None = None) -> Fit | None:
        """The cheapest fit of ``candidates``; ``fallback`` if none is cheaper."""
        with ThreadPoolExecutor(WORKERS) as pool:
            fits = [fit for fit in pool.map(self.fit, candidates) if fit is not None]
        return min([*([fallback] if fallback else []), *fits], key=lambda fit: fit.cost, default=None)

    def descend(self, fit: Fit, rounds: int = 2) -> Fit:
        """``fit`` made cheaper, one knob after the other."""
        sizes = sorted({1, 2, 3, *self._sizes()})
        turns: tuple[tuple[str, tuple[Any, ...]], ...] = (
            ("window_s", WINDOWS), ("down_tolerance", TOLERANCES), ("up_tolerance", TOLERANCES[:-1]),
            ("minimum", tuple(sizes)), ("fall", FALLS),
        )  # fmt: skip
        for number in range(rounds):
            before = fit.cost
            for name, values in turns:
                self.told(f"round {number + 1}: {name}")
                others = [replace(fit.knobs, **{name: value}) for value in values if value != getattr(fit.knobs, name)]
                fit = self.best(others, fit) or fit
            if fit.cost > before * 0.999:
                break
        return fit

    def _sizes(self) -> list[int]:
        counted = self.load.counted[self.begin : self.end]
        rates = self.load.offered[self.begin : self.end][counted]
        return [int(np.ceil(size)) for size in np.quantile(rates, (0.05, 0.25, 0.5)) / self.fleet.rate]

    def firm(self, fit: Fit) -> Fit:
        """``fit`` with a target that holds for several phases of the loop."""
        low = max(LOWEST, fit.knobs.target - 40)
        for target in range(fit.knobs.target, low, -1):
            found = self._run(replace(fit.knobs, target=target), PHASES)
            if found:
                return found
        return fit

    def with_bursts(self, fit: Fit) -> Fit:
        """``fit`` with a schedule for the phases at which a leaner fleet is late; ``fit`` itself if there are none."""
        chosen: list[tuple[schedule.Burst, Schedule]] = []
        # Minutes from a trigger's start to pods that are ready.
        ahead = -(-(self.fleet.start_s + self.fleet.sync_s) // 60)
        bare = self._lean(fit, {})
        for _ in range(3):  # the first bursts hide others
            run = self._lean(fit, _merged(chosen))
            known = {(burst.first, burst.last) for burst, _ in chosen}
            new = [burst for burst in schedule.bursts(run) if (burst.first, burst.last) not in known]
            if not new:
                break
            chosen += [(burst, schedule.windows(burst, ahead, 0, burst.pods[-1])) for burst in new]
            self.period = min(self.period, *(burst.period for burst in new))
        if not chosen:
            return fit
        found = fit
        for _ in range(2):
            for place, (burst, _) in enumerate(chosen):
                self.told(f"bursts at minute {burst.first} to {burst.last} of each {burst.period}")
                options: list[Schedule] = [
                    {},
                    *(
                        schedule.windows(burst, lead, hold, pods)
                        for lead in (ahead - 1, ahead) for hold in (0, 1) for pods in burst.pods
                    ),
                ]  # fmt: skip
                others = [one for number, one in enumerate(chosen) if number != place]
                whole = [_merged([*others, (burst, option)]) for option in options]
                found, best = self._best_schedule(found, whole)
                if best is not None:
                    chosen[place] = burst, options[best]
        if not found.knobs.crons:
            return fit
        # Times of day that gain least are left out. The order is learned on two thirds, so that the rest is an
        # independent check.
        found = self.descend(found, rounds=1)
        kept = _merged(chosen)
        order = schedule.by_worth(bare, kept, self.period)
        shares = [share / 20 for share in range(19, 3, -1)]
        fewer = [{start: kept[start] for start in order[: round(len(order) * share)]} for share in shares]
        wary = replace(self, held=self.begin + (self.end - self.begin) * 2 // 3)
        again = wary.fit(found.knobs)
        fewest = wary._best_schedule(again, fewer)[0] if again else found
        return self.firm(fewest if again and fewest.cost < again.cost and fewest.cost < found.cost else found)

    def _lean(self, fit: Fit, wanted: Schedule) -> schedule.Minutes:
        """The late images of a fleet with hardly more pods than it needs, on two thirds of the tuned part."""
        lean = replace(fit.knobs, target=max(85, fit.knobs.target), crons=schedule.triggers(wanted))
        autoscaler = lean.autoscaler(self.fleet.rate, self.maximum)
        known = self.begin + (self.end - self.begin) * 2 // 3
        return schedule.minutes(self.load, autoscaler, self.fleet, self.begin, known)

    def _best_schedule(self, fit: Fit, options: list[Schedule]) -> tuple[Fit, int | None]:
        """The cheapest of ``fit`` with one of ``options``, and that option; None if ``fit`` itself is the cheapest."""
        crons = [schedule.triggers(option) for option in options]
        best = self.best([replace(fit.knobs, crons=one) for one in dict.fromkeys(crons)], fit) or fit
        return best, None if best is fit else crons.index(best.knobs.crons)

    def offered(self) -> Fit | None:
        """The cheapest on the offered rate alone."""
        start = [
            Knobs(window_s=window, up_tolerance=up, down_tolerance=0.02, minimum=minimum)
            for window in (0, 60, 300) for up in (0.0, 0.05) for minimum in (1, 2)
        ]  # fmt: skip
        fit = self.best(start)
        return self.firm(self.descend(fit)) if fit else None

    def cpu(self) -> Fit | None:
        """The cheapest on CPU alone."""
        fit = self.best([Knobs(metric="cpu", window_s=window, minimum=2) for window in (60, 300)])
        return self.firm(self.descend(fit, rounds=1)) if fit else None

    def scheduled(self, fit: Fit) -> Fit:
        """``fit`` with cron triggers: for bursts at a phase, else for the time of the day."""
        minimum = 1 + max(self._sizes())
        start = replace(fit, knobs=replace(fit.knobs, window_s=0, minimum=minimum, down_tolerance=0.05))
        found = self.with_bursts(start)
        if not found.knobs.crons:
            days = [schedule.of_day(self.load, self.fleet, self.begin, self.end, share) for share in (0.1, 0.5, 0.8)]
            found = self.best([replace(fit.knobs, crons=crons) for crons in days if crons], fit) or fit
            found = self.firm(self.descend(found, rounds=1)) if found.knobs.crons else fit
        return found if found.knobs.crons else fit

    def before(self, fit: Fit) -> Fit:
        """``fit`` with the rate of the same time of an earlier day, a little ahead."""
        candidates = [
            replace(fit.knobs, before=Before(1.0, days * 86400 - lead, headroom))
            for days in (1, 7) if self.begin + 86400 * days < self.end
            for lead in (120, 300, 900) for headroom in (0.8, 0.9, 1.0)
        ]  # fmt: skip
        found = self.best(candidates, fit) or fit
        return self.firm(self.descend(found, rounds=1)) if found.knobs.before else fit


def _merged(parts: Iterable[tuple[schedule.Burst, Schedule]]) -> Schedule:
    """The windows of all ``parts``; where two begin together, the longer."""
    whole: Schedule = {}
    for _, windows in parts:
        for start, one in windows.items():
            whole[start] = max(whole.get(start, one), one)
    return whole
