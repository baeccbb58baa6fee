"""The HorizontalPodAutoscaler: what a manifest says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Policy:
    """One scaling policy: a change of at most ``value`` pods, or per cent of the pods, in ``period_s`` seconds."""

    kind: Literal["Pods", "Percent"]
    value: int
    period_s: int


@dataclass(frozen=True)
class Rules:
    """``behavior.scaleUp`` or ``.scaleDown``: ``window_s`` is the stabilisation window, ``tolerance`` a fraction."""

    policies: tuple[Policy, ...]
    window_s: int
    select: Literal["Max", "Min", "Disabled"] = "Max"
    tolerance: float = 0.1


UP_DEFAULT = Rules((Policy("Pods", 4, 15), Policy("Percent", 100, 15)), 0)
DOWN_DEFAULT = Rules((Policy("Percent", 100, 15),), 300)


@dataclass(frozen=True)
class Offered:
    """``per_pod`` images a second, refused ones included, that each pod is to have, as a mean of ``window_s``."""

    per_pod: float
    window_s: int = 60


@dataclass(frozen=True)
class Cpu:
    """CPU in per cent of what the pods request."""

    utilisation: int


@dataclass(frozen=True)
class Queue:
    """Images that wait, ``per_pod`` each."""

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
    """What a manifest says, an HPA or a KEDA ScaledObject."""

    minimum: int
    maximum: int
    triggers: tuple[Trigger, ...]
    up: Rules = UP_DEFAULT
    down: Rules = DOWN_DEFAULT
