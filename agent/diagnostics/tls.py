"""Whether the server proves who it is, and how long it still can.

Secret: how a handshake fails, and what the certificate itself says when it is not believed: it is then fetched once
more without belief, and nothing is sent to whoever showed it.
Promise: who issued the certificate is named, so that a firewall that looks into TLS is recognised; expiry is told 30
days before. Nothing is said here of a server that cannot be reached at all.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from agent.diagnostics.check import INCOMPLETE, Looked, NotLooked, Outcome
from agent.diagnostics.host import Host, Route
from agent.errors import ConfigError, Finding, LinkError, Severity
from agent.net.certificate import Certificate, read_certificate
from agent.net.tls import client_context

CONNECT_WITHIN_S: Final = 3.0
SOON: Final = timedelta(days=30)
# X509_V_ERR_… of OpenSSL's x509_vfy.h
_NOT_YET_VALID, _EXPIRED, _WRONG_NAME, _WRONG_ADDRESS = 9, 10, 62, 64
_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
_TOO_OLD = ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "NO_PROTOCOLS_AVAILABLE", "VERSION_TOO_LOW")


@dataclass(frozen=True, slots=True)
class _Met:
    """What one handshake came to. `certificate` None: it cannot be read."""

    version: str
    certificate: Certificate | None


async def look(host: Host) -> Outcome:
    route = host.route
    if route is None:
        return NotLooked(INCOMPLETE)
    if not route.secure:
        return Looked("not used: the server's address begins with http://")
    try:
        context = client_context(route.ca_file)
        met = await _meet(route, context)
    except ConfigError as error:
        return Looked("", error.findings)
    except (LinkError, TimeoutError):
        return NotLooked("there is no connection to the server")
    except ssl.SSLCertVerificationError as error:
        return Looked("", (await _disbelieved(route, error, host.now()),))
    except ssl.SSLError as error:
        return Looked("", (_broken(route, error.reason or ""),))
    except OSError as error:
        return Looked("", (_cut(route, error),))
    return _believed(route, met, host.now())


async def _meet(route: Route, context: ssl.SSLContext) -> _Met:
    """Connect, shake hands and leave. Raises LinkError and TimeoutError for the way there, OSError for the rest."""
    async with asyncio.timeout(CONNECT_WITHIN_S):
        connection = await route.dial(route.host, route.port)
    return await _shake_hands(connection, context, route.host)


class _Ear(asyncio.Protocol):
    """Hears nothing but the end."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()


async def _shake_hands(connection: socket.socket, context: ssl.SSLContext, name: str) -> _Met:
    ear = _Ear()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(lambda: ear, sock=connection, ssl=context, server_hostname=name)
    try:
        tls = transport.get_extra_info("ssl_object")
        return _Met(tls.version() or "TLS", read_certificate(tls.getpeercert(binary_form=True)))
    finally:
        transport.abort()
        await ear.gone.wait()


def _believed(route: Route, met: _Met, now: datetime) -> Looked:
    certificate = met.certificate
    if certificate is None:
        return Looked(f"{met.version}, with a certificate that is believed")
    until = certificate.until
    text = f"{met.version}, certificate by {certificate.issuer}, valid until {until:%Y-%m-%d}"
    left = until - now
    if left > SOON:
        return Looked(text)
    ends = f"the certificate of {route.host} expires on {until:%Y-%m-%d}, in {max(left.days, 0)} days"
    remedy = "have the server's operator renew it; without it no message is delivered"
    return Looked(text, (Finding("tls.server-expiring", Severity.WARNING, ends, remedy, route.place),))


async def _disbelieved(route: Route, error: ssl.SSLCertVerificationError, now: datetime) -> Finding:
    certificate = await _shown(route)
    clock = f"this host's clock says {now:%Y-%m-%d %H:%M} UTC"
    set_clock = "or set this host's clock, if it is wrong"
    owner = f"the certificate of {route.host}"
    issuer = f" was issued by {certificate.issuer}, which this host does not believe" if certificate else ""
    match error.verify_code:
        case code if code == _EXPIRED:
            when = f" on {certificate.until:%Y-%m-%d %H:%M} UTC" if certificate else ""
            if certificate is not None and certificate.until > now:
                owner, when = f"a certificate in the chain of {route.host}", ""
            text = f"{owner} expired{when}; {clock}"
            return _finding(route, "server-expired", text, f"have the server's operator renew it, {set_clock}")
        case code if code == _NOT_YET_VALID:
            since = f" before {certificate.since:%Y-%m-%d %H:%M} UTC" if certificate else " yet"
            text = f"{owner} is not valid{since}; {clock}"
            return _finding(route, "server-not-yet-valid", text, f"wait until it is, {set_clock}")
        case code if code in (_WRONG_NAME, _WRONG_ADDRESS):
            names = f", but for {certificate.names}" if certificate else ""
            text = f"the certificate shown is not for {route.host}{names}"
            remedy = "write server.base_url with a name that the certificate has, or have the certificate corrected"
            return _finding(route, "server-name", text, remedy)
    if certificate is not None and certificate.vouches_for_itself:
        issuer = f" is signed by nobody but itself ({certificate.issuer}), and this host does not believe it"
    text = f"{owner}{issuer}" if issuer else f"{owner} is not believed: {error.verify_message}"
    return _finding(route, "server-untrusted", text, _trust(route))


def _trust(route: Route) -> str:
    inspected = "if a firewall or proxy of the hospital looks into TLS, or the server's authority is the hospital's own"
    if route.ca_file is None:
        return f"{inspected}: put that authority's certificate (PEM) into a file and name it in server.ca_file"
    return (
        f"{inspected}: add that authority's certificate (PEM) to {route.ca_file}; else have the server send its chain"
    )


async def _shown(route: Route) -> Certificate | None:
    """The certificate as it is shown, believed or not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        return (await _meet(route, context)).certificate
    except (LinkError, OSError):  # OSError: TimeoutError and SSLError are of it
        return None


def _broken(route: Route, reason: str) -> Finding:
    if reason in _NOT_TLS:
        text = f"{route.place} answers, and not in TLS"
        return _finding(route, "not-tls", text, "check the port in server.base_url; a plain server is http://")
    if reason in _TOO_OLD:
        text = f"{route.place} speaks only a TLS that is older than 1.2"
        return _finding(route, "too-old", text, "have the server, or the firewall before it, speak TLS 1.2 or newer")
    text = f"no agreement on TLS with {route.place}" + (f" ({reason.lower().replace('_', ' ')})" if reason else "")
    return _finding(route, "no-agreement", text, "check that the server speaks TLS 1.2 or newer on this port")


def _cut(route: Route, error: OSError) -> Finding:
    text = f"{route.place} ended the connection in the handshake ({error.strerror or 'closed'})"
    return _finding(route, "cut", text, f"ask who runs the firewall whether it lets TLS to {route.host} pass")


def _finding(route: Route, what: str, text: str, remedy: str) -> Finding:
    return Finding(f"tls.{what}", Severity.ERROR, text, remedy, route.place)
