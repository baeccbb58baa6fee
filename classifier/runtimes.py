"""The runtimes that can serve an artifact. Whatever lists runtimes reads this table.

A runtime's code lies in modules of its name: ``runners.<name>`` loads artifacts, ``model_build.<name>`` exports them.
"""

from __future__ import annotations

from dataclasses import dataclass

# In the order in which they are built.
PRECISIONS = ("fp32", "int8", "bf16", "fp16")


@dataclass(frozen=True)
class Runtime:
    """A runtime.

    ``name``: in settings, tags and manifests. ``title``: on the page. ``suffix``: of the artifact's file.
    ``package``: what it imports to serve. ``exporters``: the packages whose versions belong to an artifact's version.
    ``on_cpu`` and ``on_gpu``: the precisions that it serves on each, the fastest first. On a CPU, every precision but
    fp32 needs the CPU feature of its name; those in ``last_resort`` are slow without it, and serve where there is no
    other.

    >>> find("onnx").precisions
    ('fp32', 'int8', 'fp16')
    """

    name: str
    title: str
    suffix: str
    package: str
    exporters: tuple[str, ...]
    on_cpu: tuple[str, ...]
    on_gpu: tuple[str, ...] = ()
    last_resort: tuple[str, ...] = ()

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that are exported for it, in the order of PRECISIONS."""
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
            title="ONNX Runtime",
            suffix=".onnx",
            package="onnxruntime",
            exporters=("torch", "onnx", "onnxruntime"),
            on_cpu=("int8", "fp32"),
            on_gpu=("fp16", "fp32"),
            last_resort=("int8",),
        ),
        Runtime(
            "torchscript",
            title="TorchScript",
            suffix=".pt",
            package="torch",
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
