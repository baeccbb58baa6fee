"""Faults injected for real into a running service under load: every answer is checked by what it says.

``pytest tests/test_faults.py -rP`` prints what came back of each.
"""

from __future__ import annotations

import ast
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest

from tests.conftest import ROOT, Server, eventually, fill
from tests.test_service import check_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

JPEG = {"content-type": "image/jpeg"}
# A machine of its own needs a fifth of this; the tests' may be busy.
PATIENCE_S = 25
Known = dict[bytes, list[tuple[str, float]]]


@pytest.fixture(scope="module")
def known(store: Path, photos: list[Path]) -> Known:
    """Photographs, and what the artifact itself, outside any server, says of each: labels and probabilities."""
    from classifier import pixels
    from classifier.settings import Settings
    from runners import artifacts, backends

    tag = artifacts.choose(Settings(precision="fp32"), "cpu")
    artifact = artifacts.open_artifact(tag)
    backend = backends.load(artifact.folder, artifact.manifest)
    known: Known = {}
    for photo in photos[::6]:
        image = pixels.decode(photo.read_bytes(), artifact.manifest.preprocessing, 10**8)
        top = artifact.manifest.labels.top(backend.infer(image[None])[0], 3)
        known[photo.read_bytes()] = [(each["label"], each["probability"]) for each in top]
    assert len({tuple(label for label, _ in answer) for answer in known.values()}) > 4, "they must be told apart"
    return known


@pytest.fixture
def start(store: Path) -> Iterator[Callable[..., Server]]:
    """A function that starts a server which serves fp32, with settings by name and environment variables."""
    started: list[Server] = []

    def start(env: Mapping[str, str] | None = None, log: Path | None = None, **settings: str) -> Server:
        server = Server(store, settings={"precision": "fp32", "slo_ms": "3000"} | settings, env=env, log=log)
        started.append(server)
        return server.wait()

    yield start
    for server in started:
        server.stop()


def is_right(answer: dict[str, Any], expected: list[tuple[str, float]]) -> bool:
    """Whether the predictions of ``answer`` are the known ones, but for rounding."""
    got = [(each["label"], each["probability"]) for each in answer["predictions"]]
    return [label for label, _ in got] == [label for label, _ in expected] and all(
        abs(a - b) < 1e-4 for (_, a), (_, b) in zip(got, expected, strict=True)
    )


@dataclass
class Crowd:
    """Clients that send photographs without a pause and try once more what got no answer or 503.

    ``first`` and ``second`` count the outcomes of tries: a status, or what broke the connection.
    """

    server: Server
    known: Known
    clients: int = 8
    first: Counter[int | str] = field(default_factory=Counter)
    second: Counter[int | str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Crowd:
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(self.clients)]
        for thread in self._threads:
            thread.start()
        eventually(lambda: bool(self.first))
        time.sleep(1)
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a request hangs"

    def _run(self, number: int) -> None:
        bodies = list(self.known)
        with httpx.Client(base_url=self.server.url, timeout=30) as client:
            while not self.ended.is_set():
                number += 1
                body = bodies[number % len(bodies)]
                outcome = self._ask(client, body)
                self.first[outcome] += 1
                if outcome == "refused":  # it has gone
                    return
                if outcome != 200:
                    time.sleep(1 if outcome == 503 else 0)  # as Retry-After says
                    self.second[self._ask(client, body)] += 1

    def _ask(self, client: httpx.Client, body: bytes) -> int | str:
        try:
            response = client.post("/classify", content=body, headers=JPEG)
        except httpx.ConnectError:
            return "refused"
        except httpx.TransportError as error:
            return "reset" if isinstance(error, httpx.ReadError | httpx.RemoteProtocolError) else repr(error)
        if not response.headers.get("x-request-id"):
            self.wrong.append(f"no request id: {response.status_code}")
        if response.status_code == 200:
            if not is_right(response.json(), self.known[body]):
                self.wrong.append(response.text)
        elif not response.headers.get("retry-after"):
            self.wrong.append(f"no Retry-After: {response.status_code} {response.text}")
        return response.status_code


def tell(fault: str, **facts: Any) -> None:
    """Print what came back of a fault."""
    sys.stdout.write(f"{fault}: {', '.join(f'{name} {fact}' for name, fact in facts.items())}\n")


def answers_right(server: Server, known: Known) -> bool:
    body, expected = next(iter(known.items()))
    response = server.client.post("/classify", content=body, headers=JPEG)
    return response.status_code == 200 and is_right(response.json(), expected)


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def everything(connection: socket.socket) -> bytes:
    """What comes until the connection is closed."""
    with connection.makefile("rb") as file:
        return file.read()


def replace(path: Path, text: str) -> None:
    """Change what others read at any time."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


# Killed.


@pytest.mark.parametrize(
    ("victim", "workers", "container"),
    [("resnet18", 1, False), ("resnet18", 2, True), ("resnet18-runner", 1, True)],
    ids=["the API", "one of two API workers in a container", "the runner in a container"],
)
def test_a_killed_worker_is_back_and_costs_no_wrong_answer(
    start: Callable[..., Server], known: Known, victim: str, workers: int, container: bool
) -> None:
    placement = "inline" if victim == "resnet18" else "dedicated"
    env = {"BENTOML_CONTAINERIZED": "true"} if container else {}
    server = start(env=env, placement=placement, workers=str(workers))
    before = server.workers(victim)
    assert len(before) == workers
    with Crowd(server, known) as crowd:
        killed = time.monotonic()
        os.kill(before[0], signal.SIGKILL)

        def is_whole() -> bool:
            fresh = set(server.workers(victim)) - set(before)
            if not fresh or len(server.workers(victim)) < workers:
                return False
            if victim != "resnet18":
                return server.client.get("/readyz").status_code == 200
            # Connections go to any worker that accepts: the new one is back when it has some.
            with contextlib.ExitStack() as stack:
                for _ in range(8):
                    stack.enter_context(connect(server))
                time.sleep(0.05)
                held = psutil.Process(fresh.pop()).net_connections("tcp")
                return any(connection.status == psutil.CONN_ESTABLISHED for connection in held)

        assert eventually(is_whole, PATIENCE_S)
        whole = time.monotonic() - killed
        # What was in flight until then may have been too late.
        time.sleep(2.6)
        settled = crowd.first.copy()
        time.sleep(1)
        after = crowd.first - settled
    tell(
        f"kill -9 {victim}, {workers} workers",
        first=dict(crowd.first),
        second=dict(crowd.second),
        whole_s=f"{whole:.1f}",
    )
    assert crowd.wrong == []
    # A connection to a process that is gone can only break; whoever tries once more is answered.
    assert set(crowd.first) <= ({200, "reset"} if victim == "resnet18" else {200, 503, 429})
    assert crowd.first["reset"] <= crowd.clients
    assert set(crowd.second) <= ({200} if victim == "resnet18" else {200, 503, 429})
    assert crowd.first[200] > 50
    assert set(after) == {200}
    assert eventually(lambda: answers_right(server, known))
    # What waited in the dead process is no longer counted.
    folder = Path(psutil.Process(server.workers()[0]).environ()["PROMETHEUS_MULTIPROC_DIR"])
    assert not list(folder.glob(f"gauge_live*_{before[0]}.db"))


# Stopped.


@pytest.mark.parametrize("placement", ["inline", "dedicated"])
def test_sigterm_under_load_answers_whoever_has_a_connection(
    start: Callable[..., Server], known: Known, placement: str
) -> None:
    server = start(placement=placement)
    body, expected = next(iter(known.items()))
    head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
    crowd = Crowd(server, known, clients=12)
    with connect(server) as slow, connect(server) as idle, crowd:
        slow.sendall(head.encode() + body[:1000])
        time.sleep(0.2)
        told = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        time.sleep(1)
        with pytest.raises(ConnectionRefusedError):
            connect(server)
        assert idle.recv(1) == b"", "a connection without a request is closed, not reset"
        # An upload that is slower than that is still in flight.
        slow.sendall(body[1000:])
        answer = everything(slow)
        status = server.process.wait(20)
        took = time.monotonic() - told
    tell(f"SIGTERM, {placement}", first=dict(crowd.first), exit_s=f"{took:.1f}")
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer.lower()
    assert expected[0][0].encode() in answer
    assert crowd.wrong == []
    assert set(crowd.first) == {200, "refused"}
    assert crowd.first["refused"] == crowd.clients
    assert (status, took <= 10) == (0, True), took


def test_sigterm_does_not_wait_for_a_body_that_does_not_come(start: Callable[..., Server]) -> None:
    server = start()
    with connect(server) as connection:
        connection.sendall(
            b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 9\r\n\r\n."
        )
        time.sleep(0.2)
        told = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        answer = everything(connection)
    assert server.process.wait(20) == 0
    tell("SIGTERM, half an upload", exit_s=f"{time.monotonic() - told:.1f}")
    assert time.monotonic() - told <= 10
    assert answer.startswith(b"HTTP/1.1 503")
    assert b'"code":"unavailable"' in answer
    assert b"x-request-id" in answer


# No disk space.


def test_a_full_disk_does_not_stop_serving(
    start: Callable[..., Server], store: Path, known: Known, tmpfs: Callable[[str], Path], tmp_path: Path
) -> None:
    disk = tmpfs("4m")
    home = disk / "home"
    for folder in (home, disk / "tmp"):
        folder.mkdir()
    (home / "models").symlink_to(store / "models")
    env = {"TMPDIR": str(disk / "tmp"), "BENTOML_HOME": str(home)}
    server = start(env=env, log=disk / "log", access_log="true")
    files = sorted(home.glob("prometheus_multiproc_dir-*/*.db"))
    assert len(files) > 4
    for path in files:
        assert path.stat().st_blocks * 512 >= path.stat().st_size, (
            f"{path.name} has holes, which a full disk can't fill"
        )
    fill(disk)
    (worker,) = server.workers()
    body = next(iter(known))
    with Crowd(server, known) as crowd:
        # New labels, which take new pages of the metrics' files.
        for _ in range(3):
            check_error(server.client.post("/classify", content=b"junk", headers=JPEG), 415, "unsupported_media_type")
            check_error(server.client.post("/classify", content=body[:999], headers=JPEG), 400, "unreadable_image")
            check_error(server.client.post("/classify?top_k=0", content=body, headers=JPEG), 422, "invalid_parameter")
            check_error(server.client.post("/classify_batch", files={"other": b""}), 422, "invalid_parameter")
            assert server.client.post("/classify_batch", files={"images": body}).status_code == 200
            for page in ("/model", "/docs.json", "/"):
                assert server.client.get(page).status_code == 200
    assert crowd.wrong == []
    assert set(crowd.first) == {200}
    assert server.workers() == [worker], "it was started anew"
    counted = 'resnet18_images_total{outcome="unreadable_image"} 3.0'
    assert counted in server.client.get("/metrics").text
    # Whoever has to start now finds no room for metrics, and serves.
    os.kill(worker, signal.SIGKILL)
    assert eventually(lambda: server.workers() not in ([], [worker]))
    with Crowd(server, known) as second:
        assert server.client.get("/metrics").status_code == 200
    assert second.wrong == []
    assert set(second.first) == {200}
    metrics = server.client.get("/metrics").text
    assert f'resnet18_images_total{{outcome="ok"}} {second.first[200]:.1f}' in metrics
    assert psutil.disk_usage(str(disk)).free < 1 << 19, "it had room"
    tell("disk full of log, metrics and temporary files", first=dict(crowd.first), restarted=dict(second.first))


# A device that fails.

FAULTY = """
import os, pathlib, time
from runners import onnx

infer = onnx.Backend.infer

def faulty(self, pixels):
    time.sleep(0.03)  # what a batch costs besides its images, so that batches form as on a GPU
    fault = pathlib.Path(os.environ["FAULT"]).read_text()
    if fault == "memory" and len(pixels) > 2:
        raise RuntimeError("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 9")
    if fault == f"lost {os.getpid()}":
        raise RuntimeError("CUDA failure 999: unknown error ; GPU=0")
    return infer(self, pixels)

onnx.Backend.infer = faulty
"""


class Faulty:
    """A device that fails as it is told to: "none", "memory" or "lost" with a process id."""

    def __init__(self, folder: Path) -> None:
        (folder / "sitecustomize.py").write_text(FAULTY)
        self._fault = folder / "fault"
        self.env = {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "FAULT": str(self._fault)}
        self.set("none")

    def set(self, fault: str) -> None:
        replace(self._fault, fault)


@pytest.fixture
def faulty(tmp_path: Path) -> Faulty:
    return Faulty(tmp_path)


def test_a_failing_device_is_told_and_served_again(start: Callable[..., Server], known: Known, faulty: Faulty) -> None:
    server = start(env=faulty.env, placement="dedicated", threads="1")
    # Memory for two images: batches shrink, and nobody notices.
    faulty.set("memory")
    files = [("images", ("x", body)) for body in known]
    replies = [server.client.post("/classify_batch", files=files) for _ in range(3)]
    for reply in replies:
        assert reply.status_code == 200, reply.text
        assert all(map(is_right, reply.json()["results"], known.values()))
    batcher = server.client.get("/model").json()["runner"]["batcher"]
    assert batcher["max_batch"] == 2
    assert max(map(int, batcher["batches"])) > 2
    # Nothing works any more: told at once, and by the probe.
    (pid,) = server.workers("resnet18-runner")
    faulty.set(f"lost {pid}")
    with Crowd(server, known) as crowd:
        check_error(server.client.get("/readyz", timeout=5), 503, "unavailable")
        assert server.client.get("/livez", timeout=5).status_code == 200
        # It comes back: so does the service, in the same process.
        faulty.set("none")
        assert eventually(lambda: server.client.get("/readyz").status_code == 200)
        assert eventually(lambda: answers_right(server, known))
        # Who was told 503 comes again after a second.
        assert eventually(lambda: crowd.first[200] > 0)
    assert crowd.wrong == []
    assert set(crowd.first) == {200, 503}
    assert server.workers("resnet18-runner") == [pid]
    # It does not come back: a new process may.
    faulty.set(f"lost {pid}")
    lost = time.monotonic()
    check_error(server.client.post("/classify", content=next(iter(known)), headers=JPEG), 503, "unavailable")
    assert eventually(lambda: server.workers("resnet18-runner") not in ([], [pid]), 10 + PATIENCE_S)
    assert eventually(lambda: answers_right(server, known), PATIENCE_S)
    tell("device fails", first=dict(crowd.first), restarted_s=f"{time.monotonic() - lost:.1f}")


# Clients that go away.


@pytest.mark.parametrize("placement", ["inline", "dedicated"])
def test_clients_that_hang_up_leave_nothing_behind(
    start: Callable[..., Server], known: Known, faulty: Faulty, placement: str
) -> None:
    server = start(env=faulty.env, placement=placement, threads="1")
    body = next(iter(known))
    head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
    whole = head.encode() + body
    count = int(os.environ.get("HANG_UPS", "1200"))

    def hang_up(times: int) -> None:
        for number in range(times):
            with connect(server) as connection:
                # In turn: within the body, and when it is complete, soon or when it has reached the queue.
                connection.sendall(whole if number % 2 else whole[: len(head) + 5000])
                time.sleep(0.02 if number % 10 == 1 else 0)

    def batcher() -> dict[str, Any]:
        description: dict[str, Any] = server.client.get("/model").json()["runner"]["batcher"]
        return description

    def connections() -> int:
        return sum(len(process.net_connections()) for process in workers)

    workers = [psutil.Process(pid) for pid in server.workers() + server.workers("resnet18-runner")]
    assert answers_right(server, known)
    before = connections()
    sizes = []
    for _ in range(3):
        hang_up(count // 3)
        assert eventually(lambda: batcher()["queue"] == 0 and connections() <= before + 1, PATIENCE_S)
        sizes.append(sum(process.memory_info().rss for process in workers) / 1e6)
    dropped = batcher()["cancelled"]
    inferred = sum(int(size) * number for size, number in batcher()["batches"].items())
    rss = [round(size, 1) for size in sizes]
    tell(f"{count} clients hang up, {placement}", rss_mb=rss, inferred=inferred, dropped_from_the_queue=dropped)
    assert inferred < count // 4, "what nobody waits for must not cost inference"
    # The first third warms up the allocators.
    assert sizes[2] - sizes[1] < 0.02 * sizes[1]
    with Crowd(server, known) as crowd:
        pass
    assert (crowd.wrong, set(crowd.first)) == ([], {200})


# The clock.

WALL_CLOCK = {"time", "ctime", "localtime", "gmtime", "now", "utcnow", "today"}


def test_no_deadline_is_of_a_clock_that_can_be_set() -> None:
    found = []
    for package in ("classifier", "runners", "serving"):
        for path in (ROOT / package).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                # An event loop's own time is monotonic.
                if isinstance(node, ast.Attribute) and node.attr in WALL_CLOCK and "loop()" not in ast.unparse(node):
                    found.append(f"{path.name}:{node.lineno} {ast.unparse(node)}")
                if isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime"):
                    found.append(f"{path.name}:{node.lineno} {ast.unparse(node)}")
    assert found == []


JUMPING = """
import os, pathlib, time

real, offset = time.time, pathlib.Path(os.environ["CLOCK"])
time.time = lambda: real() + float(offset.read_text())
"""


def test_clock_jumps_change_nothing(start: Callable[..., Server], known: Known, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(JUMPING)
    clock = tmp_path / "clock"
    clock.write_text("0")
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "CLOCK": str(clock)}
    server = start(env=env, upload_timeout_ms="4000")
    with Crowd(server, known) as crowd, connect(server) as slow:
        slow.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 9\r\n\r\n.")
        sent = time.monotonic()
        for seconds in (86400, -86400, 0):
            replace(clock, str(seconds))
            time.sleep(1)
        assert slow.recv(12) == b"HTTP/1.1 408"
        assert 3.9 < time.monotonic() - sent < 4 + PATIENCE_S
    assert (crowd.wrong, set(crowd.first)) == ([], {200})
    # Those who look after the workers go by no clock either.
    replace(clock, "-86400")
    (worker,) = server.workers()
    os.kill(worker, signal.SIGKILL)
    assert eventually(lambda: server.workers() not in ([], [worker]))
    assert eventually(lambda: answers_right(server, known), PATIENCE_S)
    tell("clock jumps", first=dict(crowd.first))


# Request ids.


REQUESTS = [
    *(
        "GET /",
        "GET /metrics",
        "HEAD /livez",
        "GET /nowhere",
        "PUT /model",
        "POST /classify",
        "GET /static_content/x.js",
    ),
    *("GET /static_content/x.js", "no HTTP at all,"),
]


@pytest.mark.parametrize("request_line", REQUESTS)
def test_every_answer_has_a_request_id(server: Server, request_line: str) -> None:
    with connect(server) as connection:
        connection.sendall(f"{request_line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = everything(connection).lower()
    assert answer.count(b"x-request-id: ") == 1, answer
