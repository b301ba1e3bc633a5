"""Decide whose certificates we believe, and which we show.

Secret: where the operating system keeps its trusted authorities, which TLS versions are too old to use, what OpenSSL
means by its refusals of PEM files, and where in a certificate its dates stand.
Promise: a context believes what it was told to believe and never speaks less than TLS 1.2; files that cannot be used
never take away what is in use, and the finding names the file and the remedy.
"""

from __future__ import annotations

import re
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import truststore

from agent.errors import ConfigError, Finding, Severity
from agent.net.certificate import read_certificate
from agent.settings.dpapi import DpapiRefusal
from agent.settings.safekeeping import unwrapped
from agent.spec import TlsSpec

EXPIRING: Final = timedelta(days=30)
_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")  # RFC 7468 §5
_KEY: Final = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----")  # PKCS #1, PKCS #8 and SEC 1 alike
_OTHER_KEY: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH")


def client_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """Verify servers by the operating system's store and by `ca_file` (PEM). Raises ConfigError naming the file."""
    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None and (why := _believe(context, ca_file)):
        remedy = "name a readable PEM file that begins with -----BEGIN CERTIFICATE-----, or leave the setting out"
        text = f"the CA file {ca_file} cannot be used: {why}"
        raise ConfigError([Finding("tls.ca-file", Severity.ERROR, text, remedy, "server.ca_file")])
    return context


def _line_context() -> ssl.SSLContext:
    """As `client_context`, for many short connections: where the host's authorities are one file, it is read once, and
    not for each of them, which takes tens of milliseconds."""
    if _bundle() is None:
        return client_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_default_certs()
    return context


def _bundle() -> Path | None:
    """The file of the host's authorities; None where they are kept otherwise."""
    if sys.platform in ("win32", "darwin"):
        return None
    cafile = ssl.get_default_verify_paths().cafile
    return None if cafile is None else Path(cafile)


class HostTrust:
    """The authorities that this host trusts, for connections on which we show no certificate."""

    def __init__(self) -> None:
        self._seen: object = None
        self._context: ssl.SSLContext | None = None

    @property
    def context(self) -> ssl.SSLContext:
        """For connections that begin from here on."""
        seen = _look(_bundle())
        if self._context is None or seen != self._seen:
            self._seen, self._context = seen, _line_context()
        return self._context


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # no resumption: a sender proves each time who it is, by the certificates that hold at that time
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    return context


def _believe(context: ssl.SSLContext, ca_file: Path) -> str:
    """Believe these authorities too; why not, or nothing."""
    try:
        context.load_verify_locations(cafile=str(ca_file))
    except ssl.SSLError:
        return "holds no readable PEM certificate"
    except OSError as error:
        return error.strerror or "cannot be read"
    return ""


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What the files gave. `begins`, `ends`: when the whole chain of the certificate is valid; `ca_ends`: when the last
    authority ends. None where there is no such certificate."""

    context: ssl.SSLContext
    begins: datetime | None = None
    ends: datetime | None = None
    ca_ends: datetime | None = None


class Identity:
    """One [tls.NAME] in use."""

    def __init__(self, spec: TlsSpec, loaded: _Loaded, seen: tuple[object, ...], *, dials: bool) -> None:
        self.name = spec.name
        self._spec = spec
        self._dials = dials
        self._loaded = loaded
        self._seen = seen
        self._unusable: Finding | None = None

    @classmethod
    def load(cls, spec: TlsSpec, *, dials: bool) -> Identity:
        """Read the files. `dials`: we are the client. Raises ConfigError with all that is wrong, but for dates."""
        seen = _look(*_files_of(spec, dials=dials))  # before they are read: a change meanwhile is noticed, if later
        return cls(spec, _load(spec, dials=dials), seen, dials=dials)

    @property
    def context(self) -> ssl.SSLContext:
        """For connections that begin from here on."""
        return self._loaded.context

    @property
    def not_after(self) -> datetime | None:
        """When the certificate, or the first of the chain behind it, ends; None: there is none to show."""
        return self._loaded.ends

    def refresh(self) -> bool:
        """Read the files again if they have changed; whether another context is in use. Files that cannot be used are
        tried each time: certificate and key are seldom replaced in one moment."""
        seen = _look(*_files_of(self._spec, dials=self._dials))
        if seen == self._seen and self._unusable is None:
            return False
        self._seen = seen
        try:
            self._loaded = _load(self._spec, dials=self._dials)
        except ConfigError as error:
            first = error.findings[0]
            text = f"the changed files cannot be used, the earlier ones stay in use: {first.text}"
            self._unusable = Finding("tls.not-reloaded", Severity.ERROR, text, first.remedy, first.where)
            return False
        self._unusable = None
        return True

    def findings(self, now: datetime) -> list[Finding]:
        """What somebody has to do, or soon will."""
        found = [self._unusable] if self._unusable is not None else []
        return [*found, *self._dates(now)]

    def _dates(self, now: datetime) -> Iterator[Finding]:
        spec, loaded = self._spec, self._loaded
        shown, believed = f"tls.{spec.name}.certificate_file", f"tls.{spec.name}.ca_file"
        for ends, whose, where in (
            (loaded.ends, f"the certificate in {spec.certificate}", shown),
            (loaded.ca_ends, f"the last authority in {spec.client_ca}", believed),
        ):
            remedy = "have it renewed and replace the file; it is read again without a restart"
            if ends is not None and ends <= now:
                yield Finding("tls.expired", Severity.ERROR, f"{whose} expired on {ends:%Y-%m-%d}", remedy, where)
            elif ends is not None and ends - now < EXPIRING:
                text = f"{whose} expires on {ends:%Y-%m-%d}, in {(ends - now).days} days"
                yield Finding("tls.expiring", Severity.WARNING, text, remedy, where)
        if loaded.begins is not None and now < loaded.begins:
            text = f"the certificate in {spec.certificate} is not valid before {loaded.begins:%Y-%m-%d %H:%M} UTC"
            remedy = "check the clock of this host, or use the earlier certificate until then"
            yield Finding("tls.not-yet-valid", Severity.ERROR, text, remedy, shown)


def _files_of(spec: TlsSpec, *, dials: bool) -> tuple[Path | None, ...]:
    own = (spec.certificate, spec.key, spec.key_password_file, spec.client_ca)
    return (*own, _bundle()) if dials else own


def _look(*paths: Path | None) -> tuple[object, ...]:
    """What changes when a file is written or replaced, by whatever links lead to it."""
    looks: list[object] = []
    for path in paths:
        try:
            seen = path.stat() if path is not None else None
        except OSError:
            seen = None
        looks.append(None if seen is None else (seen.st_mtime_ns, seen.st_size, seen.st_ino, seen.st_dev))
    return tuple(looks)


def _load(spec: TlsSpec, *, dials: bool) -> _Loaded:
    """Raises ConfigError with everything that is wrong."""
    files = _Files(spec.name)
    context = _line_context() if dials else _server_context()
    shown: list[tuple[datetime, datetime]] = []
    believed: list[tuple[datetime, datetime]] = []
    if spec.certificate is not None:
        shown = files.certificates("certificate_file", spec.certificate)
        files.load_chain(context, spec, spec.certificate)
    elif not dials:
        files.refuse("certificate_file", "there is no certificate to show to senders", "set certificate_file")
    if spec.client_ca is not None:
        believed = files.certificates("ca_file", spec.client_ca)
        if believed and (why := _believe(context, spec.client_ca)):
            files.refuse("ca_file", f"{spec.client_ca} {why}", _PEM)
        if not dials:
            context.verify_mode = ssl.CERT_REQUIRED
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an issuing authority will do, without its root
    if files.problems:
        raise ConfigError(files.problems)
    return _Loaded(
        context,
        begins=max((begins for begins, _ in shown), default=None),
        ends=min((ends for _, ends in shown), default=None),
        ca_ends=max((ends for _, ends in believed), default=None),
    )


_PEM: Final = "name a PEM file; it has lines like -----BEGIN CERTIFICATE-----"


class _Files:
    """Reads the files of one [tls.NAME], and gathers what is wrong with them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.problems: list[Finding] = []

    def refuse(self, leaf: str, text: str, remedy: str) -> None:
        code = f"tls.{leaf.removesuffix('_file').replace('_', '-')}"
        self.problems.append(Finding(code, Severity.ERROR, text, remedy, f"tls.{self._name}.{leaf}"))

    def read(self, leaf: str, path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except OSError as error:
            why = error.strerror or "unknown reason"
            self.refuse(leaf, f"{path} cannot be read: {why}", "correct the path, and let the agent's user read it")
            return None

    def certificates(self, leaf: str, path: Path) -> list[tuple[datetime, datetime]]:
        """From when to when each certificate of a file is valid."""
        content = self.read(leaf, path)
        if content is None:
            return []
        try:
            found = [read_certificate(ssl.PEM_cert_to_DER_cert(pem.decode())) for pem in _CERTIFICATE.findall(content)]
        except ValueError:
            found = [None]
        if None in found:
            self.refuse(leaf, f"{path} holds a damaged certificate", "have it copied or issued again")
            return []
        if not found:
            remedy = f"{_PEM}; openssl x509 -inform der makes one of a binary .cer or .der, openssl pkcs12 of a .pfx"
            self.refuse(leaf, f"{path} holds no PEM certificate", remedy)
        return [(certificate.since, certificate.until) for certificate in found if certificate is not None]

    def load_chain(self, context: ssl.SSLContext, spec: TlsSpec, certificate: Path) -> None:
        """Show this certificate, its key and the chain behind it, unless one of the files cannot be used."""
        key = spec.key or certificate
        content = self.read("key_file", key) if spec.key is not None or not self.problems else None
        if content is not None and not _KEY.search(content):
            text = f"{key} holds no PEM private key"
            self.refuse("key_file", text, "set key_file to a file that has a line like -----BEGIN PRIVATE KEY-----")
        password: str | None = None
        if spec.key_password_file is not None:
            kept = self.read("key_password_file", spec.key_password_file)
            try:
                password = None if kept is None else unwrapped(kept).decode("utf-8", "surrogateescape").rstrip("\r\n")
            except DpapiRefusal as refused:
                self.refuse("key_password_file", str(refused), refused.hint)
        if self.problems:
            return
        asked = False

        def ask() -> bytes:  # without it OpenSSL would ask the terminal
            nonlocal asked
            asked = True
            return (password or "").encode("utf-8", "surrogateescape")

        try:
            context.load_cert_chain(certificate, key, ask)
        except (OSError, ValueError) as error:  # SSLError is an OSError
            reason = getattr(error, "reason", None) or "it cannot be read"
            if reason in _OTHER_KEY:
                text, remedy = (
                    f"{key} is not the key of {certificate}",
                    "name the key that the certificate was issued for",
                )
                self.refuse("key_file", text, remedy)
            elif asked and spec.key_password_file is None:
                self.refuse("key_file", f"{key} is encrypted", "name a file with its password in key_password_file")
            elif asked:
                text = f"the password in {spec.key_password_file} does not open {key}"
                self.refuse("key_password_file", text, "put the key's password into the file, in one line")
            else:
                why = reason.replace("_", " ").lower()
                text = f"{certificate} and its key {key} cannot be used: {why}"
                self.refuse("certificate_file", text, "have the certificate issued again for a key of today's strength")
