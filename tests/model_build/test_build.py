"""``python -m model_build``: what it teaches, what it refuses, and what it leaves in the store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bentoml
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from rich.console import Console

from classifier import manifest as manifests
from classifier.preprocessing import Preprocessing
from classifier.runtimes import RUNTIMES
from classifier.settings import Settings
from model_build import export, gate, pipeline, samples, scratch, temperature
from model_build.__main__ import console, main
from model_build.network import resnet18
from model_build.store import register
from runners import artifacts, backends, devices, engines
from tests.model_build.checkpoints import made, saved

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    from classifier.manifest import Manifest
    from model_build.weights import Checkpoint

ROOT = Path(__file__).resolve().parents[2]
# torch's and onnxruntime's, of their own code; a command's user is not shown them.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning"),
]


def build(*arguments: str) -> Result:
    # It keeps what COLUMNS was when it was first imported, which may have been in another test.
    console.width = 160
    return CliRunner().invoke(main, arguments, prog_name="python -m model_build")


def words(result: Result) -> str:
    """What was printed, its lines joined."""
    return " ".join(result.output.split())


def command(*arguments: str, home: Path) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith("RESNET18_")}
    env |= {"BENTOML_HOME": str(home), "PYTHONPATH": str(ROOT), "COLUMNS": "160"}
    result = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


class TestWords:
    """``--help`` teaches; a bad option is quoted with what is allowed."""

    def test_help(self) -> None:
        result = build("--help")
        assert result.exit_code == 0
        options = ("weights", "key", "labels", "size", "resize", "runtime", "precisions", "calibration", "eval")
        for option in (*options, "min-agreement", "max-accuracy-loss", "max-difference"):
            assert f"--{option}" in result.output
        for text in ("Examples:", "python -m model_build --weights my.pth", "0.98", "0.0001", "train"):
            assert text in result.output

    def test_help_of_train_is_reachable(self) -> None:
        result = build("train", "--help")
        assert result.exit_code == 0
        assert "--init" in result.output

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("--precisions", "int4"), "--precisions 'int4': must be among fp32, int8, bf16, fp16"),
            (
                ("--runtime", "torchscript", "--precisions", "int8"),
                "--precisions 'int8' is not exported for torchscript",
            ),
            (("--runtime", "torchscript", "--precisions", "int8"), "'int8' is not exported for torchscript"),
            (("--precisions", ","), "--precisions names nothing to build"),
            (("--runtime", "tflite"), f"'tflite' is not one of {', '.join(map(repr, RUNTIMES))}"),
            (("--size", "7"), "7 is not in the range 8<=x<=1024"),
            (("--min-agreement", "1.1"), "1.1 is not in the range 0<=x<=1"),
            (("--labels", "nowhere.txt"), "'nowhere.txt' does not exist"),
            (("--eval", "nowhere"), "'nowhere' does not exist"),
            (("--colour",), "--colour"),
            (("--min-agreement", "nan"), "nan is no threshold"),
            (("--max-accuracy-loss", "0"), "0.0 is not in the range 0<x<=100"),
            (("--size", "64", "train", "pets"), "--size is an option of building, not of train"),
            (("--eval", ".", "train", "pets"), "--eval is an option of building, not of train"),
        ],
    )
    def test_bad_options(self, arguments: tuple[str, ...], said: str) -> None:
        result = build(*arguments)
        assert result.exit_code == 2
        assert said in words(result).replace("│ ", "")

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (
                ("--weights", "nowhere.pth"),
                "--weights 'nowhere.pth' is not a file or folder, nor one of auto, imagenet, demo",
            ),
            (("--weights", "README.md"), "README.md is a text that begins with"),
            (("--weights", "demo", "--key", "ema"), "--key 'ema' chooses in a file of weights, and --weights demo is"),
            (("--weights", "demo", "--resize", "16"), "--resize 16 is smaller than the crop of 32 pixels"),
        ],
    )
    def test_weights_that_can_not_be_used(self, empty_store: Path, arguments: tuple[str, ...], said: str) -> None:
        result = build(*arguments)
        assert result.exit_code == 1
        assert said in words(result)
        assert "Traceback" not in result.output
        assert bentoml.models.list() == []

    def test_folders_that_can_not_be_used(self, empty_store: Path, tmp_path: Path) -> None:
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "a.png").write_bytes(b"no image")
        result = build("--weights", "demo", "--eval", str(tmp_path / "set"))
        assert result.exit_code == 1
        assert "a.png" in words(result)
        assert "Traceback" not in result.output

    def test_what_a_killed_build_left_is_cleared(
        self, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        left = tmp_path / "resnet18-build-abcdefgh"
        left.mkdir()
        (left / scratch.MARK).touch()
        (tmp_path / "set").mkdir()
        assert build("--weights", "demo", "--eval", str(tmp_path / "set")).exit_code == 1
        assert sorted(path.name for path in tmp_path.iterdir()) == ["bentoml", "set"]


class TestOwnCheckpoint:
    """A user's .pth of three classes, judged on labelled images."""

    @pytest.fixture
    def given(self, tmp_path: Path) -> Path:
        torch.manual_seed(0)
        torch.save({"state_dict": resnet18(3).state_dict()}, tmp_path / "flowers[best].pth")
        (tmp_path / "names.json").write_text('{"en": ["red rose", "tulip", "lily"], "zh": ["玫瑰", "郁金香", "百合"]}')
        random = np.random.default_rng(0)
        for name in ("red_rose", "tulip", "lily"):
            folder = tmp_path / "eval" / name
            folder.mkdir(parents=True)
            for number in range(3):
                Image.fromarray(random.integers(0, 256, (40, 50, 3), np.uint8)).save(folder / f"{number}.png")
        return tmp_path

    def test_it_is_built_and_serves(self, empty_store: Path, given: Path) -> None:
        arguments = ["--weights", str(given / "flowers[best].pth"), "--labels", str(given / "names.json")]
        arguments += ["--size", "32", "--eval", str(given / "eval"), "--runtime", "onnx", "--precisions", "fp32"]
        result = build(*arguments)
        assert result.exit_code == 0, result.output
        (model,) = bentoml.models.list()
        assert "names.json: 3 names, in the order of the list 'en'" in words(result)
        for text in ("3 classes, 32 px", "judged on 9 images (eval)", "top-1 / top-5", "100.00%", str(model.tag)):
            assert text in words(result)
        artifact = artifacts.open_artifact(str(model.tag))
        manifest = artifact.manifest
        assert manifest.preprocessing == Preprocessing(32, 32)
        assert manifest.labels.en == ("red rose", "tulip", "lily")
        assert manifest.labels.zh == ("玫瑰", "郁金香", "百合")
        assert manifest.weights["origin"] == "flowers[best].pth"
        assert manifest.gate["images"] == 9
        assert manifest.gate["top5"] == 1.0
        assert manifest.gate["top1"] in [count / 9 for count in range(10)]
        assert manifest.export["opset"] == 17
        judging = {"openvino"} if engines.installed("openvino") else set()
        assert {"torch", "onnx", "onnxruntime"} | judging == set(manifest.export["libraries"])
        backend = backends.load(artifact.folder, manifest)
        assert backend.infer(np.zeros((2, 32, 32, 3), np.uint8)).shape == (2, 3)

        again = build(*arguments)
        assert again.exit_code == 0
        assert f"unchanged {model.tag}" in words(again)
        assert [str(item.tag) for item in bentoml.models.list()] == [str(model.tag)]
        assert result.output.splitlines()[1].startswith("flowers[best].pth weights ")


class TestGate:
    """What does not pass is not registered, and the command says why."""

    def test_a_reduced_precision_that_misses(self, empty_store: Path, tmp_path: Path) -> None:
        noise = tmp_path / "noise"
        noise.mkdir()
        random = np.random.default_rng(0)
        for number in range(40):
            Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(noise / f"{number}.png")
        # Calibrated on black alone, int8 sees nothing but its one colour.
        (tmp_path / "black").mkdir()
        Image.new("RGB", (32, 32)).save(tmp_path / "black" / "0.png")
        result = build(
            *("--weights", "demo", "--runtime", "onnx", "--precisions", "int8", "--min-agreement", "1"),
            *("--calibration", str(tmp_path / "black"), "--eval", str(noise)),
        )
        assert result.exit_code == 1, result.output
        assert "not registered resnet18-onnx-int8: top-1 agreement with fp32 is" in words(result)
        assert "needed: 100.00%" in words(result)
        assert bentoml.models.list() == []

    def test_an_fp32_that_misses(self, empty_store: Path) -> None:
        result = build(
            *("--weights", "demo", "--runtime", "torchscript", "--precisions", "fp32", "--max-difference", "0")
        )
        assert result.exit_code == 1
        assert "not registered resnet18-torchscript-fp32: agreement 100.00% and difference" in words(result)
        assert bentoml.models.list() == []


class TestTemperature:
    """The graph's softmax is calibrated on images whose classes are known."""

    def test_it_is_in_the_file_and_its_figures_in_the_manifest(
        self, empty_store: Path, tmp_path: Path, demo: Checkpoint
    ) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3), np.uint8)
        seen = gate.reference(export.contract(demo), samples.Samples(noise, None, "noise")).argmax(1)
        for number, image in enumerate(noise):
            # Half of what the network sees is right; it is surer than that.
            folder = tmp_path / "eval" / demo.labels.en[(seen[number] + number % 2) % 10]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number}.png")
        arguments = ("--weights", "demo", "--runtime", "onnx", "--precisions", "fp32")
        result = build(*arguments, "--eval", str(tmp_path / "eval"))
        assert result.exit_code == 0, result.output
        artifact = artifacts.open_artifact("resnet18-onnx-fp32:latest")
        report = artifact.manifest.gate
        told = report["confidence"]
        assert (told["fitted_on"], told["judged_on"]) == (100, 100)
        assert 1.2 < told["temperature"] < 8
        assert told["after"]["ece"] < told["before"]["ece"]
        assert sum(one["count"] for one in told["after"]["bins"]) == 100
        assert f"resnet18-onnx-fp32: temperature {told['temperature']:g}, fitted on 100 of the images" in words(result)
        # The eager network at the same temperature is what it is compared with.
        assert report["largest_difference"] <= 1e-4
        given = samples.from_folder(demo, tmp_path / "eval")
        rows = gate.infer(backends.load(artifact.folder, artifact.manifest), given)
        assert given.classes is not None
        _, judged = temperature.halves(given.classes)
        assert temperature.Reliability.of(rows[judged], given.classes[judged]).ece == pytest.approx(
            told["after"]["ece"], abs=1e-4
        )

    def test_too_few_images_leave_it_at_one(self, empty_store: Path, tmp_path: Path) -> None:
        for label in ("cat", "dog"):
            (tmp_path / "eval" / label).mkdir(parents=True)
            Image.new("RGB", (32, 32)).save(tmp_path / "eval" / label / "0.png")
        arguments = ("--weights", "demo", "--runtime", "onnx", "--precisions", "fp32")
        result = build(*arguments, "--eval", str(tmp_path / "eval"))
        assert "temperature: eval has 2 images, and at least 200 are needed; T stays 1" in words(result)
        assert "confidence" not in artifacts.open_artifact("resnet18-onnx-fp32:latest").manifest.gate


class TestNotice:
    """``auto`` without ImageNet's weights."""

    def test_it_is_boxed_and_whole(self, capsys: pytest.CaptureFixture[str]) -> None:
        from model_build.__main__ import _notice

        _notice("place it at /home/[a]/[/b]/resnet18-f37072fd.pth")
        output = capsys.readouterr().out
        assert "ImageNet's weights are not here" in output
        assert "place it at /home/[a]/[/b]/resnet18-f37072fd.pth" in output
        assert output.startswith("╭")


class TestNotes:
    """What is told of a file on a line of its own, and ``--key`` and ``--labels imagenet``, which follow from it."""

    @pytest.fixture
    def built(self, monkeypatch: pytest.MonkeyPatch) -> list[Checkpoint]:
        """The checkpoints that were to be built; nothing is."""
        checkpoints: list[Checkpoint] = []

        def record(checkpoint: Checkpoint, *_: object) -> list[tuple[str, str]]:
            checkpoints.append(checkpoint)
            return []

        monkeypatch.setattr(pipeline, "build", record)
        return checkpoints

    def test_the_average_is_taken_and_the_key_takes_another(self, built: list[Checkpoint], tmp_path: Path) -> None:
        path = saved(tmp_path / "w[1].pth", {"state_dict": made(3), "state_dict_ema": made(3, seed=9)})
        assert words(build("--weights", path)).startswith(
            "w[1].pth holds several sets of weights: 'state_dict_ema', an average, is taken, 'state_dict' left; "
        )
        build("--weights", path, "--key", "state_dict")
        assert torch.equal(built[0].state["fc.bias"], made(3, seed=9)["fc.bias"])
        assert torch.equal(built[1].state["fc.bias"], made(3)["fc.bias"])

    def test_a_thousand_classes(self, built: list[Checkpoint], tmp_path: Path) -> None:
        path = saved(tmp_path / "w.pth", made(1000))
        said = "has 1,000 classes and no names for them; if they are ImageNet's, add --labels imagenet"
        assert said in words(build("--weights", path))
        assert said not in words(build("--weights", path, "--labels", "imagenet"))
        assert [checkpoint.labels.en[281] for checkpoint in built] == ["class 281", "tabby"]

    def test_groups(self, built: list[Checkpoint], tmp_path: Path) -> None:
        path = saved(tmp_path / "w.pth", made(1000))
        said = words(build("--weights", path, "--labels", "imagenet"))
        assert "groups-imagenet.yaml: 36 groups, which have 1000 of the 1000 classes" in said
        own = tmp_path / "own.yaml"
        own.write_text("pet: {zh: 宠物, classes: [tabby, 151-268]}")
        for more in ((), ("--groups", str(own))):
            build("--weights", path, *more)
            build("--weights", path, "--labels", "imagenet", *more)
        groups = [checkpoint.labels.groups for checkpoint in built]
        assert [None if each is None else len(each) for each in groups] == [36, None, 36, 1]
        own.write_text("pet: {classes: [tabyy]}")
        result = build("--weights", path, "--groups", str(own))
        assert result.exit_code == 1
        assert "own.yaml': group 'pet': 'tabyy' is none of the 1000 labels" in words(result)

    def test_one_output(self, built: list[Checkpoint], tmp_path: Path) -> None:
        result = build("--weights", saved(tmp_path / "w.pth", made(1)))
        assert words(result).startswith("w.pth has one output (fc.weight [1, 512]), taken for a sigmoid's")
        assert (built[0].classes, result.exit_code) == (2, 0)


class TestStore:
    """The store that the real command has filled, seen by BentoML's own."""

    def built(self, store: Path) -> dict[str, dict[str, Any]]:
        """Manifests by tag."""
        return {
            f"{path.parents[1].name}:{path.parent.name}": json.loads(path.read_text(encoding="utf-8"))
            for path in (store / "models").glob("*/*/manifest.json")
        }

    def test_every_default_precision_is_there(self, store: Path) -> None:
        expected = {"resnet18-onnx-fp32", "resnet18-onnx-int8", "resnet18-torchscript-fp32"}
        if "bf16" in devices.cpu_features():
            expected.add("resnet18-torchscript-bf16")
        assert expected <= {tag.split(":")[0] for tag in self.built(store)}
        for tag, manifest in self.built(store).items():
            assert tag.split(":")[1].startswith(manifest["weights"]["digest"][:8])
            assert manifest["gate"]["thresholds"] == {"agreement": 0.98, "accuracy_loss": 1.0, "difference": 1e-4}
            assert manifest["gate"]["agreement"] >= 0.98

    def test_a_second_build_changes_nothing_and_says_so(self, store: Path) -> None:
        def state() -> dict[str, int]:
            return {str(path): path.stat().st_mtime_ns for path in sorted((store / "models").rglob("*"))}

        before = state()
        output = " ".join(command("model_build", "--weights", "demo", home=store).split())
        assert state() == before
        for tag in self.built(store):
            assert f"unchanged {tag} is in the store already; serve just it with RESNET18_MODEL={tag}" in output

    def test_what_is_built_again_is_the_newest_again(self, empty_store: Path, tmp_path: Path) -> None:
        """``make serve WEIGHTS=…`` serves these weights, whatever was built in the meantime."""
        options = ("--weights", "demo", "--runtime", "onnx", "--precisions", "fp32")
        (tmp_path / "names.txt").write_text("\n".join("abcdefghij"))
        built = []
        for more in ((), ("--labels", str(tmp_path / "names.txt"))):
            assert build(*options, *more).exit_code == 0
            built.append(artifacts.choose(Settings(precision="fp32"), "cpu"))
        assert len(set(built)) == 2
        assert f"unchanged {built[0]} is in the store already, and is the newest again" in words(build(*options))
        assert artifacts.choose(Settings(precision="fp32"), "cpu") == built[0]
        assert str(bentoml.models.get("resnet18-onnx-fp32:latest").tag) == built[0]

    def test_bentoml_lists_and_gets(self, store: Path) -> None:
        listed = json.loads(command("bentoml", "models", "list", "-o", "json", home=store))
        assert {item["tag"] for item in listed} == set(self.built(store))
        tag = next(tag for tag in self.built(store) if tag.startswith("resnet18-onnx-int8"))
        shown = json.loads(command("bentoml", "models", "get", tag, "-o", "json", home=store))
        assert f"{shown['name']}:{shown['version']}" == tag
        assert shown["labels"]["precision"] == "int8"

    def test_bentoml_exports_and_imports(
        self, empty_store: Path, tmp_path: Path, manifest_of: Callable[..., Manifest]
    ) -> None:
        """On a small artifact, as BentoML's compression takes seconds for a real one."""
        artifact = tmp_path / "model.onnx"
        artifact.write_bytes(bytes(range(256)) * 100)
        tag = register(artifact, manifest_of(artifact), "00000000-11111111")
        folder = empty_store / "models" / tag.replace(":", "/")
        manifest, file = manifests.read(folder), tmp_path / "model.bentomodel"
        command("bentoml", "models", "export", tag, str(file), home=empty_store)
        command("bentoml", "models", "delete", "-y", tag, home=empty_store)
        assert not folder.exists()
        command("bentoml", "models", "import", str(file), home=empty_store)
        assert artifacts.open_artifact(tag).manifest == manifest
        assert artifacts.choose(Settings(precision="fp32"), "cpu") == tag


@pytest.mark.skipif(backends.pick_device("auto", "onnx") != "cpu", reason="there is a GPU here")
def test_a_gpu_that_does_not_work_costs_its_own_artifact_only(empty_store: Path, demo: Checkpoint) -> None:
    from model_build.gate import Thresholds
    from model_build.pipeline import build as build_all

    pairs = [("onnx", "fp16"), ("onnx", "fp32")]
    ((name, reason),) = build_all(demo, pairs, None, None, Thresholds(), Console(quiet=True))
    assert name == "resnet18-onnx-fp16"
    assert reason.startswith("the GPU can't be used: ")
    assert [model.tag.name for model in bentoml.models.list()] == ["resnet18-onnx-fp32"]


def test_an_engine_that_can_not_compute_in_a_precision_costs_its_own_artifact_only(
    empty_store: Path, demo: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model_build.gate import Thresholds
    from model_build.pipeline import build as build_all

    load = backends.load

    def loaded(folder: Path, manifest: Manifest, *rest: Any, **named: Any) -> Any:
        if manifest.precision == "bf16":
            raise devices.DeviceError("OpenVINO has no bf16 on this CPU")
        return load(folder, manifest, *rest, **named)

    monkeypatch.setattr(backends, "load", loaded)
    pairs = [("onnx", "bf16"), ("onnx", "fp32")]
    failed = build_all(demo, pairs, None, None, Thresholds(), Console(quiet=True))
    assert failed == [("resnet18-onnx-bf16", "OpenVINO has no bf16 on this CPU")]
    assert [model.tag.name for model in bentoml.models.list()] == ["resnet18-onnx-fp32"]


def test_fp16_without_a_gpu_is_told_in_a_sentence(store: Path) -> None:
    if devices.gpus():
        pytest.skip("there is a GPU here")
    for runtime in (each.name for each in RUNTIMES.values() if "fp16" in each.precisions):
        result = CliRunner().invoke(main, ["--weights", "demo", "--runtime", runtime, "--precisions", "fp16"])
        assert result.exit_code == 2
        assert f"--precisions 'fp16' needs a GPU for {runtime}: device 'cuda': this machine shows 0 CUDA" in " ".join(
            result.output.replace("│", " ").split()
        )


def test_another_architecture_is_built_and_the_newest_build_is_served(empty_store: Path, tmp_path: Path) -> None:
    path = saved(tmp_path / "m.pth", {"model": made(3, architecture="mobilenet_v2"), "input_size": 32})
    options = ("--weights", path, "--runtime", "onnx", "--precisions", "fp32")
    result = build(*options, "--max-pool")
    assert result.exit_code == 1
    assert "are of a ResNet18, and m.pth is a MobileNetV2" in words(result)
    result = build(*options, "--arch", "mobilenet_v2")
    assert result.exit_code == 0, result.output
    served = artifacts.choose(Settings(), "cpu")
    assert served.startswith("mobilenet_v2-onnx-fp32:")
    artifact = artifacts.open_artifact(served)
    assert (artifact.manifest.architecture, artifact.manifest.gate["agreement"]) == ("mobilenet_v2", 1.0)
    assert build("--weights", "demo", *options[2:]).exit_code == 0
    assert artifacts.choose(Settings(), "cpu").startswith("resnet18-onnx-fp32:")
    assert artifacts.choose(Settings(model="mobilenet_v2-onnx-fp32:latest"), "cpu") == served
    # Building the same thing again makes it the newest again.
    assert f"unchanged {served}" in words(build(*options))
    assert artifacts.choose(Settings(), "cpu") == served


def test_a_file_of_another_architecture_than_asked_for_is_refused(empty_store: Path, tmp_path: Path) -> None:
    path = saved(tmp_path / "m.pth", made(3, architecture="shufflenet_v2_x1_0"))
    result = build("--weights", path, "--arch", "mobilenet_v2")
    assert result.exit_code == 1
    assert (
        "m.pth is no MobileNetV2, as --arch mobilenet_v2 says, but a ShuffleNetV2 x1.0: --arch shufflenet_v2_x1_0"
        in words(result)
    )
    assert bentoml.models.list() == []
