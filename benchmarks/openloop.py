"""`python -m benchmarks.openloop`: what users see when they don't wait for each other.

Poisson arrivals at 70 % of what the bare loop can do; then, with a service level of 100 ms, over a sweep of rates;
then three times more than it can do, and the seconds after that.
"""

from __future__ import annotations

import heapq
import math
import statistics
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from benchmarks import artifact, ours, results
from benchmarks.bare import Bare, bare
from benchmarks.load import Result, Sample, closed, open_loop
from benchmarks.results import Goal, Sheet, at_least, at_most
from classifier.runtimes import DEFAULT, RUNTIMES
from harness import photographs
from harness.figures import quantile
from harness.machine import cores
from harness.processes import Usage

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_ENGINE = RUNTIMES[DEFAULT].engines[0]
SLO_MS = 100
STEADY_SHARE = 0.7
OVERLOAD = 3.0
PROBE_SHARE = 0.3
PROBE_SECONDS = 5.0
SHARES = (0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0, 1.2)
# Beyond what ONNX Runtime's bare loop can do, for a faster engine.
FURTHER = (1.4, 1.6, 1.8)
WARM_UP_SECONDS = 3.0


class _Bench:
    """One run: the load of one service after the other, with the bare loop in between."""

    def __init__(self, quick: bool, engine: str, workers: int) -> None:
        self.artifact: Path = artifact.ready().file
        self.photographs = photographs.read()
        self.bodies = self.photographs.bodies
        self.step_s, self.steady_s, self.overload_s = (2.0, 4.0, 6.0) if quick else (6.0, 20.0, 60.0)
        self.settings: dict[str, Any] = {"engine": engine, "workers": workers}
        self.shares = SHARES[2::3] if quick else SHARES + (() if engine == DEFAULT_ENGINE else FURTHER)
        self.bare_s = 1.0 if quick else 1.5
        self.others: list[float] = []
        self.yardsticks: list[Bare] = []
        self.progress = Console(stderr=True)

    def bare_rate(self) -> float:
        """The images a second of ONNX Runtime's bare loop just now, whichever engine serves."""
        self.yardsticks.append(bare(self.artifact, self.bodies, self.bare_s, cores()))
        return self.yardsticks[-1].images_s

    def open(
        self, service: ours.Service, rate: float, seconds: float, seed: int, then: tuple[float, float] = (0.0, 0.0)
    ) -> Result:
        """Poisson load, with what others take meanwhile."""
        usage = Usage(service.tree)
        result = open_loop(service.url, self.bodies, ours.JPEG, rate, seconds, SLO_MS, seed, then=then)
        self.others.append(usage.stop()[1])
        self.progress.print(
            f"  {rate:.0f}/s for {seconds:.0f} s: goodput {result.goodput:.1f}/s, p99 {result.p99_ms:.0f} ms",
            markup=False,
        )
        return result

    def warmed(self, service: ours.Service) -> None:
        """Load a fresh service until its batcher knows what a batch costs."""
        closed(service.url, self.bodies, ours.JPEG, 8, WARM_UP_SECONDS)

    def steady(self) -> dict[str, Any]:
        """70 % of the bare rate, with the settings of `make serve`."""
        with ours.running(**self.settings) as service:
            self.warmed(service)
            single = closed(service.url, self.bodies, ours.JPEG, 1, self.steady_s / 4)
            rate = self.bare_rate()
            result = self.open(service, STEADY_SHARE * rate, self.steady_s, seed=1)
        refused = sum(count for status, count in result.statuses.items() if status != 200)
        # One photo's time depends on its size: the mean is that of the mix that is sent.
        times = [
            [1e3 * one.latency_s for one in single.samples[at :: len(self.bodies)]] for at in range(len(self.bodies))
        ]
        known = [statistics.fmean(values) for values in times if values]
        return {
            **result.summary(),
            "bare": rate,
            "single_ms": statistics.fmean(known),
            "ideal_p99_ms": _ideal_p99([sample.start_s for sample in result.samples], known),
            "not_200": refused,
        }

    def sweep(self, service: ours.Service) -> list[dict[str, Any]]:
        """Goodput within the SLO at shares of the bare rate, the bare loop measured before and after each."""
        points = []
        for number, share in enumerate(self.shares):
            rate = self.bare_rate()
            result = self.open(service, share * rate, self.step_s, seed=10 + number)
            after = self.bare_rate()
            points.append({"share": share, "bare": rate, "to_bare": _ratio(result, rate, after), **result.summary()})
        return points

    def overload(self, service: ours.Service, peak_to_bare: float) -> dict[str, Any]:
        """Three times the bare rate, and how soon after its end every answer is in time again."""
        rate = self.bare_rate()
        then = (PROBE_SHARE * rate, PROBE_SECONDS)
        result = self.open(service, OVERLOAD * rate, self.overload_s, seed=100, then=then)
        to_bare = _ratio(result, rate, self.bare_rate())
        answered = [1e3 * sample.latency_s for sample in result.samples if sample.status in (200, 429)]
        wrong = sum(count for status, count in result.statuses.items() if status not in (200, 429))
        bad = [sample for sample in result.after if sample.status != 200 or 1e3 * sample.latency_s > SLO_MS]
        return {
            **result.summary(),
            "bare": rate,
            "to_bare": to_bare,
            "to_peak": to_bare / peak_to_bare if peak_to_bare else math.nan,
            "wrong_statuses": wrong,
            "late_share": result.late / max(1, len(answered)),
            "answer_p99_ms": quantile(answered, 0.99),
            "answer_max_ms": quantile(answered, 1.0),
            "recovery_s": max((sample.start_s + sample.latency_s - self.overload_s for sample in bad), default=0.0),
            "probe_requests": len(result.after),
            "timeline": _timeline([*result.samples, *result.after], self.overload_s + PROBE_SECONDS),
        }


def _ideal_p99(arrivals: list[float], times: list[float]) -> float:
    """The p99 in ms of a queue without any cost: each request has a core to itself for as long as it takes alone.

    What no server of so many cores can be much better than, however it is written.
    """
    free, latencies = [0.0] * cores(), []
    for number, arrival in enumerate(sorted(arrivals)):
        done = max(1e3 * arrival, heapq.heappop(free)) + times[number % len(times)]
        heapq.heappush(free, done)
        latencies.append(done - 1e3 * arrival)
    return quantile(latencies, 0.99)


def _ratio(result: Result, before: float, after: float) -> float:
    """Goodput to the bare loops just before and after, so that a machine that slows down slows both."""
    return 2 * result.goodput / (before + after)


def _timeline(samples: list[Sample], seconds: float) -> list[dict[str, float]]:
    """Per second of intended sending: requests, those good within the SLO, those refused."""
    bins = [{"second": at, "sent": 0, "good": 0, "refused": 0} for at in range(math.ceil(seconds))]
    for sample in samples:
        one = bins[min(len(bins) - 1, int(sample.start_s))]
        one["sent"] += 1
        one["good"] += sample.status == 200 and 1e3 * sample.latency_s <= SLO_MS
        one["refused"] += sample.status == 429
    return [{**one} for one in bins]


def _goals(steady: dict[str, Any], peak: dict[str, Any], overload: dict[str, Any]) -> list[Goal]:
    name = f"goodput within {SLO_MS} ms"
    return [
        at_most("p99 to one request's time at 70 % of bare", steady["p99_ms"] / steady["single_ms"], 4.0),
        at_most("not answered with 200 at 70 % of bare", steady["not_200"], 0),
        at_least(f"peak {name} to bare", peak["to_bare"], 0.85),
        at_least(f"{name} at 3 × bare, to its peak", overload["to_peak"], 0.9),
        at_most("answers at 3 × bare other than 200 or 429", overload["wrong_statuses"], 0),
        at_most("p99 of all answers at 3 × bare", overload["answer_p99_ms"], SLO_MS, " ms"),
        at_most("slowest answer at 3 × bare", overload["answer_max_ms"], SLO_MS, " ms"),
        at_most("recovery after the overload", overload["recovery_s"], 2.0, " s"),
    ]


def _sheets(steady: dict[str, Any], points: list[dict[str, Any]], overload: dict[str, Any]) -> list[Sheet]:
    rows = [("70 % steady, default SLO", steady), *((f"{point['share']:.0%} sweep", point) for point in points)]
    rows.append((f"{OVERLOAD:.0%} overload", overload))
    columns = ("offered", "goodput", "p50_ms", "p99_ms", "max_ms", "late", "lag_p99_ms", "cpu_share")
    return [
        Sheet(
            f"Open loop at shares of the bare rate; late: past {SLO_MS} ms; lag: of the generator",
            (
                "load",
                "bare/s",
                "req/s",
                "goodput",
                "p50 ms",
                "p99 ms",
                "max ms",
                "late",
                "lag ms",
                "gen CPU",
                "statuses",
            ),
            [
                [
                    name,
                    data["bare"],
                    *(data[key] for key in columns),
                    " ".join(f"{status}:{count}" for status, count in data["statuses"].items()),
                ]
                for name, data in rows
            ],
        ),
        Sheet(
            "70 % of bare: one request alone, and a queue of a core each that costs nothing, fed the same",
            ("alone ms", "p99 ms", "ideal queue's p99 ms", "p99 / alone", "ideal / alone"),
            [
                [
                    *(steady[key] for key in ("single_ms", "p99_ms", "ideal_p99_ms")),
                    *(steady[key] / steady["single_ms"] for key in ("p99_ms", "ideal_p99_ms")),
                ]
            ],
        ),
        Sheet(
            "Overload: all answers, and the end of it",
            ("answers' p99 ms", "slowest ms", "past the SLO", "recovery s", "probes after it"),
            [
                [
                    *(overload[key] for key in ("answer_p99_ms", "answer_max_ms", "late_share", "recovery_s")),
                    overload["probe_requests"],
                ]
            ],
        ),
    ]


@click.command()
@click.option("--quick", is_flag=True, help="A smoke test: a few seconds of each load.")
@click.option(
    "--engine",
    type=click.Choice(RUNTIMES[DEFAULT].engines),
    default=DEFAULT_ENGINE,
    show_default=True,
    help="What the service infers with. The bare loop stays ONNX Runtime's.",
)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="The service's API workers.")
def main(quick: bool, engine: str, workers: int) -> None:
    """Measure the service under Poisson arrivals; the last line of stdout is one JSON object."""
    bench = _Bench(quick, engine, workers)
    steady = bench.steady()
    with ours.running(slo_ms=SLO_MS, **bench.settings) as service:
        bench.warmed(service)
        points = bench.sweep(service)
        peak = max(points, key=lambda point: float(point["to_bare"]))
        overload = bench.overload(service, peak["to_bare"])
        batcher = service.model()["runner"]["batcher"]
    data = {
        "slo_ms": SLO_MS,
        **bench.settings,
        "steady": steady,
        "sweep": points,
        "overload": overload,
        "batcher": batcher,
    }
    stolen = max(cores() * (1 - one.cpu_share) for one in bench.yardsticks)
    sheets = _sheets(steady, points, overload)
    others = max([*bench.others, stolen])
    results.finish("openloop", data, sheets, _goals(steady, peak, overload), others, bench.photographs)


if __name__ == "__main__":
    main()
