"""HTTP body to image bytes: multipart or raw, counted while it is read, never on disk, never fetched from a URL."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from classifier.errors import ClassifierError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

MULTIPART = "multipart/form-data"
MAX_FIELD_BYTES = 1024


@dataclass
class Upload:
    """What a request carried: its images in order, still encoded, and its text fields."""

    images: list[bytes] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)


class Held:
    """The bytes of bodies that are held at once, of which there may be ``limit``: all that strangers can fill."""

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0


class Share:
    """What one request holds of ``held``, until it is left as a context."""

    def __init__(self, held: Held) -> None:
        self._held, self._bytes = held, 0

    def take(self, count: int) -> None:
        """Hold ``count`` bytes more. Raises ClassifierError("overloaded")."""
        self._bytes += count
        self._held.bytes += count
        if self._held.bytes > self._held.limit:
            raise ClassifierError(
                "overloaded",
                f"refused: the bodies of all requests are over the limit of {self._held.limit} bytes",
                retry_after=1,
                reason="memory",
            )

    def __enter__(self) -> Share:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.bytes -= self._bytes


@dataclass(frozen=True)
class Limits:
    """What one body may hold: bytes, images, text fields, and bytes of a part's headers."""

    bytes: int
    images: int
    fields: int
    part_header_bytes: int


async def read(request: Request, name: str, limits: Limits, share: Share) -> Upload:
    """The upload of ``request``: multipart files in fields called ``name``, or the whole body as one image.

    Its bytes are taken of ``share``. Raises ClassifierError: ``length_required``, ``body_too_large`` (before or while
    reading), ``too_many_images``, ``unsupported_media_type``, ``invalid_parameter``, ``bad_request`` or ``overloaded``.
    """
    _check_length(request, limits.bytes)
    kind, options = parse_options_header(request.headers.get("content-type"))
    media_type = kind.decode("latin-1").lower()
    if media_type == MULTIPART:
        boundary = options.get(b"boundary")
        if not boundary:
            raise ClassifierError("bad_request", "the multipart body has no boundary in its Content-Type")
        upload = await _read_multipart(request, boundary, name, limits, share)
    elif media_type.startswith("image/") or media_type == "application/octet-stream":
        upload = Upload(images=[await _read_raw(request, limits.bytes, share)])
    else:
        raise ClassifierError(
            "unsupported_media_type",
            f"Content-Type {media_type!r} is not accepted; send multipart/form-data with a file field {name!r}, "
            "or the image itself as image/*",
            allowed=[MULTIPART, "image/*", "application/octet-stream"],
        )
    if not upload.images:
        raise ClassifierError(
            "bad_request", f"the body holds no file field {name!r}; it holds {sorted(upload.fields) or 'nothing'}"
        )
    return upload


def _check_length(request: Request, limit: int) -> None:
    length = request.headers.get("content-length")
    if length is None:
        if "transfer-encoding" not in request.headers:
            raise ClassifierError("length_required", "the request has neither a Content-Length nor a chunked body")
    elif int(length) > limit:  # the HTTP parser has refused what is not a number
        raise _too_large(limit, length)


def _too_large(limit: int, length: str | None = None) -> ClassifierError:
    what = f"the body of {length} bytes" if length else "the body"
    return ClassifierError("body_too_large", f"{what} is over the limit of {limit} bytes", limit=limit)


async def _chunks(request: Request, limit: int, share: Share) -> AsyncIterator[bytes]:
    """The body as it comes, counted before it is kept."""
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > limit:
            raise _too_large(limit)
        share.take(len(chunk))
        yield chunk


async def _read_raw(request: Request, limit: int, share: Share) -> bytes:
    chunks = [chunk async for chunk in _chunks(request, limit, share)]
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _read_multipart(request: Request, boundary: bytes, name: str, limits: Limits, share: Share) -> Upload:
    form = _Form(name, limits)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for chunk in _chunks(request, limits.bytes, share):
            parser.write(chunk)
        parser.finalize()
    except MultipartParseError as error:
        raise ClassifierError("bad_request", f"the multipart body can't be parsed: {error}") from None
    if not form.complete:
        raise ClassifierError("bad_request", "the multipart body ends before its closing boundary")
    return form.upload


class _Form:
    """Collects the parts of a multipart body as the parser meets them."""

    def __init__(self, name: str, limits: Limits) -> None:
        self.upload, self.complete = Upload(), False
        self._text_fields = 0
        self._name, self._limits = name, limits

    def callbacks(self) -> Any:
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
        self._disposition = b""
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
        limit = self._limits.part_header_bytes
        if self._header_bytes > limit:
            raise ClassifierError("bad_request", f"a part's headers are over {limit} bytes", limit=limit)

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._field = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = b"filename" in options
        if self._is_file != (self._field == self._name):
            what = "a file" if self._is_file else "text"
            raise ClassifierError(
                "invalid_parameter",
                f"field {self._field[:100]!r} is {what}; files go into field {self._name!r}, which takes nothing else "
                "(URLs and paths are never fetched)",
            )
        if self._is_file and len(self.upload.images) == self._limits.images:
            limit = self._limits.images
            raise ClassifierError("too_many_images", f"the request holds more than {limit} image(s)", limit=limit)
        self._text_fields += not self._is_file
        if self._text_fields > self._limits.fields:
            limit = self._limits.fields
            raise ClassifierError("bad_request", f"the body has more than {limit} text fields", limit=limit)

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._bytes += end - start
        if not self._is_file and self._bytes > MAX_FIELD_BYTES:
            raise ClassifierError(
                "invalid_parameter",
                f"field {self._field[:100]!r} is over {MAX_FIELD_BYTES} bytes",
                limit=MAX_FIELD_BYTES,
            )
        self._chunks.append(data[start:end])

    def _end(self) -> None:
        content = b"".join(self._chunks)
        if self._is_file:
            self.upload.images.append(content)
        else:
            self.upload.fields[self._field] = content.decode("utf-8", "replace")

    def _finish(self) -> None:
        self.complete = True
