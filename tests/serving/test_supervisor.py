"""The supervisor: when it says that the service is ready, what --reload does, and what is left when it is killed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from tests.conftest import ROOT, Server, eventually
from tests.test_faults import JPEG, connect, everything

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Start slowly, if this is the process that the test names by an argument of its command line.
SLOW = """
import os, sys, time
with open("/proc/self/cmdline") as file:
    if os.environ["SLOW"] in file.read().replace("\\0", " "):
        time.sleep(4)
"""


@pytest.fixture
def start(store: Path, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """A function that starts a server, what it prints in the file ``log``."""
    started: list[Server] = []

    def start(**options: object) -> Server:
        started.append(Server(store, log=tmp_path / "log", **options))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for server in started:
        server.stop()


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


# Ready.


@pytest.mark.parametrize(
    ("settings", "slow", "last"),
    [
        ({}, "--service-name resnet18", "[entry_service:resnet18:1] Service resnet18 initialized"),
        ({"workers": "2"}, "--worker-id 2", "[entry_service:resnet18:2] Service resnet18 initialized"),
        ({"placement": "dedicated"}, "--service-name resnet18-runner", "Service resnet18-runner initialized"),
    ],
    ids=["one worker", "the last of two workers", "the runner"],
)
def test_ready_is_said_once_and_when_all_are(
    start: Callable[..., Server], tmp_path: Path, settings: dict[str, str], slow: str, last: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW)
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "SLOW": slow}
    server = start(settings=settings, env=env)
    ready = f"ready: {server.url}\n"
    log = tmp_path / "log"
    assert eventually(lambda: ready in log.read_text(), 40), log.read_text()
    assert server.client.get("/readyz", timeout=5).status_code == 200
    printed = log.read_text()
    assert last in printed.partition(ready)[0], printed
    # A worker that is started anew does not say it again.
    os.kill(server.workers()[0], signal.SIGKILL)
    time.sleep(1)
    server.wait()
    assert server.stop().count("ready: ") == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_the_address_that_is_said_can_be_opened(start: Callable[..., Server], tmp_path: Path, host: str) -> None:
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("there is no IPv6 here")
    start(arguments=["--host", host, "--port", "0"])
    log = tmp_path / "log"
    assert eventually(lambda: "ready: " in log.read_text(), 40), log.read_text()
    (url,) = [line.removeprefix("ready: ") for line in log.read_text().splitlines() if line.startswith("ready: ")]
    here = "[::1]" if ":" in host else "127.0.0.1"
    assert url.startswith(f"http://{here}:")
    assert not url.endswith(":0")
    assert httpx.get(f"{url}/readyz").status_code == 200


def test_workers_that_end_again_and_again_are_given_up(start: Callable[..., Server], tmp_path: Path) -> None:
    fails = (
        'import os\nif "--worker-id" in open("/proc/self/cmdline").read().split(chr(0)):\n'
        '    print("no luck", flush=True)\n    os._exit(3)\n'
    )
    (tmp_path / "sitecustomize.py").write_text(fails)
    server = start(env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"})
    assert server.process.wait(60) == 1
    lines = server.stop().splitlines()
    assert 3 <= lines.count("no luck") <= 5
    assert lines[-1] == "resnet18: 3 processes have ended before all were ready; above is what they said"


# Killed.


@pytest.mark.parametrize("decoder", ["inline", "contained"])
@pytest.mark.parametrize("placement", ["inline", "dedicated"])
def test_nothing_outlives_a_killed_supervisor(
    start: Callable[..., Server], photos: list[Path], tmp_path: Path, placement: str, decoder: str
) -> None:
    server = start(settings={"placement": placement, "decoder": decoder, "workers": "2"}).wait()
    assert eventually(lambda: "ready: " in (tmp_path / "log").read_text(), 40)
    body = photos[0].read_bytes()
    head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
    assert server.client.post("/classify", content=body, headers=JPEG).status_code == 200
    tree = server.processes()
    runners = 1 if placement == "dedicated" else 0
    # Of each contained decoder there are what forks and one fork for each of its threads that has had an image.
    assert len(tree) >= 1 + 2 + runners + (2 + 1 if decoder == "contained" else 0)
    try:
        with connect(server) as slow:
            slow.sendall(head.encode() + body[:1000])
            time.sleep(0.2)
            os.kill(server.process.pid, signal.SIGKILL)
            # The port is free, though what is in flight is still to be answered.
            assert eventually(lambda: is_free(server.port), 4)
            slow.sendall(body[1000:])
            answer = everything(slow)
        assert answer.startswith(b"HTTP/1.1 200" if placement == "inline" else (b"HTTP/1.1 200", b"HTTP/1.1 503")), (
            answer
        )
        assert eventually(lambda: all(map(has_ended, tree)), 10)
    finally:
        for pid in tree:
            if not has_ended(pid):
                os.kill(pid, signal.SIGKILL)
    assert "the supervisor has ended" in server.stop()


# Reloaded.


@pytest.mark.parametrize("placement", ["inline", "dedicated"])
def test_reload(start: Callable[..., Server], tmp_path: Path, placement: str) -> None:
    code = tmp_path / "code"
    for folder in ("classifier", "runners", "serving", "web"):
        shutil.copytree(ROOT / folder, code / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("service.py", "bentofile.yaml"):
        shutil.copy(ROOT / name, code / name)
    env = {"PYTHONPATH": str(code)}
    server = start(cwd=code, settings={"placement": placement}, env=env, arguments=["--reload"]).wait()
    before = server.workers()
    # What no bento would have changes nothing.
    (code / "notes.txt").write_text("notes")
    time.sleep(2)
    assert server.workers() == before
    for path, old, new in [
        ("service.py", '"slo_ms": settings.slo_ms', '"slo_ms": "changed"'),
        ("serving/replies.py", "def json_response(", "MORE = 1\n\n\ndef json_response("),
        ("service.py", '"slo_ms": "changed"', '"slo_ms": "changed again"'),
    ]:
        workers = server.workers()
        change(code / path, old, new)
        assert eventually(partial(are_replaced, server, workers), 30), server.stop()
    assert server.wait().client.get("/model").json()["slo_ms"] == "changed again"
    printed = server.stop()
    assert printed.count("service.py changed: all workers are started anew") == 2
    assert printed.count("ready: ") == 4


def change(path: Path, old: str, new: str) -> None:
    """Change a file as editors do: put a new one in its place."""
    text = path.read_text()
    assert old in text
    path.with_suffix(".new").write_text(text.replace(old, new))
    path.with_suffix(".new").rename(path)


def are_replaced(server: Server, workers: list[int]) -> bool:
    """Whether ``workers`` have ended, and others are ready."""
    now = server.workers()
    try:
        return bool(now) and not set(workers) & set(now) and server.client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False
