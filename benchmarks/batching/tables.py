"""The tables of the contest, and its goals."""

from __future__ import annotations

import itertools
import statistics
from typing import TYPE_CHECKING

from benchmarks.batching.contest import CORK, FIXED, OTHERS, OURS, SEED, SEVERAL_SETTINGS
from benchmarks.batching.policies import Ours
from benchmarks.batching.simulation import LEARNING, NOISE, simulate
from benchmarks.results import Cell, Goal, Sheet, at_least, at_most
from harness import arrivals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.batching.contest import Point


class Table:
    """The points of a contest by place, load and policy. A place is a device, an SLO, a count and kind of arrivals."""

    def __init__(self, points: Sequence[Point]) -> None:
        self.points = {(p.backend, p.slo_ms, p.devices, p.arrivals, p.load, p.policy): p for p in points}
        self.loads = sorted({p.load for p in points})
        self.places = list(dict.fromkeys((p.backend, p.slo_ms, p.devices, p.arrivals) for p in points))

    def goodput(self, place: tuple[str, float, int, str], load: float, policy: str) -> float:
        """Images a second within the SLO."""
        return self.points[(*place, load, policy)].goodput

    def mean_share(self, place: tuple[str, float, int, str], policy: str) -> float:
        """A policy's goodput as a share of the best schedule's, the mean over all loads."""
        return statistics.mean(
            self.goodput(place, load, policy) / self.goodput(place, load, "optimum") for load in self.loads
        )

    def to_best(self, place: tuple[str, float, int, str], load: float) -> float:
        """Our goodput divided by the best other's."""
        return self.goodput(place, load, OURS) / max(self.goodput(place, load, other) for other in OTHERS)

    def worst(self, place: tuple[str, float, int, str]) -> tuple[float, float]:
        """The least of these ratios over all loads, and its load."""
        return min((self.to_best(place, load), load) for load in self.loads)

    def overload(self, place: tuple[str, float, int, str]) -> float:
        """Our goodput at the highest load, divided by its peak."""
        return self.goodput(place, self.loads[-1], OURS) / max(self.goodput(place, load, OURS) for load in self.loads)


def place_name(place: tuple[str, float, int, str]) -> str:
    """A place's name: the device and its SLO."""
    backend, slo_ms, devices, _ = place
    return f"{f'{devices} × ' if devices > 1 else ''}{backend}, {slo_ms:.0f} ms"


def sheets_of(one: Table, several: Table) -> list[Sheet]:
    """The tables of the comparison."""
    made = [
        Sheet(
            f"Ours over the best of the others, by load; {title}",
            ("device, SLO", "requests", *(f"{load:g}" for load in table.loads)),
            [(place_name(p), p[3], *(round(table.to_best(p, load), 3) for load in table.loads)) for p in table.places],
        )
        for title, table in (("one device", one), ("several devices", several))
    ]
    made.append(
        Sheet(
            "Goodput as a share of the best schedule's that knows the future, mean over all loads",
            ("device, SLO", "requests", OURS, *OTHERS),
            [
                (
                    place_name(p),
                    p[3],
                    *(round(one.mean_share(p, name), 3) for name in (OURS, *OTHERS)),
                )
                for p in one.places
            ],
        )
    )
    shown = [load for load in (0.2, 0.8, 1.0, 3.0) if load in one.loads]
    rows: list[Sequence[Cell]] = []
    for place, load in itertools.product([p for p in one.places if p[3] == "Poisson"], shown):
        for name in (OURS, FIXED, CORK):
            p = one.points[(*place, load, name)]
            figures = (p.goodput / p.capacity, p.p50_ms, p.p99_ms, 100 * p.refused, 100 * p.late, p.mean_batch)
            rows.append((place_name(place), f"{load:g}", name, *(float(f"{value:.3g}") for value in figures)))
    columns = (
        "device, SLO",
        "load",
        "policy",
        "goodput, capacity = 1",
        "p50 ms",
        "p99 ms",
        "refused %",
        "late %",
        "batch",
    )
    made.append(
        Sheet(
            "Goodput (capacity = 1), latency of the answered, shares refused and late; Poisson",
            columns,
            rows,
        )
    )
    return made


def wrong_starts(count: int) -> Sheet:
    """Goodput with wrong warm-up figures, divided by that with right ones. The policy learns meanwhile."""
    rows: list[Sequence[Cell]] = []
    for backend, slo in SEVERAL_SETTINGS:
        for load in (0.9, 2.0):
            series = arrivals.poisson(load * backend.capacity(slo), count, SEED)
            goodputs = [
                simulate(Ours(backend, slo, wrong=wrong), series, backend, slo, seed=SEED).goodput
                for wrong in (1.0, 0.3, 3.0, 10.0)
            ]
            rows.append(
                (f"{backend.name}, {1e3 * slo:.0f} ms", f"{load:g}", *(round(g / goodputs[0], 3) for g in goodputs[1:]))
            )
    title = "Ours, started with warm-up figures that are wrong by a factor, over ours with right ones; Poisson"
    return Sheet(title, ("device, SLO", "load", "× 0.3", "× 3", "× 10"), rows)


def about(count: int) -> str:
    """An introduction to the tables, in markdown."""
    return f"""## Batching policies, simulated

`python -m benchmarks.batching`: {count:,} open-loop requests at each load, of which the first {LEARNING:.0%} (learning)
are not counted; the same requests for every policy (seed {SEED}). Goodput: answers within the SLO, a second. Load and
goodput 1: the largest batch that can be sustained, (1 + 1/devices) · ℓ(b) ≤ SLO. A batch takes ℓ(b) = α·b + β times a
lognormal factor with σ = {NOISE:.0%}. Requests: *Poisson*; *bursts*, a Poisson process five times as fast for a fifth
of the time, in bursts of four SLOs' mean; *clumps*, gamma-distributed gaps with a coefficient of variation of 4. The
best schedule knows all requests in advance, and its batches take exactly ℓ(b): a dynamic program, checked against every
possible schedule of small cases in `tests/benchmarks/test_simulation.py`.

*Ours* is `runners.batching.Batcher` with its learned cost model, the same for all. The others are tuned for each device
and SLO, over all loads and kinds of requests; what each was tuned to is below. CORK is BentoML 1.4.39's dispatcher with
its training and its drop rule; fixed delay is Triton's dynamic batcher with a queue timeout; AIMD is Clipper's, which
runs what will be late; batch 1 drops what can't be in time.
"""


def goals_of(one: Table, several: Table, decisions: Sequence[tuple[float, float]]) -> list[Goal]:
    """The goals of the contest."""
    made = []
    for table, title in ((one, "one device"), (several, "several devices")):
        ratio, load, place = min((*table.worst(place), place) for place in table.places)
        name = f"worst of ours over the best other, {title} ({place_name(place)}, {place[3]}, load {load:g})"
        made.append(at_least(name, ratio, 0.98))
    made.append(at_least("goodput at 3 × capacity over its peak", min(one.overload(p) for p in one.places), 0.9))
    made.append(at_most("admit() with 256 waiting", max(admit for admit, _ in decisions), 20, " µs"))
    made.append(at_most("done() and next() with 256 waiting", max(following for _, following in decisions), 20, " µs"))
    return made
