"""Engines: which of the installed ones may run an artifact.

An artifact is judged by the accuracy gate with its default engine. Another engine may run it where the gate has judged
it with that engine too, on CPUs of this family: the same graph rounds otherwise in another library.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from classifier import runtimes
from runners import devices

if TYPE_CHECKING:
    from classifier.manifest import Manifest


class EngineError(Exception):
    """The engine asked for can't run the artifact here; the message says why, and what to do."""


def installed(name: str) -> bool:
    """Whether the engine's package can be imported here."""
    return importlib.util.find_spec(runtimes.ENGINES[name].package) is not None


def runnable(runtime: str, precision: str, asked: str) -> bool:
    """Whether an installed engine, ``asked`` or for "auto" any, can run artifacts of ``precision``."""
    names = runtimes.find(runtime).engines_for(precision)
    return any(installed(name) for name in names if asked in ("auto", name))


def usable(asked: str, manifest: Manifest, device: str) -> list[str]:
    """The engines that may run the artifact of ``manifest`` on ``device``: all of them for "auto", else ``asked``.

    The default engine comes first. Raises EngineError where ``asked`` may not, or none is installed.
    """
    engines = runtimes.find(manifest.runtime).engines_for(manifest.precision)
    if asked == "auto":
        found = [name for name in engines if _obstacle(name, manifest, device) is None]
        if not found:
            raise EngineError(
                f"{manifest.runtime} in {manifest.precision} is run by {' or '.join(engines)}, which is not installed; "
                f"{runtimes.ENGINES[engines[0]].install}"
            )
        return found
    if asked not in engines:
        raise EngineError(
            f"RESNET18_ENGINE={asked!r} can't be honoured: {manifest.runtime} in {manifest.precision} is run by "
            f"{' or '.join(engines)}"
        )
    obstacle = _obstacle(asked, manifest, device)
    if obstacle is not None:
        raise EngineError(f"RESNET18_ENGINE={asked!r} can't be honoured: {obstacle}")
    return [asked]


def _obstacle(name: str, manifest: Manifest, device: str) -> str | None:
    if not installed(name):
        return f"it is not installed; {runtimes.ENGINES[name].install}"
    if name == runtimes.find(manifest.runtime).engines_for(manifest.precision)[0]:
        return None
    if device != "cpu":
        return f"it runs on CPUs, and the device is {device}"
    judged = manifest.gate.get("engines", {}).get(name)
    if judged is None:
        return f"the accuracy gate has not judged the artifact with it; build the model where {name} is installed"
    if judged["failure"] is not None:
        return f"the artifact has not passed the accuracy gate with it: {judged['failure']}"
    if judged["cpu"] != devices.cpu_family():
        return f"the accuracy gate has judged it on a CPU of {judged['cpu']}, and this one is of {devices.cpu_family()}"
    return None
