"""Where weights come from: ImageNet's, the packaged demo, or the user's own file; each becomes a ``Checkpoint``."""

from __future__ import annotations

import hashlib
import pickle
import re
import shutil
import socket
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from classifier.labels import Labels
from model_build import metadata as _metadata
from model_build import preprocessing as _preprocessing
from model_build import scratch
from model_build.label_text import LabelsError
from model_build.labels import from_extras, read_labels
from model_build.network import import_torchvision, resnet18
from model_build.preprocessing import Given

if TYPE_CHECKING:
    from collections.abc import Callable

    from classifier.preprocessing import Preprocessing
    from model_build.preprocessing import Triple

ASSETS = Path(__file__).parent / "assets"
DEMO_FILE = ASSETS / "resnet18-cifar10.safetensors"
IMAGENET_LABELS = ASSETS / "labels-imagenet.json"
DEMO_LABELS = ASSETS / "labels-cifar10.json"
HUB_TIMEOUT_S = 20.0
HUB_IDLE_S = 600.0
NOTHING = Given()


class WeightsError(Exception):
    """The weights asked for can't be used; the message says why and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A ResNet18's weights and what is needed to serve them.

    ``state``: torchvision's ResNet18 state dict, float32, for R, G, B. ``preprocessing``: what makes a photo the square
    input of side S; ``upsample``: the side the graph enlarges S to, or None; ``mean``, ``std``: of R, G, B, for pixels
    of 0 to 1; ``bgr``: that the weights were of B, G, R in their file. ``digest``: sha256 over names, shapes and
    values, so that one set of weights in two files is the same. ``sources``: where each of the preprocessing comes
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

    @property
    def classes(self) -> int:
        """C, the number of outputs."""
        return int(self.state["fc.weight"].shape[0])


def find(
    weights: str,
    *,
    labels: Path | None = None,
    given: Given = NOTHING,
    notice: Callable[[str], None] = print,
    tell: Callable[[str], None] = print,
) -> Checkpoint:
    """The checkpoint that ``weights`` names: ``auto``, ``imagenet``, ``demo`` or a path.

    What ``given`` tells of its preprocessing goes before what its file tells. ``auto`` is ImageNet's where they can be
    had, else the demo, told through ``notice``; ``tell`` is told how the file ``labels`` was read. Raises WeightsError,
    or LabelsError for that file.
    """
    if weights == "auto":
        try:
            checkpoint = _imagenet(given)
        except WeightsError as error:
            notice(f"{error}\n\nThe packaged demo checkpoint (CIFAR-10: 10 classes, 32 px) is used instead.")
            checkpoint = _demo(given)
    elif weights == "imagenet":
        checkpoint = _imagenet(given)
    elif weights == "demo":
        checkpoint = _demo(given)
    else:
        checkpoint = _from_file(Path(weights), given)
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


def _imagenet(given: Given) -> Checkpoint:
    import_torchvision()
    from torchvision.models import ResNet18_Weights

    url = ResNet18_Weights.IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    prefix = path.stem.rsplit("-", 1)[1]
    try:
        if not path.is_file():
            _download(url, path, prefix)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(f"ImageNet's weights at {path} can't be read: {error.strerror}") from None
    if not digest.startswith(prefix):
        raise WeightsError(
            f"{path} is damaged: its sha256 starts with {digest[:8]!r}, not {prefix!r}; delete it and run this again"
        )
    return _checkpoint(_load(path), "imagenet", read_labels(IMAGENET_LABELS), {}, given)


def _download(url: str, path: Path, prefix: str) -> None:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(HUB_TIMEOUT_S)  # torch.hub passes none, and a silent hub would hang the build
    try:
        # First aside, so that a machine that reaches no hub gets no empty cache folder in its home.
        with scratch.folder("resnet18-hub-") as aside:
            file = aside / path.name
            torch.hub.download_url_to_file(url, str(file), hash_prefix=prefix, progress=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            # Another build must not see half of it, nor this one if it is killed.
            with scratch.folder(".resnet18-hub-", path.parent, HUB_IDLE_S) as beside:
                shutil.copyfile(file, beside / path.name)
                (beside / path.name).replace(path)
    # OSError: no hub; HTTPException and ValueError: something that is none; RuntimeError: another hash than ours.
    except (OSError, HTTPException, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"ImageNet's weights can't be downloaded ({error}).\n"
            f"To serve them, fetch {url.rsplit('/', 1)[1]} (45 MB) from {url} on a machine that can, "
            f"and place it at {path}"
        ) from None
    finally:
        socket.setdefaulttimeout(before)


def _demo(given: Given) -> Checkpoint:
    state, metadata = _load_safetensors(DEMO_FILE)
    return _checkpoint(state, "demo", read_labels(DEMO_LABELS), metadata, given)


def _from_file(path: Path, given: Given) -> Checkpoint:
    try:
        if not path.is_file():
            raise WeightsError(f"--weights {str(path)!r} is not a file, nor one of auto, imagenet, demo")
        with path.open("rb"):
            pass
    except OSError as error:
        raise WeightsError(f"--weights {str(path)!r} can't be read: {error.strerror}") from None
    if path.suffix == ".safetensors":
        state, metadata = _load_safetensors(path)
    elif path.suffix in (".pth", ".pt"):
        state, metadata = _load(path), {}
    else:
        raise WeightsError(f"--weights {path.name!r}: the suffix must be .pth, .pt or .safetensors")
    state = _fitting(state, path.name)
    classes = state["fc.weight"].shape[0]
    try:
        labels = from_extras(metadata, classes)
    except LabelsError as error:
        raise WeightsError(f"{path.name}: {error}") from None
    if labels is None and classes == 1000:
        labels = read_labels(IMAGENET_LABELS)
    elif labels is None:
        labels = Labels(tuple(f"class {index}" for index in range(classes)))
    return _checkpoint(state, path.name, labels, metadata, given)


def first_line(error: Exception) -> str:
    """What ``error`` says, in a line; where it says nothing, what it is called."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _load(path: Path) -> dict[str, Any]:
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own words recommend to load it all the same, which would run whatever it holds.
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None:
            raise WeightsError(f"{path.name} can't be loaded as weights only: it is no file of torch.save") from None
        raise WeightsError(
            f"{path.name} holds more than tensors ({found[1]}) and is not loaded, because that could run any code; "
            "save just the weights: torch.save(model.state_dict(), ...) or a .safetensors"
        ) from None
    except Exception as error:  # torch raises its own, pickle's and zip's errors here, without a common base
        raise WeightsError(f"{path.name} can't be loaded as weights only: {first_line(error)}") from None
    for wrapper in ("state_dict", "model"):
        if isinstance(data, dict) and isinstance(data.get(wrapper), dict):
            data = data[wrapper]
    if not isinstance(data, dict):
        raise WeightsError(f"{path.name} holds a {type(data).__name__}, not a state dict")
    return data


def _load_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise WeightsError(f"{path.name} can't be read as safetensors: {error}") from None


def _fitting(state: dict[str, Any], name: str) -> dict[str, torch.Tensor]:
    """``state`` as a float32 ResNet18 state dict without wrappers' prefixes; WeightsError on the first misfit."""
    state = {str(key).removeprefix("module."): value for key, value in state.items()}
    head = state.get("fc.weight")
    if not isinstance(head, torch.Tensor) or head.ndim != 2:
        raise WeightsError(f"{name} is no ResNet18: 'fc.weight' is missing or not a matrix")
    with torch.device("meta"):
        expected = {key: tuple(value.shape) for key, value in resnet18(head.shape[0]).state_dict().items()}
    counters = {key for key in expected if key.endswith("num_batches_tracked")}
    for key, shape in expected.items():
        if key in counters:
            continue
        value = state.get(key)
        if not isinstance(value, torch.Tensor):
            raise WeightsError(f"{name} is no ResNet18: {key!r} is missing")
        if tuple(value.shape) != shape:
            raise WeightsError(f"{name} is no ResNet18: {key!r} has shape {tuple(value.shape)}, expected {shape}")
        if not bool(torch.isfinite(value).all()):
            raise WeightsError(f"{name}: {key!r} holds values that are not finite")
    for key in state:
        if key not in expected:
            raise WeightsError(f"{name} is no ResNet18: {key!r} is not one of its keys")
    return {key: state[key].detach().to(torch.float32) for key in expected if key not in counters}


def _checkpoint(
    state: dict[str, Any], origin: str, labels: Labels, metadata: dict[str, str], given: Given
) -> Checkpoint:
    state = _fitting(state, origin)
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
        state["conv1.weight"] = state["conv1.weight"].flip(1)
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(f"{key}{tuple(state[key].shape)}".encode())
        digest.update(state[key].numpy().tobytes())
    return Checkpoint(state=state, origin=origin, labels=labels, digest=digest.hexdigest(), **prepared)
