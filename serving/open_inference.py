"""The Open Inference Protocol, version 2, over HTTP: what KServe, Triton, OpenVINO and MLServer speak.

The specification is github.com/kserve/open-inference-protocol; the binary tensors are Triton's extension of it. A
request of tensors goes the way of any request of images, through the same limits and the same batcher.
"""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.responses import Response

from classifier.errors import ClassifierError
from serving import json_body, parameters, replies, upload

if TYPE_CHECKING:
    from starlette.requests import Request

    from classifier.settings import Settings
    from runners.artifacts import Artifact
    from serving.classify import Classifier
    from serving.replies import Timing

# The header of a body that begins with JSON and goes on with binary tensors: the bytes of the JSON.
JSON_LENGTH = "inference-header-content-length"
# Bytes before each element of a binary tensor of BYTES: its length, little-endian.
_PREFIX = 4
_KEYS = ("id", "inputs", "outputs", "parameters")
_OUTPUTS = ("probabilities", "labels")
_SHOWN = 60


@dataclass
class Inference(upload.Upload):
    """An inference request. ``id``: its own, or None; ``outputs``: by name whether it is to be binary."""

    id: str | None = None
    outputs: dict[str, bool] | None = None


class OpenInference:
    """Answers the protocol's requests for the model ``name``, whose images ``classifier`` classifies."""

    def __init__(self, name: str, settings: Settings, artifact: Artifact, classifier: Classifier) -> None:
        self._name, self._settings, self._classifier = name, settings, classifier
        self._version = version_of(artifact.tag)
        self._labels, self._size = artifact.manifest.labels, artifact.manifest.preprocessing.size
        self._platform = f"{artifact.manifest.runtime}_{artifact.manifest.precision}"

    def server(self) -> dict[str, Any]:
        """The body of ``GET /v2``."""
        return {"name": self._name, "version": self._version, "extensions": ["binary_tensor_data"]}

    def model(self) -> dict[str, Any]:
        """The body of ``GET /v2/models/resnet18``; -1 stands for any number of images."""
        size, classes = self._size, len(self._labels)
        return {
            "name": self._name,
            "versions": [self._version],
            "platform": self._platform,
            "inputs": [
                {"name": "image", "datatype": "UINT8", "shape": [-1, size, size, 3]},
                {"name": "bytes", "datatype": "BYTES", "shape": [-1]},
            ],
            "outputs": [
                {"name": "probabilities", "datatype": "FP32", "shape": [-1, classes]},
                {"name": "labels", "datatype": "BYTES", "shape": [-1, -1]},
            ],
        }

    async def infer(self, request: Request) -> Response:
        """The reply to ``POST /v2/models/resnet18/infer``."""
        return await self._classifier.answer(request, "infer", self._read, self._infer, _reply)

    async def _read(self, request: Request, reservation: upload.Reservation) -> Inference:
        limit = self._settings.max_body_bytes
        length = request.headers.get(JSON_LENGTH)
        whole = await upload.read_whole(request, int(json_body.GROWTH * limit), reservation)
        head = whole if length is None else whole[: _json_length(length, len(whole))]
        document = json_body.Document(head)
        value = document.value
        if not isinstance(value, dict) or not set(value) <= set(_KEYS):
            raise _refused(f"the request is {_shown(value)}; it must be an object of {', '.join(_KEYS)}")
        tensors = value.get("inputs")
        if not isinstance(tensors, list) or len(tensors) != 1 or not isinstance(tensors[0], dict):
            raise _refused("'inputs' must hold one tensor: 'image' of UINT8 or 'bytes' of BYTES")
        images = self._images(document, tensors[0], memoryview(whole)[len(head) :])
        held = sum(len(image) if isinstance(image, bytes) else image.nbytes for image in images)
        if held > limit:
            raise ClassifierError("body_too_large", f"the images are over the limit of {limit} bytes", limit=limit)
        # The body is gone when the images have been taken out of it.
        reservation.add(held)
        reservation.give_back(len(whole))
        options = _parameters(value)
        told = {name: options.get(name) for name in parameters.NAMES}
        fields = {name: [json_body.number_text(one)] for name, one in told.items() if one is not None}
        identity = value.get("id")
        return Inference(images, fields, None if identity is None else str(identity), _outputs(value, options))

    def _images(self, document: json_body.Document, tensor: dict[str, Any], rest: memoryview) -> list[Any]:
        name, kind, shape = (tensor.get(key) for key in ("name", "datatype", "shape"))
        size = self._size
        accepted = {("image", "UINT8"): [size, size, 3], ("bytes", "BYTES"): []}
        inner = accepted.get((name, kind)) if isinstance(name, str) and isinstance(kind, str) else None
        if inner is None:
            raise _refused(
                f"the input {_shown(name)} of {_shown(kind)} is not taken; 'image' of UINT8 and 'bytes' of BYTES are",
                allowed=["image", "bytes"],
            )
        if (
            not isinstance(shape, list)
            or not all(type(each) is int for each in shape)
            or len(shape) != len(inner) + 1
            or shape[1:] != inner
            or shape[0] < 1
        ):
            expected = ", ".join(map(str, ["N", *inner]))
            raise _refused(
                f"the input {name!r} has the shape {_shown(shape)}; it must be [{expected}] with N at least 1"
            )
        count, most = shape[0], self._settings.max_images
        if count > most:
            raise ClassifierError("too_many_images", f"{count} images are over the limit of {most}", limit=most)
        told = _parameters(tensor).get("binary_data_size")
        if told is None and "data" not in tensor:
            raise _refused(f"the input {name!r} has neither 'data' nor the parameter 'binary_data_size'")
        if told is not None and told != len(rest):
            raise _refused(f"'binary_data_size' is {_shown(told)}, and {len(rest)} bytes follow the JSON")
        if told is None and len(rest):
            raise _refused(f"{len(rest)} bytes follow the JSON, and no input has the parameter 'binary_data_size'")
        if name == "bytes":
            return _elements(rest, count) if told is not None else _strings(document, tensor["data"], count)
        pixels = np.frombuffer(rest, np.uint8) if told is not None else document.pixels_of(tensor["data"])
        if pixels is None:
            raise _refused(f"'data' of the input {name!r} must hold whole numbers from 0 to 255")
        if pixels.size != math.prod(shape):
            raise _refused(f"the input {name!r} holds {pixels.size} numbers; its shape has {math.prod(shape)}")
        # A copy: the view would keep the whole body.
        return list(pixels.reshape(shape).copy())

    async def _infer(self, request: Request, sent: Any, timing: Timing, deadline: float) -> tuple[dict[str, Any], int]:
        parameters.check_top_k_alone(request, sent.fields)
        top_k = parameters.top_k(request, sent.fields, len(self._labels))
        results = await self._classifier.results(request, sent.images, timing, deadline)
        for index, result in enumerate(results):
            if isinstance(result, ClassifierError):
                # A tensor has no place for the error of one image.
                raise ClassifierError(
                    result.code,
                    f"image {index}: {result.message}",
                    retry_after=result.retry_after,
                    **result.facts | {"index": index},
                )
        rows = [result.probabilities for result in results]
        names = [[one["label"] for one in self._labels.top(row, top_k)] for row in rows]
        made = {"probabilities": ("FP32", np.stack(rows)), "labels": ("BYTES", names)}
        answer: dict[str, Any] = {"model_name": self._name, "model_version": self._version}
        if sent.id is not None:
            answer["id"] = sent.id
        warned = [f"image {index}: {text}" for index, result in enumerate(results) for text in result.warnings]
        if warned:  # a parameter's value is no list
            answer["parameters"] = {"warnings": "; ".join(warned)}
        tensors = [(name, *made[name], binary) for name, binary in sent.outputs.items()]
        return answer | {"outputs": tensors}, len(results)


def version_of(tag: str) -> str:
    """The model's version in the protocol's paths: that of its tag in the model store."""
    return tag.partition(":")[2]


def _json_length(text: str, whole: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) <= whole):
        raise ClassifierError(
            "bad_request", f"{JSON_LENGTH}: {text[:_SHOWN]!r} must be a whole number up to the body's {whole} bytes"
        )
    return int(text)


def _parameters(of: dict[str, Any]) -> dict[str, Any]:
    found = of.get("parameters", {})
    if not isinstance(found, dict):
        raise _refused(f"'parameters' is {_shown(found)}; it must be an object")
    return found


def _outputs(value: dict[str, Any], options: dict[str, Any]) -> dict[str, bool]:
    """By the name of each output that is wanted whether it is to be binary."""
    binary = options.get("binary_data_output", False) is True
    wanted = value.get("outputs") or [{"name": name} for name in _OUTPUTS]
    found = {}
    for each in wanted if isinstance(wanted, list) else [wanted]:
        name = each.get("name") if isinstance(each, dict) else None
        if name not in _OUTPUTS:
            raise _refused(f"there is no output {_shown(each)}", allowed=list(_OUTPUTS))
        of = _parameters(each)
        if of.get("classification"):
            raise _refused("'classification' is not taken; the output 'labels' has names, and 'top_k' says how many")
        found[name] = of.get("binary_data", binary) is True
    return found


def _elements(rest: memoryview, count: int) -> list[bytes]:
    """The elements of a binary tensor of BYTES."""
    found, at = [], 0
    for index in range(count):
        size = int.from_bytes(rest[at : at + _PREFIX], "little")
        if at + _PREFIX + size > len(rest):
            raise ClassifierError("bad_request", f"the binary tensor ends within element {index}", index=index)
        found.append(bytes(rest[at + _PREFIX : at + _PREFIX + size]))
        at += _PREFIX + size
    if at != len(rest):
        raise ClassifierError("bad_request", f"{len(rest) - at} bytes follow the last of {count} elements")
    return found


def _strings(document: json_body.Document, data: Any, count: int) -> list[bytes]:
    """The images of a tensor of BYTES in JSON, which are base64."""
    if not isinstance(data, list) or len(data) != count:
        raise _refused(f"'data' of the input 'bytes' is {_shown(data)}; its shape has {count} strings of base64")
    return [json_body.image_of(document, value, f"data[{index}]", index) for index, value in enumerate(data)]


def _reply(answer: dict[str, Any], timing: Timing) -> Response:
    """The answer as JSON, with the tensors that are to be binary behind it."""
    outputs: list[dict[str, Any]] = []
    pieces: list[bytes] = []
    for name, kind, values, binary in answer["outputs"]:
        texts = kind == "BYTES"
        shape = [len(values), len(values[0])] if texts else list(values.shape)
        output: dict[str, Any] = {"name": name, "datatype": kind, "shape": shape}
        if binary:
            flat = [text.encode() for row in values for text in row] if texts else []
            packed = b"".join(len(text).to_bytes(_PREFIX, "little") + text for text in flat)
            pieces.append(packed if texts else values.astype("<f4").tobytes())
            output["parameters"] = {"binary_data_size": len(pieces[-1])}
        else:
            output["data"] = [text for row in values for text in row] if texts else values.ravel().tolist()
        outputs.append(output)
    response = replies.json_response(answer | {"outputs": outputs}, timing)
    if pieces:
        head = bytes(response.body)
        headers = {"Server-Timing": timing.header(), JSON_LENGTH: str(len(head))}
        return Response(b"".join((head, *pieces)), headers=headers, media_type="application/octet-stream")
    return response


_refused = functools.partial(ClassifierError, "invalid_parameter")


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
