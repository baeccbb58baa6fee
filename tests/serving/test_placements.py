"""Both placements with both runtimes, as started servers: the same answers, no reply but 200, no torch without need."""

from __future__ import annotations

import io
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks import load
from tests.conftest import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from PIL.Image import Image

    from tests.conftest import Server

COMBINATIONS = [(runtime, placement) for runtime in ("onnx", "torchscript") for placement in ("inline", "dedicated")]
JPEG = {"content-type": "image/jpeg"}


@pytest.fixture(scope="module")
def bodies(photograph: Callable[[int, int], Image]) -> list[bytes]:
    images = []
    for width, height in ((500, 375), (375, 500), (64, 64), (1200, 800)):
        buffer = io.BytesIO()
        photograph(width, height).save(buffer, "JPEG")
        images.append(buffer.getvalue())
    return images


@pytest.fixture(scope="module", params=COMBINATIONS, ids="-".join)
def placed(request: pytest.FixtureRequest, launch: Callable[..., Server]) -> Iterator[tuple[str, str, Server]]:
    runtime, placement = request.param
    server = launch(runtime=runtime, placement=placement, precision="fp32", slo_ms="9000", timeout_ms="10000").wait()
    yield runtime, placement, server
    server.stop()


def libraries(server: Server) -> str:
    """The files mapped into all processes of ``server``."""
    return "\n".join(Path(f"/proc/{pid}/maps").read_text() for pid in server.processes())


def test_the_model_is_where_it_was_asked_for(placed: tuple[str, str, Server]) -> None:
    runtime, placement, server = placed
    body = server.client.get("/model").json()
    assert (body["runtime"], body["placement"], body["precision"]) == (runtime, placement, "fp32")
    assert body["runner"]["device"] == "cpu"
    assert body["runner"]["batcher"]["devices"] >= 1
    assert server.client.get("/readyz").status_code == 200


def test_onnx_needs_no_torch(placed: tuple[str, str, Server]) -> None:
    runtime, _, server = placed
    assert "onnxruntime" in libraries(server) or runtime != "onnx"
    assert ("libtorch" in libraries(server)) == (runtime == "torchscript")


def test_answers_are_the_eager_network_s(placed: tuple[str, str, Server], bodies: list[bytes]) -> None:
    import torch

    from classifier import pixels
    from model_build import export, weights

    _, _, server = placed
    checkpoint = weights.find("demo")
    network = export.contract(checkpoint)
    for body in bodies:
        image = pixels.decode(body, checkpoint.preprocessing, 10**8)
        with torch.inference_mode():
            expected = network(torch.from_numpy(image[None]))[0]
        reply = server.client.post("/classify", params={"top_k": 10}, content=body, headers=JPEG).json()
        for prediction in reply["predictions"]:
            assert prediction["probability"] == pytest.approx(float(expected[prediction["class_id"]]), abs=1e-4)


def test_no_reply_but_200_at_32_connections(placed: tuple[str, str, Server], bodies: list[bytes]) -> None:
    _, _, server = placed
    result = load.closed(f"{server.url}/classify", bodies, "image/jpeg", connections=32, seconds=6)
    assert result.failures == 0, result.statuses
    assert result.statuses[200] > 100


@pytest.mark.parametrize("placement", ["inline", "dedicated"])
def test_readiness_turns_false_in_a_lasting_overload_and_true_after_it(
    launch: Callable[..., Server], bodies: list[bytes], placement: str
) -> None:
    # Inference is the bottleneck: where decoding is, a dedicated runner may keep up with all that reaches it.
    server = launch(placement=placement, precision="fp32", max_queue="1", unready_after_s="2").wait()
    small = [min(bodies, key=len)]
    seen = []
    with ThreadPoolExecutor(1) as pool:
        overload = pool.submit(load.closed, f"{server.url}/classify", small, "image/jpeg", connections=24, seconds=6)
        while not overload.done():
            seen.append(server.client.get("/readyz").status_code)
            assert server.client.get("/livez").status_code == 200
            time.sleep(0.1)
    assert set(overload.result().statuses) == {200, 429}
    assert seen[:5] == [200] * 5, "a burst is no reason"
    assert 503 in seen
    assert eventually(lambda: server.client.get("/readyz").status_code == 200, seconds=5)
