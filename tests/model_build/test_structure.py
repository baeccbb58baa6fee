"""ResNet18s that are not torchvision's: they answer as the original does, and what is assumed is told."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from model_build.export import export
from model_build.preprocessing import Given
from model_build.samples import Samples
from model_build.structure import TORCHVISION, Choice, Structure, decide, read
from model_build.weights import WeightsError, find
from runners.torchscript import DEPRECATION
from tests.model_build import originals
from tests.model_build.checkpoints import saved, under
from tests.model_build.originals import answers_alike

if TYPE_CHECKING:
    from pathlib import Path

    from model_build.weights import Checkpoint

GREY = Given(mean=(0.4,), std=(0.3,))
PLAIN = originals.torchvision()
MLP = (nn.Linear(512, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 3))


def told(path: str, **options: Any) -> tuple[Checkpoint, str]:
    """The checkpoint of a file, and what was told of it."""
    notices: list[str] = []
    return find(path, tell=notices.append, **options), "\n".join(notices)


class TestNames:
    """Whose names the layers have makes no difference to the answers."""

    def test_hugging_face(self, tmp_path: Path) -> None:
        original = originals.hugging_face()
        state = original.state_dict()
        assert "resnet.encoder.stages.1.layers.0.shortcut.convolution.weight" in state
        checkpoint, notices = told(saved(tmp_path / "model.safetensors", state))
        assert answers_alike(checkpoint, original)
        assert checkpoint.structure == TORCHVISION
        assert notices == (
            "model.safetensors has the names of Hugging Face's transformers; they are read as torchvision's\n"
            "model.safetensors has its head in 'classifier.1'"
        )
        wrapped = {"state_dict": under("model.", state)}
        assert find(saved(tmp_path / "w.ckpt", wrapped)).digest == checkpoint.digest

    def test_pytorch_cifar(self, tmp_path: Path) -> None:
        original = originals.pytorch_cifar()
        data = {"net": under("module.", original.state_dict()), "acc": 95.0, "epoch": 199}
        checkpoint, notices = told(saved(tmp_path / "ckpt.pth", data))
        assert answers_alike(checkpoint, original, side=32)
        assert "has the names of pytorch-cifar" in notices
        assert "has its head in 'linear'" in notices

    def test_children_by_number(self, tmp_path: Path) -> None:
        original = originals.shaken(originals.Children())
        checkpoint, notices = told(saved(tmp_path / "w", original.state_dict()))
        assert answers_alike(checkpoint, original)
        assert "has the names of a Sequential of a ResNet's children" in notices

    @pytest.mark.parametrize(
        ("body", "name"), [("backbone", "classifier"), ("encoder", "head"), ("net", "last_linear"), ("backbone", "fc")]
    )
    def test_a_head_beside_the_body(self, tmp_path: Path, body: str, name: str) -> None:
        original = originals.Around(body, name, nn.Linear(512, 3)).eval()
        state = original.state_dict()
        assert f"{name}.weight" in state
        assert answers_alike(find(saved(tmp_path / "w", under("model.", state))), original)

    @pytest.mark.parametrize("name", ["classifier", "head", "last_linear"])
    def test_a_head_of_another_name(self, tmp_path: Path, name: str) -> None:
        original = PLAIN
        state = {key.replace("fc.", f"{name}."): value for key, value in original.state_dict().items()}
        checkpoint, notices = told(saved(tmp_path / "w", state))
        assert answers_alike(checkpoint, original)
        assert notices == f"w has its head in {name!r}"

    def test_a_body_with_a_head_of_its_own_and_another_beside(self, tmp_path: Path) -> None:
        state = under("net.", PLAIN.state_dict()) | {"head.weight": torch.zeros(5, 3)}
        with pytest.raises(WeightsError, match=r"beside a ResNet18 in 'net', 'head\.weight' \(5, 3\), which may be"):
            find(saved(tmp_path / "w", state))

    def test_a_head_beside_two_bodies_is_nobody_s(self, tmp_path: Path) -> None:
        body = originals.torchvision(3, fc=nn.Identity()).state_dict()
        state = under("student.", body) | under("teacher.", body) | {"head.weight": torch.zeros(5, 512)}
        with pytest.raises(WeightsError, match="is no ResNet18"):
            find(saved(tmp_path / "w.pth", state))

    def test_two_heads_of_one_name_beside_a_body(self, tmp_path: Path) -> None:
        body = under("model.net.", originals.torchvision(3, fc=nn.Identity()).state_dict())
        one, other = ({"fc.weight": torch.full((3, 512), n), "fc.bias": torch.zeros(3)} for n in (1.0, 2.0))
        with pytest.raises(WeightsError, match=r"its head is 'model\.fc\.weight' \(3, 512\), 'fc\.weight' \(3, 512\)"):
            find(saved(tmp_path / "w.pth", body | under("model.", one) | other))
        shared = saved(tmp_path / "shared.pth", body | under("model.", one) | one)
        assert torch.equal(find(shared).state["fc.weight"], one["fc.weight"])

    def test_two_heads(self, tmp_path: Path) -> None:
        state = PLAIN.state_dict() | {"head.weight": torch.zeros(5, 512), "head.bias": torch.zeros(5)}
        with pytest.raises(WeightsError, match=r"is no ResNet18: .*'head\.weight' \(5, 512\)"):
            find(saved(tmp_path / "w", state))


class TestHeads:
    """Sequentials with dropout, several layers, normalisation."""

    def test_dropout(self, tmp_path: Path) -> None:
        original = originals.torchvision(fc=nn.Sequential(nn.Dropout(0.5), nn.Linear(512, 3)))
        checkpoint, notices = told(saved(tmp_path / "w", original.state_dict()))
        assert answers_alike(checkpoint, original)
        assert checkpoint.structure == TORCHVISION
        assert notices == "w has its head in 'fc.1'"

    @pytest.mark.parametrize(
        ("layers", "structure"),
        [
            (MLP, ("linear 32", "relu", "linear")),
            ((nn.Linear(512, 32), nn.Linear(32, 3)), ("linear 32", "linear")),
            (
                (nn.Linear(512, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 3)),
                ("linear 32", "batchnorm 32", "relu", "linear"),
            ),
            (
                (nn.Linear(512, 32), nn.ReLU(), nn.BatchNorm1d(32), nn.Dropout(), nn.Linear(32, 3)),
                ("linear 32", "relu", "batchnorm 32", "linear"),
            ),
            (
                (nn.BatchNorm1d(512), nn.Dropout(), nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 3)),
                ("batchnorm 512", "linear 32", "relu", "linear"),
            ),
        ],
    )
    def test_several_layers(self, tmp_path: Path, layers: tuple[nn.Module, ...], structure: tuple[str, ...]) -> None:
        original = originals.torchvision(fc=nn.Sequential(*layers))
        checkpoint, notices = told(saved(tmp_path / "w", original.state_dict()))
        assert answers_alike(checkpoint, original)
        assert checkpoint.structure.told()["head"] == list(structure)
        assert checkpoint.classes == 3
        assert ("relu is assumed between them" in notices) == ("relu" in structure)

    def test_another_activation_is_said(self, tmp_path: Path) -> None:
        original = originals.torchvision(fc=nn.Sequential(nn.Linear(512, 32), nn.Tanh(), nn.Linear(32, 3)))
        path = saved(tmp_path / "w", original.state_dict())
        assert not answers_alike(find(path), original)
        checkpoint, notices = told(path, choice=Choice(activation="tanh"))
        assert answers_alike(checkpoint, original)
        assert "assumed" not in notices
        assert checkpoint.digest != find(path).digest

    def test_one_output_of_several_layers(self, tmp_path: Path) -> None:
        original = originals.torchvision(fc=nn.Sequential(nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 1)))
        checkpoint, notices = told(saved(tmp_path / "w", original.state_dict()))
        assert checkpoint.classes == 2
        assert "w has one output (fc.2.weight [1, 32]), taken for a sigmoid's" in notices

    @pytest.mark.parametrize(
        "head",
        [
            {"fc.0.weight": (32, 512), "fc.0.bias": (32,), "fc.2.weight": (3, 31), "fc.2.bias": (3,)},
            {"fc.1.weight": (3, 512)},
            {"fc.0.weight": (512,), "fc.0.bias": (512,), "fc.1.weight": (3, 512), "fc.1.bias": (3,)},
            {"projection.weight": (3, 512), "projection.bias": (3,)},
            {"fc.a.weight": (512, 512), "fc.a.bias": (512,), "fc.b.weight": (3, 512), "fc.b.bias": (3,)},
            {"fc.0.weight": (3, 512), "fc.0.bias": (3,), "fc.1.weight": (3,), "fc.1.bias": (3,)},
        ],
        ids=lambda head: " ".join(head),
    )
    def test_what_is_no_row_of_layers(self, tmp_path: Path, head: dict[str, tuple[int, ...]]) -> None:
        state = originals.torchvision(fc=nn.Identity()).state_dict()
        state |= {key: torch.zeros(shape) for key, shape in head.items()}
        with pytest.raises(
            WeightsError, match=r"its head is .*; what is read are linear layers in a row, called fc, cl"
        ):
            find(saved(tmp_path / "w", state))


class TestStems:
    """CIFAR's, and grey."""

    def test_cifar(self, tmp_path: Path) -> None:
        original = originals.cifar()
        checkpoint, notices = told(saved(tmp_path / "w", original.state_dict()))
        assert answers_alike(checkpoint, original, side=32)
        assert (checkpoint.preprocessing.size, checkpoint.preprocessing.resize) == (32, 32)
        assert checkpoint.structure == Structure(kernel=3, stride=1, pool=False)
        assert notices == (
            "w has a stem of 3x3, as ResNets for CIFAR: stride 1 and no max-pool are assumed, which the file "
            "doesn't tell; --stem-stride 2 and --max-pool say otherwise\n"
            "w has that stem, and nothing tells its images' size: 32 pixels are assumed; --size says otherwise"
        )

    def test_a_max_pool_and_a_stride_are_said(self, tmp_path: Path) -> None:
        original = originals.cifar()
        original.maxpool = nn.MaxPool2d(3, 2, 1)
        path = saved(tmp_path / "w", original.state_dict())
        assert not answers_alike(find(path), original)
        checkpoint, notices = told(path, choice=Choice(pool=True, stride=1), given=Given(size=64))
        assert answers_alike(checkpoint, original)
        assert notices == ""

    def test_imagenet_s_stem_without_its_max_pool(self, tmp_path: Path) -> None:
        original = originals.torchvision(maxpool=nn.Identity())
        checkpoint, notices = told(saved(tmp_path / "w", original.state_dict()), choice=Choice(pool=False))
        assert answers_alike(checkpoint, original)
        assert notices == ""

    def test_the_file_tells(self, tmp_path: Path) -> None:
        original = originals.cifar()
        original.maxpool = nn.MaxPool2d(3, 2, 1)
        data = {"model": original.state_dict(), "max_pool": True, "stem_stride": 1, "input_size": 64}
        checkpoint, notices = told(saved(tmp_path / "w", data))
        assert answers_alike(checkpoint, original)
        assert notices == ""

    def test_what_the_file_tells_may_be_overridden_and_may_be_wrong(self) -> None:
        told = Choice(pool=True, stride=1)
        assert decide(TORCHVISION, Choice(pool=False), told, print) == Structure(stride=1, pool=False)
        for entry in ({"stem_stride": 3}, {"max_pool": "maybe"}, {"head_activation": "mish"}):
            with pytest.raises(ValueError, match=f"^{next(iter(entry))} .* must be "):
                read(entry)

    def test_grey_images_of_a_small_stem_and_a_deep_head_are_exported(self, tmp_path: Path) -> None:
        """The contract stays RGB: what the network sees is Pillow's ``convert("L")`` of what is sent."""
        head = nn.Sequential(nn.Linear(512, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, 3))
        network = originals.torchvision(conv1=nn.Conv2d(1, 64, 3, 1, 1, bias=False), maxpool=nn.Identity(), fc=head)
        path = saved(tmp_path / "w", network.state_dict())
        checkpoint = find(path, given=GREY, choice=Choice(activation="gelu"))
        pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
        grey = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in pixels])
        file = export(checkpoint, "torchscript", "fp32", tmp_path, Samples(pixels, None, "noise"))
        with torch.inference_mode():
            expected = torch.softmax(network((torch.from_numpy(grey)[:, None].float() / 255 - 0.4) / 0.3), 1)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", DEPRECATION, DeprecationWarning)
                actual = torch.jit.load(str(file))(torch.from_numpy(pixels))
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)

    def test_the_conversion_is_pillow_s_for_every_colour(self) -> None:
        from model_build.network import Contract

        levels = np.arange(256, dtype=np.uint8)
        colours = np.stack(np.meshgrid(levels[::3], levels[1::3], levels[2::3]), -1).reshape(-1, 3)
        side = int(len(colours) ** 0.5)
        image = np.ascontiguousarray(colours[: side * side].reshape(side, side, 3))
        seen = Contract(nn.Flatten(), size=side, grey=True, mean=(0.0,), std=(1 / 255,)).logits(
            torch.from_numpy(image)[None]
        )
        expected = np.asarray(Image.fromarray(image).convert("L"))
        assert np.array_equal(seen.numpy().reshape(side, side).round(3), expected)

    def test_grey_images_have_no_default_of_mean_and_std(self, tmp_path: Path) -> None:
        state = originals.torchvision(conv1=nn.Conv2d(1, 64, 7, 2, 3, bias=False)).state_dict()
        path = saved(tmp_path / "w", state)
        with pytest.raises(WeightsError) as raised:
            find(path)
        said = "w: the network sees grey images, and nothing tells their mean: give --mean M and --std S, one number "
        assert str(raised.value) == said + "each"
        with pytest.raises(WeightsError, match=r"--mean 0\.4,0\.5,0\.6 must be one number, as the network sees grey"):
            find(path, given=Given(mean=(0.4, 0.5, 0.6), std=(0.3,)))
        with pytest.raises(WeightsError, match="--bgr is of networks that see colours"):
            find(path, given=Given(mean=(0.4,), std=(0.3,), bgr=True))
        in_file = find(saved(tmp_path / "w", {"model": state, "mean": [0.4], "std": "0.3"}))
        assert (in_file.mean, in_file.std) == ((0.4,) * 3, (0.3,) * 3)

    def test_choices_without_a_place(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "w", PLAIN.state_dict())
        with pytest.raises(WeightsError, match=r"^--head-activation tanh: the head has no place between two layers"):
            find(path, choice=Choice(activation="tanh"))
        told = saved(tmp_path / "told.pth", {"model": PLAIN.state_dict(), "head_activation": "tanh"})
        with pytest.raises(WeightsError, match=r"^told\.pth: head_activation 'tanh': the head has no place between"):
            find(told)
        with pytest.raises(WeightsError, match="--weights demo is none"):
            find("demo", choice=Choice(pool=False))


def test_what_a_trained_file_tells_is_read_again() -> None:
    structure = Structure(kernel=3, stride=1, pool=False, head=(("linear", 8), ("activation", 0)), activation="gelu")
    assert read(structure.metadata()) == Choice(pool=False, stride=1, activation="gelu")
    assert TORCHVISION.metadata() == {}
    assert TORCHVISION.told() == {}
