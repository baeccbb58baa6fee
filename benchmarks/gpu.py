"""`python -m benchmarks.gpu` (`make bench-gpu`): what a batch costs on this machine's first GPU, and the service there.

Each runtime that can use it, in fp32 and fp16, batches of 1 to 256: α and β of ℓ(b) = α·b + β, throughput, the offline
optimum; ONNX Runtime's TensorRT provider too, where it is. Then the service in its dedicated placement under Poisson
load. A runtime without CUDA is left out by name.
Without a GPU it says so and ends with status 1. It takes less than four minutes.
"""

from __future__ import annotations

import os
import statistics
import time
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from benchmarks import artifact, ours, results, tensorrt
from benchmarks.bare import bare
from benchmarks.load import closed, open_loop
from benchmarks.results import Goal, Sheet, at_least
from classifier.runtimes import RUNTIMES
from harness import photographs
from harness.machine import cores
from harness.processes import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runners.backends import Backend

DEVICE = "cuda:0"
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SLO_MS = 100
SHARES = (0.5, 0.7, 0.8, 0.9, 1.0, 1.2)
WARM_UP_SECONDS = 5.0


def accelerator() -> dict[str, str]:
    """The first GPU's name, its driver and torch's version. Raises ClickException where no GPU can be used."""
    import pynvml

    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        raise click.ClickException("no GPU: CUDA_VISIBLE_DEVICES hides them all")
    try:
        pynvml.nvmlInit()
        if pynvml.nvmlDeviceGetCount() == 0:
            raise click.ClickException("no GPU: the NVIDIA driver sees none")
        name = str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0)))
        driver = str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError as error:
        raise click.ClickException(f"no GPU: {error}; this benchmark needs an NVIDIA one") from None
    import torch

    if not torch.cuda.is_available():
        raise click.ClickException(f"torch {torch.__version__} can't use the {name}: install requirements/gpu.txt")
    return {"gpu": name, "driver": driver, "torch": torch.__version__}


def measurable() -> tuple[list[tuple[str, str]], dict[str, str]]:
    """The stored (runtime, precision) pairs for DEVICE, and why others are left out, by their name."""
    from runners.backends import pick_device
    from runners.devices import DeviceError

    pairs, left_out = [], {}
    for runtime in RUNTIMES.values():
        try:
            pick_device(DEVICE, runtime.name)
        except DeviceError as error:
            left_out[runtime.name] = str(error)
            continue
        for precision in runtime.on_gpu:
            try:
                artifact.stored(runtime.name, precision)
                pairs.append((runtime.name, precision))
            except click.ClickException as error:
                left_out[f"{runtime.name} {precision}"] = error.message
    return pairs, left_out


def batch_seconds(
    backend: Backend | tensorrt.TensorRT, size: int, batches: Sequence[int], rounds: int
) -> dict[int, float]:
    """Median seconds of a batch, copies to and from the GPU included, by batch size; in interleaved rounds."""
    import numpy as np

    draw = np.random.default_rng(0)
    pixels = {batch: draw.integers(0, 256, (batch, size, size, 3), np.uint8) for batch in batches}
    took: dict[int, list[float]] = {batch: [] for batch in batches}
    for number in range(rounds + 3):
        for batch, images in pixels.items():
            begin = time.perf_counter()
            backend.infer(images)
            if number >= 3:  # kernels are chosen in the first calls of a shape
                took[batch].append(time.perf_counter() - begin)
    return {batch: statistics.median(values) for batch, values in took.items()}


def fit(seconds: Mapping[int, float]) -> tuple[float, float]:
    """α and β in ms of seconds = α·batch + β. Least squares of relative errors, so that no large batch rules."""
    weights = {batch: 1 / took**2 for batch, took in seconds.items()}
    total = sum(weights.values())
    mean_batch = sum(weights[batch] * batch for batch in seconds) / total
    mean_took = sum(weights[batch] * took for batch, took in seconds.items()) / total
    covariance = sum(weights[b] * (b - mean_batch) * (took - mean_took) for b, took in seconds.items())
    alpha = covariance / sum(weights[batch] * (batch - mean_batch) ** 2 for batch in seconds)
    return 1e3 * alpha, 1e3 * (mean_took - alpha * mean_batch)


def optimum(seconds: Mapping[int, float], slo_ms: float) -> tuple[int, float]:
    """The batch size with the most images a second of which two batches fit into the SLO, and that rate."""
    fitting = {batch: took for batch, took in seconds.items() if 2e3 * took <= slo_ms} or {1: seconds[1]}
    best = max(fitting, key=lambda batch: batch / fitting[batch])
    return best, best / fitting[best]


def costs(pairs: Sequence[tuple[str, str]], rounds: int, left_out: dict[str, str]) -> list[dict[str, Any]]:
    """What batches cost with each of ``pairs``, a runtime and a precision; ``left_out`` gets what failed, and why."""
    from classifier.manifest import read
    from runners import backends
    from runners.telemetry import onnxruntime

    rows = []
    for runtime, precision in pairs:
        folder = artifact.stored(runtime, precision).parent
        manifest = read(folder)
        size = manifest.preprocessing.size
        rows.append(_row(runtime, precision, backends.load(folder, manifest, DEVICE), size, rounds))
        if runtime == "onnx" and tensorrt.PROVIDER in onnxruntime().get_available_providers():
            try:
                beside = tensorrt.TensorRT(folder / manifest.file, precision, size, BATCHES)
                rows.append(_row(runtime, precision, beside, size, rounds))
            except Exception as error:  # it is there by name in each onnxruntime-gpu, and raises whatever it meets
                left_out[f"{runtime} {precision} {tensorrt.PROVIDER}"] = str(error)
    return rows


def _row(runtime: str, precision: str, backend: Backend | tensorrt.TensorRT, size: int, rounds: int) -> dict[str, Any]:
    seconds = batch_seconds(backend, size, BATCHES, rounds)
    alpha, beta = fit(seconds)
    best, rate = optimum(seconds, SLO_MS)
    return {
        "runtime": runtime,
        "provider": backend.provider,
        "precision": precision,
        "alpha_ms": alpha,
        "beta_ms": beta,
        "batch_ms": {str(batch): 1e3 * took for batch, took in seconds.items()},
        "images_s": {str(batch): batch / took for batch, took in seconds.items()},
        "offline_images_s": max(batch / took for batch, took in seconds.items()),
        "slo_batch": best,
        "slo_images_s": rate,
    }


def serve(row: dict[str, Any], bodies: Sequence[bytes], decode_rate: float, seconds: float) -> list[dict[str, Any]]:
    """The service under Poisson load of ``bodies``, at shares of what the GPU and the cores that decode allow."""
    limit = min(row["slo_images_s"], decode_rate)
    settings = {"runtime": row["runtime"], "precision": row["precision"], "device": DEVICE}
    points = []
    with ours.running(
        placement="dedicated", workers=cores(), threads=1, slo_ms=SLO_MS, max_batch=256, **settings
    ) as on:
        closed(on.url, bodies, ours.JPEG, 64, WARM_UP_SECONDS)
        for number, share in enumerate(SHARES):
            usage = Usage(on.tree)
            result = open_loop(on.url, bodies, ours.JPEG, share * limit, seconds, SLO_MS, number)
            others = usage.stop()[1]
            batcher = on.model()["runner"]["batcher"]
            summary = result.summary()
            points.append({"share": share, "limit": limit, "others_cores": others, "batcher": batcher, **summary})
    return points


def _sheets(name: str, rows: list[dict[str, Any]], points: list[dict[str, Any]], served: str) -> list[Sheet]:
    keys = ("runtime", "provider", "precision", "alpha_ms", "beta_ms")
    load_keys = ("offered", "goodput", "p50_ms", "p99_ms", "late", "lag_p99_ms", "cpu_share")
    return [
        Sheet(
            f"{name}: ℓ(b) = α·b + β, images a second by batch; at {SLO_MS} ms: the best batch that fits twice",
            (
                "runtime",
                "provider",
                "precision",
                "α ms",
                "β ms",
                *(f"b={b}" for b in BATCHES),
                "offline",
                f"at {SLO_MS} ms",
            ),
            [
                [*(row[key] for key in keys), *row["images_s"].values(), row["offline_images_s"], row["slo_images_s"]]
                for row in rows
            ],
        ),
        Sheet(
            f"The service, {served}, dedicated placement, Poisson load, SLO {SLO_MS} ms",
            ("share", "req/s", "goodput", "p50 ms", "p99 ms", "late", "lag ms", "gen CPU", "statuses"),
            [
                [
                    point["share"],
                    *(point[key] for key in load_keys),
                    " ".join(f"{status}:{count}" for status, count in point["statuses"].items()),
                ]
                for point in points
            ],
        ),
    ]


def _goals(points: list[dict[str, Any]]) -> list[Goal]:
    best = max(point["goodput"] / point["limit"] for point in points)
    return [at_least(f"goodput within {SLO_MS} ms to what GPU and decoding cores allow", best, 0.85)]


@click.command()
@click.option("--quick", is_flag=True, help="A smoke test: few batches, short loads.")
def main(quick: bool) -> None:
    """Measure batches and the service on a GPU; the last line of stdout is one JSON object."""
    found_gpu = accelerator()
    built = artifact.ready()
    pairs, left_out = measurable()
    progress = Console(stderr=True)
    rows = costs(pairs, 5 if quick else 30, left_out)
    for left, why in left_out.items():
        progress.print(f"left out: {left}: {why}", markup=False, soft_wrap=True)
    if not rows:
        raise click.ClickException(f"no runtime here can use the {found_gpu['gpu']}")
    found = photographs.read()
    decode_ms = bare(built.file, found.bodies, 2.0, cores()).decode_ms
    served = [row for row in rows if row["provider"] != tensorrt.PROVIDER]
    best = max(served, key=lambda row: float(row["slo_images_s"]))
    decode_rate = 1e3 / decode_ms * cores()
    points = serve(best, found.bodies, decode_rate, 3.0 if quick else 10.0)
    data = {
        **found_gpu,
        "weights": built.origin,
        "left_out": left_out,
        "decode_ms": decode_ms,
        "decode_images_s": decode_rate,
        "limited_by": "decoding" if decode_rate < best["slo_images_s"] else "the GPU",
        # As MLPerf compares its Server scenario with its Offline one.
        "goodput_to_offline": max(point["goodput"] for point in points) / best["offline_images_s"],
        "costs": rows,
        "service": points,
    }
    sheets = _sheets(found_gpu["gpu"], rows, points, f"{best['runtime']} {best['precision']}")
    results.finish("gpu", data, sheets, _goals(points), max(point["others_cores"] for point in points), found)


if __name__ == "__main__":
    main()
