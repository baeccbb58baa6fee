"""`python -m benchmarks.offline`: `python -m offline` beside the bare loop, and its memory over many images.

Rates are of the photographs in a folder, between two runs of the bare loop; start and loading are left out, as in
MLPerf's Offline scenario. Memory is that of ``--images`` images, with the demo model, which answers soon.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from benchmarks import artifact, results
from benchmarks.bare import bare
from benchmarks.footprint import TOLERANCE_MB, growth
from benchmarks.peers import ROOT
from benchmarks.results import Sheet, at_least, at_most
from harness import photographs
from harness.machine import cores
from harness.processes import Tree, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

# What the command prints at its end.
_DONE = re.compile(r"^(\d+) images in ([\d.]+) s", re.MULTILINE)
READING_SECONDS = 1.0


def fill(folder: Path, photos: Sequence[bytes], count: int) -> None:
    """Make ``count`` files of ``photos`` in ``folder``, all further ones of a photo as links to its first."""
    for number in range(count):
        path = folder / f"{number:07}.jpg"
        if number < len(photos):
            path.write_bytes(photos[number])
        else:
            path.hardlink_to(folder / f"{number % len(photos):07}.jpg")


def label(folder: Path, store: Path, out: Path) -> tuple[float, list[dict[str, float]], float]:
    """Label ``folder``: images a second, readings of PSS as rows are written, and how many cores others took.

    Raises ClickException.
    """
    command = [sys.executable, "-m", "offline", str(folder), "--out", str(out)]
    environment = {**os.environ, "BENTOML_HOME": str(store), "PYTHONPATH": str(ROOT)}
    others = Usage()
    readings: list[dict[str, float]] = []
    with tempfile.TemporaryFile("w+") as log:
        begin = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
        tree, spent = Tree(process.pid), 0.0
        try:
            while process.poll() is None:
                time.sleep(READING_SECONDS)
                spent = tree.cpu_seconds() or spent
                readings.append({"requests": float(_rows(out)), "pss_mb": tree.memory().pss_mb})
        finally:
            tree.stop()
        status, wall = process.wait(), time.perf_counter() - begin
        log.seek(0)
        said = log.read()
    found = _DONE.search(said)
    if status or not found:
        raise click.ClickException(f"offline ended with status {status}: {said[-1000:]}")
    disturbed = max(0.0, others.stop()[1] - spent / wall)
    return (
        int(found[1]) / float(found[2]),
        [each for each in readings if each["requests"] and each["pss_mb"]],
        disturbed,
    )


def _rows(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


@click.command()
@click.option("--quick", is_flag=True, help="A smoke test: one short round, few images.")
@click.option("--rounds", type=click.IntRange(1, 20), default=3, show_default=True)
@click.option("--images", type=click.IntRange(200), default=10_000, show_default=True, help="For the memory.")
def main(quick: bool, rounds: int, images: int) -> None:
    """Measure labelling a folder; the last line of stdout is one JSON object."""
    built = artifact.ready()
    progress, pictures = Console(stderr=True), photographs.read()
    rounds, seconds, images = (1, 1.0, 400) if quick else (rounds, 10.0, images)
    runs: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="resnet18-offline-") as name:
        aside = Path(name)
        before = bare(built.file, pictures.bodies, seconds, cores())
        for folder, count in (("few", int(seconds * before.images_s)), ("many", images)):
            (aside / folder).mkdir()
            fill(aside / folder, pictures.bodies, count)
        for number in range(rounds):
            rate, _, others = label(aside / "few", artifact.FOLDER / "bentoml-auto", aside / f"{number}.csv")
            after = bare(built.file, pictures.bodies, seconds, cores())
            yardstick = (before.images_s + after.images_s) / 2
            runs.append({"images_s": rate, "bare_s": yardstick, "ratio": rate / yardstick, "others_cores": others})
            progress.print(f"  {rate:.1f} images/s, bare {yardstick:.1f}: {rate / yardstick:.3f}", highlight=False)
            before = after
        store = artifact.FOLDER / "bentoml-demo"
        artifact.build("demo", Path(), store)
        rate, readings, _ = label(aside / "many", store, aside / "many.csv")
    ratio = statistics.median(run["ratio"] for run in runs)
    every = max(1, len(readings) // 8)
    sheets = [
        Sheet(
            f"python -m offline on {cores()} cores, beside the bare loop before and after",
            ("round", "images/s", "bare", "ratio"),
            [[number + 1, run["images_s"], run["bare_s"], run["ratio"]] for number, run in enumerate(runs)],
        ),
        Sheet(
            f"Its PSS over {images} images of the demo model, {rate:.0f} a second",
            ("rows written", "PSS MB"),
            [[int(reading["requests"]), reading["pss_mb"]] for reading in [*readings[:-1:every], *readings[-1:]]],
        ),
    ]
    goals = [at_least("images a second, to the bare loop", ratio, 0.97)]
    if len(readings) > 2:
        name = f"growth of PSS over the last half of {images} images (tolerance {TOLERANCE_MB:g} MB)"
        goals.append(at_most(name, growth(readings), TOLERANCE_MB, " MB"))
    data: dict[str, Any] = {"runs": runs, "images": images, "memory": readings, "demo_images_s": rate}
    results.finish("offline", data, sheets, goals, max(run["others_cores"] for run in runs), pictures)


if __name__ == "__main__":
    main()
