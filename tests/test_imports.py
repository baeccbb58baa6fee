"""Imports point down only, and what is heavy is imported where it is needed."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("classifier", "runners", "serving", "model_build", "offline")
MEASURING = ("harness", "benchmarks", "loadtests", "autoscaling")
# What each may import of the project's own; classifier ← runners ← serving ← service.py.
ALLOWED: dict[str, tuple[str, ...]] = {
    "classifier": ("classifier",),
    "runners": ("classifier", "runners"),
    "serving": ("classifier", "runners", "serving"),
    "service": ("classifier", "runners", "serving"),
    "model_build": (
        *("classifier", "model_build", "runners.artifacts", "runners.backends", "runners.devices", "runners.engines"),
        "runners.telemetry",
        # What the runtime's module says of its warnings.
        "runners.torchscript",
    ),
    # It is the service without a server: the same ways to find images, to decode and to infer.
    "offline": (
        *("classifier", "runners", "serving.placements", "model_build.listing", "model_build.atomic", "offline"),
    ),
    # It measures whatever it is given.
    "harness": ("harness",),
    # It knows a URL, not what serves it.
    "loadtests": ("harness", "loadtests"),
    # It knows a rate and what a pod holds, not what answers.
    "autoscaling": ("harness.arrivals", "harness.figures", "harness.http", "harness.wire", "autoscaling"),
    "benchmarks": ("harness", *PACKAGES, "service", "benchmarks"),
}
# The benchmark of the load tests' own generator drives it.
DRIVES_LOADTESTS = "benchmarks/limit.py"
HEAVY = {"torch", "torchvision", "onnxruntime", "onnx"}
# pillow_heif is classifier/heif.py's alone, which is imported only where it is installed.
CORE = {"numpy", "PIL", "pillow_heif", "pydantic", "pydantic_settings"}
AUTOSCALING = {"numpy", "numba", "yaml", "click", "rich"}
HARNESS = {"numpy", "psutil", "PIL", "skimage"}


def sources(name: str) -> list[Path]:
    return [ROOT / "service.py"] if name == "service" else sorted((ROOT / name).rglob("*.py"))


def modules(nodes: list[ast.stmt] | list[ast.AST]) -> list[str]:
    """The modules that import statements among ``nodes`` name, each as far as it is written."""
    names = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import hides where it points"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def everywhere(path: Path) -> list[str]:
    return modules(list(ast.walk(ast.parse(path.read_text(encoding="utf-8")))))


def on_import(path: Path) -> list[str]:
    """What is imported when the module is: not in functions, nor for type checkers only."""
    names: list[str] = []
    pending: list[ast.stmt] = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while pending:
        node = pending.pop()
        names += modules([node])
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for field in ("body", "orelse", "finalbody"):
                pending += getattr(node, field, [])
            for handler in getattr(node, "handlers", []):
                pending += handler.body
    return names


def ours(name: str) -> bool:
    return name.split(".")[0] in (*PACKAGES, "service", "tests", *MEASURING)


def also(path: Path) -> tuple[str, ...]:
    """What one file may import besides."""
    return ("loadtests",) if path.relative_to(ROOT).as_posix() == DRIVES_LOADTESTS else ()


def within(name: str, allowed: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in allowed)


@pytest.mark.parametrize("package", ALLOWED)
def test_no_arrow_points_up(package: str) -> None:
    upward = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(package)
        for name in everywhere(path)
        if ours(name) and not within(name, (*ALLOWED[package], *also(path)))
    ]
    assert upward == []


def test_the_walk_sees_an_arrow_that_points_up(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text(
        "import classifier.pixels\n"
        "class A:\n"
        "    import torch\n"
        "    def f(self):\n"
        "        from serving import replies\n"
        "if TYPE_CHECKING:\n"
        "    import onnx\n"
        "else:\n"
        "    import numpy as np\n"
        "try:\n"
        "    import yaml\n"
        "except ImportError:\n"
        "    from torchvision.models import resnet18\n"
    )
    assert "serving.replies" in everywhere(path)
    assert not within("serving.replies", ALLOWED["runners"])
    assert not within("runners.predictor", ALLOWED["model_build"])
    assert within("runners.backends.load", ALLOWED["model_build"])
    assert sorted(on_import(path)) == ["classifier.pixels", "numpy", "torch", "torchvision.models.resnet18", "yaml"]


@pytest.mark.parametrize("package", ["classifier", "runners", "serving", "service"])
def test_heavy_libraries_are_imported_by_the_functions_that_need_them(package: str) -> None:
    heavy = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(package)
        for name in on_import(path)
        if name.split(".")[0] in HEAVY
    ]
    assert heavy == []


def test_onnxruntime_is_imported_by_what_silences_it_alone() -> None:
    importing = [
        str(path.relative_to(ROOT))
        for path in ROOT.glob("*/**/*.py")
        if path.relative_to(ROOT).parts[0] in (*PACKAGES, *MEASURING, "deploy")
        and "onnxruntime" in {name.split(".")[0] for name in everywhere(path)}
    ]
    assert importing == ["runners/telemetry.py"]


def foreign(paths: list[Path], needed: set[str]) -> list[str]:
    """What ``paths`` import that is neither ours, nor ``needed``, nor Python's."""
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in paths
        for name in everywhere(path)
        if not ours(name) and name.split(".")[0] not in needed | set(sys.stdlib_module_names)
    ]


@pytest.mark.parametrize(
    ("package", "needed"), [("classifier", CORE), ("autoscaling", AUTOSCALING), ("harness", HARNESS)]
)
def test_the_core_the_autoscaler_and_the_harness_need_little(package: str, needed: set[str]) -> None:
    assert foreign(sources(package), needed) == []


def test_what_the_autoscaler_takes_of_the_harness_needs_no_more_than_the_autoscaler() -> None:
    taken = [ROOT / f"{name.replace('.', '/')}.py" for name in ALLOWED["autoscaling"] if name.startswith("harness.")]
    assert foreign(taken, AUTOSCALING) == []
    inner = {name for path in taken for name in everywhere(path) if ours(name)}
    assert all(within(name, ALLOWED["autoscaling"]) for name in inner)


def test_the_runner_knows_nothing_of_images_files_or_labels() -> None:
    for path in sources("runners"):
        assert not {"PIL", "starlette"} & {name.split(".")[0] for name in everywhere(path)}, path
        assert not within("classifier.pixels", tuple(everywhere(path))), path


def loaded(code: str, env: dict[str, str] | None = None) -> set[str]:
    """The top-level modules that a fresh interpreter holds after ``code``."""
    code += "\nimport sys\nprint('\\n'.join({name.split('.')[0] for name in sys.modules}))"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RESNET18_")}
    kept |= {"PYTHONPATH": str(ROOT)} | (env or {})
    result = subprocess.run([sys.executable, "-c", code], env=kept, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def importing(*packages: str) -> str:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for package in packages
        for path in sources(package)
    ]
    return "\n".join(f"import {name}" for name in names)


def test_importing_the_core_loads_no_framework() -> None:
    names = loaded(importing("classifier"))
    assert {"numpy", "PIL"} <= names
    assert not names & (HEAVY | {"bentoml", "starlette", "runners", "serving", "model_build"})


@pytest.mark.slow
def test_importing_what_serves_loads_no_runtime() -> None:
    names = loaded(importing("classifier", "runners", "serving"))
    assert {"classifier", "runners", "serving"} <= names
    assert not names & (HEAVY | {"model_build", "skimage", "scipy"})


def test_the_load_tests_commands_load_nothing_that_locust_must_replace_first() -> None:
    names = loaded("import loadtests.__main__")
    assert {"loadtests", "harness", "click"} <= names
    assert not names & {"ssl", "asyncio", "locust", "gevent", "psutil"}


def test_importing_the_onnx_service_loads_no_torch(store: Path) -> None:
    names = loaded("import service", {"BENTOML_HOME": str(store)})
    assert {"service", "bentoml"} <= names
    assert not names & {"torch", "torchvision", "onnx", "model_build", "skimage", "scipy"}


def test_an_onnx_inference_loads_no_torch(store: Path) -> None:
    code = (
        "import numpy as np\n"
        "from classifier.settings import Settings\n"
        "from runners import artifacts, backends\n"
        "artifact = artifacts.open_artifact(artifacts.choose(Settings(), 'cpu'))\n"
        "backend = backends.load(artifact.folder, artifact.manifest)\n"
        "assert backend.infer(np.zeros((1, 32, 32, 3), np.uint8)).shape == (1, 10)\n"
    )
    names = loaded(code, {"BENTOML_HOME": str(store)})
    assert "onnxruntime" in names
    assert not names & {"torch", "torchvision", "model_build"}
