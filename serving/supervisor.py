"""The supervisor: the parent of all workers, which is BentoML's with six changes.

- It looks for dead workers twice a second; BentoML's does every ten seconds.
- It starts dead workers anew in a container too; BentoML's does not.
- It stops the API workers first and then the runner that they need. BentoML's removes the runner's socket first. When
  BentoML's is killed, its workers go on for ever; ours end with it.
- It takes no orders. BentoML's starts any program for whoever connects to its port of 127.0.0.1.
- It keeps its metrics in a folder of its own. With BentoML's, a second service of the same BENTOML_HOME deletes the
  metrics of the first.
- It says that the service is ready when it is. BentoML's says so seconds before.

None of this is a setting, so BentoML is patched: ``install`` replaces the class of its supervisor before one is made.
The supervised service need not be ours: ours may be one that it depends on. Then BentoML says that it starts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click
import psutil
import watchfiles
from bentoml._internal.bento.build_config import BentoBuildConfig, BentoPathSpec
from bentoml._internal.utils import circus
from tornado import gen

from serving import address, metrics, worker

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECK_EVERY_S = 0.5
# Seconds from SIGTERM to SIGKILL. API workers answer their requests in flight and end sooner by themselves. The runner
# has nothing left to do by then.
API_STOP_S = worker.END_S
RUNNER_STOP_S = 2.0
# Seconds that an API worker has for its requests in flight. Those left then wait for a body that does not come, or for
# an answer that would be far too late.
API_ANSWER_S = 5
# The supervisor gives up when so many workers have ended before the service was ready once.
TRIES = 3
API = "service"
API_SOCKET = "_bento_api_server"

logger = logging.getLogger("bentoml.resnet18")


def install(service: str) -> None:
    """Make BentoML's next supervisor of this process a Supervisor, which hears from the workers of ``service``."""
    Supervisor.service = service
    circus.Arbiter = Supervisor


class Supervisor(circus.Arbiter):
    """Starts the workers, replaces dead ones, and stops all within ten seconds: the API workers, then the runner."""

    exit_stack: contextlib.ExitStack
    service: ClassVar[str]

    def __init__(self, watchers: list[Any], *arguments: Any, **options: Any) -> None:
        # Its sockets are within this process, so that nobody can give it orders.
        closed = {"endpoint": "inproc://orders", "pubsub_endpoint": "inproc://events"}
        # BentoML's own reloader is a process that gives such orders.
        reloaded = options.pop("plugins", None)
        super().__init__(watchers, *arguments, **options | closed | {"check_delay": -1})
        self.loop.call_later(CHECK_EVERY_S, self._check)
        self._metrics = _own_folder(Path(watchers[0].env[metrics.FOLDER]))
        self._tie, self._inherited = socket.socketpair()
        self._inherited.set_inheritable(True)
        self._ready: set[int] = set()
        self._started: set[int] = set()
        self._told = self._served = False
        # BentoML's watchers are named after the service, but for that of the main one.
        (self._main,) = (watcher for watcher in watchers if watcher.name == API)
        (self._ours,) = (watcher for watcher in watchers if _service_of(watcher) == self.service)
        self.loop.add_handler(self._tie.fileno(), lambda *_: self._hear(), self.loop.READ)
        if reloaded:
            folder = reloaded[0]["working_dir"]
            threading.Thread(target=self._watch, args=(folder,), name="resnet18-reload", daemon=True).start()
        for watcher in watchers:
            watcher.env[metrics.FOLDER] = str(self._metrics)
            watcher.env[worker.VARIABLE] = f"{self._inherited.fileno()},{self.sockets[API_SOCKET].fileno()}"
            watcher.respawn = True
            # A worker stops its own children, once they have nothing to do.
            watcher.stop_children = False
            answers = watcher in (self._main, self._ours)
            watcher.graceful_timeout = API_STOP_S if answers else RUNNER_STOP_S
            if answers and "--timeout-graceful-shutdown" not in watcher.args:
                watcher.args += ["--timeout-graceful-shutdown", str(API_ANSWER_S)]

    def start(self, cb: Any = None) -> None:
        """Start the workers and look after them until the end, without BentoML's early message that ours listens."""
        super().start(None if self._main is self._ours else cb)

    def _hear(self) -> None:
        """Note that a worker is ready. Once all API workers are, print the service's address, if it is ours.

        End if a worker says that none can serve.
        """
        (message,) = worker.MESSAGE.unpack(self._tie.recv(worker.MESSAGE.size))
        if message == worker.ABORTED:
            self._end(SystemExit(1))
            return
        self._ready.add(message)
        api = self._ours
        if not self._told and len(api.processes) == api.numprocesses and set(api.processes) <= self._ready:
            self._told = self._served = True
            if api is not self._main:
                return
            here = self.sockets[API_SOCKET]
            scheme = "https" if "--ssl-certfile" in api.args else "http"
            click.echo(f"ready: {address.url(here.host, here.port, scheme)}")

    def _end(self, how: SystemExit) -> None:
        """Stop the workers, then raise ``how``."""
        self._exception = how
        self.stop()

    def _watch(self, folder: str) -> None:
        """Start all workers anew when a file in ``folder`` changes that its bento would include."""
        config = BentoBuildConfig.from_bento_dir(folder)
        spec = BentoPathSpec(config.include, config.exclude, folder)
        for changes in watchfiles.watch(*_folders(folder), watch_filter=None, recursive=False):
            paths = {os.path.relpath(path, folder) for _, path in changes}
            if changed := sorted(filter(spec.includes, paths)):
                logger.warning("%s changed: all workers are started anew", ", ".join(changed))
                self.loop.add_callback(self._reload)

    def _reload(self) -> None:
        if self._exclusive_running_command is not None:
            self.loop.call_later(0.05, self._reload)
            return
        self._told = False
        self.loop.add_future(self.restart(), lambda future: future.result())

    def _check(self) -> None:
        """Replace dead workers, and call this again soon: circus's own timer stops while the clock is set back."""
        if self._stopping:
            return
        self._started.update(pid for watcher in self.watchers for pid in watcher.processes)
        ended = len(self._started) - sum(watcher.numprocesses for watcher in self.watchers)
        if ended >= TRIES and not self._served:
            self._end(
                SystemExit(f"resnet18: {ended} processes have ended before all were ready; above is what they said")
            )
            return
        if self._exclusive_running_command is None:
            self.loop.add_future(self.manage_watchers(), lambda future: future.result())
        self.loop.call_later(CHECK_EVERY_S, self._check)

    def stop(self) -> Any:
        """Stop accepting connections, then stop the workers, then end."""
        if self._stopping:
            return None
        if self._exclusive_running_command is not None:
            # While circus starts a worker, it would forget the signal.
            self.loop.call_later(0.05, self.stop)
            return None
        # Otherwise the kernel would go on accepting connections, and reset them at the end.
        with contextlib.suppress(OSError):
            self.sockets[API_SOCKET].shutdown(socket.SHUT_RDWR)
        # The exit stack removes the runner's socket.
        at_end, self.exit_stack = self.exit_stack, contextlib.ExitStack()
        stopped = super().stop()
        at_end.callback(shutil.rmtree, self._metrics, ignore_errors=True)
        stopped.add_done_callback(lambda _: at_end.close())
        return stopped

    @gen.coroutine
    def _stop_watchers(self, close_output_streams: bool = False, watcher_iter_func: Any = None) -> Any:
        # BentoML lists a service after those it depends on.
        for watcher in reversed(self.watchers):
            yield watcher._stop(close_output_streams)


def _service_of(watcher: Any) -> str:
    """The name of the service whose workers ``watcher`` starts."""
    name: str = watcher.args[watcher.args.index("--service-name") + 1]
    return name


def _folders(root: str) -> Iterator[str]:
    """``root`` and the folders in it, without hidden ones: environments, stores and caches have thousands."""
    for folder, inner, _ in os.walk(root):
        inner[:] = [name for name in inner if not name.startswith((".", "__"))]
        yield folder


def _own_folder(shared: Path) -> Path:
    """A folder beside ``shared`` for the metrics of this service alone. Folders of dead services are removed."""
    for other in shared.parent.glob(f"{shared.name}-*"):
        pid = int(other.name.rpartition("-")[2])
        if pid == os.getpid() or not psutil.pid_exists(pid):
            shutil.rmtree(other, ignore_errors=True)
    own = shared.with_name(f"{shared.name}-{os.getpid()}")
    try:
        own.mkdir()
    except OSError:  # a full disk
        return shared
    return own
