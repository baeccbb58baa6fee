"""One sync of the HorizontalPodAutoscaler: from the proposal of each metric to the size, every 15 seconds.

reconcileAutoscaler in pkg/controller/podautoscaler/horizontal.go of Kubernetes 1.33 and newer. It keeps nothing between
calls: each returns the history for the next.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from autoscaling import behavior
from autoscaling.behavior import Change, Recommendation, Rules

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Failure:
    """A metric that failed; ``reason`` is the controller's, such as FailedGetExternalMetric."""

    reason: str


@dataclass(frozen=True)
class History:
    """The controller's memory of earlier syncs.

    ``log`` is None before the first sync: then the size at that time is taken for a recommendation. ``active_at`` is
    KEDA's: when a trigger last had something to do (None: never).
    """

    log: tuple[Recommendation, ...] | None = None
    ups: tuple[Change, ...] = ()
    downs: tuple[Change, ...] = ()
    active_at: float | None = None


@dataclass(frozen=True)
class Plain:
    """An HPA without ``behavior``: at most ``factor`` times the pods a sync, or ``least``; a window down for all."""

    factor: float = 2.0
    least: int = 4
    window_s: float = 300.0


@dataclass(frozen=True)
class Both:
    """``behavior``, with its defaults filled in."""

    up: Rules = behavior.UP_DEFAULT
    down: Rules = behavior.DOWN_DEFAULT


@dataclass(frozen=True)
class Condition:
    """A condition of the HPA's status."""

    status: bool
    reason: str


@dataclass(frozen=True)
class Decision:
    """``replicas`` wanted from now on; ``history`` is for the next call.

    ``reason`` is the controller's word for what decided: a limit (ScaleUpLimit, ScaleDownLimit, TooManyReplicas,
    TooFewReplicas), a window (ScaleUpStabilized, ScaleDownStabilized), a metric's failure, ScalingDisabled (0 pods), or
    DesiredWithinRange. ``proposal`` is what the metrics asked for (None: they were not asked, or failed).
    """

    replicas: int
    reason: str
    history: History
    proposal: int | None = None
    conditions: Mapping[str, Condition] = field(default_factory=dict)


def largest(current: int, proposals: Sequence[int | Failure]) -> int | Failure:
    """The largest proposal, or the first failure where that decides: computeReplicasForMetrics.

    One failing metric is enough to forbid going down. Going up follows the working metrics.
    """
    failures = [proposal for proposal in proposals if isinstance(proposal, Failure)]
    sizes = [proposal for proposal in proposals if not isinstance(proposal, Failure)]
    if not sizes or (failures and max(sizes) < current):
        return failures[0] if failures else Failure("no metric")
    return max(sizes)


def reconcile(
    bounds: tuple[int, int],
    held: Both | Plain,
    current: int,
    proposals: Sequence[int | Failure],
    history: History,
    now: float,
) -> Decision:
    """One sync of an HPA with (lowest, highest) ``bounds`` at ``current`` pods, given what each metric proposes."""
    if history.log is None:
        history = replace(history, log=(Recommendation(current, now),))
    conditions = {"AbleToScale": Condition(True, "SucceededGetScale")}
    if current == 0 and bounds[0] != 0:
        conditions["ScalingActive"] = Condition(False, "ScalingDisabled")
        return Decision(0, "ScalingDisabled", history, None, conditions)
    if current > bounds[1]:
        return _rescaled(held, current, Decision(bounds[1], "TooManyReplicas", history, None, conditions), now)
    if current < bounds[0]:
        return _rescaled(held, current, Decision(bounds[0], "TooFewReplicas", history, None, conditions), now)
    proposal = largest(current, proposals)
    if isinstance(proposal, Failure):
        conditions["ScalingActive"] = Condition(False, proposal.reason)
        return Decision(current, proposal.reason, history, None, conditions)
    decision = held_back(bounds, held, current, proposal, history, now)
    conditions |= {"ScalingActive": Condition(True, "ValidMetricFound"), **decision.conditions}
    return _rescaled(held, current, replace(decision, conditions=conditions), now)


def held_back(
    bounds: tuple[int, int],
    held: Both | Plain,
    current: int,
    proposal: int,
    history: History,
    now: float,
) -> Decision:
    """``proposal`` within windows, policies and bounds: normalizeDesiredReplicas, and the same WithBehaviors."""
    log = history.log or ()
    if isinstance(held, Plain):
        stable, log = behavior.stabilise_down(log, proposal, held.window_s, now)
        window = "ScaleDownStabilized"
        replicas, limit = behavior.limit_plainly(current, stable, bounds, held.factor, held.least)
    else:
        stable, log = behavior.stabilise(log, current, proposal, held.up.window_s, held.down.window_s, now)
        window = "ScaleUpStabilized" if proposal >= current else "ScaleDownStabilized"
        limits = (
            behavior.ground(current, held.down, history.ups, history.downs, now),
            behavior.ceiling(current, held.up, history.ups, history.downs, now),
        )
        replicas, limit = behavior.limit(current, stable, bounds, limits)
    able = window if stable != proposal else "ReadyForNewScale"
    limited = replicas != stable
    conditions = {"AbleToScale": Condition(True, able), "ScalingLimited": Condition(limited, limit)}
    reason = able if stable != proposal and not limited else limit
    return Decision(replicas, reason, replace(history, log=log), proposal, conditions)


def _rescaled(held: Both | Plain, current: int, decision: Decision, now: float) -> Decision:
    """``decision`` with its change recorded, where it changes the size. Without ``behavior`` no change is kept."""
    change = decision.replicas - current
    if change == 0:
        return decision
    history = decision.history
    if isinstance(held, Both) and change > 0:
        history = replace(history, ups=behavior.recorded(history.ups, change, held.up, now))
    elif isinstance(held, Both):
        history = replace(history, downs=behavior.recorded(history.downs, -change, held.down, now))
    conditions = dict(decision.conditions) | {"AbleToScale": Condition(True, "SucceededRescale")}
    return replace(decision, history=history, conditions=conditions)
