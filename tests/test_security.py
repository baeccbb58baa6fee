"""No package is installed or pinned in a version whose holes are known; SECURITY.md names what there is."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from classifier.settings import Settings
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Server

# Of each package the advisories that matter to what is served, and the first version without the hole. Not the whole
# list: `make audit` asks the advisory database for that, where it can be reached.
FLOORS = [
    ("pillow", "GHSA-8g5g-8vmr-9782", "13.0.0", "JPEG decoder writes over its buffer"),
    ("pillow", "CVE-2026-59199", "12.3.0", "crop() and paste() write out of bounds"),
    ("pillow", "CVE-2023-50447", "10.2.0", "code execution by ImageMath.eval"),
    ("bentoml", "CVE-2026-44346", "1.4.39", "commands in a bento's environment run by containerize"),
    ("bentoml", "CVE-2025-54381", "1.4.19", "file fields fetch URLs of the caller's choice"),
    ("bentoml", "CVE-2025-32375", "1.4.8", "a runner unpickles requests"),
    ("python-multipart", "CVE-2026-42561", "0.0.27", "part headers without bound"),
    ("python-multipart", "CVE-2026-40347", "0.0.26", "preamble and epilogue without bound"),
    ("python-multipart", "CVE-2024-53981", "0.0.18", "a log line a byte after the last boundary"),
    ("starlette", "CVE-2026-54283", "1.3.1", "limits of forms not enforced"),
    ("starlette", "CVE-2026-48710", "1.0.1", "the Host header changes the path that is checked"),
    ("starlette", "CVE-2025-62727", "0.49.1", "Range headers take quadratic time"),
    ("aiohttp", "PYSEC-2026-4371", "3.14.4", "request smuggling through the Python parser"),
    ("aiohttp", "CVE-2025-69223", "3.13.3", "compressed bodies without bound"),
    ("h11", "CVE-2025-43859", "0.16.0", "request smuggling through chunked bodies"),
    ("pydantic", "CVE-2024-3772", "2.4.0", "e-mail addresses take quadratic time"),
    ("jinja2", "CVE-2025-27516", "3.1.6", "a way out of the sandbox"),
    ("protobuf", "CVE-2026-0994", "6.33.5", "recursion without bound"),
    ("tornado", "CVE-2025-47287", "6.5", "a log line for each malformed part"),
    ("idna", "CVE-2024-3651", "3.7", "long names take quadratic time"),
    ("certifi", "CVE-2024-39689", "2024.7.4", "certificates of a distrusted authority"),
    ("torch", "CVE-2025-32434", "2.6.0", "code execution by load(weights_only=True)"),
]


def below(versions: dict[str, str], where: str) -> list[str]:
    """The advisories that ``versions``, of names in normal form, are open to; ``where`` they were found."""
    return [
        f"{where}: {package} {versions[package]} is open to {advisory} ({what}); at least {floor} is needed"
        for package, advisory, floor, what in FLOORS
        if package in versions and Version(versions[package]) < Version(floor)
    ]


def pinned(path: Path) -> dict[str, str]:
    """The packages that a requirements file pins, with their versions."""
    pins: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        if text and not text.startswith("-"):
            requirement = Requirement(text)
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", f"{path.name}: {text} is not pinned"
            pins[canonicalize_name(requirement.name)] = specifier.version
    return pins


REQUIREMENTS = sorted((ROOT / "requirements").glob("*.txt"))


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.stem)
def test_no_pin_is_below_its_floor(path: Path) -> None:
    assert below(pinned(path), path.name) == []


def test_nothing_installed_is_below_its_floor() -> None:
    installed = {}
    for package in {package for package, *_ in FLOORS}:
        try:
            installed[package] = version(package)
        except PackageNotFoundError as error:
            raise AssertionError(f"{package} has a floor, but is not installed: remove its rows") from error
    assert below(installed, "installed") == []


def test_every_floor_is_of_a_package_that_is_pinned() -> None:
    known = {package for path in REQUIREMENTS for package in pinned(path)}
    assert {package for package, *_ in FLOORS} <= known


@pytest.mark.parametrize(("package", "advisory", "floor", "what"), FLOORS)
def test_a_version_below_a_floor_is_found(package: str, advisory: str, floor: str, what: str) -> None:
    assert advisory in "".join(below({package: f"{floor}.dev0"}, "a file"))
    assert advisory not in "".join(below({package: floor}, "a file"))


def test_what_security_md_names_exists() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    files = set(re.findall(r"`(tests/[\w/]+\.py)`", text))
    settings = set(re.findall(r"`(?:RESNET18_)?([A-Z]+(?:_[A-Z]+)+)`", text)) - {"BENTOML_NO_UDS"}
    assert len(files) > 5
    assert len(settings) > 5
    assert [name for name in files if not (ROOT / name).is_file()] == []
    assert {name.lower() for name in settings} <= set(Settings.model_fields)


def test_nothing_but_the_service_s_own_port_is_open(launch: Callable[..., Server]) -> None:
    server = launch(placement="dedicated").wait()
    listening = {
        connection.laddr.port
        for pid in server.processes()
        for connection in psutil.Process(pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {server.port}
