"""How the images of a request are counted, whatever becomes of it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from starlette.requests import Request

from classifier.errors import ClassifierError
from classifier.labels import Labels
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
