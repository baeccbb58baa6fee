"""Engines: which may run an artifact, and what is said of those that may not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from classifier.runtimes import ENGINES, RUNTIMES
from runners import devices, engines
from runners.engines import EngineError, usable
from tests.server import ROOT

JUDGED = {"cpu": "a family", "failure": None}


def manifest(runtime: str = "onnx", precision: str = "int8", **judged: Any) -> Any:
    return SimpleNamespace(runtime=runtime, precision=precision, gate={"engines": judged} if judged else {})


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "installed", lambda _: True)
    monkeypatch.setattr(devices, "cpu_family", lambda: "a family")


def test_auto_takes_those_that_have_passed() -> None:
    assert usable("auto", manifest(), "cpu") == ["onnxruntime"]
    assert usable("auto", manifest(openvino=JUDGED), "cpu") == ["onnxruntime", "openvino"]
    assert usable("auto", manifest(openvino=JUDGED | {"failure": "too far off"}), "cpu") == ["onnxruntime"]
    assert usable("auto", manifest(openvino=JUDGED | {"cpu": "another"}), "cpu") == ["onnxruntime"]
    assert usable("auto", manifest(openvino=JUDGED), "cuda:0") == ["onnxruntime"]
    assert usable("auto", manifest("torchscript"), "cpu") == ["torch"]


def test_an_engine_that_is_named_is_the_only_one() -> None:
    assert usable("openvino", manifest(openvino=JUDGED), "cpu") == ["openvino"]
    assert usable("onnxruntime", manifest(openvino=JUDGED), "cpu") == ["onnxruntime"]


@pytest.mark.parametrize(
    ("asked", "given", "device", "reason"),
    [
        ("torch", manifest(), "cpu", "onnx in int8 is run by onnxruntime or openvino"),
        ("openvino", manifest("torchscript"), "cpu", "torchscript in int8 is run by torch"),
        ("onnxruntime", manifest(precision="bf16"), "cpu", "onnx in bf16 is run by openvino"),
        ("openvino", manifest(), "cpu", "the accuracy gate has not judged the artifact with it; build the model where"),
        ("openvino", manifest(openvino=JUDGED | {"failure": "no"}), "cpu", "the artifact has not passed .*: no"),
        ("openvino", manifest(openvino=JUDGED | {"cpu": "b"}), "cpu", "on a CPU of b, and this one is of a family"),
        ("openvino", manifest(openvino=JUDGED), "cuda:1", "it runs on CPUs, and the device is cuda:1"),
    ],
)
def test_one_that_can_not_serve_is_refused(asked: str, given: Any, device: str, reason: str) -> None:
    with pytest.raises(EngineError, match=f"^RESNET18_ENGINE='{asked}' can't be honoured: .*{reason}"):
        usable(asked, given, device)


def test_one_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "installed", lambda name: name != "openvino")
    assert usable("auto", manifest(openvino=JUDGED), "cpu") == ["onnxruntime"]
    with pytest.raises(EngineError, match=r"it is not installed; pip install -r requirements/openvino\.txt"):
        usable("openvino", manifest(openvino=JUDGED), "cpu")


def test_a_precision_of_one_engine_is_run_by_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable("auto", manifest(precision="bf16"), "cpu") == ["openvino"]
    assert [engines.runnable("onnx", "bf16", asked) for asked in ("auto", "openvino", "onnxruntime")] == [
        True,
        True,
        False,
    ]
    monkeypatch.setattr(engines, "installed", lambda name: name != "openvino")
    assert not engines.runnable("onnx", "bf16", "auto")
    assert engines.runnable("onnx", "int8", "auto")
    with pytest.raises(EngineError, match=r"^onnx in bf16 is run by openvino, .* pip install -r requirements/openvino"):
        usable("auto", manifest(precision="bf16"), "cpu")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_to_install_is_a_file_of_requirements(monkeypatch: pytest.MonkeyPatch, runtime: str) -> None:
    monkeypatch.setattr(engines, "installed", lambda name: False)
    with pytest.raises(EngineError, match="which is not installed; pip install -r requirements/") as raised:
        usable("auto", manifest(runtime), "cpu")
    assert (ROOT / str(raised.value).rpartition(" -r ")[2]).is_file()


def test_every_engine_of_a_runtime_is_in_the_table() -> None:
    assert {name for runtime in RUNTIMES.values() for name in runtime.engines} == set(ENGINES)
