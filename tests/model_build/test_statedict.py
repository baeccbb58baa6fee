"""A file's state dict: float32 of the right shapes and values, with its metadata and the plain entries beside it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from model_build.errors import FileError
from model_build.network import resnet18
from model_build.statedict import read
from tests.model_build.checkpoints import State, made, saved, under


@pytest.fixture(scope="module")
def state() -> State:
    return made(3)


def refused(path: Path, data: Any) -> str:
    with pytest.raises(FileError) as raised:
        read(Path(saved(path, data)), None, print)
    return str(raised.value)


class TestExtras:
    """What the file tells besides."""

    def test_the_plain_entries_on_the_way_to_the_weights(self, tmp_path: Path, state: State) -> None:
        data = {
            "net": {"state_dict": under("module.", state), "class_to_idx": {"ant": 0, "bee": 1, "cat": 2}, "epoch": 9},
            "args": argparse.Namespace(img_size=np.int64(64), crop_pct=0.9),
            "classes": np.array(["ant", "bee", "cat"]),
            "id2label": {0: "ant", 1: "bee", 2: "cat"},
            "epoch": 3,
            "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
            "weight": torch.zeros(1),
        }
        stored = read(Path(saved(tmp_path / "w.ckpt", data)), None, print)
        assert stored.extras == {
            "net": {"class_to_idx": {"ant": 0, "bee": 1, "cat": 2}, "epoch": 9},
            "class_to_idx": {"ant": 0, "bee": 1, "cat": 2},
            "args": {"img_size": 64, "crop_pct": 0.9},
            "classes": ["ant", "bee", "cat"],
            "id2label": {0: "ant", 1: "bee", 2: "cat"},
            "epoch": 9,
            "optimizer": {"param_groups": [{"lr": 0.1, "params": [0]}]},
        }
        assert stored.metadata == {}

    def test_a_state_dict_alone_tells_nothing(self, tmp_path: Path, state: State) -> None:
        assert read(Path(saved(tmp_path / "w.pth", state)), None, print).extras == {}

    def test_metadata_of_safetensors(self, tmp_path: Path, state: State) -> None:
        save_file(under("model.", state), tmp_path / "w", {"input_size": "64"})
        stored = read(tmp_path / "w", None, print)
        assert (stored.metadata, stored.extras) == ({"input_size": "64"}, {})
        assert stored.state.keys() == {key for key in state if not key.endswith("num_batches_tracked")}


class TestValues:
    """float32, whatever the file's precision; what can't be that is refused by its key."""

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
    def test_other_precisions(self, tmp_path: Path, state: State, dtype: torch.dtype) -> None:
        data = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
        stored = read(Path(saved(tmp_path / "w.pth", data)), None, print)
        assert {value.dtype for value in stored.state.values()} == {torch.float32}
        torch.testing.assert_close(stored.state["fc.weight"], data["fc.weight"].float())

    def test_parameters_instead_of_tensors(self, tmp_path: Path) -> None:
        """As ``state_dict(keep_vars=True)`` gives, and many an averaging of weights."""
        data = dict(resnet18(3).state_dict(keep_vars=True))
        assert data["fc.weight"].requires_grad
        assert not read(Path(saved(tmp_path / "w.pth", data)), None, print).state["fc.weight"].requires_grad

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"fc.weight": torch.zeros(3)}, "is no ResNet18: 'fc.weight' has shape (3,), expected (1, 512)"),
            (
                {"fc.weight": torch.zeros(3, 100)},
                "is no ResNet18: 'fc.weight' has shape (3, 100), expected (3, 512)",
            ),
            (
                {"fc.weight": torch.zeros(0, 512), "fc.bias": torch.zeros(0)},
                "is no ResNet18: 'fc.weight' has shape (0, 512), expected (1, 512)",
            ),
            ({"fc.bias": torch.zeros(4)}, "is no ResNet18: 'fc.bias' has shape (4,), expected (3,)"),
            (
                {"conv1.weight": torch.zeros(64, 3, 5, 5)},
                "is no ResNet18: 'conv1.weight' has shape (64, 3, 5, 5), expected (64, 3, 7, 7): "
                "a stem of 5x5, and only those of 7x7 (ImageNet's) and 3x3 (CIFAR's) are read",
            ),
            (
                {"conv1.weight": torch.zeros(64, 4, 7, 7)},
                "is no ResNet18: 'conv1.weight' has shape (64, 4, 7, 7), expected (64, 3, 7, 7): "
                "it takes images of 4 channels, and only those of 3 (RGB) and 1 (grey) are served",
            ),
            (
                {"bn1.weight": torch.full((64,), torch.nan)},
                "can't be used: 'bn1.weight' holds values that are not finite in float32",
            ),
            (
                {"fc.bias": torch.full((3,), 1e300, dtype=torch.float64)},
                "can't be used: 'fc.bias' holds values that are not finite in float32",
            ),
            ({"bn1.running_var": -torch.ones(64)}, "can't be used: 'bn1.running_var' holds negative variances"),
            (
                {"fc.bias": torch.ones(3, dtype=torch.int64)},
                "can't be used: 'fc.bias' is of int64, strided, on cpu; plain floating-point numbers are expected",
            ),
            (
                {"fc.bias": torch.ones(3, dtype=torch.complex64)},
                "can't be used: 'fc.bias' is of complex64, strided, on cpu; plain floating-point numbers are expected",
            ),
            (
                {"fc.weight": torch.ones(3, 512).to_sparse()},
                "can't be used: 'fc.weight' is of float32, sparse_coo, on cpu; "
                "plain floating-point numbers are expected",
            ),
            (
                {"fc.weight": torch.ones(3, 512, device="meta")},
                "can't be used: 'fc.weight' is of float32, strided, on meta; plain floating-point numbers are expected",
            ),
        ],
        ids=lambda value: value[-60:] if isinstance(value, str) else "",
    )
    def test_the_first_key_is_named(self, tmp_path: Path, state: State, change: State, message: str) -> None:
        assert refused(tmp_path / "w.pth", state | change) == message

    @pytest.mark.parametrize("data", [[1, 2], torch.zeros(3), 5], ids=["list", "tensor", "number"])
    def test_what_is_no_dict(self, tmp_path: Path, data: Any) -> None:
        assert refused(tmp_path / "w.pth", data) == f"holds a {type(data).__name__}, not a state dict"


def test_few_values_that_stand_for_many_are_not_made_dense(tmp_path: Path) -> None:
    """A file of 45 MB would need 2 TB."""
    state = made(3)
    state["fc.weight"], state["fc.bias"] = torch.zeros(1).expand(1 << 30, 512), torch.zeros(1).expand(1 << 30)
    with pytest.raises(FileError, match=r"can't be used: 'fc\.weight' is of float32, .*expanded from fewer"):
        read(Path(saved(tmp_path / "w.pth", state)), None, print)
