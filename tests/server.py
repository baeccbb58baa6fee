"""A server as a user would start it, with the environment of a newcomer."""

from __future__ import annotations

import contextlib
import os
import signal
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from classifier.runtimes import DEFAULT, RUNTIMES
from harness.http import free_port, wait_ready

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]


class Server:
    """A service started as a user would, and stopped by its own process id.

    ``tls``: its certificate and key. ``arguments`` of the command line override those before.
    """

    def __init__(
        self,
        home: Path,
        *,
        cwd: Path = ROOT,
        target: str = "service:ResNet18",
        settings: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
        tls: tuple[Path, Path] | None = None,
        port: int | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.port = port or free_port()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        variables = (
            environment()
            | {"BENTOML_HOME": str(home)}
            | {f"RESNET18_{name.upper()}": value for name, value in (settings or {}).items()}
            | (dict(env) if env is not None else {})
        )
        # Weighing two engines at each start would take the suite minutes; test_service.py does it.
        runtime = RUNTIMES[variables.get("RESNET18_RUNTIME", DEFAULT)]
        variables.setdefault("RESNET18_ENGINE", runtime.engines[0])
        command = [sys.executable, "-m", "bentoml", "serve", target, "--host", "127.0.0.1", "--port", str(self.port)]
        if tls:
            command += ["--ssl-certfile", str(tls[0]), "--ssl-keyfile", str(tls[1])]
        command += arguments
        # A file: a pipe that nobody reads would stop the server once it is full.
        self._output = tempfile.TemporaryFile() if log is None else log.open("w+b")  # noqa: SIM115
        self._printed, self._told = "", False
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=variables,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._context = ssl.create_default_context(cafile=tls[0]) if tls else None
        self.client = httpx.Client(base_url=self.url, timeout=30, verify=self._context or True)

    def wait(self, seconds: float = 60) -> Server:
        """Return when the service is ready; fail with its output when it isn't within ``seconds``."""
        try:
            wait_ready(
                f"{self.url}/readyz", seconds, ended=lambda: self.process.poll() is not None, context=self._context
            )
        except OSError:
            raise AssertionError(f"not ready:\n{self.stop()}") from None
        return self

    def tell_to_stop(self) -> None:
        """Send SIGTERM, once, and don't wait."""
        if self.process.poll() is None and not self._told:
            self.process.send_signal(signal.SIGTERM)
        self._told = True

    def stop(self) -> str:
        """Stop it with SIGTERM, after 20 s with SIGKILL; what it printed."""
        self.client.close()
        self.tell_to_stop()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if not self._output.closed:
            self._output.seek(0)
            self._printed = self._output.read().decode(errors="replace")
            self._output.close()
        return self._printed

    def ended(self, seconds: float = 90) -> tuple[int, str]:
        """The exit status and output of one that should end by itself; fail with its output when it goes on."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it goes on:\n{self.stop()}") from None
        return status, self.stop()

    def workers(self, service: str = "resnet18") -> list[int]:
        """The process ids of a service's workers that live: "resnet18", the API, or "resnet18-runner"."""
        import psutil

        found = []
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):  # it may have ended since
                line = child.cmdline()
                if "--service-name" in line and line[line.index("--service-name") + 1] == service:
                    found.append(child.pid)
        return found

    def processes(self) -> list[int]:
        """The process ids of the whole tree."""
        import psutil

        root = psutil.Process(self.process.pid)
        return [root.pid, *(child.pid for child in root.children(recursive=True))]


@contextlib.contextmanager
def launching(store: Path) -> Iterator[Callable[..., Server]]:
    """A function that starts a server with settings given by name; all are stopped at the end, together."""
    started: list[Server] = []

    def start(port: int | None = None, **settings: str) -> Server:
        server = Server(store, settings=settings, port=port)
        started.append(server)
        return server

    try:
        yield start
    finally:
        for server in started:
            server.tell_to_stop()
        for server in started:
            server.stop()


def environment() -> dict[str, str]:
    """The environment a newcomer would have: no settings of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RESNET18_")}
    return kept | {"PYTHONPATH": str(ROOT)}


def output_of(code: str, store: Path, settings: Mapping[str, str]) -> str:
    """The output of ``code`` in a process of its own, whose settings are those of a dedicated service of ``store``."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment() | {"BENTOML_HOME": str(store), "RESNET18_PLACEMENT": "dedicated"} | dict(settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
