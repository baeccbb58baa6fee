"""The public API of a running server: real bytes in, status and JSON out."""

from __future__ import annotations

import io
import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bentoml
import psutil
import pytest

from runners import engines
from tests.conftest import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx
    from PIL.Image import Image

    from tests.conftest import Server


MEASURED = ("resnet18_cpu_seconds", "resnet18_memory_bytes", "resnet18_memory_limit_bytes")


@pytest.fixture(scope="module")
def jpeg(photograph: Callable[[int, int], Image]) -> bytes:
    buffer = io.BytesIO()
    photograph(640, 480).save(buffer, "JPEG")
    return buffer.getvalue()


def check_predictions(predictions: list[dict[str, Any]], count: int) -> None:
    assert len(predictions) == count
    probabilities = [prediction["probability"] for prediction in predictions]
    assert probabilities == sorted(probabilities, reverse=True)
    assert 0 < sum(probabilities) <= 1.0001
    assert all(set(prediction) == {"class_id", "label", "label_zh", "probability"} for prediction in predictions)


def check_error(response: httpx.Response, status: int, code: str, *quoted: str) -> dict[str, Any]:
    """``response`` is an error in the one shape, whose message says each of ``quoted``."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    error: dict[str, Any] = response.json()["error"]
    assert error["code"] == code == response.headers["x-error-code"]
    for text in quoted:
        assert text in error["message"]
    assert "Traceback" not in response.text
    assert response.headers["x-request-id"]
    return error


def raw(server: Server, request: bytes) -> tuple[int, bytes]:
    """Send bytes as they are; the status and body of the reply."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(request)
        head, body = received(connection).split(b"\r\n\r\n", 1)
    return int(head.split()[1]), body


def received(connection: socket.socket) -> bytes:
    """One reply, whole, or as much as comes of it."""
    reply = b""
    while b"\r\n\r\n" not in reply or len(reply.split(b"\r\n\r\n", 1)[1]) < length(reply):
        chunk = connection.recv(65536)
        if not chunk:
            break
        reply += chunk
    return reply


def length(reply: bytes) -> int:
    head = reply.split(b"\r\n\r\n", 1)[0].lower()
    return int(head.split(b"content-length:")[1].split()[0]) if b"content-length:" in head else 0


def test_multipart_and_raw_bodies_give_the_same_answer(server: Server, jpeg: bytes) -> None:
    multipart = server.client.post("/classify", files={"image": ("a.jpg", jpeg, "image/jpeg")})
    whole = server.client.post("/classify", content=jpeg, headers={"content-type": "image/jpeg"})
    assert multipart.status_code == whole.status_code == 200
    assert multipart.json()["predictions"] == whole.json()["predictions"]
    check_predictions(multipart.json()["predictions"], 3)


def test_the_reply_tells_the_model_and_the_timing(server: Server, jpeg: bytes) -> None:
    response = server.client.post("/classify", content=jpeg, headers={"content-type": "image/jpeg"})
    body = response.json()
    assert set(body) == {"predictions", "model", "timing_ms"}
    assert body["model"]["weights"] == "demo"
    assert body["model"]["tag"].startswith(f"resnet18-onnx-{body['model']['precision']}:")
    assert set(body["timing_ms"]) == {"decode", "queue", "inference", "total"}
    assert 0 < body["timing_ms"]["inference"] < body["timing_ms"]["total"]
    stages = dict(part.split(";dur=") for part in response.headers["server-timing"].split(", "))
    assert {name: float(value) for name, value in stages.items()} == body["timing_ms"]


@pytest.mark.parametrize("where", ["query", "form"])
@pytest.mark.parametrize("count", [1, 3, 10])
def test_top_k(server: Server, jpeg: bytes, where: str, count: int) -> None:
    files = {"image": ("a.jpg", jpeg, "image/jpeg")}
    if where == "query":
        response = server.client.post("/classify", params={"top_k": count}, files=files)
    else:
        response = server.client.post("/classify", data={"top_k": str(count)}, files=files)
    assert response.status_code == 200
    check_predictions(response.json()["predictions"], count)


@pytest.mark.parametrize("value", ["0", "11", "-1", "2.5", "three", "", "٣", "1e9", "9" * 50])
def test_a_bad_top_k_is_422_and_quoted(server: Server, jpeg: bytes, value: str) -> None:
    response = server.client.post(
        "/classify", params={"top_k": value}, content=jpeg, headers={"content-type": "image/jpeg"}
    )
    check_error(response, 422, "invalid_parameter", repr(value[:100]), "1 to 10")


def test_a_batch_gives_one_result_an_image_in_order(server: Server, jpeg: bytes) -> None:
    single = server.client.post("/classify", content=jpeg, headers={"content-type": "image/jpeg"}).json()
    images = [jpeg, b"no image", jpeg[:2000], jpeg]
    response = server.client.post("/classify_batch", files=[("images", ("x", image)) for image in images])
    assert response.status_code == 200
    results = response.json()["results"]
    assert [set(result) for result in results] == [{"predictions"}, {"error"}, {"error"}, {"predictions"}]
    assert results[1]["error"]["code"] == "unsupported_media_type"
    assert results[2]["error"]["code"] == "unreadable_image"
    for result in (results[0], results[3]):
        assert [p["class_id"] for p in result["predictions"]] == [p["class_id"] for p in single["predictions"]]


def test_bentoml_s_own_client_works(server: Server, jpeg: bytes, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg)
    with bentoml.SyncHTTPClient(server.url) as client:
        check_predictions(client.classify(image=path, top_k=2)["predictions"], 2)
        assert len(client.classify_batch(images=[path, path], top_k=1)["results"]) == 2


def test_every_photo_is_classified(server: Server, photos: list[Path]) -> None:
    for photo in photos:
        response = server.client.post("/classify", files={"image": (photo.name, photo.read_bytes())})
        assert response.status_code == 200, photo.name
        check_predictions(response.json()["predictions"], 3)


def test_easy_photos_are_recognised_by_the_demo(server: Server, photos: list[Path]) -> None:
    expected = {
        "airliner": "airplane",
        "sorrel": "horse",
        "tree_frog": "frog",
        "container_ship": "ship",
        "tabby": "cat",
    }
    right = 0
    for photo in photos:
        label = photo.stem.split("_", 1)[1]
        if label in expected:
            reply = server.client.post("/classify", files={"image": (photo.name, photo.read_bytes())}).json()
            right += reply["predictions"][0]["label"] == expected[label]
    assert right >= 4


def test_model_tells_what_is_served(server: Server) -> None:
    body = server.client.get("/model").json()
    assert body["weights"]["origin"] == "demo"
    assert (body["classes"], body["size"], body["runtime"], body["placement"]) == (10, 32, "onnx", "inline")
    assert (body["preprocessing"]["size"], body["preprocessing"]["upsample"]) == (32, 64)
    assert (body["preprocessing"]["interpolation"], body["preprocessing"]["channels"]) == ("bilinear", "RGB")
    assert body["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    assert body["runner"]["device"] == "cpu"
    assert body["runner"]["provider"] == "CPUExecutionProvider"
    assert body["gate"]["agreement"] >= 0.98


def test_probes_and_metrics(server: Server, jpeg: bytes) -> None:
    assert server.client.get("/livez").status_code == 200
    assert server.client.get("/readyz").status_code == 200

    def images(outcome: str) -> float:
        lines = server.client.get("/metrics").text.splitlines()
        found = [line for line in lines if line.startswith(f'resnet18_images_total{{outcome="{outcome}"}}')]
        return float(found[0].split()[-1]) if found else 0.0

    before = images("ok"), images("unreadable_image")
    server.client.post("/classify_batch", files=[("images", ("x", jpeg)), ("images", ("y", jpeg[:99]))])
    assert (images("ok"), images("unreadable_image")) == (before[0] + 1, before[1] + 1)
    text = server.client.get("/metrics").text
    assert 'resnet18_stage_seconds_bucket{le="0.1",stage="inference"}' in text
    counted = [line for line in text.splitlines() if line.startswith("bentoml_service_request_total{endpoint=")]
    assert any('"/classify_batch"' in line and '"200"' in line and not line.endswith(" 0.0") for line in counted)


def test_every_image_that_is_offered_is_counted_by_its_outcome(server: Server, jpeg: bytes) -> None:
    """What an autoscaler adds up. A batch whose body is not read counts as those that were read lately."""

    def counts() -> dict[str, float]:
        text = server.client.get("/metrics").text
        found = re.findall(r'^resnet18_images_total\{outcome="(\w+)"\} (\S+)', text, re.MULTILINE)
        return {outcome: float(count) for outcome, count in found}

    before = counts()
    files = [("images", ("x", jpeg))]
    raw(server, b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n\r\n")
    raw(server, b"POST /classify_batch HTTP/1.1\r\nHost: x\r\nContent-Length: 3000001\r\n\r\n")
    server.client.post("/classify?topk=1", files={"image": jpeg})
    server.client.post("/classify_batch?top_k=0", files=files * 3)
    server.client.post("/classify", content=jpeg, headers={"content-encoding": "gzip"})
    server.client.post("/classify", content=b"text")
    server.client.post("/classify_batch", files=[*files * 2, ("images", ("x", jpeg[:99]))])
    # None of these offers an image that can be counted.
    server.client.get("/classify")
    server.client.post("/nothing", content=jpeg)
    new = {outcome: count - before.get(outcome, 0) for outcome, count in counts().items()}
    assert 1 <= new.pop("body_too_large") <= 4
    assert {outcome: count for outcome, count in new.items() if count} == {
        "length_required": 1,
        "invalid_parameter": 4,
        "unsupported_encoding": 1,
        "unsupported_media_type": 1,
        "unreadable_image": 1,
        "ok": 2,
    }


def test_what_load_brings_is_counted_from_0(launch: Callable[..., Server]) -> None:
    # A series that begins with its first refusals would hide these from Prometheus' rate().
    text = launch().wait().client.get("/metrics").text
    for outcome in ("ok", "overloaded", "timeout", "unavailable", "disconnected"):
        assert f'resnet18_images_total{{outcome="{outcome}"}} 0.0' in text
    # What it can answer is known from the warm-up.
    (capacity,) = re.findall(r"^resnet18_capacity_images_per_second (\S+)$", text, re.MULTILINE)
    assert float(capacity) > 10


def test_unknown_paths_do_not_become_metric_labels(server: Server) -> None:
    for number in range(20):
        server.client.get(f"/strange/{number}")
        server.client.get(f"/static_content/strange{number}.js")
    assert "strange" not in server.client.get("/metrics").text


def test_openapi_describes_the_routes(server: Server) -> None:
    paths = server.client.get("/docs.json").json()["paths"]
    body = paths["/classify"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(body["properties"]) == {"image", "top_k", "min_confidence"}
    assert "/classify_batch" in paths


def test_metrics_tell_the_whole_service_s_cpu_and_memory(launch: Callable[..., Server]) -> None:
    # A fresh one: BentoML keeps metrics in the store's folder, and the start of another server there deletes them.
    server = launch().wait()
    processes = [psutil.Process(pid) for pid in server.processes()]
    text = server.client.get("/metrics").text
    told = {name: float(re.findall(rf"^{name} (\S+)", text, re.MULTILINE)[0]) for name in MEASURED}
    assert told["resnet18_memory_bytes"] == pytest.approx(sum(p.memory_full_info().pss for p in processes), rel=0.1)
    assert told["resnet18_memory_bytes"] < told["resnet18_memory_limit_bytes"] <= psutil.virtual_memory().total
    seconds = sum(sum(process.cpu_times()[:2]) for process in processes)
    assert 0.5 * seconds < told["resnet18_cpu_seconds"] <= 1.5 * seconds


def test_request_ids_are_kept_or_made(server: Server) -> None:
    assert server.client.get("/model", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = server.client.get("/model", headers={"x-request-id": "a b/c"}).headers["x-request-id"]
    assert made not in ("a b/c", "")
    assert made != server.client.get("/model").headers["x-request-id"]


# Errors, row by row.


@pytest.mark.parametrize("body", [b"", b"\xff\xd8\xff" + b"\0" * 100])
def test_400_unreadable(server: Server, body: bytes) -> None:
    response = server.client.post("/classify", files={"image": ("a.jpg", body, "image/jpeg")})
    check_error(response, 400, "unreadable_image")


def test_400_truncated(server: Server, jpeg: bytes) -> None:
    response = server.client.post("/classify", content=jpeg[: len(jpeg) // 2], headers={"content-type": "image/jpeg"})
    check_error(response, 400, "unreadable_image", "JPEG")


@pytest.mark.parametrize(
    "body",
    [
        b"--b\r\nContent-Disposition: form-data; name=image; filename=a\r\n\r\nunfinished",
        b"no boundary at all",
        b"--b\r\nbroken\r\n--b--\r\n",
        b"--b--\r\n",
    ],
)
def test_400_broken_multipart(server: Server, body: bytes) -> None:
    response = server.client.post(
        "/classify", content=body, headers={"content-type": "multipart/form-data; boundary=b"}
    )
    check_error(response, 400, "bad_request")


def test_400_multipart_without_a_boundary(server: Server) -> None:
    response = server.client.post("/classify", content=b"x", headers={"content-type": "multipart/form-data"})
    check_error(response, 400, "bad_request", "boundary")


def test_400_multipart_without_the_field(server: Server) -> None:
    response = server.client.post(
        "/classify",
        content=b'--b\r\nContent-Disposition: form-data; name="top_k"\r\n\r\n3\r\n--b--\r\n',
        headers={"content-type": "multipart/form-data; boundary=b"},
    )
    check_error(response, 400, "bad_request", "'image'", "top_k")


def test_404(server: Server) -> None:
    check_error(server.client.get("/nothing/here"), 404, "not_found", "/nothing/here", "/classify")


@pytest.mark.parametrize(("method", "path"), [("GET", "/classify"), ("PUT", "/classify_batch"), ("POST", "/model")])
def test_405(server: Server, method: str, path: str) -> None:
    response = server.client.request(method, path)
    check_error(response, 405, "method_not_allowed", method, path)
    assert response.headers["allow"]


def test_411(server: Server) -> None:
    status, body = raw(server, b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n\r\n")
    assert status == 411
    assert json.loads(body)["error"]["code"] == "length_required"


def test_413_by_content_length_before_the_body_is_sent(server: Server) -> None:
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 3000001\r\n\r\n"
    status, body = raw(server, head)
    assert status == 413
    assert json.loads(body)["error"] == {
        "code": "body_too_large",
        "message": "the body of 3000001 bytes is over the limit of 3000000 bytes",
        "limit": 3000000,
    }


@pytest.mark.parametrize("kind", ["image/jpeg", "multipart/form-data; boundary=b"])
def test_413_while_a_chunked_body_is_read(server: Server, kind: str) -> None:
    prefix = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' if "multi" in kind else b""
    head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    chunk = prefix + b"\0" * 3_000_001
    status, body = raw(server, head + f"{len(chunk):x}\r\n".encode() + chunk)
    assert status == 413
    assert json.loads(body)["error"]["code"] == "body_too_large"


def test_413_for_pixels_told_by_the_header(server: Server, photograph: Callable[[int, int], Image]) -> None:
    buffer = io.BytesIO()
    photograph(2500, 1700).save(buffer, "JPEG")
    response = server.client.post("/classify", content=buffer.getvalue(), headers={"content-type": "image/jpeg"})
    error = check_error(response, 413, "image_too_large", "2500x1700")
    assert error["limit"] == 4_000_000


def test_413_for_too_many_images(server: Server, jpeg: bytes) -> None:
    response = server.client.post("/classify_batch", files=[("images", ("x", jpeg))] * 5)
    assert check_error(response, 413, "too_many_images")["limit"] == 4
    response = server.client.post("/classify", files=[("image", ("x", jpeg))] * 2)
    assert check_error(response, 413, "too_many_images")["limit"] == 1


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "multipart/mixed; boundary=b", "message/rfc822"])
def test_415_for_the_content_type(server: Server, jpeg: bytes, kind: str) -> None:
    response = server.client.post("/classify", content=jpeg, headers={"content-type": kind})
    check_error(response, 415, "unsupported_media_type", repr(kind.split(";")[0]), "multipart/form-data")


def test_415_for_what_is_no_image(server: Server) -> None:
    response = server.client.post("/classify", files={"image": ("a.jpg", b"%PDF-1.7 not an image", "image/jpeg")})
    check_error(response, 415, "unsupported_media_type", "JPEG", "AVIF")


@pytest.mark.parametrize("value", ["http://127.0.0.1:1/a.jpg", "file:///etc/passwd"])
def test_422_for_a_url_in_the_image_s_place(server: Server, value: str) -> None:
    body = f'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\n{value}\r\n--b--\r\n'.encode()
    response = server.client.post(
        "/classify", content=body, headers={"content-type": "multipart/form-data; boundary=b"}
    )
    check_error(response, 422, "invalid_parameter", "'image'", "never fetched")


def test_429_when_full(launch: Callable[..., Server], jpeg: bytes) -> None:
    server = launch(max_queue="2").wait()

    def send(_: int) -> httpx.Response:
        return server.client.post("/classify", content=jpeg, headers={"content-type": "image/jpeg"})

    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(send, range(200)))
    refused = [response for response in responses if response.status_code == 429]
    assert {response.status_code for response in responses} == {200, 429}
    for response in refused:
        assert check_error(response, 429, "overloaded")["reason"] == "queue_full"
        assert int(response.headers["retry-after"]) >= 1
    assert server.client.post("/classify", content=jpeg, headers={"content-type": "image/jpeg"}).status_code == 200
    too_many = server.client.post("/classify_batch", files=[("images", ("x", jpeg))] * 3)
    check_error(too_many, 429, "overloaded")
    assert 'resnet18_refused_total{reason="queue_full"}' in server.client.get("/metrics").text


def test_429_for_what_would_be_late(server: Server, jpeg: bytes) -> None:
    headers = {"content-type": "image/jpeg", "x-time-allowed-ms": "2"}

    def send(_: int) -> httpx.Response:
        return server.client.post("/classify", content=jpeg, headers=headers)

    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(send, range(100)))
    refused = [response for response in responses if response.status_code != 200]
    assert refused
    for response in refused:
        assert check_error(response, 429, "overloaded")["reason"] in ("deadline", "expired")
        assert int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize("value", ["0", "-5", "1.5", "soon", "9999999", "000000001" + "9" * 5000])
def test_422_for_a_bad_time_allowed(server: Server, jpeg: bytes, value: str) -> None:
    headers = {"content-type": "image/jpeg", "x-time-allowed-ms": value}
    response = server.client.post("/classify", content=jpeg, headers=headers)
    check_error(response, 422, "invalid_parameter", repr(value[:100]), "30000")


def test_a_client_that_hangs_up_costs_no_answer(server: Server, jpeg: bytes) -> None:
    head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(head.encode() + jpeg)
    assert server.client.post("/classify", content=jpeg, headers={"content-type": "image/jpeg"}).status_code == 200
    assert eventually(lambda: server.client.get("/model").json()["runner"]["batcher"]["queue"] == 0)


def test_504_for_an_answer_that_takes_too_long(launch: Callable[..., Server], jpeg: bytes) -> None:
    server = launch(timeout_ms="1").wait()
    response = server.client.post("/classify", content=jpeg, headers={"content-type": "image/jpeg"})
    assert check_error(response, 504, "timeout", "1 ms")["limit"] == 1


def test_a_neighbour_of_bad_requests_gets_its_answer(server: Server, jpeg: bytes) -> None:
    expected = server.client.post("/classify", content=jpeg, headers={"content-type": "image/jpeg"}).json()[
        "predictions"
    ]

    def send(number: int) -> httpx.Response:
        body = jpeg if number % 2 else jpeg[: 500 + number]
        return server.client.post("/classify", content=body, headers={"content-type": "image/jpeg"})

    with ThreadPoolExecutor(8) as pool:
        for number, response in enumerate(pool.map(send, range(100))):
            if number % 2:
                assert response.json()["predictions"] == expected
            else:
                check_error(response, 400, "unreadable_image")


def test_a_slow_upload_is_not_held_against_its_deadline(launch: Callable[..., Server], jpeg: bytes) -> None:
    server = launch(slo_ms="300").wait()
    head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(head.encode() + jpeg[:1000])
        time.sleep(0.6)
        connection.sendall(jpeg[1000:])
        assert connection.recv(12) == b"HTTP/1.1 200"


def test_a_second_service_of_the_same_store_leaves_the_metrics_alone(
    launch: Callable[..., Server], jpeg: bytes
) -> None:
    first = launch().wait()
    assert first.client.post("/classify", content=jpeg, headers={"content-type": "image/jpeg"}).status_code == 200
    second = launch().wait()
    assert 'resnet18_images_total{outcome="ok"} 1.0' in first.client.get("/metrics").text
    second.stop()
    assert first.client.post("/classify", content=jpeg, headers={"content-type": "image/jpeg"}).status_code == 200
    assert 'resnet18_images_total{outcome="ok"} 2.0' in first.client.get("/metrics").text


@pytest.mark.parametrize("engine", ["openvino", "auto"])
@pytest.mark.skipif(not engines.installed("openvino"), reason="requirements/openvino.txt is not installed")
def test_either_engine_answers_alike(server: Server, launch: Callable[..., Server], jpeg: bytes, engine: str) -> None:
    expected = server.client.post("/classify?top_k=3", content=jpeg, headers={"content-type": "image/jpeg"}).json()
    other = launch(engine=engine).wait()
    for _ in range(20):
        answer = other.client.post("/classify?top_k=3", content=jpeg, headers={"content-type": "image/jpeg"})
        assert answer.status_code == 200
        for ours, theirs in zip(answer.json()["predictions"], expected["predictions"], strict=True):
            assert ours["probability"] == pytest.approx(theirs["probability"], abs=0.1)
    runner = other.client.get("/model").json()["runner"]
    weighed = runner["engines_ms"]
    assert set(weighed) == (set() if engine == "openvino" else {"onnxruntime", "openvino"})
    assert runner["engine"] == min(weighed, key=weighed.__getitem__, default="openvino")
    assert sum(runner["batcher"]["widths"].values()) == 20
    # Where there is more than one core, one image may have several.
    assert runner["batcher"]["executors"] == 1 or set(runner["batcher"]["width_ms"]) > {"1"}
