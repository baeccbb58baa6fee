"""A cluster on this machine: replicas as processes behind nginx, scraped by a Prometheus, started and stopped as pods.

It does by hand what Kubernetes does, with the project's own configuration. A new pod becomes ready once it answers
/readyz, but not before ``start_s``, which stands for the scheduler, the image and the node. A removed pod first leaves
the balancer. After PRE_STOP_S it is told to stop, and answers the requests that it holds.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

import yaml

from autoscaling import output
from harness.http import free_port, is_ready

if TYPE_CHECKING:
    from collections.abc import Mapping

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
NAMESPACE = "default"
# As in deploy/kubernetes/base/deployment.yaml.
PRE_STOP_S = 5.0
STOP_S = 15.0
# The longest time from the start of a process to its first answer.
LAUNCH_S = 120.0


class ClusterError(Exception):
    """The cluster can't run; the message says what is missing, or quotes the last line of a process."""


@dataclass
class Pod:
    """A replica that was asked for at ``asked``; all times are seconds of ``time.monotonic()``."""

    port: int
    asked: float
    log: IO[bytes]
    process: subprocess.Popen[bytes] | None = None
    launched: float | None = None
    answers: float | None = None
    ready: float | None = None
    removed: float | None = None
    told: bool = False


@dataclass
class Cluster:
    """``command`` starts a replica, {port} standing for its port; ``environment`` is added to this process's.

    A context manager. It writes into ``folder`` only, and stops each of its processes by its own process id.
    """

    folder: Path
    command: str
    environment: Mapping[str, str]
    start_s: float
    pods: list[Pod] = field(default_factory=list)
    _others: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _served: list[int] = field(default_factory=list)
    _scraped: list[int] = field(default_factory=list)
    _status: int | None = None

    def __enter__(self) -> Cluster:
        self._nginx = _found("nginx", "nginx-light")
        prometheus = _found("prometheus", "prometheus")
        self.port, self._prometheus_port = free_port(), free_port()
        self.prometheus = f"http://127.0.0.1:{self._prometheus_port}"
        shutil.copytree(DEPLOY / "nginx", self.folder / "nginx")
        main = self.folder / "nginx" / "nginx.conf"
        main.write_text(main.read_text().replace(" /tmp/", f" {main.parent}/"))
        (main.parent / "listen.conf").write_text(f"listen 127.0.0.1:{self.port};")
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        (resnet18,) = (job for job in config["scrape_configs"] if job["job_name"] == "resnet18")
        del resnet18["static_configs"]
        resnet18["file_sd_configs"] = [{"files": ["pods.yml"]}]
        (self.folder / "prometheus.yml").write_text(
            yaml.safe_dump({"global": config["global"], "scrape_configs": [resnet18]})
        )
        self._scrape([])
        options = [f"--config.file={self.folder / 'prometheus.yml'}", f"--storage.tsdb.path={self.folder / 'data'}"]
        with (self.folder / "prometheus.log").open("wb") as log:
            command = [prometheus, *options, f"--web.listen-address=127.0.0.1:{self._prometheus_port}"]
            self._others.append(subprocess.Popen(command, stdout=log, stderr=log))
        return self

    def __exit__(self, *_: object) -> None:
        for pod in self.pods:
            self._tell(pod)
        for process in self._others:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        for pod in self.pods:
            self._reap(pod, max(0.0, deadline - time.monotonic()))
        for process in self._others:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
            process.kill()
            process.wait()

    def end(self, status: int) -> None:
        """Let the next ``tick`` raise SystemExit of ``status``. A signal's handler may call it at any moment."""
        self._status = status

    @property
    def wanted(self) -> int:
        """Pods that were asked for and not removed."""
        return sum(pod.removed is None for pod in self.pods)

    @property
    def ready(self) -> int:
        """Pods that get requests."""
        return sum(pod.removed is None and pod.ready is not None for pod in self.pods)

    def scale(self, replicas: int) -> None:
        """Ask for pods, or remove some: first those that still start, then those that are ready, the youngest first."""
        now = time.monotonic()
        for _ in range(replicas - self.wanted):
            port = free_port()
            self.pods.append(Pod(port, now, (self.folder / f"pod-{len(self.pods)}.log").open("w+b")))
        left = [pod for pod in self.pods if pod.removed is None]
        order = sorted(left, key=lambda pod: (pod.ready is not None, -pod.asked))
        for pod in order[: max(0, len(left) - replicas)]:
            pod.removed = now
        self.tick()

    def tick(self) -> None:
        """Start, probe, balance and stop the pods that are due. Call it twice a second. Raises ClusterError."""
        if self._status is not None:
            sys.exit(self._status)
        now = time.monotonic()
        for pod in self.pods:
            if pod.removed is not None and now - pod.removed >= PRE_STOP_S:
                self._tell(pod)
                self._reap(pod, 0.0)
        # One process starts at a time: more would take the cores of the ready ones.
        starting = [pod for pod in self.pods if pod.process is not None and pod.answers is None and not pod.told]
        waiting = [pod for pod in self.pods if pod.process is None and pod.removed is None]
        if waiting and not starting:
            self._launch(waiting[0])
        for pod in starting:
            self._probe(pod, now)
        for pod in self.pods:
            if (
                pod.answers is not None
                and pod.ready is None
                and pod.removed is None
                and now - pod.asked >= self.start_s
            ):
                pod.ready = now
        # Prometheus knows a pod from the start of its process until its end, as in Kubernetes.
        self._scrape([pod.port for pod in self.pods if pod.process is not None and pod.process.poll() is None])
        self._balance([pod.port for pod in self.pods if pod.ready is not None and pod.removed is None])

    def _launch(self, pod: Pod) -> None:
        pod.launched = time.monotonic()
        command = shlex.split(self.command.replace("{port}", str(pod.port)))
        try:
            pod.process = subprocess.Popen(
                command,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=pod.log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise ClusterError(f"{command[0]!r} can't be started: {error.strerror}") from None

    def _probe(self, pod: Pod, now: float) -> None:
        assert pod.process is not None
        assert pod.launched is not None
        if is_ready(f"http://127.0.0.1:{pod.port}/readyz"):
            pod.answers = now
            return
        ended = pod.process.poll()
        if ended is not None or now - pod.launched > LAUNCH_S:
            pod.log.seek(0)
            last = pod.log.read().decode(errors="replace").strip().splitlines()[-1:]
            why = f"ended with status {ended}" if ended is not None else f"was not ready in {LAUNCH_S:.0f} s"
            raise ClusterError(f"a replica {why}; it last said {last[0] if last else ''!r}")

    def _balance(self, ports: list[int]) -> None:
        if ports == self._served or not ports:
            return
        source = (DEPLOY / "nginx" / "upstream.conf").read_text().splitlines()
        (line, *_) = [line for line in source if line.strip().startswith("server ")]
        rest = [other for other in source if not other.strip().startswith("server ")]
        servers = [line.replace("resnet18-1:3000", f"127.0.0.1:{port}") for port in ports]
        (self.folder / "nginx" / "upstream.conf").write_text("\n".join([*rest[:-1], *servers, rest[-1], ""]))
        folder = self.folder / "nginx"
        command = [self._nginx, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g"]
        command += ["daemon off;" if os.geteuid() else "daemon off; user root;"]
        if not self._served:
            with (self.folder / "nginx.log").open("wb") as log:
                self._others.append(subprocess.Popen(command, stdout=log, stderr=log))
        else:
            self._others[-1].send_signal(signal.SIGHUP)
        self._served = ports

    def _scrape(self, ports: list[int]) -> None:
        if ports == self._scraped and (self.folder / "pods.yml").is_file():
            return
        targets = [{"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": NAMESPACE}} for port in ports]
        # Renamed into place, so that it is never read half-written.
        output.put(self.folder, lambda folder: (folder / "pods.yml").write_text(yaml.safe_dump(targets)))
        self._scraped = ports

    def _tell(self, pod: Pod) -> None:
        if pod.process is not None and not pod.told and pod.process.poll() is None:
            pod.process.send_signal(signal.SIGTERM)
        pod.told = True

    def _reap(self, pod: Pod, seconds: float) -> None:
        if pod.process is None:
            pod.log.close()
            return
        try:
            pod.process.wait(seconds)
        except subprocess.TimeoutExpired:
            if seconds == 0 and (pod.removed is None or time.monotonic() - pod.removed < PRE_STOP_S + STOP_S):
                return
            os.killpg(pod.process.pid, signal.SIGKILL)
            pod.process.wait()
        pod.log.close()


def _found(command: str, package: str) -> str:
    path = shutil.which(command) or shutil.which(command, path="/usr/sbin:/sbin")
    if path is None:
        raise ClusterError(f"{command!r} is missing; on Debian: apt-get install --no-install-recommends {package}")
    return path
