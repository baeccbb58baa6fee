"""Some minutes of a load against real replicas, scaled by the controller's own decisions, and the prediction.

Replicas run behind the project's nginx, and a Prometheus scrapes them. Every 15 s ``hpa.decide`` decides in place of
the controller, from that Prometheus' answers. The prediction is ``fleet.simulate`` of the same arrivals.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from autoscaling import fleet, prometheus, queries, sender
from autoscaling.hpa import SYNC_S, Autoscaler, Offered, State, decide
from autoscaling.sync import History
from harness import arrivals, figures

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from autoscaling.cluster import Cluster, Pod
    from autoscaling.sender import Answers

# The load's first seconds, at the rate that it begins with, in which the metric's window fills; they are not judged.
LEAD_S = 90
# The margin of the SLO that the batcher does not use (runners/budget.py, MARGIN).
KEPT = 0.15
TICK_S = 0.5
# Windows of seconds in which a pod's rate is counted: the first settles, and the median forgets what else befell one.
_WINDOW_S, _WINDOWS = 5, 7
_READY_S = 180.0


@dataclass(frozen=True)
class Plan:
    """What is replayed: images a second int64[n], LEAD_S among them, from ``autoscaler``'s pods of ``rate`` each."""

    counts: NDArray[np.int64]
    autoscaler: Autoscaler
    rate: float
    slo_s: float
    seed: int

    @property
    def first_size(self) -> int:
        """The pods at the beginning, the same as in the simulation."""
        size = math.ceil(float(self.counts[:60].mean()) / (0.7 * self.rate))
        return min(max(size, self.autoscaler.minimum), self.autoscaler.maximum)


@dataclass
class Measured:
    """What was found: by second of the load pods ``wanted`` and ``ready``, images ``late`` or refused, float64[n].

    After LEAD_S images ``refused`` with 429 and ``unanswered``; ``held``: what a ready pod answered in a second in
    which some were refused, the median, None where none were. ``start_s``: from asking for a pod to its being ready.
    """

    wanted: NDArray[np.float64]
    ready: NDArray[np.float64]
    late: NDArray[np.float64]
    refused: int
    unanswered: int
    send_p99_s: float
    held: float | None
    start_s: float
    start_most_s: float
    failed_queries: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Total:
    """A run in three numbers, LEAD_S left out: ``late_share`` is of the images offered."""

    pod_seconds: float
    late_share: float
    most: int


def counts(offered: NDArray[np.float64], seconds: int, compress: int, peak: float, seed: int) -> NDArray[np.int64]:
    """A load of LEAD_S + ``seconds`` from rates ``offered`` each second: int64[n], Poisson.

    ``compress`` seconds become one; the highest minute then has ``peak`` images a second. Raises ValueError.
    """
    needed = seconds * compress
    if len(offered) < needed:
        raise ValueError(f"{len(offered)} seconds of trace from there on; {needed} are needed")
    rates = offered[:needed].reshape(-1, compress).mean(axis=1)
    width = min(60, seconds)
    highest = float(np.convolve(rates, np.full(width, 1 / width), "valid").max())
    if not highest > 0:
        raise ValueError("no image in this part of the trace")
    rates = rates * (peak / highest)
    return np.random.default_rng(seed).poisson(np.concatenate((np.full(LEAD_S, rates[:15].mean()), rates)))


def overloaded_rate(cluster: Cluster, body: bytes, nominal: float, tick: Callable[[], None]) -> float:
    """Images a second that the one pod of ``cluster`` answers when it is sent twice ``nominal``, which takes 35 s."""
    planned = np.arange(0, _WINDOW_S * _WINDOWS, 1 / (2 * nominal))
    answers = _sending(cluster.pods[0].port, body, planned, time.monotonic(), tick)
    done = (answers.planned + answers.latency)[answers.status == 200]
    windows = np.bincount((done / _WINDOW_S).astype(int), minlength=_WINDOWS)[1:_WINDOWS]
    return float(np.median(windows)) / _WINDOW_S


def settled(cluster: Cluster, pods: int) -> None:
    """Return when ``pods`` are ready. Raises ClusterError, or TimeoutError after three minutes."""
    cluster.scale(pods)
    end = time.monotonic() + _READY_S
    while cluster.ready < pods:
        if time.monotonic() > end:
            raise TimeoutError(f"{cluster.ready} of {pods} replicas are ready after {_READY_S:.0f} s")
        cluster.tick()
        time.sleep(TICK_S)


def run(cluster: Cluster, plan: Plan, body: bytes, told: Callable[[float, int, int], None]) -> Measured:
    """Send the load of ``plan`` and scale ``cluster`` as the controller would; ``told``: second, wanted, ready.

    Raises ClusterError.
    """
    length = len(plan.counts)
    wanted, ready = np.zeros(length), np.zeros(length)
    history = History()
    reasons: dict[str, int] = {}
    failed, synced = 0, -1
    start = time.monotonic() + 1

    def tick() -> None:
        nonlocal history, failed, synced
        now = time.monotonic() - start
        if now < 0:
            return
        second = min(int(now), length - 1)
        if second // SYNC_S > synced and now < length:
            synced = second // SYNC_S
            values = [_value(cluster, trigger) for trigger in plan.autoscaler.triggers]
            failed += values.count(None)
            state = State(cluster.wanted, cluster.ready, history)
            decision = decide(plan.autoscaler, state, values, time.time())
            history = decision.history
            reasons[decision.reason] = reasons.get(decision.reason, 0) + 1
            cluster.scale(decision.replicas)
        else:
            cluster.tick()
        wanted[second:], ready[second:] = cluster.wanted, cluster.ready
        told(now, cluster.wanted, cluster.ready)

    planned = arrivals.replay(plan.counts.tolist(), plan.seed)
    answers = _sending(cluster.port, body, planned, start, tick)
    late = np.bincount(planned[answers.late(plan.slo_s)].astype(int), minlength=length).astype(float)
    begun = [pod for pod in cluster.pods if pod.ready is not None]
    starts = [_start_s(pod) for pod in begun if pod.asked > start] or [_start_s(pod) for pod in begun]
    judged = answers.planned >= LEAD_S
    return Measured(
        wanted,
        ready,
        late,
        refused=int(np.count_nonzero(answers.status[judged] == 429)),
        unanswered=int(np.count_nonzero(~np.isin(answers.status[judged], (200, 429)))),
        send_p99_s=figures.quantile(answers.sent, 0.99),
        held=_held(answers, ready),
        start_s=float(np.median(starts)),
        start_most_s=max(starts),
        failed_queries=failed,
        reasons=reasons,
    )


def _held(answers: Answers, ready: NDArray[np.float64]) -> float | None:
    """The median images a second of a ready pod in seconds in which all pods are overloaded; None without any."""
    length = len(ready)
    done = (answers.planned + answers.latency)[answers.status == 200]
    refused = np.bincount(answers.planned[answers.status == 429].astype(int), minlength=length)
    well = np.bincount(done[done < length].astype(int), minlength=length)
    full = refused > 0.1 * (refused + well)
    # The second before and after too, and with as many pods.
    full[1:-1] &= full[:-2] & full[2:] & (ready[1:-1] == ready[2:]) & (ready[1:-1] == ready[:-2])
    return float(np.median(well[full] / ready[full])) if full.any() else None


def _start_s(pod: Pod) -> float:
    assert pod.ready is not None
    return pod.ready - pod.asked


def _value(cluster: Cluster, trigger: object) -> float | None:
    assert isinstance(trigger, Offered), "the only trigger of a plan"
    try:
        return prometheus.instant(cluster.prometheus, queries.text(trigger))
    except prometheus.PrometheusError:
        return None


def _sending(port: int, body: bytes, planned: NDArray[np.float64], start: float, tick: Callable[[], None]) -> Answers:
    """The answers to ``planned``; meanwhile ``tick`` is called twice a second in this thread, and what it raises, too.

    Sending has a thread of its own: starting a process must not delay it.
    """
    found: list[Answers] = []
    thread = threading.Thread(
        target=lambda: found.append(asyncio.run(sender.send(port, body, planned, start))), name="sender", daemon=True
    )
    thread.start()
    while thread.is_alive():
        tick()
        thread.join(TICK_S)
    return found[0]


def measured_total(plan: Plan, found: Measured) -> Total:
    """The total of ``found`` after LEAD_S."""
    judged = slice(LEAD_S, len(plan.counts))
    share = float(found.late[judged].sum() / plan.counts[judged].sum())
    return Total(float(found.wanted[judged].sum()), share, int(found.wanted[judged].max()))


def predicted(plan: Plan, start_s: float, lag_s: int) -> tuple[Total, fleet.Course]:
    """The simulation of ``plan``, with pods that take ``start_s`` to start and a metric that is ``lag_s`` old.

    A pod's queue holds what is done within the SLO, less what the batcher keeps of it and the image's own time.
    """
    load = fleet.Load(plan.counts.astype(float), np.ones(len(plan.counts), bool))
    slo_s = (1 - KEPT) * plan.slo_s - 1 / plan.rate
    pods = fleet.Fleet(plan.rate, start_s=round(start_s), slo_s=slo_s, lag_s=lag_s)
    outcome = fleet.simulate(load, plan.autoscaler, pods, LEAD_S)
    course = fleet.course(load, plan.autoscaler, pods, 0, len(plan.counts))
    return Total(outcome.replica_seconds, outcome.late_share, outcome.most), course
