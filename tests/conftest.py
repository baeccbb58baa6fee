"""What tests share: the shared images where they are, a store with the demo model, and running servers."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.http import free_port as free_port
from runners import telemetry
from tests import programs
from tests.programs import debian as debian
from tests.server import ROOT as ROOT
from tests.server import Server as Server
from tests.server import environment as environment
from tests.server import launching
from tests.server import output_of as output_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from classifier.manifest import Manifest
    from classifier.preprocessing import Preprocessing
    from model_build.weights import Checkpoint
    from runners.artifacts import Artifact

SHARED = ROOT.parent / "shared"
# Pillow's.
MAX_IMAGE_PIXELS = 1024**3 // 4 // 3


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that needs a built model, as all servers do, is a slow one."""
    for item in items:
        if "store" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of test data beside the project."""
    if not SHARED.is_dir():
        pytest.skip("the folder shared/ beside the project is not here")
    return SHARED


@pytest.fixture(scope="session")
def photos(shared: Path) -> list[Path]:
    """Real photographs, their label in the name."""
    return sorted((shared / "images" / "photos").glob("*.JPEG"))


@pytest.fixture(scope="session")
def photograph() -> Callable[[int, int], Image]:
    """A function of width and height in pixels that gives a photograph, RGB, of that size."""
    import skimage.data
    from PIL import Image

    astronaut = Image.open(Path(skimage.data.__file__).parent / "astronaut.png").convert("RGB")
    return lambda width, height: astronaut.resize((width, height), Image.Resampling.LANCZOS)


@pytest.fixture(scope="session")
def torchvision_pixels() -> Callable[[bytes, Preprocessing], NDArray[np.uint8]]:
    """A function of an encoded image and a Preprocessing that gives torchvision's pixels of them."""
    import io

    import numpy as np
    from PIL import Image, ImageOps

    from model_build.network import import_torchvision

    import_torchvision()
    from torchvision.transforms import CenterCrop, InterpolationMode, PILToTensor, Resize

    def reference(data: bytes, preprocessing: Preprocessing) -> NDArray[np.uint8]:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        side = (preprocessing.resize, preprocessing.resize) if preprocessing.squash else preprocessing.resize
        interpolation = InterpolationMode(preprocessing.interpolation)
        if not preprocessing.antialias:
            resize = Resize(side, interpolation=interpolation, antialias=False)
            tensor = CenterCrop(preprocessing.size)(resize(PILToTensor()(image)))
            return np.ascontiguousarray(tensor.permute(1, 2, 0).numpy())
        return np.asarray(CenterCrop(preprocessing.size)(Resize(side, interpolation=interpolation)(image)))

    return reference


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BENTOML_HOME that holds the demo model in every default precision; it is the session's own from here on.

    Of the processes that share a run, the first builds it and each takes a copy; ``make test`` names a folder for it in
    TESTS_STORE.
    """
    home, base = tmp_path_factory.mktemp("bentoml"), tmp_path_factory.getbasetemp()
    folder = os.environ.get("TESTS_STORE", base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)
    built = Path(folder) / "store"
    with built.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (built / "whole").exists():
            build = [sys.executable, "-m", "model_build", "--weights", "demo"]
            subprocess.run(build, cwd=ROOT, env=environment() | {"BENTOML_HOME": str(built)}, check=True)
            (built / "whole").touch()
    shutil.copytree(built, home, dirs_exist_ok=True)
    os.environ["BENTOML_HOME"] = str(home)
    from bentoml._internal.configuration.containers import BentoMLContainer

    BentoMLContainer.bentoml_home.set(str(home))
    BentoMLContainer.model_store.reset()
    return home


@pytest.fixture(scope="session")
def artifact_of(store: Path) -> Callable[..., Artifact]:
    """A function that gives the demo model's artifact of a runtime and a precision, fp32 if none is given."""
    from runners import artifacts

    def artifact_of(runtime: str, precision: str = "fp32") -> Artifact:
        return artifacts.open_artifact(f"{artifacts.store_name(runtime, precision)}:latest")

    return artifact_of


@pytest.fixture
def cpu_only() -> None:
    """Skips a test of a machine without a GPU."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")


@pytest.fixture(scope="session", autouse=True)
def _no_usage_data() -> None:
    """Libraries must not report the tests' doings to their makers, however pytest was started."""
    telemetry.off()


@pytest.fixture(autouse=True)
def _pillow_s_own_limit() -> None:
    """Decoding sets Pillow's limit of pixels for the whole process: no test begins with another's."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = MAX_IMAGE_PIXELS


@pytest.fixture
def empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A BENTOML_HOME with nothing in it, for one test: in this process and in those that it starts."""
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.models import ModelStore

    home = tmp_path / "bentoml"
    for name in ("bentos", "models", "envs", "tmp"):
        (home / name).mkdir(parents=True)
    monkeypatch.setenv("BENTOML_HOME", str(home))
    models = home / "models"
    # BentoML keeps what it has once looked up, so each of the three is put in place of what it keeps.
    with (
        BentoMLContainer.bentoml_home.patch(str(home)),
        BentoMLContainer.model_store_dir.patch(str(models)),
        BentoMLContainer.model_store.patch(ModelStore(models)),
    ):
        yield home


@pytest.fixture(scope="session")
def manifest_of() -> Callable[..., Manifest]:
    """A function that gives a valid manifest of a file; keywords take the place of its fields."""
    from classifier import manifest as manifests
    from classifier.labels import Labels
    from classifier.preprocessing import Preprocessing

    def describe(file: Path, **changes: Any) -> Manifest:
        valid = manifests.Manifest(
            runtime="onnx",
            precision="fp32",
            file=file.name,
            digest=manifests.sha256(file),
            preprocessing=Preprocessing(32, 36),
            labels=Labels(("cat", "dog"), ("猫", "狗")),
            weights={"origin": "demo", "digest": "0" * 64},
            export={"opset": 17},
            gate={"agreement": 1.0},
        )
        return dataclasses.replace(valid, **changes)

    return describe


@pytest.fixture(scope="session")
def demo() -> Checkpoint:
    """The packaged demo checkpoint."""
    from model_build.weights import find

    return find("demo")


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A function that gives a disk of its own, of a size such as "1m", where the tests may mount one."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        if sys.platform != "linux" or os.geteuid() != 0:
            pytest.skip("only root can mount a small disk, on Linux")
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a small disk can't be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Leave not a byte free on ``disk``."""
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.fixture(scope="session")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a kubectl, for what it does without a cluster."""
    return programs.kubectl(tmp_path_factory.mktemp("kubectl"))


@pytest.fixture(scope="module")
def launch(store: Path) -> Iterator[Callable[..., Server]]:
    """See ``launching``. A server that idles costs 2 % of a core, so it ends with the tests of its file."""
    with launching(store) as start:
        yield start


@pytest.fixture(scope="session")
def server(store: Path) -> Iterator[Server]:
    """The service as ``make serve`` starts it: ONNX, inline, one worker; limits lowered for tests to reach them."""
    with launching(store) as start:
        yield start(max_body_bytes="3000000", max_images="4", max_pixels="4000000").wait()


def eventually(holds: Callable[[], bool], seconds: float = 15) -> bool:
    """Whether ``holds`` does within ``seconds``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.1)
    return False
