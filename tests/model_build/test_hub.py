"""ImageNet's weights with and without a hub: its cache, its download, and what goes wrong on the way."""

from __future__ import annotations

import gc
import hashlib
import http.server
import os
import socket
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch

from classifier.preprocessing import Preprocessing
from model_build import hub as hub_module
from model_build import scratch
from model_build.weights import WeightsError, find
from tests.model_build.checkpoints import made

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

FILE = "resnet18-f37072fd.pth"
# What urllib leaves to the garbage collector when a reply breaks off.
UNCLOSED = "ignore:unclosed:ResourceWarning"


class Hub(http.server.ThreadingHTTPServer):
    """A torch hub on this machine that answers every request with ``content``, or 404 without it."""

    content: bytes | None = None


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Hub)
        content = self.server.content
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A .pth of a random ResNet18 with ImageNet's number of classes."""
    path = tmp_path_factory.mktemp("thousand") / "w.pth"
    torch.save(made(1000), path)
    return path.read_bytes()


@pytest.fixture
def imagenet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hub: Hub) -> Path:
    """Where the hub's cache keeps ImageNet's file; what is not there would be fetched from ``hub``."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    address = f"http://127.0.0.1:{hub.server_address[1]}/models/{FILE}"
    assert hub_module.published("resnet18")[0].url.endswith(FILE)
    point_at(monkeypatch, address)
    return tmp_path / "torch" / "hub" / "checkpoints" / FILE


def point_at(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Make torchvision say that ImageNet's weights are at ``url``."""
    entry = SimpleNamespace(url=url, meta={"_file_size": 44.661})
    monkeypatch.setattr(hub_module, "published", lambda architecture: [entry])


def named_by_hash(content: bytes) -> str:
    return f"resnet18-{hashlib.sha256(content).hexdigest()[:8]}.pth"


class TestImagenet:
    """``--weights imagenet`` and ``auto``."""

    def test_from_the_cache(self, monkeypatch: pytest.MonkeyPatch, imagenet: Path, hub: Hub, thousand: bytes) -> None:
        name = named_by_hash(thousand)
        point_at(monkeypatch, f"http://127.0.0.1:{hub.server_address[1]}/{name}")
        imagenet.parent.mkdir(parents=True)
        (imagenet.parent / name).write_bytes(thousand)
        notices: list[str] = []
        for asked in ("imagenet", "auto"):
            checkpoint = find(asked, notice=notices.append)
            assert (checkpoint.origin, checkpoint.classes) == ("imagenet", 1000)
            assert checkpoint.preprocessing == Preprocessing(224, 256)
            assert checkpoint.labels.en[281] == "tabby"
            assert checkpoint.labels.zh is not None
        assert notices == []

    def test_the_real_name_holds_the_real_prefix(self, imagenet: Path, thousand: bytes) -> None:
        imagenet.parent.mkdir(parents=True)
        imagenet.write_bytes(thousand)
        digest = hashlib.sha256(thousand).hexdigest()
        with pytest.raises(WeightsError) as raised:
            find("imagenet")
        assert str(raised.value) == (
            f"{imagenet} is damaged: its sha256 starts with {digest[:8]!r}, not 'f37072fd'; "
            "delete it and run this again"
        )
        assert imagenet.is_file()  # it is the user's, and not deleted

    def test_download_with_progress_into_the_cache(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
        imagenet: Path,
        hub: Hub,
        thousand: bytes,
        tmp_path: Path,
    ) -> None:
        name, hub.content = named_by_hash(thousand), thousand
        point_at(monkeypatch, f"http://127.0.0.1:{hub.server_address[1]}/{name}")
        # What a killed build has left: in its folder of temporary files, and while it copied the file into the cache.
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        left = [tmp_path / "resnet18-hub-abcdefgh", imagenet.parent / ".resnet18-hub-abcdefgh"]
        for folder in left:
            folder.mkdir(parents=True)
            (folder / scratch.MARK).touch()
            os.utime(folder, (time.time() - 3600,) * 2)
        assert find("imagenet").classes == 1000
        assert not any(folder.exists() for folder in left)
        assert [path.name for path in imagenet.parent.iterdir()] == [name]
        assert (imagenet.parent / name).read_bytes() == thousand
        assert "100" in capfd.readouterr().err
        hub.content = None
        assert find("imagenet").classes == 1000  # from the cache now
        assert socket.getdefaulttimeout() is None

    def test_download_whose_hash_is_wrong(self, imagenet: Path, hub: Hub) -> None:
        hub.content = b"not the weights"
        with pytest.raises(WeightsError) as raised:
            find("imagenet")
        assert "invalid hash value" in str(raised.value)
        assert str(imagenet) in str(raised.value)
        assert not imagenet.parent.exists()

    def test_hub_without_the_file(self, imagenet: Path) -> None:
        with pytest.raises(WeightsError) as raised:
            find("imagenet")
        for text in ("HTTP Error 404", FILE, "http://127.0.0.1", f"place it at {imagenet}"):
            assert text in str(raised.value)

    def test_unreachable_hub(self, monkeypatch: pytest.MonkeyPatch, imagenet: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        url = f"http://127.0.0.1:{port}/models/{FILE}"
        point_at(monkeypatch, url)
        with pytest.raises(WeightsError) as raised:
            find("imagenet")
        message = str(raised.value)
        assert message.startswith("ImageNet's weights can't be downloaded (")
        assert "Connection refused" in message
        assert f"fetch {FILE} (45 MB) from {url}" in message
        assert message.endswith(f"place it at {imagenet}")

    @pytest.mark.filterwarnings(UNCLOSED)
    @pytest.mark.parametrize(
        "reply", [b"", b"no HTTP at all\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZ"]
    )
    def test_hub_that_answers_nonsense(self, monkeypatch: pytest.MonkeyPatch, imagenet: Path, reply: bytes) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            point_at(monkeypatch, f"http://127.0.0.1:{listener.getsockname()[1]}/{FILE}")

            def answer() -> None:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(reply)

            thread = threading.Thread(target=answer)
            thread.start()
            with pytest.raises(WeightsError, match="can't be downloaded"):
                find("imagenet")
            thread.join()
        gc.collect()

    @pytest.mark.filterwarnings(UNCLOSED)
    def test_silent_hub(self, monkeypatch: pytest.MonkeyPatch, imagenet: Path) -> None:
        monkeypatch.setattr(hub_module, "HUB_TIMEOUT_S", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            point_at(monkeypatch, f"http://127.0.0.1:{listener.getsockname()[1]}/{FILE}")
            with pytest.raises(WeightsError, match="timed out"):
                find("imagenet")
        gc.collect()
        assert socket.getdefaulttimeout() is None

    def test_cache_that_can_not_be_written(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, imagenet: Path
    ) -> None:
        (tmp_path / "file").write_bytes(b"")
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
        with pytest.raises(WeightsError, match=FILE):
            find("imagenet")

    def test_auto_falls_back_to_the_demo_and_says_so(self, imagenet: Path) -> None:
        notices: list[str] = []
        checkpoint = find("auto", notice=notices.append)
        assert (checkpoint.origin, checkpoint.classes) == ("demo", 10)
        (notice,) = notices
        assert f"place it at {imagenet}" in notice
        assert notice.endswith("The packaged demo checkpoint (CIFAR-10: 10 classes, 32 px) is used instead.")


class TestKnownFiles:
    """torchvision's own files have ImageNet's names, whatever they are called, and no other file has."""

    def test_by_the_digest_of_the_file(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, thousand: bytes) -> None:
        path = tmp_path / "renamed.bin"
        path.write_bytes(thousand)
        assert hub_module.preprocessing(path, "resnet18") is None
        monkeypatch.setattr(hub_module, "IMAGENET_FILES", {hashlib.sha256(thousand).hexdigest()})
        assert hub_module.preprocessing(path, "resnet18") == {}
        assert find(str(path)).labels.en[281] == "tabby"

    def test_the_digests_are_of_torchvision_s_names(self) -> None:
        """The hub's own names hold the first eight digits: today's, and the one before torchvision 0.9."""
        assert sorted(digest[:8] for digest in hub_module.IMAGENET_FILES) == ["5c106cde", "f37072fd"]
        assert {len(digest) for digest in hub_module.IMAGENET_FILES} == {64}
