"""The manifest that travels with every artifact: what its input, classes, origin and measured accuracy are."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from classifier.labels import Labels

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "manifest.json"
SCHEMA = 1
RUNTIMES = ("onnx", "torchscript")
PRECISIONS = ("fp32", "int8", "bf16", "fp16")


class ManifestError(Exception):
    """An artifact's folder is incomplete, damaged or of another version; the message names the file."""


@dataclass(frozen=True)
class Manifest:
    """What an artifact is.

    ``file``: the artifact's name in its folder; ``digest``: its sha256. ``size``: side S of ``uint8[N, S, S, 3]`` in
    pixels; ``resize``: the shorter side before the centre crop. ``weights``: origin ("imagenet", "demo" or a file
    name) and digest. ``export``: versions and options of the exporter. ``gate``: the accuracy gate's figures.
    """

    runtime: str
    precision: str
    file: str
    digest: str
    size: int
    resize: int
    labels: Labels
    weights: dict[str, str]
    export: dict[str, Any]
    gate: dict[str, Any]
    schema: int = SCHEMA

    def save(self, folder: Path) -> None:
        """Write ``manifest.json`` into ``folder``."""
        text = json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=1)
        (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8")


def load(folder: Path) -> Manifest:
    """The manifest of the artifact in ``folder``, checked against the file it describes. Raises ManifestError."""
    path = folder / FILE_NAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ManifestError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path} can't be read: {error}") from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        found = data.get("schema") if isinstance(data, dict) else None
        raise ManifestError(f"{path} has schema {found!r}; this version reads schema {SCHEMA}")
    try:
        names = data.pop("labels")
        zh = names["zh"]
        manifest = Manifest(labels=Labels(tuple(names["en"]), tuple(zh) if zh is not None else None), **data)
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestError(f"{path} is not a manifest: {error}") from None
    kinds = {"runtime": str, "precision": str, "file": str, "digest": str, "size": int, "resize": int}
    for name, kind in {**kinds, "weights": dict, "export": dict, "gate": dict}.items():
        if not isinstance(getattr(manifest, name), kind):
            raise ManifestError(f"{path} is not a manifest: {name} is {getattr(manifest, name)!r}")
    artifact = folder / manifest.file
    if not artifact.is_file():
        raise ManifestError(f"{artifact} is missing")
    if sha256(artifact) != manifest.digest:
        raise ManifestError(f"{artifact} is damaged: its sha256 is not the one in {FILE_NAME}")
    return manifest


def sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
