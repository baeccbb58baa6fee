"""Where weights come from: users' files, the packaged demo, labels and sizes."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from classifier.labels import Labels
from classifier.preprocessing import Preprocessing
from model_build import weights
from model_build.label_text import LabelsError
from model_build.network import from_state, resnet18
from model_build.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Given
from model_build.weights import WeightsError, find
from tests.model_build.checkpoints import State, made, saved

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def state() -> State:
    """A random ResNet18 of three classes."""
    return made(3)


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

    @pytest.mark.parametrize("classes", [2, 37])
    def test_any_number_of_classes(self, tmp_path: Path, classes: int) -> None:
        checkpoint = find(saved(tmp_path / "w.safetensors", made(classes)))
        assert (checkpoint.classes, len(checkpoint.labels)) == (classes, classes)

    def test_a_thousand_classes_of_one_s_own_are_not_imagenets(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "w.safetensors", made(1000))
        assert find(path).labels == weights.numbered(1000)
        assert find(path, labels=weights.IMAGENET_LABELS).labels.en[281] == "tabby"

    def test_notices_begin_with_the_files_name(self, tmp_path: Path, state: State) -> None:
        notices: list[str] = []
        path = saved(tmp_path / "w.pth", {"state_dict": state, "state_dict_ema": made(3, seed=9)})
        assert find(path, tell=notices.append).digest == find(path, key="state_dict_ema").digest
        assert find(path, key="state_dict").digest == find(saved(tmp_path / "v.pth", state)).digest
        assert notices == [
            "w.pth holds several sets of weights: 'state_dict_ema', an average, is taken, 'state_dict' left; "
            "--key NAME takes another"
        ]

    def test_names_and_preprocessing_beside_the_weights_are_honoured(self, tmp_path: Path, state: State) -> None:
        data = {
            "model": {"state_dict": state, "class_to_idx": {"cat": 2, "ant": 0, "bee": 1}},
            "input_size": np.int64(48),
            "crop_pct": 0.75,
            "mean": [0.1, 0.2, 0.3],
            "std": np.array([0.4, 0.5, 0.6]),
            "args": argparse.Namespace(resize=1),
        }
        checkpoint = find(saved(tmp_path / "w.ckpt", data))
        assert checkpoint.labels == Labels(("ant", "bee", "cat"))
        assert (checkpoint.preprocessing, checkpoint.upsample) == (Preprocessing(48, 64), None)
        assert (checkpoint.mean, checkpoint.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
        results = {"model": state, "mean": 0.71, "std": np.float64(0.02)}
        assert find(saved(tmp_path / "w.ckpt", results)).mean == IMAGENET_MEAN

    def test_a_name_that_is_no_utf8_is_written_as_one(self, tmp_path: Path, state: State) -> None:
        path = tmp_path / os.fsdecode(b"w\xff.pth")
        assert find(saved(path, state)).origin == "w\ufffd.pth"
        path.write_bytes(b"")
        with pytest.raises(WeightsError, match=r"^w.\.pth is empty"):
            find(str(path))

    @pytest.mark.parametrize("name", ["auto", "imagenet", "demo"])
    def test_a_key_is_for_a_file(self, name: str) -> None:
        with pytest.raises(WeightsError, match=f"--key 'ema' chooses in a file of weights, and --weights {name} is"):
            find(name, key="ema")

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

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(
            WeightsError, match=r"missing\.pth' is not a file or folder, nor one of auto, imagenet, demo"
        ):
            find(str(tmp_path / "missing.pth"))

    def test_a_file_that_is_none_of_weights_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "w.pth").write_bytes(b"")
        with pytest.raises(WeightsError, match=r"^w\.pth is empty; expected the weights as torch\.save"):
            find(str(tmp_path / "w.pth"))


class TestOneOutput:
    """A head trained with a sigmoid, as for BCE."""

    def test_its_sigmoid_is_the_second_class_s_probability(self, tmp_path: Path) -> None:
        notices: list[str] = []
        state = made(1)
        checkpoint = find(saved(tmp_path / "w.pth", state), tell=notices.append)
        assert (checkpoint.classes, checkpoint.labels) == (2, Labels(("class 0", "class 1")))
        assert notices == [
            "w.pth has one output (fc.weight [1, 512]), taken for a sigmoid's: it is served as two classes, the "
            "negative and then the positive, whose probability is that sigmoid"
        ]
        single, double = from_state(state, 1), from_state(checkpoint.state, 2)
        # Large enough for both classes to be met.
        images = torch.randn(8, 3, 64, 64) * torch.linspace(1, 50, 8).reshape(8, 1, 1, 1)
        with torch.inference_mode():
            sigmoid = torch.sigmoid(single(images))[:, 0]
            softmax = torch.softmax(double(images), 1)
        torch.testing.assert_close(softmax[:, 1], sigmoid)
        torch.testing.assert_close(softmax[:, 0], 1 - sigmoid)
        assert sigmoid.max() - sigmoid.min() > 0.05

    def test_labels_are_two(self, tmp_path: Path) -> None:
        (tmp_path / "l.txt").write_text("cat\ndog\n")
        checkpoint = find(saved(tmp_path / "w.pth", made(1)), labels=tmp_path / "l.txt")
        assert checkpoint.labels == Labels(("cat", "dog"))


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
