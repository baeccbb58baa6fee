"""Exporting for ONNX Runtime: fp32 and fp16 by torch's exporter, int8 by static quantisation of fp32."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from runners import telemetry
from runners.torchscript import DEPRECATION

if TYPE_CHECKING:
    from pathlib import Path

    from model_build.network import Contract
    from model_build.samples import Samples

OPSET = 17
_CALIBRATION_CHUNK = 16


def export(module: Contract, example: torch.Tensor, precision: str, path: Path, calibration: Samples) -> None:
    """Write ``module`` to ``path``, traced with ``example`` uint8[N, S, S, 3]; ``calibration`` is for int8."""
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.filterwarnings("ignore", DEPRECATION, DeprecationWarning)
        warnings.filterwarnings("ignore", "You are using the legacy TorchScript-based ONNX export", DeprecationWarning)
        # The TorchScript-based exporter: the newer one needs onnxscript, is slower, and opset 17 is what it does best.
        torch.onnx.export(
            module,
            (example,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["probabilities"],
            dynamic_axes={"image": {0: "N"}, "probabilities": {0: "N"}},
            do_constant_folding=True,
        )
    if precision == "int8":
        _quantize(path, calibration)


def _quantize(path: Path, calibration: Samples) -> None:
    """Replace the fp32 ONNX file at ``path`` by its int8 version: static QDQ, uint8 activations, int8 weights.

    Weights are quantised per channel to 7 of their 8 bits: an x86 CPU without VNNI adds two products in 16 bits, which
    8-bit weights overflow, so that the same file would answer worse there. Activations are quantised over all they
    reach on ``calibration``: cutting off a percentile measured worse (docs/results.md). What prepares the pixels and
    turns logits into probabilities stays in float32.
    """
    import onnx

    quantization = telemetry.onnxruntime("quantization")
    shape_inference = telemetry.onnxruntime("quantization.shape_inference")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            pixels = calibration.pixels
            starts = range(0, len(pixels), _CALIBRATION_CHUNK)
            self._chunks = iter([pixels[start : start + _CALIBRATION_CHUNK] for start in starts])

        def get_next(self) -> dict[str, Any] | None:
            chunk = next(self._chunks, None)
            return None if chunk is None else {"image": chunk}

    prepared = path.with_suffix(".prepared.onnx")
    shape_inference.quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
    kept = {"Conv", "Add", "Relu", "Clip", "MaxPool", "GlobalAveragePool", "ReduceMean", "Flatten", "Gemm"}
    nodes = onnx.load(prepared).graph.node
    first = next(at for at, node in enumerate(nodes) if node.op_type == "Conv")
    outside = [node.name for at, node in enumerate(nodes) if at < first or node.op_type not in kept]
    quantization.quantize_static(
        str(prepared),
        str(path),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        reduce_range=True,
        nodes_to_exclude=outside,
        calibrate_method=quantization.CalibrationMethod.MinMax,
    )
    prepared.unlink()
