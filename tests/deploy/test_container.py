"""The container image, really built and run: hardened, under load, stopped, and with its worker killed.

`make test-image VARIANT=cpu`; it installs podman where it may, needs no registry, and takes some minutes. What it
measured is left in build/image-VARIANT.json.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest
import yaml

from benchmarks import load
from classifier.runtimes import RUNTIMES
from deploy.image.__main__ import LIMITS
from deploy.variants import VARIANTS
from tests.conftest import ROOT, debian, environment, eventually, free_port
from tests.test_service import check_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Server

pytestmark = [pytest.mark.image, pytest.mark.timeout(3600)]

VARIANT = os.environ.get("VARIANT", "cpu")
# An emulated processor takes seconds for an image, so the service would rightly refuse to start with its usual SLO.
EMULATED = VARIANTS[VARIANT].platform is not None
SLACK = 20 if EMULATED else 1
PATIENCE = {"slo_ms": "60000", "timeout_ms": "60000"} if EMULATED else {}
MB = 1e6
serves = pytest.mark.skipif(VARIANTS[VARIANT].device != "cpu", reason="there may be no GPU here")
HARDENED = (
    "--read-only",
    # Podman would make more of them writable; docker and Kubernetes don't.
    "--read-only-tmpfs=false",
    "--tmpfs=/tmp:size=64m,mode=1777",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--memory=1g",
    "--pids-limit=256",
    *LIMITS,
)
JPEG = {"content-type": "image/jpeg"}


def podman(*arguments: str, check: bool = True, **env: str) -> str:
    """What podman prints."""
    done = subprocess.run(["podman", *arguments], capture_output=True, text=True, check=False, env=os.environ | env)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="session")
def measured() -> Iterator[dict[str, Any]]:
    """Figures for docs/results.md, written down at the end."""
    figures: dict[str, Any] = {"variant": VARIANT}
    yield figures
    path = ROOT / "build" / f"image-{VARIANT}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n")


class Built:
    """An image and how it came to be."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.name, self.cold_s = self.build("--no-cache")

    def build(self, *options: str, bento: str | None = None) -> tuple[str, float]:
        """`make image`: the image's name, and the seconds it took."""
        command = [sys.executable, "-m", "deploy.image", "--variant", VARIANT, "--engine", "podman"]
        if VARIANTS[VARIANT].indexed:
            index = os.environ.get("TORCH_INDEX") or os.environ.get("PIP_FIND_LINKS")
            if not index:
                pytest.skip("TORCH_INDEX names no index or folder of torch's CPU wheels")
            command += ["--torch-index", index]
        command += ["--bento", bento] if bento else []
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        env = environment() | {"BENTOML_HOME": str(self.home), "PATH": path}
        start = time.monotonic()
        done = subprocess.run(
            [*command, "--", *options], cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.split()[-1], time.monotonic() - start

    def inspect(self) -> dict[str, Any]:
        (found,) = json.loads(podman("image", "inspect", self.name))
        assert isinstance(found, dict)
        return found

    def layers(self) -> list[str]:
        layers: list[str] = self.inspect()["RootFS"]["Layers"]
        return layers


@pytest.fixture(scope="session")
def image(store: Path, measured: dict[str, Any]) -> Built:
    debian("podman", "buildah", "runc", "netavark", "aardvark-dns", "iptables", "catatonit", command="podman")
    debian("mmdebstrap", command="mmdebstrap")
    if subprocess.run(["podman", "info"], capture_output=True, check=False).returncode:
        pytest.skip("podman does not work here")
    if os.geteuid():
        pytest.skip("these tests read the memory of containers and kill their processes, which needs root")
    built = Built(store)
    config = built.inspect()
    base = int(podman("image", "inspect", config["Labels"]["org.opencontainers.image.base.name"], "--format={{.Size}}"))
    own = config["Size"] - base
    measured |= {"image": built.name, "base_mb": round(base / MB), "own_mb": round(own / MB)}
    measured |= {"layers": len(built.layers()), "build_cold_s": round(built.cold_s, 1)}
    return built


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


class Container:
    """A running container of the image, hardened as in compose.yaml and the Deployment."""

    def __init__(self, image: Built, **settings: str) -> None:
        options = [f"--env=RESNET18_{name.upper()}={value}" for name, value in (PATIENCE | settings).items()]
        start = time.monotonic()
        self.id = podman("run", "--detach", "--publish=127.0.0.1::3000", *HARDENED, *options, image.name)
        self.client = httpx.Client(base_url=f"http://{podman('port', self.id, '3000/tcp')}", timeout=30 * SLACK)
        if not eventually(lambda: is_ready(self.client) or not self.runs(), 30 * SLACK) or not self.runs():
            raise AssertionError(f"not ready:\n{self.remove()}")
        self.ready_s = time.monotonic() - start

    def runs(self) -> bool:
        return podman("inspect", self.id, "--format={{.State.Running}}") == "true"

    def processes(self) -> list[psutil.Process]:
        """Its processes, as this machine sees them: the supervisor, then its workers."""
        return [psutil.Process(int(pid)) for pid in podman("top", self.id, "hpid").split()[1:]]

    def remove(self) -> str:
        logs = podman("logs", self.id, check=False)
        podman("rm", "--force", "--time=0", self.id)
        self.client.close()
        return logs


@pytest.fixture(scope="module")
def container(image: Built, measured: dict[str, Any]) -> Iterator[Container]:
    running = Container(image)
    measured["ready_s"] = round(running.ready_s, 1)
    yield running
    start = time.monotonic()
    podman("stop", "--time=30", running.id)
    measured["stop_idle_s"] = round(time.monotonic() - start, 1)
    running.remove()


@pytest.fixture
def run(image: Built) -> Iterator[Callable[..., Container]]:
    """A function that starts a container with settings; it is removed after the test."""
    started: list[Container] = []

    def start(**settings: str) -> Container:
        started.append(Container(image, **settings))
        return started[-1]

    yield start
    for running in started:
        running.remove()


@pytest.fixture(scope="session")
def limits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Podman's configuration for what takes no options: containers get LIMITS."""
    path = tmp_path_factory.mktemp("podman") / "containers.conf"
    path.write_text(f"[containers]\ndefault_ulimits = {json.dumps([limit.split('=', 1)[1] for limit in LIMITS])}\n")
    return path


def inside(image: Built, script: str) -> list[str]:
    """The lines that a shell in the image prints."""
    return podman("run", "--rm", *HARDENED, "--entrypoint=sh", image.name, "-c", script).splitlines()


def test_it_holds_what_serves_and_nothing_else(image: Built) -> None:
    tools = inside(image, "for name in cc gcc g++ make git curl uv pytest; do command -v $name; done; true")
    assert tools == []
    packages = set(inside(image, "ls /venv/lib/python3.11/site-packages"))
    runtime = RUNTIMES[VARIANTS[VARIANT].runtime]
    assert {"bentoml", runtime.package, "PIL"} <= packages
    assert not {"pip", "onnx", "pytest", "skimage", "torchvision"} & packages
    assert ("torch" in packages) == (runtime.package == "torch")
    assert inside(image, "find /venv /bento -type d -name tests") == []
    sources = {"bentofile.yaml", "classifier", "requirements", "runners", "service.py", "serving", "web", "__pycache__"}
    assert set(inside(image, "ls /bento/src")) == sources
    assert len(inside(image, "ls -d /bento/models/*/*-*")) == 1


def test_its_own_layers_are_small(measured: dict[str, Any], image: Built) -> None:
    assert measured["own_mb"] <= VARIANTS[VARIANT].own_mb


def test_it_is_nobody_s_and_says_how_it_is(image: Built) -> None:
    config = image.inspect()
    assert config["User"] == "10001:10001"
    assert config["Healthcheck"]["Test"][:2] == ["CMD", "python"]
    assert config["Labels"]["org.opencontainers.image.version"] == image.name.rpartition(":")[2]
    writable = inside(
        image, "find / -xdev -writable -not -type l 2>/dev/null | grep -v -E '^/(proc|sys|dev|tmp)'; true"
    )
    assert writable == []


def test_the_same_bento_gives_the_same_layers(image: Built, measured: dict[str, Any]) -> None:
    before = image.layers()
    if not EMULATED and VARIANTS[VARIANT].device == "cpu":  # the cpu variant tells, whose Containerfile is the same
        again, _ = image.build("--no-cache", bento="resnet18:latest")
        assert again.endswith(image.name)
        assert image.layers() == before
    # Layers from the cache may be of an older bento's build, whose time their files have.
    _, warm_s = image.build(bento="resnet18:latest")
    measured["build_warm_s"] = round(warm_s, 1)


@pytest.mark.skipif(VARIANTS[VARIANT].device == "cpu", reason="only the gpu variant needs a GPU")
def test_without_a_gpu_it_refuses_to_start_and_says_why(image: Built) -> None:
    done = subprocess.run(
        ["podman", "run", "--rm", *HARDENED, image.name], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1
    assert "resnet18: device 'cuda': this machine shows 0 CUDA device(s)" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@serves
def test_it_answers_as_the_same_artifact_does_outside(
    container: Container, launch: Callable[..., Server], photos: list[Path], measured: dict[str, Any]
) -> None:
    served = container.client.get("/model").json()
    server = launch(model=served["tag"], runtime=served["runtime"]).wait()
    for photo in photos:
        here, there = (
            client.post("/classify", content=photo.read_bytes(), headers=JPEG, params={"top_k": 10}).json()
            for client in (container.client, server.client)
        )
        probabilities = {p["class_id"]: p["probability"] for p in there["predictions"]}
        if not EMULATED:
            assert here["predictions"] == there["predictions"]
        for prediction in here["predictions"]:
            assert prediction["probability"] == pytest.approx(probabilities[prediction["class_id"]], abs=1e-3)
    server.stop()
    pss = sum(process.memory_full_info().pss for process in container.processes())
    metrics = container.client.get("/metrics").text
    assert float(re.findall(r"^resnet18_memory_limit_bytes (\S+)", metrics, re.MULTILINE)[0]) == 2**30
    measured |= {"precision": served["precision"], "pss_mb": round(pss / MB)}
    assert VARIANT != "cpu" or pss <= 300 * MB


@serves
def test_its_health_check_passes(container: Container) -> None:
    podman("healthcheck", "run", container.id)


@serves
def test_overload_is_refused_and_nothing_else_happens(run: Callable[..., Container], photos: list[Path]) -> None:
    running = run(max_queue="2")
    bodies = [photo.read_bytes() for photo in photos]
    result = load.closed(f"{running.client.base_url}/classify", bodies, "image/jpeg", connections=24, seconds=5)
    assert set(result.statuses) == {200, 429}
    assert running.client.post("/classify", content=bodies[0], headers=JPEG).status_code == 200


@serves
def test_a_stop_answers_what_is_in_flight(
    run: Callable[..., Container], photos: list[Path], measured: dict[str, Any]
) -> None:
    running = run(slo_ms="60000", timeout_ms="60000")
    files = [("images", ("x", photo.read_bytes())) for photo in photos]
    files = (files * 64)[: 8 if EMULATED else 64]

    def batch(_: int) -> int:
        return httpx.post(f"{running.client.base_url}/classify_batch", files=files, timeout=60).status_code

    with ThreadPoolExecutor(6) as pool:
        answers = pool.map(batch, range(6))
        assert eventually(lambda: running.client.get("/model").json()["runner"]["batcher"]["queue"] > 10, 10 * SLACK)
        start = time.monotonic()
        podman("stop", "--time=30", running.id)
        took = time.monotonic() - start
        # What five seconds are not enough for is 503, and an emulated processor takes as long for a few images.
        assert set(answers) <= ({200, 503} if EMULATED else {200})
    assert podman("inspect", running.id, "--format", "{{.State.ExitCode}}") == "0"
    measured["stop_under_load_s"] = round(took, 1)
    assert EMULATED or took < 10


@serves
def test_a_stop_does_not_wait_for_a_client_that_trickles(
    run: Callable[..., Container], measured: dict[str, Any]
) -> None:
    running = run()
    url = running.client.base_url
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 1000\r\n\r\nabc"
    with socket.create_connection((url.host, url.port)) as connection:
        connection.sendall(head)
        time.sleep(0.5)
        start = time.monotonic()
        podman("stop", "--time=30", running.id)
        took = time.monotonic() - start
        answer = connection.recv(1 << 16)
    assert took < 10 * SLACK
    assert EMULATED or answer.startswith(b"HTTP/1.1 503")
    measured["stop_trickling_s"] = round(took, 1)


@serves
def test_a_killed_worker_is_seen_by_the_probe_and_replaced(
    run: Callable[..., Container], photos: list[Path], measured: dict[str, Any]
) -> None:
    running = run()
    supervisor, worker = running.processes()
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(httpx.TransportError):
        running.client.get("/livez", timeout=0.5 * SLACK)
    body = photos[0].read_bytes()

    def answers() -> bool:
        try:
            return running.client.post("/classify", content=body, headers=JPEG, timeout=2 * SLACK).status_code == 200
        except httpx.TransportError:
            return False

    start = time.monotonic()
    assert eventually(answers, 10 * SLACK)
    measured["worker_back_s"] = round(time.monotonic() - start, 1)
    assert supervisor.is_running()
    assert worker.pid not in [process.pid for process in running.processes()]


@serves
def test_a_bad_setting_refuses_to_start_in_one_sentence(image: Built) -> None:
    options = (*HARDENED, "--env=RESNET18_WORKERS=none")
    done = subprocess.run(
        ["podman", "run", "--rm", *options, image.name], capture_output=True, text=True, check=False, timeout=60 * SLACK
    )
    assert done.returncode == 1
    assert "RESNET18_WORKERS='none' can't be honoured" in done.stdout + done.stderr


@pytest.mark.skipif(VARIANT != "cpu", reason="the cpu overlay's image")
def test_the_rendered_deployment_runs(
    image: Built, kubectl: Path, limits: Path, photos: list[Path], tmp_path: Path
) -> None:
    overlay = ROOT / "deploy" / "kubernetes" / "overlays" / "cpu"
    rendered = subprocess.run([kubectl, "kustomize", overlay], capture_output=True, text=True, check=True).stdout
    (deployment,) = [item for item in yaml.safe_load_all(rendered) if item["kind"] == "Deployment"]
    spec = deployment["spec"]["template"]["spec"]
    main = spec["containers"][0]
    port = free_port()
    # What a registry and a cluster would do: the image's name, the number of pods, an address.
    main["image"] = f"localhost/{image.name}"
    main["imagePullPolicy"] = "Never"
    main["ports"][0] |= {"hostPort": port, "hostIP": "127.0.0.1"}
    deployment["spec"]["replicas"] = 1
    manifest = tmp_path / "deployment.yaml"
    manifest.write_text(yaml.safe_dump(deployment))
    try:
        podman("kube", "play", str(manifest), CONTAINERS_CONF=str(limits))
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            assert eventually(partial(is_ready, client), 30), podman("logs", "resnet18-pod-0-resnet18", check=False)
            for photo in photos[:5]:
                assert client.post("/classify", content=photo.read_bytes(), headers=JPEG).status_code == 200
            check_error(client.post("/classify", content=b"", headers=JPEG), 400, "unreadable_image")
            assert client.get("/model").json()["runner"]["batcher"]["devices"] == 2, "the limit of two cores is known"
    finally:
        podman("kube", "play", "--down", str(manifest), check=False)


@pytest.mark.skipif(VARIANT != "cpu", reason="the compose file's own image")
def test_the_compose_file_s_replicas_run(image: Built, limits: Path, photos: list[Path]) -> None:
    compose = [sys.executable, "-m", "podman_compose", "-f", str(ROOT / "deploy" / "compose.yaml")]
    env = os.environ | {"CLASSIFIER_IMAGE": f"localhost/{image.name}", "CONTAINERS_CONF": str(limits)}
    # nginx, Prometheus and Grafana would come from a registry.
    up = [*compose, "up", "--detach", "resnet18-1", "resnet18-2"]
    try:
        done = subprocess.run(up, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        for address in ("172.28.18.11", "172.28.18.12"):
            with httpx.Client(base_url=f"http://{address}:3000", timeout=10) as client:
                assert eventually(partial(is_ready, client), 30)
                assert client.post("/classify", content=photos[0].read_bytes(), headers=JPEG).status_code == 200
    finally:
        subprocess.run([*compose, "down", "--timeout", "10"], env=env, capture_output=True, check=False)


def test_the_engine_is_named_where_it_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.image", "--engine", "docker"],
        cwd=ROOT, env=environment() | {"PATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "apt-get install" in done.stderr
