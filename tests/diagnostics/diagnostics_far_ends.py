"""What the checks look at in the tests: a host as settings describe it, servers that show what they are told to.

Secret: how a certificate of any age, name and issuer is made, and how a server lies about its time.
Promise: everything is on loopback and in the test's own folder.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.diagnostics.check import Looked, Outcome
from agent.diagnostics.host import Away, Daemon, Host, Running
from agent.errors import AgentError, ConfigError, Finding
from agent.plan.lastgood import save_last_good
from agent.settings import Settings, read
from agent.status import ChannelStatus, ServerStatus, SpoolStatus, StatusReport

AGENT_ID = "6d1a7b50-3b1c-4a0e-9c59-1b1f0d2a7c11"
SECRET = "tops3cret-client-secret"
NOT_RUNNING = Away(AgentError("the agent is not running", hint="start it"))
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def a_host(
    folder: Path,
    base_url: str | None = "http://127.0.0.1:1/",
    *,
    daemon: Daemon = NOT_RUNNING,
    environ: Mapping[str, str] | None = None,
    **given: object,
) -> Host:
    """A host with these settings; `base_url` None: nothing at all is configured."""
    values: dict[str, object] = {"data_dir": str(folder / "data"), "diagnostics.listen": "off", **given}
    if base_url is not None:
        values = {"base_url": base_url, "client_id": "me", "client_secret": SECRET, "agent_id": AGENT_ID} | values
    env = dict(environ or {}) | {"HOME": str(folder)}
    try:
        settings = Settings.load(values, env, folder)
    except ConfigError:
        settings = None
    return Host.of(read(values, env, folder), settings, env, daemon)


def a_report(*channels: ChannelStatus, findings: tuple[Finding, ...] = (), **more: Any) -> StatusReport:
    """The status of a daemon: this process, unless told otherwise."""
    facts: dict[str, Any] = {"version": "0.1.0", "uptime_seconds": 60.0, "pid": os.getpid(), **more}
    return StatusReport(
        running=True,
        server=ServerStatus("http://127.0.0.1:1/", live=True),
        channels=channels,
        clients=(),
        spool=SpoolStatus("/data/spool.db", 4096),
        findings=findings,
        **facts,
    )


def running(*channels: ChannelStatus, **more: Any) -> Running:
    return Running(a_report(*channels, **more))


def a_channel(name: str, port: int, state: str = "listening", **more: Any) -> ChannelStatus:
    return ChannelStatus(name, f"mllp://127.0.0.1:{port}", "mllp", state, **more)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def a_stranger(port: int = 0) -> Iterator[tuple[int, int]]:
    """A process of its own that listens on a port of loopback: (port, process id)."""
    script = (
        "import socket, sys\n"
        f"s = socket.create_server(('127.0.0.1', {port}))\n"
        "print(s.getsockname()[1], flush=True)\n"
        "sys.stdin.read()"
    )
    words = [sys.executable, "-c", script, f"--password={SECRET}"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline()), process.pid
        finally:
            process.kill()


def keep(host: Host, channels: Mapping[str, str], agent_id: str = AGENT_ID) -> None:
    """Let these channels, by their addresses, be the last good configuration."""
    agent = {
        "resourceType": "Agent",
        "id": agent_id,
        "name": "ward",
        "status": "active",
        "channel": [{"name": name, "endpoint": {"reference": f"Endpoint/{name}"}} for name in channels],
    }
    endpoints = {
        f"Endpoint/{name}": {"resourceType": "Endpoint", "id": name, "status": "active", "address": address}
        for name, address in channels.items()
    }
    host.paths.data_dir.mkdir(exist_ok=True)
    save_last_good(host.paths.last_good, agent, endpoints, datetime(2026, 11, 22, 3, 4, tzinfo=UTC))


def findings_of(outcome: Outcome) -> dict[str, Finding]:
    """By their codes; each has a remedy."""
    assert isinstance(outcome, Looked)
    assert all(finding.remedy for finding in outcome.findings)
    return {finding.code: finding for finding in outcome.findings}


# ---- certificates


@dataclass(frozen=True)
class Authority:
    """Somebody who issues certificates. `file` holds its own one, as PEM."""

    folder: Path
    name: x509.Name
    key: ec.EllipticCurvePrivateKey
    file: Path

    @classmethod
    def of(cls, folder: Path, called: str) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, called)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=3000))
            .not_valid_after(now + timedelta(days=3000))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(_signs(), critical=True)
            .sign(key, hashes.SHA256())
        )
        file = folder / f"{called.replace(' ', '-')}.pem"
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return cls(folder, name, key, file)

    def issue(self, called: str = "localhost", *, since_days: int = -1, until_days: int = 365) -> Path:
        """A PEM file with a certificate for this name and its key; begin and end in days from today."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        names: list[x509.GeneralName] = [x509.DNSName(called), x509.IPAddress(ipaddress.ip_address("192.0.2.7"))]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, called)]))
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=since_days))
            .not_valid_after(now + timedelta(days=until_days))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        file = self.folder / f"{called}-{since_days}-{until_days}.pem"
        file.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        file.chmod(0o600)
        return file


def _signs() -> x509.KeyUsage:
    """What an authority's key is for: Python 3.13 insists on it (RFC 5280 §4.2.1.3)."""
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def server_side(file: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


# ---- servers


@asynccontextmanager
async def a_server(
    speak: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Something that listens on loopback; its port."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            await speak(reader, writer)
        except (OSError, EOFError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        for writer in writers:
            writer.transport.abort()
        server.close()
        await server.wait_closed()


async def silence(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Take everything and say nothing."""
    while await reader.read(65_536):
        pass


async def plain_words(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer whatever comes in plain HTTP."""
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()
    await silence(reader, writer)


@asynccontextmanager
async def an_http_server(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Every request goes to `handler`; the base URL."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield f"http{'s' if tls else ''}://localhost:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()
