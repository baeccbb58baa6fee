"""Manifests of an autoscaler, read: an autoscaling/v2 HorizontalPodAutoscaler or a KEDA ScaledObject.

A field that can't be simulated is refused by its name, so the simulated rules are the deployed ones. One thing differs
a little: a metric of type Pods is read as its sum over the pods. A real HPA that goes down takes a pod without a
sample, such as a starting one, for being at the target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from autoscaling import cron, kustomize, queries
from autoscaling.fields import Fields, ManifestError
from autoscaling.fleet import MAX_PODS
from autoscaling.hpa import (
    DOWN_DEFAULT,
    UP_DEFAULT,
    Autoscaler,
    Cpu,
    Cron,
    GpuMemory,
    Offered,
    Policy,
    Queue,
    Rules,
    Trigger,
)

if TYPE_CHECKING:
    from pathlib import Path

# Names that prometheus-adapter gives: of metrics of pods, and of the offered rate, with its window in seconds.
QUEUE_METRIC = "resnet18_queue_images"
GPU_METRIC = "gpu_memory_used_percent"
OFFERED_METRIC = "resnet18_offered_images_{}s"
_PREFIX, _SUFFIX = OFFERED_METRIC.split("{}")
# KEDA takes these of a Prometheus trigger as they are; they say how Prometheus is asked, not what is wanted.
_ASKING = (
    "serverAddress", "query", "threshold", "activationThreshold", "namespace", "ignoreNullValues", "authModes",
    "unsafeSsl", "customHeaders", "queryParameters", "timeout",
)  # fmt: skip
_PLAIN = (
    "no behavior is given: Kubernetes then goes by older rules (four pods or twice as many a sync, up to the highest "
    "wish of five minutes even if the load is gone), which are simulated as the defaults of behavior"
)


@dataclass(frozen=True)
class Manifest:
    """An ``autoscaler`` as a manifest of ``kind`` in ``file`` says it; ``notes`` tell what is not simulated."""

    autoscaler: Autoscaler
    kind: str
    file: str
    notes: tuple[str, ...] = ()


def read(path: Path) -> Manifest:
    """The one autoscaler of ``path``: a YAML file, or a directory with a kustomization. Raises ManifestError."""
    found = [item for item in kustomize.objects(path) if item.values.get("kind") in kustomize.AUTOSCALERS]
    if len(found) != 1:
        what = " and ".join(f"{item.values['kind']} of {item.file}" for item in found)
        told = f"{what} would work against each other" if found else "it holds none"
        raise ManifestError(f"{path}: {told}; one {' or '.join(kustomize.AUTOSCALERS)} is needed")
    return understood(found[0])


def understood(item: Fields) -> Manifest:
    """The autoscaler that ``item``, a HorizontalPodAutoscaler or a ScaledObject, describes. Raises ManifestError."""
    if item.text("kind", kustomize.AUTOSCALERS) == "ScaledObject":
        item.text("apiVersion", ("keda.sh/v1alpha1",))
        autoscaler, notes = _scaled_object(item)
    else:
        item.text("apiVersion", ("autoscaling/v2",))
        autoscaler, notes = _horizontal(item)
    return Manifest(autoscaler, item.values["kind"], item.file, notes)


def _horizontal(item: Fields) -> tuple[Autoscaler, tuple[str, ...]]:
    spec = item.child("spec")
    spec.only("scaleTargetRef", "minReplicas", "maxReplicas", "metrics", "behavior")
    if spec.values.get("minReplicas") == 0:
        spec.refuse("minReplicas", "0 takes a feature that clusters have off; KEDA's minReplicaCount: 0 scales to zero")
    lowest = _pods(spec, "minReplicas", 1, 1)
    highest = _pods(spec, "maxReplicas", lowest)
    # Kubernetes fills in CPU at 80 % where there is no metric.
    triggers = tuple(_metric(metric) for metric in spec.children("metrics")) or (Cpu(80),)
    notes = () if spec.has("behavior") else (_PLAIN,)
    return Autoscaler(lowest, highest, triggers, *_both(spec.child("behavior"))), notes


def _pods(spec: Fields, name: str, lowest: int, default: int | None = None) -> int:
    """A number of pods, ``lowest`` to MAX_PODS."""
    count = spec.integer(name, lowest, default=default)
    if count > MAX_PODS:
        spec.refuse(name, f"{count} pods can't be simulated; at most {MAX_PODS} can")
    return count


def _metric(metric: Fields) -> Trigger:
    """One of an HPA's metrics."""
    kind = metric.text("type", ("Resource", "Pods", "External"))
    source = metric.child(kind.lower())
    metric.only("type", kind.lower())
    target = source.child("target")
    if kind == "Resource":
        source.only("name", "target")
        source.text("name", ("cpu",))
        target.only("type", "averageUtilization")
        target.text("type", ("Utilization",))
        return Cpu(target.integer("averageUtilization", 1))
    source.only("metric", "target")
    target.only("type", "averageValue")
    target.text("type", ("AverageValue",))
    of = source.child("metric")
    of.only("name")
    name = of.text("name")
    trigger = _adapted(kind, name, target.quantity("averageValue"))
    if trigger is None:
        known = f"{OFFERED_METRIC.format(60)} of another window, and of Pods {QUEUE_METRIC} and {GPU_METRIC}"
        of.refuse("name", f"{name!r} of {kind} can't be simulated; known here are {known}")
    return trigger


def _adapted(kind: str, name: str, amount: float) -> Trigger | None:
    """The trigger that a metric of prometheus-adapter is; None for an unknown one."""
    window = name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
    if name == OFFERED_METRIC.format(window) and window.isdecimal() and int(window) > 0:
        return Offered(amount, int(window))
    if kind == "Pods" and name == QUEUE_METRIC:
        return Queue(amount)
    return GpuMemory(amount) if kind == "Pods" and name == GPU_METRIC else None


def _both(behavior: Fields) -> tuple[Rules, Rules]:
    behavior.only("scaleUp", "scaleDown")
    return _rules(behavior.child("scaleUp"), UP_DEFAULT), _rules(behavior.child("scaleDown"), DOWN_DEFAULT)


def _rules(given: Fields, default: Rules) -> Rules:
    """One direction of ``behavior``, with what it leaves out filled in as Kubernetes does."""
    given.only("stabilizationWindowSeconds", "selectPolicy", "policies", "tolerance")
    policies = tuple(_policy(policy) for policy in given.children("policies"))
    if given.has("policies") and not policies:
        given.refuse(
            "policies", "an empty list is no policy; leave it out for the default, or use selectPolicy: Disabled"
        )
    return Rules(
        policies or default.policies,
        given.integer("stabilizationWindowSeconds", 0, 3600, default.window_s),
        cast('Literal["Max", "Min", "Disabled"]', given.text("selectPolicy", ("Max", "Min", "Disabled"), "Max")),
        given.quantity("tolerance", 0, default.tolerance),
    )


def _policy(given: Fields) -> Policy:
    given.only("type", "value", "periodSeconds")
    kind = cast('Literal["Pods", "Percent"]', given.text("type", ("Pods", "Percent")))
    return Policy(kind, given.integer("value", 1), given.integer("periodSeconds", 1, 1800))


def _scaled_object(item: Fields) -> tuple[Autoscaler, tuple[str, ...]]:
    annotations = item.child("metadata").child("annotations")
    for name in annotations.values:
        if str(name).startswith("autoscaling.keda.sh/paused"):
            annotations.refuse(str(name), "a paused ScaledObject does not scale")
    spec = item.child("spec")
    spec.only(
        "scaleTargetRef", "pollingInterval", "cooldownPeriod", "minReplicaCount", "maxReplicaCount", "fallback",
        "advanced", "triggers",
    )  # fmt: skip
    notes = []
    lowest = _pods(spec, "minReplicaCount", 0, 0)
    highest = _pods(spec, "maxReplicaCount", max(lowest, 1), 100)
    polling = spec.integer("pollingInterval", 1, default=30)
    if lowest == 0 and polling > 15:
        notes.append(f"pollingInterval {polling} s: the first pod is asked for up to so late, and here within 15 s")
    if spec.has("fallback"):
        notes.append("fallback is not simulated: it works while Prometheus is away")
    advanced = spec.child("advanced")
    advanced.only("horizontalPodAutoscalerConfig", "restoreToOriginalReplicaCount")
    config = advanced.child("horizontalPodAutoscalerConfig")
    config.only("name", "behavior")
    if not config.has("behavior"):
        notes.append(_PLAIN)
    triggers = tuple(_trigger(trigger, lowest) for trigger in spec.children("triggers"))
    if not triggers:
        spec.refuse("triggers", "at least one trigger is needed")
    if lowest == 0 and all(isinstance(trigger, Cpu) for trigger in triggers):
        spec.refuse("minReplicaCount", "0 needs a trigger besides cpu: a pod that is not there uses none")
    cooldown = spec.integer("cooldownPeriod", 0, default=300)
    autoscaler = Autoscaler(lowest, highest, triggers, *_both(config.child("behavior")), cooldown_s=cooldown)
    return autoscaler, tuple(notes)


def _trigger(given: Fields, lowest: int) -> Trigger:
    """One trigger of a ScaledObject."""
    kind = given.text("type", ("cpu", "prometheus", "cron"))
    given.only("type", "name", "metricType", "metadata", "authenticationRef")
    metadata = given.child("metadata")
    if kind == "cpu":
        given.text("metricType", ("Utilization",))
        metadata.only("value")
        value = metadata.text("value")
        if not value.isdecimal() or int(value) < 1:
            metadata.refuse("value", f"{value!r} is no whole per cent of 1 or more")
        return Cpu(int(value))
    given.text("metricType", ("AverageValue",), "AverageValue")
    if kind == "cron":
        return _cron(metadata)
    metadata.only(*_ASKING)
    if lowest == 0 and metadata.has("activationThreshold"):
        metadata.text("activationThreshold", ("0",))
    try:
        return queries.trigger(metadata.text("query"), metadata.number("threshold"))
    except queries.QueryError as error:
        metadata.refuse("query", str(error))


def _cron(metadata: Fields) -> Cron:
    metadata.only("timezone", "start", "end", "desiredReplicas")
    timezone, count = metadata.text("timezone"), metadata.text("desiredReplicas")
    if not count.isdecimal():
        metadata.refuse("desiredReplicas", f"{count[:40]!r} is no whole number")
    if len(count) > 12 or int(count) > MAX_PODS:
        metadata.refuse("desiredReplicas", f"{count[:40]!r} is more than {MAX_PODS}")
    try:
        cron.zone(timezone)
    except cron.CronError as error:
        metadata.refuse("timezone", str(error))
    for name in ("start", "end"):
        try:
            cron.parse(metadata.text(name))
        except cron.CronError as error:
            metadata.refuse(name, str(error))
    return Cron(metadata.text("start"), metadata.text("end"), int(count), timezone)
