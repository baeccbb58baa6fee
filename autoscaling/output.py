"""A folder of output: whether it takes files is known before the work, and its files are whole at every moment.

model_build/atomic.py does the same for a file of a model; neither package may import the other.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class OutputError(ValueError):
    """A folder that can't be written; the message is one sentence that quotes it."""


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """What the system refuses meanwhile is told of --out. Raises OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"--out {str(out)!r} can't be written: {error.strerror or error}") from None


def check(out: Path) -> None:
    """Raise OutputError if no file can be written into ``out``. It is not made."""
    with writing(out), _scratch(out):
        pass


def put(out: Path, fill: Callable[[Path], object]) -> None:
    """Have ``fill`` write files into a folder, then move each into ``out``. Other files there stay. Raises OSError."""
    with _scratch(out) as fresh:
        fill(fresh)
        out.mkdir(parents=True, exist_ok=True)
        for file in sorted(fresh.iterdir()):
            file.replace(out / file.name)


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A temporary folder in ``out``, or in the nearest folder above it: from there, files can be renamed into it."""
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    with tempfile.TemporaryDirectory(prefix=".new-", dir=there) as folder:
        yield Path(folder)
