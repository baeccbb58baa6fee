"""The options that tell how images are prepared: what they refuse, and that what is built with them serves so."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import skimage.data
import torch
from click.testing import CliRunner
from PIL import Image, ImageOps
from safetensors.torch import save_file
from torch.nn import functional

from classifier import pixels
from model_build.__main__ import main
from model_build.export import contract
from model_build.network import from_state
from model_build.preprocessing import Given
from model_build.weights import find
from tests.classifier.test_pixels import LIMIT, encode
from tests.conftest import ROOT, Server, environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    from model_build.weights import Checkpoint

# torch's and onnxruntime's, of their own code; a command's user is not shown them.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning"),
]
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "camera.png")
SIDE = 64


def build(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "160"}).invoke(main, arguments, prog_name="python -m model_build")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--crop", "1.2"), "'--crop': 1.2 is not in the range 0<x<=1"),
        (("--crop", "0"), "'--crop': 0.0 is not in the range 0<x<=1"),
        (("--crop", "nan"), "--crop nan is no share of an image; more than 0 and at most 1 is"),
        (("--crop", "0.95", "--resize", "256"), "--crop 0.95 and --resize 256 both say what is cropped; give one of"),
        (("--interpolation", "cubic"), "'cubic' is not one of 'bilinear', 'bicubic', 'nearest', 'box', 'hamming'"),
        (
            ("--mean", "0.5,0.5"),
            "'0.5,0.5' must be three numbers, of red, green and blue, such as 0.485,0.456,0.406, or",
        ),
        (("--mean", "a,b,c"), "'a,b,c' must be three numbers"),
        (("--std", "inf,1,1"), "'inf,1,1' must be three numbers"),
        (("--std", "0,1,1"), "--std 0,1,1 must be at least 0.001"),
        (("--mean", "123.675,116.28,103.53"), "--mean 123.675,116.28,103.53 is for pixels of 0 to 255: give --std, 1"),
        (("--mean", "124,116,104", "--std", "0.2,0.2,0.2"), "must both be for pixels of 0 to 1, or both for pixels of"),
        (("--resize", "4096"), "'--resize': 4096 is not in the range 8<=x<=2048"),
        (("--bgr", "train", "pets"), "--bgr is an option of building, not of train"),
    ],
)
def test_what_can_not_be_meant(arguments: tuple[str, ...], said: str) -> None:
    result = build(*arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--crop", "0.01"), "--crop 0.01 scales to 3200 pixels for a crop of 32; at most 2048 are possible"),
        (("--mean", "0.5"), "--mean 0.5 must be three numbers, of R, G, B"),
        (
            ("--no-max-pool",),
            "--max-pool, --stem-stride and --head-activation tell what a file of weights doesn't, and",
        ),
        (("--no-antialias", "--interpolation", "bicubic"), "--no-antialias goes with bilinear alone, not with bicubic"),
    ],
)
def test_what_does_not_suit_the_checkpoint(empty_store: Path, arguments: tuple[str, ...], said: str) -> None:
    result = build("--weights", "demo", *arguments)
    assert result.exit_code == 1
    assert said in " ".join(result.output.split())
    assert "Traceback" not in result.output


# Pipelines as others write them, apart from everything here: an image, R, G, B, to what the network is given.


def tensor(image: Image.Image) -> torch.Tensor:
    """float32[1, 3, H, W], 0 to 255."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()


def keras(image: Image.Image) -> torch.Tensor:
    """``load_img(target_size=(64, 64), interpolation="bilinear")`` and ``preprocess_input(mode="caffe")``."""
    squashed = tensor(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)).flip(1)
    return squashed - torch.tensor([103.939, 116.779, 123.68]).reshape(1, 3, 1, 1)


def timm(image: Image.Image) -> torch.Tensor:
    """``create_transform(input_size=64, crop_pct=0.95, interpolation="bicubic", mean=0.5, std=0.5)``."""
    short = math.floor(SIDE / 0.95)
    scale = short / min(image.size)
    scaled = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = round((scaled.width - SIDE) / 2), round((scaled.height - SIDE) / 2)
    return tensor(scaled.crop((left, top, left + SIDE, top + SIDE))) / 127.5 - 1


def opencv(image: Image.Image) -> torch.Tensor:
    """``cv2.resize(image, (64, 64))`` and ``image / 255``; torch without antialias weighs the same four pixels."""
    scaled = functional.interpolate(tensor(image), (SIDE, SIDE), mode="bilinear", antialias=False)
    return scaled.round() / 255


CAFFE = ("--size", "64", "--squash", "--bgr", "--mean", "123.68,116.779,103.939", "--std", "1,1,1")
TIMM = {
    "input_size": [3, 64, 64],
    "interpolation": "bicubic",
    "crop_pct": 0.95,
    "crop_mode": "center",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}
OPENCV = ("--size", "64", "--squash", "--no-antialias", "--mean", "0,0,0", "--std", "1,1,1")
PIPELINES: dict[str, tuple[Callable[[Image.Image], torch.Tensor], tuple[str, ...], dict[str, str]]] = {
    "keras": (keras, CAFFE, {}),
    "timm": (timm, (), {"pretrained_cfg": json.dumps(TIMM)}),
    "opencv": (opencv, OPENCV, {}),
}
LINES = {
    "keras": "size 64 (--size), resize 64 (--squash), squash yes (--squash), crop none, interpolation bilinear "
    "(default), antialias yes (default), mean 0.48502,0.457957,0.407604 (--mean), std 0.00392157,0.00392157,0.00392157 "
    "(--std), channels BGR (--bgr)",
    "timm": "size 64 (file), resize 67 (file), squash no (file), crop centre 64x64, interpolation bicubic (file), "
    "antialias yes (default), mean 0.5,0.5,0.5 (file), std 0.5,0.5,0.5 (file), channels RGB (default)",
    "opencv": "size 64 (--size), resize 64 (--squash), squash yes (--squash), crop none, interpolation bilinear "
    "(default), antialias no (--no-antialias), mean 0,0,0 (--mean), std 1,1,1 (--std), channels RGB (default)",
}
MODEL = {
    "keras": {
        "size": 64,
        "resize": 64,
        "squash": True,
        "interpolation": "bilinear",
        "antialias": True,
        "upsample": None,
        "mean": [value / 255 for value in (123.68, 116.779, 103.939)],
        "std": [1 / 255] * 3,
        "channels": "BGR",
    },
    "timm": {
        "size": 64,
        "resize": 67,
        "squash": False,
        "interpolation": "bicubic",
        "antialias": True,
        "upsample": None,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "channels": "RGB",
    },
    "opencv": {
        "size": 64,
        "resize": 64,
        "squash": True,
        "interpolation": "bilinear",
        "antialias": False,
        "mean": [0] * 3,
        "std": [1] * 3,
        "channels": "RGB",
        "upsample": None,
    },
}


def refitted(state: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """The demo's weights as if they had been trained in a pipeline of its own normalisation and channel order.

    A convolution of (x - m) / s is one of (x - m') / s' with weights times s' / s, but for a constant, which the
    batch normalisation's mean takes up where no padding is in sight.
    """
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    new_mean, new_std = {
        "keras": (torch.tensor([123.68, 116.779, 103.939]) / 255, torch.full((3,), 1 / 255)),
        "timm": (torch.full((3,), 0.5), torch.full((3,), 0.5)),
        "opencv": (torch.zeros(3), torch.ones(3)),
    }[name]
    weight = state["conv1.weight"] * (new_std / std).reshape(1, 3, 1, 1)
    moved = (state["conv1.weight"] * ((new_mean - mean) / std).reshape(1, 3, 1, 1)).sum((1, 2, 3))
    return state | {
        "conv1.weight": (weight.flip(1) if name == "keras" else weight).contiguous(),
        "bn1.running_mean": state["bn1.running_mean"] - moved,
    }


@pytest.fixture(scope="module")
def photographs() -> list[bytes]:
    """JPEGs as a camera's, one of them stored turned."""
    folder = Path(skimage.data.__file__).parent
    found = []
    for number, name in enumerate(PHOTOS):
        image = Image.open(folder / name).convert("RGB")
        exif = Image.Exif()
        if number == 1:
            exif[0x0112], image = 6, image.transpose(Image.Transpose.ROTATE_90)
        found.append(encode(image, "JPEG", quality=92, exif=exif))
    return found


@pytest.mark.parametrize("name", PIPELINES)
def test_what_is_told_is_what_is_served(name: str, demo: Checkpoint, tmp_path: Path, photographs: list[bytes]) -> None:
    prepare, arguments, metadata = PIPELINES[name]
    state = refitted(demo.state, name)
    network = from_state(state, 10)
    expected = []
    for photo in photographs:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(photo)))
        with torch.inference_mode():
            expected.append(torch.softmax(network(prepare(image)), 1)[0].numpy())

    # Untold, the same weights answer otherwise: else what follows would prove nothing.
    save_file(state, tmp_path / "untold.safetensors")
    untold = find(str(tmp_path / "untold.safetensors"), given=Given(size=SIDE))
    squares = np.stack([pixels.decode(photo, untold.preprocessing, LIMIT) for photo in photographs])
    with torch.inference_mode():
        otherwise = contract(untold)(torch.from_numpy(squares)).numpy()
    assert np.abs(otherwise - expected).max() > 0.3

    save_file(state, tmp_path / "told.safetensors", metadata)
    command = [sys.executable, "-m", "model_build", "--weights", str(tmp_path / "told.safetensors"), *arguments]
    done = subprocess.run(
        [*command, "--runtime", "onnx", "--precisions", "fp32"],
        cwd=ROOT,
        env=environment() | {"BENTOML_HOME": str(tmp_path / "home"), "COLUMNS": "80"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"\npreprocessing: {LINES[name]}\n" in done.stdout
    server = Server(tmp_path / "home")
    try:
        server.wait()
        assert server.client.get("/model").json()["preprocessing"] == MODEL[name]
        for photo, right in zip(photographs, expected, strict=True):
            response = server.client.post("/classify", params={"top_k": 10}, files={"image": ("a.jpg", photo)})
            predictions = response.json()["predictions"]
            ours = {one["class_id"]: one["probability"] for one in predictions}
            assert predictions[0]["class_id"] == right.argmax()
            np.testing.assert_allclose([ours[number] for number in range(10)], right, atol=0.02)
    finally:
        server.stop()
