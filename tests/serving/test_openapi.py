"""/docs.json by the letter of OpenAPI, by what schemathesis finds with it, and by a client that is generated from it.

``SCHEMA_CASES`` (40) are tried of each operation, besides those that schemathesis derives from the description.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from openapi_spec_validator import validate

from classifier.errors import STATUS
from classifier.settings import Settings
from serving import openapi
from tests import hostile
from tests.conftest import ROOT, environment

if TYPE_CHECKING:
    from tests.conftest import Server

CASES = os.environ.get("SCHEMA_CASES", "40")
# A status that schemathesis does not take for a refusal of data, and that is one: more images than are allowed.
REFUSED = ["400", "401", "403", "404", "405", "406", "409", "411", "413", "415", "422", "428", "429", "5xx"]
CLIENT = """
import dataclasses, io, json, sys
from client import AuthenticatedClient, Client
from client.api.images import classify, classify_batch
from client.api.model import labels
from client.models import ClassifyBatchFilesBody, ClassifyFilesBody, Error
from client.types import File

url, path = sys.argv[1:]
client = Client(url)

def file():
    return File(payload=open(path, "rb"), file_name="photo.jpg", mime_type="image/jpeg")

form = classify.sync(client=client, body=ClassifyFilesBody(image=file(), top_k=2))
raw = classify.sync(client=client, body=file(), top_k=2)
batch = classify_batch.sync(client=client, body=ClassifyBatchFilesBody(images=[file(), File(io.BytesIO(b"?"), "x")]))
refused = classify.sync(client=client, body=file(), top_k=99)
assert isinstance(refused, Error), refused
print(json.dumps({
    "form": form.to_dict(), "raw": raw.to_dict(), "batch": batch.to_dict(), "refused": refused.to_dict(),
    "labels": labels.sync(client=client).to_dict(),
}))
"""


def described(classes: int = 10, keyed: bool = False, **settings: Any) -> dict[str, Any]:
    spec: dict[str, Any] = openapi.document(Settings(**settings), classes, keyed).asdict()
    return spec


def run(*command: str, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment() | (env or {}), capture_output=True, text=True
    )
    # Requests that it found something with are printed whole.
    shown = "\n".join(line[:300] for line in (done.stdout + done.stderr).splitlines())
    assert done.returncode == 0, shown
    return done.stdout


def fuzz(folder: Path, server: Server, *options: str) -> Counter[tuple[str, int]]:
    """How many answers of each path and status there were, when schemathesis had found nothing."""
    config, answers = folder / "schemathesis.toml", folder / "answers"
    hooks, statuses = ROOT / "tests" / "schema_hooks.py", json.dumps(REFUSED)
    config.write_text(f'hooks = "{hooks}"\n[checks.negative_data_rejection]\nexpected-statuses = {statuses}\n')
    command = ["-m", "schemathesis.cli", "--config-file", str(config), "run", f"{server.url}/docs.json"]
    run(
        *command, "--checks", "all", "--continue-on-failure", *options, cwd=folder, env={"SCHEMA_ANSWERS": str(answers)}
    )
    return Counter((path, status) for path, status in map(json.loads, answers.read_text().splitlines()))


def test_it_is_valid_and_the_server_s_own(server: Server) -> None:
    spec = server.client.get("/docs.json").json()
    validate(spec)
    assert spec == described(max_images=4, max_body_bytes=3_000_000, max_pixels=4_000_000)


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("classes", [2, 1000])
def test_it_is_valid_whatever_is_set(classes: int, keyed: bool) -> None:
    spec = described(classes, keyed, rate_limit=5, open_paths="/livez,/metrics")
    validate(spec)
    (top_k, *_) = spec["paths"]["/classify"]["post"]["parameters"]
    assert top_k["schema"]["maximum"] == classes


def test_the_level_is_described_where_there_are_groups() -> None:
    spec: dict[str, Any] = openapi.document(Settings(), 10, False, grouped=True).asdict()
    validate(spec)
    names = {one["name"]: one["schema"] for one in spec["paths"]["/classify"]["post"]["parameters"]}
    assert names["level"]["enum"] == ["class", "group"]
    assert "level" not in {one["name"] for one in described()["paths"]["/classify"]["post"]["parameters"]}


def test_every_status_of_an_error_is_described() -> None:
    """Of paths and methods that are described neither 404 nor 405 can come."""
    spec = described(keyed=True, rate_limit=5)
    told = {int(status) for path in spec["paths"].values() for one in path.values() for status in one["responses"]}
    assert told == {200, *STATUS.values()} - {404, 405}
    for response in spec["components"]["responses"].values():
        assert all(STATUS[code] for code in response["description"].split(" or "))


def test_keys_and_limits_are_told_of_the_paths_that_have_them() -> None:
    spec = described(keyed=True, rate_limit=5)
    assert set(spec["components"]["securitySchemes"]) == {"bearer", "key"}
    asked, opened = (spec["paths"][path]["get"] for path in ("/metrics", "/readyz"))
    assert asked["security"] == [{"bearer": []}, {"key": []}]
    assert {"401", "429"} <= set(asked["responses"])
    assert opened["security"] == []
    assert not {"401", "429"} & set(opened["responses"])
    assert "401" not in described()["paths"]["/classify"]["post"]["responses"]


def test_schemathesis_finds_nothing(server: Server, tmp_path: Path) -> None:
    # With a seed: of forty random cases none may be refused for its parameters.
    answers = fuzz(tmp_path, server, "--max-examples", CASES, "--seed", "1")
    print(answers.total(), dict(answers))  # noqa: T201
    for path in ("/classify", "/classify_batch"):
        assert {200, 422} <= {status for its, status in answers if its == path}
        assert answers[path, 200] >= 10
    assert {"/model", "/labels", "/livez", "/readyz", "/healthz", "/metrics"} <= {path for path, _ in answers}


def test_a_generated_client_classifies(server: Server, tmp_path: Path) -> None:
    (tmp_path / "docs.json").write_text(server.client.get("/docs.json").text)
    (tmp_path / "config.yaml").write_text("post_hooks: []\n")
    image = tmp_path / "image.jpg"
    image.write_bytes(hostile.encode(hostile.picture(), "JPEG"))
    generate = "generate --path docs.json --meta none --output-path client --config config.yaml"
    run("-m", "openapi_python_client", *generate.split(), cwd=tmp_path)
    told = json.loads(run("-c", CLIENT, server.url, str(image), cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}))
    assert told["form"]["predictions"] == told["raw"]["predictions"]
    assert len(told["form"]["predictions"]) == 2
    good, broken = told["batch"]["results"]
    assert len(good["predictions"]) == 3
    assert broken["error"]["code"] == "unsupported_media_type"
    assert told["refused"]["error"]["code"] == "invalid_parameter"
    assert told["labels"]["en"][3] == "cat"
