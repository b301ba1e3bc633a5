"""Decide whose certificates we believe.

Secret: where the operating system keeps its trusted authorities, and which TLS versions are too old to use.
Promise: a context believes what the host believes, plus one file of the operator's, and never less than TLS 1.2.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import truststore

from agent.errors import ConfigError, Finding, Severity


def client_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """Verify servers by the operating system's store and by `ca_file` (PEM). Raises ConfigError naming the file."""
    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=str(ca_file))
        except ssl.SSLError as error:
            raise ConfigError([_unfit(ca_file, "holds no readable PEM certificate")]) from error
        except OSError as error:
            raise ConfigError([_unfit(ca_file, error.strerror or "cannot be read")]) from error
    return context


def _unfit(ca_file: Path, what: str) -> Finding:
    return Finding(
        code="tls.ca-file",
        severity=Severity.ERROR,
        text=f"the CA file {ca_file} cannot be used: {what}",
        remedy="name a readable PEM file that begins with -----BEGIN CERTIFICATE-----, or leave the setting out",
        where="server.ca_file",
    )
