"""The requests: photographs as raw bodies, multipart forms and batches, and bodies that are no images."""

from __future__ import annotations

import io
import os
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_BOUNDARY = "resnet18-load-test-boundary"
BATCH_IMAGES = 4
KINDS = ("raw", "multipart", "batch", "hostile")
# An environment variable, so that the key is in no command line and no report.
API_KEY = "LOADTEST_API_KEY"


@dataclass(frozen=True)
class Request:
    """One request, sent again and again. ``labels``: the idle server's label of each image; empty until asked."""

    name: str
    kind: str
    path: str
    content_type: str
    body: bytes
    images: int = 1
    labels: tuple[str, ...] = ()


def authorization() -> dict[str, str]:
    """The header with the key in API_KEY, for a service that asks for keys; empty without one."""
    key = os.environ.get(API_KEY)
    return {"Authorization": f"Bearer {key}"} if key else {}


def build(photos: Mapping[str, bytes], kinds: Iterable[str], hostile: Mapping[str, bytes]) -> list[Request]:
    """A request for every photo in every kind. A batch is a photo and those that follow it. Raises ValueError."""
    names = list(photos)
    out: list[Request] = []
    for kind in kinds:
        if kind == "raw":
            out += [Request(name, kind, "/classify", "image/jpeg", photos[name]) for name in names]
        elif kind == "multipart":
            out += [_multipart(name, kind, "/classify", "image", [photos[name]]) for name in names]
        elif kind == "batch":
            for at, name in enumerate(names):
                images = [photos[names[(at + step) % len(names)]] for step in range(BATCH_IMAGES)]
                out.append(_multipart(name, kind, "/classify_batch", "images", images))
        elif kind == "hostile":
            out += [Request(name, kind, "/classify", "image/jpeg", body) for name, body in hostile.items()]
        else:
            raise ValueError(f"requests of kind {kind!r} are unknown; there are {', '.join(KINDS)}")
    return out


def _multipart(name: str, kind: str, path: str, field: str, images: Sequence[bytes]) -> Request:
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{at}.jpg"\r\n'
        f"Content-Type: image/jpeg\r\n\r\n".encode()
        + image
        + b"\r\n"
        for at, image in enumerate(images)
    ]
    body = b"".join([*parts, f"--{_BOUNDARY}--\r\n".encode()])
    return Request(name, kind, path, f"multipart/form-data; boundary={_BOUNDARY}", body, len(images))


def broken(photo: bytes, seed: int = 0) -> dict[str, bytes]:
    """Bodies that are no images, or only the beginning of one: a server must answer each with a 4xx."""
    from PIL import Image

    noise = random.Random(seed)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG")
    png = buffer.getvalue()
    return {
        "truncated.jpg": photo[: len(photo) // 2],
        "header-only.jpg": photo[:20],
        "noise.jpg": noise.randbytes(20_000),
        "jpeg-then-noise.jpg": photo[:4] + noise.randbytes(20_000),
        "damaged.png": png[:40] + noise.randbytes(len(png) - 40),
        "empty.jpg": b"",
        "page.html.jpg": b"<!doctype html><title>not an image</title>" * 50,
        "zip.jpg": b"PK\x03\x04" + noise.randbytes(5_000),
    }


def folder(path: Path) -> dict[str, bytes]:
    """Every file of a folder by name, to be sent as hostile images. Raises ValueError."""
    files = {file.name: file.read_bytes() for file in sorted(path.iterdir()) if file.is_file()}
    if not files:
        raise ValueError(f"{str(path)!r} holds no files to send as hostile images")
    return files
