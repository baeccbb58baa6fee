"""How an image is built, as far as that can be told without a container engine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from classifier import runtimes
from deploy.image import __main__ as image
from deploy.variants import VARIANTS, Variant
from tests.conftest import ROOT


def pins(name: str) -> dict[str, str]:
    """The versions that a file in requirements/ pins, by normalised name."""
    found = re.findall(
        r"^([A-Za-z0-9_.-]+)(?:\[\S+\])?==(\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE
    )
    return {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in found}


def asked(name: str) -> dict[str, str]:
    """The versions that a file in requirements/ and those it includes pin."""
    text = (ROOT / "requirements" / name).read_text()
    included = [asked(other) for other in re.findall(r"^-r (\S+)", text, re.MULTILINE)]
    return {package: version for versions in (*included, pins(name)) for package, version in versions.items()}


LOCKS = {variant.lock: variant.indexed for variant in VARIANTS.values()}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_what_its_requirements_ask_at_the_tested_versions(name: str) -> None:
    locked, tested = pins(f"{name}.lock"), pins("constraints.txt")
    wanted = asked(f"{name}.txt")
    # Which build of torch is right depends on the index; it is installed beside the lock.
    left_out = LOCKS[name]
    if left_out:
        assert wanted.pop(left_out)
    assert "torch" not in wanted
    assert wanted.items() <= locked.items()
    assert {package: locked[package] for package in locked if package in tested} == {
        package: version for package, version in tested.items() if package in locked
    }


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_of_a_lock_has_hashes_and_no_address(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.lock").read_text()
    requirements = [line for line in text.replace("\\\n", "").splitlines() if line.strip()]
    assert all(re.fullmatch(r"[a-z0-9.-]+==\S+(\s+--hash=sha256:[0-9a-f]{64})+\s*", line) for line in requirements)
    assert not {"torch", "pytest", "onnx", "scikit-image"} & set(pins(f"{name}.lock"))


@pytest.mark.parametrize("variant", [each for each in VARIANTS.values() if each.bentofile != "bentofile.yaml"])
def test_a_variant_s_bentofile_differs_from_the_default_in_its_lock_and_its_setting_alone(variant: Variant) -> None:
    default = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
    other = yaml.safe_load((ROOT / variant.bentofile).read_text())
    settings = {"RESNET18_DEVICE": (variant.device, "cpu"), "RESNET18_RUNTIME": (variant.runtime, runtimes.DEFAULT)}
    expected = [{"name": name, "value": own} for name, (own, usual) in settings.items() if own != usual]
    assert [env for env in other["envs"] if env not in default["envs"]] == expected
    other["envs"] = default["envs"]
    lock = f"requirements/{variant.lock}.lock"
    assert other.pop("python") == default.pop("python") | {"requirements_txt": lock}
    assert other.pop("include") == [*default.pop("include")[:-1], f"/{lock}"]
    assert other == default


def test_every_variant_that_has_no_bentofile_of_its_own_is_the_default_s() -> None:
    """A bento has one lock, one runtime and one device: only the platform may differ."""
    default = VARIANTS["cpu"]
    for variant in VARIANTS.values():
        if variant.bentofile == default.bentofile:
            assert (variant.lock, variant.runtime, variant.device) == (default.lock, default.runtime, default.device)


def test_the_locks_that_make_lock_makes() -> None:
    command = [sys.executable, "-m", "deploy.variants"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    locks = [line.split() for line in done.stdout.splitlines()]
    assert {lock: left_out[0] if left_out else None for lock, *left_out in locks} == LOCKS
    assert {lock for lock, *_ in locks} == {path.stem for path in (ROOT / "requirements").glob("*.lock")}


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


@pytest.mark.parametrize("variant", [each.name for each in VARIANTS.values() if each.indexed])
def test_without_an_index_of_cpu_wheels_it_is_refused_before_anything_is_built(variant: str) -> None:
    from click.testing import CliRunner

    result = CliRunner().invoke(image.main, ["--variant", variant])
    assert result.exit_code == 1
    assert f"VARIANT={variant} needs TORCH_INDEX" in result.output
