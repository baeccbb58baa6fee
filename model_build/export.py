"""A checkpoint as a file that serves: TorchScript or ONNX, in fp32 or a reduced precision."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import torch

from model_build.network import Contract, from_state
from runners import telemetry
from runners.backends import TORCHSCRIPT_DEPRECATION

if TYPE_CHECKING:
    from pathlib import Path

    from model_build.samples import Samples
    from model_build.weights import Checkpoint

OPSET = 17
# Part of every artifact's version: raise it when what is exported changes though its inputs do not.
REVISION = 2
SUPPORTED = {
    "onnx": ("fp32", "int8", "fp16"),
    "torchscript": ("fp32", "bf16", "fp16"),
}
_DTYPE = {"fp32": torch.float32, "int8": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_CALIBRATION_CHUNK = 16


def contract(checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> Contract:
    """The eager network of ``checkpoint`` within the serving contract, in evaluation mode."""
    module = Contract(
        from_state(copy.deepcopy(checkpoint.state), checkpoint.classes),
        size=checkpoint.preprocessing.size,
        upsample=checkpoint.upsample,
        mean=checkpoint.mean,
        std=checkpoint.std,
        dtype=dtype,
    )
    return module.eval()


def export(checkpoint: Checkpoint, runtime: str, precision: str, folder: Path, calibration: Samples) -> Path:
    """Write the artifact into ``folder`` and return its path: ``model.onnx`` or ``model.pt``.

    fp16 is exported where a CUDA device is, since TorchScript records the device of its constants.
    """
    module = contract(checkpoint, _DTYPE[precision])
    side = checkpoint.preprocessing.size
    example = torch.zeros((2, side, side, 3), dtype=torch.uint8)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.filterwarnings("ignore", TORCHSCRIPT_DEPRECATION, DeprecationWarning)
        warnings.filterwarnings("ignore", "You are using the legacy TorchScript-based ONNX export", DeprecationWarning)
        if runtime == "torchscript":
            return _torchscript(module, example, precision, folder / "model.pt")
        path = folder / "model.onnx"
        _onnx(module, example, path)
    if precision == "int8":
        _quantize(path, calibration)
    return path


def _torchscript(module: Contract, example: torch.Tensor, precision: str, path: Path) -> Path:
    if precision == "fp16":
        module, example = module.cuda(), example.cuda()
    module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    traced: Any = torch.jit.trace(module, example, check_trace=False)
    torch.jit.freeze(traced).save(str(path))
    return path


def _onnx(module: Contract, example: torch.Tensor, path: Path) -> None:
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
    kept = {"Conv", "Add", "Relu", "MaxPool", "GlobalAveragePool", "ReduceMean", "Flatten", "Gemm"}
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
