"""A tree of processes is found whole, measured whole and stopped whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
import pytest

from harness import http
from harness.processes import StartError, Tree, Usage, listeners, resident_bytes, serving
from tests.conftest import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLEEP = "import time; time.sleep(120)"
# One child has a session of its own, and one loses its parent.
FAMILY = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {SLEEP!r}], start_new_session=True)
lone = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}])"
subprocess.run([sys.executable, "-c", lone], check=True)
print("ready", flush=True)
time.sleep(120)
"""
SPIN = "import time\nwhile time.process_time() < 0.5: pass\nprint('ready', flush=True)\ntime.sleep(120)"
SERVER = """
import http.server, sys, time
print("begins", flush=True)
if sys.argv[2:]:
    sys.exit("the model is missing")
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 503)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


def lives(process: psutil.Process) -> bool:
    """Whether it runs; where no init reaps, a process that has ended stays as a zombie."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def started(code: str) -> Iterator[Tree]:
    """The tree of Python ``code`` that has printed a line."""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        tree = Tree(process.pid)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield tree
        finally:
            tree.stop()
            process.kill()


@pytest.mark.slow
def test_a_tree_has_a_child_of_another_session_and_one_that_lost_its_parent() -> None:
    with started(FAMILY) as tree:
        family = tree.pids()
        assert len(family) == 3 and tree.root in family
        # Its parent is gone: it is known by its session.
        parents = {psutil.Process(pid).ppid() for pid in family if pid != tree.root}
        assert tree.root in parents and len(parents) == 2
        # Sessions are not all the same.
        assert len({os.getsid(pid) for pid in family}) == 2


def test_what_was_seen_stays_of_the_tree_when_its_root_is_killed() -> None:
    with started(FAMILY) as tree:
        rest = [pid for pid in tree.pids() if pid != tree.root]
        os.kill(tree.root, signal.SIGKILL)
        assert eventually(lambda: tree.pids() == rest)


@pytest.mark.slow
def test_stopping_ends_the_whole_tree_and_nothing_else() -> None:
    with subprocess.Popen([sys.executable, "-c", SLEEP]) as stranger:
        try:
            with started(FAMILY) as tree:
                family = tree.processes()
                tree.stop()
                assert tree.pids() == []
                assert [process for process in family if lives(process)] == []
            assert stranger.poll() is None
        finally:
            stranger.kill()


@pytest.mark.slow
def test_a_tree_s_memory_is_that_of_all_its_processes() -> None:
    with started(FAMILY) as tree:
        memory = tree.memory()
        assert memory.processes == 3
        assert memory.rss_mb > memory.pss_mb > 5
        assert memory.rss_mb == pytest.approx(
            sum(process.memory_info().rss for process in tree.processes()) / 1e6, rel=0.1
        )


def test_a_tree_s_cpu_time_is_its_own_and_a_stretch_s_begins_with_it() -> None:
    with started(SPIN) as tree:
        assert 0.4 < tree.cpu_seconds() < 5
        served, others = Usage(tree).stop()
        assert served < 0.2 and others >= 0


def test_a_server_serves_until_the_end_of_the_block(tmp_path: Path) -> None:
    port = http.free_port()
    command = [sys.executable, "-c", SERVER, str(port)]
    ready = f"http://127.0.0.1:{port}/readyz"
    with serving(command, ready=ready, environment={}, folder=tmp_path) as tree:
        assert http.is_ready(ready)
        assert [process.pid for process in listeners(port)] == [tree.root]
        assert resident_bytes(listeners(port)) == pytest.approx(1e6 * tree.memory().rss_mb, rel=0.2)
    assert not http.is_ready(ready)
    assert not psutil.pid_exists(tree.root)
    assert listeners(port) == []


def test_a_server_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    port = http.free_port()
    command = [sys.executable, "-c", SERVER, str(port), "fail"]
    with (
        pytest.raises(StartError, match=r"(?s)^ended with status 1: begins.*the model is missing$"),
        serving(command, ready=f"http://127.0.0.1:{port}/readyz", environment={}, folder=tmp_path),
    ):
        pass


@pytest.mark.slow
def test_a_server_that_is_never_ready_is_stopped_and_told(tmp_path: Path) -> None:
    port = http.free_port()
    command = [sys.executable, "-c", SERVER, str(port)]
    with (
        pytest.raises(StartError, match=r"(?s)^not ready in 3 s: .* 503"),
        serving(command, ready=f"http://127.0.0.1:{port}/", environment={}, folder=tmp_path, timeout_s=3),
    ):
        pass
    assert listeners(port) == []


def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(StartError, match=r"^no-such-command: No such file"),
        serving(["no-such-command"], ready="http://127.0.0.1:9/", environment={}, folder=tmp_path),
    ):
        pass
