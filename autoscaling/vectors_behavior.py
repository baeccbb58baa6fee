"""Cases of a vector file about limits on a change of size, answered by ``behavior`` and ``sync``.

Each answer has the names that the file's ``expected`` has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoscaling import behavior, replicas, sync, vectors_metrics
from autoscaling.behavior import Change, Policy, Recommendation, Rules
from autoscaling.sync import Failure, History

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autoscaling.vectors_metrics import Case

# Ages count back from here.
_NOW = 0.0


def normalise(inputs: Case) -> Case:
    """Bounds and the factor a sync, without ``behavior``."""
    wanted, reason = behavior.limit_plainly(
        inputs["current_replicas"],
        inputs["desired_replicas"],
        (inputs["min_replicas"], inputs["max_replicas"]),
        inputs["scale_up_limit_factor"],
        inputs["scale_up_limit_minimum"],
    )
    return {"replicas": wanted, "reason": reason}


def rate_limit(inputs: Case) -> Case:
    """The policies of one direction."""
    upward = inputs["direction"] == "up"
    rules = _rules(inputs["rules"], behavior.UP_DEFAULT if upward else behavior.DOWN_DEFAULT)
    ups, downs = _changes(inputs["scale_up_events"]), _changes(inputs["scale_down_events"])
    limit = behavior.ceiling if upward else behavior.ground
    return {"limit": limit(inputs["current_replicas"], rules, ups, downs, _NOW)}


def behavior_rate(inputs: Case) -> Case:
    """Policies of both directions and bounds."""
    up = _rules(inputs["scale_up_rules"], behavior.UP_DEFAULT)
    down = _rules(inputs["scale_down_rules"], behavior.DOWN_DEFAULT)
    ups, downs = _changes(inputs["scale_up_events"]), _changes(inputs["scale_down_events"])
    current = inputs["current_replicas"]
    limits = behavior.ground(current, down, ups, downs, _NOW), behavior.ceiling(current, up, ups, downs, _NOW)
    bounds = inputs["min_replicas"], inputs["max_replicas"]
    wanted, reason = behavior.limit(current, inputs["desired_replicas"], bounds, limits)
    return {"replicas": wanted, "reason": reason}


def stabilisation(inputs: Case) -> Case:
    """Answer a case about stabilisation windows: the size that they allow, and the recommendations kept afterwards."""
    log, desired = _log(inputs["recommendations"]), inputs["desired_replicas"]
    if inputs["mode"] == "legacy":
        wanted, after = behavior.stabilise_down(log, desired, inputs["downscale_stabilisation_s"], _NOW)
    else:
        windows = inputs["scale_up_window_s"], inputs["scale_down_window_s"]
        wanted, after = behavior.stabilise(log, inputs["current_replicas"], desired, *windows, _NOW)
    return {"replicas": wanted, "log_length": len(after), "log": [entry.replicas for entry in after]}


def store_event(inputs: Case) -> Case:
    """The record of a change. Without ``behavior`` there is none."""
    events = _changes(inputs["events"])
    counted = behavior.changed(events, inputs["period_s"], _NOW)
    if inputs["rules"] is not None:
        change = abs(inputs["new_replicas"] - inputs["prev_replicas"])
        events = behavior.recorded(events, change, _rules(inputs["rules"], behavior.UP_DEFAULT), _NOW)
    told = [{"change": event.replicas, "outdated": event.outdated} for event in events]
    return {"change_in_period_before": counted, "events": told}


def reconcile(inputs: Case) -> Case:
    """One whole sync."""
    given = inputs["behavior"]
    tolerance = inputs["tolerance"]
    window_s = inputs["downscale_stabilisation_s"]
    up = _rules((given or {}).get("scaleUp"), behavior.UP_DEFAULT, tolerance["up"])
    down = _rules((given or {}).get("scaleDown"), behavior.DOWN_DEFAULT, tolerance["down"], window_s)
    held: sync.Both | sync.Plain = sync.Both(up, down)
    if given is None:
        held = sync.Plain(inputs["scale_up_limit_factor"], inputs["scale_up_limit_minimum"], window_s)
    tolerances = replicas.Tolerances(up.tolerance, down.tolerance)
    percents: list[int] = []
    proposals = [_proposal(metric, inputs, tolerances, percents) for metric in inputs["metrics"]]
    log = None if inputs["recommendations"] is None else _log(inputs["recommendations"])
    bounds = inputs["min_replicas"], inputs["max_replicas"]
    decision = sync.reconcile(bounds, held, inputs["spec_replicas"], proposals, History(log), _NOW)
    told = {
        name: {"status": condition.status, "reason": condition.reason}
        for name, condition in decision.conditions.items()
    }
    return {
        "replicas": decision.replicas,
        "conditions": told,
        "cpu_utilisation_pct": percents[0] if percents else None,
    }


def _proposal(metric: Case, inputs: Case, tolerances: replicas.Tolerances, percents: list[int]) -> int | Failure:
    """The proposal of one metric of a sync; ``percents`` gets the utilisation of a resource."""
    kind, current = metric["type"], inputs["spec_replicas"]
    if kind not in ("Resource", "ContainerResource", "Pods", "Object", "External"):
        return Failure("InvalidMetricSourceType")
    try:
        if metric.get("averageUtilization") is not None:
            target = metric["averageUtilization"]
            wanted, percent, _ = vectors_metrics.by_resource(current, target, metric, inputs, tolerances)
            percents.append(percent)
            return wanted
        if kind in ("Resource", "ContainerResource", "Pods") and metric.get("averageValue_m") is not None:
            return vectors_metrics.by_pods(current, metric["averageValue_m"], metric, inputs, tolerances)[0]
        if metric.get("levels_m") is not None:
            amount = replicas.total(metric["levels_m"])
            if metric.get("averageValue_m") is not None:
                target, status = metric["averageValue_m"], inputs["status_replicas"]
                return replicas.by_average(status, amount, target, tolerances)[0]
            # From 0 pods on there is none to be counted, and none is needed.
            ready = vectors_metrics.ready_count(inputs) if current else 0
            return replicas.by_value(current, amount, metric["value_m"], ready, tolerances)
    except replicas.UnknownError:
        pass
    return Failure(f"FailedGet{kind}Metric")


def random_decision(case: Case) -> Case:
    """A random decision: windows, policies and bounds on a proposal, from defaults or given rules."""
    up = _rules(case["scale_up"], behavior.UP_DEFAULT)
    down = _rules(case["scale_down"], behavior.DOWN_DEFAULT)
    history = History(_log(case["recommendations"]), _changes(case["up_events"]), _changes(case["down_events"]))
    bounds = case["min"], case["max"]
    decision = sync.held_back(bounds, sync.Both(up, down), case["current"], case["desired"], history, _NOW)
    return {"replicas": decision.replicas, "condition": decision.conditions["ScalingLimited"].reason}


def _rules(given: Case | None, default: Rules, tolerance: float = 0.1, window_s: int | None = None) -> Rules:
    """``behavior.scaleUp`` or ``.scaleDown`` as a file gives it, with its defaults filled in."""
    given = given or {}
    policies = default.policies
    if given.get("policies") is not None:
        policies = tuple(Policy(one["type"], one["value"], one["periodSeconds"]) for one in given["policies"])
    window = given.get("stabilizationWindowSeconds")
    fallback = default.window_s if window_s is None else window_s
    return Rules(
        policies,
        fallback if window is None else window,
        given.get("selectPolicy") or default.select,
        given.get("tolerance", tolerance),
    )


def _changes(events: Sequence[Case]) -> tuple[Change, ...]:
    return tuple(Change(event["change"], _NOW - event["age_s"], event.get("outdated", False)) for event in events)


def _log(entries: Sequence[Case]) -> tuple[Recommendation, ...]:
    return tuple(Recommendation(entry["replicas"], _NOW - entry["age_s"]) for entry in entries)
