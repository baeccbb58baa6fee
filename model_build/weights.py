"""Sources of weights: ImageNet's, the packaged demo, or the user's own file; each becomes a ``Checkpoint``."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from classifier.architectures import ARCHITECTURES, DEFAULT
from classifier.labels import Labels
from model_build import hub, layout, repositories, statedict
from model_build import metadata as _metadata
from model_build import preprocessing as _preprocessing
from model_build import structure as _structure
from model_build.errors import FileError
from model_build.label_text import LabelsError
from model_build.labels import from_extras, read_labels
from model_build.preprocessing import SIZE, Given
from model_build.structure import CHOICES, SMALL, TORCHVISION, Choice, Structure

if TYPE_CHECKING:
    from collections.abc import Callable

    from classifier.preprocessing import Preprocessing
    from model_build.preprocessing import Triple
    from model_build.statedict import StateDict

ASSETS = Path(__file__).parent / "assets"
DEMO_FILE = ASSETS / "resnet18-cifar10.safetensors"
IMAGENET_LABELS = ASSETS / "labels-imagenet.json"
DEMO_LABELS = ASSETS / "labels-cifar10.json"
NOTHING, UNTOLD = Given(), Choice()


class WeightsError(Exception):
    """The given weights can't be used; the message says why and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A network's weights, with all that serving them needs.

    ``state``: the state dict of ``architecture``, a ResNet18's with ``structure``, by torchvision's names, float32, for
    R, G, B. ``preprocessing``: from a photo to the square input of side S; ``upsample``: the side the graph enlarges S
    to, or None; ``mean``, ``std``: of R, G, B, for pixels of 0 to 1; ``bgr``: that the weights were of B, G, R in their
    file. ``digest``: sha256 over names, shapes, values and structure, so that one set of weights in two files is the
    same. ``sources``: where each of the preprocessing comes from, by the names that ``preprocessing.line`` has.
    """

    state: dict[str, torch.Tensor]
    origin: str
    labels: Labels
    preprocessing: Preprocessing
    upsample: int | None
    mean: Triple
    std: Triple
    digest: str
    bgr: bool = False
    structure: Structure = TORCHVISION
    sources: dict[str, str] = field(default_factory=dict, compare=False)
    architecture: str = DEFAULT

    @property
    def classes(self) -> int:
        """C, the number of outputs."""
        return int(self.state[f"{layout.output(self.architecture, self.structure)}.weight"].shape[0])


def find(
    weights: str,
    *,
    labels: Path | None = None,
    key: str | None = None,
    given: Given = NOTHING,
    choice: Choice = UNTOLD,
    notice: Callable[[str], None] = print,
    tell: Callable[[str], None] = print,
    architecture: str | None = None,
) -> Checkpoint:
    """The checkpoint that ``weights`` names: ``auto``, ``imagenet``, ``demo`` or a path.

    ``architecture`` None is the one whose keys the file has, else ResNet18. ``given`` overrides the preprocessing in
    the file, ``choice`` what is assumed of a ResNet18's structure. ``auto`` is ImageNet's weights if they are
    available, else the demo, and ``notice`` is told so. Of several sets of weights in a file the average is taken, or
    the one that ``key`` names; ``tell`` is told the choice, the rest, what is assumed, and how the file ``labels`` was
    read. Raises WeightsError, or LabelsError for that file.
    """
    if key is not None and weights in ("auto", "imagenet", "demo"):
        raise WeightsError(f"--key {key!r} chooses in a file of weights, and --weights {weights} is none")
    if choice != UNTOLD and weights in ("auto", "imagenet", "demo"):
        raise WeightsError(f"{CHOICES} tell what a file of weights doesn't, and --weights {weights} is none")
    named = architecture or DEFAULT
    if weights == "auto":
        try:
            checkpoint = _imagenet(given, named)
        except WeightsError as error:
            if named != DEFAULT:
                raise
            notice(f"{error}\n\nThe packaged demo checkpoint (CIFAR-10: 10 classes, 32 px) is used instead.")
            checkpoint = _demo(given)
    elif weights == "imagenet":
        checkpoint = _imagenet(given, named)
    elif weights == "demo":
        if named != DEFAULT:
            raise WeightsError(
                f"--arch {named}: the packaged demo is a {ARCHITECTURES[DEFAULT]}; take --weights imagenet or a file"
            )
        checkpoint = _demo(given)
    else:
        checkpoint = _from_file(Path(weights), key, given, choice, tell, architecture)
        if choice != UNTOLD and checkpoint.architecture != DEFAULT:
            raise WeightsError(
                f"{CHOICES} are of a {ARCHITECTURES[DEFAULT]}, and {checkpoint.origin} is a "
                f"{ARCHITECTURES[checkpoint.architecture]}"
            )
        if architecture is None and checkpoint.architecture != DEFAULT:
            tell(f"{checkpoint.origin} has the keys of {ARCHITECTURES[checkpoint.architecture]}, and is taken for that")
    if labels is not None:
        checkpoint = replace(
            checkpoint, labels=read_labels(labels, checkpoint.classes, known=checkpoint.labels.en, notice=tell)
        )
    if len(checkpoint.labels.en) != checkpoint.classes:
        raise WeightsError(
            f"{labels or checkpoint.origin} holds {len(checkpoint.labels.en)} labels, but the checkpoint has "
            f"{checkpoint.classes} classes; they must be equal"
        )
    return checkpoint


def numbered(classes: int) -> Labels:
    """The labels of ``classes`` classes without known names."""
    return Labels(tuple(f"class {index}" for index in range(classes)))


def _imagenet(given: Given, architecture: str) -> Checkpoint:
    try:
        path = hub.imagenet(architecture)
    except hub.HubError as error:
        raise WeightsError(str(error)) from None
    stored, told = _read(path, architecture=architecture), hub.preprocessing(path, architecture)
    stored = replace(stored, extras=(told or {}) | stored.extras)
    return _checkpoint(stored, "imagenet", read_labels(IMAGENET_LABELS), given)


def _demo(given: Given) -> Checkpoint:
    stored = _read(DEMO_FILE)
    return _checkpoint(stored, "demo", read_labels(DEMO_LABELS), given)


def _from_file(
    path: Path,
    key: str | None,
    given: Given,
    choice: Choice,
    tell: Callable[[str], None],
    architecture: str | None,
) -> Checkpoint:
    name, beside = _name(path), {}
    try:
        if path.is_dir():
            beside, path = repositories.told(path), repositories.weights(path, lambda text: tell(f"{name} {text}"))
        elif not path.is_file():
            raise WeightsError(f"--weights {str(path)!r} is not a file or folder, nor one of auto, imagenet, demo")
        elif left := [other for other in repositories.FILES if path.with_name(other).is_file()]:
            tell(f"{name} alone is read; what {' and '.join(left)} beside it say is not: give the folder for that")
    except FileError as error:
        raise WeightsError(f"{name} {error}") from None
    except OSError as error:
        raise WeightsError(f"--weights {str(path)!r} can't be read: {error.strerror}") from None
    stored = _read(path, key, tell, architecture)
    stored = replace(stored, extras=beside | stored.extras)
    output = layout.output(stored.architecture, stored.structure)
    last = stored.state[f"{output}.weight"]
    if len(last) == 1:
        stored = replace(stored, state=_two_classes(stored))
        tell(
            f"{name} has one output ({output}.weight {list(last.shape)}), taken for a sigmoid's: it is served as two "
            "classes, the negative and then the positive, whose probability is that sigmoid"
        )
    classes = max(2, len(last))
    try:
        labels = from_extras(stored.told(), classes)
    except LabelsError as error:
        raise WeightsError(f"{name}: {error}") from None
    published = hub.preprocessing(path, stored.architecture) if classes == 1000 else None
    if labels is None:
        labels = numbered(classes) if published is None else read_labels(IMAGENET_LABELS)
    stored = replace(stored, extras=(published or {}) | stored.extras)
    return _checkpoint(stored, name, labels, given, choice, lambda text: tell(f"{name} {text}"))


def _name(path: Path) -> str:
    """The file's name as printable text; a file system allows more."""
    return os.fsencode(path.name or path.resolve().name).decode("utf-8", errors="replace")


def _read(
    path: Path, key: str | None = None, tell: Callable[[str], None] = print, architecture: str | None = None
) -> StateDict:
    try:
        return statedict.read(path, key, lambda text: tell(f"{_name(path)} {text}"), architecture)
    except FileError as error:
        raise WeightsError(f"{_name(path)} {error}") from None
    except OSError as error:
        raise WeightsError(f"--weights {str(path)!r} can't be read: {error.strerror}") from None


def _two_classes(stored: StateDict) -> dict[str, torch.Tensor]:
    """A head of one logit z as two of 0 and z, so that softmax gives 1 - sigmoid(z) and sigmoid(z)."""
    output = layout.output(stored.architecture, stored.structure)
    last = [f"{output}.{name}" for name in ("weight", "bias")]
    return stored.state | {key: torch.cat([torch.zeros_like(stored.state[key]), stored.state[key]]) for key in last}


def _checkpoint(
    stored: StateDict,
    origin: str,
    labels: Labels,
    given: Given,
    choice: Choice = UNTOLD,
    notice: Callable[[str], None] = print,
) -> Checkpoint:
    """The checkpoint of what a file holds. ``notice`` is told what is assumed, without the file's name."""
    state, architecture = stored.state, stored.architecture
    found, small = stored.structure, stored.structure.kernel == 3
    try:
        told, chosen = _metadata.read(stored.told()), _structure.read(stored.told())
    except ValueError as error:
        raise WeightsError(f"{origin}: its metadata can't be used: {error}") from None
    try:
        found = _structure.decide(found, choice, chosen, notice)
        prepared = _preprocessing.resolve(given, told, SMALL if small else SIZE, grey=found.channels == 1)
    except ValueError as error:
        raise WeightsError(str(error) if str(error).startswith("--") else f"{origin}: {error}") from None
    if small and given.size is None and told.size is None:
        notice(f"has that stem, and nothing tells its images' size: {SMALL} pixels are assumed; --size says otherwise")
    if prepared["bgr"]:
        # Turned here once, so that nothing else needs to know: the service's pixels are R, G, B.
        stem = layout.stem(architecture)
        state[stem] = state[stem].flip(1)
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(f"{key}{tuple(state[key].shape)}".encode())
        digest.update(state[key].numpy().tobytes())
    if told_apart := found.told():
        digest.update(json.dumps(told_apart, sort_keys=True).encode())
    return Checkpoint(
        state=state,
        origin=origin,
        labels=labels,
        digest=digest.hexdigest(),
        structure=found,
        architecture=architecture,
        **prepared,
    )
