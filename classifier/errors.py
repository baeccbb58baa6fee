"""The one error of the service: a code, a sentence for people, and the facts behind it."""

from __future__ import annotations

from typing import Any

STATUS = {
    "bad_request": 400,
    "unreadable_image": 400,
    "unauthorized": 401,
    "not_found": 404,
    "method_not_allowed": 405,
    "upload_timeout": 408,
    "length_required": 411,
    "body_too_large": 413,
    "image_too_large": 413,
    "too_many_images": 413,
    "unsupported_media_type": 415,
    "unsupported_encoding": 415,
    "invalid_parameter": 422,
    "decode_timeout": 422,
    "overloaded": 429,
    "rate_limited": 429,
    "headers_too_large": 431,
    "internal": 500,
    "unavailable": 503,
    "timeout": 504,
}


class ClassifierError(Exception):
    """What a caller is told: ``{"error": {"code": …, "message": …, **facts}}`` with the HTTP status of the code.

    ``retry_after``: seconds to wait before another try, sent as ``Retry-After``; None where retrying is no use.
    """

    def __init__(self, code: str, message: str, *, retry_after: int | None = None, **facts: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.retry_after, self.facts = code, message, retry_after, facts

    @property
    def status(self) -> int:
        """The HTTP status of this code."""
        return STATUS[self.code]

    def body(self) -> dict[str, Any]:
        """The reply's JSON object."""
        return {"error": {"code": self.code, "message": self.message, **self.facts}}

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions cross process boundaries by pickle, which by default would lose the keyword arguments.
        return _rebuild, (self.code, self.message, self.retry_after, self.facts)


def _rebuild(code: str, message: str, retry_after: int | None, facts: dict[str, Any]) -> ClassifierError:
    return ClassifierError(code, message, retry_after=retry_after, **facts)
