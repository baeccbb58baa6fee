"""The variants of the container image. Whatever lists variants reads this table.

``python -m deploy.variants`` prints, for ``make lock``, a line for each lock: its name and what it leaves out.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from classifier import runtimes


@dataclass(frozen=True)
class Variant:
    """A variant of the image.

    ``name``: what VARIANT calls it. ``lock``: it installs ``requirements/<lock>.lock``, made of the .txt of that name.
    ``bentofile``: what its bento is built by. ``runtime``, ``device``: the settings of the image's environment.
    ``platform``: the container engine's, None for this machine's. ``indexed``: the package that the lock leaves out,
    because the right build of it depends on the index. ``own_mb``: MB that the layers upon its base may have.
    """

    name: str
    own_mb: int
    lock: str = "runtime"
    bentofile: str = "bentofile.yaml"
    runtime: str = runtimes.DEFAULT
    device: str = "cpu"
    platform: str | None = None
    indexed: str | None = None


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("cpu", own_mb=300),
        Variant("cpu-openvino", own_mb=500, lock="openvino", bentofile="deploy/bento/openvino.yaml"),
        Variant("edge", own_mb=300, platform="linux/arm64"),
        Variant("gpu", own_mb=4000, lock="gpu", bentofile="deploy/bento/gpu.yaml", device="cuda"),
        Variant(
            "torchscript",
            own_mb=1200,
            lock="torchscript",
            bentofile="deploy/bento/torchscript.yaml",
            runtime="torchscript",
            indexed="torch",
        ),
    )
}


if __name__ == "__main__":
    locks = {variant.lock: variant.indexed or "" for variant in VARIANTS.values()}
    sys.stdout.write("".join(f"{lock} {left_out}".rstrip() + "\n" for lock, left_out in locks.items()))
