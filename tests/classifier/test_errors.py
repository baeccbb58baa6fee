"""The error that callers are told: its status, its body, and that it survives a process boundary."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import pytest

from classifier.errors import STATUS, ClassifierError

ROOT = Path(__file__).resolve().parents[2]


def raised_codes() -> dict[str, str]:
    """Every code that the product's sources give a ClassifierError, with a file that does."""
    codes = {}
    sources = [ROOT / "service.py", *(path for name in ("classifier", "runners", "serving") for path in files(name))]
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ClassifierError":
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    codes[str(first.value)] = path.name
    return codes


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def test_every_code_that_is_raised_has_a_status() -> None:
    codes = raised_codes()
    assert len(codes) >= 8  # the walk above finds them
    assert {code: file for code, file in codes.items() if code not in STATUS} == {}


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("unreadable_image", 400),
        ("unauthorized", 401),
        ("not_found", 404),
        ("method_not_allowed", 405),
        ("length_required", 411),
        ("image_too_large", 413),
        ("unsupported_media_type", 415),
        ("invalid_parameter", 422),
        ("overloaded", 429),
        ("rate_limited", 429),
        ("unavailable", 503),
        ("timeout", 504),
    ],
)
def test_status_follows_from_the_code(code: str, status: int) -> None:
    assert ClassifierError(code, "why").status == status


def test_all_statuses_are_errors() -> None:
    assert all(400 <= status < 600 for status in STATUS.values())


def test_body_holds_code_message_and_facts() -> None:
    error = ClassifierError("image_too_large", "9x9 has more pixels than the limit of 80", limit=80)
    message = "9x9 has more pixels than the limit of 80"
    assert error.body() == {"error": {"code": "image_too_large", "message": message, "limit": 80}}
    assert str(error) == message


def test_retry_after_is_for_the_header_not_for_the_body() -> None:
    error = ClassifierError("overloaded", "full", retry_after=2, limit=256)
    assert error.retry_after == 2
    assert error.body() == {"error": {"code": "overloaded", "message": "full", "limit": 256}}
    assert ClassifierError("internal", "no").retry_after is None


def test_survives_pickling_whole() -> None:
    error = ClassifierError("overloaded", "full", retry_after=2, limit=256, allowed=["JPEG"])
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is ClassifierError
    assert (copy.body(), copy.status, copy.retry_after, str(copy)) == (error.body(), 429, 2, "full")
