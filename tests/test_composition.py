"""Other BentoML services depend on this one, and BentoML's clients call it: in every form, and never with pickles.

The callers are tests/caller.py and examples/pipeline.py, served as a user would.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bentoml
import psutil
import pytest
from PIL import Image

from serving.upload import PICKLE
from tests import hostile
from tests.conftest import ROOT, Server, environment, eventually
from tests.test_service import check_error

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

CALLER = "tests.caller:Caller"
PIPELINE = "examples.pipeline:Shelves"
KEY = "a-key-of-16-letters-or-more"
PNG = hostile.encode(hostile.picture(), "PNG")


def serve(store: Path, target: str, env: dict[str, str] | None = None, **settings: str) -> Server:
    return Server(store, target=target, settings={"threads": "1"} | settings, env=env)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    path.write_bytes(PNG)
    return path


@pytest.fixture(scope="module")
def expected(server: Server) -> list[dict[str, Any]]:
    """The two predictions that the service gives for the photo when it is asked itself."""
    predictions: list[dict[str, Any]] = server.client.post(
        "/classify?top_k=2", content=PNG, headers={"content-type": "image/png"}
    ).json()["predictions"]
    return predictions


@pytest.fixture(scope="module", params=["inline", "dedicated", "keys", "url"])
def caller(request: pytest.FixtureRequest, store: Path, server: Server) -> Iterator[Server]:
    """A caller beside the classifier in either placement, beside one that asks for keys, and one of a URL."""
    kinds: dict[str, dict[str, Any]] = {
        "inline": {"placement": "inline"},
        "dedicated": {"placement": "dedicated"},
        "keys": {"api_keys": KEY},
        "url": {"env": {"CALLED_URL": server.url}},
    }
    started = serve(store, CALLER, **kinds[request.param])
    try:
        yield started.wait()
    finally:
        started.stop()


def ask(caller: Server, route: str) -> Any:
    reply = caller.client.post(route, files={"photo": ("photo.png", PNG, "image/png")})
    assert reply.status_code == 200, reply.text
    return reply.json() if reply.headers["content-type"].startswith("application/json") else reply.text


def test_every_form_of_a_call_gets_the_service_s_answer(caller: Server, expected: list[dict[str, Any]]) -> None:
    answers = ask(caller, "/forms") | ask(caller, "/sync")
    assert len(answers) == 11
    assert answers == {name: [expected] * len(answers[name]) for name in answers}
    assert [len(answers[name]) for name in ("batch", "batch to_async", "many")] == [2, 2, 2]


def test_errors_reach_the_caller_as_exceptions(caller: Server) -> None:
    assert "unreadable_image" in ask(caller, "/broken")
    for text in ("http://127.0.0.1:1/a.jpg", "/etc/passwd"):
        told = caller.client.post("/refused", json={"text": text}).text
        assert told.startswith(f"400 'image' is the text '{text}'; URLs are never fetched")


def test_a_dependency_by_url_alone(store: Path, server: Server, expected: list[dict[str, Any]]) -> None:
    caller = serve(store, CALLER, env={"CALLED_URL": server.url})
    try:
        assert ask(caller.wait(), "/plain") == [expected] * 3
    finally:
        caller.stop()


class Trap:
    """What runs a program when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


@pytest.mark.parametrize("path", ["/classify", "/classify_batch"])
def test_a_pickle_is_refused_in_a_sentence(server: Server, tmp_path: Path, path: str) -> None:
    trap = pickle.dumps({"image": Trap(tmp_path / "sprung")})
    reply = server.client.post(path, content=trap, headers={"content-type": PICKLE})
    check_error(reply, 415, "unsupported_media_type", "never read", "bentoml.depends(ResNet18)")
    assert not (tmp_path / "sprung").exists()


def test_the_dependency_s_own_socket_takes_no_pickle_either(store: Path, tmp_path: Path) -> None:
    caller = serve(store, CALLER)
    try:
        caller.wait()
        (path,) = {
            str(connection.laddr)
            for pid in caller.processes()
            for connection in psutil.Process(pid).net_connections("unix")
            if "bentoml-uds-" in str(connection.laddr)
        }
        trap = pickle.dumps({"image": Trap(tmp_path / "sprung")})
        head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: {PICKLE}\r\nContent-Length: {len(trap)}\r\n\r\n"
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(path)
            connection.sendall(head.encode() + trap)
            assert connection.recv(12) == b"HTTP/1.1 415"
    finally:
        caller.stop()
    assert not (tmp_path / "sprung").exists()


def test_bentoml_s_clients(server: Server, photo: Path, expected: list[dict[str, Any]]) -> None:
    async def asked() -> Any:
        async with bentoml.AsyncHTTPClient(server.url) as client:
            one = await client.classify(image=photo, top_k=2)
            return [one, *(await client.classify_batch(images=[photo, photo], top_k=2))["results"]]

    with bentoml.SyncHTTPClient(server.url) as client, Image.open(photo) as image:
        answers = [client.classify(image=photo, top_k=2), client.classify(image=str(photo), top_k=2)]
        answers += client.classify_batch(images=[photo, image], top_k=2)["results"]
        for url in ("http://127.0.0.1:1/a.jpg", "https://127.0.0.1:1/a.jpg"):
            with pytest.raises(bentoml.exceptions.BentoMLException, match="never fetched"):
                client.classify(image=url)
    answers += asyncio.run(asked())
    assert [answer["predictions"] for answer in answers] == [expected] * 7


# The pipeline.


def sorts(server: Server) -> None:
    """Three photos, of which one is a copy, and a file that is no image."""
    other = hostile.encode(hostile.picture().rotate(90), "PNG")
    files = [("photos", (f"{number}.png", data)) for number, data in enumerate((PNG, other, PNG, PNG[:50]))]
    reply = server.client.post("/sort", files=files)
    assert reply.status_code == 200, reply.text
    answer = reply.json()
    assert sorted(number for shelf in answer["shelves"].values() for number in shelf) == [0, 1]
    assert answer["copies"] == {"2": 0}
    assert set(answer["unread"]) == {"3"}
    assert answer["model"].startswith("resnet18-onnx-")


@pytest.mark.parametrize("placement", ["inline", "dedicated"])
def test_the_pipeline_sorts(store: Path, placement: str) -> None:
    server = serve(store, PIPELINE, placement=placement)
    try:
        sorts(server.wait())
    finally:
        server.stop()


def test_the_pipeline_s_bento_sorts(store: Path, tmp_path: Path) -> None:
    env = environment() | {"BENTOML_HOME": str(store)}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    command = [sys.executable, "-m", "bentoml", "build", "-f", "examples/pipeline.yaml", "--version", "tested", "."]
    built = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    server = Server(store, cwd=tmp_path, target="shelves:tested", env={"PYTHONPATH": ""})
    try:
        sorts(server.wait())
    finally:
        server.stop()
        bentoml.bentos.delete("shelves:tested")


def test_a_classifier_that_dies_again_and_again_does_not_end_the_pipeline(store: Path) -> None:
    server = serve(store, PIPELINE)
    try:
        server.wait()
        for _ in range(4):
            sorts(server)
            (pid,) = server.workers()
            psutil.Process(pid).kill()
            for _ in range(100):
                new = server.workers()
                if new and new != [pid] and answers(server):
                    break
            assert server.process.poll() is None
    finally:
        server.stop()


def answers(server: Server) -> bool:
    return server.client.post("/sort", files=[("photos", ("a.png", PNG))]).status_code == 200


def test_development_mode_is_refused_with_its_reason(store: Path, tmp_path: Path) -> None:
    """BentoML would make the classifier's object in the caller's process, where no call of it works."""
    log = tmp_path / "log"
    started = Server(store, target=CALLER, arguments=["--development"], log=log)
    try:
        assert eventually(lambda: "can't run in the process of another one" in log.read_text(), 60)
    finally:
        started.stop()
