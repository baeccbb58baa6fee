"""Every file of directory trees, sent to a running server: ``python -m tests.corpus DIR…`` prints a scorecard.

Files are streamed from disk, many at a time, whatever they are. A canary, a picture whose answer is known, goes along
after every CANARY_EVERY files: hostile neighbours must not change it. What counts as a restart: the processes that were
there when the service was ready, and that run one of BentoML's own modules (its supervisor, an API worker, the runner),
must still be there, and no other such process may have come. Processes that only decode may come and go: their ends are
counted apart.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import re
import stat
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import psutil
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.ours import running
from harness.processes import StartError, Tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

NO_REPLY, OVER_TIME, NOT_READ, BROKEN, WRONG = (
    "no reply",
    "over time",
    "not readable here",
    "broken reply",
    "wrong answer",
)
# What must never be: besides any 5xx.
FAILURES = (NO_REPLY, OVER_TIME, BROKEN, WRONG)
# Command lines of the processes that must live as long as the service, and of those that need not.
SERVING = re.compile(r"_bentoml_impl\.worker|bentoml serve|-m bentoml\b")
DECODING = re.compile(r"classifier\.decoder")
CANARY_EVERY = 20
SAMPLE_EVERY_S = 0.25
_CHUNK = 64 * 1024
_TRIES = 5


@dataclass
class Scorecard:
    """What came back. ``outcomes``: files by status and error code, or by how they failed; times in seconds."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[str, str]] = field(default_factory=list)
    slowest_s: float = 0.0
    slowest: str = ""
    canaries: int = 0
    seconds: float = 0.0
    peak_pss_mb: float | None = None
    start_pss_mb: float | None = None
    end_pss_mb: float | None = None
    restarts: int | None = None
    decoders_ended: int | None = None
    unfinished: bool = False

    def count(self, name: str, outcome: str, seconds: float = 0.0) -> None:
        """Take in one answer."""
        self.outcomes[outcome] += 1
        if outcome in FAILURES or outcome.startswith("5"):
            self.failed.append((name, outcome))
        if seconds > self.slowest_s:
            self.slowest_s, self.slowest = seconds, name

    @property
    def good(self) -> bool:
        """Whether everything that must hold did."""
        return not self.failed and not self.restarts and not self.unfinished and self.outcomes.total() > 0

    def body(self) -> dict[str, Any]:
        """The figures, ready for JSON."""
        figures = {name: value for name, value in vars(self).items() if name != "outcomes"}
        return {"good": self.good, "outcomes": dict(sorted(self.outcomes.items())), **figures}


class Watched:
    """The server's tree of processes, sampled while files are sent."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._serving = self._matching(SERVING)
        self._decoders: set[tuple[int, float]] = set()
        self.ended = 0
        self.start = self.peak = self.last = tree.memory().pss_mb

    def sample(self) -> None:
        """Look at memory and processes now."""
        self.last = self._tree.memory().pss_mb
        self.peak = max(self.peak, self.last)
        decoders = self._matching(DECODING) - self._serving
        self.ended += len(self._decoders - decoders)
        self._decoders = decoders

    def restarts(self) -> int:
        """Processes that should have lived and are gone, and those that came in their place."""
        now = self._matching(SERVING)
        return max(len(self._serving - now), len(now - self._serving))

    def _matching(self, pattern: re.Pattern[str]) -> set[tuple[int, float]]:
        found = set()
        for pid in self._tree.pids():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                if pattern.search(" ".join(process.cmdline())):
                    found.add((pid, process.create_time()))
        return found


def files(folders: Sequence[Path]) -> Iterator[Path]:
    """Every regular file under ``folders``; links, pipes and devices are left out, and so are licences."""
    for folder in folders:
        for base, names, leaves in os.walk(folder):
            names.sort()
            for leaf in sorted(leaves):
                path = Path(base, leaf)
                if stat.S_ISREG(path.lstat().st_mode) and not leaf.startswith("LICENSE"):
                    yield path


async def send(host: str, port: int, body: io.BufferedIOBase, length: int) -> tuple[str, bytes, float]:
    """One image to ``/classify``: the outcome, the reply's body, and seconds to wait where it is a 429."""
    reader, writer = await asyncio.open_connection(host, port, limit=2**20)
    lines = ["POST /classify HTTP/1.1", f"Host: {host}:{port}", "Content-Type: application/octet-stream"]
    lines += [f"Content-Length: {length}", "Expect: 100-continue", "Connection: close"]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.split()[1] == b"100":
            # Without it, what is refused by its length would be cut off in mid-sending, and its answer be lost.
            with contextlib.suppress(ConnectionError):
                while chunk := body.read(_CHUNK):
                    writer.write(chunk)
                    await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
        return await _answer(head, reader)
    except (ConnectionError, asyncio.IncompleteReadError):
        return NO_REPLY, b"", 0.0
    finally:
        writer.close()


async def _answer(head: bytes, reader: asyncio.StreamReader) -> tuple[str, bytes, float]:
    status = head.split()[1].decode()
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    try:
        text = await reader.readexactly(int(headers[b"content-length"]))
        reply = json.loads(text)
        told = "predictions" if status == "200" else "error"
        reply[told]
    except (KeyError, ValueError, TypeError):
        return BROKEN, b"", 0.0
    code = headers.get(b"x-error-code", b"").decode()
    return f"{status} {code}".strip(), text, float(headers.get(b"retry-after", 1))


class Run:
    """Files on their way to one server."""

    def __init__(self, url: str, timeout: float, watched: Watched | None, progress: Progress | None = None) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._timeout, self._watched, self._progress = timeout, watched, progress
        self.card = Scorecard()
        self._canary = _canary()
        self._known: Any = None

    async def go(self, paths: Iterable[Path], concurrency: int, within: float, total: int | None = None) -> Scorecard:
        """Send ``paths``, ``concurrency`` at a time, for at most ``within`` seconds."""
        start = time.monotonic()
        await self._check_canary()
        if self._known is None:
            raise StartError(f"the server does not answer a good image: {self.card.failed or dict(self.card.outcomes)}")
        bar = self._progress.add_task("sending", total=total) if self._progress else None
        waiting = iter(paths)

        async def work() -> None:
            for path in waiting:
                await self._file(path)
                if self.card.outcomes.total() % CANARY_EVERY == 0:
                    await self._check_canary()
                if self._progress and bar is not None:
                    self._progress.advance(bar)

        watching = asyncio.ensure_future(self._watch())
        try:
            async with asyncio.timeout(within):
                await asyncio.gather(*(work() for _ in range(concurrency)))
        except TimeoutError:
            self.card.unfinished = True
        finally:
            watching.cancel()
        await self._check_canary()
        self.card.seconds = time.monotonic() - start
        if self._watched:
            self._watched.sample()
            self.card.start_pss_mb, self.card.peak_pss_mb = self._watched.start, self._watched.peak
            self.card.end_pss_mb = self._watched.last
            self.card.restarts, self.card.decoders_ended = self._watched.restarts(), self._watched.ended
        return self.card

    async def _file(self, path: Path) -> None:
        try:
            file = path.open("rb")
        except OSError:
            self.card.count(str(path), NOT_READ)
            return
        with file:
            outcome, _, seconds = await self._ask(file, os.fstat(file.fileno()).st_size)
        self.card.count(str(path), outcome, seconds)

    async def _ask(self, body: io.BufferedIOBase, length: int) -> tuple[str, bytes, float]:
        """The outcome, the reply and its seconds. A 429 is no verdict on the file, so it is tried again."""
        for _ in range(_TRIES):
            body.seek(0)
            start = time.monotonic()
            try:
                async with asyncio.timeout(self._timeout):
                    outcome, text, wait = await send(self._host, self._port, body, length)
            except TimeoutError:
                outcome, text, wait = OVER_TIME, b"", 0.0
            except OSError:
                outcome, text, wait = NO_REPLY, b"", 0.0
            if not outcome.startswith("429"):
                break
            await asyncio.sleep(wait)
        return outcome, text, time.monotonic() - start

    async def _check_canary(self) -> None:
        outcome, text, _ = await self._ask(io.BytesIO(self._canary), len(self._canary))
        answer = json.loads(text)["predictions"] if outcome == "200" else None
        self.card.canaries += 1
        if answer is None:
            self.card.failed.append(("the canary", outcome))
        elif self._known is None:
            self._known = answer
        elif answer != self._known:
            self.card.failed.append(("the canary", WRONG))

    async def _watch(self) -> None:
        while self._watched:
            await asyncio.to_thread(self._watched.sample)
            await asyncio.sleep(SAMPLE_EVERY_S)


def _canary() -> bytes:
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    image = np.stack(np.broadcast_arrays(ramp[None], ramp[:, None], ramp[::-1, None]), axis=-1)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def of_port(port: int) -> Tree | None:
    """The tree of the service that listens on ``port`` of this machine, or None where it can't be seen."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                process = psutil.Process(connection.pid)
                while (parent := process.parent()) and SERVING.search(" ".join(parent.cmdline())):
                    process = parent
                return Tree(process.pid)
    return None


def score(
    url: str, tree: Tree | None, folders: Sequence[Path], *, concurrency: int, timeout: float, within: float, bar: bool
) -> Scorecard:
    """The scorecard of ``folders`` sent to the server at ``url``."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not bar) as progress:
        total = sum(1 for _ in files(folders))
        run = Run(url, timeout, Watched(tree) if tree else None, progress)
        return asyncio.run(run.go(files(folders), concurrency, within, total))


def show(card: Scorecard, console: Console) -> None:
    """Print the scorecard as a table."""
    table = Table("outcome", "files", title=f"{card.outcomes.total()} files in {card.seconds:.1f} s")
    for outcome, count in sorted(card.outcomes.items()):
        table.add_row(outcome, str(count))
    console.print(table)
    console.print(f"slowest: {card.slowest_s:.2f} s, {card.slowest}", soft_wrap=True)
    if card.peak_pss_mb is None:
        console.print("memory and restarts: unknown, the server is not on this machine")
    else:
        console.print(f"memory (PSS): {card.start_pss_mb:.0f} MB at first, at most {card.peak_pss_mb:.0f}")
        console.print(f"restarts: {card.restarts}; decode processes ended: {card.decoders_ended}")
    console.print(f"canaries: {card.canaries}, each answered as at first" if not card.failed else "failed:")
    for name, outcome in card.failed[:50]:
        console.print(f"  {outcome}: {name}", soft_wrap=True)
    if card.unfinished:
        console.print("stopped before the last file: raise --within")
    console.print("[bold green]held[/]" if card.good else "[bold red]not held[/]")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status is 0 where everything held."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.corpus",
        description="Send every file of directory trees to the service and print what came back. The exit status is 1 "
        "on any 5xx, missing or late or broken reply, wrong answer, or restart; 2 where it could not begin.",
        epilog="example: python -m tests.corpus shared/images/hostile --set workers=2 --json",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="a folder, searched to its leaves")
    parser.add_argument("--host", metavar="URL", help="a running server; without it one is started on a free port")
    parser.add_argument("--concurrency", type=int, default=16, metavar="N", help="files on their way at a time (16)")
    parser.add_argument("--timeout", type=float, default=60, metavar="S", help="seconds one answer may take (60)")
    parser.add_argument("--within", type=float, default=3600, metavar="S", help="seconds for all files (3600)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the server that is started: --set max_pixels=1000000 is RESNET18_MAX_PIXELS=1000000",
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of the table")
    options = parser.parse_args(arguments)
    for folder in options.folders:
        if not folder.is_dir():
            parser.error(f"{folder} is no folder")
    if options.concurrency < 1:
        parser.error(f"--concurrency {options.concurrency}: must be at least 1")
    if options.host and options.set:
        parser.error("--set is for the server that is started; --host names one that runs")
    limits = {"concurrency": options.concurrency, "timeout": options.timeout, "within": options.within}
    try:
        if options.host:
            tree = of_port(urlsplit(options.host).port or 80)
            card = score(options.host, tree, options.folders, bar=not options.json, **limits)
        else:
            os.environ.setdefault("BENTOML_HOME", str(Path(__file__).resolve().parents[1] / ".bentoml"))
            with running(**dict(setting.split("=", 1) for setting in options.set)) as service:
                url = f"http://127.0.0.1:{service.port}"
                card = score(url, service.tree, options.folders, bar=not options.json, **limits)
    except StartError as error:
        Console(stderr=True).print(str(error), markup=False)
        return 2
    if options.json:
        sys.stdout.write(json.dumps(card.body()) + "\n")
    else:
        show(card, Console())
    return 0 if card.good else 1


if __name__ == "__main__":
    sys.exit(main())
