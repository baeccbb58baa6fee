"""Cases of a vector file from metrics to replicas, answered by the model of ``replicas``.

Each answer has the names that the file's ``expected`` has. A case that the controller can't answer raises UnknownError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoscaling import replicas
from autoscaling.replicas import Groups, Pod, Sample, Tolerances

if TYPE_CHECKING:
    from collections.abc import Sequence

Case = dict[str, Any]


def resource_utilisation(inputs: Case) -> Case:
    """A resource's or one container's ``averageUtilization``, over whole pods."""
    tolerances = Tolerances(inputs["tolerance"]["up"], inputs["tolerance"]["down"])
    target = inputs["target_utilisation_pct"]
    wanted, percent, mean = by_resource(inputs["current_replicas"], target, inputs, inputs, tolerances)
    return {"replicas": wanted, "utilisation_pct": percent, "raw_value_m": mean}


def metric_ratio(inputs: Case) -> Case:
    """A metric of pods, or the ``value`` of an object or an external metric."""
    current, target = inputs["current_replicas"], inputs["target_m"]
    tolerances = Tolerances(inputs["tolerance"]["up"], inputs["tolerance"]["down"])
    if inputs["source"] == "pods":
        wanted, amount = by_pods(current, target, inputs, inputs, tolerances)
    else:
        amount = replicas.total(inputs["levels_m"])
        wanted = replicas.by_value(current, amount, target, inputs["ready_pods"], tolerances)
    return {"replicas": wanted, "usage_m": amount}


def external_per_pod(inputs: Case) -> Case:
    """The ``averageValue`` of an object or an external metric."""
    amount = replicas.total(inputs["levels_m"])
    tolerances = Tolerances(inputs["tolerance"]["up"], inputs["tolerance"]["down"])
    current, target = inputs["current_replicas"], inputs["target_per_pod_m"]
    wanted, mean = replicas.by_average(current, amount, target, tolerances)
    return {"replicas": wanted, "usage_m": mean}


def utilisation_ratio(inputs: Case) -> Case:
    """A ratio to a target alone."""
    if "target_m" in inputs:
        ratio, mean = replicas.usage(inputs["usage_m"], inputs["target_m"])
        return {"ratio": ratio, "usage_m": mean}
    target = inputs["target_utilisation_pct"]
    ratio, percent, mean = replicas.utilisation(inputs["usage_m"], inputs["request_m"], target)
    return {"ratio": ratio, "utilisation_pct": percent, "raw_value_m": mean}


def group_pods(inputs: Case) -> Case:
    """The pods that count."""
    pods = [_pod(pod) for pod in inputs["pods"]]
    samples = _samples(inputs["metrics"], None)
    groups = replicas.group(pods, samples, inputs["resource"] == "cpu", _patience(inputs))
    return {
        "ready_count": groups.ready,
        "unready": sorted(groups.unready),
        "missing": sorted(groups.missing),
        "ignored": sorted(groups.ignored),
    }


def by_resource(
    current: int, target_percent: int, metric: Case, inputs: Case, tolerances: Tolerances
) -> tuple[int, int, int]:
    """Pods wanted for ``metric`` (metrics, container, resource) over the pods of ``inputs``; per cent and mean now."""
    resource, container = metric.get("resource", "cpu"), metric.get("container")
    if not metric["metrics"]:
        text = f"unable to get metrics for resource {resource}: no metrics returned from resource metrics API"
        raise replicas.UnknownError(text)
    samples = _samples(metric["metrics"], container)
    pods = _listed(inputs)
    groups = replicas.group(pods, samples, resource == "cpu", _patience(inputs))
    requests = _requests(pods, resource, container)
    return replicas.by_utilisation(current, groups, samples, requests, target_percent, tolerances)


def by_pods(current: int, target_m: int, metric: Case, inputs: Case, tolerances: Tolerances) -> tuple[int, int]:
    """Pods wanted for ``metric`` (metrics, resource if it is one) over the pods of ``inputs``, and the mean now."""
    samples = _samples(metric["metrics"], None)
    groups = replicas.group(_listed(inputs), samples, metric.get("resource") == "cpu", _patience(inputs))
    return replicas.by_pods(current, groups, samples, target_m, tolerances)


def ready_count(inputs: Case) -> int:
    """The pods that run and are ready: getReadyPodsCount."""
    return sum(pod.phase == "Running" and bool(pod.ready) for pod in _listed(inputs))


def _listed(inputs: Case) -> list[Pod]:
    if not inputs["pods"]:
        raise replicas.UnknownError("no pods returned by selector while calculating replica count")
    return [_pod(pod) for pod in inputs["pods"]]


def _pod(given: Case) -> Pod:
    return Pod(
        given["name"],
        given["phase"],
        given["ready"] if given.get("has_ready_condition", True) else None,
        given["start_age_s"],
        given["ready_transition_age_s"],
        given["deleted"],
        # null: a pod whose container requests nothing.
        tuple(given.get("request_m") or (None,)),
    )


def _samples(given: Sequence[Case], container: int | None) -> dict[str, Sample]:
    """Each pod's sample: of one container, or the sum of all. A pod of which a part is missing has none.

    Raises UnknownError if no pod has the container: getContainerMetrics and getPodMetrics in metrics/client.go.
    """
    samples = {}
    for one in given:
        parts = [one["value_m"]] if "value_m" in one else one["usage_m"]
        parts = parts if container is None else parts[container : container + 1]
        if parts and None not in parts:
            samples[one["pod"]] = Sample(sum(parts), one["age_s"], one["window_s"])
    if given and not samples and container is not None:
        raise replicas.UnknownError("container not present in metrics")
    return samples


def _requests(pods: Sequence[Pod], resource: str, container: int | None) -> dict[str, int]:
    """The requests of each pod, of one container or of all. Raises UnknownError if a request is missing."""
    requests = {}
    for pod in pods:
        parts = pod.requests_m if container is None else pod.requests_m[container : container + 1]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            raise replicas.UnknownError(f"missing request for {resource} in pod {pod.name}")
        requests[pod.name] = sum(known)
    return requests


def _patience(inputs: Case) -> replicas.Patience:
    return replicas.Patience(inputs["cpu_init_period_s"], inputs["initial_readiness_delay_s"])


def _grouped(case: Case) -> tuple[Groups, dict[str, Sample]]:
    """The pods of a random decision, each of a given state; unready pods have a sample, too."""
    named = [(f"pod-{number}", pod) for number, pod in enumerate(case["pods"])]
    sets = {
        state: frozenset(name for name, pod in named if pod["state"] == state)
        for state in ("unready", "missing", "ignored")
    }
    samples = {name: Sample(pod["usage"]) for name, pod in named if pod["usage"] is not None}
    return Groups(sum(pod["state"] == "ready" for _, pod in named), **sets), samples


def _evenly(case: Case) -> Tolerances:
    return Tolerances(case["tolerance_up"], case["tolerance_down"])


def random_utilization(case: Case) -> Case:
    """A random decision on per cent of requests."""
    groups, samples = _grouped(case)
    requests = {f"pod-{number}": pod["request"] for number, pod in enumerate(case["pods"])}
    wanted, _, _ = replicas.by_utilisation(case["current"], groups, samples, requests, case["target"], _evenly(case))
    return {"replicas": wanted}


def random_pods(case: Case) -> Case:
    """A random decision on a metric of pods."""
    groups, samples = _grouped(case)
    return {"replicas": replicas.by_pods(case["current"], groups, samples, case["target"], _evenly(case))[0]}


def random_value(case: Case) -> Case:
    """A random decision on one value of the whole service."""
    wanted = replicas.by_value(case["current"], case["value"], case["target"], case["ready"], _evenly(case))
    return {"replicas": wanted}


def random_average(case: Case) -> Case:
    """A random decision on one value of the whole service, with a target for each pod's share."""
    return {"replicas": replicas.by_average(case["current"], case["value"], case["target"], _evenly(case))[0]}
