"""The bento: built as ``make bento`` does, carrying what it needs and nothing else, and served from elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import bentoml
import pytest
import yaml
from openapi_spec_validator import validate

from tests.conftest import ROOT, Server, environment

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bento(store: Path) -> Iterator[Path]:
    """The folder of a bento built from this checkout."""
    bin_folder = str(Path(sys.executable).parent)
    env = environment() | {"BENTOML_HOME": str(store), "PATH": bin_folder + os.pathsep + os.environ["PATH"]}
    command = [sys.executable, "-m", "bentoml", "build", "--version", "tested", "-o", "tag"]
    built = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    yield Path(bentoml.bentos.get("resnet18:tested").path)
    bentoml.bentos.delete("resnet18:tested")


def test_it_carries_the_chosen_model_and_only_what_serves(bento: Path, store: Path) -> None:
    files = {str(path.relative_to(bento / "src")) for path in (bento / "src").rglob("*") if path.is_file()}
    shipped = {
        str(path.relative_to(ROOT))
        for folder in ("classifier", "runners", "serving")
        for path in (ROOT / folder).glob("*.py")
    }
    shipped |= {str(path.relative_to(ROOT)) for path in (ROOT / "web").rglob("*") if path.is_file()}
    assert files == shipped | {"service.py", "bentofile.yaml", "requirements/runtime.lock"}
    models = [str(info.tag) for info in bentoml.bentos.get("resnet18:tested").info.all_models]
    assert len(models) == 1
    assert models[0].startswith("resnet18-onnx-")


def test_its_requirements_are_pinned_and_without_torch_or_addresses(bento: Path) -> None:
    text = (bento / "env" / "python" / "requirements.txt").read_text()
    wanted = [line for line in text.replace("\\\n", "").splitlines() if line and not line.startswith("#")]
    names = [line.split("==")[0] for line in wanted if "==" in line]
    assert {"bentoml", "onnxruntime", "pillow", "numpy"} <= set(names)
    assert not {"torch", "torchvision", "onnx", "scikit-image", "pytest"} & set(names)
    assert all("==" in line for line in wanted)
    # BentoML adds its own version without a hash at the end.
    assert all("--hash=sha256:" in line for line in wanted[:-1])
    assert "://" not in text


def test_its_description_is_the_service_s(bento: Path) -> None:
    spec = yaml.safe_load((bento / "apis" / "openapi.yaml").read_text())
    validate(spec)
    assert set(spec["paths"]) >= {"/classify", "/classify_batch", "/model", "/labels"}


def test_it_serves_from_an_empty_directory(bento: Path, store: Path, tmp_path: Path, photos: list[Path]) -> None:
    server = Server(store, cwd=tmp_path, target="resnet18:tested")
    try:
        server.wait()
        for photo in photos[:8]:
            reply = server.client.post("/classify", files={"image": (photo.name, photo.read_bytes())})
            assert reply.status_code == 200
        assert server.client.get("/model").json()["weights"]["origin"] == "demo"
    finally:
        server.stop()
