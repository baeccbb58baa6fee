"""Photographs are JPEGs by name, and say where they come from."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from harness import photographs

if TYPE_CHECKING:
    from pathlib import Path


def test_without_a_folder_they_are_scikit_image_s_and_say_so() -> None:
    found = photographs.read(None)
    assert len(found.files) == 5 and list(found.files.values()) == found.bodies
    assert str(found).startswith("5 of scikit-image ")
    assert all(Image.open(io.BytesIO(body)).format == "JPEG" for body in found.bodies)


def test_a_folder_s_jpegs_are_read_and_the_folder_is_told(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.JPEG", "c.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    found = photographs.read(tmp_path)
    assert list(found.files) == ["a.JPEG", "b.jpg"]
    assert str(found) == f"2 of {tmp_path}"


def test_the_shared_ones_are_told_by_their_place_beside_the_repository(shared: Path) -> None:
    count = len(list((shared / "images" / "photos").glob("*.JPEG")))
    assert str(photographs.read()) == f"{count} of ../shared/images/photos"


def test_a_folder_without_any_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no \.jpg or \.jpeg file"):
        photographs.read(tmp_path)


def test_resized_ones_have_the_sizes_that_users_send() -> None:
    found = photographs.resized(photographs.read(None), each=1)
    assert [Image.open(io.BytesIO(body)).size for body in found.bodies] == list(photographs.SIZES)
    assert next(iter(found.files)) == "astronaut-1920x1080.jpg"
    assert str(found).startswith("4 of scikit-image ") and str(found).endswith(", resized")
