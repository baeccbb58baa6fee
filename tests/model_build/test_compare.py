"""``compare``: it trains or takes each network, judges them on the same images, and writes the page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from model_build import costs
from model_build.compare import compare
from model_build.costs import Cost
from model_build.weights import find
from tests.model_build.checkpoints import made, saved
from tests.model_build.test_train import draw

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning"),  # torch's of its own exporter
]


def outcome(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(compare, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, " ".join(result.output.split())


def test_one_is_trained_and_one_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "measure", lambda folder, seconds: Cost(1.5, 100, 90))
    source, out = draw(tmp_path / "shapes", seed=0), tmp_path / "compared"
    # In another order than the folders', as a file may have them.
    names = ["red", "green", "blue"]
    taken = saved(
        tmp_path / "m.pth", {"model": made(3, architecture="mobilenet_v2"), "classes": names, "input_size": 16}
    )
    options = ("--init", "none", "--size", 16, "--batch-size", 8, "--epochs", 1, "--threads", 1)
    archs = ("--archs", "shufflenet_v2_x1_0,mobilenet_v2", "--weights", f"mobilenet_v2={taken}")
    code, said = outcome(source, *archs, *options, "--precisions", "fp32", "--out", out)
    assert code == 0, said
    trained = find(str(out / "shufflenet_v2_x1_0.safetensors"))
    assert (trained.architecture, trained.preprocessing.size) == ("shufflenet_v2_x1_0", 16)
    page = (out / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<tr><th>([^<]+)</th>", page) == ["ShuffleNetV2 x1.0 fp32", "MobileNetV2 fp32"]
    assert "mobilenet_v2 come from files: their training may have seen the images they are judged on." in page
    assert re.search(r"shufflenet_v2_x1_0 fp32 . +1\.26 M", said)
    assert f"wrote {out / 'index.html'}" in said
    assert not (out / "mobilenet_v2.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--archs", "resnet18,vgg11"), "--archs 'vgg11': must be among resnet18, resnet34, "),
        (("--archs", ","), "--archs ',' names no network; resnet18, "),
        (
            ("--archs", "resnet18", "--weights", "x.pth"),
            "--weights 'x.pth' must be ARCH=FILE, with ARCH one of resnet18",
        ),
        (("--archs", "resnet18", "--weights", "resnet34=x.pth"), "--weights 'resnet34=x.pth' must be ARCH=FILE"),
        (("--precisions", "int3"), "--precisions 'int3': must be among"),
        (("--archs", "resnet18", "--weights", "resnet18=nowhere.pth"), "'nowhere.pth' is not a file"),
    ],
)
def test_mistakes_get_a_sentence(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    code, said = outcome(tmp_path, "--out", tmp_path / "out", *arguments)
    assert code != 0
    assert message in said


def test_a_file_of_other_classes_is_refused(tmp_path: Path) -> None:
    source = draw(tmp_path / "shapes", seed=0)
    path = saved(tmp_path / "m.pth", {"model": made(2, architecture="mobilenet_v2"), "classes": ["red", "blue"]})
    archs = ("--archs", "mobilenet_v2", "--weights", f"mobilenet_v2={path}")
    code, said = outcome(source, *archs, "--out", tmp_path / "out")
    assert code != 0
    assert (
        "the file m.pth has 2 classes and DIR has 3; they must have the same names, and 'green' is not in both" in said
    )
