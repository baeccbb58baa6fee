"""The machine is described by what anyone can look up on it."""

from __future__ import annotations

import datetime
import platform

from harness.machine import cores, machine


def test_the_description_is_this_machine_s() -> None:
    found = machine()
    assert datetime.date.fromisoformat(found["date"]) <= datetime.datetime.now(datetime.UTC).date()
    assert found["cores"] == cores() >= 1
    assert found["python"] == platform.python_version()
    assert found["cpu"]
