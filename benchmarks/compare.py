"""`python -m benchmarks.compare`: this service beside what a user would pick instead, in interleaved rounds.

A round measures each server once, in a new order, and the bare loop between them; a server runs only while it is
measured. What counts is the ratio to the bare loops just before and after, so that a machine that slows down slows all.
"""

from __future__ import annotations

import random
import statistics
import time
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console

from benchmarks import artifact as artifacts
from benchmarks import comparison, ours, results, versions
from benchmarks.bare import Bare, bare
from benchmarks.measure import Point, Reference, Row, Setting, measure
from benchmarks.peers import PEERS, VENV_PYTHON, Peer
from harness import photographs
from harness.machine import cores
from harness.processes import StartError


def lineup(only: tuple[str, ...], draft: str, python: Path) -> list[Peer]:
    """The servers to measure: ours and the peers, those with reduced-scale decoding as rows of their own."""
    openvino = replace(ours.peer(), name=comparison.OURS_OPENVINO, engine="openvino")
    chosen = [ours.peer(), openvino, replace(openvino, name=comparison.OURS_WORKERS, workers="RESNET18_WORKERS")]
    for peer in PEERS:
        if peer.python == VENV_PYTHON:
            peer = replace(peer, python=python)
        if peer.name == comparison.WITH_OPENVINO:
            chosen.append(replace(peer, name=f"{peer.name}+openvino", engine="openvino"))
        if not peer.same_artifact:
            chosen.append(peer)
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


_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.option(
    "--photos",
    "folder",
    type=_FOLDER,
    default=photographs.FOLDER,
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
    progress = Console(stderr=True)
    # Servers run in other folders, so paths must be absolute; but an environment's python must stay the link it is.
    python = python.absolute()
    built, found = artifacts.ready(), photographs.read(folder)
    setting = Setting(
        artifact=built.file,
        weights=built.weights,
        photos=found.files,
        workers=workers,
        seconds=seconds,
        warm_up=warm_up,
        connections=connections,
    )
    rows = [Row(peer) for peer in lineup(only, draft, python)]
    reference = Reference(setting, dict.fromkeys(row.peer.engine for row in rows) | {"onnxruntime": None})
    yardsticks: list[Bare] = []
    openvino: list[Bare] = []
    openvino_ratios: list[float] = []
    photos = list(setting.photos.values())

    def yardstick() -> float:
        yardsticks.append(bare(setting.artifact, photos, seconds, cores()))
        return yardsticks[-1].images_s

    before = yardstick()
    for number in range(rounds):
        progress.print(f"round {number + 1} of {rounds}")
        for row in random.Random(number).sample(rows, len(rows)):
            if row.failure:
                continue
            begin = time.monotonic()
            points: list[Point] = []
            try:
                points = measure(row, setting, reference)
            except (StartError, ValueError, OSError) as error:
                row.failure = f"{type(error).__name__}: {error}"
            after = yardstick()
            for point in points:
                point.ratio = 2 * point.result.throughput / (before + after)
            before = after
            said = row.failure or ", ".join(f"c={c} {points[-1].ratio:.2f}" for c, points in row.points.items())
            progress.print(f"  {row.peer.name}: {said} ({time.monotonic() - begin:.0f} s)", markup=False)
        if any(row.peer.engine == "openvino" for row in rows):
            openvino.append(bare(setting.artifact, photos, seconds, cores(), "openvino"))
            after = yardstick()
            openvino_ratios.append(2 * openvino[-1].images_s / (before + after))
            before = after
    data = comparison.summary(rows, yardsticks, setting, rounds)
    if openvino:
        data["bare_openvino"] = comparison.yardstick(openvino) | {"ratio": statistics.median(openvino_ratios)}
    data |= {
        "cores": cores(),
        "weights": built.origin,
        "versions": {
            name: version
            for each in sorted({row.peer.python for row in rows if row.peer.pixels != "service"} | {python})
            if each.exists()
            for name, version in versions.installed(each).items()
        },
    }
    sheets, goals, others = comparison.sheets(data), comparison.goals(data), comparison.others(data)
    results.finish("compare", data, sheets, goals, others, found)


if __name__ == "__main__":
    main()
