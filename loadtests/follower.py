"""The open loop in a process that sends: a Locust user that follows plans of the master.

The user sends each request in a greenlet of its own, so a slow server slows nothing here; latency counts from the
planned time.
"""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any, ClassVar

import gevent
import gevent.queue
import numpy as np
from locust import FastHttpUser, events, task
from locust.runners import LocalRunner, WorkerRunner

from loadtests.answers import Outcome, judge
from loadtests.payloads import KINDS, Request, authorization
from loadtests.samples import DTYPE

if TYPE_CHECKING:
    from locust.env import Environment

ANSWER_TIMEOUT_S = 30.0
# Requests in flight of one process; more would only measure this machine.
MAX_IN_FLIGHT = 4096
# Later than this, a send is no longer the arrival that was planned: it is dropped and counted.
LATE_S = 0.1
REPORT_EVERY_S = 0.5
EXAMPLES = 5


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
                self.rows.append((offset, np.nan, 0.0, 0, Outcome.DROPPED, kind_index(OpenLoop.requests[pick])))
                continue
            self.in_flight += 1
            gevent.spawn(self._send, offset, intended, OpenLoop.requests[pick])

    def _send(self, offset: float, intended: float, request: Request) -> None:
        try:
            lag = time.perf_counter() - intended
            if lag > LATE_S:
                self.rows.append((offset, np.nan, lag, 0, Outcome.DROPPED, kind_index(request)))
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
            self.rows.append((offset, latency, lag, reply.status_code, outcome, kind_index(request)))
            if why and len(self.examples) < EXAMPLES:
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


def kind_index(request: Request) -> int:
    """The position of its kind in KINDS."""
    return KINDS.index(request.kind)


def listen(environment: Environment, **_: Any) -> None:
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


events.init.add_listener(listen)
