"""The open loop under Locust: requests leave at planned times, whether or not earlier ones have been answered.

One Locust user a process follows the plan and sends each request in a greenlet of its own, so a slow server slows
nothing here; latency counts from the planned time. This file is the locustfile of workers, too:

    locust -f loadtests/generator.py --worker --master-host ADDRESS

The master plans everything and deals it out arrival by arrival; a worker needs neither photos nor profiles.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import gevent
import gevent.queue
import numpy as np
from locust import FastHttpUser, events, task
from locust.env import Environment
from locust.runners import LocalRunner, MasterRunner, WorkerRunner

from loadtests.answers import Outcome, judge
from loadtests.arrivals import share
from loadtests.payloads import KINDS, Request, authorization
from loadtests.processes import free_port
from loadtests.samples import DTYPE, Run, merged, with_unanswered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

ANSWER_TIMEOUT_S = 30.0
# Requests in flight of one process; more would only measure this machine.
MAX_IN_FLIGHT = 4096
# Later than this, a send is no longer the arrival that was planned: it is dropped and counted.
LATE_S = 0.1
REPORT_EVERY_S = 0.5
FILES = 65_536
CONNECT_TIMEOUT_S = 60.0
PLANNED_A_SECOND = 500_000
_EXAMPLES = 5


class GeneratorError(Exception):
    """The generator could not be set up, or lost a worker."""


class OpenLoop(FastHttpUser):
    """Follows plans, one after the other, until it is stopped."""

    network_timeout = connection_timeout = ANSWER_TIMEOUT_S
    concurrency = MAX_IN_FLIGHT
    insecure = False
    plans: ClassVar[gevent.queue.Queue[dict[str, Any]]] = gevent.queue.Queue()
    requests: ClassVar[list[Request]] = []
    stopped: ClassVar[set[int]] = set()

    @task
    def follow(self) -> None:
        """Carry out the next plan and report it."""
        _Follower(self, self.plans.get()).run()


class _Follower:
    """One plan being carried out by one user."""

    def __init__(self, user: OpenLoop, plan: dict[str, Any]) -> None:
        self.user, self.plan = user, plan
        self.rows: list[tuple[float, float, float, int, int, int]] = []
        self.examples: list[str] = []
        self.in_flight = 0

    def run(self) -> None:
        at = np.frombuffer(self.plan["at"], np.float64).tolist()
        picks = np.frombuffer(self.plan["picks"], np.uint16).tolist()
        gc.collect()
        gc.freeze()
        self.start = time.perf_counter() + self.plan["start"] - time.time()
        reporter = gevent.spawn(self._report_regularly)
        cpu, wall = time.process_time(), time.perf_counter()
        self._send_all(at, picks)
        last = time.perf_counter() + ANSWER_TIMEOUT_S + 1
        while self.in_flight and time.perf_counter() < last and not self._is_stopped():
            gevent.sleep(0.02)
        reporter.kill()
        cpu_share = (time.process_time() - cpu) / (time.perf_counter() - wall)
        self._report(done=True, cpu_share=cpu_share)

    def _send_all(self, at: list[float], picks: list[int]) -> None:
        overdue = 0
        for offset, pick in zip(at, picks, strict=True):
            intended = self.start + offset
            while (wait := intended - time.perf_counter()) > 0:
                if self._is_stopped():
                    return
                # Long sleeps are cut so that a stop is noticed.
                gevent.sleep(min(wait, 0.2))
                overdue = 0
            overdue += 1
            if overdue % 16 == 0:
                if self._is_stopped():
                    return
                gevent.sleep(0)  # behind the plan: replies must be read all the same
            if self.in_flight >= MAX_IN_FLIGHT:
                self.rows.append((offset, np.nan, 0.0, 0, Outcome.DROPPED, _kind(OpenLoop.requests[pick])))
                continue
            self.in_flight += 1
            gevent.spawn(self._send, offset, intended, OpenLoop.requests[pick])

    def _send(self, offset: float, intended: float, request: Request) -> None:
        try:
            lag = time.perf_counter() - intended
            if lag > LATE_S:
                self.rows.append((offset, np.nan, lag, 0, Outcome.DROPPED, _kind(request)))
                return
            headers = {"Content-Type": request.content_type, "Accept-Encoding": "identity"} | authorization()
            with self.user.client.post(
                request.path, data=request.body, headers=headers, name=request.kind, catch_response=True
            ) as reply:
                latency = time.perf_counter() - intended
                outcome, why = Outcome.NO_ANSWER, repr(reply.request_meta["exception"])
                if reply.status_code:
                    outcome, why = judge(request, (reply.status_code, reply.headers or {}, reply.content or b""))
                reply.request_meta["response_time"] = latency * 1e3
                if outcome in (Outcome.OK, Outcome.REJECTED):
                    reply.success()
                else:
                    reply.failure(why or outcome.name.lower())
            self.rows.append((offset, latency, lag, reply.status_code, outcome, _kind(request)))
            if why and len(self.examples) < _EXAMPLES:
                self.examples.append(f"{outcome.name.lower()}: {why}")
        finally:
            self.in_flight -= 1

    def _is_stopped(self) -> bool:
        return self.plan["id"] in OpenLoop.stopped

    def _report_regularly(self) -> None:
        while True:
            gevent.sleep(REPORT_EVERY_S)
            self._report(done=False)

    def _report(self, *, done: bool, cpu_share: float = 0.0) -> None:
        rows, self.rows = self.rows, []
        packed = np.array(rows, DTYPE).tobytes()
        data = {"id": self.plan["id"], "samples": packed, "done": done, "cpu_share": cpu_share}
        runner = self.user.environment.runner
        assert runner is not None
        runner.send_message("samples", data | {"examples": self.examples if done else []})


def _kind(request: Request) -> int:
    return KINDS.index(request.kind)


def _listen(environment: Environment, **_: Any) -> None:
    """Let a process that sends take requests and plans from the master, or from itself where it is alone."""
    runner = environment.runner

    def take_requests(msg: Any, **_: Any) -> None:
        # The wire knows lists only.
        OpenLoop.requests[:] = [Request(**{**one, "labels": tuple(one["labels"])}) for one in msg.data]

    def take_plan(msg: Any, **_: Any) -> None:
        OpenLoop.plans.put(msg.data)

    def stop_plan(msg: Any, **_: Any) -> None:
        OpenLoop.stopped.add(msg.data)

    if isinstance(runner, WorkerRunner | LocalRunner):
        runner.register_message("requests", take_requests)
        runner.register_message("plan", take_plan)
        runner.register_message("stop-plan", stop_plan)


events.init.add_listener(_listen)


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
        _listen(self.environment)
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
            kinds = np.array([_kind(request) for request in self._requests], np.uint8)[picks]
            samples = with_unanswered(samples, at, kinds)
        return Run(
            samples=samples,
            cpu_shares=[part["cpu_share"] for part in parts if part["done"]],
            examples=[example for part in parts for example in part["examples"]][:_EXAMPLES],
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
