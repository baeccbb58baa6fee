"""A multipart body is split into files and text fields as it arrives, within bounds that are known beforehand."""

from __future__ import annotations

import logging
import re
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from classifier import formats
from classifier.errors import ClassifierError
from serving.parameters import NAMES
from serving.schema import UPLOADS

# python_multipart logs each body that it can't parse: strangers could fill the log.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)

# The field that holds the files of a request, by any of its names, and the route that takes it.
ENDPOINTS = {field: path for path, upload in UPLOADS.items() for field in (upload.field, *upload.aliases)}
MAX_FIELD_BYTES = 1024
# Bytes of a file that tell whether it is text.
_HEAD = 100
_ENCODED = (b"base64", b"quoted-printable")


class Form:
    """The files in the field ``name``, at most ``images``, and the text fields of a body that is written in pieces.

    The field may have any of its aliases as its name.

    Raises ClassifierError from ``write`` and ``finish``: ``bad_request``, ``invalid_parameter``, ``too_many_images`` or
    ``unsupported_encoding``.
    """

    def __init__(self, boundary: bytes, name: str, *, images: int, fields: int, header_bytes: int) -> None:
        # The parts don't refer to the parser: in a reference cycle, bodies would stay until the garbage collector runs.
        self._parts = _Parts(name, images, fields, header_bytes)
        self._max_preamble = header_bytes
        self._delimiter = b"--" + boundary
        # The bytes before the first delimiter; None once the delimiter has come.
        self._preamble: bytes | None = b""
        try:
            self._parser = MultipartParser(boundary, self._parts.callbacks())
        except FormParserError as error:
            raise _unparsed(error) from None

    @property
    def images(self) -> list[bytes]:
        """The files, still encoded, in order."""
        return self._parts.images

    @property
    def fields(self) -> dict[str, list[str]]:
        """The values of each text field, in order."""
        return self._parts.fields

    def write(self, data: bytes) -> None:
        """Parse ``data``, which follows what was written before."""
        if self._preamble is not None:
            data = self._after_preamble(self._preamble + data)
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _unparsed(error) from None

    def finish(self) -> None:
        """Check that the body is whole."""
        if self._preamble is not None:
            raise ClassifierError("bad_request", f"the multipart body has no line {self._line()}")
        if not self._parts.complete:
            raise ClassifierError("bad_request", "the multipart body ends before its closing boundary")

    def _after_preamble(self, data: bytes) -> bytes:
        """``data`` from its first delimiter on; empty while there is none. RFC 2046, 5.1.1: a preamble is ignored.

        The parser itself accepts neither a preamble nor blanks after the first delimiter.
        """
        limit, size = self._max_preamble, len(self._delimiter)
        if data.startswith(self._delimiter + b"\r\n"):
            self._preamble = None
            return data
        delimiter = re.compile(rb"(?:\A|\r\n)%s[ \t]*(?=\r\n|--)" % re.escape(self._delimiter))
        # Bytes beyond the limit are not looked at, so the answer is the same however the body is cut.
        found = delimiter.search(data, 0, limit + size)
        if found is not None:
            self._preamble = None
            return self._delimiter + data[found.end() :]
        if len(data) >= limit + size:
            message = f"the multipart body has no line {self._line()} in its first {limit} bytes"
            raise ClassifierError("bad_request", message, limit=limit)
        self._preamble = data
        return b""

    def _line(self) -> str:
        return f"{self._delimiter[:100].decode('latin-1')!r}, the boundary of its Content-Type, that ends in CR and LF"


class _Parts:
    """Collects the parts of a multipart body as the parser meets them."""

    def __init__(self, name: str, images: int, fields: int, header_bytes: int) -> None:
        self.images: list[bytes] = []
        self.fields: dict[str, list[str]] = {}
        self.complete = False
        self._name, self._max_images, self._max_fields, self._max_header_bytes = name, images, fields, header_bytes
        self._names = (name, *UPLOADS[ENDPOINTS[name]].aliases)
        self._text_fields = 0

    def callbacks(self) -> Any:
        """The functions that the parser calls, by event."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._header, self._value, self._header_bytes = b"", b"", 0
        self._disposition, self._encoding = b"", b""
        self._chunks: list[bytes] = []
        self._bytes = 0

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]
        self._count_header(end - start)

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._count_header(end - start)

    def _count_header(self, count: int) -> None:
        self._header_bytes += count
        limit = self._max_header_bytes
        if self._header_bytes > limit:
            raise ClassifierError("bad_request", f"a part's headers are over {limit} bytes", limit=limit)

    def _header_end(self) -> None:
        name = self._header.lower()
        if name == b"content-disposition":
            self._disposition = self._value
        elif name == b"content-transfer-encoding":
            self._encoding = self._value.strip().lower()
        self._header, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._field = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = self._field in self._names
        self._named = b"filename" in options
        if self._is_file:
            if len(self.images) == self._max_images:
                raise self._too_many()
        elif self._field not in NAMES:
            raise self._unknown()
        elif self._named:
            raise ClassifierError("invalid_parameter", f"field {self._field!r} is a file, and takes text only")
        if self._encoding in _ENCODED:
            raise ClassifierError(
                "unsupported_encoding",
                f"field {self._field!r} has the Content-Transfer-Encoding {self._encoding.decode()!r}, which is not "
                "decoded here; send the bytes as they are",
            )
        self._text_fields += not self._is_file
        if self._text_fields > self._max_fields:
            limit = self._max_fields
            raise ClassifierError("bad_request", f"the body has more than {limit} text fields", limit=limit)

    def _too_many(self) -> ClassifierError:
        if self._name == "image":
            message = "/classify takes one image; send several to /classify_batch, each as a file field 'images'"
        else:
            message = f"the request holds more than {self._max_images} image(s)"
        return ClassifierError("too_many_images", message, limit=self._max_images)

    def _unknown(self) -> ClassifierError:
        here, there = ENDPOINTS[self._name], ENDPOINTS.get(self._field)
        if not self._field:
            what = "a part of the body has no name"
        elif there:
            what = f"field {self._field!r} is of {there}"
        else:
            what = f"there is no field {self._field[:100]!r}"
        files = "any number of files" if UPLOADS[here].many else "one file"
        names = " and ".join(map(repr, NAMES))
        return ClassifierError(
            "invalid_parameter",
            f"{what}; {here} takes {files} in field {self._name!r}, and text in {names}",
            allowed=[*self._names, *NAMES],
        )

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._bytes += end - start
        if not self._is_file and self._bytes > MAX_FIELD_BYTES:
            raise ClassifierError(
                "invalid_parameter", f"field {self._field!r} is over {MAX_FIELD_BYTES} bytes", limit=MAX_FIELD_BYTES
            )
        self._chunks.append(data[start:end])

    def _end(self) -> None:
        content = b"".join(self._chunks)
        if not self._is_file:
            self.fields.setdefault(self._field, []).append(content.decode("utf-8", "replace"))
        elif not self._named and (text := text_of(content)) is not None:
            raise ClassifierError(
                "invalid_parameter",
                f"field {self._field!r} holds the text {text!r} in the place of a file; URLs and paths are never "
                f"fetched, so send the image itself: curl -F {self._field}=@photo.jpg",
            )
        else:
            self.images.append(content)

    def _finish(self) -> None:
        self.complete = True


def text_of(content: bytes) -> str | None:
    """The beginning of ``content`` if it is text, as empty content is; else None."""
    if formats.sniff(content) is not None:
        return None
    text = content[:_HEAD].decode("utf-8", "replace")
    if len(content) > _HEAD:
        text = text.rstrip("\ufffd")  # a character may have been cut
    return text if "\ufffd" not in text and text.translate(_BLANKS).isprintable() else None


_BLANKS = dict.fromkeys(map(ord, "\r\n\t"), " ")


def _unparsed(error: FormParserError) -> ClassifierError:
    return ClassifierError("bad_request", f"the multipart body can't be parsed: {error}")
