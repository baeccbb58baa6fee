"""Temporary folders that a killed build leaves behind and the next one removes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# This file marks such a folder; a process that lives holds a lock on it.
MARK = ".scratch-of-model-build"


@contextlib.contextmanager
def folder(prefix: str, beside: Path | None = None, idle_s: float = 0.0) -> Iterator[Path]:
    """An empty folder whose name begins with ``prefix``, in ``beside`` or the temporary folder; removed at the end.

    It first removes folders that killed processes of this user have left there. A folder that was changed within
    ``idle_s`` seconds stays, because a network file system may not show the locks of other machines. Raises OSError.
    """
    parent = beside or Path(tempfile.gettempdir())
    for path in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            _clear(path, idle_s)
    while (made := _made(prefix, parent)) is None:
        pass
    path, descriptor = made
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def _made(prefix: str, parent: Path) -> tuple[Path, int] | None:
    """A new folder and the descriptor of its locked mark; None if another build has removed it meanwhile."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        descriptor = os.open(path / MARK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    _lock(descriptor)
    if (path / MARK).exists():  # until it was locked, it was nobody's
        return path, descriptor
    os.close(descriptor)
    return None


def _lock(descriptor: int) -> bool:
    """Lock the file until this process ends, in whatever way; False if another process holds a lock on it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _clear(path: Path, idle_s: float) -> None:
    found = path.lstat()
    if not path.is_dir() or path.is_symlink() or found.st_uid != os.getuid():
        return
    if time.time() - found.st_mtime < idle_s:
        return
    try:
        descriptor = os.open(path / MARK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return  # a folder of the user's own that is called alike
    try:
        if _lock(descriptor):
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)
