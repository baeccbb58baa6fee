"""`python -m benchmarks.graph`: what the artifacts' graphs cost beside the network, and which form is fastest.

One thread, one image. ONNX: the profile's nodes before the first convolution and after the last matrix product.
TorchScript: our exported artifacts beside other ways to export the same weights, in interleaved rounds.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from benchmarks import artifact, results
from benchmarks.results import Goal, Sheet, at_least, at_most
from harness.processes import Usage
from runners import telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    Variant = Callable[[], object]

SEED = 0
MAX_OUTSIDE_MS = 0.4


def profile(path: Path, size: int, runs: int) -> list[dict[str, Any]]:
    """Each node of the optimised graph in order: ``name``, ``op`` and its median ``ms``."""
    ort = telemetry.onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_profiling = True
    pixels = np.random.default_rng(SEED).integers(0, 256, (1, size, size, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = f"{folder}/profile"
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for _ in range(runs):
            session.run(["probabilities"], {"image": pixels})
        events = json.loads(Path(session.end_profiling()).read_text())
    took: dict[str, list[float]] = {}
    ops: dict[str, str] = {}
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            took.setdefault(name, []).append(event["dur"] / 1e3)
            ops[name] = event["args"]["op_name"]
    return [{"name": name, "op": ops[name], "ms": statistics.median(values)} for name, values in took.items()]


def outside(nodes: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The nodes before the first convolution and those after the last matrix product.

    Quantising the first convolution's input belongs to the network, and so does dequantising the last product's result,
    but they are counted all the same: a float network has none.
    """
    convolutions = [at for at, node in enumerate(nodes) if "Conv" in node["op"]]
    products = [at for at, node in enumerate(nodes) if "Gemm" in node["op"] or "MatMul" in node["op"]]
    return nodes[: convolutions[0]], nodes[products[-1] + 1 :]


def torchscript(built: artifact.Artifact) -> dict[str, tuple[str, Variant]]:
    """By name: the precision, and a call that infers one image with our artifact or another form of it."""
    import torch

    from model_build import export, weights
    from runners.devices import cpu_features
    from runners.torchscript import Backend

    checkpoint = weights.find("imagenet" if built.origin == "imagenet" else str(built.weights))
    side = checkpoint.preprocessing.size
    pixels = np.random.default_rng(SEED).integers(0, 256, (1, side, side, 3), np.uint8)
    image = torch.from_numpy(pixels)

    def traced(dtype: torch.dtype, *, last: bool, optimized: bool) -> Variant:
        module = export.contract(checkpoint, dtype)
        if last:
            module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.inference_mode():
            frozen: Any = torch.jit.freeze(torch.jit.trace(module, image, check_trace=False))
            frozen = torch.jit.optimize_for_inference(frozen) if optimized else frozen

        def infer() -> object:
            with torch.inference_mode():
                return frozen(image)

        return infer

    def stored(precision: str) -> Variant:
        backend = Backend(artifact.stored("torchscript", precision))
        return lambda: backend.infer(pixels)

    precisions = {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if "bf16" in cpu_features() else {})
    variants: dict[str, tuple[str, Variant]] = {}
    for precision, dtype in precisions.items():
        variants[f"ours {precision}"] = (precision, stored(precision))
        for last in (False, True):
            for optimized in (False, True):
                form = "optimize_for_inference" if optimized else "frozen"
                name = f"{precision} channels_last {form}" if last else f"{precision} {form}"
                variants[name] = (precision, traced(dtype, last=last, optimized=optimized))
    return variants


def interleaved(variants: dict[str, tuple[str, Variant]], rounds: int) -> dict[str, float]:
    """Median ms of each variant: one timed call of each a round, in a new order."""
    took: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds):
        for name in random.Random(number).sample(list(variants), len(variants)):
            infer = variants[name][1]
            infer()  # its weights have to come back into the caches, and torch specialises a graph in its first calls
            begin = time.perf_counter()
            infer()
            took[name].append(1e3 * (time.perf_counter() - begin))
    return {name: statistics.median(values) for name, values in took.items()}


def _goals(outside_ms: float, variants: dict[str, tuple[str, Variant]], ms: dict[str, float]) -> list[Goal]:
    goals = [at_most("int8 ONNX: nodes before and after the network", outside_ms, MAX_OUTSIDE_MS, " ms")]
    for precision in dict.fromkeys(precision for precision, _ in variants.values()):
        best = min(ms[name] for name, (kind, _) in variants.items() if kind == precision)
        goals.append(at_least(f"TorchScript {precision}: speed to its best form", best / ms[f"ours {precision}"], 0.9))
    best, own = min(ms.values()), min(value for name, value in ms.items() if name.startswith("ours"))
    return [*goals, at_least("TorchScript: speed of our best to the best form", best / own, 0.9)]


@click.command()
@click.option("--quick", is_flag=True, help="A smoke test: few runs.")
def main(quick: bool) -> None:
    """Profile the artifacts' graphs; the last line of stdout is one JSON object."""
    import torch

    built = artifact.ready()
    torch.set_num_threads(1)
    size = json.loads((built.file.parent / "manifest.json").read_text(encoding="utf-8"))["size"]
    usage = Usage()
    nodes = profile(artifact.stored("onnx", "int8"), size, 30 if quick else 300)
    before, after = outside(nodes)
    outside_ms = sum(node["ms"] for node in before + after)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        variants = torchscript(built)
        ms = interleaved(variants, 10 if quick else 60)
    total = sum(node["ms"] for node in nodes)
    sheets = [
        Sheet(
            f"int8 ONNX: nodes outside the network, {outside_ms:.2f} of {total:.2f} ms",
            ("where", "op", "node", "ms"),
            [
                *(("before", node["op"], node["name"], node["ms"]) for node in before),
                *(("after", node["op"], node["name"], node["ms"]) for node in after),
            ],
        ),
        Sheet(
            "TorchScript, one image, one thread",
            ("form", "ms"),
            [[name, took] for name, took in sorted(ms.items(), key=lambda item: item[1])],
        ),
    ]
    data = {"outside_ms": outside_ms, "total_ms": total, "nodes": nodes, "torchscript_ms": ms}
    results.finish("graph", data, sheets, _goals(outside_ms, variants, ms), usage.stop()[1])


if __name__ == "__main__":
    main()
