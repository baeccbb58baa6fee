"""Artifacts in the BentoML model store: what they are called, and which one the settings choose."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classifier import manifest as manifests
from classifier import runtimes
from classifier.architectures import ARCHITECTURES, DEFAULT
from runners import engines
from runners.devices import cpu_features

if TYPE_CHECKING:
    from classifier.manifest import Manifest
    from classifier.settings import Settings

HINT = "build it with: make model  (or: python -m model_build --help)"


class ArtifactError(Exception):
    """No artifact in the store is what the settings ask for, or it is damaged; the message says what to do."""


@dataclass(frozen=True)
class Artifact:
    """An artifact of the store: its tag, its folder and its manifest."""

    tag: str
    folder: Path
    manifest: Manifest


def store_name(runtime: str, precision: str, architecture: str = DEFAULT) -> str:
    """The model-store name of an artifact: ``resnet18-onnx-int8``, ``mobilenet_v2-onnx-int8``."""
    return f"{architecture}-{runtime}-{precision}"


def choose(settings: Settings, device: str, bento: Path | None = None) -> str:
    """The tag of the artifact to serve on ``device``; inside a bento, one of those that its ``bento.yaml`` names.

    ``RESNET18_MODEL`` names it outright. Otherwise the newest build of the runtime is taken, of any architecture, and
    of its artifacts the precision asked for; so ``auto`` never serves an older checkpoint, older labels, or what was
    judged more mildly, for the sake of a precision. Raises ArtifactError.
    """
    if settings.model is not None:
        return _named(settings.model, settings)
    found = newest_build(settings.runtime, _carried(bento))
    if not found:
        raise ArtifactError(f"the model store has no {settings.runtime} artifact of ResNet18; {HINT}")
    for precision in _preferred(settings, device):
        if precision in found:
            return found[precision]
    raise ArtifactError(
        f"RESNET18_PRECISION={settings.precision!r}: the store's newest {settings.runtime} build has only "
        f"{', '.join(sorted(found))}; --precisions {settings.precision} in that "
        "build's command builds it, or says why it can't be built (python -m model_build --help)"
    )


def _named(name: str, settings: Settings) -> str:
    """The tag of the model called ``name``. Raises ArtifactError if there is none, or other settings contradict it."""
    import bentoml

    try:
        model = bentoml.models.get(name)
    except (bentoml.exceptions.BentoMLException, ValueError) as error:
        raise ArtifactError(f"RESNET18_MODEL={name!r}: {error}; {HINT}") from None
    for setting in ("runtime", "precision"):
        asked, its = getattr(settings, setting), model.info.labels.get(setting)
        # The default runtime is asked for by nobody.
        if setting in settings.model_fields_set and its is not None and asked not in ("auto", its):
            raise ArtifactError(
                f"RESNET18_MODEL={name!r} is in {its}, and RESNET18_{setting.upper()}={asked!r} asks for another: "
                "unset one of them"
            )
    return str(model.tag)


def open_artifact(tag: str) -> Artifact:
    """The artifact of ``tag``, its manifest and digest checked. Raises ArtifactError."""
    import bentoml

    try:
        folder = Path(bentoml.models.get(tag).path)
        return Artifact(tag, folder, manifests.read(folder))
    except (bentoml.exceptions.BentoMLException, manifests.ManifestError) as error:
        raise ArtifactError(f"model {tag} can't be served: {error}; {HINT}") from None


def _carried(bento: Path | None) -> set[str] | None:
    """The tags of the models that a bento was built with, or None outside one."""
    if bento is None or not bento.is_file():
        return None
    import yaml

    info = yaml.safe_load(bento.read_text(encoding="utf-8"))
    return {model["tag"] for part in (info, *info.get("services", [])) for model in part.get("models", [])}


def newest_build(runtime: str, carried: set[str] | None = None) -> dict[str, str]:
    """Tags by precision of the newest build of ``runtime``, among ``carried`` where given. Raises ArtifactError."""
    import bentoml

    stored: list[Any] = []
    for architecture, precision in itertools.product(ARCHITECTURES, runtimes.PRECISIONS):
        try:
            stored += bentoml.models.list(store_name(runtime, precision, architecture))
        except bentoml.exceptions.NotFound:
            continue  # what BentoML says when nothing has that name
        except bentoml.exceptions.BentoMLException as error:
            raise ArtifactError(f"the model store is damaged: {error}; {HINT}") from None
    # Someone else's model of our name has not our labels.
    stored = [model for model in stored if {"precision", "checkpoint"} <= set(model.info.labels)]
    if carried is not None:
        stored = [model for model in stored if str(model.tag) in carried]
    stored.sort(key=lambda model: model.info.creation_time)
    if not stored:
        return {}
    newest = _build(stored[-1])
    return {model.info.labels["precision"]: str(model.tag) for model in stored if _build(model) == newest}


def _build(model: Any) -> str:
    labels: dict[str, str] = model.info.labels
    return labels.get("build", labels["checkpoint"])


def _preferred(settings: Settings, device: str) -> tuple[str, ...]:
    if settings.precision != "auto":
        return (settings.precision,)
    preferred = runtimes.find(settings.runtime).preferred(device, cpu_features())
    # Where none can be run, the engine's own sentence says why.
    runnable = [each for each in preferred if engines.runnable(settings.runtime, each, settings.engine)]
    return tuple(runnable) or preferred
