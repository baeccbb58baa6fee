"""Manifests of autoscalers are read as a cluster would take them; what can't be simulated is refused by its name."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from autoscaling import manifests
from autoscaling.fields import Fields, ManifestError
from autoscaling.hpa import (
    DOWN_DEFAULT,
    UP_DEFAULT,
    Autoscaler,
    Before,
    Cpu,
    Cron,
    GpuMemory,
    Offered,
    Policy,
    Queue,
    Rules,
)
from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

OVERLAYS = ROOT / "deploy" / "kubernetes" / "overlays"
REPLACED = object()

HPA: dict[str, Any] = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "resnet18"},
    "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "resnet18"},
        "minReplicas": 2,
        "maxReplicas": 9,
        "metrics": [
            {
                "type": "External",
                "external": {
                    "metric": {"name": "resnet18_offered_images_60s"},
                    "target": {"type": "AverageValue", "averageValue": "120500m"},
                },
            },
            {
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}},
            },
        ],
        "behavior": {
            "scaleUp": {
                "tolerance": "0",
                "policies": [{"type": "Percent", "value": 300, "periodSeconds": 15}],
                "selectPolicy": "Min",
            },
            "scaleDown": {"stabilizationWindowSeconds": 60, "tolerance": "50m"},
        },
    },
}
KEDA: dict[str, Any] = {
    "apiVersion": "keda.sh/v1alpha1",
    "kind": "ScaledObject",
    "metadata": {"name": "resnet18"},
    "spec": {
        "scaleTargetRef": {"name": "resnet18"},
        "maxReplicaCount": 9,
        "cooldownPeriod": 120,
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}}}},
        "triggers": [
            {
                "type": "prometheus",
                "metadata": {
                    "serverAddress": "http://prometheus:9090",
                    "query": "sum(rate(resnet18_images_total[60s]))",
                    "threshold": "120.5",
                },
            },
            {
                "type": "cron",
                "metadata": {
                    "timezone": "Europe/Berlin",
                    "start": "45 8 * * 1-5",
                    "end": "0 19 * * 1-5",
                    "desiredReplicas": "6",
                },
            },
            {"type": "cpu", "metricType": "Utilization", "metadata": {"value": "70"}},
        ],
    },
}


def changed(manifest: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """``manifest`` with another value at ``path``; KeyError as a value takes it away."""
    result: dict[str, Any] = copy.deepcopy(manifest)
    at: Any = result
    *parents, last = [int(part) if part.isdecimal() else part for part in path.split("/")]
    for part in parents:
        at = at[part]
    if value is KeyError:
        del at[last]
    else:
        at[last] = value
    return result


def read(folder: Path, *objects: Any) -> manifests.Manifest:
    path = folder / "scaler.yaml"
    path.write_text("---\n".join(one if isinstance(one, str) else yaml.safe_dump(one) for one in objects))
    return manifests.read(path)


def refusal(folder: Path, *objects: Any) -> str:
    with pytest.raises(ManifestError) as error:
        read(folder, *objects)
    told = str(error.value)
    assert str(folder) in told
    assert "\n" not in told
    return told


def test_an_hpa_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, HPA)
    assert found.autoscaler == Autoscaler(
        2,
        9,
        (Offered(120.5, 60), Cpu(70)),
        Rules((Policy("Percent", 300, 15),), 0, "Min", 0.0),
        Rules(DOWN_DEFAULT.policies, 60, "Max", 0.05),
    )
    assert (found.kind, found.notes) == ("HorizontalPodAutoscaler", ())


def test_a_scaled_object_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, KEDA)
    assert found.autoscaler == Autoscaler(
        0,
        9,
        (Offered(120.5, 60), Cron("45 8 * * 1-5", "0 19 * * 1-5", 6, "Europe/Berlin"), Cpu(70)),
        UP_DEFAULT,
        Rules(DOWN_DEFAULT.policies, 60),
        120,
    )
    assert found.notes == ("pollingInterval 30 s: the first pod is asked for up to so late, and here within 15 s",)


def test_what_a_manifest_leaves_out_is_filled_in_as_the_cluster_would(tmp_path: Path) -> None:
    bare = {**HPA, "spec": {"scaleTargetRef": {}, "maxReplicas": 9}}
    found = read(tmp_path, bare)
    assert found.autoscaler == Autoscaler(1, 9, (Cpu(80),))
    assert "no behavior is given" in found.notes[0]
    bare = {**KEDA, "spec": {"triggers": KEDA["spec"]["triggers"]}}
    assert read(tmp_path, bare).autoscaler == Autoscaler(0, 100, read(tmp_path, KEDA).autoscaler.triggers)


@pytest.mark.parametrize(
    ("kind", "name", "trigger"),
    [
        ("External", "resnet18_offered_images_300s", Offered(50, 300)),
        ("Pods", "resnet18_offered_images_30s", Offered(50, 30)),
        ("Pods", "resnet18_queue_images", Queue(50)),
        ("Pods", "gpu_memory_used_percent", GpuMemory(50)),
    ],
)
def test_metrics_of_the_adapter_are_known_by_their_names(tmp_path: Path, kind: str, name: str, trigger: object) -> None:
    target = {"type": "AverageValue", "averageValue": "50"}
    metric = {"type": kind, kind.lower(): {"metric": {"name": name}, "target": target}}
    assert read(tmp_path, changed(HPA, "spec/metrics/0", metric)).autoscaler.triggers[0] == trigger


@pytest.mark.parametrize(
    ("written", "value"),
    [("50", 50), (50, 50), ("1500m", 1.5), ("2k", 2000), ("1.5", 1.5), (1.5, 1.5), ("1e2", 100), ("100100u", 0.1001)],
)
def test_a_quantity_may_be_written_in_several_ways(tmp_path: Path, written: object, value: float) -> None:
    path = "spec/metrics/0/external/target/averageValue"
    assert read(tmp_path, changed(HPA, path, written)).autoscaler.triggers[0] == Offered(value)


def test_the_overlays_are_read_as_kubectl_would_build_them() -> None:
    cpu, gpu, keda, seed = (manifests.read(OVERLAYS / name) for name in ("cpu", "gpu", "keda", "seed"))
    assert cpu.autoscaler.triggers == (Offered(130), Queue(55), Cpu(95))
    assert gpu.autoscaler.triggers == (Offered(1000), Queue(425), Cpu(95), GpuMemory(60))
    assert keda.autoscaler.triggers[:4] == (Offered(130), Queue(55), Cpu(95), GpuMemory(60))
    assert {type(trigger) for trigger in keda.autoscaler.triggers[4:]} == {Cron}
    assert seed.autoscaler.triggers == (Cpu(70), Queue(50))
    assert seed.autoscaler.down.tolerance == 0.57
    assert keda.notes == ("fallback is not simulated: it works while Prometheus is away",)
    with pytest.raises(ManifestError, match="edge: it holds none; one HorizontalPodAutoscaler or ScaledObject is nee"):
        manifests.read(OVERLAYS / "edge")


def test_two_autoscalers_are_refused(tmp_path: Path) -> None:
    assert "would work against each other" in refusal(tmp_path, HPA, KEDA)
    assert read(tmp_path, {"kind": "Service"}, HPA).kind == "HorizontalPodAutoscaler"


def test_before_is_read_with_its_headroom(tmp_path: Path) -> None:
    query = "sum(rate(resnet18_images_total[300s] offset 85500s)) * 1.1"
    found = read(tmp_path, changed(KEDA, "spec/triggers/0/metadata/query", query))
    assert found.autoscaler.triggers[0] == Before(120.5, 85500, 1.1, 300)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (
            "apiVersion",
            "autoscaling/v2beta2",
            "apiVersion: 'autoscaling/v2beta2' can't be simulated; known here is autosc",
        ),
        ("spec/minReplicas", 0, "spec.minReplicas: 0 takes a feature"),
        ("spec/minReplicas", True, "spec.minReplicas: True is no whole number of 1 or more"),
        ("spec/maxReplicas", 1, "spec.maxReplicas: 1 is no whole number of 2 or more"),
        ("spec/maxReplicas", KeyError, "spec.maxReplicas: this field is missing"),
        ("spec/maxReplica", 9, "spec.maxReplica: this field can't be simulated; known here are scaleTargetRef"),
        ("spec/metrics", {}, "spec.metrics: {} is no list"),
        ("spec/metrics/0", 3, "spec.metrics[0]: 3 is no mapping"),
        ("spec/metrics/0/type", "Object", "spec.metrics[0].type: 'Object' can't be simulated"),
        ("spec/metrics/1/type", "ContainerResource", "'ContainerResource' can't be simulated"),
        ("spec/metrics/1/resource/name", "memory", "spec.metrics[1].resource.name: 'memory' can't be simulated"),
        ("spec/metrics/1/resource/target/type", "AverageValue", "'AverageValue' can't be simulated"),
        ("spec/metrics/1/resource/target/averageUtilization", "70", "'70' is no whole number of 1 or more"),
        ("spec/metrics/0/external/target/type", "Value", "'Value' can't be simulated; known here is AverageValue"),
        ("spec/metrics/0/external/target/averageValue", "many", "'many' is no quantity"),
        ("spec/metrics/0/external/target/averageValue", "0", "'0' is under 0.001"),
        ("spec/metrics/0/external/target/averageValue", True, "True is no quantity"),
        (
            "spec/metrics/0/external/metric/name",
            "requests",
            "'requests' of External can't be simulated; known here are",
        ),
        ("spec/metrics/0/external/metric/name", "resnet18_queue_images", "of External can't be simulated"),
        ("spec/metrics/0/external/metric/selector", {}, "metric.selector: this field can't be simulated"),
        ("spec/behavior/scaleUp/selectPolicy", "Most", "scaleUp.selectPolicy: 'Most' can't be simulated"),
        ("spec/behavior/scaleUp/tolerance", "-0.1", "scaleUp.tolerance: '-0.1' is under 0"),
        ("spec/behavior/scaleUp/policies", [], "an empty list is no policy"),
        ("spec/behavior/scaleUp/policies/0/periodSeconds", 1801, "1801 is no whole number of 1 to 1800"),
        ("spec/behavior/scaleUp/policies/0/value", 0, "policies[0].value: 0 is no whole number"),
        ("spec/behavior/scaleUp/policies/0/type", "Nodes", "policies[0].type: 'Nodes' can't be simulated"),
        ("spec/behavior/scaleDown/stabilizationWindowSeconds", 3601, "3601 is no whole number of 0 to 3600"),
        ("spec/behavior/both", {}, "spec.behavior.both: this field can't be simulated"),
        ("spec", "x" * 100, "spec: 'xxxxxxxxxx"),
    ],
)
def test_an_hpa_that_cannot_be_simulated_is_refused_by_field_and_value(
    tmp_path: Path, path: str, value: object, told: str
) -> None:
    assert told in refusal(tmp_path, changed(HPA, path, value))


PROMETHEUS = "spec/triggers/0/metadata"
CRON = "spec/triggers/1/metadata"


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("apiVersion", "keda.sh/v2", "'keda.sh/v2' can't be simulated"),
        ("metadata/annotations", {"autoscaling.keda.sh/paused": "true"}, "a paused ScaledObject does not scale"),
        ("metadata/annotations", {"autoscaling.keda.sh/paused-replicas": "1"}, "a paused ScaledObject"),
        ("spec/idleReplicaCount", 0, "spec.idleReplicaCount: this field can't be simulated"),
        ("spec/initialCooldownPeriod", 9, "spec.initialCooldownPeriod: this field can't be simulated"),
        ("spec/advanced/scalingModifiers", {}, "spec.advanced.scalingModifiers: this field can't be simulated"),
        ("spec/maxReplicaCount", 0, "0 is no whole number of 1 or more"),
        ("spec/triggers", [], "spec.triggers: at least one trigger is needed"),
        (
            "spec/triggers/0/type",
            "kafka",
            "spec.triggers[0].type: 'kafka' can't be simulated; known here are cpu, prom",
        ),
        ("spec/triggers/2/type", "memory", "spec.triggers[2].type: 'memory' can't be simulated"),
        ("spec/triggers/0/useCachedMetrics", True, "triggers[0].useCachedMetrics: this field can't be simulated"),
        ("spec/triggers/0/metricType", "Value", "'Value' can't be simulated; known here is AverageValue"),
        ("spec/triggers/2/metricType", KeyError, "triggers[2].metricType: this field is missing"),
        ("spec/triggers/2/metadata/value", 70, '70 is no text; write "70"'),
        ("spec/triggers/2/metadata/value", "0", "'0' is no whole per cent"),
        ("spec/triggers/2/metadata/containerName", "a", "metadata.containerName: this field can't be simulated"),
        (f"{PROMETHEUS}/query", "sum(up)", "metadata.query: 'sum(up)' is no query that can be simulated"),
        (f"{PROMETHEUS}/threshold", 120, '120 is no text; write "120"'),
        (f"{PROMETHEUS}/threshold", "0", "'0' is no number of 0.001 or more"),
        (f"{PROMETHEUS}/threshold", "nan", "'nan' is no number"),
        (f"{PROMETHEUS}/threshold", "many", "'many' is no number"),
        (f"{PROMETHEUS}/activationThreshold", "5", "activationThreshold: '5' can't be simulated; known here is 0"),
        (f"{CRON}/timezone", "Bonn", "metadata.timezone: 'Bonn' is no time zone"),
        (f"{CRON}/start", "0 8 * *", "metadata.start: '0 8 * *' has 4 fields"),
        (f"{CRON}/end", "0 25 * * *", "metadata.end: '0 25 * * *': '25' is no hour"),
        (f"{CRON}/desiredReplicas", "-1", "desiredReplicas: '-1' is no whole number"),
    ],
)
def test_a_scaled_object_that_cannot_be_simulated_is_refused_by_field_and_value(
    tmp_path: Path, path: str, value: object, told: str
) -> None:
    assert told in refusal(tmp_path, changed(KEDA, path, value))


def test_cpu_alone_cannot_scale_to_zero(tmp_path: Path) -> None:
    alone = changed(KEDA, "spec/triggers", KEDA["spec"]["triggers"][2:])
    assert "spec.minReplicaCount: 0 needs a trigger besides cpu" in refusal(tmp_path, alone)
    assert read(tmp_path, changed(alone, "spec/minReplicaCount", 1)).autoscaler.minimum == 1


def test_an_activation_threshold_counts_for_the_first_pod_alone(tmp_path: Path) -> None:
    manifest = changed(KEDA, f"{PROMETHEUS}/activationThreshold", "5")
    assert read(tmp_path, changed(manifest, "spec/minReplicaCount", 1)).autoscaler.triggers[0] == Offered(120.5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it holds none"),
        ("- 1\n", "'[1]' is no object of Kubernetes"),
        ("a: [", "it is no YAML: "),
        ("kind: Deployment\n", "it holds none"),
        ("kind: ScaledObject\n", "apiVersion: this field is missing"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, text: str, told: str) -> None:
    assert told in refusal(tmp_path, text)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"none\.yaml: it can't be read: No such file"):
        manifests.read(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match=r"binary\.yaml: it is no YAML"):
        manifests.read(tmp_path / "binary.yaml")


@pytest.mark.parametrize("name", ["minReplicas", "maxReplicas"])
def test_a_fleet_beyond_the_memory_of_the_simulation_is_refused(tmp_path: Path, name: str) -> None:
    manifest = copy.deepcopy(HPA)
    manifest["spec"][name] = 2147483647
    (tmp_path / "hpa.yaml").write_text(yaml.safe_dump(manifest))
    with pytest.raises(ManifestError, match=f"{name}: 2147483647 pods can't be simulated; at most 100000 can"):
        manifests.read(tmp_path / "hpa.yaml")


def test_a_field_that_is_missing_is_said_to_be(tmp_path: Path) -> None:
    manifest = copy.deepcopy(HPA)
    del manifest["spec"]["maxReplicas"]
    (tmp_path / "hpa.yaml").write_text(yaml.safe_dump(manifest))
    with pytest.raises(ManifestError, match=r"spec\.maxReplicas: this field is missing"):
        manifests.read(tmp_path / "hpa.yaml")


@pytest.mark.parametrize("count", ["99999999999999999999", "100001", "9" * 5000])
def test_a_schedule_of_too_many_pods_is_refused(count: str) -> None:
    metadata = {"timezone": "UTC", "start": "0 8 * * *", "end": "0 9 * * *", "desiredReplicas": count}
    with pytest.raises(ManifestError, match="is more than 100000") as error:
        manifests._cron(Fields("a.yaml", "", metadata))
    assert len(str(error.value)) < 120
