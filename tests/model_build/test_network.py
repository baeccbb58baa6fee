"""The contract around the network: what goes in, what comes out, and what the graph does between."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from model_build.network import Contract, from_state, import_torchvision, resnet18
from model_build.preprocessing import IMAGENET_MEAN, IMAGENET_STD

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def images(count: int, size: int, seed: int = 0) -> torch.Tensor:
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.integers(0, 256, (count, size, size, 3), np.uint8))


def pixels(contract: Contract, image: torch.Tensor, side: int) -> torch.Tensor:
    """What the network inside is given, with nn.Flatten in its place."""
    return contract.logits(image).reshape(-1, 3, side, side)


@pytest.fixture(scope="module")
def random_network() -> nn.Module:
    torch.manual_seed(0)
    return resnet18(7).eval()


def test_probabilities(random_network: nn.Module) -> None:
    contract = Contract(random_network, size=32)
    with torch.inference_mode():
        probabilities = contract(images(5, 32))
    assert probabilities.shape == (5, 7)
    assert probabilities.dtype == torch.float32
    assert probabilities.min() >= 0
    torch.testing.assert_close(probabilities.sum(1), torch.ones(5))


def test_probabilities_are_the_softmax_of_the_networks_logits(random_network: nn.Module) -> None:
    contract, image = Contract(random_network, size=32), images(3, 32)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    normalised = (image.permute(0, 3, 1, 2).to(torch.float32) / 255 - mean) / std
    with torch.inference_mode():
        expected = torch.softmax(random_network(normalised), dim=1)
        torch.testing.assert_close(contract(image), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("mean", "std"), [(IMAGENET_MEAN, IMAGENET_STD), ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)), ((0, 0, 0), (1, 1, 1))]
)
@pytest.mark.parametrize("size", [8, 33, 224])
def test_normalisation_is_torchvisions(
    mean: tuple[float, float, float], std: tuple[float, float, float], size: int
) -> None:
    import_torchvision()
    from torchvision.transforms.functional import normalize, to_tensor

    image = images(2, size, seed=size)
    expected = torch.stack([normalize(to_tensor(one.numpy()), list(mean), list(std)) for one in image])
    actual = pixels(Contract(nn.Flatten(), size=size, mean=mean, std=std), image, size)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("size", "side"), [(32, 64), (32, 96), (32, 50), (33, 64)])
def test_upsampling_is_bilinear_interpolation(size: int, side: int) -> None:
    image = images(2, size)
    plain = pixels(Contract(nn.Flatten(), size=size), image, size)
    expected = nn.functional.interpolate(plain, size=(side, side), mode="bilinear", align_corners=False)
    actual = pixels(Contract(nn.Flatten(), size=size, upsample=side), image, side)
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)


def test_upsampling_to_the_same_size_is_none() -> None:
    assert Contract(nn.Flatten(), size=32, upsample=32).upsample is None
    assert Contract(nn.Flatten(), size=32, upsample=None).upsample is None


def test_reduced_precision_keeps_both_ends_in_float32() -> None:
    torch.manual_seed(0)
    contract = Contract(resnet18(7).eval(), size=32, dtype=torch.bfloat16)
    assert next(contract.network.parameters()).dtype == torch.bfloat16
    assert contract.scale.dtype == contract.shift.dtype == torch.float32
    with torch.inference_mode():
        probabilities = contract(images(2, 32))
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2))


def test_state_comes_back(random_network: nn.Module) -> None:
    network = from_state(dict(random_network.state_dict()), 7)
    assert not network.training
    batch = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(network(batch), random_network(batch))


def test_state_may_lack_the_counters_only(random_network: nn.Module) -> None:
    state = dict(random_network.state_dict())
    from_state({key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}, 7)
    with pytest.raises(ValueError, match=r"'bn1\.running_mean' does not fit"):
        from_state({key: value for key, value in state.items() if key != "bn1.running_mean"}, 7)
    with pytest.raises(ValueError, match="'extra' does not fit"):
        from_state(state | {"extra": torch.zeros(1)}, 7)


def run(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": os.pathsep.join((str(path), str(ROOT)))}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


def fake_torchvision(folder: Path, content: str) -> Path:
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text(content, encoding="utf-8")
    (folder / "torchvision" / "part.py").write_text("")
    return folder


def test_a_torchvision_built_for_cuda_is_imported_all_the_same(tmp_path: Path) -> None:
    fake = (
        "import torch, torchvision.part\n"
        "try:\n"
        "    torch.ops.torchvision.nms.default, torch.ops.torchvision.qnms.default\n"
        "except AttributeError:\n"
        "    raise RuntimeError('operator torchvision::nms does not exist') from None\n"
    )
    code = (
        "from model_build.network import import_torchvision\n"
        "first = import_torchvision()\n"
        "assert import_torchvision() is first\n"
        "print(first.__file__)\n"
    )
    result = run(code, fake_torchvision(tmp_path, fake))
    assert result.stdout.strip() == str(tmp_path / "torchvision" / "__init__.py"), result.stderr


def test_any_other_failure_of_torchvision_is_told(tmp_path: Path) -> None:
    fake = fake_torchvision(tmp_path, "raise RuntimeError('out of luck')\n")
    result = run("from model_build.network import import_torchvision\nimport_torchvision()", fake)
    assert result.returncode == 1
    assert result.stderr.strip().endswith("RuntimeError: out of luck")
