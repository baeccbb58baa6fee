"""HTTP body to image bytes: multipart or raw, counted while it is read, never on disk, never fetched from a URL."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from classifier.errors import ClassifierError

if TYPE_CHECKING:
    from starlette.requests import Request

MULTIPART = "multipart/form-data"
MAX_FIELD_BYTES = 1024
MAX_PART_HEADER_BYTES = 4096


@dataclass
class Upload:
    """What a request carried: its images in order, still encoded, and its text fields."""

    images: list[bytes] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)


async def read(request: Request, *, name: str, max_bytes: int, max_images: int) -> Upload:
    """The upload of ``request``: multipart files in fields called ``name``, or the whole body as one image.

    Raises ClassifierError: ``length_required``, ``body_too_large`` (before or while reading), ``too_many_images``,
    ``unsupported_media_type``, ``invalid_parameter`` or ``bad_request``.
    """
    _check_length(request, max_bytes)
    kind, options = parse_options_header(request.headers.get("content-type"))
    media_type = kind.decode("latin-1").lower()
    if media_type == MULTIPART:
        boundary = options.get(b"boundary")
        if not boundary:
            raise ClassifierError("bad_request", "the multipart body has no boundary in its Content-Type")
        upload = await _read_multipart(request, boundary, name, max_bytes, max_images)
    elif media_type.startswith("image/") or media_type == "application/octet-stream":
        upload = Upload(images=[await _read_raw(request, max_bytes)])
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


async def _read_raw(request: Request, limit: int) -> bytes:
    chunks, total = [], 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _read_multipart(request: Request, boundary: bytes, name: str, max_bytes: int, max_images: int) -> Upload:
    form = _Form(name, max_images)
    total = 0
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for chunk in request.stream():
            total += len(chunk)
            if total > max_bytes:
                raise _too_large(max_bytes)
            parser.write(chunk)
        parser.finalize()
    except MultipartParseError as error:
        raise ClassifierError("bad_request", f"the multipart body can't be parsed: {error}") from None
    if not form.complete:
        raise ClassifierError("bad_request", "the multipart body ends before its closing boundary")
    return form.upload


class _Form:
    """Collects the parts of a multipart body as the parser meets them."""

    def __init__(self, name: str, max_images: int) -> None:
        self.upload, self.complete = Upload(), False
        self._name, self._max_images = name, max_images

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
        if self._header_bytes > MAX_PART_HEADER_BYTES:
            raise ClassifierError(
                "bad_request", f"a part's headers are over {MAX_PART_HEADER_BYTES} bytes", limit=MAX_PART_HEADER_BYTES
            )

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
        if self._is_file and len(self.upload.images) == self._max_images:
            raise ClassifierError(
                "too_many_images",
                f"the request holds more than {self._max_images} image(s)",
                limit=self._max_images,
            )
        if not self._is_file and len(self.upload.fields) == _MAX_FIELDS:
            raise ClassifierError("bad_request", f"the body has more than {_MAX_FIELDS} text fields")

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


_MAX_FIELDS = 16
