"""The output: a row an image, added to a file that a later run goes on with."""

from __future__ import annotations

import csv
import fcntl
import importlib.util
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from model_build import atomic

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIXES = (".csv", ".jsonl", ".parquet")
# Each column and its type in Parquet. ``label_zh`` is there if it is asked for.
COLUMNS = {
    "path": "string",
    "label": "string",
    "label_zh": "string",
    "class_id": "int32",
    "probability": "float32",
    "error": "string",
    "message": "string",
    "model": "string",
}
_JSON_START = b'{"path":'
_PARQUET_ROWS = 10_000


class OutputError(Exception):
    """The output can't be written, or is not this run's to go on with; the message quotes its path."""


@dataclass(frozen=True)
class Layout:
    """What rows hold. ``model``: the artifact's tag. ``top_k``: predictions of a row in JSON. ``chinese``: label_zh."""

    model: str
    top_k: int
    chinese: bool

    @property
    def columns(self) -> list[str]:
        """The columns of a table."""
        return [name for name in COLUMNS if name != "label_zh" or self.chinese]

    def flat(self, row: dict[str, Any]) -> dict[str, Any]:
        """The columns of a row: those of its first prediction and its warnings, or of its error."""
        error = row.get("error", {})
        message = error.get("message") or "; ".join(row.get("warnings", ())) or None
        values = {**row, **row.get("predictions", [{}])[0], "error": error.get("code"), "message": message}
        return {name: values.get(name) for name in self.columns}


class Output:
    """The file at ``path``, opened to be added to; its suffix is one of SUFFIXES.

    A Parquet file can't be added to: until ``finish``, its rows lie in a file of JSON lines beside it, ``PATH.part``.
    ``done``: the paths that have a row. ``failed``: how many of those rows are errors. A last row that is not whole is
    cut off. Raises OutputError.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path, self._layout = path, layout
        self._parquet, self._csv = path.suffix == ".parquet", path.suffix == ".csv"
        if self._parquet and path.exists():
            raise OutputError(f"{str(path)!r} exists, and a Parquet file can't be added to; remove it or name another")
        if self._parquet and importlib.util.find_spec("pyarrow") is None:
            raise OutputError(f"{str(path)!r} needs pyarrow, which is not installed; name a .csv or a .jsonl")
        self._rows = rows_of(path)
        self.done: set[str] = set()
        self.failed = 0
        self._header = _line(layout.columns) if self._csv else b""
        try:
            self._file = self._rows.open("a+b")
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            self._go_on()
        except BaseException:
            self._file.close()
            raise

    def encode(self, row: dict[str, Any]) -> bytes:
        """A row as it is written. Thread-safe."""
        if self._csv:
            return _line(list(self._layout.flat(row).values()))
        if not self._layout.chinese:
            for prediction in (*row.get("predictions", ()), *row.get("groups", ())):
                prediction.pop("label_zh", None)
        return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

    def write(self, rows: list[tuple[bytes, bool]]) -> None:
        """Add encoded rows, each with whether it is an error. Raises OutputError."""
        try:
            self._file.write(b"".join(row for row, _ in rows))
            self._file.flush()
        except OSError as error:
            raise self._unwritable(error) from None
        self.failed += sum(failed for _, failed in rows)

    def finish(self) -> None:
        """Make the Parquet file of the rows. Raises OutputError."""
        if not self._parquet:
            return
        try:
            atomic.write(self.path, self._convert)
            self._rows.unlink()
        except OSError as error:
            raise self._unwritable(error) from None

    def close(self) -> None:
        """Close the file, and so let others write it."""
        self._file.close()

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(f"{str(self._rows)!r} can't be written: {error.strerror or error}")

    def _go_on(self) -> None:
        """Take the lock, read what is there, and cut off what is not whole."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OutputError(f"{str(self._rows)!r} is being written by another run; wait for its end") from None
        self._file.seek(0)
        whole = 0
        for number, record in enumerate(_records(self._file, quoted=self._csv), start=1):
            if number == 1 and self._csv:
                self._check_header(record)
            else:
                self._take(number, record)
            whole += len(record)
        if not whole:
            self._file.seek(0)
            self._check_start(self._file.read(len(self._header) or len(_JSON_START)))
        self._file.truncate(whole)
        if not whole:
            self.write([(self._header, False)])

    def _check_start(self, start: bytes) -> None:
        """Refuse what has no whole line, unless it is the beginning of one of ours."""
        expected = self._header or _JSON_START
        if not expected.startswith(start) and not start.startswith(expected):
            raise self._foreign(1, start)

    def _check_header(self, record: bytes) -> None:
        if record != self._header:
            if record in (_line(Layout("", 1, chinese).columns) for chinese in (False, True)):
                raise self._chosen("--chinese")
            raise self._foreign(1, record)

    def _take(self, number: int, record: bytes) -> None:
        try:
            row = self._parse(record.decode())
            path, model, failed = row["path"], row["model"], bool(row.get("error"))
            predictions = row.get("predictions", [])
            languages = {"label_zh" in prediction for prediction in predictions}
        except (ValueError, KeyError, TypeError, AttributeError, csv.Error):
            raise self._foreign(number, record) from None
        if model != self._layout.model:
            raise OutputError(
                f"{str(self._rows)!r} was written by the model {model!r}, not by {self._layout.model!r}; "
                "name another file, or remove this one"
            )
        if not self._csv and not failed:
            if len(predictions) != self._layout.top_k:
                raise self._chosen("--top-k")
            if languages != {self._layout.chinese}:
                raise self._chosen("--chinese")
        self.done.add(path)
        self.failed += failed

    def _parse(self, text: str) -> dict[str, Any]:
        if not self._csv:
            row: dict[str, Any] = json.loads(text)
            return row
        return dict(zip(self._layout.columns, next(csv.reader([text], strict=True)), strict=True))

    def _chosen(self, option: str) -> OutputError:
        return OutputError(
            f"{str(self._rows)!r} was written with another choice of {option}; choose as then, or name another file"
        )

    def _foreign(self, number: int, record: bytes) -> OutputError:
        start = record[:40].decode("utf-8", "backslashreplace").rstrip()
        return OutputError(
            f"{str(self._rows)!r} is not by this command: line {number} begins {start!r}; name another file"
        )

    def _convert(self, path: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        types = {name: getattr(pyarrow, COLUMNS[name])() for name in self._layout.columns}
        schema = pyarrow.schema(list(types.items()))
        self._file.seek(0)
        with pyarrow.parquet.ParquetWriter(path, schema) as writer:
            rows: list[dict[str, Any]] = []
            for line in self._file:
                rows.append(self._layout.flat(json.loads(line)))
                if len(rows) == _PARQUET_ROWS:
                    writer.write_table(pyarrow.Table.from_pylist(rows, schema))
                    rows.clear()
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))


def rows_of(path: Path) -> Path:
    """The file in which the rows of an output lie until it is finished."""
    return path.with_name(f"{path.name}.part") if path.suffix == ".parquet" else path


def _line(values: list[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode()


def _records(file: IO[bytes], *, quoted: bool) -> Iterator[bytes]:
    """The whole records of a file, each with its end of line. ``quoted``: that quotes may hold ends of lines."""
    lines: list[bytes] = []
    quotes = 0
    for line in file:
        lines.append(line)
        quotes += quoted and line.count(b'"')
        if line.endswith(b"\n") and not quotes % 2:
            yield b"".join(lines)
            lines, quotes = [], 0
