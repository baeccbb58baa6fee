"""`python -m benchmarks.compare`: this service beside what a user would pick instead, in interleaved rounds.

A round measures each server once, in a new order, and the bare loop before each; a server runs only while it is
measured. What counts is the ratio to the bare loop run just before, so that a machine that slows down slows both.
"""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console

from benchmarks import photos as photographs
from benchmarks import report
from benchmarks.bare import Bare, bare, cores
from benchmarks.measure import Reference, Row, Setting, measure
from benchmarks.peers import PEERS, ROOT, VENV_PYTHON, Peer
from benchmarks.processes import StartError

SHARED_PHOTOS = ROOT.parent / "shared" / "images" / "photos"


def ours() -> Peer:
    """This repository's service, as `make serve` starts it, in the environment that runs the benchmark."""
    return Peer(
        name="resnet18",
        argv=("{python}", "-m", "bentoml", "serve", "service:ResNet18", "--port", "{port}"),
        path="/classify",
        body="raw",
        ready="/readyz",
        python=Path(sys.executable),
        pixels="service",
    )


def stored_artifact() -> Path:
    """The ONNX artifact that this repository's service would serve."""
    import bentoml

    from classifier.manifest import ManifestError, load
    from classifier.settings import Settings
    from runners.artifacts import ArtifactError, choose

    try:
        folder = Path(bentoml.models.get(choose(Settings(), "cpu")).path)
        return folder / load(folder).file
    except (ArtifactError, ManifestError) as error:
        raise click.ClickException(str(error)) from None


def lineup(only: tuple[str, ...], draft: str, python: Path, weights: Path | None) -> list[Peer]:
    """The servers to measure: ours and the peers, those with reduced-scale decoding as rows of their own."""
    chosen = [ours()]
    for peer in PEERS:
        peer = replace(peer, python=python)
        if not peer.same_artifact:
            chosen += [peer] if weights else []
            continue
        if draft in ("off", "both"):
            chosen.append(peer)
        if draft in ("on", "both"):
            chosen.append(replace(peer, name=peer.name + "+draft", pixels="draft"))
    unknown = sorted(set(only) - {peer.name for peer in chosen})
    if unknown:
        names = ", ".join(peer.name for peer in chosen)
        raise click.BadParameter(f"{unknown[0]!r} is not one of {names}", param_hint="--only")
    return [peer for peer in chosen if not only or peer.name in only]


def _photos(folder: Path | None) -> dict[str, bytes]:
    try:
        return photographs.read(folder)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--photos") from None


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.option(
    "--artifact",
    type=_FILE,
    envvar="PEER_ARTIFACT",
    help="The .onnx file that all serve, its manifest.json beside it; default: what the service would serve.",
)
@click.option(
    "--weights",
    type=_FILE,
    envvar="PEER_WEIGHTS",
    help="The torch state dict it was made from; without it, flask-torch is left out.",
)
@click.option(
    "--photos",
    "folder",
    type=_FOLDER,
    default=SHARED_PHOTOS if SHARED_PHOTOS.is_dir() else None,
    help="A folder of JPEG files; without it, scikit-image's photographs.",
)
@click.option("--seconds", type=click.FloatRange(0.5, 300), default=5.0, show_default=True, help="Of each measurement.")
@click.option("--warm-up", type=click.FloatRange(0.5, 60), default=2.0, show_default=True, help="Seconds before them.")
@click.option("--rounds", type=click.IntRange(1, 50), default=3, show_default=True)
@click.option("--connections", type=click.IntRange(1, 512), multiple=True, default=(1, 8, 32), show_default=True)
@click.option("--only", multiple=True, help="Measure only this server; may be repeated.")
@click.option(
    "--draft",
    type=click.Choice(("off", "on", "both")),
    default="off",
    show_default=True,
    help="Let the ONNX peers decode JPEG at a reduced scale, which their docs don't teach.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=cores,
    show_default="one a core",
    help="The peers' worker processes, of one thread each.",
)
@click.option(
    "--python",
    type=click.Path(path_type=Path),
    default=VENV_PYTHON,
    show_default=".venv-bench/bin/python",
    help="The environment made from requirements/bench.txt.",
)
def main(
    artifact: Path | None,
    weights: Path | None,
    folder: Path | None,
    seconds: float,
    warm_up: float,
    rounds: int,
    connections: tuple[int, ...],
    only: tuple[str, ...],
    draft: str,
    workers: int,
    python: Path,
) -> None:
    """Measure this service and its peers side by side; the last line of stdout is one JSON object."""
    progress, console = Console(stderr=True), Console(width=120)
    # Servers run in other folders, so paths must be absolute; but an environment's python must stay the link it is.
    python = python.absolute()
    setting = Setting(
        artifact=(artifact or stored_artifact()).resolve(),
        weights=weights.resolve() if weights else None,
        photos=_photos(folder),
        workers=workers,
        seconds=seconds,
        warm_up=warm_up,
        connections=connections,
    )
    rows = [Row(peer) for peer in lineup(only, draft, python, setting.weights)]
    reference = Reference(setting)
    yardsticks: list[Bare] = []
    for number in range(rounds):
        progress.print(f"round {number + 1} of {rounds}")
        for row in random.Random(number).sample(rows, len(rows)):
            if row.failure:
                continue
            begin = time.monotonic()
            yardsticks.append(bare(setting.artifact, list(setting.photos.values()), seconds, cores()))
            try:
                measure(row, setting, reference, yardsticks[-1])
            except (StartError, ValueError, OSError) as error:
                row.failure = f"{type(error).__name__}: {error}"
            said = row.failure or ", ".join(f"c={c} {points[-1].ratio:.2f}" for c, points in row.points.items())
            progress.print(f"  {row.peer.name}: {said} ({time.monotonic() - begin:.0f} s)", markup=False)
    data = report.summary(rows, yardsticks, setting, rounds)
    data["versions"] = report.versions(python) if python.exists() else {}
    report.show(console, data)
    print(json.dumps(data))


if __name__ == "__main__":
    main()
