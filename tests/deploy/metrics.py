"""The metrics that files in deploy/ ask Prometheus for."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from tests.conftest import ROOT

# What others export: Prometheus itself, DCGM's exporter with its default counters, and kube-state-metrics.
FOREIGN = {
    "up",
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_FB_USED",
    "DCGM_FI_DEV_FB_FREE",
    "kube_deployment_spec_replicas",
    "kube_deployment_status_replicas_ready",
    "kube_horizontalpodautoscaler_spec_max_replicas",
    "kube_horizontalpodautoscaler_status_desired_replicas",
}
WORDS = {
    "absent",
    "by",
    "on",
    "sum",
    "max",
    "min",
    "or",
    "and",
    "count",
    "rate",
    "scalar",
    "vector",
    "histogram_quantile",
}


def names(expression: str) -> set[str]:
    """The metrics that a PromQL expression names."""
    # Selectors, ranges, groupings and strings hold labels, not metrics.
    bare = re.sub(r"\b(by|on) ?\([^)]*\)", " ", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"", " ", bare)
    return set(re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*", bare)) - WORDS


def dashboard() -> list[str]:
    """The dashboard's expressions."""
    board = json.loads((ROOT / "deploy" / "grafana" / "dashboard.json").read_text())
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def rules() -> dict[str, dict[str, Any]]:
    """The alert rules, by name."""
    (group,) = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def autoscaling() -> list[str]:
    """What HPA, adapter and KEDA ask for."""
    folder = ROOT / "deploy" / "kubernetes"
    scaled = yaml.safe_load((folder / "overlays" / "keda" / "scaledobject.yaml").read_text())
    queries = [t["metadata"]["query"] for t in scaled["spec"]["triggers"] if t["type"] == "prometheus"]
    adapter = yaml.safe_load((folder / "prometheus-adapter.yaml").read_text())["rules"]
    return queries + [rule["seriesQuery"] for kind in ("external", "custom") for rule in adapter[kind]]
