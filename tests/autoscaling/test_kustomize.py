"""A kustomize directory gives the objects that kubectl would build, as far as an autoscaler goes."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from autoscaling import kustomize
from autoscaling.fields import Fields, ManifestError
from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

SCALER = """\
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: resnet18}
spec:
  minReplicas: 1
  metrics: [{type: Resource}]
"""
OTHER = "apiVersion: v1\nkind: Service\nmetadata: {name: resnet18}\nspec: {}\n"


def build(folder: Path, kustomization: str, **files: str) -> list[Fields]:
    (folder / "kustomization.yaml").write_text(kustomization)
    for name, text in {"scaler": SCALER, "other": OTHER, **files}.items():
        (folder / f"{name}.yaml").write_text(text)
    return kustomize.objects(folder)


def scaler(folder: Path, patches: str, **files: str) -> dict[str, Any] | None:
    found = [
        item.values
        for item in build(folder, f"resources: [scaler.yaml, other.yaml]\npatches:\n{patches}", **files)
        if item.values["kind"] == "HorizontalPodAutoscaler"
    ]
    return found[0] if found else None


def spec(folder: Path, patches: str, **files: str) -> Any:
    patched = scaler(folder, patches, **files)
    assert patched is not None
    return patched["spec"]


def refusal(folder: Path, kustomization: str, **files: str) -> str:
    with pytest.raises(ManifestError) as error:
        build(folder, kustomization, **files)
    assert str(folder) in str(error.value)
    return str(error.value)


def built(kubectl: Path, folder: Path) -> list[Any]:
    """The autoscalers that kubectl builds of ``folder``."""
    env = os.environ | {"HOME": str(kubectl.parent)}
    text = subprocess.run([kubectl, "kustomize", folder], env=env, capture_output=True, text=True, check=True).stdout
    return [item for item in yaml.safe_load_all(text) if item["kind"] in kustomize.AUTOSCALERS]


def ours(folder: Path) -> list[Any]:
    return [item.values for item in kustomize.objects(folder) if item.values["kind"] in kustomize.AUTOSCALERS]


@pytest.mark.parametrize("overlay", ["cpu", "gpu", "edge", "keda"])
def test_our_overlays_come_out_as_kubectl_builds_them(overlay: str, kubectl: Path) -> None:
    folder = ROOT / "deploy" / "kubernetes" / "overlays" / overlay
    assert ours(folder) == built(kubectl, folder)


SCALED = """\
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: resnet18}
spec:
  advanced: {horizontalPodAutoscalerConfig: {behavior: {scaleUp: {policies: [{type: Pods, value: 1}]}}}}
  triggers: [{type: cpu, metadata: {value: "70"}}, {type: cron, metadata: {start: a}}]
"""


@pytest.mark.parametrize(
    "patch",
    [
        "spec: {metrics: [{type: Pods}], behavior: {scaleUp: {policies: [{type: Pods, value: 9, periodSeconds: 15}]}}}",
        "spec: {minReplicas: null, maxReplicas: 3}",
        "spec: {triggers: [{type: cpu, metadata: {value: '90'}}]}",
        "spec: {advanced: {horizontalPodAutoscalerConfig: {behavior: {scaleUp: {policies: [{type: Percent}]}}}}}",
    ],
)
def test_a_merge_comes_out_as_kubectl_does_it(tmp_path: Path, kubectl: Path, patch: str) -> None:
    kind = "{kind: HorizontalPodAutoscaler|ScaledObject}"
    text = f"apiVersion: any\nkind: any\nmetadata: {{name: any}}\n{patch}"
    kustomization = f"resources: [scaler.yaml, scaled.yaml]\npatches: [{{path: patch.yaml, target: {kind}}}]"
    build(tmp_path, kustomization, scaled=SCALED, patch=text)
    assert ours(tmp_path) == built(kubectl, tmp_path)


def test_a_merge_changes_mappings_replaces_lists_and_takes_away(tmp_path: Path) -> None:
    head = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: resnet18}\n"
    patch = (
        head + "spec: {minReplicas: null, maxReplicas: 7, metrics: [{type: Pods}], behavior: {scaleUp: {tolerance: 0}}}"
    )
    assert spec(tmp_path, "- path: patch.yaml", patch=patch) == {
        "maxReplicas": 7,
        "metrics": [{"type": "Pods"}],
        "behavior": {"scaleUp": {"tolerance": 0}},
    }
    assert spec(tmp_path, "- path: patch.yaml", patch=patch.replace("resnet18", "other"))["minReplicas"] == 1


@pytest.mark.parametrize(
    ("operation", "metrics"),
    [
        ("{op: add, path: /spec/metrics/-, value: {type: Pods}}", ["Resource", "Pods"]),
        ("{op: add, path: /spec/metrics/0, value: {type: Pods}}", ["Pods", "Resource"]),
        ("{op: replace, path: /spec/metrics/0/type, value: Pods}", ["Pods"]),
        ("{op: replace, path: /spec/metrics, value: []}", []),
        ("{op: remove, path: /spec/metrics/0}", []),
    ],
)
def test_operations_are_done(tmp_path: Path, operation: str, metrics: list[str]) -> None:
    patches = f"- target: {{kind: HorizontalPodAutoscaler}}\n  patch: |\n    - {operation}"
    assert [metric["type"] for metric in spec(tmp_path, patches)["metrics"]] == metrics


def test_a_pointer_may_name_a_field_with_a_slash(tmp_path: Path) -> None:
    operation = "{op: add, path: /metadata/a~1b~0c, value: 1}"
    patched = scaler(tmp_path, f"- target: {{kind: HorizontalPodAutoscaler}}\n  patch: |\n    - {operation}")
    assert patched is not None
    assert patched["metadata"]["a/b~c"] == 1


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("{kind: HorizontalPodAutoscaler}", True),
        ("{kind: Horizontal.*|Service}", True),
        ("{kind: Horizontal}", False),
        ("{name: resnet18}", True),
        ("{name: resnet}", False),
        ("{group: autoscaling, version: v2}", True),
        ("{group: apps}", False),
        ("{kind: Service}", False),
    ],
)
def test_a_target_is_matched_as_a_whole(tmp_path: Path, target: str, meant: bool) -> None:
    patch = f"- target: {target}\n  patch: |\n    $patch: delete\n    kind: any\n    metadata: {{name: any}}"
    assert (scaler(tmp_path, patch) is None) is meant


def test_what_is_read_is_not_changed_by_a_patch(tmp_path: Path) -> None:
    items = build(tmp_path, "resources: [scaler.yaml]")
    before = yaml.safe_dump(items[0].values)
    patch = Fields("k", "patches[0]", {"patch": "- {op: remove, path: /spec}", "target": {"kind": ".*"}})
    assert "spec" not in kustomize._patched(items, patch, tmp_path)[0].values
    assert yaml.safe_dump(items[0].values) == before


@pytest.mark.parametrize(
    ("kustomization", "told"),
    [
        ("components: [a]", "components: this field can't be simulated"),
        ("patchesStrategicMerge: [a]", "patchesStrategicMerge: this field can't be simulated"),
        ("resources: [none.yaml]", "resources: 'none.yaml' is no file or directory here"),
        ("resources: [https://example.com/x]", "'https://example.com/x' is no file or directory here"),
        ("resources: scaler.yaml", "resources: 'scaler.yaml' is no list of names"),
        ("resources: [3]", "resources: [3] is no list of names"),
        ("resources: [.]", "this directory is among its own resources"),
        ("a: 1\n---\nb: 2", "it holds 2 documents; a kustomization is one"),
        ("", "it holds 0 documents"),
    ],
)
def test_a_kustomization_that_cannot_be_followed_is_refused(tmp_path: Path, kustomization: str, told: str) -> None:
    assert told in refusal(tmp_path, kustomization)


@pytest.mark.parametrize(
    ("patch", "told"),
    [
        ("{path: none.yaml}", "patches[0].path: "),
        ("{patch: 'a: ['}", "patches[0].patch: it is no YAML"),
        ("{patch: 'a: 2024-13-45'}", "patches[0].patch: it is no YAML: month must be in 1..12"),
        ("{patch: '[1]\\n---\\n[2]'}", "it is no YAML"),
        ("{patch: hello}", "'hello' is neither an object nor a list of operations"),
        ("{patch: '- {op: add}'}", "patches[0].target: a patch that is a list of operations needs one"),
        ("{patch: 'spec: {}'}", "patches[0].patch.kind: this field is missing"),
        ("{target: {kind: .*, labelSelector: a}, patch: '[]'}", "labelSelector: this field can't be simulated"),
        ("{target: {kind: .*}, patch: '[{op: move, path: /a}]'}", "is no add, replace or remove"),
        ("{target: {kind: .*}, patch: '[3]'}", "'3' is no add, replace or remove"),
        ("{target: {kind: .*}, patch: '[{op: remove, path: /spec/none}]'}", "does not fit the object"),
        ("{target: {kind: .*}, patch: '[{op: replace, path: /spec/none, value: 1}]'}", "does not fit the object"),
        ("{target: {kind: .*}, patch: '[{op: add, path: /spec/metrics/-1, value: 1}]'}", "does not fit the object"),
        ("{target: {kind: .*}, patch: '[{op: add, path: /spec/a/b, value: 1}]'}", "does not fit the object"),
        ("{target: {kind: .*}, patch: '[{op: add, path: /spec/a}]'}", "does not fit the object"),
        ("{target: {kind: .*}, patch: '[{op: remove, path: \"\"}]'}", "does not fit the object"),
        ("{target: {kind: .*}, patch: 'spec: {$patch: replace}'}", "the directive $patch: replace can't be done here"),
        ("{target: {kind: .*}, patches: []}", "patches[0].patches: this field can't be simulated"),
        ("{target: {kind: .*}, options: {}}", "patches[0].options: this field can't be simulated"),
    ],
)
def test_a_patch_that_cannot_be_done_is_refused(tmp_path: Path, patch: str, told: str) -> None:
    assert told in refusal(tmp_path, f"resources: [scaler.yaml]\npatches: [{patch}]")


def test_an_object_without_a_name_is_refused_where_a_patch_is_for_it(tmp_path: Path) -> None:
    nameless = SCALER.replace("{name: resnet18}", "{}")
    kustomization = "resources: [scaler.yaml]\npatches: [{target: {kind: .*}, patch: '[]'}]"
    assert "metadata.name: this field is missing" in refusal(tmp_path, kustomization, scaler=nameless)


def test_a_directory_without_a_kustomization_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"this directory has no kustomization\.yaml"):
        kustomize.objects(tmp_path)


def test_fields_that_touch_no_autoscaler_are_passed_over(tmp_path: Path) -> None:
    kustomization = (
        "resources: [scaler.yaml]\nimages: [{name: a, newTag: b}]\nnamespace: prod\nlabels: [{pairs: {a: b}}]"
    )
    assert build(tmp_path, kustomization)[0].values == yaml.safe_load(SCALER)
