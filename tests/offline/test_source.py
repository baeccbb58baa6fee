"""The images to label: names that are shown, files that can't be read, lists."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from classifier.errors import ClassifierError
from model_build.listing import FolderError
from offline.source import Source, shown

HEAD = b"\xff\xd8\xff"


def test_the_output_in_the_folder_counts_as_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(HEAD)
    (tmp_path / "out.csv").write_text("rows")
    assert Source.open(tmp_path).skipped == "1 text"
    assert Source.open(tmp_path, (tmp_path / "out.csv",)).skipped == ""


def test_what_can_not_be_read_is_an_error_of_its_own(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "round.jpg").symlink_to(tmp_path / "round.jpg")
    (tmp_path / "good.jpg").write_bytes(HEAD)
    source = Source.open(tmp_path)
    assert source.names == ["good.jpg", "pipe.jpg", "round.jpg"]
    assert source.read("good.jpg", 3) == HEAD
    for name, code, words in (
        ("pipe.jpg", "unreadable_image", "no plain file"),
        ("round.jpg", "unreadable_image", "symbolic links"),
        ("good.jpg", "body_too_large", "3 bytes are more than the 2"),
    ):
        with pytest.raises(ClassifierError, match=words) as caught:
            source.read(name, 2)
        assert caught.value.code == code


def test_a_list_names_each_path_once_and_in_order(tmp_path: Path) -> None:
    listed = tmp_path / "list"
    listed.write_bytes(b"\xef\xbb\xbfz.jpg\r\n\na b.jpg\nz.jpg\n\xff.jpg")
    source = Source.open(listed)
    assert list(map(shown, source.names)) == ["a b.jpg", "z.jpg", "\\xff.jpg"]
    assert os.fsencode(source.names[-1]) == b"\xff.jpg"
    listed.write_bytes(b"\n")
    with pytest.raises(FolderError, match="holds no images"):
        Source.open(listed)
