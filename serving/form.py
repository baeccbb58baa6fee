"""The form that another BentoML service sends when it calls this one by ``bentoml.depends``, encoded in its process."""

from __future__ import annotations

import inspect
import io
import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bentoml.exceptions import InvalidArgument
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterable

# The modes of Pillow that PNG has; images of others travel as TIFF. Neither loses anything.
_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_REQUIRED = inspect.Parameter.empty


class Form:
    """What BentoML's client asks of an input model, but encoded as multipart whatever type the client would send.

    ``files``: by field, one image or several. ``texts``: by field, what is not None.
    """

    # BentoML would otherwise build the form itself, of paths alone, or pickle it.
    multipart_fields = ()

    def __init__(self, files: dict[str, list[Any]], texts: dict[str, Any]) -> None:
        boundary = secrets.token_hex(16)
        self._type = f"multipart/form-data; boundary={boundary}"
        parts = [
            (f'name="{name}"; filename="{number}"', _bytes_of(value, name))
            for name, values in files.items()
            for number, value in enumerate(values)
        ]
        parts += [(f'name="{name}"', json.dumps(value).encode()) for name, value in texts.items() if value is not None]
        pieces = []
        for disposition, content in parts:
            head = f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n"
            pieces += [head.encode(), content, b"\r\n"]
        self._body = b"".join((*pieces, f"--{boundary}--\r\n".encode()))

    def model_dump(self) -> bytes:
        """The body."""
        return self._body

    def mime_type(self) -> str:
        """Its Content-Type."""
        return self._type


def bind(names: Iterable[str], required: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, None where one was left out; ``required`` must be given.

    Raises TypeError in Python's own words.
    """
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind, default=_REQUIRED if name == required else None) for name in names]
    bound = inspect.Signature(parameters).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


def _bytes_of(image: Any, name: str) -> bytes:
    """The encoded image that a Path, an open binary file, bytes or an image of Pillow is.

    Raises InvalidArgument for all else, and OSError for a path that can't be read.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, Path):
        return image.read_bytes()
    if isinstance(image, Image.Image):
        buffer = io.BytesIO()
        image.save(buffer, "PNG" if image.mode in _PNG else "TIFF", exif=image.getexif())
        return buffer.getvalue()
    if hasattr(image, "read"):
        content = image.read()
        if isinstance(content, bytes):
            return content
        raise InvalidArgument(f"{name!r} is the file {image!r}, which was opened as text; open it with mode 'rb'")
    if isinstance(image, str):
        raise InvalidArgument(
            f"{name!r} is the text {image[:100]!r}; URLs are never fetched, and a path must be a pathlib.Path"
        )
    raise InvalidArgument(
        f"{name!r} is a {type(image).__name__}; it must be a Path, an open binary file, bytes or an image of Pillow"
    )
