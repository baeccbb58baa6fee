"""Sources of weights: ImageNet's, the packaged demo, or the user's own file; each becomes a ``Checkpoint``."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from classifier.architectures import ARCHITECTURES, DEFAULT
from classifier.labels import Labels
from model_build import hub, layout, statedict
from model_build import metadata as _metadata
from model_build import preprocessing as _preprocessing
from model_build.errors import FileError
from model_build.label_text import LabelsError
from model_build.labels import from_extras, read_labels
from model_build.preprocessing import Given

if TYPE_CHECKING:
    from collections.abc import Callable

    from classifier.preprocessing import Preprocessing
    from model_build.preprocessing import Triple
    from model_build.statedict import StateDict

ASSETS = Path(__file__).parent / "assets"
DEMO_FILE = ASSETS / "resnet18-cifar10.safetensors"
IMAGENET_LABELS = ASSETS / "labels-imagenet.json"
DEMO_LABELS = ASSETS / "labels-cifar10.json"
# The usual suffixes of files of weights; none is needed.
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
NOTHING = Given()


class WeightsError(Exception):
    """The given weights can't be used; the message says why and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A network's weights, with all that serving them needs.

    ``state``: torchvision's state dict of ``architecture``, float32, for R, G, B. ``preprocessing``: from a photo to
    the square input of side S; ``upsample``: the side the graph enlarges S to, or None; ``mean``, ``std``: of R, G, B,
    for pixels of 0 to 1; ``bgr``: that the weights were of B, G, R in their file. ``digest``: sha256 over names, shapes
    and values, so that one set of weights in two files is the same. ``sources``: where each of the preprocessing comes
    from, by the names that ``preprocessing.line`` has.
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
    sources: dict[str, str] = field(default_factory=dict, compare=False)
    architecture: str = DEFAULT

    @property
    def classes(self) -> int:
        """C, the number of outputs."""
        return int(self.state[f"{layout.head(self.architecture)}.weight"].shape[0])


def find(
    weights: str,
    *,
    labels: Path | None = None,
    key: str | None = None,
    given: Given = NOTHING,
    notice: Callable[[str], None] = print,
    tell: Callable[[str], None] = print,
    architecture: str | None = None,
) -> Checkpoint:
    """The checkpoint that ``weights`` names: ``auto``, ``imagenet``, ``demo`` or a path.

    ``architecture`` None is the one whose keys the file has, else ResNet18. ``given`` overrides the preprocessing in
    the file. ``auto`` is ImageNet's weights if they are available, else the demo, and ``notice`` is told so. Of several
    sets of weights in a file the average is taken, or the one that ``key`` names; ``tell`` is told the choice, the
    rest, and how the file ``labels`` was read. Raises WeightsError, or LabelsError for that file.
    """
    if key is not None and weights in ("auto", "imagenet", "demo"):
        raise WeightsError(f"--key {key!r} chooses in a file of weights, and --weights {weights} is none")
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
        checkpoint = _from_file(Path(weights), key, given, tell, architecture)
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
    return _checkpoint(stored, "imagenet", read_labels(IMAGENET_LABELS), told or {}, given)


def _demo(given: Given) -> Checkpoint:
    stored = _read(DEMO_FILE)
    return _checkpoint(stored, "demo", read_labels(DEMO_LABELS), stored.metadata, given)


def _from_file(
    path: Path, key: str | None, given: Given, tell: Callable[[str], None], architecture: str | None
) -> Checkpoint:
    try:
        if path.is_dir():
            inside = sorted(file.name for file in path.iterdir() if file.suffix in SUFFIXES)
            found = f"; name the file in it: {', '.join(inside[:3])}" if inside else ""
            raise WeightsError(f"--weights {str(path)!r} is a directory, not a file{found}")
        if not path.is_file():
            raise WeightsError(f"--weights {str(path)!r} is not a file, nor one of auto, imagenet, demo")
    except OSError as error:
        raise WeightsError(f"--weights {str(path)!r} can't be read: {error.strerror}") from None
    name, stored = _name(path), _read(path, key, tell, architecture)
    head = f"{layout.head(stored.architecture)}.weight"
    classes = len(stored.state[head])
    if classes == 1:
        shape, classes = list(stored.state[head].shape), 2
        stored = replace(stored, state=_two_classes(stored))
        tell(
            f"{name} has one output ({head} {shape}), taken for a sigmoid's: it is served as two classes, the "
            "negative and then the positive, whose probability is that sigmoid"
        )
    told = stored.extras | stored.metadata
    try:
        labels = from_extras(told, classes)
    except LabelsError as error:
        raise WeightsError(f"{name}: {error}") from None
    published = hub.preprocessing(path, stored.architecture) if classes == 1000 else None
    if labels is None:
        labels = numbered(classes) if published is None else read_labels(IMAGENET_LABELS)
    # One number called mean is more likely a result than the mean of three channels.
    told = {entry: value for entry, value in told.items() if not (entry in ("mean", "std") and type(value) is float)}
    return _checkpoint(stored, name, labels, (published or {}) | told, given)


def _name(path: Path) -> str:
    """The file's name as printable text; a file system allows more."""
    return os.fsencode(path.name).decode("utf-8", errors="replace")


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
    state, head = stored.state, layout.head(stored.architecture)
    keys = (f"{head}.weight", f"{head}.bias")
    return state | {key: torch.cat([torch.zeros_like(state[key]), state[key]]) for key in keys}


def _checkpoint(weights: StateDict, origin: str, labels: Labels, metadata: dict[str, Any], given: Given) -> Checkpoint:
    state, architecture = weights.state, weights.architecture
    try:
        stored = _metadata.read(metadata)
    except ValueError as error:
        raise WeightsError(f"{origin}: its metadata can't be used: {error}") from None
    try:
        prepared = _preprocessing.resolve(given, stored)
    except ValueError as error:
        raise WeightsError(str(error) if str(error).startswith("--") else f"{origin}: {error}") from None
    if prepared["bgr"]:
        # Turned here once, so that nothing else needs to know: the service's pixels are R, G, B.
        stem = layout.stem(architecture)
        state[stem] = state[stem].flip(1)
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(f"{key}{tuple(state[key].shape)}".encode())
        digest.update(state[key].numpy().tobytes())
    return Checkpoint(
        state=state, origin=origin, labels=labels, digest=digest.hexdigest(), architecture=architecture, **prepared
    )
