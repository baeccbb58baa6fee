"""A file is written so that its path holds at every moment either the old file or the new one, whole."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def write(path: Path, fill: Callable[[Path], object], *, alone: bool = False) -> None:
    """Have ``fill`` write a file beside ``path``, then put it in its place. Raises OSError and what ``fill`` does.

    ``alone``: no other process writes ``path`` meanwhile. Then the file beside it has a name of its own, and what a
    killed process has left there is overwritten.
    """
    beside = path.with_name(f".{path.name}.{'tmp' if alone else secrets.token_hex(4)}")
    try:
        fill(beside)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
