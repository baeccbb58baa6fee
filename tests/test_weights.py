"""Where weights come from: files of every kind, the packaged demo, ImageNet's with and without a hub."""

from __future__ import annotations

import gc
import hashlib
import http.server
import json
import os
import pickle
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file

from classifier.labels import Labels
from classifier.preprocessing import Preprocessing
from model_build import scratch, weights
from model_build.label_text import LabelsError
from model_build.network import import_torchvision, resnet18
from model_build.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Given
from model_build.weights import WeightsError, find

if TYPE_CHECKING:
    from collections.abc import Iterator

State = dict[str, torch.Tensor]
FILE = "resnet18-f37072fd.pth"
# What urllib leaves to the garbage collector when a reply breaks off.
UNCLOSED = "ignore:unclosed:ResourceWarning"


def made(classes: int) -> State:
    torch.manual_seed(classes)
    return dict(resnet18(classes).state_dict())


@pytest.fixture(scope="module")
def state() -> State:
    """A random ResNet18 of three classes."""
    return made(3)


def saved(path: Path, data: Any) -> str:
    if path.suffix == ".safetensors":
        save_file(data, path)
    else:
        torch.save(data, path)
    return str(path)


class TestFiles:
    """``--weights PATH``."""

    @pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.safetensors"])
    def test_formats(self, tmp_path: Path, state: State, name: str) -> None:
        checkpoint = find(saved(tmp_path / name, state))
        assert checkpoint.origin == name
        assert checkpoint.classes == 3
        assert checkpoint.labels == Labels(("class 0", "class 1", "class 2"))
        assert (checkpoint.preprocessing, checkpoint.upsample) == (Preprocessing(224, 256), None)
        assert (checkpoint.mean, checkpoint.std) == (IMAGENET_MEAN, IMAGENET_STD)
        torch.testing.assert_close(checkpoint.state["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])

    def test_one_digest_for_one_set_of_weights(self, tmp_path: Path, state: State) -> None:
        shuffled = dict(reversed(state.items()))
        files = {
            "a.pth": state,
            "b.pt": {"state_dict": shuffled},
            "c.safetensors": state,
            "d.pth": {f"module.{key}": value for key, value in state.items()},
            "e.pth": {key: value.double() for key, value in state.items()},
            "f.pth": {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")},
        }
        digests = {find(saved(tmp_path / name, data)).digest for name, data in files.items()}
        assert len(digests) == 1
        changed = state | {"fc.bias": state["fc.bias"] + 1e-3}
        assert find(saved(tmp_path / "g.pth", changed)).digest not in digests

    @pytest.mark.parametrize("wrapper", ["state_dict", "model"])
    def test_wrappers_of_training_scripts(self, tmp_path: Path, state: State, wrapper: str) -> None:
        data = {wrapper: {f"module.{key}": value for key, value in state.items()}, "epoch": 3, "optimizer": {}}
        assert find(saved(tmp_path / "w.pth", data)).classes == 3

    @pytest.mark.parametrize("classes", [1, 2, 37])
    def test_any_number_of_classes(self, tmp_path: Path, classes: int) -> None:
        checkpoint = find(saved(tmp_path / "w.safetensors", made(classes)))
        assert (checkpoint.classes, len(checkpoint.labels)) == (classes, classes)

    def test_a_thousand_classes_are_imagenets(self, tmp_path: Path) -> None:
        checkpoint = find(saved(tmp_path / "w.safetensors", made(1000)))
        assert checkpoint.labels.en[281] == "tabby"
        assert checkpoint.origin == "w.safetensors"

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_other_precisions_become_float32(self, tmp_path: Path, state: State, dtype: torch.dtype) -> None:
        data = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
        checkpoint = find(saved(tmp_path / "w.pth", data))
        assert {value.dtype for value in checkpoint.state.values()} == {torch.float32}

    def test_parameters_instead_of_tensors(self, tmp_path: Path, state: State) -> None:
        """As ``state_dict(keep_vars=True)`` gives, and many an averaging of weights."""
        data = dict(resnet18(3).state_dict(keep_vars=True))
        assert data["fc.weight"].requires_grad
        assert find(saved(tmp_path / "w.pth", data)).classes == 3

    def test_metadata_of_safetensors_is_honoured(self, tmp_path: Path, state: State) -> None:
        metadata = {
            "input_size": "48",
            "resize": "50",
            "upsample": "96",
            "mean": "0.1,0.2,0.3",
            "std": "0.4,0.5,0.6",
            "labels": json.dumps({"en": ["a", "b", "c"], "zh": ["甲", "乙", "丙"]}),
        }
        save_file(state, tmp_path / "w.safetensors", metadata)
        checkpoint = find(str(tmp_path / "w.safetensors"))
        assert (checkpoint.preprocessing, checkpoint.upsample) == (Preprocessing(48, 50), 96)
        assert (checkpoint.mean, checkpoint.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
        assert checkpoint.labels == Labels(("a", "b", "c"), ("甲", "乙", "丙"))

    @pytest.mark.parametrize(
        "metadata",
        [
            {"labels": "[1, 2, 3]"},
            {"labels": "{"},
            {"input_size": "big"},
            {"input_size": "0"},
            {"upsample": "4096"},
            {"mean": "0.5"},
            {"mean": "nan,0,0"},
            {"std": "a,b,c"},
            {"std": "0,1,1"},
        ],
        ids=str,
    )
    def test_metadata_that_is_wrong_names_the_file(
        self, tmp_path: Path, state: State, metadata: dict[str, str]
    ) -> None:
        save_file(state, tmp_path / "w.safetensors", metadata)
        with pytest.raises(WeightsError, match=r"w\.safetensors"):
            find(str(tmp_path / "w.safetensors"))

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("missing.pth", None, r"missing\.pth' is not a file, nor one of auto, imagenet, demo"),
            ("w.onnx", b"x", r"'w\.onnx': the suffix must be \.pth, \.pt or \.safetensors"),
            ("w.pth", b"", r"w\.pth can't be loaded as weights only: "),
            ("w.pth", b"garbage", r"w\.pth can't be loaded as weights only: "),
            ("w.safetensors", b"", r"w\.safetensors can't be read as safetensors: "),
            ("w.safetensors", b"\xff" * 64, r"w\.safetensors can't be read as safetensors: "),
        ],
    )
    def test_files_that_hold_no_weights(self, tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=message):
            find(str(tmp_path / name))

    @pytest.mark.parametrize("data", [[1, 2], torch.zeros(3), 5], ids=["list", "tensor", "number"])
    def test_pth_that_holds_something_else(self, tmp_path: Path, data: Any) -> None:
        with pytest.raises(WeightsError, match=rf"w\.pth holds a {type(data).__name__}, not a state dict"):
            find(saved(tmp_path / "w.pth", data))

    def test_a_whole_module_is_not_unpickled(self, tmp_path: Path) -> None:
        torch.save(resnet18(3), tmp_path / "w.pth")
        said = r"w\.pth holds more than tensors \(torchvision\..*ResNet\).*torch\.save\(model\.state_dict\(\)"
        with pytest.raises(WeightsError, match=said):
            find(str(tmp_path / "w.pth"))

    @pytest.mark.parametrize("by_torch", [True, False])
    def test_code_in_a_pickle_is_refused_and_not_run(self, tmp_path: Path, by_torch: bool) -> None:
        witness = tmp_path / "ran"

        class Exploit:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (witness,)

        path = tmp_path / "w.pth"
        if by_torch:
            torch.save({"fc.weight": Exploit()}, path)
        else:
            path.write_bytes(pickle.dumps({"fc.weight": Exploit()}))
        with pytest.raises(WeightsError, match=r"w\.pth (holds more than tensors|can't be loaded as weights only)"):
            find(str(path))
        assert not witness.exists()


class TestWrongNetworks:
    """A checkpoint that is no ResNet18 is refused by the first key that does not fit."""

    @pytest.mark.parametrize(
        ("architecture", "key"),
        [
            ("resnet34", "'layer1.2.conv1.weight' is not one of its keys"),
            ("resnet50", "'layer1.0.conv1.weight' has shape (64, 64, 1, 1), expected (64, 64, 3, 3)"),
            ("squeezenet1_0", "'fc.weight' is missing or not a matrix"),
        ],
    )
    def test_architectures(self, tmp_path: Path, architecture: str, key: str) -> None:
        import_torchvision()
        from torchvision import models

        network = getattr(models, architecture)(num_classes=4)
        if architecture == "resnet50":
            network.fc = torch.nn.Linear(512, 4)
        with pytest.raises(WeightsError) as raised:
            find(saved(tmp_path / "w.pth", network.state_dict()))
        assert str(raised.value) == f"w.pth is no ResNet18: {key}"

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"conv1.weight": None}, "w.pth is no ResNet18: 'conv1.weight' is missing"),
            ({"fc.bias": None}, "w.pth is no ResNet18: 'fc.bias' is missing"),
            ({"fc.weight": None}, "w.pth is no ResNet18: 'fc.weight' is missing or not a matrix"),
            ({"fc.weight": torch.zeros(3)}, "w.pth is no ResNet18: 'fc.weight' is missing or not a matrix"),
            (
                {"fc.weight": torch.zeros(3, 100)},
                "w.pth is no ResNet18: 'fc.weight' has shape (3, 100), expected (3, 512)",
            ),
            ({"fc.bias": torch.zeros(4)}, "w.pth is no ResNet18: 'fc.bias' has shape (4,), expected (3,)"),
            (
                {"conv1.weight": torch.zeros(64, 3, 3, 3)},
                "w.pth is no ResNet18: 'conv1.weight' has shape (64, 3, 3, 3), expected (64, 3, 7, 7)",
            ),
            ({"head.weight": torch.zeros(1)}, "w.pth is no ResNet18: 'head.weight' is not one of its keys"),
            (
                {"bn1.weight": torch.full((64,), torch.nan)},
                "w.pth: 'bn1.weight' holds values that are not finite",
            ),
            (
                {"fc.bias": torch.tensor([0.0, torch.inf, 0.0])},
                "w.pth: 'fc.bias' holds values that are not finite",
            ),
            ({"conv1.weight": "text"}, "w.pth is no ResNet18: 'conv1.weight' is missing"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_the_first_key_is_named(self, tmp_path: Path, state: State, change: dict[str, Any], message: str) -> None:
        data = {key: value for key, value in (state | change).items() if value is not None}
        with pytest.raises(WeightsError) as raised:
            find(saved(tmp_path / "w.pth", data))
        assert str(raised.value) == message

    def test_keys_that_are_no_names(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match=r"w\.pth"):
            find(saved(tmp_path / "w.pth", {0: torch.zeros(1), "fc.weight": torch.zeros(3, 512)}))


class TestLabels:
    """``--labels FILE``."""

    def test_they_replace_the_checkpoints_own(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "l.txt"
        path.write_text("\n".join("abcdefghij"), encoding="utf-8")
        assert find("demo", labels=path).labels == Labels(tuple("abcdefghij"))
        assert capsys.readouterr().out == "l.txt: 10 names, one a line\n"

    @pytest.mark.parametrize("count", [9, 11])
    def test_count_must_match(self, tmp_path: Path, count: int) -> None:
        path = tmp_path / "l.txt"
        path.write_text("\n".join("abcdefghijk"[:count]), encoding="utf-8")
        with pytest.raises(WeightsError) as raised:
            find("demo", labels=path)
        message = f"{path} holds {count} labels, but the checkpoint has 10 classes; they must be equal"
        assert str(raised.value) == message

    def test_the_checkpoints_own_in_another_order_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "l.txt"
        path.write_text("\n".join(sorted(find("demo").labels.en, reverse=True)), encoding="utf-8")
        with pytest.raises(LabelsError, match="holds the names in another order: 'airplane' is class 0, but stands in"):
            find("demo", labels=path)


class TestGeometry:
    """``--size`` and ``--resize``."""

    def test_the_demos_own(self) -> None:
        demo = find("demo")
        assert (demo.origin, demo.classes, demo.preprocessing) == ("demo", 10, Preprocessing(32, 32))
        assert demo.upsample is not None
        assert demo.upsample >= 64
        assert demo.labels.en[:3] == ("airplane", "automobile", "bird")
        assert demo.labels.zh is not None

    @pytest.mark.parametrize(
        ("size", "resize", "expected", "upsampled"),
        [
            (64, None, (64, 73), False),
            (64, 64, (64, 64), False),
            (None, 40, (32, 40), True),
            (32, None, (32, 32), True),
        ],
    )
    def test_a_new_size_is_a_new_geometry(
        self, size: int | None, resize: int | None, expected: tuple[int, int], upsampled: bool
    ) -> None:
        checkpoint = find("demo", given=Given(size=size, resize=resize))
        assert checkpoint.preprocessing == Preprocessing(*expected)
        assert (checkpoint.upsample is not None) == upsampled

    def test_resize_below_the_crop(self) -> None:
        with pytest.raises(WeightsError, match="--resize 31 is smaller than the crop of 32 pixels"):
            find("demo", given=Given(resize=31))


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
    import_torchvision()
    from torchvision.models import ResNet18_Weights

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    # An enum's member can't be replaced, so the address is read from a stand-in for the enum.
    address = f"http://127.0.0.1:{hub.server_address[1]}/models/{FILE}"
    assert ResNet18_Weights.IMAGENET1K_V1.url.endswith(FILE)
    point_at(monkeypatch, address)
    return tmp_path / "torch" / "hub" / "checkpoints" / FILE


def point_at(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Make torchvision say that ImageNet's weights are at ``url``."""
    from types import SimpleNamespace

    from torchvision import models

    monkeypatch.setattr(models, "ResNet18_Weights", SimpleNamespace(IMAGENET1K_V1=SimpleNamespace(url=url)))


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
        monkeypatch.setattr(weights, "HUB_TIMEOUT_S", 0.2)
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
