"""An address that can't be listened on is refused in a sentence, with what to set; one that can is told as it is."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from serving import address
from tests.conftest import ROOT, Server, environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of 127.0.0.1 on which this process listens."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listening:
        port: int = listening.getsockname()[1]
        yield port


def refusal(store: Path, *arguments: str, **env: str) -> tuple[int, list[str]]:
    """The exit status and the lines of a service that should not start."""
    status, output = Server(store, arguments=arguments, env=env).ended()
    return status, output.splitlines()


def test_a_port_that_is_taken(store: Path, taken: int) -> None:
    status, lines = refusal(store, "--port", str(taken))
    told = f"resnet18: port {taken} of 127.0.0.1 is taken by "
    assert (status, len(lines)) == (1, 1), lines
    assert lines[0].startswith(told), lines
    assert f"(process {os.getpid()})" in lines[0]
    assert "make serve PORT=3001" in lines[0]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--port", "70000"), "port 70000 is not between 0"),
        (("--port", "-1"), "port -1 is not between 0"),
        (("--host", "localhost"), "host 'localhost' is no IP address; set HOST=127.0.0.1"),
        (("--host", "x86_64-conda-linux-gnu"), "host 'x86_64-conda-linux-gnu' is no IP address"),
        (("--host", "192.0.2.1"), "host '192.0.2.1' is no address of this machine"),
        (("--host", "2001:db8::1"), "host '2001:db8::1' is no address of this machine"),
    ],
)
def test_what_is_no_address(store: Path, arguments: tuple[str, ...], told: str) -> None:
    status, lines = refusal(store, *arguments)
    assert (status, len(lines)) == (1, 1), lines
    assert told in lines[0]


def test_a_port_that_is_no_number(store: Path) -> None:
    status, lines = refusal(store, "--port", "abc")
    assert status == 2
    assert lines[-1].endswith("'abc' is not a valid integer.")


@pytest.mark.parametrize("way", ["variable", "configuration"])
def test_bentoml_s_own_settings_are_checked_too(store: Path, taken: int, tmp_path: Path, way: str) -> None:
    (tmp_path / "bentoml.yaml").write_text(f"services: {{resnet18: {{http: {{host: 127.0.0.1, port: {taken}}}}}}}\n")
    variables = {
        "variable": ("BENTOML_PORT", str(taken)),
        "configuration": ("BENTOML_CONFIG", str(tmp_path / "bentoml.yaml")),
    }
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", "serve", "service:ResNet18"],
        cwd=ROOT,
        env=environment() | {"BENTOML_HOME": str(store), variables[way][0]: variables[way][1]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, f"port {taken} of " in done.stderr) == (1, True), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--ssl-certfile", "missing.pem"), "the certificate or its key can't be read, missing.pem: No such file"),
        (("--ssl-certfile", "README.md"), "'README.md' (--ssl-certfile) and 'README.md' (--ssl-keyfile) are no PEM"),
        (("--ssl-certfile", "README.md", "--ssl-keyfile", "none.pem"), "can't be read, none.pem: No such file"),
    ],
)
def test_what_is_no_certificate(store: Path, arguments: tuple[str, ...], told: str) -> None:
    status, lines = refusal(store, *arguments)
    assert (status, len(lines)) == (1, 1), lines
    assert told in lines[0]


def test_development_mode_has_no_runner(store: Path) -> None:
    status, lines = refusal(store, "--development", RESNET18_PLACEMENT="dedicated")
    assert (status, len(lines)) == (1, 1), lines
    assert "--development starts no runner; leave it out, or set RESNET18_PLACEMENT=inline" in lines[0]


def test_a_folder_too_deep_for_the_runner_s_socket(store: Path, tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    status, lines = refusal(store, TMPDIR=str(deep), RESNET18_PLACEMENT="dedicated")
    assert (status, len(lines)) == (1, 1), lines
    assert f"TMPDIR='{deep}' is too long for the runner's socket, by " in lines[0]


@pytest.mark.parametrize("over", [0, 1])
def test_the_longest_folder_is_bentoml_s(monkeypatch: pytest.MonkeyPatch, over: int) -> None:
    from _bentoml_impl.server import serving

    folder = "/" + "x" * (
        serving.MAX_AF_UNIX_PATH_LENGTH - 2 - len(f"/bentoml-uds-12345678/{id(object())}.sock") + over
    )
    monkeypatch.setattr(tempfile, "tempdir", folder)
    with pytest.raises(address.AddressError) if over else contextlib.nullcontext():
        address.check_folder()


def test_a_port_below_1024(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(address.AddressError, match="port 80 is for the system's administrator; choose another"):
        address.check("127.0.0.1", 80)


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("127.0.0.1", "http://127.0.0.1:3000"),
        ("10.0.0.7", "http://10.0.0.7:3000"),
        ("0.0.0.0", "http://127.0.0.1:3000"),
        ("::1", "http://[::1]:3000"),
        ("::", "http://[::1]:3000"),
    ],
)
def test_what_a_browser_opens(host: str, told: str) -> None:
    assert address.url(host, 3000) == told
