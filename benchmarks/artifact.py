"""The model that every benchmark serves: a ResNet18 of 224 px and 1,000 classes, built once into its own store.

With ImageNet's weights if the torch hub cache has them, else with seeded random ones: the speed is the same.
``python -m benchmarks.artifact`` builds it; the other benchmarks do so themselves when it is missing or outdated.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.peers import ROOT
from runners import devices, telemetry

FOLDER = ROOT / "build" / "bench"
RANDOM = FOLDER / "random1000.pth"
BUILD_TIMEOUT_S = 600


@dataclass(frozen=True)
class Artifact:
    """``origin``: whose weights. ``weights``: their state dict. ``file``: the .onnx that the service would serve."""

    origin: str
    weights: Path
    file: Path


def ready() -> Artifact:
    """The artifact, built in every default precision of this machine unless one that is up to date is there.

    Makes its store the one of this process and of all that it starts.
    """
    store = FOLDER / "bentoml-auto"
    # Before anything imports bentoml, which reads it once.
    os.environ["BENTOML_HOME"] = str(store)
    telemetry.off()
    origin, weights = _weights()
    # What fits a GPU is built only where there is one.
    key = {"origin": origin, "exporter": _exporter(), "gpus": devices.gpus()}
    mark = store / "built.json"
    if not mark.is_file() or json.loads(mark.read_text()) != key:
        build(origin, weights, store)
        mark.write_text(json.dumps(key))
    return Artifact(origin, weights, stored("onnx"))


def stored(runtime: str, precision: str = "auto") -> Path:
    """The stored artifact's file; for "auto", that which the service would serve on a CPU. Raises ClickException."""
    import bentoml

    from classifier.manifest import ManifestError, read
    from classifier.settings import Settings
    from runners.artifacts import ArtifactError, choose

    try:
        wanted = Settings.model_validate({"runtime": runtime, "precision": precision})
        folder = Path(bentoml.models.get(choose(wanted, "cpu")).path)
        return folder / read(folder).file
    except (ArtifactError, ManifestError) as error:
        raise click.ClickException(str(error)) from None


def build(origin: str, weights: Path, store: Path) -> None:
    """Build the artifacts into ``store``. Raises ClickException."""
    store.mkdir(parents=True, exist_ok=True)
    if origin == "random" and not weights.is_file():
        _run([sys.executable, "-c", "from benchmarks.artifact import write_random; write_random()"], store)
    # Random weights have near-ties between classes, which int8 decides otherwise: no reason not to time it.
    gate = ["--min-agreement", "0", "--max-accuracy-loss", "100"] if origin == "random" else []
    source = str(weights) if origin == "random" else origin
    _run([sys.executable, "-m", "model_build", "--weights", source, *gate], store)


def write_random() -> None:
    """Write a seeded random network whose batch statistics are those of its own activations.

    Without them activations would explode or vanish, and denormal numbers are slow.
    """
    import torch

    from model_build.network import resnet18

    torch.manual_seed(0)
    network = resnet18(1000).train()
    with torch.no_grad():
        for _ in range(4):
            network(torch.randn(8, 3, 224, 224))
    torch.save(network.eval().state_dict(), RANDOM)


def _weights() -> tuple[str, Path]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    hub = Path(os.environ.get("TORCH_HOME") or cache / "torch") / "hub" / "checkpoints"
    found = next(iter(sorted(hub.glob("resnet18-f37072fd*.pth"))), None)
    return ("imagenet", found) if found else ("random", RANDOM)


def _exporter() -> str:
    sources = sorted((ROOT / "model_build").glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def _run(command: list[str], store: Path) -> None:
    environment = {**os.environ, "BENTOML_HOME": str(store), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S)
    if done.returncode:
        raise click.ClickException(f"the benchmarks' artifact can't be built: {(done.stdout + done.stderr)[-1500:]}")


if __name__ == "__main__":
    built = ready()
    print(f"{built.origin} weights: {built.file}")
