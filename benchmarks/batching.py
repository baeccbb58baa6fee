"""`python -m benchmarks.batching`: goodput of our batching policy beside others', and beside the best there can be.

A simulation, so it needs no GPU and gives the same figures anywhere: open-loop requests at 0.2 to 3 times what a device
can sustain, evenly random and bursty, over devices of known α and β. Each other policy has its knobs tuned for each
device and SLO, on other requests; ours has none. What counts is goodput: requests answered within the SLO, a second.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks import results
from benchmarks.policies import Ours
from benchmarks.results import Cell, Goal, Sheet, at_least, at_most
from benchmarks.simulation import LEARNING, NOISE, Backend, poisson, simulate
from benchmarks.tuning import AIMD, ARRIVALS, CORK, FIXED, ONE, OTHERS, OURS, SEED, best_goodput, run, tuned
from runners.batching import Batcher, Job
from runners.cost_model import CostModel

if TYPE_CHECKING:
    from collections.abc import Sequence

CPU = Backend(
    "CPU thread", 11e-3, 0.3e-3, 32, "measured: this service's int8 ResNet18 at 224 px, one thread, AVX512-VNNI"
)
T4 = Backend(
    "T4",
    0.2261e-3,
    0.7839e-3,
    128,
    "ResNet18, TensorRT FP16 on a T4: 1.01 ms for 1, 8.02 ms for 32 images (github.com/libingwei/AI-Infer-Acc, release "
    "v0.1.0); the line through both",
)
A100 = Backend(
    "A100",
    0.2515e-3,
    1.794e-3,
    128,
    "ResNet50, ONNX Runtime with TensorRT FP16 in Triton on an A100 80GB: 2.128, 2.194, 2.759, 3.895, 5.793 ms for 1, "
    "2, 4, 8, 16 images (NVIDIA/DeepLearningExamples, PyTorch/Classification/ConvNets/triton/resnet50/README.md, "
    "offline); least squares. Requests and copies included: a device whose β rules",
)
SETTINGS = ((CPU, 0.1), (T4, 0.025), (T4, 0.05), (A100, 0.01), (A100, 0.025), (A100, 0.05))
LOADS = (0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0)
REQUESTS = 20_000
# The check with several devices.
DEVICES, SEVERAL_SETTINGS, SEVERAL_LOADS = (2, 4), ((CPU, 0.1), (T4, 0.025), (A100, 0.025)), (0.6, 0.8, 1.0, 1.25, 2.0)


@dataclass(frozen=True)
class Point:
    """What one policy came to at one load; goodput and capacity in images a second."""

    backend: str
    slo_ms: float
    devices: int
    arrivals: str
    load: float
    policy: str
    goodput: float
    capacity: float
    p50_ms: float
    p99_ms: float
    late: float
    refused: float
    mean_batch: float


def compare(
    settings: Sequence[tuple[Backend, float]], devices: int, loads: Sequence[float], count: int, quick: bool
) -> tuple[list[Point], list[tuple[str, float, int, str, str]]]:
    """All policies, and the best schedule, at all loads; and the settings they were tuned to."""
    points, knobs = [], []
    for backend, slo in settings:
        capacity = backend.capacity(slo, devices)
        policies = tuned(backend, slo, devices, quick)
        knobs += [(backend.name, 1e3 * slo, devices, name, label) for name, (label, _) in policies.items() if label]
        for (arrival, arrive), load in itertools.product(ARRIVALS.items(), loads):
            series = arrive(load * capacity, count, slo, SEED)
            key = (backend.name, 1e3 * slo, devices, arrival, load)
            if devices == 1:
                best = best_goodput(series, backend, slo, devices)
                points.append(Point(*key, "optimum", best, capacity, *[math.nan] * 5))
            for name, (_, make) in policies.items():
                made = run(make, series, backend, slo, devices, name == CORK)
                points.append(
                    Point(
                        *key,
                        name,
                        made.goodput,
                        capacity,
                        1e3 * made.p50,
                        1e3 * made.p99,
                        made.late,
                        made.refused,
                        made.mean_batch,
                    )
                )
    return points, knobs


class Table:
    """The points, to be looked up."""

    def __init__(self, points: Sequence[Point]) -> None:
        self.points = {(p.backend, p.slo_ms, p.devices, p.arrivals, p.load, p.policy): p for p in points}
        self.loads = sorted({p.load for p in points})
        self.places = list(dict.fromkeys((p.backend, p.slo_ms, p.devices, p.arrivals) for p in points))

    def goodput(self, place: tuple[str, float, int, str], load: float, policy: str) -> float:
        """Images a second within the SLO."""
        return self.points[(*place, load, policy)].goodput

    def mean_share(self, place: tuple[str, float, int, str], policy: str) -> float:
        """Of the best schedule's goodput, mean over the loads."""
        return statistics.mean(
            self.goodput(place, load, policy) / self.goodput(place, load, "optimum") for load in self.loads
        )

    def to_best(self, place: tuple[str, float, int, str], load: float) -> float:
        """Ours, over the best of the others."""
        return self.goodput(place, load, OURS) / max(self.goodput(place, load, other) for other in OTHERS)

    def worst(self, place: tuple[str, float, int, str]) -> tuple[float, float]:
        """The least of those ratios over all loads, and its load."""
        return min((self.to_best(place, load), load) for load in self.loads)

    def overload(self, place: tuple[str, float, int, str]) -> float:
        """Our goodput at the highest load, over its peak."""
        return self.goodput(place, self.loads[-1], OURS) / max(self.goodput(place, load, OURS) for load in self.loads)


def place_name(place: tuple[str, float, int, str]) -> str:
    """A device and its SLO."""
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
    """Goodput with warm-up figures that are wrong, over that with right ones: learning included."""
    rows: list[Sequence[Cell]] = []
    for backend, slo in SEVERAL_SETTINGS:
        for load in (0.9, 2.0):
            series = poisson(load * backend.capacity(slo), count, slo, SEED)
            goodputs = [
                simulate(Ours(backend, slo, wrong=wrong), series, backend, slo, seed=SEED).goodput
                for wrong in (1.0, 0.3, 3.0, 10.0)
            ]
            rows.append(
                (f"{backend.name}, {1e3 * slo:.0f} ms", f"{load:g}", *(round(g / goodputs[0], 3) for g in goodputs[1:]))
            )
    title = "Ours, started with warm-up figures that are wrong by a factor, over ours with right ones; Poisson"
    return Sheet(title, ("device, SLO", "load", "× 0.3", "× 3", "× 10"), rows)


def decisions_us(backend: Backend, waiting: int) -> tuple[float, float]:
    """Microseconds of this machine that admit(), and done() with next(), take while ``waiting`` images wait."""
    slo = 10 * waiting * backend.seconds(1)
    cost = CostModel({size: backend.seconds(size) for size in (1, 2, 4, 8, 16, 32)})
    batcher = Batcher(cost, budget=slo, max_batch=backend.max_batch, max_queue=10**6)
    batcher.admit([Job(0.0, slo)], 0.0)
    running, _ = batcher.next(0.0)
    assert running is not None
    batcher.admit([Job(0.0, slo) for _ in range(waiting)], 0.0)
    jobs = [Job(0.0, slo + number * 1e-6) for number in range(2000)]
    begin = time.perf_counter()
    for job in jobs:
        batcher.admit([job], 0.0)
    # With what was admitted meanwhile, the queue has been longer than ``waiting``: the figure is on the safe side.
    admit = (time.perf_counter() - begin) / len(jobs)
    for job in jobs:
        batcher.cancel(job)
    took, now, count = 0.0, 0.0, 0
    for _ in range(500):
        now += backend.seconds(len(running.jobs))
        begin = time.perf_counter()
        batcher.done(running, now)
        following, _ = batcher.next(now)
        took, count = took + time.perf_counter() - begin, count + 1
        assert following is not None
        running = following
        batcher.admit([Job(now, now + slo) for _ in running.jobs], now)
    return 1e6 * admit, 1e6 * took / count


def chart(data: dict[str, Any]) -> Any:
    """Goodput over offered load of each device, SLO and kind of requests, as matplotlib's figure."""
    import matplotlib.pyplot as plt  # type: ignore[import-not-found, unused-ignore]

    colours = {OURS: "#0b6e4f", FIXED: "#5b7db1", CORK: "#d98324", AIMD: "#b0488e", ONE: "#9aa5b1"}
    points = [point for point in data["points"] if point["devices"] == 1]
    places = list(dict.fromkeys((point["backend"], point["slo_ms"]) for point in points))
    kinds = list(dict.fromkeys(point["arrivals"] for point in points))
    figure, axes = plt.subplots(
        len(places), len(kinds), figsize=(4.2 * len(kinds), 2.7 * len(places)), sharex=True, squeeze=False
    )
    for (row, (backend, slo_ms)), (column, kind) in itertools.product(enumerate(places), enumerate(kinds)):
        axis = axes[row][column]
        here = [p for p in points if (p["backend"], p["slo_ms"], p["arrivals"]) == (backend, slo_ms, kind)]
        for policy in ("optimum", *OTHERS, OURS):
            line = sorted((p["load"], p["goodput"] / p["capacity"]) for p in here if p["policy"] == policy)
            style = {"color": "black", "linestyle": ":"} if policy == "optimum" else {"color": colours[policy]}
            label = "best schedule, knowing the future" if policy == "optimum" else policy
            axis.plot(*zip(*line, strict=True), label=label, linewidth=2.2 if policy == OURS else 1.2, **style)
        axis.set(ylim=(0, 1.25), title=f"{backend}, SLO {slo_ms:.0f} ms, {kind}")
        if column == 0:
            axis.set_ylabel("goodput, capacity = 1")
        if row == len(places) - 1:
            axis.set_xlabel("offered load, capacity = 1")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="upper center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.965))
    return figure


def draw(data: dict[str, Any], path: Path) -> None:
    """Write the chart; the same data give the same file."""
    import matplotlib  # type: ignore[import-not-found, unused-ignore]

    matplotlib.use("agg")
    with matplotlib.rc_context({"axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "resnet18"}):
        chart(data).savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def about(count: int) -> str:
    """What the tables are of, in markdown."""
    return f"""## Batching policies, simulated

`python -m benchmarks.batching`: {count:,} open-loop requests at each load, of which the first {LEARNING:.0%} (learning)
are not counted; the same requests for every policy (seed {SEED}). Goodput: answers within the SLO, a second. Load and
goodput 1: the largest batch that can be sustained, (1 + 1/devices) · ℓ(b) ≤ SLO. A batch takes ℓ(b) = α·b + β times a
lognormal factor with σ = {NOISE:.0%}. Requests: *Poisson*; *bursts*, a Poisson process five times as fast for a fifth
of the time, in bursts of four SLOs' mean; *clumps*, gamma-distributed gaps with a coefficient of variation of 4. The
best schedule knows all requests in advance, and its batches take exactly ℓ(b): a dynamic program, checked against every
possible schedule of small cases in `tests/runners/test_batching.py`.

*Ours* is `runners.batching.Batcher` with its learned cost model, the same for all. The others are tuned for each device
and SLO, over all loads and kinds of requests; what each was tuned to is below. CORK is BentoML 1.4.39's dispatcher with
its training and its drop rule; fixed delay is Triton's dynamic batcher with a queue timeout; AIMD is Clipper's, which
runs what will be late; batch 1 drops what can't be in time.
"""


def goals_of(one: Table, several: Table, decisions: Sequence[tuple[float, float]]) -> list[Goal]:
    """What was promised."""
    made = []
    for table, title in ((one, "one device"), (several, "several devices")):
        ratio, load, place = min((*table.worst(place), place) for place in table.places)
        name = f"worst of ours over the best other, {title} ({place_name(place)}, {place[3]}, load {load:g})"
        made.append(at_least(name, ratio, 0.98))
    made.append(at_least("goodput at 3 × capacity over its peak", min(one.overload(p) for p in one.places), 0.9))
    made.append(at_most("admit() with 256 waiting", max(admit for admit, _ in decisions), 20, " µs"))
    made.append(at_most("done() and next() with 256 waiting", max(following for _, following in decisions), 20, " µs"))
    return made


@click.command()
@click.option("--quick", is_flag=True, help="A smoke test: few requests and loads.")
@click.option(
    "--chart", "chart_path", type=click.Path(path_type=Path), help="Draw goodput over load; needs matplotlib."
)
@click.option("--markdown", "markdown_path", type=click.Path(path_type=Path), help="Write the tables as markdown.")
def main(quick: bool, chart_path: Path | None, markdown_path: Path | None) -> None:
    """Compare batching policies in a simulation; the last line of stdout is one JSON object."""
    begin = time.monotonic()
    loads, count = ((0.6, 1.0, 3.0), 2_000) if quick else (LOADS, REQUESTS)
    points, knobs = compare(SETTINGS, 1, loads, count, quick)
    more: list[Point] = []
    for devices in DEVICES:
        found, chosen = compare(SEVERAL_SETTINGS, devices, loads if quick else SEVERAL_LOADS, count // 2, quick)
        more, knobs = more + found, knobs + chosen
    decisions = [decisions_us(backend, 256) for backend in (CPU, T4, A100)]
    one, several = Table(points), Table(more)
    sheets = [
        *sheets_of(one, several),
        wrong_starts(count),
        Sheet("What each was tuned to", ("device", "SLO ms", "devices", "policy", "setting"), knobs),
        Sheet(
            "The devices: ℓ(b) = α·b + β",
            ("device", "α ms", "β ms", "max batch", "from"),
            [(b.name, 1e3 * b.alpha, 1e3 * b.beta, b.max_batch, b.source) for b in (CPU, T4, A100)],
        ),
    ]
    data = {
        "requests": count,
        "noise": NOISE,
        "seed": SEED,
        "points": [
            {key: None if value != value else value for key, value in asdict(point).items()} for point in points + more
        ],
        "decisions_us": {"admit": [a for a, _ in decisions], "done_and_next": [n for _, n in decisions]},
        "seconds": round(time.monotonic() - begin, 1),
    }
    goals = goals_of(one, several, decisions)
    if markdown_path:
        goal_sheet = results.goal_sheet([{"benchmark": "batching", **goal.body()} for goal in goals])
        parts = [about(count), *(results.markdown(sheet) for sheet in (goal_sheet, *sheets))]
        markdown_path.write_text("\n".join(parts), encoding="utf-8")
    if chart_path:
        draw(data, chart_path)
    results.finish("batching", data, sheets, goals, 0.0)


if __name__ == "__main__":
    main()
