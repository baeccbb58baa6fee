"""One round of one server: start it, check its answers, load it, stop it."""

from __future__ import annotations

import io
import math
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.bare import MAX_PIXELS
from benchmarks.load import Result, closed
from benchmarks.peers import ROOT, Peer
from harness import http
from harness.http import free_port
from harness.processes import Memory, Tree, Usage, serving
from runners import telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray

WARM_UP_CONNECTIONS = 8
FIRST_ANSWER_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Setting:
    """The settings that all servers of a run share: the artifact, the load, and the number of a peer's processes."""

    artifact: Path
    weights: Path | None
    photos: dict[str, bytes]
    workers: int
    seconds: float
    warm_up: float
    connections: tuple[int, ...]


@dataclass
class Point:
    """One measurement. ``ratio``: throughput by the bare loops' before and after. ``cpu_ms``: the server's CPU
    time a request. ``others_cores``: how many cores anything else on the machine took meanwhile.
    """

    result: Result
    cpu_ms: float
    others_cores: float
    ratio: float = math.nan


@dataclass
class Row:
    """A server and what was measured of it: a point a round for each number of connections."""

    peer: Peer
    agreement: float | None = None
    failure: str | None = None
    points: dict[int, list[Point]] = field(default_factory=dict)
    memory: list[Memory] = field(default_factory=list)


class Reference:
    """The artifact's own answer to each photo, for each of ``engines`` and each kind of preprocessing."""

    def __init__(self, setting: Setting, engines: Iterable[str]) -> None:
        from benchmarks.peers.recipe import Recipe
        from classifier.pixels import decode
        from classifier.preprocessing import Preprocessing

        recipes = {engine: Recipe(setting.artifact, draft=False, engine=engine) for engine in engines}
        plain, draft = recipes["onnxruntime"], Recipe(setting.artifact, draft=True)
        preprocessing: dict[str, Callable[[bytes], NDArray[np.uint8]]] = {
            "plain": lambda photo: plain.pixels(io.BytesIO(photo)),
            "draft": lambda photo: draft.pixels(io.BytesIO(photo)),
            "service": lambda photo: decode(photo, Preprocessing(plain.size, plain.resize), MAX_PIXELS),
        }
        self.probabilities = {
            (engine, kind): [recipe.probabilities(pixels(photo)[None])[0] for photo in setting.photos.values()]
            for engine, recipe in recipes.items()
            for kind, pixels in preprocessing.items()
        }

    def check(self, peer: Peer, answers: list[int]) -> tuple[float, str | None]:
        """The share of photos with equal top-1, and a sentence about wrong answers, None where they are right."""
        expected = list(zip(answers, self.probabilities[peer.engine, peer.pixels], strict=True))
        # By probability, not by class: an int8 artifact gives ties, and either class of a tie is right.
        wrong = sum(bool(p[answer] < p.max() - 1e-6) for answer, p in expected)
        far = sum(bool((p > p[answer]).sum() >= 5) for answer, p in expected)
        share = 1 - wrong / len(answers)
        if peer.same_artifact and wrong:
            return share, f"top-1 differs from the artifact's on {wrong} of {len(answers)} photos"
        if far > 0.1 * len(answers):
            return share, f"top-1 is not among the artifact's top-5 on {far} of {len(answers)} photos"
        return share, None


def measure(row: Row, setting: Setting, reference: Reference) -> list[Point]:
    """Start ``row``'s server, check its answers, load it with each number of connections, and stop it.

    Adds points and memory to ``row``. Returns the points, whose ratio is still to be set; none if its answers are wrong
    (``row.failure``). Raises StartError, ValueError or OSError where the server can't be measured.
    """
    peer, port = row.peer, free_port()
    environment = telemetry.OFF | {"RESNET18_ENGINE": peer.engine}
    if peer.workers is not None:
        environment |= {peer.workers: str(setting.workers)}
    with tempfile.TemporaryDirectory() as scratch:
        folder = ROOT
        if peer.pixels != "service":
            # Peers must not find this repository's service or configuration, only their own module.
            folder = Path(scratch)
            environment |= {
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
                "PEER_ARTIFACT": str(setting.artifact),
                "PEER_WEIGHTS": str(setting.weights or ""),
                "PEER_PORT": str(port),
                "PEER_WORKERS": str(setting.workers),
                "PEER_ENGINE": peer.engine,
                "PEER_DRAFT": "1" if peer.pixels == "draft" else "0",
            }
        command = peer.command(port, setting.workers)
        base = f"http://127.0.0.1:{port}"
        with serving(command, ready=base + peer.ready, environment=environment, folder=folder) as tree:
            first_answer(peer, port, next(iter(setting.photos.values())))
            requests = [peer.request(photo) for photo in setting.photos.values()]
            bodies, content_type = [body for body, _ in requests], requests[0][1]
            url = base + peer.path
            headers = dict(peer.headers)
            closed(url, bodies, content_type, WARM_UP_CONNECTIONS, setting.warm_up, headers)
            if row.agreement is None:
                row.agreement, row.failure = reference.check(peer, ask(peer, port, setting.photos.values()))
                if row.failure:
                    return []
            points = [
                closed_loop(tree, url, bodies, content_type, connections, setting.seconds, headers)
                for connections in setting.connections
            ]
            row.memory.append(tree.memory())
    for connections, point in zip(setting.connections, points, strict=True):
        row.points.setdefault(connections, []).append(point)
    return points


def closed_loop(
    tree: Tree,
    url: str,
    bodies: list[bytes],
    content_type: str,
    connections: int,
    seconds: float,
    headers: Mapping[str, str] | None = None,
) -> Point:
    """One closed loop, with the CPU time that it cost the server."""
    usage = Usage(tree)
    result = closed(url, bodies, content_type, connections, seconds, headers)
    cpu, others = usage.stop()
    return Point(result=result, cpu_ms=1e3 * cpu / max(1, sum(result.statuses.values())), others_cores=others)


def ask(peer: Peer, port: int, photos: Iterable[bytes]) -> list[int]:
    """The class that a server gives to each photo. Raises ValueError where it gives none, or OSError."""
    classes = []
    for photo in photos:
        body, content_type = peer.request(photo)
        url = f"http://127.0.0.1:{port}{peer.path}"
        answer = http.ask_json(url, "POST", body, content_type, headers=dict(peer.headers))
        try:
            if "outputs" in answer:  # of the Open Inference Protocol
                answer = {output["name"]: output["data"][0] for output in answer["outputs"]}
            best = answer["predictions"][0] if "predictions" in answer else answer
            classes.append(int(best["class_id"]))
        except (KeyError, TypeError, IndexError):
            raise ValueError(f"POST {peer.path} was answered without a class_id: {str(answer)[:200]}") from None
    return classes


def first_answer(peer: Peer, port: int, photo: bytes) -> None:
    """Wait until a photo is classified: a ready path may answer before the worker processes have loaded the model."""
    deadline = time.monotonic() + FIRST_ANSWER_TIMEOUT_S
    while True:
        try:
            ask(peer, port, [photo])
            return
        except (ValueError, OSError):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)
