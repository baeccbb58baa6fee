"""Weights in several files with an index: all of them are read, and the index is never followed elsewhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from model_build.shards import index
from model_build.weights import WeightsError, find
from tests.model_build.checkpoints import made, saved

if TYPE_CHECKING:
    from pathlib import Path

STATE = made(3)


@pytest.fixture
def split(tmp_path: Path) -> dict[str, str]:
    """The index of STATE in two files of ``tmp_path``, which it is written into."""
    suffix = ".bin"
    names = [f"pytorch_model-0000{number}-of-00002{suffix}" for number in (1, 2)]
    places = {key: names[key.startswith(("layer4", "fc"))] for key in STATE}
    for name in names:
        saved(tmp_path / name, {key: STATE[key].clone() for key, place in places.items() if place == name})
    write(tmp_path, places)
    return places


def write(folder: Path, places: Any) -> str:
    path = folder / "pytorch_model.bin.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return str(path)


def said(path: str) -> str:
    with pytest.raises(WeightsError) as raised:
        find(path)
    return str(raised.value)


def test_all_are_read(tmp_path: Path, split: dict[str, str]) -> None:
    whole = find(saved(tmp_path / "whole.pth", STATE))
    (tmp_path / "whole.pth").unlink()
    assert find(write(tmp_path, split)).digest == whole.digest
    assert find(str(tmp_path)).digest == whole.digest


def test_safetensors(tmp_path: Path) -> None:
    name = "model-00001-of-00001.safetensors"
    saved(tmp_path / name, STATE)
    checkpoint = find(write(tmp_path, dict.fromkeys(STATE, name)))
    assert torch.equal(checkpoint.state["fc.bias"], STATE["fc.bias"])


def test_what_does_not_fit(tmp_path: Path, split: dict[str, str]) -> None:
    first, second = dict.fromkeys(split.values())
    start = "pytorch_model.bin.index.json is an index"
    assert said(write(tmp_path, split | {"odd": first})) == (
        f"{start} that does not fit its file '{first}': 'odd' is in one of them only"
    )
    fewer = {key: place for key, place in split.items() if key != "fc.bias"}
    assert said(write(tmp_path, fewer)) == (
        f"{start} that does not fit its file '{second}': 'fc.bias' is in one of them only"
    )
    (tmp_path / second).write_bytes(b"")
    assert said(write(tmp_path, split)).startswith(f"{start} of files, of which '{second}' is empty")
    (tmp_path / second).unlink()
    assert said(write(tmp_path, split)) == f"{start} that names '{second}', and that file is not beside it"


@pytest.mark.parametrize("name", ["../w.pth", "/etc/passwd", "a/b", "..", "", "a\\b"])
def test_it_names_files_beside_it_only(tmp_path: Path, name: str) -> None:
    assert "expected files beside it, by their names alone" in said(write(tmp_path, {"fc.weight": name}))


@pytest.mark.parametrize("places", [{}, [], {"a": 1}])
def test_it_names_no_files(tmp_path: Path, places: Any) -> None:
    assert "is an index without files" in said(write(tmp_path, places))


def test_other_files_are_no_index(tmp_path: Path) -> None:
    for content in (b"", b"{", b'{"a": 1}', b"[1]", b"PK\x03\x04"):
        (tmp_path / "w").write_bytes(content)
        assert index(tmp_path / "w") is None
