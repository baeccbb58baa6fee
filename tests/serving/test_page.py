"""The page over HTTP: headers, caches, languages; and its words, held equal."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
from typing import TYPE_CHECKING

import httpx
import pytest

from classifier.errors import STATUS
from classifier.languages import DEFAULT, LANGUAGES
from classifier.runtimes import ENGINES
from serving import page
from tests.conftest import ROOT, Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WEB = ROOT / "web"
MODULES = sorted(path for path in WEB.glob("*.js") if not path.name.startswith("strings."))


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[Server]:
    """A service of this module's own: BentoML's start wipes the metrics of what runs from the same store.

    The session's must not run yet when the modules between this one and tests/test_service.py start theirs.
    """
    server = Server(store)
    try:
        yield server.wait()
    finally:
        server.stop()


def linked(document: str) -> list[str]:
    """The addresses that a document's elements name."""
    return re.findall(r'(?:href|src)="(web/[^"]+)"', document)


def policy(response: httpx.Response) -> dict[str, list[str]]:
    """The Content-Security-Policy of ``response``: each directive's sources."""
    directives = [part.split() for part in response.headers["content-security-policy"].split(";")]
    return {name: sources for name, *sources in directives}


def test_the_root_is_the_page_and_docs_is_swagger(server: Server) -> None:
    index, docs = server.client.get("/"), server.client.get("/docs")
    assert index.headers["content-type"] == docs.headers["content-type"] == "text/html; charset=utf-8"
    assert "<h1" in index.text
    assert "swagger-ui" in docs.text
    assert server.client.get("/docs.json").json()["openapi"]


def test_labels_names_every_class(server: Server) -> None:
    labels = server.client.get("/labels").json()
    assert (len(labels["en"]), labels["en"][3]) == (server.client.get("/model").json()["classes"], "cat")
    assert (len(labels["zh"]), labels["zh"][3]) == (10, "猫")


def test_nothing_foreign_and_nothing_inline_may_run(server: Server) -> None:
    response = server.client.get("/")
    allowed = policy(response)
    assert allowed["default-src"] == ["'none'"]
    assert allowed["script-src"] == allowed["connect-src"] == ["'self'"]
    assert allowed["frame-ancestors"] == allowed["base-uri"] == allowed["form-action"] == ["'none'"]
    assert not any(
        "unsafe" in source or "http" in source or "*" in source for sources in allowed.values() for source in sources
    )
    (style,) = re.findall(r"<style>(.*?)</style>", response.text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert allowed["style-src"] == [f"'sha256-{digest}'"]
    assert not re.search(r"<script(?![^>]* src=)|\bon\w+=|style=|javascript:", response.text)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_the_other_security_headers(server: Server, path: str) -> None:
    headers = server.client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert "camera=()" in headers["permissions-policy"]


def test_swagger_s_page_may_not_run_its_tracker(server: Server) -> None:
    response = server.client.get("/docs")
    assert "googletagmanager" in response.text, "BentoML reports no more: the policy's reason is gone"
    assert "script-src" not in policy(response)
    assert policy(response)["default-src"] == ["'self'"]
    assert policy(response)["frame-src"] == ["'none'"]


def test_every_file_of_the_page_is_there_and_never_asked_for_twice(server: Server) -> None:
    addresses = linked(server.client.get("/").text)
    modules = {path.name for path in MODULES}
    assert modules | {"strings.en.js", "icon.svg"} <= {address.rsplit("/", 1)[1] for address in addresses}
    addresses += [addresses[0].rsplit("/", 1)[0] + f"/strings.{code}.js" for code in LANGUAGES]
    for address in addresses:
        response = server.client.get(f"/{address}")
        assert response.status_code == 200, address
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["content-type"].startswith(
            {"js": "text/javascript", "svg": "image/svg+xml", "jpg": "image/jpeg"}[address.rsplit(".", 1)[1]]
        )
        name = address.split("/", 2)[2]
        assert response.content == (WEB / name).read_bytes()


def test_a_second_visit_costs_a_304(server: Server) -> None:
    first = server.client.get("/")
    assert first.headers["cache-control"] == "no-cache"
    again = server.client.get("/", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert again.headers["content-security-policy"] == first.headers["content-security-policy"]
    assert server.client.get("/", headers={"if-none-match": '"another"'}).status_code == 200


def test_it_travels_compressed_where_that_is_wanted(server: Server) -> None:
    plain = server.client.get("/", headers={"accept-encoding": "identity"})
    small = server.client.get("/", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert small.headers["content-encoding"] == "gzip"
    assert small.content == plain.content  # httpx has unpacked it
    assert int(small.headers["content-length"]) < len(plain.content) / 2
    assert "Accept-Encoding" in small.headers["vary"]


def test_head_has_no_body(server: Server) -> None:
    response = server.client.head("/")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["etag"] == server.client.get("/").headers["etag"]


@pytest.mark.parametrize("path", ["/web/page.css", "/web/0123456789abcdef/app.js", "/web/../service.py", "/index.html"])
def test_no_other_file_is_served(server: Server, path: str) -> None:
    response = server.client.get(path)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    ("accepted", "cookie", "tag"),
    [
        (None, None, "en"),
        ("de", None, "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", None, "zh-Hans"),
        ("zh-TW", None, "zh-Hans"),
        ("en-US,en;q=0.9,zh;q=0.8", None, "en"),
        ("fr, en;q=0.2, zh;q=0.7", None, "zh-Hans"),
        ("zh;q=high, en", None, "en"),
        ("en", "zh", "zh-Hans"),
        ("zh", "en", "en"),
        ("zh", "<script>", "zh-Hans"),
    ],
)
def test_it_comes_in_the_visitor_s_language(server: Server, accepted: str | None, cookie: str | None, tag: str) -> None:
    headers = {"accept-language": accepted} if accepted else {}
    headers |= {"cookie": f"a=b; lang={cookie}"} if cookie else {}
    response = httpx.get(server.url, headers=headers)
    assert f'<html lang="{tag}">' in response.text
    assert response.headers["content-language"] == tag
    language = next(code for code, value in LANGUAGES.items() if value.tag == tag)
    assert page.strings(language)["headline"] in response.text
    assert f"strings.{language}.js" in response.text
    assert {"Accept-Language", "Cookie"} <= set(response.headers["vary"].split(", "))


def test_it_holds_a_button_for_each_language_and_each_runtime_s_title(server: Server) -> None:
    document = server.client.get("/").text
    buttons = re.findall(r'<button type="button" data-language="(\w+)" lang="([\w-]+)">([^<]+)</button>', document)
    assert buttons == [(each.code, each.tag, each.name) for each in LANGUAGES.values()]
    (titles,) = re.findall(r'data-engines="([^"]+)"', document)
    told = json.loads(html.unescape(titles))
    assert told == {name: engine.title for name, engine in ENGINES.items()}
    assert (told["onnxruntime"], told["torch"]) == ("ONNX Runtime", "TorchScript")
    assert "<!--" not in document


def test_words_can_t_become_markup() -> None:
    words = {"a": '<b> & "quotes"', "l": 'x" onload="y'}
    filled = page.localise('<html lang="en"><p data-t-title="l" data-t="a"></p>', words, "en")
    assert '<p data-t-title="l" title="x&quot; onload=&quot;y" data-t="a">&lt;b&gt; &amp; "quotes"</p>' in filled


def test_a_change_of_any_file_changes_the_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copytree(WEB, tmp_path / "web")
    monkeypatch.setattr(page, "FOLDER", copy)
    before = set(page.files())
    assert before == set(page.files())
    (copy / "verdict.js").write_text("export const LOW = 1;")
    after = set(page.files())
    assert before & after == {"/"}
    assert len(before) == len(after)


def test_the_page_adds_nothing_to_the_metrics(server: Server) -> None:
    address = linked(server.client.get("/").text)[0]
    for path in (f"/{address}", "/model"):
        assert server.client.get(path).status_code == 200
    text = server.client.get("/metrics").text
    assert 'endpoint="/model"' in text
    assert 'endpoint="/web' not in text
    assert 'endpoint="/"' not in text


# The words.


def sources() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in MODULES)


def keys_named() -> set[str]:
    """The keys that the document names, and the modules where they ask for one outright."""
    document = (WEB / "index.html").read_text(encoding="utf-8")
    named = set(re.findall(r'data-t(?:-[a-z-]+)?="(\w+)"', document))
    assert len(named) > 20
    return named | set(re.findall(r'\bt\("(\w+)"', sources()))


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_language_has_the_same_words_and_fills_in_the_same(code: str) -> None:
    words, expected = page.strings(code), page.strings(DEFAULT)
    assert list(words) == list(expected)
    for key, text in words.items():
        assert text.strip(), key
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", expected[key])), key


def test_every_word_that_is_named_is_there() -> None:
    assert keys_named() - set(page.strings("en")) == set()


def test_every_word_that_is_there_is_used() -> None:
    # A key may be chosen between two, or put together: `state_${…}` stands for all that begin so.
    literals = set(re.findall(r'"(\w+)"', sources()))
    prefixes = tuple(re.findall(r"`(\w+_)\$\{", sources()))
    unused = {key for key in page.strings("en") if key not in keys_named() | literals and not key.startswith(prefixes)}
    assert unused == set()


def test_every_error_code_has_its_words() -> None:
    """Its own, or those that its kind of status shares; and there are no words for codes that are no more."""
    words = {key.removeprefix("error_") for key in page.strings("en") if key.startswith("error_")}
    of_the_page = {"unreachable", "unreadable_file", "other"}
    assert words - of_the_page <= set(STATUS)
    assert {"other", "internal"} <= words
    assert all(set(page.strings(code)) == set(page.strings("en")) for code in LANGUAGES)


def test_the_chinese_is_chinese() -> None:
    untranslated = {key for key, text in page.strings("zh").items() if not re.search(r"[\u4e00-\u9fff：、]", text)}
    assert untranslated == {"live_p50", "live_p99", "api"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_weighs_less_than_60_kb(server: Server, language: str) -> None:
    """What one visit loads, uncompressed, without images: the document, the modules, the language's words."""
    plain = {"accept-language": language, "accept-encoding": "identity"}
    document = server.client.get("/", headers=plain)
    folder = re.findall(r'"(web/[^/"]+)/app.js"', document.text)[0]
    names = ["icon.svg", f"strings.{language}.js", *(path.name for path in MODULES)]
    loaded = [server.client.get(f"/{folder}/{name}", headers=plain) for name in names]
    assert {reply.status_code for reply in loaded} == {200}
    assert sum(len(reply.content) for reply in (document, *loaded)) < 60_000


def test_it_is_plain_and_needs_no_build() -> None:
    assert {path.suffix for path in WEB.iterdir() if path.is_file()} == {".html", ".css", ".js", ".svg"}
    for path in MODULES:
        for imported in re.findall(r'from "([^"]+)"', path.read_text(encoding="utf-8")):
            assert imported.startswith("./"), f"{path.name} imports {imported}"
            assert (WEB / imported).is_file()
    assert sum(path.stat().st_size for path in (WEB / "samples").glob("*.jpg")) < 80_000


def test_each_sample_has_its_licence_beside_it() -> None:
    told = (WEB / "samples" / "README.md").read_text(encoding="utf-8")
    samples = [path.name for path in (WEB / "samples").glob("*.jpg")]
    assert len(samples) >= 3
    for name in samples:
        assert f"| `{name}` |" in told
