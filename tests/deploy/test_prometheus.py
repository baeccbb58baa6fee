"""Rules and dashboard, before a real Prometheus that scrapes a real server."""

from __future__ import annotations

import http.server
import re
import subprocess
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml

from tests.conftest import ROOT, debian, eventually, free_port
from tests.deploy import metrics as deploy_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Server

PROMETHEUS = ROOT / "deploy" / "prometheus"


@pytest.fixture(scope="module")
def busy(launch: Callable[..., Server], photos: list[Path]) -> Server:
    """A server that has answered, refused and been sent rubbish, so that all its metrics exist."""
    server = launch(max_queue="2").wait()
    photo = {"image": photos[0].read_bytes()}
    for _ in range(3):
        assert server.client.post("/classify", files=photo).status_code == 200
    assert server.client.post("/classify", files={"image": b"no image"}).status_code == 415
    assert server.client.post("/classify_batch", files=[("images", photo["image"])] * 3).status_code == 429
    return server


# What DCGM's exporter tells of a GPU, of which half the memory is in use.
DCGM = "".join(
    f'{name}{{gpu="0",UUID="GPU-1",device="nvidia0",Hostname="here"}} {value}\n'
    for name, value in (("DCGM_FI_DEV_GPU_UTIL", 71), ("DCGM_FI_DEV_FB_USED", 8000), ("DCGM_FI_DEV_FB_FREE", 8000))
)


# What kube-state-metrics tells of the Deployment and of the HPA that KEDA makes.
KUBE = "".join(
    f'{name}{{namespace="default",{kind}="{of}"}} {value}\n'
    for name, kind, of, value in (
        ("kube_deployment_spec_replicas", "deployment", "resnet18", 3),
        ("kube_deployment_status_replicas_ready", "deployment", "resnet18", 2),
        ("kube_horizontalpodautoscaler_status_desired_replicas", "horizontalpodautoscaler", "keda-hpa-resnet18", 3),
        ("kube_horizontalpodautoscaler_spec_max_replicas", "horizontalpodautoscaler", "keda-hpa-resnet18", 10),
    )
)


@pytest.fixture(scope="module")
def dcgm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a stand-in for DCGM's exporter, and for kube-state-metrics."""
    folder = tmp_path_factory.mktemp("dcgm")
    (folder / "metrics").write_text(DCGM + KUBE)
    handler = partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def prometheus(busy: Server, dcgm: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Debian's Prometheus with our configuration, scraping ``busy`` and ``dcgm`` every second."""
    command = debian("prometheus", command="prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(PROMETHEUS / "rules.yml")]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{busy.port}"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / "targets").mkdir()
    (folder / "targets" / "dcgm.yml").write_text(
        (PROMETHEUS / "dcgm.yml").read_text().replace("dcgm-exporter:9400", dcgm)
    )
    address = f"127.0.0.1:{free_port()}"
    options = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([command, *options, f"--web.listen-address={address}"], stderr=log)
    with httpx.Client(base_url=f"http://{address}/api/v1") as client:

        def scraped() -> bool:
            try:
                return all(len(query(client, name)) == 1 for name in ("resnet18_slo_seconds", "DCGM_FI_DEV_FB_USED"))
            except (httpx.TransportError, ValueError):  # not listening, or not ready
                return False

        try:
            assert eventually(scraped, 60), (folder / "log").read_text()
            # Rates need counters that move between two scrapes.
            for _ in range(4):
                time.sleep(1)
                busy.client.post("/classify", files={"image": b"no image"})
                busy.client.get("/metrics")
            yield client
        finally:
            process.terminate()
            process.wait(10)


def query(client: httpx.Client, expression: str) -> list[Any]:
    answer = client.get("/query", params={"query": expression}).json()
    assert answer["status"] == "success", answer
    result: list[Any] = answer["data"]["result"]
    return result


def exported(server: Server) -> set[str]:
    return set(re.findall(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)[ {]", server.client.get("/metrics").text, re.MULTILINE))


def test_every_metric_asked_for_is_exported(busy: Server) -> None:
    asked = [*deploy_metrics.dashboard(), *deploy_metrics.autoscaling()]
    asked += [rule["expr"] for rule in deploy_metrics.rules().values()]
    wanted = set().union(*map(deploy_metrics.names, asked))
    assert len(wanted) > 15
    assert wanted - deploy_metrics.FOREIGN <= exported(busy)


def test_the_names_of_an_expression_are_found() -> None:
    text = 'sum by (le) (rate(a_bucket{b="c"}[5m])) / on (d) group{e=~"f|g"} or vector(0)'
    assert deploy_metrics.names(text) == {"a_bucket", "group"}


def test_the_rules_fire_when_they_should_and_only_then() -> None:
    promtool = debian("prometheus", command="promtool")
    for command in (["check", "config", "prometheus.yml"], ["test", "rules", "rules_test.yml"]):
        done = subprocess.run([promtool, *command], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    tested = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())["tests"]
    for scenario in tested:
        assert {case["alertname"] for case in scenario["alert_rule_test"]} == set(deploy_metrics.rules())


def test_every_alert_has_its_place_in_the_runbook() -> None:
    text = (ROOT / "docs" / "deploy.md").read_text()
    headings = {heading.lower() for heading in re.findall(r"^#+ (ResNet18\w+)$", text, re.MULTILINE)}
    linked = {rule["annotations"]["runbook"] for rule in deploy_metrics.rules().values()}
    assert linked == {f"docs/deploy.md#{heading}" for heading in headings}


@pytest.mark.parametrize("number", range(len(deploy_metrics.dashboard())))
def test_a_panel_shows_something(prometheus: httpx.Client, number: int) -> None:
    expression = deploy_metrics.dashboard()[number].replace("$__rate_interval", "10s").replace("$instance", ".*")
    assert query(prometheus, expression), expression


def test_prometheus_takes_the_rules_and_none_holds_but_of_the_rubbish_that_was_sent(prometheus: httpx.Client) -> None:
    (group,) = prometheus.get("/rules").json()["data"]["groups"]
    assert {rule["name"]: rule["health"] for rule in group["rules"]} == dict.fromkeys(deploy_metrics.rules(), "ok")
    # It would fire in a quarter of an hour.
    assert [rule["name"] for rule in group["rules"] if rule["state"] != "inactive"] == ["ResNet18BadInput"]


def test_the_autoscalers_queries_have_an_answer(prometheus: httpx.Client) -> None:
    for expression in deploy_metrics.autoscaling():
        # The pods' labels are Kubernetes'.
        bare = re.sub(r"\{[^}]*\}", "", expression)
        if not deploy_metrics.names(bare) & deploy_metrics.FOREIGN:
            assert query(prometheus, bare), expression
