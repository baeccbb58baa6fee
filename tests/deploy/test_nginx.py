"""nginx before two replicas: limits, retries, and no error for a client while replicas die and are rolled."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from benchmarks import load
from tests.conftest import ROOT, debian, eventually, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Server

pytestmark = pytest.mark.slow

JPEG = {"content-type": "image/jpeg"}


class Nginx:
    """Debian's nginx with deploy/nginx/nginx.conf before replicas on this machine's ports."""

    def __init__(self, folder: Path, ports: list[int]) -> None:
        command = debian("nginx-light", command="nginx")
        source = ROOT / "deploy" / "nginx"
        shutil.copytree(source, folder)
        main = folder / "nginx.conf"
        main.write_text(main.read_text().replace(" /tmp/", f" {folder}/"))
        upstream = folder / "upstream.conf"
        text = upstream.read_text()
        for number, port in enumerate(ports, 1):
            text = text.replace(f"resnet18-{number}:3000", f"127.0.0.1:{port}")
        upstream.write_text(text)
        self.port = free_port()
        (folder / "listen.conf").write_text(f"listen 127.0.0.1:{self.port};")
        options = "daemon off;" if os.geteuid() else "daemon off; user root;"
        self.process = subprocess.Popen([command, "-p", folder, "-c", main, "-g", options], stderr=subprocess.PIPE)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)
        if not eventually(self._listens, 5):
            self.stop()
            raise AssertionError("nginx does not listen")

    def _listens(self) -> bool:
        try:
            self.client.get("/none")
        except httpx.TransportError:
            return False
        return True

    def stop(self) -> None:
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=10)


class Replica(ThreadingHTTPServer):
    """Answers every request with ``status``, and remembers what it was asked and over how many connections."""

    daemon_threads = True

    def __init__(self, status: int = 200) -> None:
        self.status, self.asked, self.connections = status, 0, 0
        super().__init__(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Replica

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked += 1
        answer = str(len(body)).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def replicas() -> Iterator[list[Replica]]:
    made = [Replica(), Replica()]
    yield made
    for replica in made:
        replica.shutdown()
        replica.server_close()


@pytest.fixture
def nginx(replicas: list[Replica], tmp_path: Path) -> Iterator[Nginx]:
    made = Nginx(tmp_path / "nginx", [replica.server_port for replica in replicas])
    yield made
    made.stop()


@pytest.mark.parametrize("path", ["/classify", "/classify_batch"])
def test_a_503_is_asked_of_the_other_replica(nginx: Nginx, replicas: list[Replica], path: str) -> None:
    replicas[0].status = 503
    assert [nginx.client.post(path, content=b"x").status_code for _ in range(20)] == [200] * 20
    assert replicas[0].asked >= 1
    assert replicas[1].asked == 20


def test_a_post_to_another_path_is_never_sent_twice(nginx: Nginx, replicas: list[Replica]) -> None:
    for replica in replicas:
        replica.status = 503
    assert nginx.client.post("/other", content=b"x").status_code == 503
    assert sum(replica.asked for replica in replicas) == 1


def test_a_429_is_the_answer(nginx: Nginx, replicas: list[Replica]) -> None:
    for replica in replicas:
        replica.status = 429
    assert nginx.client.post("/classify", content=b"x").status_code == 429
    assert sum(replica.asked for replica in replicas) == 1


def test_load_is_shared_and_connections_are_kept(nginx: Nginx, replicas: list[Replica]) -> None:
    for _ in range(100):
        assert nginx.client.post("/classify", content=b"x").status_code == 200
    assert min(replica.asked for replica in replicas) > 20
    assert sum(replica.connections for replica in replicas) <= 10


def test_the_body_limit_is_the_service_s_and_told_in_its_shape(nginx: Nginx, replicas: list[Replica]) -> None:
    from classifier.settings import Settings

    limit = Settings().max_body_bytes
    assert nginx.client.post("/classify", content=bytes(limit)).text == str(limit)
    response = nginx.client.post("/classify", content=bytes(limit + 1))
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert (error["code"], error["limit"]) == ("body_too_large", limit)
    assert response.headers["x-error-code"] == error["code"]


def test_no_replica_is_a_503_in_the_service_s_shape(nginx: Nginx, replicas: list[Replica]) -> None:
    for replica in replicas:
        replica.shutdown()
        replica.server_close()
    response = nginx.client.post("/classify", content=b"x")
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "unavailable" == response.headers["x-error-code"]
    assert response.headers["retry-after"] == "1"


def test_no_client_sees_an_error_while_one_replica_is_killed_and_the_other_rolled(
    launch: Callable[..., Server], photos: list[Path], tmp_path: Path
) -> None:
    # A second core and a colleague's load decide how long a start takes here, so the SLO is wide.
    first, second = launch(slo_ms="20000").wait(), launch(slo_ms="20000").wait()
    nginx = Nginx(tmp_path / "nginx", [first.port, second.port])
    bodies = [photo.read_bytes() for photo in photos]
    url = f"http://127.0.0.1:{nginx.port}/classify"
    stop = threading.Event()

    def client() -> list[load.Result]:
        results = []
        while not stop.is_set():
            results.append(load.closed(url, bodies, "image/jpeg", connections=8, seconds=2))
        return results

    with ThreadPoolExecutor(1) as pool:
        clients = pool.submit(client)
        try:
            assert eventually(lambda: answered(first) > 10 and answered(second) > 10)
            for pid in first.processes():
                os.kill(pid, signal.SIGKILL)
            first.stop()
            first = launch(port=first.port, slo_ms="20000").wait()
            assert eventually(lambda: answered(first) > 10), "it is asked again"
            second.stop()
            second = launch(port=second.port, slo_ms="20000").wait()
            assert eventually(lambda: answered(second) > 10)
        finally:
            stop.set()
            results = clients.result()
            nginx.stop()
    assert sum(result.statuses.get(200, 0) for result in results) > 100
    assert {status for result in results for status in result.statuses} == {200}


def answered(server: Server) -> int:
    """The images that this replica alone has taken; /metrics is shared by servers of one store."""
    taken: int = server.client.get("/model").json()["runner"]["batcher"]["admitted"]
    return taken
