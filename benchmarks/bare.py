"""The yardstick: decode and infer in a loop, one process of one thread for each core, and nothing else.

No server can be faster with the same decoder, artifact and cores; each server's throughput is given as a ratio to it.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from benchmarks.peers.recipe import backend_of
from classifier import runtimes
from harness import photographs
from harness.machine import cores

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.synchronize import Barrier

MAX_PIXELS = 100_000_000
_START_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Bare:
    """``images_s``: images a second of all processes. The ms are one image's, on average.

    ``cpu_share``: how much of its core a process had; below 1, something else took the rest.
    """

    images_s: float
    decode_ms: float
    inference_ms: float
    processes: int
    cpu_share: float


def bare(artifact: Path, photos: Sequence[bytes], seconds: float, processes: int, engine: str = "onnxruntime") -> Bare:
    """Run the loop for ``seconds`` in each of ``processes``, started together, with ``engine`` of RESNET18_ENGINE."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    with context.Pool(processes, initializer=_share, initargs=(barrier,)) as pool:
        jobs = [pool.apply_async(_loop, (artifact, list(photos), seconds, engine)) for _ in range(processes)]
        counts = [job.get(timeout=_START_TIMEOUT_S + 2 * seconds) for job in jobs]
    images = sum(one.images for one in counts)
    return Bare(
        images_s=sum(one.images / one.wall_s for one in counts),
        decode_ms=sum(one.decode_s for one in counts) / images * 1000,
        inference_ms=sum(one.inference_s for one in counts) / images * 1000,
        processes=processes,
        cpu_share=sum(one.cpu_s for one in counts) / sum(one.wall_s for one in counts),
    )


class _Count(NamedTuple):
    images: int
    wall_s: float
    cpu_s: float
    decode_s: float
    inference_s: float


_barrier: Barrier


def _share(barrier: Barrier) -> None:
    # A barrier can be handed to a process only when it starts.
    global _barrier
    _barrier = barrier


def _loop(artifact: Path, photos: list[bytes], seconds: float, engine: str) -> _Count:
    from classifier.pixels import decode
    from classifier.preprocessing import Preprocessing

    manifest = json.loads((artifact.parent / "manifest.json").read_text(encoding="utf-8"))
    preprocessing = Preprocessing(manifest["size"], manifest["resize"])
    backend = backend_of(artifact, engine)

    def once(photo: bytes) -> tuple[float, float]:
        begin = time.perf_counter()
        pixels = decode(photo, preprocessing, MAX_PIXELS)
        decoded = time.perf_counter()
        backend.infer(pixels[None])
        return decoded - begin, time.perf_counter() - decoded

    for photo in photos[:5]:
        once(photo)
    _barrier.wait(_START_TIMEOUT_S)
    count, decode_s, inference_s = 0, 0.0, 0.0
    begin, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - begin < seconds:
        first, second = once(photos[count % len(photos)])
        count, decode_s, inference_s = count + 1, decode_s + first, inference_s + second
    return _Count(count, time.perf_counter() - begin, time.process_time() - cpu, decode_s, inference_s)


@click.command()
@click.option(
    "--artifact",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="PEER_ARTIFACT",
    required=True,
    help="The .onnx file, with its manifest.json beside it.",
)
@click.option(
    "--photos",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of JPEG files; without it, scikit-image's photographs.",
)
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=5.0, show_default=True)
@click.option(
    "--engine", type=click.Choice(runtimes.RUNTIMES["onnx"].engines), default="onnxruntime", show_default=True
)
@click.option("--processes", type=click.IntRange(1, 256), default=cores, show_default="one a core")
def main(artifact: Path, folder: Path | None, seconds: float, engine: str, processes: int) -> None:
    """Measure the bare decode and inference loop, the yardstick of the other benchmarks."""
    found = photographs.read(folder)
    result = bare(artifact, found.bodies, seconds, processes, engine)
    print(
        f"{result.images_s:.1f} images/s in {processes} processes; one image: "
        f"decode {result.decode_ms:.2f} ms, inference {result.inference_ms:.2f} ms"
    )
    print(f"Photographs: {found}")
    print(json.dumps({"benchmark": "bare", "engine": engine, "photographs": str(found), **asdict(result)}))


if __name__ == "__main__":
    main()
