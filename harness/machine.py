"""What a measurement ran on."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path
from typing import Any


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """Date, processor, usable cores and Python of this machine."""
    name = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": name,
        "cores": cores(),
        "python": platform.python_version(),
    }
