"""The server under load: it is found or started, asked for its labels, and stopped again."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from loadtests.commands.console import console, give_up, progress

# Locust replaces the standard library's sockets, which must happen before they are used; so what needs them is
# imported by the functions, Locust first. It also keeps --help quick.
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loadtests.commands.options import Options
    from loadtests.profiles import Profile
    from loadtests.session import Session

READY_S = 120.0
_ENDINGS = (signal.SIGINT, signal.SIGTERM)


class Target(NamedTuple):
    """``model``: the JSON of its ``GET /model``. ``restart``: starts our own server again, gives seconds to ready."""

    session: Session
    url: str
    model: dict[str, Any]
    restart: Callable[[], float]


@contextlib.contextmanager
def ready(options: Options, profile: Profile) -> Iterator[Target]:
    """The server that ``options`` name, once it is ready, and a session with it.

    Ends the process with 1 where no capacity is found, and with 2 where there is nothing to judge.
    """
    # First of all: it replaces the sockets that the others use.
    from loadtests.generator import Generator, GeneratorError  # isort: skip
    from harness import photographs
    from harness.http import free_port
    from harness.processes import StartError
    from loadtests import watch
    from loadtests.answers import IdleError
    from loadtests.capacity import CapacityError
    from loadtests.progress import Meter
    from loadtests.session import Session, payload, reference

    # A server that was started here must end with this process, also where a signal ends it.
    end_by_signals()
    try:
        with contextlib.ExitStack() as stack:
            url, server = (options.host or "").rstrip("/"), contextlib.ExitStack()
            stack.enter_context(server)
            port = 0
            if options.serve:
                port = free_port()
                url = f"http://127.0.0.1:{port}"
                _start(server, options, port)

            def restart() -> float:
                server.close()
                return _start(server, options, port)

            watch.wait_ready(url, READY_S)
            model = watch.model(url)
            try:
                pictures = photographs.read(options.photos or photographs.FOLDER)
                requests = payload(profile.mix, profile.photos, pictures, options.hostile_dir)
            except ValueError as error:
                raise click.UsageError(str(error)) from None
            progress.print(f"Photographs: {pictures}", markup=False, highlight=False, soft_wrap=True)
            with Meter(progress, "Asking the idle server for its labels") as meter:
                requests = reference(url, requests, strict=options.hostile_dir is None, show=meter.asked)
            generator = stack.enter_context(
                Generator(
                    url,
                    requests,
                    processes=options.processes,
                    expect_workers=options.expect_workers,
                    bind_host=options.master_bind_host,
                    bind_port=options.master_bind_port,
                )
            )
            yield Target(Session(generator, url, requests, profile.mix), url, model, restart)
    except CapacityError as error:
        console.print(f"FAILED: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except (StartError, IdleError, GeneratorError, OSError) as error:
        give_up(error)


def end_by_signals() -> None:
    """From now on SIGINT and SIGTERM raise SystemExit in the main greenlet, at its next wait: 128 and the number.

    A handler of Python's own raises wherever it interrupts. A finalizer and a Cython module's import drop what is
    raised in them, so the run would go on.
    """
    import gevent

    def end(number: int) -> None:
        for ending in _ENDINGS:
            signal.signal(ending, signal.SIG_IGN)  # another one must not cut the cleaning up short
        sys.exit(128 + number)

    for number in _ENDINGS:
        gevent.signal_handler(number, end, number)


def _start(server: contextlib.ExitStack, options: Options, port: int) -> float:
    """Start a server that ends with ``server``; seconds until it was ready. Raises StartError."""
    from harness.processes import serving

    words = options.server_command(port)
    begin = time.perf_counter()
    progress.print(f"Starting {shlex.join(words)}", markup=False, highlight=False, soft_wrap=True)
    server.enter_context(serving(words, ready=f"http://127.0.0.1:{port}/readyz", environment={}, folder=Path.cwd()))
    return time.perf_counter() - begin
