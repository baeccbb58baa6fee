"""Manifests of an autoscaler, written: as a HorizontalPodAutoscaler or as KEDA's ScaledObject.

``manifests.read`` of the written manifest gives the same autoscaler. If a form can't express it, it is refused, so
nothing is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from autoscaling import manifests, queries
from autoscaling.fields import Fields, ManifestError
from autoscaling.hpa import Autoscaler, Before, Cpu, Cron, GpuMemory, Offered, Queue, Rules, Trigger
from autoscaling.manifests import GPU_METRIC, OFFERED_METRIC, QUEUE_METRIC

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "resnet18"
# A cluster's defaults where a manifest says nothing.
_TOLERANCE = 0.1
_DIGITS = 3


def horizontal(autoscaler: Autoscaler, source: Sequence[str], name: str = NAME) -> str:
    """``autoscaler`` as YAML of an autoscaling/v2 HorizontalPodAutoscaler; ``source``, lines, says whose work it is.

    Raises ManifestError for what only KEDA can say: cron triggers, the rate of another time, and no pods at all.
    """
    if autoscaler.minimum == 0:
        raise ManifestError("an HPA can't say a minimum of 0 pods; a ScaledObject can")
    metrics = [_metric(trigger) for trigger in autoscaler.triggers]
    comments = [*source, *_needs(autoscaler, "an HPA")]
    for trigger in autoscaler.triggers:
        if isinstance(trigger, Offered):
            comments += _adapter_rule(trigger)
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": autoscaler.minimum,
        "maxReplicas": autoscaler.maximum,
        "metrics": metrics,
        "behavior": _behavior(autoscaler),
    }
    return _text("autoscaling/v2", "HorizontalPodAutoscaler", name, spec, comments, autoscaler)


def scaled_object(
    autoscaler: Autoscaler,
    source: Sequence[str],
    name: str = NAME,
    namespace: str = "default",
    prometheus: str = "http://prometheus-operated.monitoring:9090",
) -> str:
    """``autoscaler`` as YAML of a keda.sh/v1alpha1 ScaledObject; ``source``, lines, says whose work it is.

    ``namespace`` is where the pods run, and ``prometheus`` the address that KEDA asks. Raises ManifestError.
    """
    triggers = [_trigger(trigger, namespace, prometheus) for trigger in autoscaler.triggers]
    comments = [*source, *_needs(autoscaler, "KEDA")]
    if any("query" in trigger["metadata"] for trigger in triggers):
        comments += [
            f'Change two things to yours: namespace="{namespace}" in each query, where your pods run; and in each',
            f"serverAddress {prometheus}, where KEDA asks your Prometheus.",
        ]
    if any(isinstance(trigger, Cron) for trigger in autoscaler.triggers):
        comments.append("A cron trigger goes through the tolerance too: 20 pods wanted of 19 change nothing at 10 %.")
    spec: dict[str, Any] = {
        "scaleTargetRef": {"name": name},
        "pollingInterval": 15,
        "minReplicaCount": autoscaler.minimum,
        "maxReplicaCount": autoscaler.maximum,
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior(autoscaler)}},
        "triggers": triggers,
    }
    if autoscaler.cooldown_s != 300:
        spec["cooldownPeriod"] = autoscaler.cooldown_s
    return _text("keda.sh/v1alpha1", "ScaledObject", name, spec, comments, autoscaler)


def _text(
    version: str, kind: str, name: str, spec: dict[str, Any], comments: Sequence[str], autoscaler: Autoscaler
) -> str:
    labels = {"app.kubernetes.io/name": name}
    item = {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels}, "spec": spec}
    back = manifests.understood(Fields(f"the {kind} to be written", "", item)).autoscaler
    if back != autoscaler:
        raise ManifestError(f"a {kind} can't say {autoscaler}: it would be read as {back}")
    told = "".join(f"# {line}".rstrip() + "\n" for comment in comments for line in comment.splitlines())
    return told + yaml.safe_dump(item, sort_keys=False, width=118, allow_unicode=True)


def _needs(autoscaler: Autoscaler, form: str) -> list[str]:
    """The requirements of ``autoscaler`` on the cluster, without which it would act differently there."""
    if autoscaler.up.tolerance == autoscaler.down.tolerance == _TOLERANCE:
        return []
    keda = " and KEDA 2.18" if form == "KEDA" else ""
    return [
        f"behavior.tolerance needs Kubernetes 1.35{keda}, or 1.33 with the feature HPAConfigurableTolerance;",
        "without it every target has the cluster's tolerance, 10 %.",
    ]


def _adapter_rule(trigger: Offered) -> list[str]:
    """The rule that prometheus-adapter needs among ``rules.external``."""
    name = OFFERED_METRIC.format(trigger.window_s)
    return [
        f"{name} comes through prometheus-adapter, with this among rules.external:",
        "  - seriesQuery: 'resnet18_images_total{namespace!=\"\"}'",
        f"    name: {{as: {name}}}",
        "    resources: {overrides: {namespace: {resource: namespace}}}",
        f"    metricsQuery: sum(rate(<<.Series>>{{<<.LabelMatchers>>}}[{trigger.window_s}s]))",
    ]


def _metric(trigger: Trigger) -> dict[str, Any]:
    """``trigger`` as one of an HPA's metrics."""
    match trigger:
        case Cpu():
            target = {"type": "Utilization", "averageUtilization": trigger.utilisation}
            return {"type": "Resource", "resource": {"name": "cpu", "target": target}}
        case Offered():
            return _averaged("External", OFFERED_METRIC.format(trigger.window_s), trigger.per_pod)
        case Queue():
            return _averaged("Pods", QUEUE_METRIC, trigger.per_pod)
        case GpuMemory():
            return _averaged("Pods", GPU_METRIC, trigger.percent)
        case Cron() | Before():
            raise ManifestError(f"an HPA can't say {trigger}; a ScaledObject can")


def _averaged(kind: str, name: str, amount: float) -> dict[str, Any]:
    target = {"type": "AverageValue", "averageValue": _number(amount)}
    return {"type": kind, kind.lower(): {"metric": {"name": name}, "target": target}}


def _trigger(trigger: Trigger, namespace: str, prometheus: str) -> dict[str, Any]:
    """``trigger`` as one of a ScaledObject's triggers; KEDA takes text alone in ``metadata``."""
    match trigger:
        case Cpu():
            return {"type": "cpu", "metricType": "Utilization", "metadata": {"value": str(trigger.utilisation)}}
        case Cron():
            hours = {"timezone": trigger.timezone, "start": trigger.start, "end": trigger.end}
            return {"type": "cron", "metadata": {**hours, "desiredReplicas": str(trigger.replicas)}}
        case GpuMemory():
            threshold = trigger.percent
        case Offered() | Queue() | Before():
            threshold = trigger.per_pod
    if isinstance(trigger, Before):
        _number(trigger.headroom)
    metadata = {
        "serverAddress": prometheus,
        "query": queries.text(trigger, namespace),
        "threshold": _number(threshold),
    }
    return {"type": "prometheus", "metricType": "AverageValue", "metadata": metadata}


def _behavior(autoscaler: Autoscaler) -> dict[str, Any]:
    return {"scaleUp": _rules(autoscaler.up), "scaleDown": _rules(autoscaler.down)}


def _rules(rules: Rules) -> dict[str, Any]:
    told: dict[str, Any] = {"stabilizationWindowSeconds": rules.window_s, "selectPolicy": rules.select}
    if rules.tolerance != _TOLERANCE:
        told["tolerance"] = _number(rules.tolerance)
    told["policies"] = [
        {"type": policy.kind, "value": policy.value, "periodSeconds": policy.period_s} for policy in rules.policies
    ]
    return told


def _number(value: float) -> str:
    """``value`` as text that both an HPA and KEDA take. Raises ManifestError for what they would round."""
    if round(value, _DIGITS) != value:
        raise ManifestError(f"{value!r} has more than {_DIGITS} decimals, which Kubernetes would not keep")
    return str(int(value)) if value == int(value) else repr(value)
