"""Start a server, watch its whole tree of processes, and stop that tree and nothing else.

Linux only: it reads /proc.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 15.0
_PROC = Path("/proc")


class StartError(Exception):
    """A server did not become ready; the message ends in what it last printed."""


@dataclass(frozen=True)
class Memory:
    """Of a tree of processes, in MB (10^6 bytes): PSS counts a page shared by n processes as 1/n in each."""

    rss_mb: float
    pss_mb: float
    processes: int


class Tree:
    """A started command and all its descendants, also those that left its process group or lost their parent."""

    def __init__(self, root: int) -> None:
        self.root = root
        # By id and start time: an id alone may be reused for a stranger.
        self._seen = {pid: entry.start for pid, entry in _processes().items() if pid == root}

    def pids(self) -> list[int]:
        """The living processes of the tree."""
        table = _processes()
        ours = {pid for pid, start in self._seen.items() if pid in table and table[pid].start == start}
        if self.root in ours or self.root not in table:
            # Whatever is in the session that started with the root is the root's, also where a parent has ended.
            ours |= {pid for pid, entry in table.items() if entry.session == self.root}
        for _ in range(len(table)):
            more = {pid for pid, entry in table.items() if entry.parent in ours} - ours
            if not more:
                break
            ours |= more
        self._seen.update((pid, table[pid].start) for pid in ours)
        return sorted(pid for pid in ours if table[pid].state != "Z")

    def memory(self) -> Memory:
        """RSS and PSS of the tree now."""
        rss = pss = count = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):  # it may have ended since
                lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]
                kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
                rss, pss, count = rss + kilobytes["Rss"], pss + kilobytes["Pss"], count + 1
        return Memory(rss * 1024 / 1e6, pss * 1024 / 1e6, count)

    def cpu_seconds(self) -> float:
        """CPU time of the tree since its start, user and system, children that have ended included."""
        table = _processes()
        return sum(table[pid].cpu_s for pid in self.pids() if pid in table)

    def stop(self) -> None:
        """SIGTERM to the root, then SIGKILL to what is left of the tree."""
        pids = self.pids()
        _signal([self.root] if self.root in pids else pids, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self.root in self.pids() and time.monotonic() < deadline:
            time.sleep(0.05)
        grace = time.monotonic() + 1
        while self.pids() and time.monotonic() < grace:
            time.sleep(0.05)
        for _ in range(10):  # a process being killed may just have started another
            pids = self.pids()
            if not pids:
                return
            _signal(pids, signal.SIGKILL)
            time.sleep(0.1)


@contextlib.contextmanager
def serving(
    command: Sequence[str],
    *,
    ready: str,
    environment: Mapping[str, str],
    folder: Path,
    timeout_s: float = READY_TIMEOUT_S,
) -> Iterator[Tree]:
    """Run ``command`` in ``folder`` until the end of the block, entered once ``ready`` (a URL) answers 200.

    Raises StartError.
    """
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise StartError(f"{command[0]}: {error.strerror}") from None
        tree = Tree(process.pid)
        try:
            deadline = time.monotonic() + timeout_s
            while not _answers(ready):
                ended = process.poll() is not None
                if ended or time.monotonic() > deadline:
                    log.seek(0)
                    last = log.read().decode(errors="replace").strip()[-1500:]
                    why = f"ended with status {process.returncode}" if ended else f"not ready in {timeout_s:.0f} s"
                    raise StartError(f"{why}: {last}")
                tree.pids()  # remember descendants while their parents live
                time.sleep(0.1)
            yield tree
        finally:
            tree.stop()
            process.wait(STOP_TIMEOUT_S)


def busy_seconds() -> float:
    """CPU time that the whole machine has spent since its start, on anything: to see what others took meanwhile."""
    user, nice, system, _, _, interrupts, soft_interrupts, *_ = (
        int(value) for value in (_PROC / "stat").read_text().splitlines()[0].split()[1:]
    )
    return (user + nice + system + interrupts + soft_interrupts) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A TCP port of the loopback that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@dataclass(frozen=True)
class _Entry:
    state: str
    parent: int
    session: int
    cpu_s: float
    start: int


def _processes() -> dict[int, _Entry]:
    ticks = os.sysconf("SC_CLK_TCK")
    table = {}
    for folder in _PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # The name is in brackets and may hold spaces and brackets itself.
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        cpu = sum(int(value) for value in fields[11:15]) / ticks
        table[int(folder.name)] = _Entry(fields[0], int(fields[1]), int(fields[3]), cpu, int(fields[19]))
    return table


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False
