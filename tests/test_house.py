"""The house: tests mirror the packages, and no module of what serves is too long to be one noun."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests")
# Modules without a test file of their name, and the test that holds each.
HELD_BY = {
    "autoscaling/__main__.py": "tests/autoscaling/test_commands.py",
    "autoscaling/baselines.py": "tests/autoscaling/test_fleet.py",
    "autoscaling/charts.py": "tests/autoscaling/test_commands.py",
    "autoscaling/fields.py": "tests/autoscaling/test_manifests.py",
    "autoscaling/kernel.py": "tests/autoscaling/test_fleet.py",
    "autoscaling/reporting.py": "tests/autoscaling/test_planner.py",
    "autoscaling/request.py": "tests/autoscaling/test_commands.py",
    "autoscaling/search.py": "tests/autoscaling/test_planner.py",
    "autoscaling/vectors_*.py": "tests/autoscaling/test_vectors.py",
    "benchmarks/*.py": "tests/benchmarks/test_commands.py",
    "benchmarks/peers/*.py": "tests/test_telemetry.py",
    "classifier/architectures.py": "tests/model_build/test_layout.py",
    "classifier/boxes.py": "tests/classifier/test_avif.py",
    "classifier/decoder.py": "tests/serving/test_containment.py",
    "classifier/heif.py": "tests/classifier/test_formats.py",
    "classifier/languages.py": "tests/test_extending.py",
    "classifier/preprocessing.py": "tests/classifier/test_manifest.py",
    "deploy/variants.py": "tests/test_extending.py",
    "examples/pipeline.py": "tests/test_composition.py",
    "loadtests/__main__.py": "tests/loadtests/test_run.py",
    "loadtests/commands/*.py": "tests/loadtests/test_run.py",
    "loadtests/follower.py": "tests/loadtests/test_session.py",
    "loadtests/generator.py": "tests/loadtests/test_run.py",
    "loadtests/locustfile.py": "tests/loadtests/test_run.py",
    "loadtests/markup.py": "tests/loadtests/test_report.py",
    "model_build/__main__.py": "tests/model_build/test_options.py",
    "model_build/chosen.py": "tests/model_build/test_weightset.py",
    "model_build/datasets.py": "tests/model_build/test_train.py",
    "model_build/dialects.py": "tests/model_build/test_structure.py",
    "model_build/errors.py": "tests/model_build/test_contents.py",
    "model_build/heads.py": "tests/model_build/test_structure.py",
    "model_build/initial.py": "tests/model_build/test_train.py",
    "model_build/label*.py": "tests/model_build/test_label_files.py",
    "model_build/likeness.py": "tests/model_build/test_layers.py",
    "model_build/metadata.py": "tests/model_build/test_preprocessing.py",
    "model_build/page.py": "tests/model_build/test_mistakes.py",
    "model_build/pipeline.py": "tests/model_build/test_build.py",
    "runners/jobs.py": "tests/runners/test_batching.py",
    "runners/results.py": "tests/serving/test_replies.py",
    "runners/telemetry.py": "tests/test_telemetry.py",
    "serving/proxy.py": "tests/test_composition.py",
}
LONGEST = 260


def modules(package: str) -> list[str]:
    """The package's modules by path, without those that only hold a docstring."""
    paths = sorted((ROOT / package).rglob("*.py"))
    return [str(path.relative_to(ROOT)) for path in paths if path.name != "__init__.py"]


def own_test(module: str) -> Path:
    """The test file of the module's name; of a folder's command, that of the folder's name."""
    path = Path(module)
    if path.stem == "__main__":
        path = path.parent
    return ROOT / "tests" / path.parent / f"test_{path.stem}.py"


def without_a_test(found: list[str], held: list[str]) -> list[str]:
    """Those of ``found`` that neither have a test of their name nor match a pattern of ``held``."""
    return [
        module
        for module in found
        if not own_test(module).is_file() and not any(fnmatch(module, pattern) for pattern in held)
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_each_module_has_a_test_of_its_name_or_is_held_by_another(package: str) -> None:
    assert without_a_test(modules(package), list(HELD_BY)) == []


@pytest.mark.parametrize("pattern", HELD_BY)
def test_the_list_of_the_others_is_true(pattern: str) -> None:
    held = [module for module in modules(pattern.split("/")[0]) if fnmatch(module, pattern)]
    assert any(not own_test(module).is_file() for module in held), "it has a test of its name, or is gone"
    text = (ROOT / HELD_BY[pattern]).read_text(encoding="utf-8")
    assert pattern.split("/")[0] in text or Path(pattern).stem in text


def test_a_module_without_a_test_is_found() -> None:
    assert without_a_test(["serving/nobody.py", "serving/classify.py"], []) == ["serving/nobody.py"]
    assert own_test("deploy/image/__main__.py").is_file()
    assert "serving" in PACKAGES


def too_long(package: str) -> set[str]:
    return {name for name in modules(package) if len((ROOT / name).read_text(encoding="utf-8").splitlines()) > LONGEST}


@pytest.mark.parametrize("package", ["classifier", "runners", "serving"])
def test_modules_that_serve_are_short(package: str) -> None:
    assert too_long(package) == set()


def test_the_guide_names_each_module_that_is_long() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (listed,) = re.findall(rf"Past {LONGEST} lines: .*?each one thing:(.*?)\n- ", guide, re.DOTALL)
    assert set(re.findall(r"`([^`]+)`", listed)) == set().union(*map(too_long, PACKAGES))
