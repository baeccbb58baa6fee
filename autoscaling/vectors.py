"""The controller's model against a file of real decisions: how many agree, and the first that don't.

Two forms: ``{"vectors": [...]}``, cases with ``kind``, ``semantics``, ``inputs`` and ``expected``; and lines of JSON,
each a random decision with ``kind``, ``expected`` and its inputs. Either may be packed with gzip. Cases of semantics
``old`` belong to releases before this model's, and are left out.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from autoscaling import vectors_behavior, vectors_metrics
from autoscaling.console import console
from autoscaling.fields import parsed
from autoscaling.replicas import UnknownError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from autoscaling.vectors_metrics import Case

# The kinds of either form, and what answers them.
_VECTORS: dict[str, Callable[[Case], Case]] = {
    "resource-utilisation": vectors_metrics.resource_utilisation,
    "metric-ratio": vectors_metrics.metric_ratio,
    "external-per-pod": vectors_metrics.external_per_pod,
    "utilisation-ratio": vectors_metrics.utilisation_ratio,
    "group-pods": vectors_metrics.group_pods,
    "normalise": vectors_behavior.normalise,
    "rate-limit": vectors_behavior.rate_limit,
    "behavior-rate": vectors_behavior.behavior_rate,
    "stabilisation": vectors_behavior.stabilisation,
    "store-event": vectors_behavior.store_event,
    "reconcile": vectors_behavior.reconcile,
}
_DECISIONS: dict[str, Callable[[Case], Case]] = {
    "utilization": vectors_metrics.random_utilization,
    "pods-average": vectors_metrics.random_pods,
    "value": vectors_metrics.random_value,
    "average-value": vectors_metrics.random_average,
    "decision": vectors_behavior.random_decision,
}
_SHOWN = 5
_TOLERANCE = 1e-9


class VectorError(ValueError):
    """A vector file that can't be read; the message names the file and the case."""


@dataclass(frozen=True)
class Result:
    """A case with what it ``expected`` and what the model ``got``, both with the names that were compared."""

    kind: str
    name: str
    inputs: Case
    expected: Case
    got: Case

    @property
    def agrees(self) -> bool:
        """Whether the model gave all that the case expects; fractions within 1e-9."""
        return all(_same(value, self.got.get(name)) for name, value in self.expected.items())


def _same(expected: Any, got: Any) -> bool:
    if isinstance(expected, float) and isinstance(got, int | float):
        return abs(expected - got) <= _TOLERANCE
    return bool(expected == got)


def check(path: Path) -> list[Result]:
    """Each case of ``path``, answered, in the file's order. Raises VectorError."""
    results = [result for place, case in _cases(path) if (result := _result(path, place, case)) is not None]
    if not results:
        raise VectorError(f"{path}: it holds no case")
    return results


def _cases(path: Path) -> Iterator[tuple[str, Any]]:
    """Each case with its place in the file."""
    try:
        packed = path.read_bytes()
        text = (gzip.decompress(packed) if packed[:2] == b"\x1f\x8b" else packed).decode()
    except (OSError, EOFError, zlib.error) as error:
        raise VectorError(f"{path}: it can't be read: {getattr(error, 'strerror', None) or error}") from error
    except UnicodeDecodeError as error:
        raise VectorError(f"{path}: it is no UTF-8 text: {error.reason} at byte {error.start}") from error
    if text.lstrip().startswith("{") and (whole := _parsed(text)) is not None and "vectors" in whole:
        if not isinstance(whole["vectors"], list):
            raise VectorError(f"{path}: vectors is a {type(whole['vectors']).__name__}; a list is needed")
        yield from ((f"case {number}", case) for number, case in enumerate(whole["vectors"], 1))
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            case = _parsed(line)
            if case is None:
                raise VectorError(f"{path}, line {number}: {line[:60]!r} is no JSON object")
            yield f"line {number}", case


def _parsed(text: str) -> Case | None:
    """The JSON object in ``text``; None if it is no object."""
    try:
        value = parsed(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _result(path: Path, place: str, case: Any) -> Result | None:
    """``case`` answered; None if it is of older releases. Raises VectorError."""
    if not isinstance(case, dict):
        raise VectorError(f"{path}, {place}: {str(case)[:60]!r} is no case; an object is needed")
    try:
        kind, name = case["kind"], str(case.get("id", place))
        if case.get("semantics") == "old":
            return None
        if kind in _VECTORS and "inputs" in case:
            return _answered(kind, name, _VECTORS[kind], case["inputs"], dict(case["expected"]))
        if kind in _DECISIONS:
            expected = {"replicas": case["expected"]}
            if "condition" in case:
                expected["condition"] = case["condition"]
            inputs = {key: value for key, value in case.items() if key not in ("id", "kind", "expected", "condition")}
            return _answered(kind, name, _DECISIONS[kind], inputs, expected)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ZeroDivisionError) as error:
        told = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise VectorError(f"{path}, {place}: it can't be taken for a case: {told}") from error
    known = ", ".join([*_VECTORS, *_DECISIONS])
    raise VectorError(f"{path}, {place}: kind {kind!r} is unknown; known are {known}")


def _answered(kind: str, name: str, ask: Callable[[Case], Case], inputs: Case, expected: Case) -> Result:
    try:
        got = ask(inputs)
    except UnknownError as error:
        # A random decision says null where the controller can't tell; a vector says with which words.
        got = {"replicas": None, "error": str(error)}
        if "error" in expected and expected["error"] in got["error"]:
            got["error"] = expected["error"]
    return Result(kind, name, inputs, expected, {key: got.get(key) for key in expected})


@click.command("vectors")
@click.argument("file", type=click.Path(path_type=Path))
def command(file: Path) -> None:
    """Compare the controller's model with FILE, decisions of the real one: how many agree, and the first that don't."""
    try:
        results = check(file)
    except VectorError as error:
        raise click.UsageError(str(error)) from error
    shown = console()
    shown.print(_table(results))
    wrong = [result for result in results if not result.agrees]
    for result in wrong[:_SHOWN]:
        shown.print(
            f"\n{result.kind} {result.name}\n  inputs   {json.dumps(result.inputs)}"
            f"\n  expected {json.dumps(result.expected)}\n  got      {json.dumps(result.got)}",
            soft_wrap=True,
        )
    if len(wrong) > _SHOWN:
        shown.print(f"\n{len(wrong) - _SHOWN} more do not agree.")
    raise SystemExit(1 if wrong else 0)


def _table(results: Sequence[Result]) -> Table:
    table = Table("kind")
    for column in ("cases", "agree"):
        table.add_column(column, justify="right")
    total = Counter(result.kind for result in results)
    agree = Counter(result.kind for result in results if result.agrees)
    for kind, count in total.items():
        table.add_row(kind, f"{count:,}", f"{agree[kind]:,}")
    table.add_section()
    table.add_row("all", f"{len(results):,}", f"{agree.total():,}")
    return table
