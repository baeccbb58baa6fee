"""Temporary folders: gone at the end, and those of the killed gone at the next build, but nobody else's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from model_build import scratch

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys, time
from pathlib import Path
from model_build import scratch
with scratch.folder("resnet18-build-", Path(sys.argv[1])) as path:
    (path / "model.onnx").write_bytes(b"half")
    print(path, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another build, in the middle of it, and its folder."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def test_it_is_empty_and_gone_at_the_end(tmp_path: Path) -> None:
    with scratch.folder("a-", tmp_path) as path:
        assert path.parent == tmp_path
        assert [file.name for file in path.iterdir()] == [scratch.MARK]
        (path / "deep").mkdir()
        (path / "deep" / "file").touch()
    assert list(tmp_path.iterdir()) == []


def test_an_error_inside_is_handed_on(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="inside"), scratch.folder("a-", tmp_path):
        raise FileNotFoundError("inside")
    assert list(tmp_path.iterdir()) == []


def test_it_lies_where_temporary_files_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch.folder("a-") as path:
        assert path.parent == tmp_path


def test_what_the_killed_left_is_cleared_and_what_the_living_hold_is_not(
    tmp_path: Path, other: tuple[subprocess.Popen[str], Path]
) -> None:
    process, left = other
    with scratch.folder("resnet18-build-", tmp_path):
        assert (left / "model.onnx").exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert left.exists()
    with scratch.folder("resnet18-hub-", tmp_path):
        assert left.exists(), "it is of another kind"
    with scratch.folder("resnet18-build-", tmp_path, idle_s=600):
        assert left.exists(), "it may be of another machine, whose locks are not seen here"
    os.utime(left, (time.time() - 3600,) * 2)
    with scratch.folder("resnet18-build-", tmp_path, idle_s=600):
        assert not left.exists()


def test_what_is_only_called_alike_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, elsewhere = tmp_path / "resnet18-build-results", tmp_path / "elsewhere"
    for folder in (own, elsewhere):
        folder.mkdir()
        (folder / "file").touch()
    (elsewhere / scratch.MARK).touch()
    (tmp_path / "resnet18-build-link").symlink_to(elsewhere)
    (tmp_path / "resnet18-build-file").touch()
    strangers = tmp_path / "resnet18-build-strangers"
    strangers.mkdir()
    (strangers / scratch.MARK).touch()
    before = sorted(tmp_path.rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: os.geteuid() + 1)  # all there is belongs to another user now
        with scratch.folder("resnet18-build-", tmp_path):
            pass
    assert sorted(tmp_path.rglob("*")) == before
    with scratch.folder("resnet18-build-", tmp_path):
        pass
    assert sorted(tmp_path.rglob("*")) == [path for path in before if strangers not in (path, path.parent)]


def test_a_folder_that_is_cleared_before_it_is_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, times = scratch._lock, 0

    def late(descriptor: int) -> bool:
        nonlocal times
        times += 1
        if times == 1:  # another build was quicker
            (mark,) = tmp_path.glob(f"*/{scratch.MARK}")
            mark.unlink()
            mark.parent.rmdir()
        return lock(descriptor)

    monkeypatch.setattr(scratch, "_lock", late)
    with scratch.folder("a-", tmp_path) as path:
        assert path.is_dir()
    assert times == 2
