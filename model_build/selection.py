"""Which artifacts a build makes: pairs of a runtime and a precision, of what the command line asks and is here."""

from __future__ import annotations

import click

from classifier.runtimes import ENGINES, PRECISIONS, RUNTIMES, Runtime
from runners import engines
from runners.backends import pick_device
from runners.devices import DeviceError, cpu_features


def _listed(precision: str) -> str:
    """``precision``, and which of the runtimes have it if not all; or that it needs a GPU."""
    having = [runtime for runtime in RUNTIMES.values() if precision in runtime.precisions]
    if not any(precision in runtime.on_cpu for runtime in having):
        return f"{precision} (needs CUDA)"
    return precision if len(having) == len(RUNTIMES) else f"{precision} ({', '.join(each.name for each in having)})"


LISTED = ", ".join(map(_listed, PRECISIONS))


def pairs(runtimes: tuple[str, ...], precisions: str) -> list[tuple[str, str]]:
    """The (runtime, precision) pairs to build, fp32 first.

    ``precisions``: "auto", or a list with commas. Raises UsageError for what is not known, exported or possible here.
    """
    chosen = [RUNTIMES[name] for name in runtimes]
    if precisions == "auto":
        return [(runtime.name, precision) for runtime in chosen for precision in _possible(runtime)]
    names = [name.strip() for name in precisions.split(",") if name.strip()]
    for name in names:
        if name not in PRECISIONS:
            raise click.UsageError(f"--precisions {name!r}: must be among {', '.join(PRECISIONS)}")
        if not any(name in runtime.precisions for runtime in chosen):
            raise click.UsageError(f"--precisions {name!r} is not exported for {' or '.join(runtimes)}")
    wanted = [(runtime, name) for runtime in chosen for name in runtime.precisions if name in names]
    if not wanted:
        raise click.UsageError("--precisions names nothing to build")
    for runtime, name in wanted:
        if name not in runtime.on_cpu:
            try:  # it is judged where it will serve
                pick_device("cuda", runtime.name)
            except DeviceError as error:
                raise click.UsageError(f"--precisions {name!r} needs a GPU for {runtime.name}: {error}") from None
        if name in runtime.computes:
            engine = runtime.computes[name]
            if not engines.installed(engine):
                raise click.UsageError(
                    f"--precisions {name!r} needs {engine} for {runtime.name}: {ENGINES[engine].install}"
                )
            if name not in cpu_features():
                raise click.UsageError(
                    f"--precisions {name!r} needs a CPU that has it for {runtime.name}: {engine} would compute in fp32"
                )
    return [(runtime.name, name) for runtime, name in wanted]


def _possible(runtime: Runtime) -> list[str]:
    """The precisions of ``runtime`` that this machine can judge and is quick with, and those of last resort."""
    here = {"fp32", *cpu_features(), *runtime.last_resort}
    here -= {name for name, engine in runtime.computes.items() if not engines.installed(engine)}
    gpu = pick_device("auto", runtime.name) != "cpu"
    return [name for name in runtime.precisions if (name in here if name in runtime.on_cpu else gpu)]
