"""A folder of output: what can't be written is told before the work; files are whole, and others stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoscaling import output
from autoscaling.output import OutputError


@pytest.mark.parametrize("name", ["file", "file/x", "a" * 300])
def test_where_no_file_can_be_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="can't be written: ") as caught:
        output.check(tmp_path / name)
    assert repr(str(tmp_path / name)) in str(caught.value)


def test_a_check_makes_nothing(tmp_path: Path) -> None:
    output.check(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_files_are_put_beside_others_and_a_failure_changes_none(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    output.put(out, lambda folder: (folder / "one").write_text("1"))
    (out / "mine").write_text("mine")

    def fill(folder: Path) -> None:
        (folder / "one").write_text("2")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        output.put(out, fill)
    assert {path.name: path.read_text() for path in out.iterdir()} == {"one": "1", "mine": "mine"}
    output.put(out, lambda folder: (folder / "one").write_text("3"))
    assert {path.name: path.read_text() for path in out.iterdir()} == {"one": "3", "mine": "mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
