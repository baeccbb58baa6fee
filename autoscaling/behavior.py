"""``behavior`` of a HorizontalPodAutoscaler: the windows and policies that limit a change of size.

The rules are those of Kubernetes 1.33 and newer, pkg/controller/podautoscaler/horizontal.go; each function names its
counterpart. Times are seconds on one clock, whatever its zero. Ages are compared strictly: an entry exactly as old as
a window or a period no longer counts in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# A size is a 32-bit integer. Go leaves open what a larger float becomes; here it becomes the largest size.
MAX_INT32 = 2**31 - 1


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


# Kubernetes' defaults for a ``behavior`` that leaves something out: pkg/apis/autoscaling/v2/defaults.go.
UP_DEFAULT = Rules((Policy("Pods", 4, 15), Policy("Percent", 100, 15)), 0)
DOWN_DEFAULT = Rules((Policy("Percent", 100, 15),), 300)


@dataclass(frozen=True)
class Recommendation:
    """A size that the metrics asked for at time ``at``, before any limit."""

    replicas: int
    at: float


@dataclass(frozen=True)
class Change:
    """A change of the size by ``replicas`` pods, more than 0 in either direction, made at time ``at``.

    ``outdated``: no policy counts it any more, and the next change takes its place.
    """

    replicas: int
    at: float
    outdated: bool = False


def size(wanted: float) -> int:
    """``wanted`` pods rounded up, at most the largest 32-bit integer."""
    return MAX_INT32 if wanted > MAX_INT32 else math.ceil(wanted)


def stabilise(
    log: Sequence[Recommendation], current: int, desired: int, up_window_s: float, down_window_s: float, now: float
) -> tuple[int, tuple[Recommendation, ...]]:
    """The size nearest to ``current`` that both windows allow, and the log with ``desired`` in it.

    stabilizeRecommendationWithBehaviors: the size may not be under the lowest recommendation of the window up, nor
    over the highest of the window down, ``desired`` being one of both; both act at once.
    """
    lowest = min([desired, *(entry.replicas for entry in log if now - entry.at < up_window_s)])
    highest = max([desired, *(entry.replicas for entry in log if now - entry.at < down_window_s)])
    kept = min(max(current, lowest), highest)
    return kept, _logged(log, Recommendation(desired, now), max(up_window_s, down_window_s))


def stabilise_down(
    log: Sequence[Recommendation], desired: int, window_s: float, now: float
) -> tuple[int, tuple[Recommendation, ...]]:
    """The highest recommendation of the window, and the log with ``desired`` in it: stabilizeRecommendation.

    This is the rule without ``behavior``. Here alone a recommendation exactly as old as the window still counts.
    """
    highest = max([desired, *(entry.replicas for entry in log if now - entry.at <= window_s)])
    return highest, _logged(log, Recommendation(desired, now), window_s)


def _logged(log: Sequence[Recommendation], entry: Recommendation, window_s: float) -> tuple[Recommendation, ...]:
    """``log`` with ``entry`` in the place of the last one older than ``window_s``, or at the end if none is."""
    old = [place for place, one in enumerate(log) if entry.at - one.at > window_s]
    return (*log[: old[-1]], entry, *log[old[-1] + 1 :]) if old else (*log, entry)


def changed(events: Sequence[Change], period_s: float, now: float) -> int:
    """Pods that ``events`` changed in the last ``period_s`` seconds: getReplicasChangePerPeriod."""
    return sum(event.replicas for event in events if now - event.at < period_s)


def ceiling(current: int, rules: Rules, ups: Sequence[Change], downs: Sequence[Change], now: float) -> int:
    """The largest size that ``rules`` for scaling up allow now: calculateScaleUpLimitWithScalingRules.

    It is ``current`` where scaling up is disabled or has no policy.

    Each policy counts from the size at the start of its period. A per cent is rounded up, or one pod would never grow.
    """
    if rules.select == "Disabled" or not rules.policies:
        return current
    choose: Callable[[list[int]], int] = min if rules.select == "Min" else max
    return choose(
        [
            start + policy.value if policy.kind == "Pods" else size(start * (1 + policy.value / 100))
            for policy, start in _starts(current, rules, ups, downs, now)
        ]
    )


def ground(current: int, rules: Rules, ups: Sequence[Change], downs: Sequence[Change], now: float) -> int:
    """The smallest size that the policies down allow: calculateScaleDownLimitWithBehaviors.

    Each policy counts from the size at the start of its period. With a per cent, the remaining size is rounded down.
    """
    if rules.select == "Disabled" or not rules.policies:
        return current
    choose: Callable[[list[int]], int] = max if rules.select == "Min" else min
    return choose(
        [
            start - policy.value if policy.kind == "Pods" else int(start * (1 - policy.value / 100))
            for policy, start in _starts(current, rules, ups, downs, now)
        ]
    )


def _starts(
    current: int, rules: Rules, ups: Sequence[Change], downs: Sequence[Change], now: float
) -> list[tuple[Policy, int]]:
    """Each policy with the size at the start of its period: the changes since then, in both directions, are undone."""
    return [
        (policy, current - changed(ups, policy.period_s, now) + changed(downs, policy.period_s, now))
        for policy in rules.policies
    ]


def limit(current: int, desired: int, bounds: tuple[int, int], limits: tuple[int, int]) -> tuple[int, str]:
    """``desired`` within ``bounds`` and the policies' ``limits``, each (lowest, highest), and the controller's reason.

    convertDesiredReplicasWithBehaviorRate. A limit beyond ``current`` on the wrong side of it counts as ``current``.
    Where bound and policy are equal, the bound gives the reason.
    """
    if desired > current:
        allowed = max(limits[1], current)
        most, reason = (allowed, "ScaleUpLimit") if bounds[1] > allowed else (bounds[1], "TooManyReplicas")
        if desired > most:
            return most, reason
    elif desired < current:
        allowed = min(limits[0], current)
        least, reason = (allowed, "ScaleDownLimit") if bounds[0] < allowed else (bounds[0], "TooFewReplicas")
        if desired < least:
            return least, reason
    return desired, "DesiredWithinRange"


def limit_plainly(
    current: int, desired: int, bounds: tuple[int, int], factor: float = 2, least: int = 4
) -> tuple[int, str]:
    """``desired`` as limited without ``behavior``, and the controller's reason: convertDesiredReplicasWithRules.

    At most ``factor`` times ``current``, or ``least`` if that is more, at each sync.
    """
    allowed = int(max(factor * current, least))
    if desired < bounds[0]:
        return bounds[0], "TooFewReplicas"
    most, reason = (allowed, "ScaleUpLimit") if bounds[1] > allowed else (bounds[1], "TooManyReplicas")
    return (most, reason) if desired > most else (desired, "DesiredWithinRange")


def recorded(events: Sequence[Change], replicas: int, rules: Rules, now: float) -> tuple[Change, ...]:
    """``events`` with one more, a change of ``replicas`` pods at ``now``: storeScaleEvent.

    Events older than the longest period are marked outdated, and the new one replaces the last of them.
    """
    longest = max((policy.period_s for policy in rules.policies), default=0)
    marked = [replace(event, outdated=event.outdated or now - event.at > longest) for event in events]
    new = Change(replicas, now)
    old = [place for place, event in enumerate(marked) if event.outdated]
    if old:
        marked[old[-1]] = new
        return tuple(marked)
    return (*marked, new)
