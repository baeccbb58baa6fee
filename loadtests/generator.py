"""The open loop under Locust: requests leave at planned times, whether or not earlier ones have been answered.

The master plans everything and deals it out arrival by arrival to processes that send; such a worker needs neither
photographs nor profiles. This file is their locustfile, too:

    locust -f loadtests/generator.py --worker --master-host ADDRESS
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent
import numpy as np
from locust import events
from locust.env import Environment
from locust.runners import LocalRunner, MasterRunner

from harness.arrivals import share
from harness.http import free_port
from loadtests.follower import ANSWER_TIMEOUT_S, EXAMPLES, REPORT_EVERY_S, OpenLoop, kind_index, listen
from loadtests.samples import Run, merged, with_unanswered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from loadtests.payloads import Request

FILES = 65_536
CONNECT_TIMEOUT_S = 60.0
PLANNED_A_SECOND = 500_000


class GeneratorError(Exception):
    """The generator could not be set up, or lost a worker."""


class Generator:
    """Sends planned requests to one host, from this process or from ``processes`` workers and those that join.

    Raises GeneratorError where workers don't come or are lost.
    """

    def __init__(
        self,
        host: str,
        requests: Sequence[Request],
        *,
        processes: int = 0,
        expect_workers: int = 0,
        bind_host: str = "127.0.0.1",
        bind_port: int = 0,
    ) -> None:
        # A connection for each request that waits for its answer: the usual 1,024 files would be the limit.
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, FILES)), hard))
        self._requests = list(requests)
        self._plan_id = 0
        self._children: list[subprocess.Popen[bytes]] = []
        self._received: dict[int, list[dict[str, Any]]] = {}
        self._workers = max(processes, expect_workers)
        self.environment = Environment(user_classes=[OpenLoop], host=host, events=events)
        if self._workers:
            port = bind_port or free_port()
            self.runner: MasterRunner | LocalRunner = self.environment.create_master_runner(bind_host, port)
            self._children = [_worker(port) for _ in range(processes)]
            try:
                self._await_workers()
            except BaseException:
                self._end_children()
                raise
        else:
            self.runner = self.environment.create_local_runner()
        listen(self.environment)
        self.runner.register_message("samples", self._take)
        self.runner.send_message("requests", [vars(request) for request in self._requests])
        self.runner.start(max(1, self._workers), spawn_rate=max(1, self._workers))

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, *_: object) -> None:
        self.runner.quit()
        self._end_children()

    def _end_children(self) -> None:
        for child in self._children:
            child.terminate()
        for child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(5)
            child.kill()
            child.wait()

    def run(
        self,
        at: NDArray[np.float64],
        picks: NDArray[np.uint16],
        watch: Callable[[float, NDArray[Any]], bool] | None = None,
    ) -> Run:
        """Send request ``picks[i]`` at second ``at[i]``, and wait for the last answers.

        ``watch`` is called twice a second with the seconds since the start and the samples that came since its last
        call; where it gives True the rest is abandoned. What was sent and never answered is among the samples, too.
        """
        self._plan_id += 1
        self._received[self._plan_id] = []
        count = max(1, self._workers)
        # Time enough for a plan to be unpacked where it is carried out, an hour's too.
        start = time.time() + (0.5 if self._workers else 0.1) + len(at) / PLANNED_A_SECOND
        for index, target in enumerate(self._targets()):
            mine = {"at": share(at, index, count).tobytes(), "picks": picks[index::count].tobytes()}
            self.runner.send_message("plan", {"id": self._plan_id, "start": start, **mine}, target)
        abandoned, seen = False, 0
        deadline = start + (at[-1] if len(at) else 0.0) + ANSWER_TIMEOUT_S + 10
        while sum(part["done"] for part in self._parts()) < count:
            gevent.sleep(REPORT_EVERY_S)
            self._check_workers()
            if time.time() > deadline:
                break
            new = merged([part["samples"] for part in self._parts()[seen:]])
            seen = len(self._parts())
            if watch and not abandoned and watch(time.time() - start, new):
                abandoned = True
                self.runner.send_message("stop-plan", self._plan_id)
        parts = self._parts()
        samples = merged([part["samples"] for part in parts])
        if not abandoned:
            kinds = np.array([kind_index(request) for request in self._requests], np.uint8)[picks]
            samples = with_unanswered(samples, at, kinds)
        return Run(
            samples=samples,
            cpu_shares=[part["cpu_share"] for part in parts if part["done"]],
            examples=[example for part in parts for example in part["examples"]][:EXAMPLES],
            abandoned=abandoned,
        )

    def _parts(self) -> list[dict[str, Any]]:
        return self._received[self._plan_id]

    def _take(self, msg: Any, **_: Any) -> None:
        # What an abandoned plan still sends is nobody's.
        if msg.data["id"] == self._plan_id:
            self._parts().append(msg.data)

    def _targets(self) -> list[str | None]:
        if isinstance(self.runner, LocalRunner):
            return [None]
        return sorted(client.id for client in self.runner.clients.all)

    def _await_workers(self) -> None:
        assert isinstance(self.runner, MasterRunner)
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        while len(self.runner.clients.ready) < self._workers:
            gevent.sleep(0.05)
            self._check_children()
            if time.monotonic() > deadline:
                came = len(self.runner.clients.ready)
                raise GeneratorError(f"{came} of {self._workers} workers came within {CONNECT_TIMEOUT_S:.0f} s")

    def _check_workers(self) -> None:
        self._check_children()
        if isinstance(self.runner, MasterRunner) and (there := len(self.runner.clients.all)) != self._workers:
            raise GeneratorError(
                f"{there} workers are there, {self._workers} were expected; the run counts for nothing"
            )
        if isinstance(self.runner, MasterRunner) and (lost := self.runner.clients.missing):
            raise GeneratorError(f"{len(lost)} of {self._workers} workers no longer answer; the run counts for nothing")

    def _check_children(self) -> None:
        for child in self._children:
            if child.poll() is not None:
                raise GeneratorError(f"a worker process ended with status {child.returncode}")


def _worker(port: int) -> subprocess.Popen[bytes]:
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-m", "locust", "-f", __file__, "--worker", "--master-host", "127.0.0.1"]
    return subprocess.Popen(
        [*command, "--master-port", str(port), "--loglevel", "WARNING"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdin=subprocess.DEVNULL,
    )
