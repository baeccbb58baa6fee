"""The dedicated runner as a started service: stopped, killed, refusing, and without the fast path."""

from __future__ import annotations

import io
import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.conftest import eventually
from tests.test_service import check_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image

    from tests.conftest import Server

JPEG = {"content-type": "image/jpeg"}


@pytest.fixture(scope="module")
def jpeg(photograph: Callable[[int, int], Image]) -> bytes:
    buffer = io.BytesIO()
    photograph(500, 375).save(buffer, "JPEG")
    return buffer.getvalue()


def test_a_stopped_runner_is_told_and_recovered_from(launch: Callable[..., Server], jpeg: bytes) -> None:
    server = launch(placement="dedicated").wait()
    (runner,) = server.workers("resnet18-runner")
    os.kill(runner, signal.SIGSTOP)
    try:
        check_error(server.client.post("/classify", content=jpeg, headers=JPEG), 503, "unavailable")
        check_error(server.client.get("/readyz"), 503, "unavailable")
        assert server.client.get("/livez").status_code == 200
    finally:
        os.kill(runner, signal.SIGCONT)
    assert eventually(lambda: server.client.get("/readyz").status_code == 200)
    assert server.client.post("/classify", content=jpeg, headers=JPEG).status_code == 200


def test_a_killed_runner_costs_no_wrong_answer(launch: Callable[..., Server], jpeg: bytes) -> None:
    server = launch(placement="dedicated").wait()
    expected = server.client.post("/classify", content=jpeg, headers=JPEG).json()["predictions"]
    (runner,) = server.workers("resnet18-runner")
    os.kill(runner, signal.SIGKILL)
    for _ in range(20):
        response = server.client.post("/classify", content=jpeg, headers=JPEG)
        if response.status_code == 200:
            assert response.json()["predictions"] == expected
        else:
            check_error(response, 503, "unavailable")
            assert response.headers["retry-after"]
    assert eventually(lambda: server.client.post("/classify", content=jpeg, headers=JPEG).status_code == 200)


def test_a_refusal_by_the_runner_keeps_its_retry_after(launch: Callable[..., Server], jpeg: bytes) -> None:
    server = launch(placement="dedicated", max_queue="2").wait()
    response = server.client.post("/classify_batch", files=[("images", ("x", jpeg))] * 3)
    assert check_error(response, 429, "overloaded")["reason"] == "queue_full"
    assert int(response.headers["retry-after"]) >= 1


def test_the_runner_answers_without_the_fast_path_too(
    launch: Callable[..., Server], jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENTOML_CONFIG_OPTIONS", "api_server.metrics.enabled=false services.metrics.enabled=false")
    server = launch(placement="dedicated").wait()
    assert server.client.get("/metrics").status_code == 404
    reply = server.client.post("/classify", content=jpeg, headers=JPEG)
    assert reply.status_code == 200, reply.text
    assert len(reply.json()["predictions"]) == 3
