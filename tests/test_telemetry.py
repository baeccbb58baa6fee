"""Nothing is sent home: in a fresh home and a bare environment, no file is left and no foreign name looked up."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from deploy.variants import VARIANTS
from runners import telemetry
from tests.conftest import ROOT, debian, eventually, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

# What a name server is asked: an identifier, "recursion desired", one question, no more; then the name's labels.
QUESTION = re.compile(rb"..\x01[\x00\x20]\x00\x01\x00\x00\x00\x00\x00[\x00\x01]((?:[\x01-\x3f][\w-]+)+)\x00", re.DOTALL)
# ONNX Runtime looks its collector up ten seconds after it is imported.
REPORTS_AFTER_S = 13
SENT = re.compile(r'"((?:\\x[0-9a-f]{2})+)"')


@dataclass(frozen=True)
class Watched:
    """A command run under strace in a home folder of its own, without any variable that could keep it quiet."""

    folder: Path
    store: Path
    strace: str

    def start(self, command: Sequence[str], **env: str) -> subprocess.Popen[str]:
        """The command, started; ORT takes a CI's variables for a reason to be quiet, so none of ours is passed on."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        watch = [self.strace, "-f", "-qq", "-xx", "-s", "512", "-e", "trace=sendto,sendmsg,sendmmsg"]
        bare = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}
        return subprocess.Popen(
            [*watch, "-o", str(self.folder / "trace"), *command],
            cwd=ROOT,
            env=bare | {"BENTOML_HOME": str(self.store)} | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: Sequence[str], **env: str) -> tuple[int, str]:
        """The status and the output of the command."""
        process = self.start(command, **env)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def files(self) -> list[str]:
        """What is in the home folder."""
        return sorted(str(path.relative_to(self.folder)) for path in (self.folder / "home").rglob("*"))

    def names(self) -> set[str]:
        """The names that name servers were asked for, without this machine's own."""
        found = set()
        for sent in SENT.findall((self.folder / "trace").read_text()):
            for question in QUESTION.findall(bytes.fromhex(sent.replace("\\x", ""))):
                name, labels = [], question
                while labels:
                    name.append(labels[1 : 1 + labels[0]].decode())
                    labels = labels[1 + labels[0] :]
                found.add(".".join(name))
        return {name for name in found if name.partition(".")[0] not in ("localhost", socket.gethostname())}


@pytest.fixture
def watched(tmp_path: Path, store: Path) -> Watched:
    """See Watched; the store holds the demo model."""
    watched = Watched(tmp_path, tmp_path / "store", debian("strace", command="strace"))
    watched.store.mkdir()
    (watched.store / "models").symlink_to(store / "models")
    look_up = "import socket\ntry: socket.getaddrinfo('watched.invalid', 80)\nexcept OSError: pass"
    status, output = watched.run([sys.executable, "-c", look_up])
    if status or "watched.invalid" not in watched.names():
        pytest.skip(f"look-ups can't be watched here: {output}")
    return watched


def test_what_is_watched_for_is_seen(watched: Watched) -> None:
    """ONNX Runtime and BentoML as they come: what the other tests say is absent would be found."""
    status, output = watched.run([sys.executable, "-c", f"import onnxruntime, time; time.sleep({REPORTS_AFTER_S})"])
    assert status == 0, output
    assert any("onnxruntime" in file for file in watched.files())
    assert any(name.endswith("microsoft.com") for name in watched.names())
    watched.run([sys.executable, "-m", "bentoml", "serve", "nothing:here"])
    assert "t.bentoml.com" in watched.names()


@pytest.mark.parametrize("way", ["bentoml", "make"])
def test_serving_and_classifying(watched: Watched, way: str, photos: list[Path]) -> None:
    port = str(free_port())
    command = [sys.executable, "-m", "bentoml", "serve", "service:ResNet18", "--host", "127.0.0.1", "--port", port]
    if way == "make":
        command = ["make", "-o", ".venv/build.done", "serve", f"BIN={Path(sys.executable).parent}", f"PORT={port}"]
    image = {"image": photos[0].read_bytes()}
    process = watched.start(command)
    try:

        def classified() -> bool:
            try:
                reply = httpx.post(f"http://127.0.0.1:{port}/classify", files=image, timeout=30)
            except httpx.TransportError:
                return False
            return reply.status_code == 200

        assert eventually(classified, 60)
        time.sleep(REPORTS_AFTER_S)
    finally:
        # strace does not pass the signal on.
        tree = psutil.Process(process.pid).children(recursive=True)
        for child in tree:
            if child.name().startswith("python") and "serve" in child.cmdline():
                child.terminate()
        try:
            output, _ = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            for child in tree:
                child.kill()
            raise
    assert "cleanup finalized" in output, output
    assert (watched.files(), watched.names()) == ([], set())


def test_a_refusal_to_start(watched: Watched) -> None:
    command = [sys.executable, "-m", "bentoml", "serve", "service:ResNet18"]
    status, output = watched.run(command, RESNET18_DEVICE="abacus")
    assert (status, "RESNET18_DEVICE='abacus'" in output) == (1, True), output
    assert (watched.files(), watched.names()) == ([], set())


def test_packing_a_bento(watched: Watched) -> None:
    status, output = watched.run([sys.executable, "-m", "bentoml", "build", "-o", "tag"])
    assert (status, "__tag__" in output) == (0, True), output
    assert (watched.files(), watched.names()) == ([], set())


def test_building_a_model(watched: Watched, tmp_path: Path) -> None:
    arguments = ["--weights", "demo", "--runtime", "onnx", "--precisions", "fp32,int8"]
    home = tmp_path / "built"
    status, output = watched.run([sys.executable, "-m", "model_build", *arguments], BENTOML_HOME=str(home))
    assert (status, "resnet18-onnx-int8" in output) == (0, True), output
    assert (watched.files(), watched.names()) == ([], set())


def test_bentoml_forgets_what_it_had_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from bentoml._internal.utils.analytics import usage_stats

    for name in telemetry.OFF:
        monkeypatch.delenv(name, raising=False)
    usage_stats.do_not_track.cache_clear()
    assert not usage_stats.do_not_track()
    telemetry.off()
    assert usage_stats.do_not_track()
    assert {name: os.environ[name] for name in telemetry.OFF} == telemetry.OFF


def test_whatever_ships_says_it_too() -> None:
    """Images and bentos tell processes that are not ours, such as a shell's in the container."""
    shipped = ["Makefile", *dict.fromkeys(variant.bentofile for variant in VARIANTS.values())]
    for name in [*shipped, "deploy/image/Containerfile"]:
        text = (ROOT / name).read_text()
        for variable, value in telemetry.OFF.items():
            assert re.search(rf'{variable}( := |=|\n    value: "){value}\b', text), (name, variable)
