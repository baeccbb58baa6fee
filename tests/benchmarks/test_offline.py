"""The benchmark of `python -m offline`: its folder of links, and what it reads of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest

from benchmarks import offline

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from PIL.Image import Image


def test_a_photo_that_comes_again_is_a_link(tmp_path: Path) -> None:
    offline.fill(tmp_path, [b"first", b"second"], 5)
    files = sorted(tmp_path.iterdir())
    assert [file.read_bytes() for file in files] == [b"first", b"second", b"first", b"second", b"first"]
    assert [file.stat().st_nlink for file in files] == [3, 2, 3, 2, 3]


def test_a_folder_is_labelled_and_its_memory_read(
    store: Path, photograph: Callable[[int, int], Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "READING_SECONDS", 0.2)
    (tmp_path / "photos").mkdir()
    photograph(640, 480).save(tmp_path / "one.jpg")
    offline.fill(tmp_path / "photos", [(tmp_path / "one.jpg").read_bytes()], 600)
    rate, readings, _ = offline.label(tmp_path / "photos", store, tmp_path / "out.csv")
    assert rate > 1
    assert all(reading["pss_mb"] > 20 for reading in readings)
    assert offline._rows(tmp_path / "out.csv") == 601


def test_a_run_that_fails_is_told(store: Path, tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match=r"offline ended with status 2: (?s:.*)no such place"):
        offline.label(tmp_path / "no such place", store, tmp_path / "out.csv")
