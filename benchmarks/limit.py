"""`python -m benchmarks.limit`: does `loadtests find-limit` give the limit that this package's own generator gives?

The same server, the same photos, the same rule and the same search, driven in turn by the open loop of
benchmarks/load.py and by Locust. Both share the cores with the server, so the one that costs more finds less.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console

from benchmarks import ours, results
from benchmarks.load import Result, Sample, closed, open_loop
from benchmarks.peers import ROOT
from benchmarks.results import Sheet, at_least, at_most
from harness import photographs
from harness.processes import Usage
from loadtests import capacity, samples
from loadtests.answers import Outcome
from loadtests.session import MIN_ALLOWED

SLO_MS = 100
WARM_UP_S = 2.0
PEAK = 1.2
START_RATE = 50.0
RESOLUTION = 0.03
RULE = capacity.Rule(SLO_MS)
OUTCOMES = {200: Outcome.OK, 429: Outcome.REFUSED}


def by_benchmarks(url: str, bodies: list[bytes], trial_s: float, seed: int) -> capacity.Capacity:
    """The limit as benchmarks/load.py sees it."""
    seeds = itertools.count(seed)

    def trial(rate: float, scale: float) -> capacity.Trial:
        seconds = scale * max(trial_s, RULE.needed(MIN_ALLOWED) / rate)
        misses = Misses(rate * seconds)
        result = open_loop(
            url, bodies, ours.JPEG, rate, WARM_UP_S + seconds, SLO_MS, next(seeds), hopeless=misses.too_many
        )
        kept = _samples(result)
        return capacity.Trial(
            rate,
            samples.summarise("", kept, seconds, SLO_MS),
            RULE.allowed(len(kept)),
            cpu_shares=(result.cpu_share,),
        )

    return capacity.find(trial, START_RATE, RESOLUTION)


class Misses:
    """Counts a trial's misses, so that it ends where no further request can mend it; ``requests``: how many it plans.

    A trial at a rate that no server holds would else last as long as the rate is low: 838 requests at one a second.
    """

    def __init__(self, requests: float) -> None:
        # Poisson arrivals: more than three deviations above the mean are one run in a thousand.
        self._allowed = RULE.allowed(math.ceil(requests + 3 * math.sqrt(requests)))
        self._count = 0

    def too_many(self, sample: Sample) -> bool:
        """Count ``sample``; whether the trial has missed already."""
        missed = sample.status != 200 or 1e3 * sample.latency_s > SLO_MS
        self._count += missed and sample.start_s >= WARM_UP_S
        return self._count > self._allowed


def _samples(result: Result) -> Any:
    """A run's samples after its warm-up, as the load tests keep theirs."""
    # What was never answered has no start, and is a miss.
    kept = [sample for sample in result.samples if sample.start_s >= WARM_UP_S or sample.status not in OUTCOMES]
    rows = np.zeros(len(kept), samples.DTYPE)
    rows["at"] = [sample.start_s for sample in kept]
    rows["latency"] = [sample.latency_s for sample in kept]
    rows["status"] = [sample.status for sample in kept]
    rows["outcome"] = [OUTCOMES.get(sample.status, Outcome.NO_ANSWER) for sample in kept]
    return rows


def by_loadtests(host: str, trial_s: float, seed: int) -> dict[str, Any]:
    """The report of ``loadtests find-limit``, in a process of its own: Locust replaces a process's sockets."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "loadtests", "find-limit", "--host", host, "--mix", "raw=1"]
        command += ["--slo-ms", str(SLO_MS), "--trial-s", str(trial_s), "--start-rate", str(START_RATE)]
        command += ["--resolution", str(RESOLUTION), "--seed", str(seed), "--out", folder]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        report: dict[str, Any] = json.loads((Path(folder) / "report.json").read_text(encoding="utf-8"))
    return report


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="How often each searches.")
@click.option("--quick", is_flag=True, help="A smoke test: one round of short trials.")
def main(rounds: int, quick: bool) -> None:
    """Search for the same limit with two generators; the last line of stdout is one JSON object."""
    trial_s, rounds = (3.0, 1) if quick else (10.0, rounds)
    found = photographs.read()
    bodies = found.bodies
    progress = Console(stderr=True)
    rows: list[dict[str, float]] = []
    others: list[float] = []
    with ours.running(slo_ms=SLO_MS) as service:
        host = f"http://127.0.0.1:{service.port}"
        closed(service.url, bodies, ours.JPEG, 8, 3.0)
        for number in range(rounds):
            # In turns, so that a machine that slows down favours neither.
            if number % 2:
                theirs = by_loadtests(host, trial_s, 100 * number)
            usage = Usage(service.tree)
            bench = by_benchmarks(service.url, bodies, trial_s, 100 * number)
            others.append(usage.stop()[1])
            if not number % 2:
                theirs = by_loadtests(host, trial_s, 100 * number)
            peak = open_loop(service.url, bodies, ours.JPEG, PEAK * bench.rate, trial_s, SLO_MS, number)
            row = {
                "benchmarks": bench.rate,
                "loadtests": theirs["limit"],
                "ratio": theirs["limit"] / bench.rate,
                "peak_goodput": peak.goodput,
                "to_peak": theirs["limit"] / peak.goodput,
                "benchmarks_cpu": bench.best.cpu_shares[0],
                "loadtests_cpu": max(theirs["generator"]["cpu_shares"]),
            }
            rows.append(row)
            progress.print(f"  round {number + 1}: {row}", markup=False)
    ratio = statistics.median(row["ratio"] for row in rows)
    sheet = Sheet(
        f"The highest rate that holds 99 % within {SLO_MS} ms, found by two generators on the server's own cores",
        ("round", *rows[0]),
        [[number + 1, *row.values()] for number, row in enumerate(rows)],
    )
    goals = [
        at_least("limit by loadtests, to the limit by benchmarks", ratio, 0.9),
        at_most("limit by loadtests, to the limit by benchmarks", ratio, 1.1),
    ]
    results.finish("limit", {"slo_ms": SLO_MS, "ratio": ratio, "rounds": rows}, [sheet], goals, max(others), found)


if __name__ == "__main__":
    main()
