"""The user's original against what is built: what is run, what is compared, and what is refused."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import bentoml
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

from model_build import samples
from model_build.__main__ import console, main
from model_build.gate import Thresholds
from model_build.preprocessing import Given
from model_build.samples import Samples
from model_build.structure import Choice
from model_build.verification import Comparison, Original, VerificationError, compare, load, probabilities
from model_build.weights import find
from runners.artifacts import open_artifact
from tests.model_build import originals
from tests.model_build.checkpoints import saved

if TYPE_CHECKING:
    from pathlib import Path

# torch's and onnxruntime's, of their own code; a command's user is not shown them.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning"),
]
REFERENCE = """
import torch
import helper
from torch import nn
from torchvision.models import resnet18

def model():
    network = resnet18(num_classes=3)
    network.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    network.maxpool = helper.POOL
    network.load_state_dict(torch.load({path!r}))
    return network

def pipeline():
    from torchvision.transforms import Compose, Normalize, Resize, ToTensor
    return model(), Compose([Resize((32, 32)), ToTensor(), Normalize([0.5] * 3, [0.25] * 3)])

number = lambda: 5
def broken():
    raise ValueError("no such file\\nas that")
def ended():
    raise SystemExit("usage")
def valueless():
    return nn.Linear(2, 2, device="meta")
"""
OPTIONS = ("--size", "32", "--squash", "--runtime", "onnx", "--precisions", "fp32")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CIFAR network's file with the max-pool that no file tells, its original, and images."""
    folder = tmp_path_factory.mktemp("verify")
    path = saved(folder / "w.pth", originals.cifar().state_dict())
    (folder / "reference.py").write_text(REFERENCE.format(path=path))
    (folder / "helper.py").write_text("from torch import nn\nPOOL = nn.MaxPool2d(3, 2, 1)\n")
    random = np.random.default_rng(0)
    (folder / "images").mkdir()
    for number in range(6):
        Image.fromarray(random.integers(0, 256, (4, 5, 3), np.uint8)).resize((50, 40)).save(
            folder / "images" / f"{number}.png"
        )
    return folder


def build(folder: Path, *arguments: str) -> tuple[int, str]:
    console.width = 160
    command = ("--weights", str(folder / "w.pth"), "--eval", str(folder / "images"), *OPTIONS, *arguments)
    result = CliRunner().invoke(main, command, prog_name="python -m model_build")
    return result.exit_code, " ".join(result.output.split())


def test_what_was_assumed_wrongly_is_refused_and_what_is_right_is_told(empty_store: Path, given: Path) -> None:
    name = f"{given}/reference.py:model"
    code, said = build(given, "--verify", name)
    assert code == 1
    assert f"Error: nothing is built: w.pth against {name} on 6 images (images): top-1 agreement " in said
    assert said.endswith("; needed: 100% and 0.0001")
    assert bentoml.models.list() == []

    code, said = build(given, "--max-pool", "--stem-stride", "1", "--verify", name)
    assert code == 0, said
    assert f"w.pth against {name} on 6 images (images): top-1 agreement 100.00%, largest difference" in said
    assert f"resnet18-onnx-fp32 against {name} on 6 images (images): top-1 agreement 100.00%" in said
    (model,) = bentoml.models.list()
    manifest = open_artifact(str(model.tag)).manifest
    told = manifest.gate["original"]
    assert (told["original"], told["images"], told["preprocessing"]) == (name, 6, "checkpoint")
    assert told["agreement"] == 1
    assert told["largest_difference"] < 1e-4
    assert manifest.export["original"] == {"name": name, "digest": load(name).digest}
    assert str(given) not in sys.path


def test_a_transform_of_its_own_finds_wrong_preprocessing(given: Path) -> None:
    original = load(f"{given}/reference.py:pipeline")
    right = Given(size=32, squash=True, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    differences = []
    for preprocessing in (right, Given(size=32, squash=True)):
        checkpoint = find(str(given / "w.pth"), given=preprocessing, choice=Choice(pool=True, stride=1))
        part = samples.from_folder(checkpoint, given / "images")
        mine = probabilities(Original("x", "", original.network, None), checkpoint, part, None)
        theirs = probabilities(original, checkpoint, part, given / "images")
        found = compare(original, theirs, mine, part)
        assert found.preprocessing == "original"
        differences.append(found.largest_difference)
    assert differences[0] < 1e-4 < 100 * differences[0] + 1e-3 < differences[1]


def test_its_digest_is_of_its_code_and_its_weights(tmp_path: Path) -> None:
    file, weights = tmp_path / "net.py", tmp_path / "w.pth"
    code = (
        "import torch\ndef model():\n    network = torch.nn.Linear(2, 2)\n"
        f"    network.load_state_dict(torch.load({str(weights)!r}))\n    return network\n"
    )
    digests = []
    for text, scale in ((code, 1), (code, 1), (code, 2), (code + "# again\n", 2)):
        file.write_text(text)
        torch.save({"weight": scale * torch.eye(2), "bias": torch.zeros(2)}, weights)
        digests.append(load(f"{file}:model").digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_its_digest_is_of_the_code_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other code of the same tensors answers otherwise."""
    digests = []
    for folder, activation in (("one", "ReLU"), ("again", "ReLU"), ("other", "SiLU")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net_of_layers.py").write_text(f"from torch import nn\nact = nn.{activation}()\n")
        file = tmp_path / folder / "net.py"
        file.write_text("import net_of_layers\nmodel = net_of_layers.act\n")
        digests.append(load(f"{file}:model").digest)
        monkeypatch.delitem(sys.modules, "net_of_layers")
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("name", ["net_with_options", "random"])
def test_a_file_is_a_module_that_others_can_look_up(tmp_path: Path, name: str) -> None:
    """Dataclasses do, where annotations are texts; a library of the file's name stays what it is."""
    (tmp_path / f"{name}.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom typing import ClassVar\n"
        "from torch import nn\n@dataclass\nclass Config:\n    least: ClassVar[int] = 1\n    inputs: int = 2\n"
        "model = nn.Linear(Config().inputs, 2)\n"
    )
    before = sys.modules.get(name)
    assert isinstance(load(f"{tmp_path}/{name}.py:model").network, nn.Linear)
    assert sys.modules.get(name) is before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("reference.py", "must be FILE.py:NAME: a file of Python, and a name in it"),
        ("reference.txt:model", "must be FILE.py:NAME"),
        ("nowhere.py:model", "there is no file"),
        (
            "reference.py:nothing",
            "is a NoneType; expected a torch.nn.Module, or a function that returns one, alone or as",
        ),
        ("reference.py:number", "is a int; expected a torch.nn.Module"),
        ("reference.py:broken", "raised ValueError: no such file"),
        ("reference.py:ended", "raised SystemExit: usage"),
        ("reference.py:valueless", "raised NotImplementedError: Cannot copy out of meta tensor"),
    ],
)
def test_what_is_no_original(given: Path, text: str, said: str) -> None:
    with pytest.raises(VerificationError) as raised:
        load(f"{given}/{text}")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


class Fixed(nn.Module):
    """A network that gives the same ``output``."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, _: torch.Tensor) -> Any:
        return self.output


class TestOutputs:
    """What an original may give, for a demo of ten classes and a network of one output."""

    LOGITS = torch.linspace(-3, 3, 20).reshape(2, 10)

    def answers(self, output: Any, checkpoint: Any) -> Any:
        part = Samples(np.zeros((2, 32, 32, 3), np.uint8), None, "nothing")
        return probabilities(Original("x", "", Fixed(output), None), checkpoint, part, None)

    def test_logits_and_probabilities(self) -> None:
        demo = find("demo")
        expected = torch.softmax(self.LOGITS, 1).numpy()
        for output in (self.LOGITS, torch.softmax(self.LOGITS, 1), torch.log_softmax(self.LOGITS, 1)):
            np.testing.assert_allclose(self.answers(output, demo), expected, atol=1e-6)
        with pytest.raises(VerificationError, match=r"gave \(2, 9\); expected logits of shape \(N, 10\)"):
            self.answers(self.LOGITS[:, :9], demo)
        with pytest.raises(VerificationError, match=r"gave a dict; expected logits"):
            self.answers({"a": 1}, demo)

    def test_one_logit(self, tmp_path: Path) -> None:
        checkpoint = find(saved(tmp_path / "w.pth", originals.torchvision(1).state_dict()), given=Given(size=32))
        found = self.answers(self.LOGITS[:, :1], checkpoint)
        np.testing.assert_allclose(found[:, 1], torch.sigmoid(self.LOGITS[:, 0]), atol=1e-6)
        # A sigmoid of its own isn't followed by another one.
        found = self.answers(torch.sigmoid(self.LOGITS[:, :1]), checkpoint)
        np.testing.assert_allclose(found[:, 1], torch.sigmoid(self.LOGITS[:, 0]), atol=1e-6)

    def test_a_transform_needs_images(self) -> None:
        part = Samples(np.zeros((2, 32, 32, 3), np.uint8), None, "nothing")
        with pytest.raises(VerificationError, match=r"'x' has a transform, which needs images: add --eval FOLDER"):
            probabilities(Original("x", "", Fixed(self.LOGITS), lambda image: image), find("demo"), part, None)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("preprocessing", "agreement", "difference", "needed"),
    [
        ("checkpoint", 1.0, 1e-5, None),
        ("checkpoint", 1.0, 1e-3, "needed: 100% and 0.0001"),
        ("checkpoint", 0.99, 1e-5, "needed: 100% and 0.0001"),
        ("original", 0.99, 0.1, None),
        ("original", 0.9, 1e-5, "needed: 98.00%"),
    ],
)
def test_what_fp32_must_hold(preprocessing: str, agreement: float, difference: float, needed: str | None) -> None:
    found = Comparison("x", 100, "images", preprocessing, agreement, difference)
    assert found.failure(Thresholds()) == needed


@pytest.mark.parametrize("kind", ["grey", "bgr"])
def test_the_network_is_given_what_it_was_trained_on(tmp_path: Path, kind: str) -> None:
    """Grey of Pillow, blue first, enlarged: as the graph does it, but apart from the graph."""
    from model_build.export import contract
    from model_build.gate import reference

    grey = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    network = originals.torchvision(3, **({"conv1": grey} if kind == "grey" else {}))
    data = {"model": network.state_dict(), "input_size": 32} | ({"upsample": 48} if kind == "bgr" else {})
    given = Given(mean=(0.4,), std=(0.2,)) if kind == "grey" else Given(bgr=True, mean=(0.1, 0.2, 0.4))
    checkpoint = find(saved(tmp_path / "w.pth", data), given=given)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    part = Samples(pixels, None, "noise")
    theirs = probabilities(Original("x", "", network, None), checkpoint, part, None)
    np.testing.assert_allclose(reference(contract(checkpoint), part), theirs, atol=1e-5)
