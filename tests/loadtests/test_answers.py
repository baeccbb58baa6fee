"""Every reply is checked: status, schema, label."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loadtests.answers import IdleError, Outcome, judge, with_reference
from loadtests.payloads import Request

PHOTO = b"\xff\xd8" + b"x" * 100
RAW = Request("cat.jpg", "raw", "/classify", "image/jpeg", PHOTO, labels=("cat",))
BATCH = Request("cat.jpg", "batch", "/classify_batch", "multipart/form-data", PHOTO, images=2, labels=("cat", "dog"))
HOSTILE = Request("noise.jpg", "hostile", "/classify", "image/jpeg", b"noise")


def predictions(*labels: str) -> list[dict[str, Any]]:
    return [{"class_id": at, "label": label, "probability": 0.5 / (at + 1)} for at, label in enumerate(labels)]


def body(**changes: Any) -> bytes:
    whole = {
        "predictions": predictions("cat", "dog"),
        "model": {"tag": "a:b", "weights": "demo", "precision": "int8"},
        "timing_ms": {"decode": 1.0, "queue": 0.0, "inference": 2.0, "total": 3.0},
    }
    return json.dumps(whole | changes).encode()


def error(code: str = "overloaded") -> bytes:
    return json.dumps({"error": {"code": code, "message": "why"}}).encode()


def test_a_right_answer_is_ok() -> None:
    assert judge(RAW, (200, {}, body())) == (Outcome.OK, "")
    results = [{"predictions": predictions("cat")}, {"predictions": predictions("dog")}]
    assert judge(BATCH, (200, {}, body(results=results))) == (Outcome.OK, "")


def test_another_label_than_at_idle_is_a_failure_that_names_both() -> None:
    outcome, why = judge(RAW, (200, {}, body(predictions=predictions("dog", "cat"))))
    assert outcome is Outcome.WRONG_LABEL and why == "cat.jpg: dog; at idle cat"
    swapped = [{"predictions": predictions("dog")}, {"predictions": predictions("cat")}]
    assert judge(BATCH, (200, {}, body(results=swapped)))[0] is Outcome.WRONG_LABEL


@pytest.mark.parametrize(
    "changes",
    [
        {"predictions": []},
        {"predictions": None},
        {"predictions": [{"class_id": 1, "label": "cat"}]},
        {"predictions": [{"class_id": "1", "label": "cat", "probability": 0.5}]},
        {"predictions": [{"class_id": 1, "label": "cat", "probability": 1.5}]},
        {"predictions": [*predictions("cat"), {"class_id": 2, "label": "dog", "probability": 0.9}]},
        {"model": {"tag": "a:b"}},
        {"timing_ms": {"decode": 1.0, "inference": True, "total": 1.0}},
    ],
)
def test_a_broken_schema_is_a_failure(changes: dict[str, Any]) -> None:
    assert judge(RAW, (200, {}, body(**changes)))[0] is Outcome.WRONG_SHAPE


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'"text"'])
def test_what_is_no_json_object_is_a_failure(content: bytes) -> None:
    assert judge(RAW, (200, {}, content))[0] is Outcome.WRONG_SHAPE


def test_a_batch_must_be_answered_image_by_image() -> None:
    one = [{"predictions": predictions("cat")}]
    assert judge(BATCH, (200, {}, body(results=one)))[0] is Outcome.WRONG_SHAPE
    failed = [*one, {"error": {"code": "internal", "message": ""}}]
    assert judge(BATCH, (200, {}, body(results=failed)))[0] is Outcome.WRONG_SHAPE


def test_a_batch_of_which_an_image_came_too_late_is_refused_not_wrong() -> None:
    late = [{"predictions": predictions("cat")}, {"error": {"code": "overloaded", "message": "late"}}]
    assert judge(BATCH, (200, {}, body(results=late))) == (Outcome.REFUSED, "")
    late[0] = {"predictions": predictions("dog")}
    assert judge(BATCH, (200, {}, body(results=late)))[0] is Outcome.WRONG_LABEL
    late[0] = {"predictions": []}
    assert judge(BATCH, (200, {}, body(results=late)))[0] is Outcome.WRONG_SHAPE
    assert judge(BATCH, (200, {}, body(results=late[1:])))[0] is Outcome.WRONG_SHAPE


def test_a_refusal_needs_retry_after() -> None:
    assert judge(RAW, (429, {"Retry-After": "2"}, error())) == (Outcome.REFUSED, "")
    assert judge(RAW, (429, {"retry-after": "2"}, error())) == (Outcome.REFUSED, "")
    outcome, why = judge(RAW, (429, {}, error()))
    assert outcome is Outcome.WRONG_SHAPE and "Retry-After ''" in why
    assert judge(RAW, (429, {"Retry-After": "soon"}, error()))[0] is Outcome.WRONG_SHAPE
    assert judge(RAW, (429, {"Retry-After": "2"}, b"no"))[0] is Outcome.WRONG_SHAPE


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_any_other_status_is_a_failure(status: int) -> None:
    outcome, why = judge(RAW, (status, {}, error("internal")))
    assert outcome is Outcome.WRONG_STATUS and str(status) in why


def test_a_broken_image_must_be_rejected() -> None:
    assert judge(HOSTILE, (400, {}, error("unreadable_image"))) == (Outcome.REJECTED, "")
    assert judge(HOSTILE, (429, {"Retry-After": "1"}, error())) == (Outcome.REFUSED, "")
    assert judge(HOSTILE, (200, {}, body()))[0] is Outcome.HOSTILE_ACCEPTED
    assert judge(HOSTILE, (500, {}, error("internal")))[0] is Outcome.WRONG_STATUS
    assert judge(HOSTILE, (400, {}, b"Bad Request"))[0] is Outcome.WRONG_SHAPE


def test_the_idle_answer_gives_the_labels() -> None:
    asked = with_reference(Request("a", "raw", "/classify", "image/jpeg", PHOTO), (200, {}, body()), strict=True)
    assert asked.labels == ("cat",)
    with pytest.raises(IdleError, match="raw request 'a' to /classify got 500"):
        with_reference(Request("a", "raw", "/classify", "image/jpeg", PHOTO), (500, {}, error()), strict=True)
    with pytest.raises(IdleError, match="unknown shape"):
        with_reference(Request("a", "raw", "/classify", "image/jpeg", PHOTO), (200, {}, b"{}"), strict=True)


def test_a_hostile_file_that_is_an_image_after_all_is_sent_as_one() -> None:
    assert with_reference(HOSTILE, (400, {}, error()), strict=True) is HOSTILE
    image = with_reference(HOSTILE, (200, {}, body()), strict=False)
    assert (image.kind, image.labels) == ("raw", ("cat",))
    with pytest.raises(IdleError, match="must get a 4xx"):
        with_reference(HOSTILE, (200, {}, body()), strict=True)
    with pytest.raises(IdleError, match="must get a 4xx"):
        with_reference(HOSTILE, (500, {}, error()), strict=False)
