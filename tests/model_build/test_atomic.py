"""A file is the old one or the new one at every moment, and nothing is left beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from model_build import atomic

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("alone", [False, True])
def test_it_is_old_until_it_is_new(tmp_path: Path, alone: bool) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fill(beside: Path) -> None:
        beside.write_text("new")
        assert beside.parent == path.parent
        assert path.read_text() == "old"

    atomic.write(path, fill, alone=alone)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("torch's"), KeyboardInterrupt()]
)
def test_a_failure_leaves_the_old_one(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fill(beside: Path) -> None:
        beside.write_text("ne")
        raise error

    with pytest.raises(type(error)):
        atomic.write(path, fill)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def outer(beside: Path) -> None:
        beside.write_text("outer")
        atomic.write(path, lambda file: file.write_text("inner"))
        assert beside.read_text() == "outer"

    atomic.write(path, outer)
    assert path.read_text() == "outer"


def test_what_a_killed_process_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".file.tmp").write_text("of a killed process")
    atomic.write(tmp_path / "file", lambda file: file.write_text("new"), alone=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
