"""The manifest that travels with every artifact: what its input, classes, origin and measured accuracy are."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from classifier.architectures import DEFAULT
from classifier.labels import Labels
from classifier.preprocessing import Preprocessing
from classifier.runtimes import RUNTIMES

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "manifest.json"
SCHEMA = 1


class ManifestError(Exception):
    """An artifact's folder is incomplete, damaged or of another version; the message names the file."""


@dataclass(frozen=True)
class Manifest:
    """What an artifact is.

    ``file``: the artifact's name in its folder; ``digest``: its sha256. ``preprocessing``: what makes an image
    ``uint8[N, S, S, 3]``; its fields stand among the others in the file. ``weights``: origin ("imagenet", "demo" or a
    file name) and digest. ``export``: versions and options of the exporter. ``gate``: the accuracy gate's figures.
    """

    runtime: str
    precision: str
    file: str
    digest: str
    preprocessing: Preprocessing
    labels: Labels
    weights: dict[str, str]
    export: dict[str, Any]
    gate: dict[str, Any]
    schema: int = SCHEMA

    @property
    def architecture(self) -> str:
        """The network's name in ``classifier.architectures``; manifests of a ResNet18 do not have it."""
        return str(self.export.get("network", {}).get("architecture", DEFAULT))

    def described(self) -> dict[str, Any]:
        """All that is done to an image, in front of the graph and inside it, for ``GET /model``.

        ``mean``, ``std``: of R, G, B for pixels of 0 to 1. ``channels``: the order the checkpoint was trained with,
        "RGB" or "BGR", or "grey" where it sees one channel; the artifact takes RGB in any case. ``upsample``: the side
        the graph enlarges S to, or None.
        """
        network = self.export.get("network", {})
        inside = {name: network.get(name) for name in ("mean", "std", "upsample")}
        grey = network.get("structure", {}).get("channels") == 1
        channels = "grey" if grey else "BGR" if network.get("bgr") else "RGB"
        return dataclasses.asdict(self.preprocessing) | inside | {"channels": channels}

    def save(self, folder: Path) -> None:
        """Write ``manifest.json`` into ``folder``."""
        data = dataclasses.asdict(self) | {"labels": self.labels.told()} | self.preprocessing.told()
        del data["preprocessing"]
        text = json.dumps(data, ensure_ascii=False, indent=1)
        (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8")


def read(folder: Path) -> Manifest:
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
        labels = Labels.parse(data.pop("labels"))
        fields = dataclasses.fields(Preprocessing)
        geometry = {field.name: data.pop(field.name) for field in fields if field.name in data}
        manifest = Manifest(labels=labels, preprocessing=Preprocessing(**geometry), **data)
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestError(f"{path} is not a manifest: {error}") from None
    kinds = {"runtime": str, "precision": str, "file": str, "digest": str}
    for name, kind in {**kinds, "weights": dict, "export": dict, "gate": dict}.items():
        if not isinstance(getattr(manifest, name), kind):
            raise ManifestError(f"{path} is not a manifest: {name} is {getattr(manifest, name)!r}")
    if manifest.runtime not in RUNTIMES:
        raise ManifestError(f"{path} has runtime {manifest.runtime!r}; this version has {', '.join(RUNTIMES)}")
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
