"""Pictures for docs/screenshots/, taken in Chromium: of the page, or of a load test's report. See --help.

For the page it builds the demo model into a store of its own and serves it. Photographs are the shared test photographs
where they are here, else the page's own samples.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click
from PIL import Image

from tests import browser
from tests.conftest import ROOT, SHARED, Server, environment

if TYPE_CHECKING:
    from typing import Literal

    from playwright.sync_api import Browser, Page

_SAMPLES = ROOT / "web" / "samples"
_DESKTOP, _PHONE = (1280, 800), (390, 844)


def photos(*names: str) -> list[Path]:
    """The shared photographs with these names, else the samples."""
    found = [path for name in names for path in (SHARED / "images" / "photos").glob(f"*_{name}.JPEG")]
    return found or sorted(_SAMPLES.glob("*.jpg"))


def take(
    chromium: Browser,
    url: str,
    target: Path,
    files: list[Path],
    *,
    size: tuple[int, int] = _DESKTOP,
    language: str = "en-GB",
    scheme: Literal["light", "dark"] = "light",
    live: bool = False,
) -> None:
    """Classify ``files`` on the page and write what is then to be seen to ``target``."""
    width, height = size
    phone = width < 600
    context = chromium.new_context(
        viewport={"width": width, "height": height},
        locale=language,
        color_scheme=scheme,
        has_touch=phone,
        is_mobile=phone,
        device_scale_factor=1.5 if phone else 1,
        reduced_motion="reduce",
        bypass_csp=True,  # for the style that hides the caret in pictures
    )
    page = context.new_page()
    page.goto(url)
    page.wait_for_function("document.getElementById('model').textContent.includes('·')")
    if files:
        page.set_input_files("#files", files)
        _settled(page, len(files))
    if live:
        page.evaluate("document.getElementById('live').open = true")
        page.wait_for_timeout(2_600)
        page.set_input_files("#files", files)
        _settled(page, 2 * len(files))
        page.wait_for_timeout(2_600)
        page.locator("#live").scroll_into_view_if_needed()
    page.screenshot(path=target)
    context.close()
    _shrink(target)


def take_report(chromium: Browser, report: Path, target: Path) -> None:
    """Write what is first to be seen of a load test's report to ``target``."""
    context = chromium.new_context(viewport={"width": 1200, "height": 1000})
    page = context.new_page()
    page.goto(report.resolve().as_uri())
    page.screenshot(path=target)
    context.close()
    _shrink(target)


def _shrink(target: Path) -> None:
    # A palette takes a third of the bytes, and photographs of this size hardly show it.
    Image.open(target).convert("RGB").quantize(dither=Image.Dither.FLOYDSTEINBERG).save(target, optimize=True)
    print(f"{target}: {target.stat().st_size / 1e3:.0f} KB")  # noqa: T201


def _settled(page: Page, count: int) -> None:
    page.wait_for_function(
        "count => document.querySelectorAll('[data-state=done], [data-state=failed]').length === count", arg=count
    )
    page.wait_for_function("[...document.querySelectorAll('.thumb img')].every((image) => image.complete)")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=ROOT / "docs" / "screenshots")
@click.option(
    "--report", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A report.html to picture."
)
def main(folder: Path, report: Path | None) -> None:
    """Take every picture of the page into FOLDER, or with --report that of a report only."""
    folder.mkdir(parents=True, exist_ok=True)
    path, reason = browser.find()
    if path is None:
        raise click.ClickException(reason)
    with browser.launched(path) as chromium:
        if report is None:
            take_all(chromium, folder)
        else:
            take_report(chromium, report, folder / "load.png")


def take_all(chromium: Browser, folder: Path) -> None:
    """Take every picture of the page into ``folder``."""
    with tempfile.TemporaryDirectory() as home:
        env = environment() | {"BENTOML_HOME": home}
        subprocess.run([sys.executable, "-m", "model_build", "--weights", "demo"], cwd=ROOT, env=env, check=True)
        server = Server(Path(home))
        try:
            url = server.wait().url
            cat = [_SAMPLES / "cat.jpg"]
            many = photos("airliner", "sorrel", "container_ship", "tree_frog", "school_bus", "golden_retriever")
            broken = Path(home) / "holiday.heic"
            broken.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0" + bytes(2000))
            take(chromium, url, folder / "start.png", [])
            take(chromium, url, folder / "result.png", cat)
            take(chromium, url, folder / "result-zh.png", cat, language="zh-CN")
            take(chromium, url, folder / "many.png", many)
            take(chromium, url, folder / "dark.png", many[:3], scheme="dark")
            take(chromium, url, folder / "error.png", [_SAMPLES / "astronaut.jpg", broken, *many[:1]])
            take(chromium, url, folder / "live.png", many[:2], live=True)
            take(chromium, url, folder / "phone.png", cat, size=_PHONE)
            take(chromium, url, folder / "phone-start-zh.png", [], size=_PHONE, language="zh-CN", scheme="dark")
        finally:
            server.stop()


if __name__ == "__main__":
    main()
