"""Traces of real traffic: files of requests counted per second.

autoscaling/traces.py reads images a step instead: fractions, dates, and a missing row is a gap, not a 0.
"""

from __future__ import annotations

import csv
import lzma
import math
import tarfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class TraceError(ValueError):
    """A trace that can't be read; the message names the file and the line."""


def read(path: Path, start: int = 0, seconds: int | None = None) -> list[int]:
    """Counts per second, from second ``start`` on, at most ``seconds`` of them.

    Text in one of two forms: counts separated by white space, or lines of ``timestamp,count`` (a timestamp in seconds;
    seconds that are missing count 0; a first line of names is skipped). ``#`` starts a comment. A ``.tar``, ``.tbz2``,
    ``.tgz`` or ``.tar.bz2`` holds one such file. Raises TraceError.
    """
    end = None if seconds is None else start + seconds
    counts: list[int] = []
    for count in _counts(path):
        counts.append(count)
        if end is not None and len(counts) == end:
            break
    if len(counts) <= start:
        raise TraceError(f"{path}: it holds {len(counts)} seconds, none of them from second {start} on")
    return counts[start:]


def scale(counts: Iterable[int], mean: float) -> list[float]:
    """Rates per second in the trace's shape, ``mean`` requests a second on average. Raises TraceError."""
    listed = list(counts)
    total = sum(listed)
    if not total:
        raise TraceError("the trace has no request in this part, so no rate can be scaled to")
    return [mean * count * len(listed) / total for count in listed]


def _counts(path: Path) -> Iterator[int]:
    lines = _lines(path)
    first = next(((number, line) for number, line in lines if line), None)
    if first is None:
        raise TraceError(f"{path}: it holds no counts")
    rest = _chain(first, lines)
    yield from (_stamped(path, rest) if "," in first[1] else _plain(path, rest))


def _chain(first: tuple[int, str], rest: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield first
    yield from rest


def _plain(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[int]:
    for number, line in lines:
        for word in line.split():
            yield _count(path, number, word)


def _stamped(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[int]:
    last: int | None = None
    for position, (number, line) in enumerate(lines):
        if not line:
            continue
        fields = next(csv.reader([line]))
        if len(fields) != 2:
            raise TraceError(f"{path}, line {number}: {line[:60]!r} has {len(fields)} fields; timestamp,count has two")
        try:
            second = math.floor(float(fields[0]))
        except (ValueError, OverflowError):
            if position == 0 and not fields[1].strip().isdecimal():
                continue  # names
            raise TraceError(f"{path}, line {number}: timestamp {fields[0][:40]!r} is no number of seconds") from None
        if last is not None and second <= last:
            raise TraceError(f"{path}, line {number}: timestamp {fields[0]!r} does not come after second {last}")
        for _ in range(0 if last is None else second - last - 1):
            yield 0
        last = second
        yield _count(path, number, fields[1].strip())


def _count(path: Path, number: int, word: str) -> int:
    if not (word.isascii() and word.isdecimal()):
        raise TraceError(f"{path}, line {number}: {word[:40]!r} is no count of requests; it must be a whole number")
    return int(word)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines without comments."""
    try:
        text = _text(path)
    except (OSError, tarfile.TarError, UnicodeDecodeError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise TraceError(f"{path}: it can't be read as a trace: {error}") from None
    for number, line in enumerate(text.splitlines(), start=1):
        yield number, line.partition("#")[0].strip()


def _text(path: Path) -> str:
    if not path.name.endswith((".tar", ".tbz2", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")):
        return path.read_text(encoding="utf-8-sig")
    with tarfile.open(path) as archive:
        files = [member for member in archive if member.isfile()]
        if len(files) != 1:
            raise TraceError(f"{path}: it holds {len(files)} files; a trace's archive holds one")
        stored = archive.extractfile(files[0])
        assert stored is not None, "a file has content"
        return stored.read().decode("utf-8-sig")
