"""Whether an answer is right: its status, its schema, and the label the same image had when the server was idle."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.http import Answer
    from loadtests.payloads import Request


class Outcome(IntEnum):
    """What became of a request. OK, REFUSED and REJECTED are right answers; the rest are failures."""

    OK = 0
    REFUSED = 1  # 429 with Retry-After
    REJECTED = 2  # a hostile image's 4xx
    WRONG_STATUS = 3
    WRONG_SHAPE = 4
    WRONG_LABEL = 5
    HOSTILE_ACCEPTED = 6
    NO_ANSWER = 7
    DROPPED = 8  # never sent: the generator was late or full


FAILURES = (
    Outcome.WRONG_STATUS,
    Outcome.WRONG_SHAPE,
    Outcome.WRONG_LABEL,
    Outcome.HOSTILE_ACCEPTED,
    Outcome.NO_ANSWER,
)


class IdleError(Exception):
    """The idle server gives an answer that no load test can use; the message quotes it."""


def with_reference(request: Request, answer: Answer, *, strict: bool) -> Request:
    """``request`` with the labels of the idle server's answer. Raises IdleError.

    A hostile file that the server reads without complaint is an image after all, and is sent as one; unless
    ``strict``: then it was made to be unreadable.
    """
    status, _, content = answer
    where = f"{request.kind} request {request.name!r} to {request.path}"
    if request.kind == "hostile":
        if 400 <= status < 500 and status != 429:
            return request
        if strict or status != 200:
            raise IdleError(f"{where} must get a 4xx; the idle server said {status}: {content[:200]!r}")
        request = replace(request, kind="raw")
    elif status != 200:
        raise IdleError(f"{where} got {status} from the idle server: {content[:200]!r}")
    try:
        found = _labels(request, content)
        if None in found:
            raise ValueError("an image of it was refused")
        return replace(request, labels=found)
    except ValueError as error:
        raise IdleError(f"{where} got a reply of an unknown shape from the idle server: {error}") from None


def judge(request: Request, answer: Answer) -> tuple[Outcome, str]:
    """The outcome of ``request`` with ``answer``, and for a failure the reason in words."""
    status, headers, content = answer
    if status == 429:
        return _refused(headers, content)
    if request.kind == "hostile":
        return _rejected(status, content)
    if status != 200:
        return Outcome.WRONG_STATUS, f"status {status}: {content[:200]!r}"
    try:
        found = _labels(request, content)
    except ValueError as error:
        return Outcome.WRONG_SHAPE, str(error)
    if request.labels and any(one not in (None, idle) for one, idle in zip(found, request.labels, strict=True)):
        told = ", ".join(one or "refused" for one in found)
        return Outcome.WRONG_LABEL, f"{request.name}: {told}; at idle {', '.join(request.labels)}"
    return Outcome.REFUSED if None in found else Outcome.OK, ""


def _refused(headers: Mapping[str, str], content: bytes) -> tuple[Outcome, str]:
    after = headers.get("Retry-After") or headers.get("retry-after") or ""
    if not after.isdecimal():
        return Outcome.WRONG_SHAPE, f"429 with Retry-After {after!r}: it must be whole seconds"
    try:
        _error_code(content)
    except ValueError as error:
        return Outcome.WRONG_SHAPE, f"429: {error}"
    return Outcome.REFUSED, ""


def _rejected(status: int, content: bytes) -> tuple[Outcome, str]:
    if status < 400:
        return Outcome.HOSTILE_ACCEPTED, f"status {status} for a broken image: {content[:200]!r}"
    if status >= 500:
        return Outcome.WRONG_STATUS, f"status {status} for a broken image: {content[:200]!r}"
    try:
        _error_code(content)
    except ValueError as error:
        return Outcome.WRONG_SHAPE, f"{status}: {error}"
    return Outcome.REJECTED, ""


def _labels(request: Request, content: bytes) -> tuple[Any, ...]:
    """The most probable label of each image of a 200's body; None for an image of a batch that was refused.

    Raises ValueError where the schema does not hold.
    """
    body = _object(content)
    model, timing = body.get("model"), body.get("timing_ms")
    if not isinstance(model, dict) or not all(isinstance(model.get(key), str) for key in ("tag", "weights")):
        raise ValueError(f"'model' is {model!r}; it must hold a tag and weights")
    if not isinstance(timing, dict) or not all(_number(timing.get(key)) for key in ("decode", "inference", "total")):
        raise ValueError(f"'timing_ms' is {timing!r}; it must hold milliseconds of decode, inference, total")
    if request.kind != "batch":
        return (_top(body.get("predictions")),)
    results = body.get("results")
    if not isinstance(results, list) or len(results) != request.images:
        raise ValueError(f"'results' must hold {request.images} entries: {str(results)[:200]}")
    return tuple(None if _is_refused(one) else _top(_get(one, "predictions")) for one in results)


def _is_refused(result: Any) -> bool:
    """Whether an image of a batch was refused as overload: alone it would have got a 429."""
    return bool(_get(_get(result, "error"), "code") == "overloaded")


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _top(predictions: Any) -> str:
    if not isinstance(predictions, list) or not predictions:
        raise ValueError(f"'predictions' is {str(predictions)[:200]!r}; it must be a list with an entry")
    last = 1.0
    for one in predictions:
        known = isinstance(one, dict) and isinstance(one.get("label"), str) and isinstance(one.get("class_id"), int)
        if not known or not _number(one.get("probability")) or not 0 <= one["probability"] <= last + 1e-6:
            raise ValueError(f"prediction {str(one)[:200]!r} needs class_id, label and a probability, in falling order")
        last = one["probability"]
    return str(predictions[0]["label"])


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _error_code(content: bytes) -> str:
    error = _object(content).get("error")
    if not isinstance(error, dict) or not isinstance(error.get("code"), str) or not error.get("message"):
        raise ValueError(f"the error body is {content[:200]!r}; it must hold a code and a message")
    return str(error["code"])


def _object(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except ValueError:
        raise ValueError(f"the body is no JSON: {content[:200]!r}") from None
    if not isinstance(body, dict):
        raise ValueError(f"the body is no JSON object: {content[:200]!r}")
    return body
