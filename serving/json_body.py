"""A JSON body: its images are taken out of base64, and all else that it holds is small.

Python's parser would make a string of each image, and gigabytes of objects of a short hostile body. So long strings
and arrays of pixels stay bytes: the parser sees a mark in the place of each, and no more than ``MAX_REST_BYTES``.
"""

from __future__ import annotations

import binascii
import json
import re
import secrets
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from classifier.errors import ClassifierError
from serving import parameters
from serving.schema import UPLOADS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

MEDIA_TYPE = "application/json"
# Bytes of a body besides its long strings.
MAX_REST_BYTES = 65_536
# How many times as long as its images a body may be. Base64 takes four bytes for three; the rest is for line ends, and
# for the escapes that PHP and .NET write.
GROWTH = 1.5
# The key of TensorFlow Serving's row format, which both routes take.
INSTANCES = "instances"
_OF_FIELD = {upload.field: (path, upload.many) for path, upload in UPLOADS.items()}
# A string or an array that is no longer is left to Python's parser.
_SHORT = 256
_SHOWN = 40
_LONG = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|\[[0-9,\s\[\]]{%d,}+' % _SHORT, re.DOTALL)
_NUMBERS = re.compile(rb"(?:[0-9]{1,3},)*+[0-9]{1,3}")
# What no base64 holds, and what would make a string of more than a byte a character.
_WIDE = re.compile(rb"\\u(?!00[0-7])|[\x80-\xff]")
_URL = re.compile(rb"\s*[A-Za-z][A-Za-z0-9+.-]{0,20}://")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_BLANKS = b" \t\r\n"
_BRACKET = ord("[")
_MAX_UINT8 = 255


class Document:
    """A JSON body. ``value``: what it says, with a mark, a string, for each long string or array of numbers.

    Raises ClassifierError("bad_request") for what is no JSON, and for more than MAX_REST_BYTES besides those.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        # No client knows it, so no string of a body can pass for a mark.
        self._secret = secrets.token_hex(8)
        self._long: dict[str, tuple[int, int]] = {}
        rest = self._rest()
        try:
            self.value: Any = json.loads(rest, object_pairs_hook=_object, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else error
            begin = bytes(body[:_SHOWN]).decode("utf-8", "replace")
            raise ClassifierError(
                "bad_request", f"the body can't be read as JSON: {reason}; it begins with {begin!r}"
            ) from None

    def _rest(self) -> bytes:
        """The body with marks."""
        body, pieces, size, end = self._body, [], 0, 0
        for match in _LONG.finditer(body):
            size += match.start() - end
            start, stop = match.span()
            if body[start] == _BRACKET:
                # The array may be followed by what could stand in it.
                stop = 1 + body.rfind(b"]", start, stop)
                if body.count(b"[", start, stop) != body.count(b"]", start, stop):
                    continue
            if stop - start > _SHORT:
                mark = f"{self._secret}{len(self._long)}"
                self._long[mark] = start, stop
                pieces += [body[end:start], b'"%s"' % mark.encode()]
                end = stop
                size += len(pieces[-1])
            if size > MAX_REST_BYTES:
                break
        size = sum(map(len, pieces)) + len(body) - end
        if size > MAX_REST_BYTES:
            raise ClassifierError(
                "bad_request",
                f"the body's JSON has {size} bytes besides its images, over the limit of {MAX_REST_BYTES}",
                limit=MAX_REST_BYTES,
            )
        return b"".join((*pieces, body[end:]))

    def bytes_of(self, text: str) -> bytes | memoryview:
        """The bytes of ``text``, a string of ``value``."""
        if text not in self._long:
            return text.encode("utf-8", "replace")
        start, end = self._long[text]
        if self._body[start] == _BRACKET:
            return memoryview(self._body)[start:end]
        start, end = start + 1, end - 1
        piece = memoryview(self._body)[start:end]
        if self._body.find(b"\\", start, end) < 0 or _WIDE.search(piece):
            return piece
        try:
            plain: str = json.loads(b'"%s"' % piece, strict=False)
        except ValueError:  # what is escaped is no character
            return piece
        return plain.encode()

    def pixels_of(self, data: Any) -> NDArray[np.uint8] | None:
        """The whole numbers from 0 to 255 in ``data``, an array of ``value``, flat; None where it holds others."""
        text = self.bytes_of(data) if isinstance(data, str) else json.dumps(data).encode()
        plain = bytes(text).translate(None, b"[]" + _BLANKS)
        if bytes(text[:1]) != b"[" or not _NUMBERS.fullmatch(plain):
            return None
        numbers = np.fromstring(plain.decode(), np.int16, sep=",")
        return numbers.astype(np.uint8) if numbers.max() <= _MAX_UINT8 else None


def images(body: bytes, name: str, most: int, add: Callable[[int], None]) -> tuple[list[bytes], dict[str, list[str]]]:
    """The images of a JSON body, still encoded, and its parameters as text in the dict of fields.

    ``name``: the key of the route's images, which INSTANCES may stand for. ``most``: how many images are allowed.
    ``add`` is called with the bytes of each image, and may raise.

    Raises ClassifierError: ``bad_request`` or ``invalid_parameter``, with the ``index`` of the image at fault, or
    ``too_many_images``.
    """
    document = Document(body)
    keys = (name, INSTANCES)
    allowed = [*keys, *parameters.NAMES]
    if not isinstance(document.value, dict):
        what = f"the body is {_shown(document.value)}"
        raise ClassifierError("invalid_parameter", f"{what}; it must be {_example(name)}", allowed=allowed)
    for key in document.value:
        if key not in allowed:
            raise _unknown(key, name, allowed)
    given = [key for key in keys if key in document.value]
    if len(given) != 1:
        what = f"holds both {name!r} and {INSTANCES!r}" if given else f"has no key {name!r}"
        raise ClassifierError("bad_request", f"the body {what}; it must be {_example(name)}")
    (key,) = given
    values = document.value[key]
    many = key == INSTANCES or _OF_FIELD[name][1]
    if not many:
        values = [values]
    elif not isinstance(values, list) or not values:
        raise ClassifierError("invalid_parameter", f"{key!r} is {_shown(values)}; it must be {_example(name)}")
    if len(values) > most:
        raise ClassifierError(
            "too_many_images",
            f"{key!r} holds {len(values)} images, over the limit of {most}"
            + ("; send several to /classify_batch" if most == 1 else ""),
            limit=most,
        )
    found = []
    for index, value in enumerate(values):
        image = image_of(document, value, f"{key}[{index}]" if many else key, index)
        add(len(image))
        found.append(image)
    told = {parameter: document.value.get(parameter) for parameter in parameters.NAMES}
    return found, {parameter: [number_text(value)] for parameter, value in told.items() if value is not None}


def image_of(document: Document, value: Any, where: str, index: int) -> bytes:
    """The bytes of an image: a string of base64, a data URL, or either as the ``b64`` of an object."""
    if isinstance(value, dict) and list(value) == ["b64"]:
        value, where = value["b64"], f"{where}.b64"
    if not isinstance(value, str):
        raise ClassifierError(
            "invalid_parameter",
            f"{where} is {_shown(value)}; it must be the image itself as a string of base64",
            index=index,
        )
    text = document.bytes_of(value)
    begin = bytes(text[:_SHOWN]).decode("utf-8", "replace")
    if _URL.match(text):
        raise ClassifierError(
            "invalid_parameter",
            f"{where} is the URL {begin!r}; this server fetches nothing: send the image itself as base64",
            index=index,
        )
    if bytes(text[:5]).lower() == b"data:":
        head, comma, text = bytes(text).partition(b",")
        if not comma or not head.lower().endswith(b";base64"):
            raise ClassifierError(
                "bad_request", f"{where} is a data URL without ';base64,'; it begins with {begin!r}", index=index
            )
    try:
        return _decoded(text)
    except ValueError as error:
        raise ClassifierError(
            "bad_request",
            f"{where} is not base64 ({error}); it begins with {begin!r}. URLs and paths are never fetched",
            index=index,
        ) from None


def _decoded(text: bytes | memoryview) -> bytes:
    """The bytes of base64 with either alphabet (RFC 4648, 4 and 5), with or without its padding and line ends.

    Raises ValueError.
    """
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        plain = bytearray(text).translate(_URL_SAFE, _BLANKS)
        plain += b"=" * (-len(plain) % 4)
        return binascii.a2b_base64(plain, strict_mode=True)


def _unknown(key: str, name: str, allowed: list[str]) -> ClassifierError:
    if key in _OF_FIELD:
        what = f"the key {key!r} is of {_OF_FIELD[key][0]}"
    elif key.lower().endswith(("url", "uri")):
        what = f"the key {key[:100]!r} is refused, for this server fetches nothing: send the image itself as base64"
    else:
        what = f"there is no key {key[:100]!r}"
    return ClassifierError("invalid_parameter", f"{what}; the body must be {_example(name)}", allowed=allowed)


def _example(name: str) -> str:
    value = '["<base64>", …]' if _OF_FIELD[name][1] else '"<base64>"'
    return f'{{"{name}": {value}, "top_k": 3}}'


def number_text(value: Any) -> str:
    """A JSON number as the text of a field; what is no number as text that is no number."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else json.dumps(value)


def _shown(value: Any) -> str:
    # Half of a surrogate pair can be written in JSON, but not in the reply.
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice[:_SHOWN]!r} is there twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
