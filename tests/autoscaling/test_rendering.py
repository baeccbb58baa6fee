"""What is written for a cluster is valid there, and says what was meant: reading it gives the same autoscaler."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling import manifests, rendering
from autoscaling.fields import Fields, ManifestError
from autoscaling.hpa import Autoscaler, Before, Cpu, Cron, GpuMemory, Offered, Policy, Queue, Rules

if TYPE_CHECKING:
    from pathlib import Path

VERSION = "1.37"
SOURCE = ["Made by: python -m autoscaling plan --trace my.csv", "Tuned on its first 14 days."]
UP = Rules((Policy("Percent", 300, 15), Policy("Pods", 10, 30)), 0, tolerance=0.0)
DOWN = Rules((Policy("Percent", 100, 15),), 60, "Min", 0.05)
PLAIN = Autoscaler(2, 20, (Offered(120.5), Cpu(70), Queue(50), GpuMemory(60)), UP, DOWN)
TIMED = Autoscaler(
    0,
    20,
    (*PLAIN.triggers, Cron("45 8 * * 1-5", "0 19 * * 1-5", 6, "Europe/Berlin"), Before(120, 85500, 1.1, 600)),
    UP,
    DOWN,
    120,
)


def of(**fields: Any) -> dict[str, Any]:
    """A JSON schema of an object that has ``fields`` and no others; a name that ends in _ may be left out."""
    names = [name.rstrip("_") for name in fields]
    return {
        "type": "object",
        "properties": dict(zip(names, fields.values(), strict=True)),
        "required": [name for name in fields if not name.endswith("_")],
        "additionalProperties": False,
    }


TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
TEXTS = {"type": "object", "additionalProperties": TEXT}
COUNT = {"type": "integer", "minimum": 0}
POLICY = of(type={"enum": ["Pods", "Percent"]}, value={"type": "integer", "minimum": 1}, periodSeconds=COUNT)
RULES = of(
    stabilizationWindowSeconds=COUNT,
    selectPolicy={"enum": ["Max", "Min", "Disabled"]},
    tolerance_={"type": "string", "pattern": r"^\d+(\.\d+)?$"},
    policies={"type": "array", "items": POLICY, "minItems": 1},
)
NUMBER = {"type": "string", "pattern": r"^\d+(\.\d+)?$"}
# The fields that are written, as KEDA's documentation has them (reference/scaledobject-spec, scalers/cpu, /cron and
# /prometheus of 2.18): no package of its schema is to be had for these versions of Python.
KEDA = of(
    apiVersion={"const": "keda.sh/v1alpha1"},
    kind={"const": "ScaledObject"},
    metadata=of(name=TEXT, labels=TEXTS),
    spec=of(
        scaleTargetRef=of(name=TEXT),
        pollingInterval=COUNT,
        cooldownPeriod_=COUNT,
        minReplicaCount=COUNT,
        maxReplicaCount=COUNT,
        advanced=of(horizontalPodAutoscalerConfig=of(behavior=of(scaleUp=RULES, scaleDown=RULES))),
        triggers={
            "type": "array",
            "minItems": 1,
            "items": {
                "oneOf": [
                    of(type={"const": "cpu"}, metricType={"const": "Utilization"}, metadata=of(value=NUMBER)),
                    of(
                        type={"const": "cron"},
                        metadata=of(timezone=TEXT, start=TEXT, end=TEXT, desiredReplicas=NUMBER),
                    ),
                    of(
                        type={"const": "prometheus"},
                        metricType={"const": "AverageValue"},
                        metadata=of(serverAddress=TEXT, query=TEXT, threshold=NUMBER),
                    ),
                ]
            },
        },
    ),
)


VALIDATOR = jsonschema.Draft202012Validator(KEDA)


def back(folder: Path, text: str) -> Autoscaler:
    path = folder / "scaler.yaml"
    path.write_text(text)
    found = manifests.read(path)
    assert found.notes == ()
    return found.autoscaler


def test_an_hpa_is_valid_and_reads_the_same(tmp_path: Path) -> None:
    text = rendering.horizontal(PLAIN, SOURCE)
    kubernetes_validate.validate(yaml.safe_load(text), VERSION, strict=True)
    assert back(tmp_path, text) == PLAIN


def test_a_scaled_object_is_valid_and_reads_the_same(tmp_path: Path) -> None:
    for autoscaler in (PLAIN, TIMED):
        text = rendering.scaled_object(autoscaler, SOURCE)
        VALIDATOR.validate(yaml.safe_load(text))
        assert back(tmp_path, text) == autoscaler


def test_the_schema_sees_a_misspelt_field() -> None:
    item = yaml.safe_load(rendering.scaled_object(TIMED, SOURCE))
    item["spec"]["triggers"][0]["metadata"]["treshold"] = "1"
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(item)


def test_it_says_where_it_came_from_and_what_it_needs() -> None:
    hpa, keda = rendering.horizontal(PLAIN, SOURCE), rendering.scaled_object(TIMED, SOURCE)
    for text in (hpa, keda):
        assert text.startswith(f"# {SOURCE[0]}\n# {SOURCE[1]}\n")
        assert "# behavior.tolerance needs Kubernetes 1.35" in text
    assert "KEDA 2.18" in keda
    assert "KEDA" not in hpa
    assert "20 pods wanted of 19 change nothing" in keda
    assert "change nothing" not in rendering.scaled_object(PLAIN, SOURCE)
    default = replace(PLAIN, up=replace(UP, tolerance=0.1), down=replace(DOWN, tolerance=0.1))
    assert "tolerance" not in rendering.horizontal(default, SOURCE)


def test_the_rule_for_the_adapter_gives_the_metric_that_is_asked_for() -> None:
    text = rendering.horizontal(replace(PLAIN, triggers=(Offered(50, 300),)), SOURCE)
    rule = "\n".join(line.removeprefix("# ") for line in text.splitlines()[-200:] if line.startswith("#   "))
    (loaded,) = yaml.safe_load(rule)
    assert loaded["name"]["as"] == "resnet18_offered_images_300s"
    assert loaded["metricsQuery"].endswith("[300s]))")
    assert yaml.safe_load(text)["spec"]["metrics"][0]["external"]["metric"]["name"] == loaded["name"]["as"]


def test_names_namespace_and_address_are_the_users() -> None:
    text = rendering.scaled_object(PLAIN, SOURCE, "mine", "prod", "http://p:9090")
    item = yaml.safe_load(text)
    assert item["metadata"]["name"] == item["spec"]["scaleTargetRef"]["name"] == "mine"
    asked = item["spec"]["triggers"][0]["metadata"]
    assert asked["serverAddress"] == "http://p:9090"
    assert '{namespace="prod"}' in asked["query"]


@pytest.mark.parametrize("trigger", TIMED.triggers[-2:], ids=str)
def test_an_hpa_cannot_say_what_only_keda_can(trigger: Cron | Before) -> None:
    with pytest.raises(ManifestError, match=f"an HPA can't say {type(trigger).__name__}.*; a ScaledObject can"):
        rendering.horizontal(replace(PLAIN, triggers=(Offered(1), trigger)), SOURCE)
    with pytest.raises(ManifestError, match="an HPA can't say a minimum of 0 pods"):
        rendering.horizontal(replace(PLAIN, minimum=0), SOURCE)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"triggers": (Offered(100 / 3),)}, "33.333333333333336 has more than 3 decimals"),
        ({"triggers": (Before(100, 86400, 1.00001),)}, "1.00001 has more than 3 decimals"),
        ({"triggers": ()}, "triggers: at least one trigger is needed"),
        ({"triggers": (Cron("0 8 * *", "0 9 * * *", 3),)}, "'0 8 * *' has 4 fields"),
        ({"up": Rules((), 0)}, "an empty list is no policy"),
        ({"up": Rules(UP.policies, 7200)}, "7200 is no whole number of 0 to 3600"),
        ({"minimum": 0, "triggers": (Cpu(70),)}, "0 needs a trigger besides cpu"),
    ],
)
def test_what_a_scaled_object_cannot_say_is_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ManifestError) as error:
        rendering.scaled_object(replace(PLAIN, **change), SOURCE)
    assert told in str(error.value)


def test_an_hpa_without_a_metric_would_get_one_so_it_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"a HorizontalPodAutoscaler can't say .* it would be read as .*Cpu"):
        rendering.horizontal(replace(PLAIN, triggers=()), SOURCE)


def decimals(lowest: int, highest: int) -> st.SearchStrategy[float]:
    return st.integers(lowest, highest).map(lambda thousandths: thousandths / 1000)


POLICIES = st.lists(
    st.builds(Policy, st.sampled_from(["Pods", "Percent"]), st.integers(1, 1000), st.integers(1, 1800)),
    min_size=1,
    max_size=3,
).map(tuple)
RULES_DRAWN = st.builds(
    Rules, POLICIES, st.integers(0, 3600), st.sampled_from(["Max", "Min", "Disabled"]), decimals(0, 2000)
)
TRIGGERS = st.lists(
    st.one_of(
        st.builds(Offered, decimals(1, 10**7), st.integers(1, 7200)),
        st.builds(Queue, decimals(1, 10**6)),
        st.builds(GpuMemory, decimals(1, 10**5)),
        st.builds(Cpu, st.integers(1, 400)),
        st.builds(Cron, st.just("*/5 1-3 * JAN-MAR MON"), st.just("0 4 1,2 * ?"), st.integers(0, 99), st.just("UTC")),
        st.builds(Before, decimals(1, 10**6), st.integers(1, 10**6), decimals(1, 5000), st.integers(1, 7200)),
    ),
    min_size=1,
    max_size=5,
).map(tuple)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 50), st.integers(0, 50), TRIGGERS, RULES_DRAWN, RULES_DRAWN, st.integers(0, 900))
def test_every_autoscaler_comes_back(
    lowest: int, more: int, triggers: tuple[Any, ...], up: Rules, down: Rules, cooldown: int
) -> None:
    autoscaler = Autoscaler(lowest, lowest + more, triggers, up, down, cooldown)
    item = yaml.safe_load(rendering.scaled_object(autoscaler, SOURCE))
    VALIDATOR.validate(item)
    assert manifests.understood(Fields("text", "", item)).autoscaler == autoscaler
