"""ImageNet's weights as torchvision publishes them: the torch hub's file, from its cache or downloaded."""

from __future__ import annotations

import shutil
import socket
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch

from classifier.architectures import DEFAULT
from classifier.manifest import sha256
from model_build import scratch
from model_build.network import import_torchvision
from model_build.preprocessing import SIZE, default_resize

HUB_TIMEOUT_S = 20.0
HUB_IDLE_S = 600.0
# The sha256 of torchvision's two files of ResNet18's IMAGENET1K_V1: today's resnet18-f37072fd.pth, and
# resnet18-5c106cde.pth, the same values as versions before 0.9 fetched them.
IMAGENET_FILES = frozenset(
    {
        "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
        "5c106cde386e87d4033832f2996f5493238eda96ccf559d1d62760c4de0613f8",
    }
)


class HubError(Exception):
    """ImageNet's weights are not available; the message says why, and where to put them."""


def published(architecture: str) -> list[Any]:
    """Torchvision's sets of ImageNet's weights for an architecture, the recommended one first."""
    import_torchvision()
    from torchvision.models import get_model_weights

    sets = get_model_weights(architecture)
    return sorted(sets, key=lambda one: one is not sets.DEFAULT)


def imagenet(architecture: str = DEFAULT) -> Path:
    """The hub's file of an architecture's recommended weights, downloaded if it isn't in the cache. Raises HubError."""
    entry = published(architecture)[0]
    url: str = entry.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    prefix = path.stem.rsplit("-", 1)[1]
    try:
        if not path.is_file():
            _download(url, path, prefix, round(entry.meta["_file_size"]))
        digest = sha256(path)
    except OSError as error:
        raise HubError(f"ImageNet's weights at {path} can't be read: {error.strerror}") from None
    if not digest.startswith(prefix):
        raise HubError(
            f"{path} is damaged: its sha256 starts with {digest[:8]!r}, not {prefix!r}; delete it and run this again"
        )
    return path


def preprocessing(path: Path, architecture: str) -> dict[str, Any] | None:
    """The preprocessing of torchvision's own file of ImageNet at ``path``, as a file's metadata names it.

    None for another file. A file is known under any name, by its sha256: a ResNet18's by all of it, others' by the
    first digits, which torchvision publishes in the name. Empty where it is what every checkpoint has by default.
    """
    digest = sha256(path)
    if architecture == DEFAULT:
        return {} if digest in IMAGENET_FILES else None
    for entry in published(architecture):
        if digest.startswith(Path(entry.url).stem.rsplit("-", 1)[1]):
            view = entry.transforms()
            told = {"input_size": view.crop_size[0], "resize": view.resize_size[0]}
            told["interpolation"] = view.interpolation.value
            usual = {"input_size": SIZE, "resize": default_resize(SIZE), "interpolation": "bilinear"}
            return {} if told == usual else told
    return None


def _download(url: str, path: Path, prefix: str, megabytes: int) -> None:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(HUB_TIMEOUT_S)  # torch.hub passes none, and a silent hub would hang the build
    try:
        # First into another folder: without a hub, no empty cache folder is to stay in the home.
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
        raise HubError(
            f"ImageNet's weights can't be downloaded ({error}).\n"
            f"To serve them, fetch {url.rsplit('/', 1)[1]} ({megabytes} MB) from {url} on a machine that can, "
            f"and place it at {path}"
        ) from None
    finally:
        socket.setdefaulttimeout(before)
