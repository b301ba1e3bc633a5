"""What the tests of the net room share: a certificate, an HTTP server, a CONNECT proxy."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from net_far_ends import ConnectProxy, Handler, StartHttp


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for localhost and 127.0.0.1, and its key, as PEM files."""
    folder = tmp_path_factory.mktemp("tls")
    crt, key = folder / "server.crt", folder / "server.key"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    command += f" -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout {key} -out {crt}"
    subprocess.run(command.split(), check=True, capture_output=True)
    return crt, key


@pytest.fixture
def server_tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    """What a server needs to speak TLS with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@pytest.fixture
async def start_http() -> AsyncIterator[StartHttp]:
    async with AsyncExitStack() as servers:

        async def start(handler: Handler, tls: ssl.SSLContext | None = None) -> str:
            application = web.Application()
            application.router.add_route("*", "/{path:.*}", handler)
            server = TestServer(application, scheme="https" if tls else "http")
            await server.start_server(ssl=tls)
            servers.push_async_callback(server.close)
            return f"{server.scheme}://localhost:{server.port}/"

        yield start


@pytest.fixture
async def connect_proxy() -> AsyncIterator[ConnectProxy]:
    async with ConnectProxy() as proxy:
        yield proxy
