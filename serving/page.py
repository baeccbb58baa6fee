"""The page at ``/``: read once when the service starts, kept in memory, and sent in the visitor's language.

Its stylesheet is put into the document, so that the first paint needs one round trip; everything else lies under a
path that holds the digest of all files and never changes, so that a second visit costs one request and a 304.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from classifier.languages import DEFAULT, LANGUAGES
from classifier.runtimes import ENGINES

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

FOLDER = Path(__file__).resolve().parents[1] / "web"

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}
_STYLESHEET = '<link rel="stylesheet" href="web/page.css">'
# What web/index.html holds in the place of the tables of languages and engines.
_LANGUAGES = "<!-- a button for each language -->"
_ENGINES = "{engines}"
_FOR_GOOD = "public, max-age=31536000, immutable"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# BentoML's Swagger UI styles its elements inline, and its document holds a script that fetches one of Google's to
# report who reads it: inline scripts, frames and foreign origins stay forbidden, and so the reader is not reported.
_SWAGGER_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


def files() -> dict[str, ASGIApp]:
    """``/`` and the files that it needs, by path.  Raises OSError where web/ is not beside the packages."""
    paths = sorted(path for path in FOLDER.rglob("*") if path.suffix in _TYPES)
    bodies = {path.relative_to(FOLDER).as_posix(): path.read_bytes() for path in paths}
    version = hashlib.sha256(b"".join(name.encode() + body for name, body in bodies.items())).hexdigest()[:16]
    style = bodies.pop("page.css").decode()
    document = (FOLDER / "index.html").read_text(encoding="utf-8").replace(_STYLESHEET, f"<style>{style}</style>")
    document = fill(document).replace('="web/', f'="web/{version}/')
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'self'; style-src 'sha256-{digest}'; img-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    pages = {}
    for code, language in LANGUAGES.items():
        localised = localise(document, strings(code), language.tag)
        headers = {
            "Cache-Control": "no-cache",
            "Vary": "Accept-Language, Cookie",
            "Content-Language": language.tag,
            "Content-Security-Policy": policy,
        }
        localised = localised.replace(f"/strings.{DEFAULT}.js", f"/strings.{code}.js")
        pages[code] = _File(localised.encode(), "text/html", headers)

    async def index(scope: Scope, receive: Receive, send: Send) -> None:
        await pages[chosen_language(Request(scope))](scope, receive, send)

    found: dict[str, ASGIApp] = {"/": index}
    for name, body in bodies.items():
        media_type = _TYPES[Path(name).suffix]
        found[f"/web/{version}/{name}"] = _File(body, media_type, {"Cache-Control": _FOR_GOOD})
    return found


def swagger(view: Callable[[Request], Awaitable[Response]]) -> Route:
    """``/docs``: BentoML's own page, which ``view`` answers."""

    async def docs(request: Request) -> Response:
        response = await view(request)
        response.headers.update(_HEADERS | {"Content-Security-Policy": _SWAGGER_POLICY})
        return response

    return Route("/docs", docs)


def strings(code: str) -> dict[str, str]:
    """The page's words in the language ``code``: a JavaScript module whose default export is a JSON object."""
    text = (FOLDER / f"strings.{code}.js").read_text(encoding="utf-8")
    words: dict[str, str] = json.loads(text.removeprefix("export default").rstrip().removesuffix(";"))
    return words


def fill(document: str) -> str:
    """``document`` with a button for each language, by which web/language.js knows them, and the engines' titles."""
    buttons = [
        f'<button type="button" data-language="{each.code}" lang="{each.tag}">{html.escape(each.name)}</button>'
        for each in LANGUAGES.values()
    ]
    titles = json.dumps({name: engine.title for name, engine in ENGINES.items()})
    return document.replace(_LANGUAGES, "\n      ".join(buttons)).replace(_ENGINES, html.escape(titles))


def localise(document: str, words: dict[str, str], tag: str) -> str:
    """``document`` in the language ``tag``, as ``localise`` of web/language.js does it in the browser.

    ``data-t="key"`` names an element's text, ``data-t-NAME="key"`` its attribute NAME.  Raises KeyError for a key that
    ``words`` lacks.
    """

    def attribute(match: re.Match[str]) -> str:
        return f'{match[0]} {match[1]}="{html.escape(words[match[2]])}"'

    document = document.replace(f'<html lang="{LANGUAGES[DEFAULT].tag}">', f'<html lang="{tag}">')
    document = re.sub(r'data-t-([a-z-]+)="(\w+)"', attribute, document)
    return re.sub(r'data-t="(\w+)"[^>]*>', lambda match: match[0] + html.escape(words[match[1]], quote=False), document)


def chosen_language(request: Request) -> str:
    """The language the visitor has switched to, else the first of the browser's that the page speaks."""
    if request.cookies.get("lang") in LANGUAGES:
        return request.cookies["lang"]
    wanted = []
    for part in request.headers.get("accept-language", "").split(","):
        tag, _, quality = part.strip().partition(";q=")
        try:
            wanted.append((-float(quality or 1), tag.split("-")[0].lower()))
        except ValueError:
            continue
    # A stable sort: of equally wanted ones the first.
    ordered = [language for _, language in sorted(wanted, key=lambda pair: pair[0]) if language in LANGUAGES]
    return ordered[0] if ordered else DEFAULT


class _File:
    """A file in memory, as it is and compressed."""

    def __init__(self, body: bytes, media_type: str, headers: dict[str, str]) -> None:
        # Weak, for it stands for the compressed body as well.
        self._etag = f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'
        self._headers = _HEADERS | headers | {"ETag": self._etag}
        self._body, self._media_type, self._compressed = body, media_type, None
        if media_type != "image/jpeg":
            self._headers["Vary"] = ", ".join(filter(None, (headers.get("Vary"), "Accept-Encoding")))
            self._compressed = gzip.compress(body, mtime=0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the file, or with 304 where the browser has it."""
        await self._response(Request(scope))(scope, receive, send)

    def _response(self, request: Request) -> Response:
        known = {tag.strip() for tag in request.headers.get("if-none-match", "").split(",")}
        if self._etag in known:
            return Response(status_code=304, headers=self._headers)
        headers, body = self._headers, self._body
        if self._compressed is not None and "gzip" in request.headers.get("accept-encoding", ""):
            headers, body = headers | {"Content-Encoding": "gzip"}, self._compressed
        return Response(body, headers=headers, media_type=self._media_type)
