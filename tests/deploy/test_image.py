"""How an image is built, as far as that can be told without a container engine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from deploy.image import __main__ as image
from tests.conftest import ROOT


def pins(name: str) -> dict[str, str]:
    """The versions that a file in requirements/ pins, by normalised name."""
    found = re.findall(
        r"^([A-Za-z0-9_.-]+)(?:\[\S+\])?==(\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE
    )
    return {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in found}


@pytest.mark.parametrize("name", ["runtime", "gpu", "torchscript"])
def test_a_lock_holds_what_its_requirements_ask_at_the_tested_versions(name: str) -> None:
    locked, tested = pins(f"{name}.lock"), pins("constraints.txt")
    asked = pins(f"{name}.txt") | (pins("runtime.txt") if name == "torchscript" else {})
    # Which build of torch is right depends on the index; it is installed beside the lock.
    asked.pop("torch", None)
    assert asked.items() <= locked.items()
    assert {package: locked[package] for package in locked if package in tested} == {
        package: version for package, version in tested.items() if package in locked
    }


@pytest.mark.parametrize("name", ["runtime", "gpu", "torchscript"])
def test_every_line_of_a_lock_has_hashes_and_no_address(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.lock").read_text()
    requirements = [line for line in text.replace("\\\n", "").splitlines() if line.strip()]
    assert all(re.fullmatch(r"[a-z0-9.-]+==\S+(\s+--hash=sha256:[0-9a-f]{64})+\s*", line) for line in requirements)
    assert not {"torch", "pytest", "onnx", "scikit-image"} & set(pins(f"{name}.lock"))


@pytest.mark.parametrize("variant", ["gpu", "torchscript"])
def test_a_variant_s_bentofile_differs_from_the_default_in_its_lock_and_its_setting_alone(variant: str) -> None:
    default = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
    other = yaml.safe_load((ROOT / image.VARIANTS[variant].bentofile).read_text())
    (setting,) = [env for env in other["envs"] if env not in default["envs"]]
    assert setting in (
        {"name": "RESNET18_DEVICE", "value": "cuda"},
        {"name": "RESNET18_RUNTIME", "value": "torchscript"},
    )
    other["envs"].remove(setting)
    lock = f"requirements/{variant}.lock"
    assert other.pop("python") == default.pop("python") | {"requirements_txt": lock}
    assert other.pop("include") == [*default.pop("include")[:-1], f"/{lock}"]
    assert other == default


def test_no_engine_is_an_error_that_names_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(image.ImageError, match=r"none of docker, podman, buildah .* apt-get install .*podman"):
        image.find_engine(None)
    with pytest.raises(image.ImageError, match="none of podman is installed"):
        image.find_engine("podman")


def test_an_engine_that_does_not_answer_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, status in (("docker", 1), ("buildah", 0)):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert image.find_engine(None) == "buildah"


def test_torchscript_without_an_index_of_cpu_wheels_is_refused_before_anything_is_built() -> None:
    from click.testing import CliRunner

    result = CliRunner().invoke(image.main, ["--variant", "torchscript"])
    assert result.exit_code == 1
    assert "TORCH_INDEX" in result.output
