"""HTTP body to image bytes: a form, the image itself or JSON, counted while it is read, never fetched from a URL."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from python_multipart.multipart import parse_options_header

from classifier import formats
from classifier.errors import ClassifierError
from serving import json_body
from serving.multipart import Form, text_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

MULTIPART = "multipart/form-data"
RAW = "application/octet-stream"
# How BentoML's services call one another by default.
PICKLE = "application/vnd.bentoml+pickle"
# The types that clients send by themselves: none, or the one of curl --data-binary. The body's bytes tell its type.
UNTOLD = ("", "application/x-www-form-urlencoded")
# How many bytes at the beginning of a body that is no image are looked at, and how many are shown.
_HEAD, _SHOWN = 1024, 30


@dataclass
class Upload:
    """The content of a request: its images in order, encoded or as pixels, and the values of its text fields."""

    images: list[Any] = field(default_factory=list)
    fields: dict[str, list[str]] = field(default_factory=dict)


class BodyBudget:
    """The byte budget that all request bodies share: ``limit`` bytes, of which ``reserved`` are in use."""

    def __init__(self, limit: int) -> None:
        self.limit, self.reserved = limit, 0


class Reservation:
    """The bytes of ``budget`` that one request has reserved. Leaving it as a context gives them back."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget, self._bytes = budget, 0

    def add(self, count: int) -> None:
        """Reserve ``count`` more bytes. Raises ClassifierError("overloaded") where the budget is exceeded."""
        self._bytes += count
        self._budget.reserved += count
        if self._budget.reserved > self._budget.limit:
            if self._bytes > self._budget.limit:
                limit = self._budget.limit
                message = f"this request alone is over the limit of {limit} bytes that all requests may hold"
                raise ClassifierError("body_too_large", message, limit=limit)
            raise ClassifierError(
                "overloaded",
                f"refused: the bodies of all requests are over the limit of {self._budget.limit} bytes",
                retry_after=1,
                reason="memory",
            )

    def give_back(self, count: int) -> None:
        """Give ``count`` bytes back, which are no longer held."""
        self._bytes -= count
        self._budget.reserved -= count

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.reserved -= self._bytes


@dataclass(frozen=True)
class Limits:
    """The bounds of one body: bytes, images, text fields, and bytes of a part's headers."""

    bytes: int
    images: int
    fields: int
    part_header_bytes: int


async def read(request: Request, name: str, limits: Limits, reservation: Reservation) -> Upload:
    """The upload of ``request``: multipart files in fields called ``name``, base64 in JSON, or the body as one image.

    Its bytes are added to ``reservation``. Raises ClassifierError: ``length_required``, ``body_too_large`` (before or
    while reading), ``too_many_images``, ``unsupported_media_type``, ``unsupported_encoding``, ``invalid_parameter``,
    ``bad_request``, ``unreadable_image`` or ``overloaded``.
    """
    _check_encoding(request)
    kind, options = parse_options_header(request.headers.get("content-type"))
    media_type = kind.decode("latin-1").lower()
    if media_type == json_body.MEDIA_TYPE:
        return await _read_json(request, name, limits, reservation)
    _check_length(request, limits.bytes)
    if media_type == MULTIPART:
        boundary = options.get(b"boundary")
        if not boundary:
            raise ClassifierError(
                "bad_request",
                "the multipart body has no boundary in its Content-Type; leave this header to your HTTP library",
            )
        return await _read_multipart(request, boundary, name, limits, reservation)
    if media_type == PICKLE:
        raise ClassifierError(
            "unsupported_media_type",
            "a pickle is never read, for it can run any program: in the service that calls this one, write "
            "'from service import ResNet18' and 'bentoml.depends(ResNet18)', which sends a form",
            allowed=[MULTIPART, "image/*", RAW, json_body.MEDIA_TYPE],
        )
    if not (media_type.startswith("image/") or media_type == RAW or media_type in UNTOLD):
        raise ClassifierError(
            "unsupported_media_type",
            f"Content-Type {media_type[:100]!r} is not accepted; send multipart/form-data with a file field {name!r}, "
            "the image itself as image/*, or JSON",
            allowed=[MULTIPART, "image/*", RAW, json_body.MEDIA_TYPE],
        )
    data = await _read_raw(request, limits.bytes, reservation)
    _check_raw(data, media_type, name)
    return Upload(images=[data])


async def read_whole(request: Request, limit: int, reservation: Reservation) -> bytes:
    """The body of ``request`` as it is, at most ``limit`` bytes, which are added to ``reservation``.

    Raises ClassifierError: ``length_required``, ``body_too_large``, ``unsupported_encoding`` or ``overloaded``.
    """
    _check_encoding(request)
    _check_length(request, limit)
    return await _read_raw(request, limit, reservation)


def _check_encoding(request: Request) -> None:
    for header, plain in (("content-encoding", "identity"), ("transfer-encoding", "chunked")):
        for text in request.headers.getlist(header):
            for coding in text.split(","):
                if coding.strip().lower() not in (plain, ""):
                    raise ClassifierError(
                        "unsupported_encoding",
                        f"{header.title()} {coding.strip()[:100]!r} is not decoded here; send the body as it is",
                        allowed=[plain],
                    )


def _check_length(request: Request, limit: int) -> None:
    length = request.headers.get("content-length")
    if length is None:
        if "transfer-encoding" not in request.headers:
            raise ClassifierError("length_required", "the request has neither a Content-Length nor a chunked body")
    elif int(length) > limit:  # the HTTP parser has refused what is not a number
        raise _too_large(limit, length)


def _check_raw(data: bytes, media_type: str, name: str) -> None:
    """Raise ClassifierError for a body that belies its Content-Type, or that has none and is no image."""
    untold, kind = media_type in UNTOLD, formats.sniff(data)
    if kind is not None:
        if untold and kind == "JPEG" and b"\0" not in data:  # each has one in the length of its frame header
            raise ClassifierError(
                "unreadable_image",
                "the JPEG image has lost bytes on the way, as by curl -d @FILE or --data; --data-binary keeps them all",
                format=kind,
            )
    elif data.startswith(b"--") and b"content-disposition:" in data[:_HEAD].lower():
        raise ClassifierError(
            "unsupported_media_type",
            f"the body is multipart/form-data, and its Content-Type is {media_type[:100]!r}; leave this header to your "
            "HTTP library",
        )
    elif untold:
        how = f"curl --data-binary @photo.jpg, or as a file field {name!r}: curl -F {name}=@photo.jpg"
        if not data:
            raise ClassifierError("bad_request", f"the body is empty; send the image itself, as by {how}")
        text = text_of(data)
        shown = data[:8] if text is None else text[:_SHOWN]
        if data.lstrip().startswith(b"{"):
            how = f"Content-Type: {json_body.MEDIA_TYPE} if this is JSON; else {how}"
        raise ClassifierError(
            "unsupported_media_type",
            f"the body begins with {shown!r} and is no image that this service reads; URLs and paths are "
            f"never fetched: send the image itself, as by {how}",
            allowed=list(formats.FORMATS),
        )


def _too_large(limit: int, length: str | None = None) -> ClassifierError:
    what = f"the body of {length} bytes" if length else "the body"
    return ClassifierError("body_too_large", f"{what} is over the limit of {limit} bytes", limit=limit)


async def _chunks(request: Request, limit: int, reservation: Reservation) -> AsyncIterator[bytes]:
    """The body's pieces as they come. Each is counted before it is kept."""
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > limit:
            raise _too_large(limit)
        reservation.add(len(chunk))
        yield chunk


async def _read_raw(request: Request, limit: int, reservation: Reservation) -> bytes:
    chunks = [chunk async for chunk in _chunks(request, limit, reservation)]
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _read_json(request: Request, name: str, limits: Limits, reservation: Reservation) -> Upload:
    longest = int(json_body.GROWTH * limits.bytes)
    _check_length(request, longest)
    body = await _read_raw(request, longest, reservation)
    kind = formats.sniff(body)
    if kind is not None:
        raise ClassifierError(
            "unsupported_media_type",
            f"the body is a {kind} image, and its Content-Type is {json_body.MEDIA_TYPE!r}; send it as image/*, or as "
            f"a file in {MULTIPART}",
            allowed=[MULTIPART, "image/*", RAW],
        )
    total = 0

    def add(count: int) -> None:
        nonlocal total
        total += count
        if total > limits.bytes:
            raise ClassifierError(
                "body_too_large", f"the images are over the limit of {limits.bytes} bytes", limit=limits.bytes
            )
        reservation.add(count)

    images, fields = json_body.images(body, name, limits.images, add)
    reservation.give_back(len(body))
    return Upload(images, fields)


async def _read_multipart(
    request: Request, boundary: bytes, name: str, limits: Limits, reservation: Reservation
) -> Upload:
    form = Form(boundary, name, images=limits.images, fields=limits.fields, header_bytes=limits.part_header_bytes)
    async for chunk in _chunks(request, limits.bytes, reservation):
        form.write(chunk)
    form.finish()
    if not form.images:
        raise ClassifierError(
            "bad_request", f"the body holds no file field {name!r}; it holds {sorted(form.fields) or 'nothing'}"
        )
    return Upload(form.images, form.fields)
