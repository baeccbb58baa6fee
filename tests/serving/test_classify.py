"""How the images of a request are counted, whatever becomes of it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from starlette.requests import Request

from classifier.errors import ClassifierError
from classifier.labels import Groups, Labels
from classifier.settings import Settings
from runners.results import ImageResult
from serving.classify import Classifier


class Placement:
    """Answers everything, or refuses everything before its body is read."""

    def __init__(self) -> None:
        labels = Labels(("cat", "dog"), ("猫", "狗"))
        manifest = SimpleNamespace(labels=labels, weights={"origin": "demo"}, precision="int8")
        self.artifact, self.full = SimpleNamespace(tag="resnet18:1", manifest=manifest), False

    def check_admission(self, deadline: float) -> None:
        if self.full:
            raise ClassifierError("overloaded", "refused", retry_after=1, reason="queue_full")

    async def submit(self, images: list[bytes], deadline: float) -> list[Any]:
        return [ImageResult(np.array([0.9, 0.1], np.float32), 0.0, 0.0) for _ in images]


class Metrics:
    """Remembers what was counted: (outcome, images)."""

    def __init__(self) -> None:
        self.counted: list[tuple[str, int]] = []

    def answered(self, images: int, timing: Any) -> None:
        self.counted.append(("ok", images))

    def failed(self, error: ClassifierError | str, images: int = 1) -> None:
        self.counted.append((error if isinstance(error, str) else error.code, images))


def request(images: int) -> Request:
    """A request of a multipart body with ``images`` files."""
    part = b'--b\r\nContent-Disposition: form-data; name="images"; filename="x"\r\n\r\nx\r\n'
    body = part * images + b"--b--\r\n"
    headers = [(b"content-type", b"multipart/form-data; boundary=b"), (b"content-length", str(len(body)).encode())]
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        return await asyncio.get_running_loop().create_future()

    scope = {"type": "http", "method": "POST", "path": "/classify_batch", "query_string": b"", "headers": headers}
    return Request(scope, receive)


@pytest.mark.parametrize(("sent", "counted"), [([], 1), ([8], 8), ([8] * 5 + [12] * 40, 12)])
def test_a_batch_refused_unread_counts_as_those_lately_read(sent: list[int], counted: int) -> None:
    placement, metrics = Placement(), Metrics()

    async def run() -> None:
        classifier: Any = Classifier(Settings(), placement, metrics)  # type: ignore[arg-type]
        for images in sent:
            assert (await classifier.classify_batch(request(images))).status_code == 200
        placement.full = True
        assert (await classifier.classify_batch(request(64))).status_code == 429
        # Of the other path nothing is known.
        assert (await classifier.classify(request(1))).status_code == 429

    asyncio.run(run())
    assert metrics.counted == [*(("ok", images) for images in sent), ("overloaded", counted), ("overloaded", 1)]


def ask(query: str, groups: Groups | None, **settings: Any) -> tuple[int, dict[str, Any]]:
    """The status and the body of the answer to a batch of one image, of which the model says 0.9 and 0.1."""
    placement = Placement()
    placement.artifact.manifest.labels = replace(placement.artifact.manifest.labels, groups=groups)
    classifier: Any = Classifier(Settings(**settings), placement, Metrics())  # type: ignore[arg-type]
    asked = request(1)
    asked.scope["query_string"] = query.encode()
    response = asyncio.run(classifier.classify_batch(asked))
    return response.status_code, json.loads(response.body)


PET = Groups(Labels(("pet", "toy"), ("宠物", "玩具")), (0, 0))


def test_groups_beside_the_classes_and_in_their_place() -> None:
    status, body = ask("top_k=1", PET)
    (result,) = body["results"]
    assert status == 200
    assert [one["label"] for one in result["predictions"]] == ["cat"]
    assert result["groups"] == [{"group_id": 0, "label": "pet", "label_zh": "宠物", "probability": 1.0}]
    (result,) = ask("level=group", PET)[1]["results"]
    assert [(one["group_id"], one["probability"]) for one in result["predictions"]] == [(0, 1.0), (1, 0.0)]
    assert "groups" not in result
    assert set(ask("level=class", PET)[1]["results"][0]) == {"predictions", "groups"}
    assert set(ask("", None)[1]["results"][0]) == {"predictions"}


def test_confidence_is_of_the_level_that_was_asked_for() -> None:
    for query, confident in (("level=group", True), ("level=class", False), ("min_confidence=0.9", True)):
        (result,) = ask(query, PET, min_confidence=0.95)[1]["results"]
        assert result["confident"] is confident
    assert "confident" not in ask("min_confidence=0", PET, min_confidence=0.95)[1]["results"][0]


@pytest.mark.parametrize(
    ("query", "groups", "said"),
    [
        ("level=group", None, "level='group': the model has no groups"),
        ("level=kind", PET, "level='kind': must be class or group"),
        ("level=class&level=group", PET, "level is given as 'class' and 'group'; give it once"),
        ("level=group&top_k=3", PET, "from 1 to 2"),
    ],
)
def test_422_for_a_level_that_there_is_none_of(query: str, groups: Groups | None, said: str) -> None:
    status, body = ask(query, groups)
    assert (status, body["error"]["code"]) == (422, "invalid_parameter")
    assert said in body["error"]["message"]
