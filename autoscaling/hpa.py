"""An autoscaler as its manifest describes it, and the decisions of its HorizontalPodAutoscaler.

    autoscaler = Autoscaler(2, 20, (Offered(120), Cron("45 8 * * 1-5", "0 19 * * 1-5", 6)))
    state = State(replicas=2, ready=2)
    for now in range(0, 7200, 15):
        decision = decide(autoscaler, state, [offered(now), None], now)
        state = State(decision.replicas, ready(now), decision.history)

``decide`` is one sync of the controller, which runs one every 15 s. Its input is the answers to the triggers' queries,
in the order of the triggers. It keeps nothing and changes nothing: the history comes back with the decision.
A simulation must do the same steps:

- KEDA and prometheus-adapter hand values over in thousandths, cut to a whole (``milli``), and so is the target.
- Offered, Queue, GpuMemory, Cron and Before are external metrics with an ``averageValue``: ``replicas.by_average``.
- Cpu counts the ready pods at the given mean, and those that are not ready yet as unready: ``replicas.by_utilisation``.
- The largest proposal goes through windows, policies and bounds: ``sync.reconcile``.
- With ``minimum`` 0 KEDA itself starts the first pod and stops the last; in between the HPA's lowest is 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from autoscaling import cron, replicas, sync
from autoscaling.behavior import DOWN_DEFAULT, UP_DEFAULT, Policy, Rules
from autoscaling.sync import Decision, Failure, History

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "DOWN_DEFAULT",
    "SYNC_S",
    "UP_DEFAULT",
    "Autoscaler",
    "Before",
    "Cpu",
    "Cron",
    "Decision",
    "GpuMemory",
    "History",
    "Offered",
    "Policy",
    "Queue",
    "Rules",
    "State",
    "Trigger",
    "decide",
    "milli",
]

# --horizontal-pod-autoscaler-sync-period of kube-controller-manager.
SYNC_S = 15


@dataclass(frozen=True)
class Offered:
    """A target of ``per_pod`` images a second for each pod, refused ones included, as a mean of ``window_s``."""

    per_pod: float
    window_s: int = 60


@dataclass(frozen=True)
class Cpu:
    """CPU in per cent of the pods' requests."""

    utilisation: int


@dataclass(frozen=True)
class Queue:
    """A target of ``per_pod`` waiting images for each pod."""

    per_pod: float


@dataclass(frozen=True)
class GpuMemory:
    """GPU memory in use, in per cent, as a mean of the pods."""

    percent: float


@dataclass(frozen=True)
class Cron:
    """KEDA's cron trigger: ``replicas`` pods from ``start`` to ``end``, five-field expressions of ``timezone``."""

    start: str
    end: str
    replicas: int
    timezone: str = "UTC"


@dataclass(frozen=True)
class Before:
    """The offered rate of ``offset_s`` seconds ago, a day or week less the lead, times ``headroom``."""

    per_pod: float
    offset_s: int
    headroom: float = 1.0
    window_s: int = 300


Trigger = Offered | Cpu | Queue | GpuMemory | Cron | Before


@dataclass(frozen=True)
class Autoscaler:
    """An autoscaler as a manifest describes it, an HPA or a KEDA ScaledObject.

    ``cooldown_s`` counts with ``minimum`` 0 alone: KEDA stops the last pod that long after the last trigger was active.
    Raises ValueError for bounds that allow no size, and for a target under a thousandth.
    """

    minimum: int
    maximum: int
    triggers: tuple[Trigger, ...]
    up: Rules = UP_DEFAULT
    down: Rules = DOWN_DEFAULT
    cooldown_s: int = 300

    def __post_init__(self) -> None:
        if not 0 <= self.minimum <= self.maximum or self.maximum < 1:
            raise ValueError(f"{self.minimum} to {self.maximum} pods is no range; such as 1 to 10")
        for trigger in self.triggers:
            if not isinstance(trigger, Cron) and milli(_target(trigger)) < 1:
                raise ValueError(f"{trigger}: a target is 0.001 or more")


@dataclass(frozen=True)
class State:
    """``replicas`` that the Deployment is set to, how many of them are ``ready``, and what the last sync left."""

    replicas: int
    ready: int
    history: History = field(default_factory=History)


def milli(value: float) -> int:
    """``value`` in thousandths, cut to a whole, as KEDA and prometheus-adapter hand it to the controller."""
    return int(value * 1000)


def _target(trigger: Offered | Cpu | Queue | GpuMemory | Before) -> float:
    match trigger:
        case Cpu():
            return trigger.utilisation
        case GpuMemory():
            return trigger.percent
        case Offered() | Queue() | Before():
            return trigger.per_pod


def decide(autoscaler: Autoscaler, state: State, values: Sequence[float | None], now: float) -> Decision:
    """One sync at time ``now``, Unix seconds, given the answer to each trigger's query, in order.

    Offered: images a second that all pods were offered, a mean of its window; Before: the same of its own time, times
    its headroom; Queue: images that wait in all pods; GpuMemory: the sum of the pods' per cents; Cpu: the mean per cent
    that the ready pods use of what they request; Cron asks nothing: None. Elsewhere None, or what is no finite number,
    is a query that failed: then nothing shrinks. Raises CronError for a cron trigger that can't be read, and ValueError
    for another number of values than of triggers.
    """
    pairs = list(zip(autoscaler.triggers, values, strict=True))
    history = state.history
    if autoscaler.minimum == 0:
        active = [_active(trigger, value, now) for trigger, value in pairs]
        if True in active:
            history = replace(history, active_at=now)
        if state.replicas == 0:
            first = 1 if True in active else 0
            return Decision(first, "Activated" if first else "Idle", history)
        rested = history.active_at is None or now - history.active_at > autoscaler.cooldown_s
        if rested and not any(active) and None not in active:
            return Decision(0, "Idle", history)
    proposals = [_proposal(trigger, value, state, autoscaler, now) for trigger, value in pairs]
    bounds = (max(autoscaler.minimum, 1), autoscaler.maximum)
    held = sync.Both(autoscaler.up, autoscaler.down)
    return sync.reconcile(bounds, held, state.replicas, proposals, history, now)


def _active(trigger: Trigger, value: float | None, now: float) -> bool | None:
    """Whether ``trigger`` asks KEDA for a first pod (None: its query failed). CPU never does."""
    match trigger:
        case Cron():
            return cron.active(trigger.start, trigger.end, trigger.timezone, [now])[0]
        case Cpu():
            return False
        case _:
            return None if value is None or not math.isfinite(value) else value > 0


def _proposal(trigger: Trigger, value: float | None, state: State, autoscaler: Autoscaler, now: float) -> int | Failure:
    """The pods that ``trigger`` asks for, or the reason that it can't ask."""
    tolerances = replicas.Tolerances(autoscaler.up.tolerance, autoscaler.down.tolerance)
    if isinstance(trigger, Cron):
        # Outside its hours the trigger asks for one pod, not for none.
        wanted = trigger.replicas if _active(trigger, None, now) else 1
        return replicas.by_average(state.replicas, milli(wanted), milli(1), tolerances)[0]
    known = value is not None and math.isfinite(value)
    if isinstance(trigger, Cpu):
        return _by_cpu(trigger, value if known else None, state, tolerances)
    if value is None or not known:
        return Failure("FailedGetExternalMetric")
    return replicas.by_average(state.replicas, milli(value), milli(_target(trigger)), tolerances)[0]


def _by_cpu(trigger: Cpu, value: float | None, state: State, tolerances: replicas.Tolerances) -> int | Failure:
    """Each ready pod at ``value`` per cent of one CPU, each other one unready."""
    if value is None:
        return Failure("FailedGetResourceMetric")
    names = [f"pod-{number}" for number in range(max(state.replicas, state.ready))]
    samples = {name: replicas.Sample(int(value * 10)) for name in names[: state.ready]}
    groups = replicas.Groups(state.ready, frozenset(names[state.ready :]))
    try:
        return replicas.by_utilisation(
            state.replicas, groups, samples, dict.fromkeys(names, 1000), trigger.utilisation, tolerances
        )[0]
    except replicas.UnknownError:
        return Failure("FailedGetResourceMetric")
