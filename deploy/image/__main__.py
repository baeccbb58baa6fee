"""`python -m deploy.image`, or `make image`: a bento of the store's model, and an image of that bento.

The context is made here because the bento in the store does not hold its model; the build itself is one command of
docker, podman or buildah, with the Containerfile beside this file.
"""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from platform import machine

import click

from deploy.variants import VARIANTS, Variant

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
ENGINES = ("docker", "podman", "buildah")
INSTALL = (
    "apt-get install --no-install-recommends podman buildah runc netavark aardvark-dns iptables catatonit mmdebstrap"
)
BASE = "python:3.11-slim-bookworm"
DEBIAN = "resnet18-base:bookworm"
# Podman asks for a million files and all processes, which a sandboxed host refuses.
LIMITS = ("--ulimit=nofile=16384:16384", "--ulimit=nproc=4096:4096")
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


class ImageError(click.ClickException):
    """The image can't be built; the message says what to install or to set."""


def find_engine(asked: str | None) -> str:
    """The container engine to build with. Raises ImageError."""
    wanted = ENGINES if asked is None else (asked,)
    # Docker's client without its daemon is a command that can't build.
    usable = [name for name in wanted if shutil.which(name) and _succeeds(name, "info")]
    if not usable:
        raise ImageError(f"none of {', '.join(wanted)} is installed and running here; on Debian: {INSTALL}")
    return usable[0]


def build_bento(variant: Variant) -> str:
    """The tag of a new bento, which carries the model that the variant serves best. Raises ImageError."""
    from classifier import settings
    from runners import artifacts

    os.environ["RESNET18_RUNTIME"] = variant.runtime
    try:
        model = artifacts.choose(settings.read(), "cuda:0" if variant.device == "cuda" else "cpu")
    except (settings.SettingsError, artifacts.ArtifactError) as error:
        raise ImageError(str(error)) from None
    # Whatever serves in the image, it is packed on this machine, which may have no GPU.
    env = os.environ | {"RESNET18_MODEL": model, "RESNET18_DEVICE": "cpu"}
    command = [sys.executable, "-m", "bentoml", "build", "-f", str(ROOT / variant.bentofile), "-o", "tag", str(ROOT)]
    built = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    if built.returncode:
        raise ImageError(f"bentoml build failed:\n{built.stdout}")
    return built.stdout.rpartition("__tag__:")[2].strip()


def write_context(tag: str, variant: Variant, index: str, folder: Path) -> None:
    """The build's context in ``folder``: the exported bento and its lock, readable by everyone.

    ``index``: of what the lock leaves out; a folder's wheels are copied.
    """
    import bentoml

    archive = folder / "bento.tar"
    bentoml.bentos.export_bento(tag, str(archive), "tar")
    with tarfile.open(archive) as packed:
        packed.extractall(folder / "bento", filter=_public)
    archive.unlink()
    requirements = folder / "requirements"
    requirements.mkdir()
    shutil.copy(folder / "bento" / "src" / "requirements" / f"{variant.lock}.lock", requirements / "runtime.lock")
    if variant.indexed:
        lines = (ROOT / "requirements" / f"{variant.lock}.txt").read_text().splitlines()
        (pin,) = (line for line in lines if line.startswith(f"{variant.indexed}=="))
        (requirements / "indexed.txt").write_text(f"{pin}\n")
        for wheel in Path(index).glob(f"{variant.indexed}-*.whl") if Path(index).is_dir() else ():
            shutil.copy(wheel, requirements)


def _public(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
    """BentoML makes model folders that only their owner may read, and the image's user is another."""
    kept = tarfile.data_filter(member, path)
    return kept.replace(mode=0o755 if member.isdir() else 0o644, deep=False)


def find_base(engine: str, base: str | None, platform: str | None) -> str:
    """The image to build upon: ``base``, or BASE, or one from Debian's packages where BASE can't be had."""
    if base not in (None, "debian"):
        return str(base)
    if base is None:
        # An engine keeps one architecture of a name, so what is here for another one doesn't count.
        if (platform is None and _is_here(engine, BASE)) or _succeeds(engine, "pull", *_for(platform), BASE):
            return BASE
        if os.geteuid() or not shutil.which("mmdebstrap"):
            raise ImageError(
                f"{BASE} can't be pulled; name a base image that is here with BASE=..., or, as root with mmdebstrap "
                "installed, make one from Debian's packages with BASE=debian"
            )
        click.echo(f"{BASE} can't be pulled: building upon Debian's own Python 3.11 instead (BASE=debian)", err=True)
    arch = platform.removeprefix("linux/") if platform else {"aarch64": "arm64"}.get(machine(), "amd64")
    name = f"{DEBIAN}-{arch}"
    if not _is_here(engine, name):
        with tempfile.TemporaryDirectory() as folder:
            made = subprocess.run([HERE / "debian.sh", arch, f"{folder}/base.tar"], stderr=subprocess.PIPE, text=True)
            if made.returncode:
                raise ImageError(f"debian.sh failed:\n{made.stderr[-4000:]}")
            containerfile = Path(folder, "Containerfile")
            containerfile.write_text(
                "FROM scratch\nADD base.tar /\nENV PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8\n"
            )
            run_engine(engine, containerfile, Path(folder), name, _for(platform))
    return name


def run_engine(engine: str, containerfile: Path, context: Path, tag: str, options: list[str]) -> None:
    """Build ``tag``. Raises ImageError."""
    command = [engine, "build", "--file", str(containerfile), "--tag", tag, *options]
    if engine != "docker":
        # HEALTHCHECK is not in the OCI format.
        command += ["--format", "docker", *LIMITS]
    if subprocess.run([*command, str(context)]).returncode:
        raise ImageError(f"{engine} build failed; its output above says why")


def _for(platform: str | None) -> list[str]:
    return ["--platform", platform] if platform else []


def _is_here(engine: str, image: str) -> bool:
    return _succeeds(engine, "inspect", "--type", "image", image)


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


@click.command()
@click.option("--variant", type=click.Choice(list(VARIANTS)), default="cpu", help="What to build; edge is linux/arm64.")
@click.option("--base", help=f"The slim base image with Python 3.11; {BASE}, or debian: made from Debian's packages.")
@click.option("--engine", help=f"One of {', '.join(ENGINES)}; the first that is here.")
@click.option("--torch-index", default="", help="An index, or a folder, of torch's CPU wheels.")
@click.option("--bento", "tag", help="Pack this bento instead of a new one.")
@click.argument("options", nargs=-1)
def main(
    variant: str, base: str | None, engine: str | None, torch_index: str, tag: str | None, options: tuple[str, ...]
) -> None:
    """Build the service's image; OPTIONS go to the engine's build command. The last line is the image's name."""
    import bentoml

    chosen = VARIANTS[variant]
    if chosen.indexed and not torch_index:
        raise ImageError(
            f"VARIANT={variant} needs TORCH_INDEX=..., an index or a folder of {chosen.indexed}'s CPU wheels: "
            "the torch of the default index brings gigabytes of CUDA"
        )
    engine = find_engine(engine)
    upon = find_base(engine, base, chosen.platform)
    bento = bentoml.bentos.get(tag or build_bento(chosen))
    (model,) = bento.info.all_models
    runtime, precision = model.tag.name.split("-")[1:]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    name = f"resnet18:{version}-{variant}-{precision}-{model.tag.version}"
    arguments = {"BASE": upon, "VERSION": name.partition(":")[2], "RUNTIME": runtime, "DEVICE": chosen.device}
    if torch_index and not Path(torch_index).is_dir():
        arguments["TORCH_INDEX"] = torch_index
    command = [f"--build-arg={key}={value}" for key, value in arguments.items()] + _for(chosen.platform)
    if engine != "docker":
        # Packages are fetched with this machine's certificates, which stay out of the image; and all of a bento's
        # images have the same layers, because their files have the bento's time.
        bundle = ssl.get_default_verify_paths().cafile
        command += [f"--volume={bundle}:{BUNDLE}:ro"] if bundle else []
        command += [f"--timestamp={int(bento.info.creation_time.timestamp())}"]
    with tempfile.TemporaryDirectory(prefix="resnet18-image-") as folder:
        write_context(str(bento.tag), chosen, torch_index, Path(folder))
        run_engine(engine, HERE / "Containerfile", Path(folder), name, [*command, *options])
    if not _succeeds(engine, "tag", name, f"resnet18:{variant}"):
        raise ImageError(f"{engine} can't tag {name} as resnet18:{variant}")
    click.echo(name)


if __name__ == "__main__":
    main()
