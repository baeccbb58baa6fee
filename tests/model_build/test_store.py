"""Registration: whole or not at all, once, and under a version that says what is in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bentoml
import pytest
from bentoml.exceptions import NotFound

from classifier import manifest as manifests
from classifier.labels import Groups, Labels
from classifier.manifest import Manifest
from classifier.preprocessing import Preprocessing
from classifier.runtimes import PRECISIONS, RUNTIMES
from model_build import store as model_store
from model_build.weights import Checkpoint
from runners import engines

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NAME, VERSION = "resnet18-onnx-fp32", "00000000-11111111"
TAG = f"{NAME}:{VERSION}"


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"weights" * 1000)
    return path


@pytest.fixture
def made(artifact: Path, manifest_of: Callable[..., Manifest]) -> Manifest:
    return manifest_of(artifact)


def tags() -> list[str]:
    return sorted(str(model.tag) for model in bentoml.models.list())


class TestVersion:
    """Equal for equal ingredients, different when any of them changes."""

    checkpoint = Checkpoint(
        state={},
        origin="w.pth",
        labels=Labels(("a", "b"), ("甲", "乙")),
        preprocessing=Preprocessing(32, 36),
        upsample=64,
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
        digest="0123456789abcdef" * 4,
    )
    options: dict[str, Any] = {"revision": 1, "opset": 17, "calibration": "aa", "evaluation": "bb"}  # noqa: RUF012

    def version(self, **changes: Any) -> str:
        return model_store.version(replace(self.checkpoint, **changes), "onnx", "fp32", self.options)

    def test_stable_across_processes(self) -> None:
        code = "from tests.model_build.test_store import TestVersion\nprint(TestVersion().version())"
        env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
        result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert result.stdout.strip() == self.version()

    def test_form(self) -> None:
        first, second = self.version().split("-")
        assert first == "01234567"
        assert len(second) == 8
        assert set(second) <= set("0123456789abcdef")

    def test_every_ingredient_changes_it(self) -> None:
        versions = [
            self.version(),
            self.version(digest="0123456789abcdef" * 3 + "f" * 16),
            self.version(origin="v.pth"),
            self.version(labels=Labels(("a", "c"), ("甲", "乙"))),
            self.version(labels=Labels(("a", "b"), ("甲", "丙"))),
            self.version(labels=Labels(("a", "b"))),
            self.version(labels=Labels(("a", "b"), groups=Groups(Labels(("x",)), (0, 0)))),
            self.version(labels=Labels(("a", "b"), groups=Groups(Labels(("x",)), (0, -1)))),
            self.version(preprocessing=Preprocessing(33, 36)),
            self.version(preprocessing=Preprocessing(32, 37)),
            self.version(preprocessing=Preprocessing(32, 36, squash=True)),
            self.version(preprocessing=Preprocessing(32, 36, interpolation="bicubic")),
            self.version(preprocessing=Preprocessing(32, 36, antialias=False)),
            self.version(upsample=None),
            self.version(mean=(0.1, 0.2, 0.4)),
            self.version(std=(0.4, 0.5, 0.7)),
        ]
        versions += [
            model_store.version(self.checkpoint, runtime, precision, self.options)
            for runtime in RUNTIMES
            for precision in PRECISIONS
            if (runtime, precision) != ("onnx", "fp32")
        ]
        for name in self.options:
            changed = self.options | {name: "changed"}
            versions.append(model_store.version(self.checkpoint, "onnx", "fp32", changed))
        versions.append(model_store.version(self.checkpoint, "onnx", "fp32", self.options | {"temperature": 1}))
        assert len(set(versions)) == len(versions)

    def test_libraries_change_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = self.version()
        monkeypatch.setattr(model_store, "libraries", lambda runtime: {"torch": "99"})
        assert self.version() != before

    def test_libraries(self) -> None:
        import torch

        assert model_store.libraries("torchscript") == {"torch": torch.__version__}
        judging = {"openvino"} if engines.installed("openvino") else set()
        assert set(model_store.libraries("onnx")) == {"torch", "onnx", "onnxruntime"} | judging

    def test_bentoml_takes_it_as_it_is(self) -> None:
        assert str(bentoml.Tag("x", self.version())) == f"x:{self.version()}"


class TestBuild:
    """What may serve in place of each other: judged alike, of equal weights, labels and geometry."""

    def test_what_belongs_together(self, made: Manifest) -> None:
        made = replace(made, export={"libraries": {"torch": "1"}, "calibration": "a", "evaluation": "b", "opset": 17})
        same = [
            replace(made, precision="int8", runtime="torchscript", digest="1" * 64, file="x", gate={"images": 1}),
            replace(made, export=made.export | {"libraries": {"torch": "2"}, "calibration": "c"}),
        ]
        assert {model_store.build_id(one) for one in same} == {model_store.build_id(made)}
        others = [
            replace(made, weights=made.weights | {"digest": "1" * 64}),
            replace(made, labels=Labels(tuple(f"{name}!" for name in made.labels.en), made.labels.zh)),
            replace(made, preprocessing=Preprocessing(33, 36)),
            replace(made, preprocessing=Preprocessing(32, 37)),
            replace(made, preprocessing=Preprocessing(32, 36, squash=True)),
            replace(made, preprocessing=Preprocessing(32, 36, interpolation="bicubic")),
            replace(made, preprocessing=Preprocessing(32, 36, antialias=False)),
            replace(made, export=made.export | {"evaluation": "c"}),
            replace(made, export=made.export | {"thresholds": {"agreement": 0.5}}),
        ]
        assert len({model_store.build_id(one) for one in (made, *others)}) == 1 + len(others)


class TestRegister:
    """An artifact and its manifest become a model of the store."""

    def test_registered_is_listed_and_whole(self, empty_store: Path, artifact: Path, made: Manifest) -> None:
        assert model_store.registered("onnx", "fp32", VERSION) is None
        assert model_store.register(artifact, made, VERSION) == TAG
        assert tags() == [TAG]
        model = bentoml.models.get(f"{NAME}:latest")
        assert str(model.tag) == TAG
        told = {"runtime": "onnx", "precision": "fp32", "weights": "demo", "checkpoint": "0" * 64}
        assert model.info.labels == told | {"build": model_store.build_id(made)}
        folder = Path(model.path)
        assert manifests.read(folder) == made
        assert (folder / "model.onnx").read_bytes() == artifact.read_bytes()
        assert model_store.registered("onnx", "fp32", VERSION) == TAG

    def test_nothing_is_left_beside_it(self, empty_store: Path, artifact: Path, made: Manifest) -> None:
        before = {path.name for path in empty_store.iterdir()}
        model_store.register(artifact, made, VERSION)
        assert {path.name for path in empty_store.iterdir()} == before
        assert {path.name for path in (empty_store / "models" / NAME).iterdir()} == {VERSION, "latest"}

    def test_another_user_can_read_it(self, empty_store: Path, artifact: Path, made: Manifest) -> None:
        model_store.register(artifact, made, VERSION)
        folder = empty_store / "models" / NAME / VERSION
        for path in (folder, *folder.rglob("*"), folder.parent / "latest"):
            assert path.stat().st_mode & 0o004, path

    def test_two_builds_of_the_same_at_once(
        self, empty_store: Path, artifact: Path, made: Manifest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rename = Path.rename

        def overtaken(self: Path, target: Path) -> Path:
            monkeypatch.setattr(Path, "rename", rename)
            assert model_store.register(artifact, made, VERSION) == TAG
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", overtaken)
        assert model_store.register(artifact, made, VERSION) == TAG
        assert tags() == [TAG]
        manifests.read(empty_store / "models" / NAME / VERSION)

    def test_the_later_version_is_the_latest(self, empty_store: Path, artifact: Path, made: Manifest) -> None:
        model_store.register(artifact, made, "00000000-99999999")
        model_store.register(artifact, made, VERSION)
        assert str(bentoml.models.get(NAME).tag) == TAG
        assert tags() == [TAG, f"{NAME}:00000000-99999999"]

    def test_a_version_is_found_only_under_its_own_name(
        self, empty_store: Path, artifact: Path, made: Manifest
    ) -> None:
        model_store.register(artifact, made, VERSION)
        for runtime, precision, version in (
            ("onnx", "int8", VERSION),
            ("torchscript", "fp32", VERSION),
            ("onnx", "fp32", "00000000-22222222"),
        ):
            assert model_store.registered(runtime, precision, version) is None
        assert tags() == [TAG]

    @pytest.mark.parametrize(
        "damage", ["artifact cut", "artifact gone", "manifest gone", "manifest cut", "yaml gone", "empty"]
    )
    def test_a_damaged_entry_is_removed_and_can_be_rebuilt(
        self, empty_store: Path, artifact: Path, made: Manifest, damage: str
    ) -> None:
        model_store.register(artifact, made, VERSION)
        folder = empty_store / "models" / NAME / VERSION
        match damage:
            case "artifact cut":
                (folder / "model.onnx").write_bytes(b"weights")
            case "artifact gone":
                (folder / "model.onnx").unlink()
            case "manifest gone":
                (folder / "manifest.json").unlink()
            case "manifest cut":
                (folder / "manifest.json").write_text("{")
            case "yaml gone":
                (folder / "model.yaml").unlink()
            case "empty":
                for path in folder.iterdir():
                    path.unlink()
        assert model_store.registered("onnx", "fp32", VERSION) is None
        assert tags() == []
        with pytest.raises(NotFound):
            bentoml.models.get(TAG)
        assert model_store.register(artifact, made, VERSION) == TAG
        assert model_store.registered("onnx", "fp32", VERSION) == TAG
        assert str(bentoml.models.get(f"{NAME}:latest").tag) == TAG

    def test_a_whole_entry_is_left_alone(self, empty_store: Path, artifact: Path, made: Manifest) -> None:
        model_store.register(artifact, made, VERSION)
        folder = empty_store / "models" / NAME / VERSION
        before = {path: path.stat().st_mtime_ns for path in (folder, *folder.iterdir())}
        assert model_store.registered("onnx", "fp32", VERSION) == TAG
        assert {path: path.stat().st_mtime_ns for path in (folder, *folder.iterdir())} == before

    def test_a_failure_leaves_the_store_as_it_was(
        self, monkeypatch: pytest.MonkeyPatch, empty_store: Path, artifact: Path, made: Manifest
    ) -> None:
        def fail(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(shutil, "copyfile", fail)
            with pytest.raises(model_store.StoreError, match="No space left"):
                model_store.register(artifact, made, VERSION)
        assert tags() == []
        assert not [path for path in empty_store.iterdir() if path.name.startswith(".")]
        assert model_store.register(artifact, made, VERSION) == TAG


# Each stops the process in the middle of one step of registration, whose name it prints.
HOOKS = {
    "copying the artifact": """
def copyfile(source, target):
    Path(target).write_bytes(Path(source).read_bytes()[:1000])
    stop()
shutil.copyfile = copyfile
""",
    "writing the manifest": """
from classifier.manifest import Manifest
Manifest.save = lambda self, folder: stop()
""",
    "copying into the staging store": """
def copytree(source, target, **_):
    (Path(target) / "model.onnx").write_bytes(b"weights")
    stop()
shutil.copytree = copytree
""",
    "before the rename": """
Path.rename = lambda self, target: stop()
""",
    "after the rename": """
rename = Path.rename
def renamed(self, target):
    rename(self, target)
    stop()
Path.rename = renamed
""",
}
KILLED = """
import shutil, sys, time
from pathlib import Path
from classifier.labels import Labels
from classifier.preprocessing import Preprocessing
from classifier import manifest as manifests
import bentoml
from model_build import store

def stop():
    print("stopped", flush=True)
    time.sleep(60)

{hook}
artifact = Path({artifact!r})
manifest = manifests.Manifest(
    "onnx", "fp32", artifact.name, manifests.sha256(artifact), Preprocessing(32, 36), Labels(("a", "b")),
    {{"origin": "demo", "digest": "0" * 64}}, {{}}, {{}},
)
store.register(artifact, manifest, {version!r})
"""


class TestKilled:
    """SIGKILL in the middle of a registration."""

    @pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)
    def test_leaves_a_whole_model_or_none(self, empty_store: Path, artifact: Path, made: Manifest, hook: str) -> None:
        model_store.register(artifact, made, "00000000-00000000")
        code = KILLED.format(hook=hook, artifact=str(artifact), version=VERSION)
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "stopped\n"
            process.kill()
        # What BentoML sees is a store that it can list, in which every model is whole.
        seen = tags()
        assert f"{NAME}:00000000-00000000" in seen
        for tag in seen:
            manifests.read(Path(bentoml.models.get(tag).path))
        assert set(seen) <= {f"{NAME}:00000000-00000000", TAG}
        bentoml.models.get(f"{NAME}:latest")
        # Building again makes it whole.
        if model_store.registered("onnx", "fp32", VERSION) is None:
            model_store.register(artifact, made, VERSION)
        assert TAG in tags()

    def test_the_first_model_of_all(self, empty_store: Path, artifact: Path, made: Manifest) -> None:
        """Also the pointer that BentoML, and ``make serve``, look for is there after the next build."""
        code = KILLED.format(hook=HOOKS["after the rename"], artifact=str(artifact), version=VERSION)
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "stopped\n"
            process.kill()
        if model_store.registered("onnx", "fp32", VERSION) is None:
            model_store.register(artifact, made, VERSION)
        assert (empty_store / "models" / NAME / "latest").read_text() == VERSION
        assert str(bentoml.models.get(f"{NAME}:latest").tag) == TAG

    def test_what_it_left_is_cleared_by_the_next_build(self, empty_store: Path, artifact: Path, made: Manifest) -> None:
        code = KILLED.format(hook=HOOKS["copying into the staging store"], artifact=str(artifact), version=VERSION)
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "stopped\n"
            process.kill()
        (left,) = (path for path in empty_store.iterdir() if path.name.startswith("."))
        model_store.register(artifact, made, VERSION)
        assert left.exists(), "it may be of another container, whose processes are not seen here"
        os.utime(left, (time.time() - 3600,) * 2)
        model_store.register(artifact, made, "00000000-22222222")
        assert not left.exists()


def test_a_full_disk_registers_nothing_and_says_so(
    tmpfs: Callable[[str], Path], artifact: Path, made: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmpfs("1m")
    monkeypatch.setattr(model_store, "models", lambda: disk / "models")
    large = artifact.with_name("large.onnx")
    large.write_bytes(bytes(2_000_000))
    with pytest.raises(model_store.StoreError, match=f"{NAME} is not registered, {disk}.*No space left on device"):
        model_store.register(large, replace(made, file="large.onnx"), VERSION)
    assert [path.name for path in disk.rglob("*")] == ["models", NAME]
    # With room, the same works.
    assert model_store.register(artifact, made, VERSION) == TAG
    manifests.read(disk / "models" / NAME / VERSION)


def test_a_build_without_room_is_refused_at_its_start(tmpfs: Callable[[str], Path]) -> None:
    disk = tmpfs("20m")
    command = [sys.executable, "-m", "model_build", "--weights", "demo", "--runtime", "onnx", "--precisions", "fp32"]
    env = os.environ | {"BENTOML_HOME": str(disk)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"Error: {disk / 'models'}: 2" in done.stderr, done.stderr
    assert "MB are free, the build needs 44." in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(disk.glob("models/*"))
