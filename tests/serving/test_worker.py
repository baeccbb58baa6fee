"""A worker's tie to its supervisor: what it does when that ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from serving import worker
from tests.conftest import ROOT, environment, eventually

FOLLOWER = """
import signal, time
from serving import worker
worker.END_S = 2.0
signal.signal(signal.SIGTERM, lambda *_: print("told to end", flush=True))
assert worker.tie() is not None
print("tied", flush=True)
while True:
    time.sleep(60)
"""


def answers(listening: socket.socket) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(listening.getsockname()) == 0


@pytest.mark.slow
def test_the_port_stays_free_though_a_starting_worker_listens_again() -> None:
    ours, theirs = socket.socketpair()
    listening = socket.create_server(("127.0.0.1", 0))
    inherited = (theirs.fileno(), listening.fileno())
    follower = subprocess.Popen(
        [sys.executable, "-c", FOLLOWER],
        cwd=ROOT,
        env=environment() | {worker.VARIABLE: ",".join(map(str, inherited))},
        pass_fds=inherited,
        stdout=subprocess.PIPE,
        text=True,
    )
    theirs.close()
    assert follower.stdout is not None
    with listening, follower.stdout as printed:
        try:
            assert printed.readline() == "tied\n"
            assert answers(listening)
            ours.close()
            assert eventually(lambda: not answers(listening))
            listening.listen()
            assert eventually(lambda: not answers(listening), 1)
            assert (printed.readline(), follower.wait(10)) == ("told to end\n", 1)
        finally:
            follower.kill()
            follower.wait()


def test_without_a_supervisor_there_is_no_tie() -> None:
    assert worker.VARIABLE not in os.environ
    assert worker.tie() is None
