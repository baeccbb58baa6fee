"""Which artifact of the store is served, and what is said when none can be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import bentoml
import pytest

from classifier.labels import Labels
from classifier.preprocessing import Preprocessing
from classifier.settings import Settings
from model_build import store as model_store
from runners import artifacts, engines
from runners.artifacts import ArtifactError, choose, open_artifact

if TYPE_CHECKING:
    from collections.abc import Callable

    from classifier.manifest import Manifest

OLD, NEW = "a" * 64, "b" * 64


@pytest.fixture
def register(empty_store: Path, tmp_path: Path, manifest_of: Callable[..., Manifest]) -> Callable[..., str]:
    """A function that puts an artifact of a checkpoint into an empty store and gives its tag."""

    def put(name: str, checkpoint: str = OLD, version: str = "11111111", **changes: Any) -> str:
        runtime, precision = name.split("-")
        path = tmp_path / "model.bin"
        path.write_bytes(f"{name} {checkpoint} {version}".encode())
        weights = {"origin": "demo", "digest": checkpoint}
        manifest = manifest_of(path, runtime=runtime, precision=precision, weights=weights, **changes)
        return model_store.register(path, manifest, f"{checkpoint[:8]}-{version}")

    return put


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that sets what the CPU offers. OpenVINO is not installed."""
    monkeypatch.setattr(engines, "installed", lambda name: name != "openvino")
    return lambda *features: monkeypatch.setattr(artifacts, "cpu_features", lambda: frozenset(features))


def settings(**values: Any) -> Settings:
    return Settings(**values)


class TestChoose:
    """The settings and the device decide."""

    def test_an_empty_store_says_how_to_fill_it(self, empty_store: Path) -> None:
        for runtime in ("onnx", "torchscript"):
            with pytest.raises(ArtifactError) as raised:
                choose(settings(runtime=runtime), "cpu")
            assert str(raised.value).startswith(f"the model store has no {runtime} artifact of ResNet18; ")
            assert "make model" in str(raised.value)

    def test_another_runtimes_artifact_is_none(self, register: Callable[..., str]) -> None:
        register("torchscript-fp32")
        with pytest.raises(ArtifactError, match="has no onnx artifact"):
            choose(settings(), "cpu")

    def test_the_newest_checkpoint_wins(self, register: Callable[..., str]) -> None:
        register("onnx-fp32", NEW)
        newest = register("onnx-fp32", OLD)  # what was built last, not what sorts last
        assert choose(settings(precision="fp32"), "cpu") == newest

    def test_the_newest_build_of_one_checkpoint_wins(self, register: Callable[..., str]) -> None:
        register("onnx-fp32", version="99999999")
        newest = register("onnx-fp32", version="11111111")
        assert choose(settings(precision="fp32"), "cpu") == newest

    def test_auto_never_takes_an_older_checkpoint_for_its_precision(
        self, register: Callable[..., str], cpu: Callable[..., None]
    ) -> None:
        cpu("int8")
        register("onnx-fp32", OLD)
        old = register("onnx-int8", OLD)
        assert choose(settings(), "cpu") == old
        new = register("onnx-fp32", NEW)
        assert choose(settings(), "cpu") == new
        new = register("onnx-int8", NEW)
        assert choose(settings(), "cpu") == new

    @pytest.mark.parametrize(
        "changed",
        [
            {"labels": Labels(("x", "y"), None)},
            {"preprocessing": Preprocessing(64, 64)},
            {"preprocessing": Preprocessing(32, 36, interpolation="bicubic")},
            {"export": {"evaluation": "b"}},
        ],
    )
    def test_nor_what_other_labels_geometry_or_judgement_made_of_the_same_weights(
        self, register: Callable[..., str], cpu: Callable[..., None], changed: dict[str, Any]
    ) -> None:
        """int8 that the gate has now kept out, or that has old labels, must not serve because it once got in."""
        cpu("int8")
        register("onnx-fp32")
        register("onnx-int8")
        newest = register("onnx-fp32", version="22222222", **changed)
        assert choose(settings(), "cpu") == newest

    def test_a_precision_of_an_older_checkpoint_only_is_missing(self, register: Callable[..., str]) -> None:
        register("onnx-int8", OLD)
        register("onnx-fp32", NEW)
        with pytest.raises(ArtifactError) as raised:
            choose(settings(precision="int8"), "cpu")
        assert str(raised.value).startswith("RESNET18_PRECISION='int8': the store's newest onnx build has only fp32; ")

    @pytest.mark.parametrize(
        ("features", "runtime", "device", "expected"),
        [
            (("int8",), "onnx", "cpu", "onnx-int8"),
            (("int8", "bf16"), "onnx", "cpu", "onnx-int8"),
            ((), "onnx", "cpu", "onnx-fp32"),
            (("bf16",), "onnx", "cpu", "onnx-fp32"),
            (("int8", "bf16"), "torchscript", "cpu", "torchscript-bf16"),
            (("int8",), "torchscript", "cpu", "torchscript-fp32"),
            (("int8",), "onnx", "cuda:0", "onnx-fp16"),
            ((), "torchscript", "cuda:1", "torchscript-fp16"),
        ],
    )
    def test_auto_by_device(
        self,
        register: Callable[..., str],
        cpu: Callable[..., None],
        features: tuple[str, ...],
        runtime: str,
        device: str,
        expected: str,
    ) -> None:
        cpu(*features)
        names = (
            "onnx-fp32",
            "onnx-int8",
            "onnx-bf16",
            "onnx-fp16",
            "torchscript-fp32",
            "torchscript-bf16",
            "torchscript-fp16",
        )
        registered = {name: register(name) for name in names}
        assert choose(settings(runtime=runtime), device) == registered[expected]

    @pytest.mark.parametrize(("engine", "expected"), [("auto", "bf16"), ("openvino", "bf16"), ("onnxruntime", "fp32")])
    def test_auto_takes_what_the_engine_can_run(
        self,
        register: Callable[..., str],
        cpu: Callable[..., None],
        monkeypatch: pytest.MonkeyPatch,
        engine: str,
        expected: str,
    ) -> None:
        cpu("bf16")
        monkeypatch.setattr(engines, "installed", lambda _: True)
        registered = {name: register(f"onnx-{name}") for name in ("fp32", "bf16")}
        assert choose(settings(engine=engine), "cpu") == registered[expected]

    @pytest.mark.parametrize(
        ("there", "features", "device", "expected"),
        [
            (("onnx-fp32",), ("int8",), "cpu", "onnx-fp32"),
            (("onnx-int8",), (), "cpu", "onnx-int8"),
            (("onnx-fp32", "onnx-int8"), (), "cuda:0", "onnx-fp32"),
        ],
    )
    def test_auto_with_what_there_is(
        self,
        register: Callable[..., str],
        cpu: Callable[..., None],
        there: tuple[str, ...],
        features: tuple[str, ...],
        device: str,
        expected: str,
    ) -> None:
        cpu(*features)
        registered = {name: register(name) for name in there}
        assert choose(settings(), device) == registered[expected]

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_a_precision_asked_for_is_obeyed(
        self, register: Callable[..., str], cpu: Callable[..., None], precision: str
    ) -> None:
        cpu("int8", "bf16")
        registered = {name: register(f"onnx-{name}") for name in ("fp32", "int8", "fp16")}
        assert choose(settings(precision=precision), "cpu") == registered[precision]

    def test_missing_precision_names_what_there_is(self, register: Callable[..., str]) -> None:
        register("torchscript-fp32")
        register("torchscript-bf16")
        with pytest.raises(ArtifactError) as raised:
            choose(settings(runtime="torchscript", precision="fp16"), "cpu")
        assert "RESNET18_PRECISION='fp16'" in str(raised.value)
        assert "has only bf16, fp32" in str(raised.value)

    def test_other_models_are_no_concern(self, register: Callable[..., str]) -> None:
        tag = register("onnx-fp32")
        with bentoml.models.create("yolo:1"):
            pass
        assert choose(settings(), "cpu") == tag

    def test_a_model_of_our_name_that_is_not_ours_is_passed_over(self, register: Callable[..., str]) -> None:
        tag = register("onnx-fp32")
        with bentoml.models.create("resnet18-onnx-fp32:mine"):
            pass
        try:
            assert choose(settings(), "cpu") == tag
        except ArtifactError as error:
            assert "resnet18-onnx-fp32:mine" in str(error)

    def test_a_damaged_store_is_told(self, register: Callable[..., str], empty_store: Path) -> None:
        register("onnx-fp32")
        (empty_store / "models" / "resnet18-onnx-fp32" / "half").mkdir()
        with pytest.raises(ArtifactError, match=r"the model store is damaged: .*model\.yaml"):
            choose(settings(), "cpu")


class TestExactTag:
    """``RESNET18_MODEL``."""

    def test_an_older_one(self, register: Callable[..., str]) -> None:
        old = register("onnx-fp32", OLD)
        new = register("onnx-fp32", NEW)
        assert choose(settings(model=old), "cpu") == old
        assert choose(settings(model="resnet18-onnx-fp32:latest"), "cpu") == new
        assert choose(settings(model="resnet18-onnx-fp32"), "cpu") == new

    def test_a_precision_or_runtime_that_contradicts_it_is_refused(self, register: Callable[..., str]) -> None:
        tag = register("onnx-int8")
        register("onnx-fp32")
        for agreeing in ({}, {"precision": "int8", "runtime": "onnx"}, {"precision": "auto"}):
            assert choose(settings(model=tag, **agreeing), "cpu") == tag
        with pytest.raises(ArtifactError, match=f"^RESNET18_MODEL='{tag}' is in int8, and RESNET18_PRECISION='fp32' "):
            choose(settings(model=tag, precision="fp32"), "cpu")
        with pytest.raises(ArtifactError, match="is in onnx, and RESNET18_RUNTIME='torchscript' asks for another"):
            choose(settings(model=tag, runtime="torchscript"), "cpu")
        # The default runtime was not asked for.
        other = register("torchscript-fp32")
        assert choose(settings(model=other), "cpu") == other

    @pytest.mark.parametrize(
        "tag", ["resnet18-onnx-fp32:nope", "nothing", "nothing:latest", "a b", "A:B:C", "", "../x"]
    )
    def test_what_is_not_there_is_quoted(self, register: Callable[..., str], tag: str) -> None:
        register("onnx-fp32")
        with pytest.raises(ArtifactError) as raised:
            choose(settings(model=tag), "cpu")
        assert str(raised.value).startswith(f"RESNET18_MODEL={tag!r}: ")
        assert "make model" in str(raised.value)


class TestBento:
    """Inside a bento only what it was built with is served."""

    @pytest.fixture
    def bento(self, tmp_path: Path) -> Callable[..., Path]:
        def write(*tags: str) -> Path:
            path = tmp_path / "bento.yaml"
            models = "".join(f"- tag: {tag}\n  module: ''\n" for tag in tags)
            path.write_text("service: service:ResNet18\n" + (f"models:\n{models}" if tags else "models: []\n"))
            return path

        return write

    def test_only_carried_tags(
        self, register: Callable[..., str], bento: Callable[..., Path], cpu: Callable[..., None]
    ) -> None:
        cpu("int8")
        carried = register("onnx-fp32", OLD)
        register("onnx-int8", OLD)
        newer = register("onnx-int8", NEW)
        assert choose(settings(), "cpu") == newer
        assert choose(settings(), "cpu", bento=bento(carried)) == carried
        assert choose(settings(), "cpu", bento=bento("yolo:1", carried)) == carried

    def test_a_bento_that_carries_none(self, register: Callable[..., str], bento: Callable[..., Path]) -> None:
        register("onnx-fp32")
        with pytest.raises(ArtifactError, match="has no onnx artifact"):
            choose(settings(), "cpu", bento=bento())

    def test_no_bento_file_means_no_bento(self, register: Callable[..., str], tmp_path: Path) -> None:
        tag = register("onnx-fp32")
        assert choose(settings(), "cpu", bento=tmp_path / "nowhere" / "bento.yaml") == tag
        assert choose(settings(), "cpu", bento=None) == tag


class TestOpen:
    """An artifact is checked when it is opened."""

    def test_whole(self, register: Callable[..., str], empty_store: Path) -> None:
        tag = register("onnx-fp32")
        artifact = open_artifact(tag)
        assert artifact.tag == tag
        assert artifact.folder == empty_store / "models" / tag.replace(":", "/")
        assert (artifact.manifest.runtime, artifact.manifest.precision) == ("onnx", "fp32")

    @pytest.mark.parametrize(
        ("file", "content", "message"),
        [
            ("manifest.json", None, "manifest.json is missing"),
            ("manifest.json", "{", "manifest.json can't be read"),
            ("manifest.json", '{"schema": 2}', "manifest.json has schema 2; this version reads schema 1"),
            ("manifest.json", '{"schema": 1}', "manifest.json is not a manifest"),
            ("model.bin", None, "model.bin is missing"),
            ("model.bin", "other", "model.bin is damaged"),
            ("model.yaml", None, "model.yaml"),
        ],
    )
    def test_damage_names_the_file_and_the_cure(
        self, register: Callable[..., str], file: str, content: str | None, message: str
    ) -> None:
        tag = register("onnx-fp32")
        path = Path(bentoml.models.get(tag).path) / file
        if content is None:
            path.unlink()
        else:
            path.write_text(content)
        with pytest.raises(ArtifactError) as raised:
            open_artifact(tag)
        assert str(raised.value).startswith(f"model {tag} can't be served: ")
        assert message in str(raised.value)
        assert "make model" in str(raised.value)

    def test_a_model_that_is_not_ours(self, empty_store: Path) -> None:
        with bentoml.models.create("yolo:1"):
            pass
        with pytest.raises(ArtifactError, match=r"model yolo:1 can't be served: .*manifest\.json is missing"):
            open_artifact("yolo:1")

    def test_not_there(self, empty_store: Path) -> None:
        with pytest.raises(ArtifactError, match="model resnet18-onnx-fp32:x can't be served"):
            open_artifact("resnet18-onnx-fp32:x")


def test_names() -> None:
    assert artifacts.store_name("onnx", "int8") == "resnet18-onnx-int8"
