"""The corpus command: its scorecard counts what happens, and the shared files hold."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from harness.processes import Tree
from tests import corpus, hostile
from tests.conftest import ROOT, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Server

pytestmark = pytest.mark.slow


def command(*arguments: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = environment() | ({"BENTOML_HOME": str(home)} if home else {})
    words = [sys.executable, "-m", "tests.corpus", *arguments]
    return subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)


def sent(server: Server, folder: Path) -> corpus.Scorecard:
    tree = Tree(server.process.pid)
    return corpus.score(server.url, tree, [folder], concurrency=16, timeout=30, within=300, bar=False)


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["hostile", "orientation", "photos"])
def test_the_shared_files(server: Server, shared: Path, name: str) -> None:
    card = sent(server, shared / "images" / name)
    assert card.good, card.body()
    assert card.outcomes.total() == sum(1 for _ in corpus.files([shared / "images" / name]))
    assert {outcome.split()[0] for outcome in card.outcomes} <= {"200", "400", "413", "415"}
    if name != "hostile":
        assert set(card.outcomes) == {"200"}
    assert card.restarts == 0
    assert card.peak_pss_mb is not None


@pytest.mark.corpus
def test_the_command_starts_a_server_of_its_own(store: Path, shared: Path) -> None:
    done = command(str(shared / "images" / "hostile"), "--set", "max_pixels=1000000", "--json", home=store)
    assert done.returncode == 0, done.stderr
    card = json.loads(done.stdout)
    assert card["good"]
    assert card["outcomes"]["413 image_too_large"] >= 1
    assert card["restarts"] == 0


def test_any_folder_will_do(server: Server, tmp_path: Path) -> None:
    """Empty, large, odd and unreadable files; names of any letters; links and pipes are no files."""
    deep = tmp_path / "a" / "文 b"
    deep.mkdir(parents=True)
    (deep / "empty").touch()
    (deep / "good\n.png").write_bytes(hostile.encode(hostile.picture(), "PNG"))
    (tmp_path / "large.jpg").write_bytes(b"\xff\xd8\xff" + bytes(30_000_000))
    (tmp_path / "text.txt").write_text("no image")
    (tmp_path / "LICENSE").write_text("no image either")
    (tmp_path / "link.png").symlink_to(deep / "good\n.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    card = sent(server, tmp_path)
    assert card.good, card.body()
    assert card.outcomes == {
        "200": 1,
        "400 unreadable_image": 1,
        "413 body_too_large": 1,
        "415 unsupported_media_type": 1,
    }


def test_thousands_of_files(server: Server, tmp_path: Path) -> None:
    names = ("JPEG", "PNG palette with alpha", "WEBP animated", "TIFF CMYK")
    images = [hostile.seeds()[name] for name in names]
    for number in range(2000):
        data = images[number % len(images)]
        (tmp_path / f"{number}").write_bytes(data[: len(data) // 2] if number % 3 == 0 else data)
    card = sent(server, tmp_path)
    assert card.good, card.body()
    assert card.outcomes.total() == 2000
    assert card.outcomes["200"] >= 1333
    assert card.canaries >= 2000 // corpus.CANARY_EVERY


def test_what_is_wrong_with_the_command_is_told(tmp_path: Path) -> None:
    for words, told in [
        ([str(tmp_path / "none")], "is no folder"),
        ([str(tmp_path), "--concurrency", "0"], "--concurrency 0: must be at least 1"),
        ([str(tmp_path), "--host", "http://127.0.0.1:1", "--set", "a=b"], "--set is for the server that is started"),
    ]:
        done = command(*words)
        assert done.returncode == 2
        assert told in done.stderr
        assert "Traceback" not in done.stderr


def test_an_empty_folder_proves_nothing(server: Server, tmp_path: Path) -> None:
    done = command(str(tmp_path), "--host", server.url, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["outcomes"] == {}


def test_a_killed_worker_is_a_restart(launch: Callable[..., Server], tmp_path: Path) -> None:
    server = launch().wait()
    watched = corpus.Watched(Tree(server.process.pid))
    assert watched.restarts() == 0
    worker = next(pid for pid in server.processes() if pid != server.process.pid and _runs_bentoml(pid))
    os.kill(worker, signal.SIGKILL)
    time.sleep(0.5)
    assert watched.restarts() == 1


def _runs_bentoml(pid: int) -> bool:
    return "_bentoml_impl.worker" in " ".join(psutil.Process(pid).cmdline())


REPLIES = {
    "a 5xx": (b'HTTP/1.1 500 X\r\nx-error-code: internal\r\ncontent-length: 12\r\n\r\n{"error":{}}', "500 internal"),
    "a closed connection": (b"", corpus.NO_REPLY),
    "half a reply": (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", corpus.NO_REPLY),
    "another's words": (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", corpus.BROKEN),
    "silence": (None, corpus.OVER_TIME),
}


@contextlib.contextmanager
def faulty(first: int, reply: bytes | None, then: bytes | None) -> Iterator[str]:
    """The URL of a server that gives ``reply`` to its ``first`` requests and ``then`` to the rest; None is silence."""
    count = itertools.count()
    over = threading.Event()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            length = 0
            while line := self.rfile.readline().strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split()[1])
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.rfile.read(length)
            answer = reply if next(count) < first else then
            if answer is None:
                over.wait()
            else:
                self.wfile.write(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            over.set()
            server.shutdown()
            thread.join()


GOOD = b'HTTP/1.1 200 OK\r\ncontent-length: 18\r\n\r\n{"predictions":[]}'


@pytest.mark.parametrize("name", REPLIES)
def test_a_fault_is_counted_and_fails_the_run(tmp_path: Path, name: str) -> None:
    reply, outcome = REPLIES[name]
    (tmp_path / "a").write_bytes(b"x" * 300_000)
    with faulty(1, GOOD, reply) as url:
        card = corpus.score(url, None, [tmp_path], concurrency=1, timeout=1.0, within=60.0, bar=False)
    assert dict(card.outcomes) == {outcome: 1}
    assert (str(tmp_path / "a"), outcome) in card.failed
    assert not card.good


def test_a_wrong_answer_is_told_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    other = GOOD.replace(b"18", b"19").replace(b"[]", b"[1]")
    with faulty(1, GOOD, other) as url:
        card = corpus.score(url, None, [tmp_path], concurrency=1, timeout=5.0, within=60.0, bar=False)
    assert ("the canary", corpus.WRONG) in card.failed
    assert not card.good


def test_a_run_that_takes_too_long_is_cut_short(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / str(number)).write_bytes(b"x")
    with faulty(1, GOOD, None) as url:
        card = corpus.score(url, None, [tmp_path], concurrency=1, timeout=1.0, within=1.5, bar=False)
    assert card.unfinished
    assert not card.good
