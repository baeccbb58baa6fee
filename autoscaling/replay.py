"""``python -m autoscaling replay``: the prediction against real processes on this machine."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from autoscaling import gaps, live, manifests, output, traces
from autoscaling.cluster import Cluster, ClusterError
from autoscaling.console import console
from autoscaling.fields import ManifestError
from autoscaling.hpa import Autoscaler, Offered
from autoscaling.output import OutputError
from autoscaling.request import EXAMPLE

if TYPE_CHECKING:
    from autoscaling.live import Measured, Plan, Total

ROOT = Path(__file__).resolve().parents[1]
SERVE = f"{sys.executable} -m bentoml serve benchmarks.paced:ResNet18 --host 127.0.0.1 --port {{port}}"
RULES = ROOT / "deploy" / "kubernetes" / "overlays" / "cpu"
# Scale of the trace, so that its own noise is small; --peak says how much is sent.
SCALE = 100.0
IMAGE = ROOT / "web" / "samples" / "boat.jpg"
# As a share of a pod's rate, the same as in RULES.
TARGET = 0.87
# The metric's age in plans, and here, where it is half of the time between two scrapes.
LAGS = (15, 8)
# The goals: a share of the pod-seconds; for late images a factor, or so many per cent of the images.
NEAR, FACTOR, POINTS = 0.05, 1.5, 0.05
FILE = "replay.json"


@click.command(context_settings={"max_content_width": 110, "show_default": True})
@click.option("--minutes", type=float, default=20.0, help="Minutes of the run, besides two of lead.")
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    default=EXAMPLE,
    show_default="New York's taxis",
    help="A trace as plan takes it: counts, or timestamp,count.",
)
@click.option(
    "--step", "step_s", type=click.IntRange(1), help="Seconds of a step of the trace.  [default: its own, or 1]"
)
@click.option("--from-hour", type=float, default=5.0, help="The hour of the trace at which to begin.")
@click.option("--compress", type=click.IntRange(1), default=18, help="Seconds of the trace that become one.")
@click.option("--peak", type=float, help="Images a second of the highest minute.  [default: 0.7 of all pods' rate]")
@click.option("--pods", type=click.IntRange(1, 32), default=8, help="The largest number of replicas.")
@click.option("--pod-rate", type=float, default=20.0, help="Images a second that a replica's stand-in engine answers.")
@click.option("--start-s", type=float, default=30.0, help="The fewest seconds from the request for a pod to its start.")
@click.option("--slo-ms", type=click.IntRange(100, 10_000), default=1000, help="RESNET18_SLO_MS of the replicas.")
@click.option(
    "--serve", default=SERVE, show_default="the service with benchmarks/paced.py", help="Command of a replica."
)
@click.option("--seed", type=click.IntRange(0), default=1, help="Seed of the arrivals.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("build/replay"))
def replay(
    minutes: float,
    trace: Path,
    step_s: int | None,
    from_hour: float,
    compress: int,
    peak: float | None,
    pods: int,
    pod_rate: float,
    start_s: float,
    slo_ms: int,
    serve: str,
    seed: int,
    out: Path,
) -> None:
    """Replay a trace against real replicas, scaled by the controller's rules, beside the prediction.

    Needs nginx and prometheus (on Debian: apt-get install --no-install-recommends nginx-light prometheus), and a model
    in the store (make model). In place of the model, replicas wait a known time, so that many fit this machine. HTTP,
    decoding, batcher, metrics and start-up are the service's own.
    """
    try:
        _check(minutes, from_hour, pod_rate, start_s, peak)
        output.check(out)
        offered = gaps.prepare(traces.read(trace, step_s), SCALE).load.offered[round(3600 * from_hour) :]
        counts = live.counts(offered, round(60 * minutes), compress, peak or 0.7 * pods * pod_rate, seed)
        rules = manifests.read(RULES).autoscaler
    except (traces.TraceError, ManifestError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    environment = {
        "RESNET18_THREADS": "1",
        "RESNET18_SLO_MS": str(slo_ms),
        "PACED_ALPHA_MS": f"{1e3 / pod_rate:g}",
        "PYTHONPATH": str(ROOT),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": os.environ.get("BENTOML_HOME", str(ROOT / ".bentoml")),
    }
    body = IMAGE.read_bytes()
    try:
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="replay-"))
            bar = stack.enter_context(Progress(console=Console(stderr=True)))
            task = bar.add_task("measuring what a pod holds", total=len(counts))
            cluster = Cluster(Path(folder), serve, environment, start_s)
            # Pods are processes of their own session: they must be stopped, however this one ends.
            before = signal.signal(signal.SIGTERM, lambda number, _: cluster.end(128 + number))
            stack.callback(signal.signal, signal.SIGTERM, before)
            with cluster:
                live.settled(cluster, 1)
                rate = live.overloaded_rate(cluster, body, pod_rate, cluster.tick)
                if not rate:
                    raise ClusterError("a replica answers no image with 200")
                autoscaler = Autoscaler(rules.minimum, pods, (Offered(TARGET * rate),), rules.up, rules.down)
                plan = live.Plan(counts, autoscaler, rate, slo_ms / 1e3, seed)
                live.settled(cluster, plan.first_size)
                found = live.run(
                    cluster,
                    plan,
                    body,
                    lambda second, wanted, ready: bar.update(
                        task, completed=second, description=f"{ready} of {wanted} pods ready"
                    ),
                )
    except (ClusterError, TimeoutError) as error:
        raise click.UsageError(str(error)) from None
    try:
        _report(console(), plan, found, out)
    except OutputError as error:
        raise click.UsageError(str(error)) from None


def _check(minutes: float, from_hour: float, pod_rate: float, start_s: float, peak: float | None) -> None:
    for name, value, least in (
        ("--minutes", minutes, 0.5),
        ("--from-hour", from_hour, 0.0),
        ("--pod-rate", pod_rate, 0.1),
        ("--start-s", start_s, 0.0),
        ("--peak", 1.0 if peak is None else peak, 0.1),
    ):
        if not least <= value < math.inf:
            raise ValueError(f"{name} {value:g}: it must be {least:g} or more")


def near(measured: Total, predicted: Total) -> tuple[bool, bool]:
    """Whether pod-seconds and the late share are as near to the prediction as the goals say."""
    pods = abs(measured.pod_seconds / predicted.pod_seconds - 1) <= NEAR
    low, high = sorted((measured.late_share, predicted.late_share))
    return pods, high - low <= POINTS / 100 or high <= FACTOR * low


def _report(shown: Console, plan: Plan, found: Measured, out: Path) -> None:
    measured = live.measured_total(plan, found)
    runs = {lag: live.predicted(plan, found.start_s, lag) for lag in LAGS}
    here, course = runs[LAGS[-1]]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("", "pod-seconds", "late or refused", "most pods"):
        table.add_column(name, justify="right" if name else "left")
    named = [("measured", measured)]
    named += [(f"predicted, the metric {lag} s old", total) for lag, (total, _) in runs.items()]
    for name, total in named:
        table.add_row(name, f"{total.pod_seconds:,.0f}", f"{100 * total.late_share:.2f} %", str(total.most))
    shown.print(table)
    seconds = slice(live.LEAD_S, len(plan.counts))
    apart = abs(course.wanted - found.wanted)[seconds].mean()
    pods_near, late_near = near(measured, here)
    held = f" and {found.held:.1f} while the fleet refused" if found.held else ""
    offered = plan.counts[seconds].sum()
    lines = [
        f"Of {offered:,} images {found.refused:,} were refused and {found.unanswered:,} got no right answer; 99 % were "
        f"sent within {1e3 * found.send_p99_s:.0f} ms of their time.",
        f"A pod answered {plan.rate:.1f} images a second when it was asked alone{held}, and was ready "
        f"{found.start_s:.0f} s after it was asked for (median; at most {found.start_most_s:.0f} s).",
        f"In an average second {apart:.2f} pods more or fewer were wanted than predicted with the metric {LAGS[-1]} s "
        f"old: here the controller asks Prometheus itself, which has scraped {LAGS[-1]} s ago on average.",
        f"Pod-seconds {measured.pod_seconds / here.pod_seconds - 1:+.1%} of that prediction (goal 5 %: "
        f"{'met' if pods_near else 'missed'}); late or refused {100 * (measured.late_share - here.late_share):+.2f} "
        f"points (goal a factor of {FACTOR:g} or {POINTS:g} points: {'met' if late_near else 'missed'}).",
    ]
    for line in lines:
        shown.print(line, soft_wrap=True)
    body = {
        "measured": asdict(measured),
        "predicted": {str(lag): asdict(total) for lag, (total, _) in runs.items()},
        "pod_rate": plan.rate,
        "pod_rate_while_refusing": found.held,
        "start_s": found.start_s,
        "start_most_s": found.start_most_s,
        "refused": found.refused,
        "unanswered": found.unanswered,
        "failed_queries": found.failed_queries,
        "reasons": found.reasons,
        "seconds": {
            "offered": plan.counts.tolist(),
            "wanted": found.wanted.tolist(),
            "ready": found.ready.tolist(),
            "late": found.late.tolist(),
            "predicted_wanted": course.wanted.tolist(),
            "predicted_ready": course.ready.tolist(),
            "predicted_late": course.late.tolist(),
        },
    }
    with output.writing(out):
        output.put(out, lambda folder: (folder / FILE).write_text(json.dumps(body)))
    shown.print(f"Every second: {out / FILE}", soft_wrap=True)
