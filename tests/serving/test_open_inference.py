"""The Open Inference Protocol by Triton's own client, and TorchServe's path: the answers are those of /classify."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from classifier import pixels
from tests import hostile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx
    from numpy.typing import NDArray

    from runners.artifacts import Artifact
    from tests.conftest import Server


def check_error(reply: httpx.Response, status: int, code: str, *quoted: str) -> dict[str, Any]:
    """``reply`` is an error as the protocol has it: text, which says each of ``quoted``, with our code beside it."""
    assert reply.status_code == status, reply.text
    error: dict[str, Any] = reply.json()
    assert isinstance(error["error"], str)
    for text in quoted:
        assert text in error["error"]
    assert error["code"] == code == reply.headers["x-error-code"]
    assert reply.headers["x-request-id"]
    return error


PNGS = [hostile.encode(hostile.picture().rotate(turn), "PNG") for turn in (0, 90, 180)]
PATH = "/v2/models/resnet18/infer"
KEY = "a-key-of-16-letters-or-more"


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        yield client


@pytest.fixture(scope="module")
def expected(server: Server) -> list[list[dict[str, Any]]]:
    """All ten predictions of each image, as /classify_batch gives them."""
    files = [("images", ("x", image)) for image in PNGS]
    results = server.client.post("/classify_batch?top_k=10", files=files).json()["results"]
    return [result["predictions"] for result in results]


@pytest.fixture(scope="module")
def decoded(artifact_of: Callable[..., Artifact]) -> NDArray[np.uint8]:
    preprocessing = artifact_of("onnx").manifest.preprocessing
    return np.stack([pixels.decode(image, preprocessing, 10**6) for image in PNGS])


def tensor(name: str, values: NDArray[Any], binary: bool) -> triton.InferInput:
    made = triton.InferInput(name, list(values.shape), "UINT8" if name == "image" else "BYTES")
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def check(result: triton.InferResult, expected: list[list[dict[str, Any]]], top_k: int = 3) -> None:
    """``result`` tells what /classify does of each image."""
    probabilities, labels = result.as_numpy("probabilities"), result.as_numpy("labels")
    assert (probabilities.dtype, probabilities.shape) == (np.float32, (len(expected), 10))
    assert labels.shape == (len(expected), top_k)
    for row, names, predictions in zip(probabilities, labels, expected, strict=True):
        assert [str(name.decode() if isinstance(name, bytes) else name) for name in names] == [
            one["label"] for one in predictions[:top_k]
        ]
        for one in predictions:
            assert row[one["class_id"]] == pytest.approx(one["probability"], abs=1e-6)


@pytest.mark.parametrize("out_binary", [True, False], ids=["binary out", "JSON out"])
@pytest.mark.parametrize("binary", [True, False], ids=["binary in", "JSON in"])
def test_pixels(
    client: triton.InferenceServerClient,
    decoded: NDArray[np.uint8],
    expected: list[list[dict[str, Any]]],
    binary: bool,
    out_binary: bool,
) -> None:
    outputs = [triton.InferRequestedOutput(name, binary_data=out_binary) for name in ("probabilities", "labels")]
    result = client.infer("resnet18", [tensor("image", decoded, binary)], outputs=outputs, request_id="7")
    check(result, expected)
    assert result.get_response()["id"] == "7"
    check(client.infer("resnet18", [tensor("image", decoded[:1], binary)]), expected[:1])


def test_encoded_images(client: triton.InferenceServerClient, expected: list[list[dict[str, Any]]]) -> None:
    images = np.array(PNGS, object)
    check(client.infer("resnet18", [tensor("bytes", images, True)]), expected)
    # Text has no bytes, so in JSON they are base64.
    texts = np.array([base64.b64encode(image) for image in PNGS], object)
    check(client.infer("resnet18", [tensor("bytes", texts, False)]), expected)


def test_how_many_labels(client: triton.InferenceServerClient, expected: list[list[dict[str, Any]]]) -> None:
    images = np.array(PNGS, object)
    check(client.infer("resnet18", [tensor("bytes", images, True)], parameters={"top_k": 5}), expected, 5)
    check(client.infer("resnet18", [tensor("bytes", images, True)], query_params={"top_k": 1}), expected, 1)
    outputs = [triton.InferRequestedOutput("labels")]
    result = client.infer("resnet18", [tensor("bytes", images, True)], outputs=outputs)
    assert [each["name"] for each in result.get_response()["outputs"]] == ["labels"]


def test_the_server_and_its_model(
    client: triton.InferenceServerClient, server: Server, expected: list[list[dict[str, Any]]]
) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("resnet18")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    model = client.get_model_metadata("resnet18")
    (version,) = model["versions"]
    assert server.client.get("/model").json()["tag"].endswith(f":{version}")
    assert [each["shape"] for each in model["inputs"]] == [[-1, 32, 32, 3], [-1]]
    assert model["outputs"][0] == {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}
    assert client.is_model_ready("resnet18", version)
    assert client.get_model_metadata("resnet18", version) == model
    check(client.infer("resnet18", [tensor("bytes", np.array(PNGS, object), True)], version), expected)


def test_triton_s_client_tells_our_errors(client: triton.InferenceServerClient, server: Server) -> None:
    images = np.array([PNGS[0], PNGS[1][:60]], object)
    with pytest.raises(InferenceServerException, match=r"\[400\] image 1: the PNG image can't be decoded"):
        client.infer("resnet18", [tensor("bytes", images, True)])
    with pytest.raises(InferenceServerException, match=r"\[404\] there is no '/v2/models/resnet50'"):
        client.get_model_metadata("resnet50")
    with pytest.raises(InferenceServerException, match=r"\[415\] Content-Encoding 'gzip'"):
        client.infer("resnet18", [tensor("bytes", images, True)], request_compression_algorithm="gzip")
    check_error(server.client.get("/v2/nothing"), 404, "not_found", "'/v2/nothing'")
    check_error(server.client.get(PATH), 405, "method_not_allowed", "GET")
    assert server.client.head("/v2/nothing").status_code == 404


def test_a_dedicated_runner_answers_too_and_all_of_it_is_counted_and_guarded(
    launch: Callable[..., Server], decoded: NDArray[np.uint8], expected: list[list[dict[str, Any]]]
) -> None:
    server = launch(placement="dedicated", api_keys=KEY, decoder="contained", threads="1").wait()
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        with pytest.raises(InferenceServerException, match="an API key is needed"):
            client.infer("resnet18", [tensor("image", decoded, True)])
        # Triton's client writes its own headers into what it is given.
        key = {"X-API-Key": KEY}
        check(client.infer("resnet18", [tensor("image", decoded, True)], headers=dict(key)), expected)
        check(client.infer("resnet18", [tensor("bytes", np.array(PNGS, object), True)], headers=dict(key)), expected)
    text = server.client.get("/metrics", headers=key).text
    assert re.findall(r'^resnet18_images_total\{outcome="ok"\} (\S+)', text, re.MULTILINE) == ["6.0"]
    assert f'endpoint="{PATH}"' in text


def test_it_answers_beside_the_fast_path(launch: Callable[..., Server], expected: list[list[dict[str, Any]]]) -> None:
    server = launch(access_log="true").wait()
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        check(client.infer("resnet18", [tensor("bytes", np.array(PNGS, object), True)]), expected)
    assert len(server.client.post("/predictions/resnet18", content=PNGS[0]).json()) == 5


# What is refused.


def post(server: Server, body: Any, **headers: str) -> httpx.Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return server.client.post(PATH, content=data, headers={name.replace("_", "-"): v for name, v in headers.items()})


def of_image(**changes: Any) -> dict[str, Any]:
    whole = {"name": "image", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": [0] * 3072}
    return {"inputs": [{key: value for key, value in (whole | changes).items() if value is not None}]}


def of_bytes(*texts: Any, **changes: Any) -> dict[str, Any]:
    whole = {"name": "bytes", "datatype": "BYTES", "shape": [len(texts)], "data": list(texts)}
    return {"inputs": [whole | changes]}


TEXT = base64.b64encode(PNGS[0]).decode()


@pytest.mark.parametrize(
    ("body", "status", "quoted"),
    [
        (b"", 400, "JSON"),
        ([], 422, "[]"),
        ({"inputs": [], "x": 1}, 422, "id, inputs, outputs, parameters"),
        ({"inputs": []}, 422, "'inputs'"),
        (of_image(name="pixels"), 422, '"pixels"'),
        (of_image(datatype="FP32"), 422, '"FP32"'),
        (of_image(shape=[1, 3, 32, 32]), 422, "[1, 3, 32, 32]"),
        (of_image(shape=[0, 32, 32, 3]), 422, "[0, 32, 32, 3]"),
        (of_image(shape=[True, 32, 32, 3]), 422, "[true, 32, 32, 3]"),
        (of_image(shape=[5, 32, 32, 3]), 413, "5"),
        (of_image(shape=[2, 32, 32, 3]), 422, "holds 3072 numbers; its shape has 6144"),
        (of_image(data=[0] * 3071 + [256]), 422, "0 to 255"),
        (of_image(data=[-1]), 422, "0 to 255"),
        (of_image(data="text"), 422, "0 to 255"),
        (of_image(data=[]), 422, "0 to 255"),
        (of_image(data=None), 422, "neither"),
        (of_image(parameters={"binary_data_size": 3072}), 422, "0 bytes follow"),
        (of_image(parameters=5), 422, "'parameters' is 5"),
        (of_bytes(TEXT, shape=[2]), 422, "2 strings"),
        (of_bytes(TEXT, "%"), 400, "data[1] is not base64"),
        (of_bytes("http://a/b.jpg"), 422, "fetches nothing"),
        (of_bytes(TEXT) | {"outputs": [{"name": "logits"}]}, 422, "logits"),
        (of_bytes(TEXT) | {"outputs": ["labels"]}, 422, '"labels"'),
        (
            of_bytes(TEXT) | {"outputs": [{"name": "labels", "parameters": {"classification": 3}}]},
            422,
            "'classification'",
        ),
        (of_bytes(TEXT) | {"parameters": {"top_k": 99}}, 422, "'99'"),
        (of_bytes(TEXT) | {"parameters": {"level": "group"}}, 422, "no parameter 'level'"),
    ],
)
def test_what_is_refused_is_quoted(server: Server, body: Any, status: int, quoted: str) -> None:
    reply = post(server, body)
    check_error(reply, status, reply.json()["code"], quoted)


def test_binary_tensors_that_are_not_what_they_say(server: Server) -> None:
    head = json.dumps(of_image(data=None, parameters={"binary_data_size": 3072})).encode()
    tensor = bytes(3072)
    assert post(server, head + tensor, inference_header_content_length=str(len(head))).status_code == 200
    for length in ("x", "-1", str(len(head) + 9999)):
        check_error(post(server, head + tensor, inference_header_content_length=length), 400, "bad_request", length)
    reply = post(server, head + tensor[:-1], inference_header_content_length=str(len(head)))
    check_error(reply, 422, "invalid_parameter", "3072", "3071")
    for elements, told in ((b"\xff\xff\xff\xff", "within element 0"), (b"\1\0\0\0xy", "1 bytes follow")):
        bytes_ = of_bytes("", parameters={"binary_data_size": len(elements)})
        head = json.dumps(bytes_).encode()
        reply = post(server, head + elements, inference_header_content_length=str(len(head)))
        check_error(reply, 400, "bad_request", told)


def test_the_size_limit_is_that_of_images(server: Server) -> None:
    """It is 3,000,000 here."""
    over = base64.b64encode(PNGS[0] + bytes(3_000_001 - len(PNGS[0]))).decode()
    check_error(post(server, of_bytes(over)), 413, "body_too_large", "3000000")
    assert post(server, of_bytes(over[:-8])).status_code == 200
    check_error(post(server, b" " * 4_500_001), 413, "body_too_large", "4500000")


def test_an_image_that_fails_is_told_by_its_index(server: Server) -> None:
    error = check_error(post(server, of_bytes(TEXT, "AAAA")), 415, "unsupported_media_type", "image 1")
    assert error["index"] == 1


# TorchServe.


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_torchserve_s_path(server: Server, expected: list[list[dict[str, Any]]], method: str) -> None:
    best = {one["label"]: one["probability"] for one in expected[0][:5]}
    path = "/predictions/resnet18"
    assert server.client.request(method, path, content=PNGS[0]).json() == best
    assert server.client.request(method, path, files={"data": ("x", PNGS[0])}).json() == best
    assert len(server.client.request(method, f"{path}?top_k=2", content=PNGS[0]).json()) == 2
    error = server.client.request(method, path, content=b"text").json()["error"]
    assert error["code"] == "unsupported_media_type"
