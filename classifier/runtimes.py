"""The runtimes that can serve an artifact, and the engines that can run it. Whatever lists either reads these tables.

A runtime's artifacts are exported by ``model_build.<name>``. An engine's code lies in ``runners.<module>``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# In the order in which they are built.
PRECISIONS = ("fp32", "int8", "bf16", "fp16")


@dataclass(frozen=True)
class Engine:
    """A library that runs artifacts.

    ``title``: on the page; ``package``: what it imports; ``module``: its code in ``runners``; ``requirements``: the
    set in ``requirements/`` that installs it.
    """

    name: str
    title: str
    module: str
    package: str
    requirements: str

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f"pip install -r requirements/{self.requirements}.txt"


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("onnxruntime", "ONNX Runtime", module="onnx", package="onnxruntime", requirements="runtime"),
        Engine("openvino", "OpenVINO", module="openvino", package="openvino", requirements="openvino"),
        Engine("torch", "TorchScript", module="torchscript", package="torch", requirements="torchscript"),
    )
}


@dataclass(frozen=True)
class Runtime:
    """A runtime.

    ``name``: in settings, tags and manifests. ``suffix``: of the artifact's file.
    ``engines``: what can run it, the default first. ``computes``: an engine that alone runs a precision, by the
    precision's name; its file is the fp32 one, and the engine computes in that precision. ``exporters``: the packages
    whose versions belong to an artifact's version.
    ``on_cpu`` and ``on_gpu``: the precisions that it serves on each, the fastest first. On a CPU, every precision but
    fp32 is preferred only with the CPU feature of its name; those in ``last_resort`` also serve without it, where there
    is no other.

    >>> find("onnx").precisions
    ('fp32', 'int8', 'bf16', 'fp16')
    >>> find("onnx").engines_for("bf16")
    ('openvino',)
    """

    name: str
    suffix: str
    engines: tuple[str, ...]
    exporters: tuple[str, ...]
    on_cpu: tuple[str, ...]
    on_gpu: tuple[str, ...] = ()
    last_resort: tuple[str, ...] = ()
    computes: Mapping[str, str] = field(default_factory=dict)

    def engines_for(self, precision: str) -> tuple[str, ...]:
        """The engines that can run an artifact of ``precision``, the default first."""
        return (self.computes[precision],) if precision in self.computes else self.engines

    @property
    def package(self) -> str:
        """What its default engine imports."""
        return ENGINES[self.engines[0]].package

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that are built for it, in the order of PRECISIONS."""
        return tuple(precision for precision in PRECISIONS if precision in self.on_cpu + self.on_gpu)

    def preferred(self, device: str, cpu_features: frozenset[str]) -> tuple[str, ...]:
        """The precisions to serve on ``device`` ("cpu", or another for a GPU), the best first."""
        if device != "cpu":
            return self.on_gpu
        quick = tuple(precision for precision in self.on_cpu if precision == "fp32" or precision in cpu_features)
        return quick + tuple(precision for precision in self.last_resort if precision not in quick)


RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime(
            "onnx",
            suffix=".onnx",
            engines=("onnxruntime", "openvino"),
            exporters=("torch", "onnx", "onnxruntime"),
            on_cpu=("int8", "bf16", "fp32"),
            on_gpu=("fp16", "fp32"),
            last_resort=("int8",),
            computes={"bf16": "openvino"},
        ),
        Runtime(
            "torchscript",
            suffix=".pt",
            engines=("torch",),
            exporters=("torch",),
            on_cpu=("bf16", "fp32"),
            on_gpu=("fp16", "fp32"),
        ),
    )
}
DEFAULT = next(iter(RUNTIMES))


def find(name: str) -> Runtime:
    """The runtime called ``name``. Raises ValueError, which names those that there are."""
    if name not in RUNTIMES:
        raise ValueError(f"there is no runtime {name!r}; there are {', '.join(RUNTIMES)}")
    return RUNTIMES[name]
