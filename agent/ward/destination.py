"""Where a sender is told to go.

Secret: how people write MLLP addresses.
Promise: what parses can be connected to; what does not is refused with the remedy.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Destination:
    """A host (a name or an address without brackets), a TCP port, and whether MLLP runs inside TLS."""

    host: str
    port: int
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `mllp://host:port`, `mllps://host:port` or `host:port`; IPv6 in brackets.

        An Endpoint's address may be pasted as it is: its parameters concern the listener and are ignored here, and a
        listener on every address (0.0.0.0, ::) is reached on this machine. Raises ValueError with a sentence.
        """
        advice = "write it as mllp://host:port, with IPv6 addresses in brackets"
        try:
            parts = urlsplit(text if "://" in text else f"mllp://{text}")
            port = parts.port
        except ValueError:
            raise ValueError(f"{text!r} is no MLLP address; {advice}") from None
        if parts.scheme not in ("mllp", "mllps"):
            raise ValueError(f"{text!r} is no MLLP address: the scheme is {parts.scheme!r}; {advice}")
        if not parts.hostname or not port:
            raise ValueError(f"{text!r} lacks a host or a port; {advice}")
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(parts.hostname, parts.hostname)
        return cls(host, port, parts.scheme == "mllps")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mllps' if self.tls else 'mllp'}://{host}:{self.port}"


def client_tls(*, ca_file: Path | None = None, cert_file: Path | None = None, insecure: bool = False) -> ssl.SSLContext:
    """TLS for a sender: the system's authorities, or those of `ca_file`; `insecure` takes any certificate.

    `cert_file`: the sender's own certificate and its key. Raises OSError if a file cannot be read or holds none.
    """
    context = ssl.create_default_context(cafile=ca_file)
    if cert_file is not None:
        context.load_cert_chain(cert_file)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
