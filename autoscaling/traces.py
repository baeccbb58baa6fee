"""Traces: files of images counted in steps of time.

loadtests/traces.py reads requests a second instead: whole numbers, comments, and 0 where a second is missing.

trace = read(Path("my.csv"))                  # counts a step, one a line; or timestamp,count
prepared = prepare(trace, scale=10)           # autoscaling.gaps
prepared.load.offered                         # images in each second
"""

from __future__ import annotations

import bz2
import gzip
import math
import tarfile
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

DAY_S = 86400
# More seconds than these would not fit into the memory of a small machine.
MAX_SECONDS = 400 * DAY_S
# More images than these, in a step or a second, are a mistake; the draw of arrivals ends at 9e18.
MAX_COUNT = 1e12
_MILLISECONDS = 1e11
YEAR_2200 = 7_258_118_400
_ARCHIVES = (".tar", ".tbz2", ".tgz", ".tar.gz", ".tar.bz2")


class TraceError(ValueError):
    """A trace that can't be used; the message is one sentence that quotes the value."""


@dataclass(frozen=True)
class Trace:
    """Images in each of ``counts``' steps of ``step_s`` seconds: float64[n], NaN where a row is missing.

    ``start`` is the first step's Unix time; None where the file does not say.
    """

    counts: NDArray[np.float64]
    step_s: int
    start: float | None = None


def read(path: Path, step_s: int | None = None) -> Trace:
    """The trace in ``path``, which may be packed (.gz, .bz2, a .tar of one file).

    Text in one of two forms: counts, apart by white space, in steps of ``step_s`` (default 1); or lines of
    timestamp,count, the timestamp in Unix seconds, milliseconds or ISO 8601 (UTC where it names no zone). A first line
    of names is skipped. Raises TraceError.
    """
    text = _text(path)
    body = text.strip()
    if "," in body.split("\n", 2)[min(1, body.count("\n"))]:
        trace = _stamped(path, text, step_s)
    else:
        trace = Trace(_plain(path, text), step_s or 1)
    if len(trace.counts) < 2:
        raise TraceError(f"{path}: it holds {_values(len(trace.counts))}; a trace needs 2 or more")
    if not np.nansum(trace.counts) > 0:
        raise TraceError(f"{path}: all its {len(trace.counts)} values are 0; there is no traffic to plan for")
    if len(trace.counts) * trace.step_s > MAX_SECONDS:
        raise TraceError(
            f"{path}: {len(trace.counts)} steps of {trace.step_s} s are more than {MAX_SECONDS // DAY_S} days"
        )
    return trace


def _plain(path: Path, text: str) -> NDArray[np.float64]:
    """Counts separated by white space."""
    lines = text.splitlines()
    head = next((number for number, line in enumerate(lines) if line.strip()), 0)
    first = lines[head].split()[0] if lines else ""
    if first and not _is_number(first) and first[0] not in "0123456789+-.":
        lines[head] = ""
    try:
        counts = np.array("\n".join(lines).split(), np.float64)
        if (counts >= 0).all() and (counts <= MAX_COUNT).all():
            return counts
    except ValueError:
        pass
    for number, line in enumerate(lines, start=1):
        for word in line.split():
            _count(path, number, word)
    raise AssertionError("one of the counts is wrong")


def _stamped(path: Path, text: str, step_s: int | None) -> Trace:
    """Lines of timestamp,count."""
    times: list[float] = []
    counts: list[float] = []
    begun = False
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        fields = [field.strip().strip('"') for field in line.split(",")]
        if len(fields) != 2:
            raise TraceError(f"{path}, line {number}: {line[:60]!r} has {len(fields)} fields; timestamp,count has two")
        at = moment(fields[0])
        if at is None and not begun and not _is_number(fields[1]):
            begun = True
            continue
        begun = True
        if at is None:
            raise TraceError(f"{path}, line {number}: {fields[0][:40]!r} is no timestamp: Unix seconds or ISO 8601")
        if times and at <= times[-1]:
            how = "is there twice" if at == times[-1] else "is before the line above it"
            hint = f"; {line.strip()[:40]!r} as a count has no comma" if len(fields[1]) == 3 > len(fields[0]) else ""
            raise TraceError(f"{path}, line {number}: the timestamp {fields[0][:40]!r} {how}; they must rise{hint}")
        times.append(at)
        counts.append(_count(path, number, fields[1]))
    if len(times) < 2:
        raise TraceError(f"{path}: it holds {_values(len(times))}; a trace needs 2 or more")
    return _spaced(path, np.array(times), np.array(counts), step_s)


def _spaced(path: Path, times: NDArray[np.float64], counts: NDArray[np.float64], step_s: int | None) -> Trace:
    """Counts at ``times`` as even steps, NaN where one is missing."""
    apart = np.diff(times)
    often, times_seen = np.unique(np.round(apart), return_counts=True)
    usual = float(often[times_seen.argmax()])
    if step_s and usual >= 1 and step_s != usual:
        raise TraceError(
            f"{path}: --step-s {step_s} is not the {usual:g} s that its timestamps are apart; leave it out"
        )
    step = step_s or int(usual)
    places = (times - times[0]) / max(step, 1)
    wrong = np.flatnonzero(np.abs(places - np.round(places)) > 1e-3) if step >= 1 else np.array([1])
    if len(wrong):
        first, second = times[wrong[0] - 1], times[wrong[0]]
        raise TraceError(
            f"{path}: timestamps {first:.10g} and {second:.10g} are {second - first:g} s apart, no multiple of "
            f"the step of {step} s; whole seconds are needed"
        )
    if (places[-1] + 1) * step > MAX_SECONDS:
        raise TraceError(f"{path}: from {times[0]:.10g} to {times[-1]:.10g} are more than {MAX_SECONDS // DAY_S} days")
    if not 0 <= times[0] < YEAR_2200:
        raise TraceError(f"{path}: the timestamp {times[0]:.10g} is outside the years 1970 to 2199")
    steps = np.round(places).astype(np.int64)
    spaced = np.full(int(steps[-1]) + 1, np.nan)
    spaced[steps] = counts
    return Trace(spaced, step, float(times[0]))


def _values(number: int) -> str:
    return "1 value" if number == 1 else f"{number} values"


def moment(text: str) -> float | None:
    """The Unix time that ``text`` tells, in seconds, milliseconds or ISO 8601 (UTC without a zone); None if none."""
    if _is_number(text):
        value = float(text)
        return value / 1000 if value >= _MILLISECONDS else value
    try:
        told = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _count(path: Path, number: int, word: str) -> float:
    if not _is_number(word) or float(word) < 0:
        raise TraceError(f"{path}, line {number}: {word[:40]!r} is no count of images; a number of 0 or more is")
    if float(word) > MAX_COUNT:
        raise TraceError(f"{path}, line {number}: {word[:40]!r} images are too many; at most {MAX_COUNT:g} are allowed")
    return float(word)


def _text(path: Path) -> str:
    """The text of ``path``, unpacked."""
    try:
        if path.name.lower().endswith(_ARCHIVES):
            with tarfile.open(path) as archive:
                files = [member for member in archive if member.isfile()]
                if len(files) != 1:
                    raise TraceError(f"{path}: it holds {len(files)} files; a trace's archive holds one")
                stored = archive.extractfile(files[0])
                data = stored.read() if stored else b""
        else:
            data = path.read_bytes()
            unpack = {".gz": gzip.decompress, ".bz2": bz2.decompress}.get(path.suffix.lower())
            data = unpack(data) if unpack else data
        text = data.decode("utf-8-sig")
    except (OSError, tarfile.TarError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise TraceError(f"{path}: it can't be read as a trace: {error}") from None
    if not text.strip():
        raise TraceError(f"{path}: it is empty")
    return text
