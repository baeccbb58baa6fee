"""The manifest: what is saved is what is loaded, and every kind of damage names the file at fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from classifier import manifest as manifests
from classifier.labels import Groups, Labels
from classifier.manifest import FILE_NAME, SCHEMA, Manifest, ManifestError
from classifier.preprocessing import Preprocessing
from classifier.runtimes import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def folder(tmp_path: Path, manifest_of: Callable[..., Manifest]) -> Path:
    """An artifact's folder with a valid manifest."""
    artifact = tmp_path / "model.onnx"
    artifact.write_bytes(b"artifact")
    manifest_of(artifact).save(tmp_path)
    return tmp_path


def change(folder: Path, **fields: Any) -> None:
    """Replace fields of the manifest in ``folder``; None removes one."""
    path = folder / FILE_NAME
    data = json.loads(path.read_text(encoding="utf-8")) | fields
    path.write_text(json.dumps({name: value for name, value in data.items() if value is not None}), encoding="utf-8")


def test_saved_is_loaded(folder: Path, manifest_of: Callable[..., Manifest]) -> None:
    assert manifests.read(folder) == manifest_of(folder / "model.onnx")


def test_labels_without_chinese_names(folder: Path, manifest_of: Callable[..., Manifest]) -> None:
    manifest = manifest_of(folder / "model.onnx", labels=Labels(("a", "b", "c")))
    manifest.save(folder)
    loaded = manifests.read(folder)
    assert (loaded, loaded.labels.zh) == (manifest, None)


def test_labels_with_groups(folder: Path, manifest_of: Callable[..., Manifest]) -> None:
    groups = Groups(Labels(("pet", "wild")), (0, -1))
    manifest = manifest_of(folder / "model.onnx", labels=Labels(("cat", "dog"), groups=groups))
    manifest.save(folder)
    assert manifests.read(folder) == manifest
    change(folder, labels={"en": ["cat", "dog"], "zh": None, "groups": {"en": ["pet"], "zh": None, "of": [0, 1]}})
    with pytest.raises(ManifestError, match="a class is in a group that is none of the 1"):
        manifests.read(folder)


def test_preprocessing_stands_among_the_others(folder: Path, manifest_of: Callable[..., Manifest]) -> None:
    """What is usual is left out, so that versions of before read it, and refuse what they would serve wrongly."""
    names = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    assert (names["size"], names["resize"]) == (32, 36)
    assert not {"preprocessing", "squash", "interpolation", "antialias"} & set(names)
    unusual = Preprocessing(32, 40, squash=True, interpolation="lanczos")
    manifest_of(folder / "model.onnx", preprocessing=unusual).save(folder)
    names = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    assert (names["size"], names["resize"], names["squash"], names["interpolation"]) == (32, 40, True, "lanczos")
    assert manifests.read(folder).preprocessing == unusual


def test_what_is_told_of_preprocessing(folder: Path, manifest_of: Callable[..., Manifest]) -> None:
    network = {"upsample": 64, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    manifest = manifest_of(folder / "model.onnx", export={"network": network})
    geometry = {"size": 32, "resize": 36, "squash": False, "interpolation": "bilinear", "antialias": True}
    assert manifest.described() == geometry | network | {"channels": "RGB"}
    manifest = manifest_of(folder / "model.onnx", export={"network": network | {"bgr": True}})
    assert manifest.described()["channels"] == "BGR"


def test_file_is_readable_text(folder: Path) -> None:
    text = (folder / FILE_NAME).read_text(encoding="utf-8")
    assert "猫" in text
    assert text.endswith("}\n")
    assert json.loads(text)["schema"] == SCHEMA


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"manifest\.json is missing"):
        manifests.read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b'{"schema": 1'])
def test_not_json(folder: Path, content: bytes) -> None:
    (folder / FILE_NAME).write_bytes(content)
    with pytest.raises(ManifestError, match=r"manifest\.json can't be read"):
        manifests.read(folder)


@pytest.mark.parametrize(("content", "found"), [("[]", "None"), ("3", "None"), ("{}", "None"), ('{"schema": 2}', "2")])
def test_other_schema(folder: Path, content: str, found: str) -> None:
    (folder / FILE_NAME).write_text(content, encoding="utf-8")
    with pytest.raises(ManifestError, match=rf"manifest\.json has schema {found}; this version reads schema {SCHEMA}"):
        manifests.read(folder)


@pytest.mark.parametrize("field", ["runtime", "precision", "file", "digest", "size", "labels", "weights", "gate"])
def test_missing_field(folder: Path, field: str) -> None:
    change(folder, **{field: None})
    with pytest.raises(ManifestError, match=rf"manifest\.json is not a manifest: .*{field}"):
        manifests.read(folder)


@pytest.mark.parametrize(
    "fields",
    [
        {"surprise": 1},
        {"labels": {"en": ["a"], "zh": ["甲", "乙"]}},
        {"labels": {"en": ["a"]}},
        {"labels": {"en": [], "zh": []}},
        {"labels": ["a", "b"]},
        {"labels": {"en": 3, "zh": None}},
        {"file": 5},
        {"size": "32"},
        {"resize": 31},
        {"squash": "yes"},
        {"interpolation": "cubic"},
    ],
    ids=str,
)
def test_wrong_field(folder: Path, fields: dict[str, Any]) -> None:
    change(folder, **fields)
    with pytest.raises(ManifestError, match=r"manifest\.json"):
        manifests.read(folder)


def test_unknown_runtime(folder: Path) -> None:
    change(folder, runtime="tensorrt")
    with pytest.raises(ManifestError, match=rf"manifest\.json has runtime 'tensorrt'; .* has {', '.join(RUNTIMES)}$"):
        manifests.read(folder)


def test_artifact_missing(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    with pytest.raises(ManifestError, match=r"model\.onnx is missing"):
        manifests.read(folder)


@pytest.mark.parametrize("content", [b"artifacT", b"artifac", b"artifact+", b""])
def test_artifact_damaged(folder: Path, content: bytes) -> None:
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(ManifestError, match=r"model\.onnx is damaged: its sha256 is not the one in manifest\.json"):
        manifests.read(folder)


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    # FIPS 180-2's own example.
    assert manifests.sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
