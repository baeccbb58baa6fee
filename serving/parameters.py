"""What a request asks for besides its images, and how long its answer may take. Other names are refused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from classifier.errors import ClassifierError
from serving.schema import TOP_K

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from starlette.requests import Request

# The parameters of classify requests, in the query or as text fields of a multipart body.
NAMES = ("top_k", "min_confidence", "level")
LEVELS = ("class", "group")
# The time that a client allows, in milliseconds from the body's last byte; without it, the SLO. The deadline is 85 % of
# it.
TIME_ALLOWED = "x-time-allowed-ms"
# How JSON spells that nothing is given: BentoML's clients send each argument as JSON.
_NONE = "null"
# A number as JSON writes it.
_NUMBER = re.compile(r"-?\d{1,20}(?:\.\d{1,40})?(?:[eE][+-]?\d{1,3})?", re.ASCII)


def check_query(request: Request, known: Sequence[str] = ()) -> None:
    """Raise ClassifierError("invalid_parameter") if the query has a parameter that is not among ``known``."""
    if not request.scope["query_string"]:
        return
    for name in request.query_params:
        if name not in known:
            there = f"it takes {', '.join(map(repr, known))}" if known else "it takes none"
            raise ClassifierError(
                "invalid_parameter",
                f"{request.scope['path']} has no query parameter {name[:100]!r}; {there}",
                allowed=list(known),
            )


def top_k(request: Request, fields: Mapping[str, Sequence[str]], classes: int, default: int = TOP_K) -> int:
    """How many predictions to give, by the query or the text ``fields``. Raises ClassifierError("invalid_parameter").

    The default is no user's choice, so a model of two classes gives its two.
    """
    given = _given(request, fields, "top_k")
    if not given:
        return min(default, classes)
    if len(given) > 1:
        raise _twice("top_k", given, limit=classes)
    (text,) = given
    if not 1 <= _whole(text) <= classes:
        raise ClassifierError(
            "invalid_parameter", f"top_k={text[:100]!r}: must be a whole number from 1 to {classes}", limit=classes
        )
    return int(text)


def min_confidence(request: Request, fields: Mapping[str, Sequence[str]], default: float) -> float:
    """The probability that the first prediction must reach to be told as confident; 0: nothing is told.

    By the query or the text ``fields``, else ``default``. Raises ClassifierError("invalid_parameter").
    """
    numbers = set()
    for text in _given(request, fields, "min_confidence"):
        numbers.add(float(text) if _NUMBER.fullmatch(text) else -1.0)
        if not 0 <= min(numbers) <= max(numbers) <= 1:
            raise ClassifierError("invalid_parameter", f"min_confidence={text[:100]!r}: must be a number from 0 to 1")
    # A number has several spellings.
    if len(numbers) > 1:
        raise _twice("min_confidence", map(str, numbers))
    return next(iter(numbers), default)


def level(request: Request, fields: Mapping[str, Sequence[str]], groups: int) -> str:
    """What the predictions are of, "class" or "group"; ``groups``: how many the model has.

    Raises ClassifierError("invalid_parameter").
    """
    # JSON bodies and BentoML's clients have it in quotation marks.
    given = {text.removeprefix('"').removesuffix('"') for text in _given(request, fields, "level")}
    if len(given) > 1:
        raise _twice("level", given)
    text = next(iter(given), LEVELS[0])
    if text not in LEVELS:
        raise ClassifierError(
            "invalid_parameter", f"level={text[:100]!r}: must be {' or '.join(LEVELS)}", allowed=list(LEVELS)
        )
    if text == "group" and not groups:
        raise ClassifierError(
            "invalid_parameter",
            "level='group': the model has no groups; it was built without --groups",
            allowed=["class"],
        )
    return text


def check_top_k_alone(request: Request, fields: Mapping[str, Sequence[str]]) -> None:
    """Raise ClassifierError("invalid_parameter") for the parameters that have no place in another server's replies."""
    for name in NAMES:
        if name != "top_k" and _given(request, fields, name):
            raise ClassifierError(
                "invalid_parameter",
                f"{request.scope['path']} has no parameter {name!r}; it takes 'top_k', and /classify takes both",
                allowed=["top_k"],
            )


def _given(request: Request, fields: Mapping[str, Sequence[str]], name: str) -> set[str]:
    """The values of ``name`` in the query and the text ``fields``."""
    given = {text for text in fields.get(name, ()) if text != _NONE}
    if request.scope["query_string"]:
        given.update(request.query_params.getlist(name))
    return given


def _twice(name: str, given: Iterable[str], **facts: Any) -> ClassifierError:
    values = " and ".join(repr(text[:100]) for text in sorted(given))
    return ClassifierError("invalid_parameter", f"{name} is given as {values}; give it once", **facts)


def time_allowed(request: Request, limit: int) -> int | None:
    """Milliseconds from the body's last byte to the answer, as the client has it, or None.

    Raises ClassifierError("invalid_parameter") for what is not from 1 to ``limit``.
    """
    text = request.headers.get(TIME_ALLOWED)
    if text is None:
        return None
    if not 1 <= _whole(text) <= limit:
        raise ClassifierError(
            "invalid_parameter",
            f"{TIME_ALLOWED}: {text[:100]!r} must be a whole number of milliseconds from 1 to {limit}",
            limit=limit,
        )
    return int(text)


def _whole(text: str) -> int:
    """The whole number that ``text`` is; -1 for what is none, or has more than nine digits."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else -1
