"""What a machine has, as /proc/cpuinfo says it. What errors mean: tests/runners/test_engine.py."""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING

import pytest

from runners import devices

if TYPE_CHECKING:
    from pathlib import Path


class TestCpuFeatures:
    """What /proc/cpuinfo says."""

    @pytest.mark.parametrize(
        ("flags", "expected"),
        [
            ("fpu sse4_2 avx", set()),
            ("fpu sse avx2", {"int8"}),
            ("avx2 avx512_vnni", {"int8"}),
            ("avx2 avx512_vnni avx512_bf16 amx_int8 amx_bf16", {"int8", "bf16"}),
            ("fp asimd", set()),
            ("fp asimd asimddp bf16", {"int8"}),
            ("xavx2", set()),
        ],
    )
    def test_flags(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, expected: set[str]) -> None:
        cpuinfo = tmp_path / "cpuinfo"
        cpuinfo.write_text(f"processor : 0\nflags\t\t: {flags}\n")
        monkeypatch.setattr(devices, "Path", lambda _: cpuinfo)
        monkeypatch.setattr(sys, "platform", "linux")
        assert devices.cpu_features() == expected

    def test_no_cpuinfo(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(devices, "Path", lambda _: tmp_path / "missing")
        monkeypatch.setattr(sys, "platform", "linux")
        assert devices.cpu_features() == frozenset()

    @pytest.mark.parametrize(("machine", "expected"), [("arm64", {"int8"}), ("x86_64", set())])
    def test_macos(self, monkeypatch: pytest.MonkeyPatch, machine: str, expected: set[str]) -> None:
        monkeypatch.setattr(sys, "platform", "darwin")
        monkeypatch.setattr(platform, "machine", lambda: machine)
        assert devices.cpu_features() == expected
