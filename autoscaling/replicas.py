"""From metrics to pods: the size that a HorizontalPodAutoscaler wants, before ``behavior`` limits it.

The rules are those of Kubernetes 1.33 and newer, pkg/controller/podautoscaler/replica_calculator.go and
metrics/utilization.go; each function names its counterpart. Amounts are whole thousandths (milli-CPU, milli-requests),
as the controller has them, and targets are over 0. Ages are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoscaling.behavior import size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MAX_INT64 = 2**63 - 1


class UnknownError(Exception):
    """The controller can't compute a size; the message is the controller's own."""


@dataclass(frozen=True)
class Tolerances:
    """Fractions by which a metric may exceed (``up``) or miss (``down``) its target without any change."""

    up: float = 0.1
    down: float = 0.1

    def hold(self, ratio: float) -> bool:
        """Whether a metric at ``ratio`` times its target changes nothing; the bounds themselves hold: isWithin."""
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@dataclass(frozen=True)
class Pod:
    """A pod as the controller sees it.

    ``ready`` is its Ready condition (None: it has none), ``transition_age_s`` that condition's age, ``start_age_s``
    its own (None: not started). ``requests_m`` has one entry a container (None: it requests nothing).
    """

    name: str
    phase: str = "Running"
    ready: bool | None = True
    start_age_s: float | None = None
    transition_age_s: float | None = None
    deleted: bool = False
    requests_m: tuple[int | None, ...] = ()


@dataclass(frozen=True)
class Sample:
    """A pod's metric: an amount that was measured over ``window_s`` and is ``age_s`` old."""

    amount_m: int
    age_s: float = 0.0
    window_s: float = 60.0


@dataclass(frozen=True)
class Patience:
    """The time in which a young pod's CPU is ignored: two flags of kube-controller-manager, with their defaults."""

    cpu_initialization_s: float = 300.0
    initial_readiness_s: float = 30.0


@dataclass(frozen=True)
class Groups:
    """The number of pods that count, and the names of the others."""

    ready: int
    unready: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()


PATIENCE = Patience()


def group(pods: Sequence[Pod], samples: Mapping[str, Sample], cpu: bool, patience: Patience = PATIENCE) -> Groups:
    """Group ``pods`` by the use of their samples: groupPods.

    Deleted and failed pods are ignored, pending pods are unready, pods without a sample are missing. Readiness counts
    for CPU alone.
    """
    sets: dict[str, set[str]] = {"unready": set(), "missing": set(), "ignored": set()}
    ready = 0
    for pod in pods:
        if pod.deleted or pod.phase == "Failed":
            sets["ignored"].add(pod.name)
        elif pod.phase == "Pending":
            sets["unready"].add(pod.name)
        elif pod.name not in samples:
            sets["missing"].add(pod.name)
        elif cpu and _unready(pod, samples[pod.name], patience):
            sets["unready"].add(pod.name)
        else:
            ready += 1
    return Groups(ready, **{name: frozenset(found) for name, found in sets.items()})


def _unready(pod: Pod, sample: Sample, patience: Patience) -> bool:
    """Whether a running pod's CPU sample is ignored.

    In its first minutes: if it is not ready, or if the sample's window began before its last change of readiness.
    Later: if it has never been ready; its condition is then about as old as the pod.
    """
    if pod.ready is None or pod.start_age_s is None or pod.transition_age_s is None:
        return True
    if pod.start_age_s < patience.cpu_initialization_s:
        return not pod.ready or sample.age_s > pod.transition_age_s - sample.window_s
    return not pod.ready and pod.start_age_s - patience.initial_readiness_s < pod.transition_age_s


def utilisation(
    amounts_m: Mapping[str, int], requests_m: Mapping[str, int], target_percent: int
) -> tuple[float, int, int]:
    """Ratio to the target, per cent of the requests, and the mean amount: GetResourceUtilizationRatio.

    The per cent is cut to a whole before the ratio is taken. Samples of pods that are not known are left out. Raises
    UnknownError.
    """
    known = [name for name in amounts_m if name in requests_m]
    requested = sum(requests_m[name] for name in known)
    if requested == 0:
        raise UnknownError("no metrics returned matched known pods")
    used = sum(amounts_m[name] for name in known)
    percent = used * 100 // requested
    return percent / target_percent, percent, used // len(known)


def usage(amounts_m: Mapping[str, int], target_m: int) -> tuple[float, int]:
    """Ratio to the target and the mean amount, cut to a whole before the ratio is taken: GetMetricUsageRatio."""
    mean = sum(amounts_m.values()) // len(amounts_m)
    return mean / target_m, mean


def by_utilisation(
    current: int,
    groups: Groups,
    samples: Mapping[str, Sample],
    requests_m: Mapping[str, int],
    target_percent: int,
    tolerances: Tolerances,
) -> tuple[int, int, int]:
    """Pods wanted for a resource's ``averageUtilization``, the per cent now, and the mean: GetResourceReplicas.

    When the size would shrink, a pod without a sample counts as using all it requests, or the target if that is over
    100 %. Raises UnknownError.
    """
    amounts = _believed(samples, groups)
    _, percent, mean = utilisation(amounts, requests_m, target_percent)
    fallback = {name: requests_m[name] * max(100, target_percent) // 100 for name in groups.missing}

    def ratio(filled: Mapping[str, int]) -> float:
        return utilisation(filled, requests_m, target_percent)[0]

    return _wanted(current, groups, amounts, fallback, ratio, tolerances), percent, mean


def by_pods(
    current: int, groups: Groups, samples: Mapping[str, Sample], target_m: int, tolerances: Tolerances
) -> tuple[int, int]:
    """Pods wanted for a ``Pods`` metric's ``averageValue``, and the mean now: calcPlainMetricReplicas.

    When the size would shrink, a pod without a sample counts as being at the target. Raises UnknownError.
    """
    amounts = _believed(samples, groups)

    def ratio(filled: Mapping[str, int]) -> float:
        return usage(filled, target_m)[0]

    fallback = dict.fromkeys(groups.missing, target_m)
    return _wanted(current, groups, amounts, fallback, ratio, tolerances), usage(amounts, target_m)[1]


def _believed(samples: Mapping[str, Sample], groups: Groups) -> dict[str, int]:
    """The amounts without those of ignored and unready pods. Raises UnknownError if none is left."""
    left_out = groups.ignored | groups.unready
    amounts = {name: sample.amount_m for name, sample in samples.items() if name not in left_out}
    if not amounts:
        raise UnknownError("did not receive metrics for targeted pods (pods might be unready)")
    return amounts


def _wanted(
    current: int,
    groups: Groups,
    amounts: Mapping[str, int],
    fallback: Mapping[str, int],
    ratio_of: Callable[[Mapping[str, int]], float],
    tolerances: Tolerances,
) -> int:
    """Pods wanted, with unknown pods filled in against the direction that the known pods point to.

    Growing: missing and unready pods count 0. Shrinking: missing ones count ``fallback``. If that turns the direction
    of the ratio, or of the size, nothing changes.
    """
    ratio = ratio_of(amounts)
    growing = ratio > 1.0
    if not groups.missing and not (groups.unready and growing):
        return current if tolerances.hold(ratio) else size(ratio * groups.ready)
    filled = dict(amounts)
    if growing:
        filled |= dict.fromkeys(groups.missing | groups.unready, 0)
    elif ratio < 1.0:
        filled |= fallback
    again = ratio_of(filled)
    if tolerances.hold(again) or ratio < 1.0 < again or again < 1.0 < ratio:
        return current
    wanted = size(again * len(filled))
    turned = (again < 1.0 and wanted > current) or (again > 1.0 and wanted < current)
    return current if turned else wanted


def total(levels_m: Sequence[int]) -> int:
    """The sum of an external metric's series, at most the largest 64-bit integer."""
    return min(sum(levels_m), MAX_INT64)


def by_value(current: int, amount_m: int, target_m: int, ready: int, tolerances: Tolerances) -> int:
    """Pods wanted for an ``Object`` or ``External`` metric's ``value``: getUsageRatioReplicaCount.

    ``ready`` counts the pods that run and are ready. From 0 pods the tolerance does not count.
    """
    ratio = amount_m / target_m
    if current == 0:
        return size(ratio)
    return current if tolerances.hold(ratio) else size(ratio * ready)


def by_average(current: int, amount_m: int, target_m: int, tolerances: Tolerances) -> tuple[int, int]:
    """Pods wanted for an ``Object`` or ``External`` metric's ``averageValue``, and its mean a pod, rounded up.

    GetExternalPerPodMetricReplicas: this is what every KEDA trigger but ``cpu`` and ``memory`` becomes. Which pods are
    ready does not count. From 0 pods the tolerance does not count, and the mean is the amount itself.
    """
    held = current > 0 and tolerances.hold(amount_m / (target_m * current))
    mean = MAX_INT64 if float(amount_m) >= float(MAX_INT64) else -(-amount_m // max(current, 1))
    return current if held else size(amount_m / target_m), mean
