"""What a file of weights is by its content: what is read whatever it is called, and a sentence for all else."""

from __future__ import annotations

import gzip
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

from model_build.contents import recognise
from model_build.errors import FileError
from model_build.statedict import read
from tests.model_build.checkpoints import made

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL = {"a.weight": torch.arange(1000.0)}
NAMES = ("w.pth", "w.pth.tar", "w.bin", "w.ckpt", "W.PTH", "w", "w.safetensors", "w.onnx")


def said(path: Path) -> str:
    with pytest.raises(FileError) as raised:
        recognise(path)
    message = str(raised.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("kind", "save"),
    [
        ("zip", torch.save),
        ("legacy", lambda data, path: torch.save(data, path, _use_new_zipfile_serialization=False)),
        ("safetensors", save_file),
    ],
)
def test_the_content_decides(tmp_path: Path, name: str, kind: str, save: Callable[[Any, Path], None]) -> None:
    save(SMALL, tmp_path / name)
    assert recognise(tmp_path / name) == kind


@pytest.mark.parametrize("save", [torch.save, save_file], ids=["torch", "safetensors"])
@pytest.mark.parametrize("name", ["w", "w.safetensors", "w.pth"])
def test_it_is_read_whatever_it_is_called(tmp_path: Path, name: str, save: Callable[[Any, Path], None]) -> None:
    state = made(3)
    save(state, tmp_path / name)
    torch.testing.assert_close(read(tmp_path / name, None, print).state["fc.weight"], state["fc.weight"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "is a pointer of git-lfs"),
        (b"\n<!DOCTYPE html><html><title>Sign in</title>", "is an HTML page"),
        (b"\xef\xbb\xbf<HTML>", "is an HTML page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is an XML document"),
        (b"\x89HDF\r\n\x1a\n\0\0", "is an HDF5 file"),
        (b"\x1c\0\0\0TFL3\0\0", "is a TensorFlow Lite model"),
        (b"GGUF\x03\0\0\0", "is a GGUF file"),
        (b"\x89PNG\r\n\x1a\n", "is an image"),
        (gzip.compress(b"weights", mtime=0), "is a compressed archive: unpack it first"),
        (bytes(5000), "begins with 4096 zeros: a download that did not finish"),
        (b'{"weight_map": {}}', "is a text that begins with '{\"weight_map\": {}}'"),
        ("权重在别处".encode(), "is a text that begins with '权重在别处'"),
        (("权" * 2000).encode(), "is a text that begins with '权"),
        (bytes(range(200, 240)), "is of no kind that is known here: it begins with the bytes c8 c9 ca cb"),
        (b"\xff" * 64, "is of no kind that is known here"),
        (pickle.dumps({"fc.weight": 1}, 4), "is a pickle of protocol 4, not as torch.save writes it"),
        (pickle.dumps({"fc.weight": 1}, 2), "is a pickle of protocol 2, not as torch.save writes it"),
    ],
)
def test_what_is_no_weights_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    assert said(tmp_path / "w.pth").startswith(message)
    assert "torch.save(model.state_dict(), FILE) or safetensors" in said(tmp_path / "w.pth")


def test_torchscript(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "w.pt"))
    assert said(tmp_path / "w.pt").startswith("is a TorchScript model, which holds code beside its weights")


def test_torch_export(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt2", "w") as file:
        file.writestr("w/archive_format", "pt2")
    assert said(tmp_path / "w.pt2").startswith("is a program of torch.export")


@pytest.mark.parametrize("producer", ["pytorch", ""])
def test_onnx(tmp_path: Path, producer: str) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [value], [onnx.helper.make_tensor_value_info("y", 1, [1])])
    onnx.save(onnx.helper.make_model(graph, producer_name=producer), tmp_path / "w.pth")
    assert said(tmp_path / "w.pth").startswith("is an ONNX model, and the build makes its own")


def test_archives(tmp_path: Path) -> None:
    (tmp_path / "inner.safetensors").write_bytes(b"x")
    with tarfile.open(tmp_path / "w.pth.tar", "w") as tar:
        tar.add(tmp_path / "inner.safetensors", arcname="inner.safetensors")
    assert said(tmp_path / "w.pth.tar").startswith("is a tar archive: unpack it first")
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as file:
        file.write(tmp_path / "inner.safetensors", "inner.safetensors")
    assert said(tmp_path / "w.zip").startswith("is a zip of 1 files ('inner.safetensors'), not of torch.save")
    np.savez(tmp_path / "w.npz", weight=np.zeros(3))
    assert said(tmp_path / "w.npz").startswith("is a zip of 1 files ('weight.npy')")


def test_another_pickle_protocol(tmp_path: Path) -> None:
    torch.save(SMALL, tmp_path / "w.pth", pickle_protocol=4)
    assert said(tmp_path / "w.pth").startswith("was saved with pickle protocol 4, which can't be read as weights only")


class TestDamaged:
    """What a copy or download left."""

    @pytest.mark.parametrize("kept", [0.999, 0.5, 0.02])
    @pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
    def test_cut_short(self, tmp_path: Path, kind: str, kept: float) -> None:
        path, state = tmp_path / "w.pth", made(3)
        if kind == "safetensors":
            save_file(state, path)
        else:
            torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
        content = path.read_bytes()
        path.write_bytes(content[: round(len(content) * kept)])
        with pytest.raises(FileError, match="cut short or damaged"):
            read(path, None, print)

    def test_a_changed_bit(self, tmp_path: Path) -> None:
        """torch reads it without a word, for it looks at no checksum."""
        path = tmp_path / "w.pth"
        torch.save(made(3), path)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        assert torch.load(path, weights_only=True)
        assert "is damaged: the checksum of 'w/data/" in said(path)

    def test_a_zip_that_unpacks_to_much_more(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("w/data.pkl", b"\x80\x02.")
            file.writestr("w/data/0", bytes(1 << 20))
        size = (tmp_path / "w.pth").stat().st_size
        assert said(tmp_path / "w.pth").startswith(f"is a zip of {size} bytes that unpacks to {(1 << 20) + 3}, and at")

    def test_without_checksums(self, tmp_path: Path) -> None:
        torch.serialization.set_crc32_options(False)
        try:
            torch.save(SMALL, tmp_path / "w.pth")
        finally:
            torch.serialization.set_crc32_options(True)
        assert recognise(tmp_path / "w.pth") == "zip"
