"""The Kubernetes manifests: rendered by kubectl, valid by Kubernetes' own schemas, and true of this service."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml

from classifier.settings import PREFIX, Settings
from runners.budget import budget_s
from serving import supervisor
from tests.conftest import ROOT
from tests.deploy import metrics as deploy_metrics

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Server

pytestmark = pytest.mark.slow

VERSION = "1.37"
OVERLAYS = ("cpu", "gpu", "edge", "keda", "seed")
# Kinds that operators bring; Kubernetes has no schema of them.
FOREIGN_KINDS = ("ServiceMonitor", "ScaledObject")


@pytest.fixture(scope="session", params=OVERLAYS)
def rendered(request: pytest.FixtureRequest, kubectl: Path) -> tuple[str, dict[str, dict[str, Any]]]:
    """An overlay's name, and its objects by kind."""
    return request.param, render(kubectl, request.param)


def render(kubectl: Path, overlay: str) -> dict[str, dict[str, Any]]:
    folder = ROOT / "deploy" / "kubernetes" / "overlays" / overlay
    env = os.environ | {"HOME": str(kubectl.parent)}
    done = subprocess.run([kubectl, "kustomize", folder], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    objects = list(yaml.safe_load_all(done.stdout))
    assert len({item["kind"] for item in objects}) == len(objects)
    return {item["kind"]: item for item in objects}


def flat(value: Any, path: str = "") -> dict[str, str]:
    """Every leaf of an object by its path; parts of a list go by their names, where they have one."""
    if isinstance(value, dict):
        parts = [(f"{path}.{name}" if path else name, part) for name, part in value.items()]
    elif isinstance(value, list):
        parts = [
            (f"{path}[{part.get('name', number) if isinstance(part, dict) else number}]", part)
            for number, part in enumerate(value)
        ]
    else:
        return {path: str(value)}
    return {name: leaf for inner, part in parts for name, leaf in flat(part, inner).items()}


def test_the_docs_show_all_that_the_swap_to_gpu_changes(kubectl: Path) -> None:
    cpu, gpu = (flat(render(kubectl, overlay)) for overlay in ("cpu", "gpu"))
    lines = [
        f"{sign}{re.sub(r'(spec|template)[.]', '', path)}: {side[path]}"
        for path in sorted(cpu | gpu)
        if cpu.get(path) != gpu.get(path)
        for sign, side in (("-", cpu), ("+", gpu))
        if path in side
    ]
    (told,) = re.findall(
        r"whole difference:\n\n```diff\n(.*?)```", (ROOT / "docs" / "deploy.md").read_text(), re.DOTALL
    )
    assert told.splitlines() == lines, "\n".join(lines)


def pod(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = objects["Deployment"]["spec"]["template"]["spec"]
    return spec


def container(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    (only,) = pod(objects)["containers"]
    assert isinstance(only, dict)
    return only


def test_every_object_is_valid_by_kubernetes_schema(rendered: tuple[str, dict[str, dict[str, Any]]]) -> None:
    for kind, item in rendered[1].items():
        if kind not in FOREIGN_KINDS:
            kubernetes_validate.validate(item, VERSION, strict=True)


def test_the_validation_sees_a_misspelt_field(rendered: tuple[str, dict[str, dict[str, Any]]]) -> None:
    broken = rendered[1]["Service"] | {"spek": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSION, strict=True)


def test_an_overlay_has_the_objects_it_should(rendered: tuple[str, dict[str, dict[str, Any]]]) -> None:
    overlay, objects = rendered
    always = {"Deployment", "Service", "NetworkPolicy"}
    cluster = always | {"PodDisruptionBudget", "ServiceMonitor"}
    expected = {
        "cpu": cluster | {"HorizontalPodAutoscaler"},
        "gpu": cluster | {"HorizontalPodAutoscaler"},
        "edge": always,
        "keda": cluster | {"ScaledObject"},
        "seed": cluster | {"HorizontalPodAutoscaler"},
    }
    assert set(objects) == expected[overlay]


def test_every_selector_selects_our_pods(rendered: tuple[str, dict[str, dict[str, Any]]]) -> None:
    objects = rendered[1]
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        objects["Deployment"]["spec"]["selector"]["matchLabels"],
        objects["Service"]["spec"]["selector"],
        objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        *(rule["labelSelector"]["matchLabels"] for rule in pod(objects).get("topologySpreadConstraints") or ()),
    ]
    if "PodDisruptionBudget" in objects:
        selectors.append(objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"])
    for selector in selectors:
        assert selector
        assert selector.items() <= labels.items()
    if "ServiceMonitor" in objects:
        assert objects["ServiceMonitor"]["spec"]["selector"]["matchLabels"] == objects["Service"]["metadata"]["labels"]
        # The alert ResNet18Down and the dashboard look for job="resnet18".
        name = objects["Service"]["metadata"]["labels"][objects["ServiceMonitor"]["spec"]["jobLabel"]]
        assert f'job="{name}"' in deploy_metrics.rules()["ResNet18Down"]["expr"]
    for scaler in {"HorizontalPodAutoscaler", "ScaledObject"} & set(objects):
        assert objects[scaler]["spec"]["scaleTargetRef"]["name"] == objects["Deployment"]["metadata"]["name"]


def test_ports_match_from_the_image_to_the_policy(rendered: tuple[str, dict[str, dict[str, Any]]]) -> None:
    objects = rendered[1]
    containerfile = (ROOT / "deploy" / "image" / "Containerfile").read_text()
    assert container(objects)["ports"] == [{"name": "http", "containerPort": 3000}]
    assert re.search(r"^EXPOSE 3000$", containerfile, re.MULTILINE)
    (port,) = objects["Service"]["spec"]["ports"]
    assert (port["name"], port["targetPort"]) == ("http", "http")
    assert objects["NetworkPolicy"]["spec"]["ingress"][0]["ports"] == [{"port": "http"}]


def test_the_probes_ask_paths_that_the_service_answers(
    rendered: tuple[str, dict[str, dict[str, Any]]], server: Server
) -> None:
    main = container(rendered[1])
    paths = {kind: main[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/livez"}
    assert all(server.client.get(path).status_code == 200 for path in paths.values())
    assert all(main[f"{kind}Probe"]["httpGet"]["port"] == "http" for kind in paths)


def test_the_grace_period_is_longer_than_the_drain(rendered: tuple[str, dict[str, dict[str, Any]]]) -> None:
    # What the service allows itself, in any placement; tests/test_faults.py holds it to that.
    drain = supervisor.API_STOP_S + supervisor.RUNNER_STOP_S
    assert supervisor.API_ANSWER_S < supervisor.API_STOP_S
    before = container(rendered[1])["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert before + drain < pod(rendered[1])["terminationGracePeriodSeconds"]
    assert drain < 10


def test_it_runs_hardened(rendered: tuple[str, dict[str, dict[str, Any]]]) -> None:
    spec, main = pod(rendered[1]), container(rendered[1])
    user = re.findall(r"^USER (\d+):(\d+)$", (ROOT / "deploy" / "image" / "Containerfile").read_text(), re.MULTILINE)
    context = spec["securityContext"]
    assert [(str(context["runAsUser"]), str(context["runAsGroup"]))] == user
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert main["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [mount["mountPath"] for mount in main["volumeMounts"]] == ["/tmp"]
    assert spec["automountServiceAccountToken"] is False


def test_its_environment_is_of_settings_that_the_service_honours(
    rendered: tuple[str, dict[str, dict[str, Any]]],
) -> None:
    env = {item["name"]: item.get("value", "2") for item in container(rendered[1])["env"]}
    assert all(name.startswith(PREFIX) for name in env)
    Settings(**{name.removeprefix(PREFIX).lower(): value for name, value in env.items()})
    # Kubernetes would set RESNET18_SERVICE_HOST in every pod beside a Service of this name: an unknown setting.
    assert pod(rendered[1])["enableServiceLinks"] is False


def amount(quantity: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(\D*)", quantity).groups()  # type: ignore[union-attr]
    return float(number) * {"": 1, "m": 1e-3, "Mi": 2**20, "Gi": 2**30}[unit]


def test_requests_are_no_more_than_limits(rendered: tuple[str, dict[str, dict[str, Any]]]) -> None:
    resources = container(rendered[1])["resources"]
    assert set(resources["requests"]) == set(resources["limits"]) >= {"cpu", "memory"}
    for name, requested in resources["requests"].items():
        assert amount(requested) <= amount(resources["limits"][name])
    assert ("nvidia.com/gpu" in resources["limits"]) == (rendered[0] == "gpu")


def test_no_image_is_a_moving_tag(rendered: tuple[str, dict[str, dict[str, Any]]]) -> None:
    version = (ROOT / "pyproject.toml").read_text().split('version = "')[1].split('"')[0]
    variant = {"keda": "cpu", "seed": "cpu"}.get(rendered[0], rendered[0])
    assert container(rendered[1])["image"].startswith(f"resnet18:{version}-{variant}-")
    for name in ("compose.yaml", "compose.gpu.yaml"):
        compose = yaml.safe_load((ROOT / "deploy" / name).read_text())
        images = [service["image"] for service in compose["services"].values() if "image" in service]
        assert images
        for image in images:
            # ${NAME:-image} or the image itself; what we build ourselves is named by its variant.
            plain = re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", image)
            assert re.fullmatch(r"\S+/\S+:v?\d[\w.-]*|nginx:\d[\w.-]*|resnet18:(cpu|gpu)", plain), image


def targets(objects: dict[str, dict[str, Any]]) -> dict[str, float]:
    """What the autoscaler aims at, by metric, the one that leads first."""
    if "ScaledObject" in objects:
        triggers = [t for t in objects["ScaledObject"]["spec"]["triggers"] if t["type"] != "cron"]
        return {
            t.get("name", t["type"]): float(t["metadata"].get("threshold", t["metadata"].get("value")))
            for t in triggers
        }
    found = {}
    for metric in objects["HorizontalPodAutoscaler"]["spec"]["metrics"]:
        source = metric[metric["type"].lower()]
        name = source["name"] if metric["type"] == "Resource" else source["metric"]["name"]
        found[name] = float(source["target"].get("averageUtilization") or source["target"]["averageValue"])
    return found


def behavior(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = (
        objects["ScaledObject"]["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        if "ScaledObject" in objects
        else objects["HorizontalPodAutoscaler"]["spec"]["behavior"]
    )
    return found


def test_the_autoscaler_leads_with_the_offered_rate(rendered: tuple[str, dict[str, dict[str, Any]]]) -> None:
    overlay, objects = rendered
    if overlay in ("edge", "seed"):
        return
    if overlay == "keda":
        spec = objects["ScaledObject"]["spec"]
        assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (1, 10)
        names = ["offered", "queue", "cpu", "gpu-memory"]
        # What the HPA of the cpu overlay does.
        hpa = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "base" / "hpa.yaml").read_text())
        assert behavior(objects) == hpa["spec"]["behavior"]
        assert list(targets(objects).values())[:3] == list(targets({"HorizontalPodAutoscaler": hpa}).values())
    else:
        assert "replicas" not in objects["Deployment"]["spec"]
        spec = objects["HorizontalPodAutoscaler"]["spec"]
        assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 10)
        names = ["resnet18_offered_images_60s", "resnet18_queue_images", "cpu"]
        names += ["gpu_memory_used_percent"] if overlay == "gpu" else []
    found = targets(objects)
    assert list(found) == names
    # As many as there can be, at once, with nothing to wait for.
    up, down = behavior(objects)["scaleUp"], behavior(objects)["scaleDown"]
    assert (up["stabilizationWindowSeconds"], up["tolerance"]) == (0, "0")
    assert max(policy["value"] for policy in up["policies"] if policy["type"] == "Pods") >= 10
    assert down["stabilizationWindowSeconds"] < 300


def test_a_queue_can_become_as_long_as_the_trigger_for_it(rendered: tuple[str, dict[str, dict[str, Any]]]) -> None:
    overlay, objects = rendered
    if overlay in ("edge", "seed"):
        return
    offered, queue = list(targets(objects).values())[:2]
    slo_ms = {item["name"]: item.get("value") for item in container(objects)["env"]}["RESNET18_SLO_MS"]
    # The budget of the SLO bounds how many images can wait in a pod of that rate.
    longest = budget_s(float(slo_ms)) * offered
    assert queue == pytest.approx(longest / 2, rel=0.02)


def test_the_seed_s_rules_are_those_that_were_asked_for(kubectl: Path) -> None:
    objects = render(kubectl, "seed")
    spec = objects["HorizontalPodAutoscaler"]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 10)
    assert targets(objects) == {"cpu": 70, "resnet18_queue_images": 50}
    # Scale-down only where CPU is under 30 %: (1 - tolerance) of its target.
    down = spec["behavior"]["scaleDown"]
    assert (1 - float(down["tolerance"])) * 70 == pytest.approx(30, abs=0.2)
    assert down["stabilizationWindowSeconds"] >= 300


def test_the_adapter_makes_every_metric_that_an_hpa_asks_for(kubectl: Path) -> None:
    path = ROOT / "deploy" / "kubernetes" / "prometheus-adapter.yaml"
    rules = yaml.safe_load(path.read_text())["rules"]
    made = {
        kind: {rule.get("name", {}).get("as") or rule["seriesQuery"].split("{")[0] for rule in rules[kind]}
        for kind in ("external", "custom")
    }
    for overlay in ("cpu", "gpu", "seed"):
        for metric in render(kubectl, overlay)["HorizontalPodAutoscaler"]["spec"]["metrics"]:
            if metric["type"] != "Resource":
                name = metric[metric["type"].lower()]["metric"]["name"]
                assert name in made[{"External": "external", "Pods": "custom"}[metric["type"]]]


def test_the_edge_has_one_pod_and_no_autoscaler(kubectl: Path) -> None:
    assert render(kubectl, "edge")["Deployment"]["spec"]["replicas"] == 1


@pytest.mark.parametrize("kind", ["cpu", "gpu", "pipeline"])
def test_bentocloud_s_files_are_what_bentoml_reads(kind: str) -> None:
    from attrs import fields_dict
    from bentoml._internal.cloud.schemas.modelschemas import DeploymentServiceConfig
    from bentoml._internal.utils.cattr import bentoml_cattr

    services = yaml.safe_load((ROOT / "deploy" / "bentocloud" / f"{kind}.yaml").read_text())["services"]
    expected = {"cpu": {"resnet18"}, "gpu": {"resnet18", "resnet18-runner"}, "pipeline": {"shelves", "resnet18"}}
    assert set(services) == expected[kind]
    for config in services.values():
        assert set(config) <= set(fields_dict(DeploymentServiceConfig))
        read = bentoml_cattr.structure(config, DeploymentServiceConfig)
        assert 1 <= read.scaling.min_replicas <= read.scaling.max_replicas
        Settings(**{env.name.removeprefix(PREFIX).lower(): env.value for env in read.envs or ()})
