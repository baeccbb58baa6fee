"""Artifacts into the BentoML model store, whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from classifier import manifest as manifests
from classifier import runtimes
from classifier.architectures import DEFAULT
from classifier.manifest import Manifest
from model_build import atomic, scratch
from runners import engines, telemetry
from runners.artifacts import store_name

if TYPE_CHECKING:
    from model_build.weights import Checkpoint

_STAGING = ".staging-"
_ABANDONED_S = 600


class StoreError(Exception):
    """The disk has no room for what is built; the message says which, and what to do."""


def version(checkpoint: Checkpoint, runtime: str, precision: str, options: dict[str, Any]) -> str:
    """The version of what would be built: equal for equal weights, labels, geometry, options and exporter."""
    geometry = checkpoint.preprocessing.told()
    sides = [geometry.pop("size"), geometry.pop("resize")]
    parts = {
        "checkpoint": checkpoint.digest,
        "labels": list(checkpoint.labels.told().values()),
        "origin": checkpoint.origin,
        "geometry": [*sides, checkpoint.upsample, checkpoint.mean, checkpoint.std, *geometry.items()],
        "artifact": [runtime, precision],
        "options": options,
        "libraries": libraries(runtime),
        "schema": manifests.SCHEMA,
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return f"{checkpoint.digest[:8]}-{digest[:8]}"


def build_id(manifest: Manifest) -> str:
    """A digest of weights, labels, geometry and gate. Artifacts with equal build ids are interchangeable.

    The precision and the libraries are not part of it: an artifact that is built later belongs to the same build.
    """
    options = {name: value for name, value in manifest.export.items() if name not in ("libraries", "calibration")}
    labels = list(manifest.labels.told().values())
    geometry = manifest.preprocessing.told()
    sides = [geometry.pop("size"), geometry.pop("resize")]
    parts = [manifest.weights["digest"], labels, *sides, options, *geometry.items()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def libraries(runtime: str) -> dict[str, str]:
    """Versions of what exports for ``runtime``, and of the other engines here, with which the gate judges, too."""
    found = runtimes.find(runtime)
    judging = [runtimes.ENGINES[name].package for name in found.engines[1:] if engines.installed(name)]
    return {name: importlib.metadata.version(name) for name in (*found.exporters, *judging)}


def registered(runtime: str, precision: str, version: str, architecture: str = DEFAULT) -> str | None:
    """The tag under which this version is in the store already and whole, or None; a damaged one is removed."""
    import bentoml
    from bentoml.exceptions import BentoMLException, NotFound

    name = store_name(runtime, precision, architecture)
    tag = f"{name}:{version}"
    try:
        model = bentoml.models.get(tag)
        manifests.read(Path(model.path))
    except NotFound:
        return None
    except (BentoMLException, manifests.ManifestError):
        shutil.rmtree(models() / tag.replace(":", "/"), ignore_errors=True)
        return None
    _point_latest(name, version, replace=False)
    return str(model.tag)


def check_room(needed: dict[Path, int]) -> None:
    """Raise StoreError if the disk of a folder has less than so many bytes free, those of others on it counted in.

    Exporters whose disk is full raise errors that don't say so, some of them minutes later.
    """
    of_disk: dict[int, int] = {}
    for folder, count in needed.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            disk, free = folder.stat().st_dev, shutil.disk_usage(folder).free
        except OSError as error:
            raise StoreError(f"{folder} can't be written: {error.strerror}") from None
        of_disk[disk] = of_disk.get(disk, 0) + count
        if free < of_disk[disk]:
            raise StoreError(
                f"{folder}: {free / 1e6:.1f} MB are free, the build needs {of_disk[disk] / 1e6:.1f} MB there"
            )


def renew(tag: str) -> None:
    """Make a registered artifact the newest, as if it had just been built."""
    import bentoml

    path = Path(bentoml.models.get(tag).path) / "model.yaml"
    info = yaml.safe_load(path.read_text(encoding="utf-8"))
    info["creation_time"] = datetime.now(UTC).isoformat()
    _write(path, yaml.safe_dump(info, sort_keys=False))
    name, _, version = tag.partition(":")
    _point_latest(name, version, replace=True)


def register(artifact: Path, manifest: Manifest, version: str) -> str:
    """Put ``artifact`` and its manifest into the store; its tag.

    BentoML copies into the store file by file, so a build killed meanwhile would leave half a model there. It fills
    a store of its own beside the real one instead, and one rename brings the whole model in. Raises StoreError.
    """
    name = store_name(manifest.runtime, manifest.precision, manifest.architecture)
    labels = {
        "runtime": manifest.runtime,
        "precision": manifest.precision,
        "weights": manifest.weights["origin"],
        "checkpoint": manifest.weights["digest"],
        "build": build_id(manifest),
    }
    final = models() / name / version
    try:
        _fill(artifact, manifest, final, labels)
        _point_latest(name, version, replace=True)
    except manifests.ManifestError as error:
        raise StoreError(f"{name} is not registered: {error}") from error
    except OSError as error:
        # Copying a whole folder, shutil gathers what failed and has no strerror of its own.
        reason = error.strerror or error
        raise StoreError(f"{name} is not registered, {final.parent} can't be written: {reason}") from error
    return f"{name}:{version}"


def _fill(artifact: Path, manifest: Manifest, final: Path, labels: dict[str, str]) -> None:
    """Make the model's folder ``final`` of the store."""
    import bentoml
    from bentoml._internal.models import ModelStore

    name, version = final.parent.name, final.name
    final.parent.mkdir(parents=True, exist_ok=True)
    with scratch.folder(_STAGING, models().parent, _ABANDONED_S) as staging:
        aside: Any = ModelStore(str(staging))
        telemetry.off()
        with bentoml.models.create(f"{name}:{version}", labels=labels, _model_store=aside) as model:
            shutil.copyfile(artifact, Path(model.path) / manifest.file)
            manifest.save(Path(model.path))
        # BentoML makes models readable by their owner alone, which a container's other user is not.
        (staging / name / version).chmod(0o755)
        try:
            (staging / name / version).rename(final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # A build of the same at the same time was quicker; what it has put there is what this one would.
            manifests.read(final)


def _point_latest(name: str, version: str, *, replace: bool) -> None:
    """Write the file by which BentoML knows the latest version; a build killed before this left it out."""
    path = models() / name / "latest"
    if replace or not path.is_file():
        _write(path, version)


def _write(path: Path, text: str) -> None:
    """Write a file that other users can read, as they can the models."""

    def fill(file: Path) -> None:
        file.write_text(text, encoding="utf-8")
        file.chmod(0o644)

    atomic.write(path, fill)


def models() -> Path:
    """The folder of the model store."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    return Path(BentoMLContainer.model_store_dir.get())
