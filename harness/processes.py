"""Start a server, measure its whole tree of processes, and stop that tree and nothing else.

It measures PSS, which Linux alone tells.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from harness import http

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 15.0


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
        # The processes that may still live. A psutil.Process compares by id and start time: an id alone may be reused
        # for a stranger.
        self._seen = set(_living([root]))

    def processes(self) -> list[psutil.Process]:
        """The living processes of the tree, by id."""
        ours = {process for process in self._seen if process.is_running()}
        if any(process.pid == self.root for process in ours) or not psutil.pid_exists(self.root):
            # A process whose parent has ended is still in the session that the root started.
            ours |= set(_living(_session(self.root)))
        found: set[psutil.Process] = set()
        # The root first: most of the others are its descendants.
        for process in sorted(ours, key=lambda process: process.pid != self.root):
            if process not in found:
                found.add(process)
                with contextlib.suppress(psutil.Error):  # it may have ended since
                    found.update(process.children(recursive=True))
        self._seen = found
        return sorted((process for process in found if _runs(process)), key=lambda process: process.pid)

    def pids(self) -> list[int]:
        """The ids of the living processes of the tree."""
        return [process.pid for process in self.processes()]

    def memory(self) -> Memory:
        """RSS and PSS of the tree now."""
        rss = pss = count = 0
        for process in self.processes():
            with contextlib.suppress(psutil.Error):  # it may have ended since
                used = process.memory_full_info()
                rss, pss, count = rss + used.rss, pss + used.pss, count + 1
        return Memory(rss / 1e6, pss / 1e6, count)

    def cpu_seconds(self) -> float:
        """Seconds of CPU of the tree since its start: user and system, with children that have ended."""
        total = 0.0
        for process in self.processes():
            with contextlib.suppress(psutil.Error):  # it may have ended since
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    def stop(self) -> None:
        """SIGTERM to the root, then SIGKILL to what is left of the tree."""
        processes = self.processes()
        _signal([process for process in processes if process.pid == self.root] or processes, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self.root in self.pids() and time.monotonic() < deadline:
            time.sleep(0.05)
        grace = time.monotonic() + 1
        while self.pids() and time.monotonic() < grace:
            time.sleep(0.05)
        for _ in range(10):  # a process being killed may just have started another
            processes = self.processes()
            if not processes:
                return
            _signal(processes, signal.SIGKILL)
            time.sleep(0.1)


class Usage:
    """How much CPU ``trees``, and anything else on the machine, use between the start and ``stop``."""

    def __init__(self, *trees: Tree) -> None:
        self._trees = trees
        self._begin = self._read()

    def _read(self) -> tuple[float, float, float]:
        served = sum(tree.cpu_seconds() for tree in self._trees)
        return time.perf_counter(), busy_seconds() - time.process_time() - served, served

    def stop(self) -> tuple[float, float]:
        """Seconds of CPU that the trees used since the start, and how many cores others took on average."""
        wall, others, served = (now - then for now, then in zip(self._read(), self._begin, strict=True))
        return served, max(0.0, others / wall)


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

        def ended() -> bool:
            tree.processes()  # remember descendants while their parents live
            return process.poll() is not None

        try:
            try:
                http.wait_ready(ready, timeout_s, ended=ended)
            except OSError:
                log.seek(0)
                last = log.read().decode(errors="replace").strip()[-1500:]
                status = process.poll()
                why = f"not ready in {timeout_s:.0f} s" if status is None else f"ended with status {status}"
                raise StartError(f"{why}: {last}") from None
            yield tree
        finally:
            tree.stop()
            process.wait(STOP_TIMEOUT_S)


def busy_seconds() -> float:
    """Seconds of CPU that the whole machine has spent on anything since its start."""
    spent = psutil.cpu_times()
    return spent.user + spent.nice + spent.system + spent.irq + spent.softirq


def listeners(port: int) -> list[psutil.Process]:
    """The processes that listen on a TCP port of this machine; of parent and child, the parent alone.

    Empty where they can't be seen: on some systems only root may ask.
    """
    try:
        sockets = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return []
    pids = {
        socket.pid
        for socket in sockets
        if socket.status == psutil.CONN_LISTEN and socket.laddr and socket.laddr.port == port and socket.pid
    }
    roots = []
    for process in _living(sorted(pids)):
        with contextlib.suppress(psutil.NoSuchProcess):
            if not pids & {parent.pid for parent in process.parents()}:
                roots.append(process)
    return roots


def resident_bytes(roots: Sequence[psutil.Process]) -> int:
    """RSS of ``roots`` and their descendants in bytes; 0 where one ends meanwhile, for then the sum means nothing."""
    try:
        trees = ([root, *root.children(recursive=True)] for root in roots)
        return sum(process.memory_info().rss for tree in trees for process in tree)
    except psutil.NoSuchProcess:
        return 0


def _living(pids: Iterable[int]) -> Iterator[psutil.Process]:
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            yield psutil.Process(pid)


def _session(leader: int) -> list[int]:
    """The ids of all processes in the session that ``leader`` started."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError):  # it may have ended since, or be a stranger's
            if os.getsid(pid) == leader:
                found.append(pid)
    return found


def _runs(process: psutil.Process) -> bool:
    """Whether it has not ended. One that waits to be reaped has ended."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
