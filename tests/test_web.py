"""The page in a real browser, against a running service: what a visitor does, and what is then to be seen."""

from __future__ import annotations

import base64
import http
import io
import json
import os
import re
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from PIL import Image as images
from playwright.sync_api import expect

from classifier import pixels
from classifier.preprocessing import Preprocessing
from serving import page as pages
from tests import browser
from tests.conftest import ROOT, Server, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from PIL.Image import Image
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, FilePayload, Request

AXE = "4.14.1"
SAMPLES = ROOT / "web" / "samples"
DONE, FAILED = "[data-state=done]", "[data-state=failed]"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser; not for the whole session, for its event loop would be in the way of other tests' own."""
    path, reason = browser.find()
    if path is None:
        pytest.skip(reason)
    with browser.launched(path) as launched:
        yield launched


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, which knows what makes a page hard to use with a screen reader or without a mouse."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not here, and axe-core comes from there")
    folder = tmp_path_factory.mktemp("axe")
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", f"axe-core@{AXE}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        pytest.skip(f"npm could not fetch axe-core: {done.stderr.strip()[-300:]}")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


class Visit:
    """A visitor's page, and what went wrong on it: console errors, failed and foreign requests, policy violations."""

    def __init__(self, context: BrowserContext, url: str, known: bool) -> None:
        self.context, self.page, self.url = context, context.new_page(), url
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("requestfailed", self._failed)
        # From the first on: Playwright does not wait until Chromium hands it file dialogs, and would miss a quick one.
        self.page.on("filechooser", lambda _: None)
        # Of the context, so that what a worker or another page asks for counts as well.
        context.on("request", lambda request: self.requests.append(request.url))
        self.page.add_init_script(
            "addEventListener('securitypolicyviolation', (e) => console.error('policy: ' + e.violatedDirective))"
        )
        self.page.set_default_timeout(10_000)
        self.page.goto(url)
        if known:
            expect(self.page.locator("#model")).to_contain_text("·")

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def _failed(self, request: Request) -> None:
        # What is asked for as the page is closed is aborted by that.
        if request.failure != "net::ERR_ABORTED":
            self.errors.append(f"{request.url}: {request.failure}")

    def choose(self, *files: Any) -> None:
        """Choose files as with the file dialog."""
        with self.page.expect_file_chooser() as chooser:
            self.page.get_by_role("button", name=re.compile("Choose images|选择图片")).click()
        chooser.value.set_files([as_file(file) for file in files])

    def drop(self, files: list[Any], onto: str = "body") -> None:
        """Drop files onto an element, as the browser tells the page of it."""
        transfer = self.page.evaluate_handle(
            """(files) => {
                const transfer = new DataTransfer();
                for (const { name, mimeType, buffer } of files) {
                    const bytes = Uint8Array.from(atob(buffer), (letter) => letter.charCodeAt(0));
                    transfer.items.add(new File([bytes], name, { type: mimeType }));
                }
                return transfer;
            }""",
            [file | {"buffer": base64.b64encode(file["buffer"]).decode()} for file in map(as_file, files)],
        )
        for event in ("dragenter", "dragover", "drop"):
            self.page.dispatch_event(onto, event, {"dataTransfer": transfer})

    def cards(self, state: str, count: int) -> None:
        """Wait until ``count`` cards are in ``state``."""
        expect(self.page.locator(f".card{state}")).to_have_count(count)


def as_file(file: Any) -> FilePayload:
    if isinstance(file, dict):
        return cast("FilePayload", file)
    return {"name": file.name, "mimeType": "image/jpeg", "buffer": file.read_bytes()}


def jpeg(image: Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


NOT_AN_IMAGE = {"name": "holiday.jxl", "mimeType": "image/jxl", "buffer": b"\xff\x0a" + bytes(100)}
CAT, BOAT, ASTRONAUT = (SAMPLES / f"{name}.jpg" for name in ("cat", "boat", "astronaut"))


@pytest.fixture
def visit(chromium: Browser, server: Server) -> Iterator[Callable[..., Visit]]:
    """A function that opens the page in a profile of its own, with the context's options given by name.

    ``model`` takes the place of what ``/model`` answers; where the page can't know it, it is not ``known``.

    At the end nothing may have gone wrong on any page, but what the test has taken off its ``errors``.
    """
    visits: list[Visit] = []

    def open_page(
        url: str = server.url, *, model: dict[str, Any] | None = None, known: bool = True, **options: Any
    ) -> Visit:
        context = chromium.new_context(**{"locale": "en-GB"} | options)
        if model is not None:
            context.route("**/model", lambda route: route.fulfill(json=model))
        visits.append(Visit(context, url, known))
        return visits[-1]

    yield open_page
    for one in visits:
        one.context.close()
    for one in visits:
        assert one.errors == []
        assert {request for request in one.requests if not request.startswith((one.url, "blob:"))} == set()


# Input.


def test_one_image_in_one_gesture(visit: Callable[..., Visit]) -> None:
    here = visit()
    here.drop([BOAT])
    card = here.page.locator(".card")
    expect(card.locator(".answer h3")).to_have_text("ship 船")
    expect(card.locator(".file")).to_have_text("boat.jpg")
    expect(card.locator(".bars li")).to_have_count(5)
    expect(card.locator(".bars li").first).to_have_text(re.compile(r"ship 船\d\d\.\d%"))
    expect(card.locator(".stages")).to_contain_text(re.compile(r"decode .+ ms.*queue .+ ms.*inference .+ ms.*in all"))


def test_five_in_one_drop_anywhere(visit: Callable[..., Visit]) -> None:
    here = visit()
    here.drop([BOAT, CAT, ASTRONAUT, BOAT, NOT_AN_IMAGE], onto="footer")
    here.cards(DONE, 4)
    here.cards(FAILED, 1)
    names = here.page.locator(".card .file").all_inner_texts()
    assert names == ["boat.jpg", "cat.jpg", "astronaut.jpg", "boat.jpg", "holiday.jxl"]
    here.errors.remove(refused(415))


def test_choose_several_and_the_same_again(visit: Callable[..., Visit]) -> None:
    here = visit()
    here.choose(CAT, BOAT)
    here.cards(DONE, 2)
    here.choose(CAT, BOAT)
    here.cards(DONE, 4)


def test_paste(visit: Callable[..., Visit]) -> None:
    here = visit(permissions=["clipboard-read", "clipboard-write"])
    here.page.evaluate(
        """async () => {
            const canvas = document.createElement("canvas");
            canvas.width = canvas.height = 320;
            canvas.getContext("2d").drawImage(document.querySelector("[data-sample=boat] img"), 0, 0);
            const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
            await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
        }"""
    )
    here.page.keyboard.press("Control+V")
    expect(here.page.locator(".answer h3")).to_have_text("ship 船")


def test_text_and_links_get_a_word_of_advice(visit: Callable[..., Visit]) -> None:
    here = visit(permissions=["clipboard-read", "clipboard-write"])
    here.page.evaluate("navigator.clipboard.writeText('https://example.com/cat.jpg')")
    here.page.keyboard.press("Control+V")
    expect(here.page.locator("#toast")).to_contain_text("not an image")
    expect(here.page.locator(".card")).to_have_count(0)


def test_samples_are_one_click(visit: Callable[..., Visit]) -> None:
    here = visit()
    for button in here.page.locator("[data-sample]").all():
        button.click()
    here.cards(DONE, 3)
    assert here.page.locator(".card .file").all_inner_texts() == ["cat.jpg", "boat.jpg", "astronaut.jpg"]


def test_a_phone_offers_its_camera(visit: Callable[..., Visit]) -> None:
    here = visit(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    with here.page.expect_file_chooser() as chooser:
        here.page.get_by_role("button", name="Take a photo").tap()
    assert chooser.value.element.get_attribute("capture") == "environment"
    chooser.value.set_files(BOAT)
    here.cards(DONE, 1)
    assert not visit().page.get_by_role("button", name="Take a photo").is_visible()


# What is sent.


def sent(here: Visit) -> list[Image]:
    """The images that are sent from now on, opened as they come."""
    found: list[Image] = []

    def look(route: Any) -> None:
        found.append(images.open(io.BytesIO(route.request.post_data_buffer)))
        route.continue_()

    here.page.route("**/classify*", look)
    return found


def test_a_phone_s_photo_is_sent_small_and_gets_its_answer(visit: Callable[..., Visit]) -> None:
    photo = jpeg(images.open(BOAT).resize((4000, 3000)), quality=92)
    here = visit()
    found = sent(here)
    here.choose({"name": "IMG_0001.jpg", "mimeType": "image/jpeg", "buffer": photo})
    here.cards(DONE, 1)
    assert [(image.format, image.size) for image in found] == [("JPEG", (341, 256))]
    assert len(photo) > 400_000
    expect(here.page.locator(".sent")).to_have_text(re.compile(r"^\d\d? KB sent instead of"))
    expect(here.page.locator(".answer h3")).to_have_text("ship 船")


def test_twice_the_model_s_own_size_is_sent(visit: Callable[..., Visit], server: Server) -> None:
    model = server.client.get("/model").json()
    here = visit(model=model | {"preprocessing": model["preprocessing"] | {"resize": 232}})
    found = sent(here)
    here.choose({"name": "a.jpg", "mimeType": "image/jpeg", "buffer": jpeg(images.open(BOAT).resize((1200, 2400)))})
    here.cards(DONE, 1)
    assert [image.size for image in found] == [(464, 928)]


@pytest.mark.parametrize("unusual", [{}, {"squash": True}, {"interpolation": "bicubic"}], ids=str)
def test_what_is_sent_small_gives_the_pixels_of_the_original(
    visit: Callable[..., Visit], server: Server, unusual: dict[str, Any]
) -> None:
    """Also where both sides of a photograph three times as wide as high are squashed to the same."""
    model = server.client.get("/model").json()
    here = visit(model=model | {"preprocessing": model["preprocessing"] | {"size": 112, "resize": 128} | unusual})
    small: list[bytes] = []

    def look(route: Any) -> None:
        small.append(route.request.post_data_buffer)
        route.continue_()

    here.page.route("**/classify*", look)
    original = jpeg(images.open(BOAT).resize((2400, 800)), quality=92)
    here.choose({"name": "a.jpg", "mimeType": "image/jpeg", "buffer": original})
    here.cards(DONE, 1)
    preprocessing = Preprocessing(112, 128, **unusual)
    one, other = (pixels.decode(data, preprocessing, 10**8).astype(int) for data in (small[0], original))
    assert len(small[0]) < len(original)
    assert np.abs(one - other).mean() < 2.5


@pytest.mark.parametrize("unusual", [{"interpolation": "nearest"}, {"antialias": False}], ids=str)
def test_originals_are_sent_where_single_pixels_are_looked_at(
    visit: Callable[..., Visit], server: Server, unusual: dict[str, Any]
) -> None:
    model = server.client.get("/model").json()
    here = visit(model=model | {"preprocessing": model["preprocessing"] | unusual})
    found = sent(here)
    here.choose(CAT)
    here.cards(DONE, 1)
    assert [image.size for image in found] == [(320, 320)]


def test_the_switch_sends_the_original(visit: Callable[..., Visit]) -> None:
    here = visit()
    found = sent(here)
    here.choose(CAT)
    here.cards(DONE, 1)
    here.page.get_by_role("switch", name="Send originals").check()
    here.choose(CAT)
    here.cards(DONE, 2)
    assert [image.size for image in found] == [(256, 256), (320, 320)]
    expect(here.page.locator(".sent").nth(1)).to_have_text(f"{CAT.stat().st_size / 1e3:.0f} KB sent")


def test_photos_are_sent_upright(visit: Callable[..., Visit]) -> None:
    here = visit()
    found = sent(here)
    stored = images.new("RGB", (400, 300), "navy")
    stored.paste("yellow", (0, 0, 400, 60))  # at the top as it is stored
    for count, (orientation, side) in enumerate({1: "top", 3: "bottom", 6: "right", 8: "left"}.items(), start=1):
        exif = images.Exif()
        exif[0x0112] = orientation
        here.choose({"name": "a.jpg", "mimeType": "image/jpeg", "buffer": jpeg(stored, exif=exif, quality=95)})
        here.cards(DONE, count)
        image = found[-1].convert("L")
        right, bottom = image.width - 4, image.height - 4
        places = {
            "top": (right // 2, 3),
            "bottom": (right // 2, bottom),
            "left": (3, bottom // 2),
            "right": (right, bottom // 2),
        }
        bright = [name for name, place in places.items() if image.getpixel(place) > 128]  # type: ignore[operator]
        assert bright == [side]
        assert 0x0112 not in found[-1].getexif()


# Cards.


def refused(status: int) -> str:
    """What Chromium itself writes to the console for a refusal, however well the page takes it."""
    reason = http.HTTPStatus(status).phrase
    return f"Failed to load resource: the server responded with a status of {status} ({reason})"


def test_what_is_refused_says_why_on_its_card_and_harms_no_other(visit: Callable[..., Visit]) -> None:
    here = visit()
    here.choose(NOT_AN_IMAGE, BOAT)
    failed = here.page.locator(f".card{FAILED}")
    expect(failed.locator("h3:visible")).to_have_text("This is not an image the service can read")
    expect(failed.locator(".said")).to_contain_text("JPEG, PNG, WEBP")
    here.cards(DONE, 1)
    here.errors.remove(refused(415))


def test_what_is_too_large_to_send_says_so(visit: Callable[..., Visit]) -> None:
    here = visit()
    here.choose({"name": "big.tif", "mimeType": "image/tiff", "buffer": bytes(4_000_000)})
    here.cards(FAILED, 1)
    expect(here.page.locator(".failure h3")).to_have_text("The file is too large")
    expect(here.page.locator(".said")).to_contain_text("limit of 3000000 bytes")
    here.errors.clear()


def test_retry(visit: Callable[..., Visit]) -> None:
    here = visit()
    broken = {"status": 500, "body": json.dumps({"error": {"code": "internal", "message": "it broke"}})}
    here.page.route("**/classify*", lambda route: route.fulfill(**broken, content_type="application/json"))
    here.choose(BOAT)
    expect(here.page.locator(".failure h3")).to_have_text("Something went wrong in the service")
    expect(here.page.locator(".said")).to_have_text("it broke")
    here.page.unroute("**/classify*")
    here.page.get_by_role("button", name="Try again").click()
    here.cards(DONE, 1)
    here.errors.clear()


def test_a_busy_service_is_asked_again_when_it_says(visit: Callable[..., Visit]) -> None:
    here = visit()
    answers = [{"status": 429, "headers": {"Retry-After": "1", "Content-Type": "application/json"}, "body": "{}"}]
    here.page.route("**/classify*", lambda route: route.fulfill(**answers.pop()) if answers else route.continue_())
    here.choose(BOAT)
    expect(here.page.locator(".state")).to_have_text("The service is busy, trying again in 1 s")
    here.cards(DONE, 1)
    here.errors.remove(refused(429))


def test_a_thumbnail_a_bar_and_a_state_are_there_before_the_answer(visit: Callable[..., Visit]) -> None:
    here = visit()
    held: list[Any] = []
    here.page.route("**/classify*", lambda route: held.append(route))
    here.choose(*[BOAT] * 5)
    expect(here.page.locator(".card .thumb img:visible")).to_have_count(5)
    # Three at a time; the others wait for theirs.
    here.cards("[data-state=waiting]", 2)
    assert eventually(lambda: here.page.evaluate("0") == 0 and len(held) == 3)
    expect(here.page.locator(".card progress:visible")).to_have_count(5)
    expect(here.page.locator(".card[aria-busy=true]")).to_have_count(5)
    assert len(held) == 3
    held.pop(1).continue_()
    here.cards(DONE, 1)  # none waits for another
    assert eventually(lambda: here.page.evaluate("0") == 0 and len(held) == 3)
    for count in (2, 3, 4, 5):
        held.pop().continue_()
        here.cards(DONE, count)


def test_remove_and_clear(visit: Callable[..., Visit]) -> None:
    here = visit()
    here.choose(CAT, BOAT, ASTRONAUT)
    here.cards(DONE, 3)
    here.page.get_by_role("button", name="Remove boat.jpg").click()
    assert here.page.locator(".card .file").all_inner_texts() == ["cat.jpg", "astronaut.jpg"]
    expect(here.page.get_by_role("button", name="Remove astronaut.jpg")).to_be_focused()
    here.page.get_by_role("button", name="Clear all").click()
    expect(here.page.locator(".card")).to_have_count(0)
    expect(here.page.locator("#results")).to_be_hidden()
    expect(here.page.get_by_role("button", name="Choose images")).to_be_focused()


def test_the_slider_shows_more_classes_at_once(visit: Callable[..., Visit]) -> None:
    here = visit()
    here.choose(BOAT)
    here.cards(DONE, 1)
    asked = len(here.requests)
    for count in (10, 1):
        here.page.get_by_role("slider", name="Classes shown").fill(str(count))
        expect(here.page.locator(".bars li")).to_have_count(count)
    assert len(here.requests) == asked


@pytest.mark.parametrize("secure", [True, False], ids=["clipboard", "without"])
def test_copies(visit: Callable[..., Visit], server: Server, secure: bool) -> None:
    here = visit(permissions=["clipboard-read", "clipboard-write"])
    if not secure:  # as on http://192.168.…: there is no navigator.clipboard
        here.page.evaluate(
            """() => {
                window.board = navigator.clipboard;
                Object.defineProperty(navigator, "clipboard", { value: undefined });
            }"""
        )
    read = "navigator.clipboard.readText()" if secure else "board.readText()"
    here.choose({"name": "it's a boat.jpg", "mimeType": "image/jpeg", "buffer": BOAT.read_bytes()})
    here.cards(DONE, 1)
    here.page.get_by_role("button", name="Copy JSON").click()
    expect(here.page.locator("#toast")).to_have_text("Copied")
    reply = json.loads(here.page.evaluate(read))
    assert (reply["predictions"][0]["label"], len(reply["predictions"])) == ("ship", 10)
    here.page.get_by_role("button", name="Copy as curl").click()
    assert eventually(lambda: here.page.evaluate(read).startswith("curl"))
    command = here.page.evaluate(read)
    assert command.endswith(f"'{server.url}/classify?top_k=5'")


def test_the_copied_command_works(visit: Callable[..., Visit], tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not here")
    here = visit(permissions=["clipboard-read", "clipboard-write"])
    name = 'a "boat"; it\'s $HOME, x.jpg'
    shutil.copy(BOAT, tmp_path / name)
    here.choose({"name": name, "mimeType": "image/jpeg", "buffer": BOAT.read_bytes()})
    here.cards(DONE, 1)
    here.page.get_by_role("button", name="Copy as curl").click()
    expect(here.page.locator("#toast")).to_have_text("Copied")
    command = here.page.evaluate("navigator.clipboard.readText()")
    told = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert json.loads(told)["predictions"][0]["label"] == "ship"


# Not sure.


def test_the_rule_of_not_sure(visit: Callable[..., Visit]) -> None:
    here = visit()
    module = here.page.locator("link[href$='verdict.js']").get_attribute("href")
    call = "async ([module, predictions]) => (await import(new URL(module, document.baseURI))).verdict(predictions)"
    for probabilities, judged in [
        ([0.97, 0.01], "sure"),
        ([0.75, 0.25], "sure"),  # a lead of exactly 50 points
        ([0.74, 0.25], "close"),
        ([0.7, 0.1], "sure"),
        ([0.7, 0.200001], "close"),
        ([0.699999, 0.1], "low"),
        ([0.3, 0.29], "low"),
        ([1.0], "sure"),
    ]:
        predictions = [{"probability": value} for value in probabilities]
        assert here.page.evaluate(call, [module, predictions]) == judged, probabilities
    call = call.replace("(predictions)", "(predictions, false)")
    assert here.page.evaluate(call, [module, [{"probability": 0.97}, {"probability": 0.01}]]) == "low"


def test_not_confident_and_the_group_in_both_languages(visit: Callable[..., Visit], server: Server) -> None:
    """The service's own threshold counts, where it is higher than the page's."""
    here = visit(model=server.client.get("/model").json() | {"min_confidence": 0.95})
    timing = {"decode": 1, "queue": 0, "inference": 2, "total": 3}
    predictions = [{"class_id": 5, "label": "dog", "label_zh": "狗", "probability": 0.94}]
    groups = [{"group_id": 0, "label": "pet", "label_zh": "宠物", "probability": 0.97}]
    reply = {"predictions": predictions, "groups": groups, "confident": False, "model": {}, "timing_ms": timing}
    here.page.route("**/classify*", lambda route: route.fulfill(json=reply))
    here.choose(ASTRONAUT)
    here.cards(DONE, 1)
    expect(here.page.locator("#rule")).to_contain_text("the first class has less than 95%")
    expect(here.page.locator(".verdict")).to_have_text("Not sure: dog is the likeliest with only 94.0%.")
    expect(here.page.locator(".answer .group")).to_have_text("Group: pet, 97.0%")
    here.page.locator("[data-language=zh]").click()
    expect(here.page.locator(".verdict")).to_have_text("不确定：最像狗，但只有 94.0%。")
    expect(here.page.locator(".answer .group")).to_have_text("大类：宠物，97.0%")


def test_what_is_missing_of_a_picture_in_both_languages(visit: Callable[..., Visit]) -> None:
    here = visit()
    predictions = [{"class_id": 5, "label": "dog", "label_zh": "狗", "probability": 0.97}]
    timing = {"decode": 1, "queue": 0, "inference": 2, "total": 3}
    reply: dict[str, Any] = {"predictions": predictions, "model": {}, "timing_ms": timing}
    reply["warnings"] = ["the file of the JPEG image ends early: detail is missing"]
    here.page.route("**/classify*", lambda route: route.fulfill(json=reply))
    here.choose(ASTRONAUT)
    here.cards(DONE, 1)
    expect(here.page.locator(".verdict")).to_have_text("The file ends early: part of the picture is missing.")
    here.page.locator("[data-language=zh]").click()
    expect(here.page.locator(".verdict")).to_have_text("文件不完整：图片缺少一部分。")


def test_not_sure_in_words(visit: Callable[..., Visit]) -> None:
    here = visit()

    def answer(first: float, second: float) -> str:
        predictions = [
            {"class_id": 5, "label": "dog", "label_zh": "狗", "probability": first},
            {"class_id": 3, "label": "cat", "label_zh": "猫", "probability": second},
        ]
        timing = {"decode": 1, "queue": 0, "inference": 2, "total": 3}
        return json.dumps({"predictions": predictions, "model": {}, "timing_ms": timing})

    answers = [answer(0.72, 0.26), answer(0.31, 0.05), answer(0.9996, 0.0004)]
    here.page.route("**/classify*", lambda route: route.fulfill(body=answers.pop(0), content_type="application/json"))
    for count in (1, 2, 3):
        here.choose(ASTRONAUT)
        here.cards(DONE, count)
    titles = here.page.locator(".answer h3")
    expect(titles).to_have_text(["Perhaps dog 狗", "Perhaps dog 狗", "dog 狗"])
    notes = here.page.locator(".verdict")
    expect(notes.nth(0)).to_have_text("Not sure: dog with 72.0%, but cat has 26.0% as well.")
    expect(notes.nth(1)).to_have_text("Not sure: dog is the likeliest with only 31.0%.")
    expect(notes.nth(2)).to_be_hidden()
    expect(here.page.locator(".card").nth(2).locator(".bars b")).to_have_text(["> 99.9%", "< 0.1%"])
    expect(here.page.locator("#rule")).to_contain_text(
        "less than 70%, or leads the second by less than 50 percentage points"
    )
    expect(here.page.locator("#rule")).to_contain_text("10 classes")


# Languages.


def test_the_language_is_the_browser_s_until_it_is_switched_and_that_is_remembered(visit: Callable[..., Visit]) -> None:
    here = visit(locale="zh-CN")
    chinese, english = pages.strings("zh"), pages.strings("en")
    expect(here.page.locator("h1")).to_have_text(chinese["headline"])
    here.choose(BOAT)
    expect(here.page.locator(".answer h3")).to_have_text("船 ship")
    here.page.get_by_role("button", name="English").click()
    expect(here.page.locator("h1")).to_have_text(english["headline"])
    expect(here.page.locator(".answer h3")).to_have_text("ship 船")
    expect(here.page.locator("#demo")).to_contain_text("airplane, automobile")
    assert here.page.locator("html").get_attribute("lang") == "en"
    here.page.reload()
    expect(here.page.locator("h1")).to_have_text(english["headline"])
    expect(here.page.get_by_role("button", name="English")).to_have_attribute("aria-pressed", "true")
    here.page.get_by_role("button", name="中文").click()
    expect(here.page.locator("#demo")).to_contain_text("飞机、小轿车")
    here.page.reload()
    expect(here.page.locator("h1")).to_have_text(chinese["headline"])


def test_the_whole_page_is_in_the_language_that_it_was_switched_to(visit: Callable[..., Visit]) -> None:
    """As the service sends it, so the browser makes it: the two ways to fill in the words agree."""
    first, switched = visit(locale="zh-CN"), visit(locale="en-GB")
    switched.page.get_by_role("button", name="中文").click()
    expect(switched.page.locator("h1")).to_have_text(pages.strings("zh")["headline"])
    # What is for browsers without scripts is no element in one with them; a card gets its words when it is made.
    whole = """() => {
        for (const element of document.querySelectorAll("noscript, template")) element.remove();
        return document.documentElement.lang + document.title + document.body.innerHTML;
    }"""
    assert switched.page.evaluate(whole) == first.page.evaluate(whole)


# For everyone.


def test_by_keyboard_alone(visit: Callable[..., Visit]) -> None:
    here = visit()
    page = here.page
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    assert page.locator(".skip").bounding_box()["height"] > 20  # type: ignore[index]
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Choose images")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([BOAT, CAT])
    here.cards(DONE, 2)

    def tab_to(name: str) -> None:
        for _ in range(40):
            if (
                page.evaluate("(document.activeElement.ariaLabel ?? '') + document.activeElement.innerText").strip()
                == name
            ):
                break
            page.keyboard.press("Tab")
        else:
            raise AssertionError(f"{name!r} is not reached by Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outline")
        assert "3px" in outline, f"{name!r} does not show that it has the focus: {outline}"

    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#top-k-value")).to_have_text("6")
    tab_to("Remove boat.jpg")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Remove cat.jpg")).to_be_focused()
    tab_to("Copy as curl")
    tab_to("Live")
    page.keyboard.press("Enter")
    expect(page.locator("#live-rate")).to_be_visible()
    page.keyboard.press("Shift+Tab")
    page.get_by_role("button", name="Clear all").focus()
    page.keyboard.press("Space")
    expect(page.locator(".card")).to_have_count(0)


def test_answers_are_read_out(visit: Callable[..., Visit]) -> None:
    here = visit()
    here.choose(BOAT, NOT_AN_IMAGE)
    announcer = here.page.locator("#announcer[role=status]")
    expect(announcer).to_contain_text(re.compile(r"boat\.jpg: ship, \d\d\.\d%"))
    here.page.get_by_role("button", name="Try again").click()
    expect(announcer).to_have_text("holiday.jxl: This is not an image the service can read")
    here.errors.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
def test_axe_finds_nothing(visit: Callable[..., Visit], axe: str, scheme: str, width: int) -> None:
    here = visit(color_scheme=scheme, viewport={"width": width, "height": 900}, reduced_motion="reduce")
    here.choose(ASTRONAUT, NOT_AN_IMAGE, BOAT)
    here.cards(DONE, 2)
    here.cards(FAILED, 1)
    here.page.locator("#live summary").click()
    here.page.evaluate(axe)
    for hidden in ("key", "offline", "toast"):
        here.page.evaluate("(id) => (document.getElementById(id).hidden = false)", hidden)
    found = here.page.evaluate("axe.run()")["violations"]
    told = [(one["id"], one["impact"], [node["html"][:120] for node in one["nodes"]]) for one in found]
    assert told == []
    here.errors.clear()


@pytest.mark.parametrize("size", [(320, 568), (390, 844), (768, 1024), (1280, 800), (3840, 2160)], ids=str)
def test_it_fits_the_screen(visit: Callable[..., Visit], size: tuple[int, int]) -> None:
    width, height = size
    here = visit(viewport={"width": width, "height": height})
    for _ in range(2):
        assert here.page.evaluate("document.documentElement.scrollWidth") <= width
        assert here.page.get_by_role("button", name="Choose images").bounding_box()["y"] < height  # type: ignore[index]
        here.choose(BOAT, CAT)
        expect(here.page.locator(f".card{DONE}").nth(1)).to_be_visible()
    small = here.page.evaluate(
        """() => [...document.querySelectorAll("button, summary, .tools label")]
            .filter((element) => element.checkVisibility() && element.getBoundingClientRect().height < 32)
            .map((element) => element.outerHTML)"""
    )
    assert small == []


def test_dark_and_light_are_the_system_s(visit: Callable[..., Visit]) -> None:
    def brightness(scheme: str) -> int:
        colour = visit(color_scheme=scheme).page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    assert brightness("dark") < 100 < 600 < brightness("light")


def test_nothing_moves_for_who_wants_that(visit: Callable[..., Visit]) -> None:
    here = visit(reduced_motion="reduce")
    held: list[Any] = []
    here.page.route("**/classify*", lambda route: held.append(route))
    here.choose(BOAT)
    expect(here.page.locator("[data-state=analysing], [data-state=uploading]")).to_have_count(1)
    assert here.page.evaluate("document.getAnimations().length") == 0
    held[0].continue_()
    here.cards(DONE, 1)


# The model and the service.


def test_the_banner_of_the_demo(visit: Callable[..., Visit]) -> None:
    here = visit()
    banner = here.page.locator("#demo")
    expect(banner).to_contain_text("This is the demo model.")
    expect(banner).to_contain_text("airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck")
    expect(banner.locator("code")).to_have_text("make model WEIGHTS=imagenet")
    expect(here.page.locator("#model")).to_have_text(
        re.compile(r"Demo weights · (int8|fp32) · ONNX Runtime on CPU · 10 classes")
    )


def test_no_banner_for_other_weights(visit: Callable[..., Visit], server: Server) -> None:
    here = visit(model=server.client.get("/model").json() | {"weights": {"origin": "imagenet"}, "classes": 1000})
    expect(here.page.locator("#model")).to_have_text(re.compile("ImageNet weights · .* · 1,000 classes"))
    expect(here.page.locator("#demo")).to_be_hidden()
    assert not [request for request in here.requests if request.endswith("/labels")]


def test_a_model_of_two_classes(visit: Callable[..., Visit], server: Server) -> None:
    here = visit(model=server.client.get("/model").json() | {"classes": 2})
    here.choose(BOAT)
    expect(here.page.locator(".bars li")).to_have_count(2)
    expect(here.page.get_by_role("slider")).to_have_attribute("max", "2")
    expect(here.page.locator("#top-k-value")).to_have_text("2")


def test_the_live_panel_asks_only_while_it_is_seen(visit: Callable[..., Visit]) -> None:
    here = visit()
    here.page.clock.install()

    def asked() -> int:
        return sum(request.endswith("/metrics") for request in here.requests)

    here.page.clock.run_for(10_000)
    assert asked() == 0
    here.page.locator("#live summary").click()
    assert eventually(lambda: here.page.evaluate("1") == 1 and asked() == 1)
    here.choose(BOAT, CAT)
    here.cards(DONE, 2)
    here.page.clock.run_for(2_600)
    expect(here.page.locator("#live-rate")).to_have_text(re.compile(r"^\d+(\.\d)?$"))
    expect(here.page.locator("#live-p99")).to_have_text(re.compile(r"^[\d.,]+ ms$"))
    expect(here.page.locator("#live-batch")).to_have_text(re.compile(r"^[\d.]+$"))
    expect(here.page.locator("#live-queue")).to_have_text("0")
    expect(here.page.locator("#live-slo")).to_have_text("met")
    expect(here.page.locator("#live-slo-name")).to_have_text("SLO: 99% in 1,000 ms")
    before = asked()
    here.page.evaluate("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    here.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    here.page.clock.run_for(20_000)
    assert asked() == before
    here.page.evaluate("Object.defineProperty(document, 'hidden', { value: false })")
    here.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    assert eventually(lambda: here.page.evaluate("1") == 1 and asked() == before + 1)
    here.page.locator("#live summary").click()
    expect(here.page.locator("#live-rate")).to_be_hidden()
    before = asked()
    here.page.clock.run_for(20_000)
    assert asked() == before


def test_percentiles_are_prometheus_s(visit: Callable[..., Visit]) -> None:
    here = visit()
    module = here.page.locator("link[href$='live.js']").get_attribute("href")

    def quantile(q: float, *counts: int) -> float | None:
        text = "\n".join(
            f'resnet18_stage_seconds_bucket{{le="{edge}",stage="total"}} {count}.0\n'
            f'resnet18_stage_seconds_bucket{{le="{edge}",stage="queue"}} 99.0'
            for edge, count in zip(("0.01", "0.1", "1.0", "+Inf"), counts, strict=True)
        )
        before = re.sub(r"} (\d+)", "} 0", text)
        call = """async ([module, q, before, after]) => {
            const { parse, quantile } = await import(new URL(module, document.baseURI));
            return quantile(q, parse(before, 0), parse(after, 1));
        }"""
        found: float | None = here.page.evaluate(call, [module, q, before, text])
        return found

    assert quantile(0.5, 0, 0, 0, 0) is None
    assert quantile(0.5, 10, 10, 10, 10) == pytest.approx(0.005)
    assert quantile(0.5, 0, 10, 10, 10) == pytest.approx(0.055)
    assert quantile(0.99, 50, 90, 100, 100) == pytest.approx(0.1 + 0.9 * 0.9)
    assert quantile(0.99, 0, 0, 0, 10) == pytest.approx(1.0)


def test_a_service_that_dies_and_comes_back(visit: Callable[..., Visit], store: Path) -> None:
    first = Server(store).wait()
    second: Server | None = None
    try:
        here = visit(first.url)
        here.choose(CAT)
        here.cards(DONE, 1)
        for process in first.processes():
            os.kill(process, signal.SIGKILL)
        first.process.wait()
        here.choose(BOAT)
        here.cards(FAILED, 1)
        expect(here.page.locator(".failure h3:visible")).to_have_text("The service did not answer")
        expect(here.page.get_by_role("alert")).to_contain_text("The service does not answer")
        # The other language's words are not here yet: the page stays as it is, and works.
        here.page.get_by_role("button", name="中文").click()
        expect(here.page.locator("h1")).to_have_text(pages.strings("en")["headline"])
        second = Server(store, port=first.port).wait()
        here.cards(DONE, 2)
        expect(here.page.get_by_role("alert")).to_have_count(0)
        expect(here.page.locator("#toast")).to_have_text("The service is back")
        here.page.get_by_role("button", name="中文").click()
        expect(here.page.locator("h1")).to_have_text(pages.strings("zh")["headline"])
        here.errors.clear()
    finally:
        first.stop()
        if second is not None:
            second.stop()


def test_a_service_with_keys(visit: Callable[..., Visit], launch: Callable[..., Server]) -> None:
    key = "only-for-the-test-7f3a"
    here = visit(launch(api_keys=key).wait().url, known=False)
    asked = here.page.get_by_label("This service asks for an API key")
    expect(asked).to_be_visible()
    here.choose(BOAT)
    here.cards(FAILED, 1)
    told = here.page.locator("#toast")
    for attempt, said in (
        ("a-key\u200b-from-a-chat", "A key has letters, digits and signs of ASCII only"),
        ("not-the-key-of-this-one", "The service does not know this key"),
        (key, ""),
    ):
        expect(asked).to_be_visible()
        asked.fill(attempt)
        here.page.get_by_role("button", name="Use key").click()
        if said:
            expect(told).to_contain_text(said)
            expect(asked).to_have_value(attempt)
    here.cards(DONE, 1)
    expect(here.page.locator("#key")).to_be_hidden()
    expect(here.page.locator("#model")).to_contain_text("·")
    assert here.page.evaluate("Object.values(sessionStorage)") == [key]
    assert here.page.evaluate("Object.values(localStorage)") == []
    assert set(here.errors) == {refused(401)}
    here.errors.clear()


def error_reply(status: int, code: str, **headers: str) -> dict[str, Any]:
    return {"status": status, "json": {"error": {"code": code, "message": "no"}}, "headers": headers}


def test_a_model_that_is_refused_at_first_is_asked_for_again(visit: Callable[..., Visit], server: Server) -> None:
    here = visit(known=False)
    replies = [error_reply(429, "rate_limited", **{"Retry-After": "1"}), {"json": server.client.get("/model").json()}]
    here.page.route("**/model", lambda route: route.fulfill(**replies.pop(0)))
    here.page.reload()
    expect(here.page.locator("#model")).to_contain_text("·")
    assert replies == []
    here.errors.remove(refused(429))


def test_what_a_balancer_says_of_a_service_that_is_away_is_not_the_end(visit: Callable[..., Visit]) -> None:
    here = visit()
    replies = [error_reply(503, "unavailable")]
    here.page.route("**/classify*", lambda route: route.fulfill(**replies.pop()) if replies else route.continue_())
    here.choose(BOAT)
    here.cards(DONE, 1)
    expect(here.page.locator("#toast")).to_have_text("The service is back")
    here.errors.remove(refused(503))


@pytest.mark.parametrize(
    ("status", "headline"), [(402, "The service refused the image"), (507, "Something went wrong in the service")]
)
def test_a_code_without_a_headline_has_its_status_s(visit: Callable[..., Visit], status: int, headline: str) -> None:
    here = visit()
    here.page.route("**/classify*", lambda route: route.fulfill(**error_reply(status, "of_tomorrow")))
    here.choose(BOAT)
    here.cards(FAILED, 1)
    failed = here.page.locator(f".card{FAILED}")
    expect(failed.locator("h3:visible")).to_have_text(headline)
    expect(failed.locator(".said")).to_have_text("no")
    here.errors.remove(refused(status))


def test_what_was_removed_while_it_waited_keeps_no_other_waiting(visit: Callable[..., Visit]) -> None:
    here = visit()
    replies = [error_reply(429, "overloaded", **{"Retry-After": "30"})] * 3
    here.page.route("**/classify*", lambda route: route.fulfill(**replies.pop()) if replies else route.continue_())
    here.choose(BOAT, CAT, ASTRONAUT)
    expect(here.page.get_by_text("trying again in 30 s")).to_have_count(3)
    here.page.get_by_role("button", name="Clear all").click()
    here.choose(CAT)
    here.cards(DONE, 1)
    assert set(here.errors) == {refused(429)}
    here.errors.clear()


# How it loads.


def test_the_first_paint_needs_one_round_trip(chromium: Browser, server: Server) -> None:
    context = chromium.new_context(locale="zh-CN")
    page = context.new_page()
    page.route("**/web/**", lambda route: None)  # nothing but the document ever comes
    page.goto(server.url, wait_until="commit")
    expect(page.locator("h1")).to_have_text(pages.strings("zh")["headline"])
    # Playwright's own way to wait evaluates text in the page, which the page's policy forbids.
    painted = "performance.getEntriesByName('first-contentful-paint').length"
    assert eventually(lambda: page.evaluate(painted) == 1)
    assert page.evaluate("getComputedStyle(document.querySelector('.primary')).borderRadius") != "0px"
    context.close()


def test_it_loads_light_and_clean(visit: Callable[..., Visit]) -> None:
    """One visit's bytes as the browser counts them, unpacked; and, by the fixture, no errors and nothing foreign."""
    here = visit(locale="zh-CN")
    sizes = here.page.evaluate(
        """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
            .map(({ name, decodedBodySize }) => [name, decodedBodySize])"""
    )
    page = {name: size for name, size in sizes if not re.search(r"\.jpg$|/(model|labels)$", name)}
    assert len(page) >= 11
    assert 30_000 < sum(page.values()) < 60_000


def test_swagger_s_page_works_and_reports_to_no_one(chromium: Browser, server: Server) -> None:
    context = chromium.new_context()
    page = context.new_page()
    requests: list[Request] = []
    context.on("request", lambda request: requests.append(request))
    page.goto(f"{server.url}/docs")
    expect(page.locator(".opblock-summary-path", has_text="/classify").first).to_be_visible()
    foreign = [request for request in requests if not request.url.startswith((server.url, "data:"))]
    # Its badges are asked for as well, and like the tracker not let out.
    assert eventually(lambda: page.evaluate("0") == 0 and all(request.failure == "csp" for request in foreign))
    assert not [request.url for request in foreign if "google" in request.url]
    context.close()
