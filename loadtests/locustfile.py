"""For people who know Locust: ``locust -f loadtests/locustfile.py --host http://127.0.0.1:3000`` from the repository.

Users who send an image, wait for its answer, look at it, and send the next: a closed loop, good for trying things in
Locust's web page. Such users wait when the server is slow, so what they measure flatters it; the open loop is
``python -m loadtests run``. Every reply is checked as it is there.
"""

from __future__ import annotations

import logging
import random
from typing import Any, ClassVar

from locust import FastHttpUser, between, events, task
from locust.runners import MasterRunner

from harness import photographs
from loadtests import payloads, watch
from loadtests.answers import IdleError, Outcome, judge, with_reference
from loadtests.payloads import Request

_KINDS = ("raw", "multipart", "batch")

logger = logging.getLogger("loadtests")


class _Sender(FastHttpUser):
    """A user that sends one request and checks its answer."""

    abstract = True
    wait_time = between(0.5, 2.0)
    requests: ClassVar[dict[str, list[Request]]] = {}

    def send(self, kind: str) -> None:
        """Send a request of a kind out of payloads.KINDS and judge its answer."""
        choice = random.randrange(len(self.requests[kind]))
        request = self.requests[kind][choice]
        headers = {"Content-Type": request.content_type} | payloads.authorization()
        with self.client.post(
            request.path, data=request.body, headers=headers, name=kind, catch_response=True
        ) as reply:
            answer = (reply.status_code, reply.headers or {}, reply.content or b"")
            if not reply.status_code:
                return
            outcome, why = judge(request, answer)
            if outcome is Outcome.OK or outcome is Outcome.REJECTED:
                reply.success()
            else:
                reply.failure(why or "refused with 429")


class SingleImages(_Sender):
    """People with one image: most send it as the body, some with a form."""

    weight = 9

    @task(4)
    def raw(self) -> None:
        """The image itself as the body."""
        self.send("raw")

    @task(1)
    def multipart(self) -> None:
        """The image as a form's file."""
        self.send("multipart")


class Batches(_Sender):
    """A job that sends several images at once."""

    weight = 1

    @task
    def batch(self) -> None:
        """payloads.BATCH_IMAGES images in one request."""
        self.send("batch")


@events.test_start.add_listener
def _ask_for_labels(environment: Any, **_: Any) -> None:
    """Before any user starts: the photos, in their own and in users' sizes, and the labels that the server gives."""
    if isinstance(environment.runner, MasterRunner):
        return  # its workers send
    found = photographs.read()
    pictures = found.files | photographs.resized(found).files
    asked: dict[str, list[Request]] = {kind: [] for kind in _KINDS}
    requests = payloads.build(pictures, _KINDS, {})
    logger.info("asking %s for the labels of %d requests; users start after it", environment.host, len(requests))
    try:
        for request in requests:
            answer = watch.send(environment.host, request)
            try:
                asked[request.kind].append(with_reference(request, answer, strict=True))
            except IdleError as error:  # a server may well take no 12 MP
                logger.warning("left out: %s", error)
    except OSError as error:
        logger.error("%s does not answer: %s", environment.host, error)
    _Sender.requests.update(asked)
    if not all(asked.values()):
        logger.error("there is nothing to send to %s", environment.host)
        environment.process_exit_code = 2
        environment.runner.quit()
