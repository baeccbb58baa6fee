"""Answers: predictions, errors and timing as HTTP responses. Every failure has the shape of ``error_response``."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

if TYPE_CHECKING:
    from classifier.errors import ClassifierError
    from runners.results import ImageResult

ERROR_HEADER = "x-error-code"


@dataclass
class Timing:
    """Milliseconds of one request's stages; ``total`` is from the last body byte's reading to the reply.

    Its fields are the names of the stages wherever they stand: in replies, in metrics, in ImageResult with ``_ms``.
    """

    decode: float = 0.0
    queue: float = 0.0
    inference: float = 0.0
    total: float = 0.0

    def include(self, result: ImageResult) -> None:
        """Take over a stage of ``result`` where it took longer: a request's images go through a stage side by side."""
        for stage, attribute in _OF_RESULT:
            setattr(self, stage, max(getattr(self, stage), getattr(result, attribute)))

    def body(self) -> dict[str, float]:
        """The reply's ``timing_ms``."""
        return {name: round(value, 2) for name, value in vars(self).items()}

    def header(self) -> str:
        """The ``Server-Timing`` header's value."""
        return ", ".join(f"{name};dur={value:.2f}" for name, value in vars(self).items())


STAGES = tuple(field.name for field in fields(Timing))
IMAGE_STAGES = tuple(stage for stage in STAGES if stage != "total")
_OF_RESULT = tuple((stage, f"{stage}_ms") for stage in IMAGE_STAGES)


def json_response(body: dict[str, Any], timing: Timing | None = None) -> Response:
    """A 200 of ``body``, with its timing as a header too."""
    headers = {"Server-Timing": timing.header()} if timing else None
    return Response(_dump(body), headers=headers, media_type="application/json")


def error_response(error: ClassifierError) -> Response:
    """``error`` as a response: its status, its JSON, its code in a header, and Retry-After where it has one."""
    headers = {ERROR_HEADER: error.code}
    if error.code == "unsupported_encoding":
        headers["Accept-Encoding"] = "identity"  # RFC 9110, 12.5.3: what a body may come in
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return Response(_dump(error.body()), error.status, headers, "application/json")


def _dump(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
