"""Replies: the stages have one set of names, and errors carry their headers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from classifier.errors import ClassifierError
from runners.results import ImageResult
from serving import schema
from serving.replies import IMAGE_STAGES, STAGES, Timing, error_response, json_response


def test_the_stages_have_the_same_names_everywhere() -> None:
    assert STAGES == ("decode", "queue", "inference", "total")
    assert tuple(schema.Timings.model_fields) == STAGES
    assert {f"{stage}_ms" for stage in IMAGE_STAGES} == set(ImageResult.__slots__) - {
        "probabilities",
        "cached",
        "warnings",
    }


def test_a_request_takes_as_long_as_its_slowest_image_in_each_stage() -> None:
    timing = Timing()
    for decode, inference, queue in ((3.0, 20.0, 0.5), (1.0, 30.0, 0.25)):
        timing.include(ImageResult(np.zeros(2, np.float32), decode, inference, queue))
    timing.total = 50.126
    assert timing.body() == {"decode": 3.0, "queue": 0.5, "inference": 30.0, "total": 50.13}
    assert timing.header() == "decode;dur=3.00, queue;dur=0.50, inference;dur=30.00, total;dur=50.13"
    assert json_response({}, timing).headers["server-timing"] == timing.header()


@pytest.mark.parametrize(
    ("code", "options", "headers"),
    [
        ("overloaded", {"retry_after": 3, "reason": "memory"}, {"retry-after": "3"}),
        ("unsupported_encoding", {}, {"accept-encoding": "identity"}),
        ("not_found", {}, {}),
    ],
)
def test_an_error_has_its_status_its_code_and_its_headers(
    code: str, options: dict[str, Any], headers: dict[str, str]
) -> None:
    response = error_response(ClassifierError(code, "Nein — 不行", **options))
    facts = {name: value for name, value in options.items() if name != "retry_after"}
    assert json.loads(bytes(response.body)) == {"error": {"code": code, "message": "Nein — 不行"} | facts}
    found = dict(response.headers)
    assert found.pop("x-error-code") == code
    assert found.pop("content-type") == "application/json"
    del found["content-length"]
    assert found == headers
