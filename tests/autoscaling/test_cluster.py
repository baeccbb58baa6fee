"""A cluster of processes on this machine: pods come, are balanced and scraped, drain and go."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from autoscaling import prometheus
from autoscaling.cluster import PRE_STOP_S, Cluster, ClusterError, _found
from autoscaling.live import settled
from tests.conftest import debian

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

# What a replica is from outside: it takes half a second to start, and tells its port.
REPLICA = """
import http.server, sys, time
time.sleep(0.5)
port = int(sys.argv[1])
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = (f"replica_up {port}" if self.path == "/metrics" else str(port)).encode() + b"\\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", port), Answer).serve_forever()
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    debian("nginx-light", command="nginx")
    debian("prometheus", command="prometheus")
    (tmp_path / "replica.py").write_text(REPLICA)
    (tmp_path / "run").mkdir()
    with Cluster(tmp_path / "run", f"{sys.executable} {tmp_path / 'replica.py'} {{port}}", {}, 2.0) as made:
        yield made


def ticking(cluster: Cluster, holds: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        cluster.tick()
        time.sleep(0.1)
    return holds()


def answering(cluster: Cluster) -> set[int]:
    """The ports that a hundred requests of the balancer reach."""
    with httpx.Client(base_url=f"http://127.0.0.1:{cluster.port}") as client:
        return {int(client.get("/").text) for _ in range(100)}


def test_pods_come_are_balanced_and_go(cluster: Cluster) -> None:
    settled(cluster, 3)
    assert (cluster.wanted, cluster.ready) == (3, 3)
    # A process of half a second is a pod of two seconds.
    starts = [pod.ready - pod.asked for pod in cluster.pods if pod.ready is not None]
    assert min(starts) >= 2.0
    ports = {pod.port for pod in cluster.pods}
    assert ticking(cluster, lambda: answering(cluster) == ports, 10)
    cluster.scale(2)
    gone = next(pod for pod in cluster.pods if pod.removed is not None)
    assert gone is max(cluster.pods, key=lambda pod: pod.asked)
    # It is out of the balancer at once, and lives until it has been forgotten by those who might still ask it.
    assert ticking(cluster, lambda: answering(cluster) == ports - {gone.port}, 3)
    assert gone.process is not None
    assert gone.process.poll() is None
    assert ticking(cluster, lambda: gone.process is not None and gone.process.poll() is not None, PRE_STOP_S + 5)


def test_a_pod_that_still_starts_goes_before_one_that_is_ready(cluster: Cluster) -> None:
    settled(cluster, 2)
    first = list(cluster.pods)
    cluster.scale(4)
    cluster.scale(2)
    assert [pod.removed is None for pod in cluster.pods] == [True, True, False, False]
    assert all(pod.ready is not None for pod in first)
    # One of the two had been started, and the other never is.
    assert ticking(cluster, lambda: all(p.told for p in cluster.pods[2:]), PRE_STOP_S + 2)
    assert [pod.process is not None for pod in cluster.pods[2:]] == [True, False]


def test_prometheus_scrapes_every_pod(cluster: Cluster) -> None:
    settled(cluster, 2)

    def scraped() -> bool:
        try:
            return prometheus.instant(cluster.prometheus, 'sum(up{namespace="default"})') == 2
        except prometheus.PrometheusError:
            return False

    assert ticking(cluster, scraped, 40)
    total = sum(pod.port for pod in cluster.pods)
    assert prometheus.instant(cluster.prometheus, "sum(replica_up)") == total


def test_a_replica_that_does_not_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    debian("nginx-light", command="nginx")
    debian("prometheus", command="prometheus")
    command = f"{sys.executable} -c \"print('before'); raise SystemExit('the model is missing')\""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with (
        pytest.raises(ClusterError, match="a replica ended with status 1; it last said 'the model is missing'"),
        Cluster(tmp_path, command, {}, 0.0) as cluster,
    ):
        settled(cluster, 1)
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def test_what_is_missing_on_the_machine_is_named() -> None:
    with pytest.raises(ClusterError, match=r"'no-such-command' is missing; on Debian: apt-get install .* a-package"):
        _found("no-such-command", "a-package")


def test_a_cluster_that_is_told_to_end_does_so_at_its_next_tick(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, "", {}, 0.0)
    cluster.end(143)
    with pytest.raises(SystemExit) as ended:
        cluster.tick()
    assert ended.value.code == 143
