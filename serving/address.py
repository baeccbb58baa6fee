"""The address to serve on: one that can't be used is an error of one sentence, before anything starts."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import ssl
import tempfile
from pathlib import Path

import click
import psutil
from _bentoml_impl.server import serving
from bentoml._internal.configuration.containers import BentoMLContainer

CHOOSE = "choose another with make serve PORT=3001, or bentoml serve --port 3001"


class AddressError(Exception):
    """The service can't listen on the address that was asked for; the message says why, and what to set."""


def check_command(dedicated: bool) -> None:
    """Raise AddressError if the options of BentoML's command line can't be honoured; do nothing outside of it.

    ``dedicated``: whether a runner starts beside the API workers.
    """
    context = click.get_current_context(silent=True)
    options = {} if context is None else context.params
    if dedicated:
        check_folder()
        if options.get("development"):
            raise AddressError("--development starts no runner; leave it out, or set RESNET18_PLACEMENT=inline")
    if "port" in options:
        host, port = options.get("host"), options["port"]
        check(
            BentoMLContainer.http.host.get() if host is None else host,
            BentoMLContainer.http.port.get() if port is None else port,
        )
        certificate = options.get("ssl_certfile") or BentoMLContainer.ssl.certfile.get()
        key = options.get("ssl_keyfile") or BentoMLContainer.ssl.keyfile.get()
        if certificate:
            password = options.get("ssl_keyfile_password") or BentoMLContainer.ssl.keyfile_password.get()
            folder = Path(options.get("working_dir") or ".")
            check_certificate(folder / certificate, folder / key if key else None, password or "")


def check(host: str, port: int) -> None:
    """Raise AddressError if ``host`` is no address of this machine, or ``port`` is not free."""
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        raise AddressError(
            f"host {host!r} is no IP address; set HOST=127.0.0.1 (--host) for this machine alone, "
            "0.0.0.0 for every address of it, or one of them"
        ) from None
    # The system would take it modulo 65536.
    if not 0 <= port <= 65535:
        raise AddressError(f"port {port} is not between 0 (any that is free) and 65535; {CHOOSE}")
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise AddressError(_why(error, host, port)) from None


def check_certificate(certificate: Path, key: Path | None, password: str) -> None:
    """Raise AddressError if ``certificate`` and ``key`` are no pair of PEM files. None: one file holds both."""
    try:
        for path in (certificate, key or certificate):
            path.open("rb").close()
        # Without even an empty password OpenSSL would ask the terminal for one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password)
    except ssl.SSLError as error:
        pair = f"{str(certificate)!r} (--ssl-certfile) and {str(key or certificate)!r} (--ssl-keyfile)"
        raise AddressError(f"{pair} are no PEM certificate and its key: {error.reason or error}") from None
    except OSError as error:
        raise AddressError(f"the certificate or its key can't be read, {error.filename!s}: {error.strerror}") from None


def check_folder() -> None:
    """Raise AddressError if a dedicated runner's socket would have too long a path in the folder of temporary files."""
    folder = tempfile.gettempdir()
    # BentoML makes a folder with a random name there, and in it a socket that is named by an object's number.
    longest = serving.MAX_AF_UNIX_PATH_LENGTH - len(f"/bentoml-uds-12345678/{id(folder)}.sock") - 1
    if len(folder) > longest:
        raise AddressError(
            f"TMPDIR={folder!r} is too long for the runner's socket, by {len(folder) - longest} characters; "
            "set TMPDIR=/tmp"
        )


def url(host: str, port: int, scheme: str = "http") -> str:
    """The URL at which a browser on this machine reaches a service that listens on ``host`` and ``port``."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://[{here}]:{port}" if ":" in here else f"{scheme}://{here}:{port}"


def _why(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is taken{_holder(port)}; {CHOOSE}"
    if error.errno == errno.EACCES:
        return f"port {port} is for the system's administrator; {CHOOSE}"
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return f"host {host!r} is no address of this machine; set HOST=127.0.0.1 (--host), or 0.0.0.0 for all it has"
    return f"{url(host, port)} can't be listened on: {error.strerror}; {CHOOSE}"


def _holder(port: int) -> str:
    """The process that listens on ``port``, in brackets; empty where this user may not know it."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
            if listens and connection.pid is not None:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    return ""
