"""`python -m benchmarks.sizes`: where a request's time goes, for photographs of the sizes that people send.

One request at a time, this service and the Flask tutorial in turn.
"""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from PIL import Image

from benchmarks import artifact, ours, results
from benchmarks.measure import first_answer
from benchmarks.peers import PEERS, ROOT
from benchmarks.peers.recipe import Recipe
from benchmarks.results import Sheet
from harness import http, photographs
from harness.http import free_port
from harness.machine import cores
from harness.processes import Usage, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from harness.photographs import Photographs
    from harness.processes import Tree

QUALITY = 88
SIZES = {
    "scenery 1920×1080": (1920, 1080),
    "portrait 1200×1600": (1200, 1600),
    "object 800×600": (800, 600),
    "phone 4000×3000": (4000, 3000),
}
# A published deployment of the tutorial's recipe on 2 cores: total and decode, ms.
PUBLISHED = {
    "scenery 1920×1080": (49.1, 12.3),
    "portrait 1200×1600": (48.9, 11.8),
    "object 800×600": (45.5, 9.5),
}
TUTORIAL = next(peer for peer in PEERS if peer.name == "flask-torch")
PER_TURN = 3


def images(sources: list[bytes]) -> dict[str, bytes]:
    """A JPEG of each size: photographs side by side, so that the detail is a photograph's and not an enlargement's."""
    return {name: _mosaic(sources, *size) for name, size in SIZES.items()}


def _mosaic(sources: list[bytes], width: int, height: int) -> bytes:
    # Two photographs across, whatever the size, but none enlarged more than twice.
    picture = Image.new("RGB", (width, height))
    side = min(800, width // 2)
    tiles = ((x, y) for y in range(0, height, side) for x in range(0, width, side))
    for number, at in enumerate(tiles):
        with Image.open(io.BytesIO(sources[number % len(sources)])) as source:
            short = min(source.size)
            left, top = (source.width - short) // 2, (source.height - short) // 2
            box = (left, top, left + short, top + short)
            picture.paste(source.convert("RGB").resize((side, side), Image.Resampling.BICUBIC, box=box), at)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def tutorial(built: artifact.Artifact, port: int, folder: str) -> AbstractContextManager[Tree]:
    """The Flask tutorial's server, as `benchmarks.compare` runs it."""
    environment = {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "PEER_ARTIFACT": str(built.file),
        "PEER_WEIGHTS": str(built.weights),
        "PEER_PORT": str(port),
    }
    ready = f"http://127.0.0.1:{port}{TUTORIAL.ready}"
    return serving(TUTORIAL.command(port, cores()), ready=ready, environment=environment, folder=Path(folder))


def _asked(service: ours.Service, photo: bytes) -> dict[str, float]:
    begin = time.perf_counter()
    timing = service.classify(photo)["timing_ms"]
    total = 1e3 * (time.perf_counter() - begin)
    decode, inference = timing["decode"], timing["inference"]
    return {"total": total, "decode": decode, "inference": inference, "rest": total - decode - inference}


def _tutorial_ms(port: int, photo: bytes) -> float:
    body, kind = TUTORIAL.request(photo)
    begin = time.perf_counter()
    http.ask_json(f"http://127.0.0.1:{port}{TUTORIAL.path}", "POST", body, kind)
    return 1e3 * (time.perf_counter() - begin)


def _plain_ms(recipe: Recipe, photo: bytes) -> float:
    begin = time.perf_counter()
    recipe.pixels(io.BytesIO(photo))
    return 1e3 * (time.perf_counter() - begin)


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def measure(built: artifact.Artifact, found: Photographs, rounds: int) -> Iterator[dict[str, Any]]:
    """A row for each size: medians, with both servers running and asked in turn."""
    recipe = Recipe(built.file, draft=False)
    port, pictures = free_port(), images(found.bodies)
    with tempfile.TemporaryDirectory() as folder, ours.running() as service, tutorial(built, port, folder) as tree:
        first_answer(TUTORIAL, port, pictures["object 800×600"])
        for name, photo in pictures.items():
            for _ in range(PER_TURN):
                _asked(service, photo)
                _tutorial_ms(port, photo)
            usage = Usage(service.tree, tree)
            mine, theirs, plain = [], [], []
            for _ in range(rounds):
                mine += [_asked(service, photo) for _ in range(PER_TURN)]
                theirs += [_tutorial_ms(port, photo) for _ in range(PER_TURN)]
                plain.append(_plain_ms(recipe, photo))
            yield {
                "name": name,
                "kb": len(photo) / 1e3,
                **_medians(mine),
                "tutorial": statistics.median(theirs),
                "tutorial_decode": statistics.median(plain),
                "published": PUBLISHED.get(name, (None, None)),
                "others_cores": usage.stop()[1],
            }


def _sheet(rows: list[dict[str, Any]]) -> Sheet:
    keys = ("kb", "decode", "inference", "rest", "total", "tutorial", "tutorial_decode")
    return Sheet(
        "One request at a time, ms, medians; decode includes the resize; the tutorial's decode is its recipe alone",
        (
            "photo",
            "KB",
            "decode",
            "inference",
            "rest",
            "total",
            "Flask",
            "its decode",
            "published",
            "its decode",
            "Flask/ours",
        ),
        [[row["name"], *(row[key] for key in keys), *row["published"], row["tutorial"] / row["total"]] for row in rows],
    )


@click.command()
@click.option("--quick", is_flag=True, help="A smoke test: few requests.")
def main(quick: bool) -> None:
    """Measure photographs of four sizes; the last line of stdout is one JSON object."""
    found = photographs.read()
    rows = list(measure(artifact.ready(), found, 3 if quick else 12))
    worst = max(row["others_cores"] for row in rows)
    results.finish("sizes", {"quality": QUALITY, "sizes": rows}, [_sheet(rows)], [], worst, found)


if __name__ == "__main__":
    main()
