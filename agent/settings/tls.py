"""The certificates that this host keeps for its channels and remotes, as its `[tls.NAME]` tables name them.

Secret: which files such a table leads to, and what a person should hear about them before they are needed.
Promise: whatever is wrong with a file is a warning and never stops the start, since only mllps:// needs it; nothing of
a file's content is told.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from agent.errors import Finding
from agent.settings import values as parse
from agent.settings.files import check_mode, warning
from agent.settings.shape import Key, NamedSection
from agent.spec import TlsSpec

_KEY_MARK = b"PRIVATE KEY-----"  # of PKCS #1, PKCS #8 and SEC 1 alike (RFC 7468 §10, RFC 5915 §4)
_LARGEST_PEM_BYTES = 1024 * 1024

TLS = NamedSection(
    "tls",
    (
        "Certificates for mllps:// channels and remotes: as many of these tables as are needed, each with a name of",
        "its own (at most 40 letters, digits, - and _). A channel takes the table that tls=NAME in its address says,",
        "else the one with the channel's name, else [tls.default]; a remote the one that tls=NAME says, else",
        "[tls.default], else none. The environment has the name in capitals and _ for -: a variable",
        "AGENT_TLS_LAB_2_CA_FILE belongs to [tls.lab-2] or [tls.lab_2] of a file, and makes a table lab_2 if no file",
        "has one.",
    ),
    "main",
    (
        Key(
            "certificate_file",
            parse.path,
            "certificate that is shown, with the chain behind it (PEM)",
            unset="none; a channel that listens needs one",
            example="/etc/onprem-agent/tls/main.pem",
        ),
        Key(
            "key_file",
            parse.path,
            "its private key (PEM), mode 0600",
            unset="the key stands in certificate_file",
            example="/etc/onprem-agent/tls/main.key",
        ),
        Key(
            "key_password_file",
            parse.path,
            "file that holds nothing but the password of the private key, mode 0600",
            unset="the key has no password",
            example="/etc/onprem-agent/tls/main.password",
        ),
        Key(
            "ca_file",
            parse.path,
            "authorities (PEM): a sender must show a certificate of one of them; they are believed when we connect",
            unset="senders need no certificate; the operating system's authorities alone are believed when we connect",
            example="/etc/onprem-agent/tls/hospital-ca.pem",
        ),
    ),
)


def tls_specs(tables: Iterable[str], values: Mapping[str, object]) -> dict[str, TlsSpec]:
    """By the name that each table has of its own; a value that was refused counts as not given."""
    specs: dict[str, TlsSpec] = {}
    for table in tables:
        own = table.removeprefix(f"{TLS.name}.")
        specs[own] = TlsSpec(
            own,
            certificate=_path(values.get(f"{table}.certificate_file")),
            key=_path(values.get(f"{table}.key_file")),
            key_password_file=_path(values.get(f"{table}.key_password_file")),
            client_ca=_path(values.get(f"{table}.ca_file")),
        )
    return specs


def look_at(specs: Mapping[str, TlsSpec], sources: Mapping[str, str]) -> list[Finding]:
    """What is missing, cannot be read, is open to others, or has no use."""
    findings: list[Finding] = []
    for spec in specs.values():
        if spec.certificate is None and (spec.key is not None or spec.key_password_file is not None):
            text, remedy = "a key without a certificate has no use", "set certificate_file, or remove the key"
            findings.append(warning("settings.tls-certificate", f"{TLS.name}.{spec.name}", text, remedy))
        for leaf, path, holds in (
            ("certificate_file", spec.certificate, ""),
            ("key_file", spec.key, "a private key"),
            ("key_password_file", spec.key_password_file, "the password of a private key"),
            ("ca_file", spec.client_ca, ""),
        ):
            if path is not None:
                name = f"{TLS.name}.{spec.name}.{leaf}"
                findings += _look_at_file(path, f"{name} ({sources[name]})", spec.name, holds)
    return list(dict.fromkeys(findings))  # several tables may share a key


def _look_at_file(path: Path, where: str, own: str, holds: str) -> list[Finding]:
    findings: list[Finding] = []
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
            return [_unusable(f"{path} is no file", where, own)]
        with path.open("rb") as file:
            content = file.read(_LARGEST_PEM_BYTES)
        if holds or _KEY_MARK in content:
            check_mode(path, findings, holds or "a private key")
    except OSError as failed:
        findings.append(_unusable(f"{path} cannot be read: {failed.strerror}", where, own))
    return findings


def _unusable(text: str, where: str, own: str) -> Finding:
    remedy = f"put the file where the agent may read it, or correct the path; mllps:// with [tls.{own}] needs it"
    return warning("settings.tls-file", where, text, remedy)


def _path(value: object) -> Path | None:
    return value if isinstance(value, Path) else None
