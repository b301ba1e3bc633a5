"""Authorities that issue whatever certificate a test needs: expired, for a client, encrypted, for another key."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.spec import TlsSpec

TODAY = datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, each in a file of its own."""

    certificate: Path
    key: Path

    def spec(self, *, client_ca: Path | None = None, key_password_file: Path | None = None) -> TlsSpec:
        """As `[tls.main]` would name them."""
        return TlsSpec("main", self.certificate, self.key, key_password_file, client_ca)


class Authority:
    """A certificate authority that keeps its files in a folder. `file`: its own certificate."""

    def __init__(self, folder: Path, name: str = "Hospital CA", *, days: float = 3650, above: Authority | None = None):
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        signer = above or self
        self.certificate = (
            _builder(self._name, signer, self._key, TODAY - timedelta(days=3650), TODAY + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_signs(), critical=True)
            .sign(signer._key, hashes.SHA256())
        )
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self.pem)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        name: str = "agent",
        *,
        days: float = 365,
        began: timedelta = timedelta(days=400),
        hosts: tuple[str, ...] = ("localhost",),
        addresses: tuple[str, ...] = ("127.0.0.1",),
        client: bool = False,
        password: str = "",
    ) -> Issued:
        """Valid from `began` ago for `days` from today, both of which may be negative."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [
            *map(x509.DNSName, hosts),
            *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses),
        ]
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        certificate = (
            _builder(_named(name), self, key, TODAY - began, TODAY + timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        issued = Issued(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        issued.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        locked = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
        issued.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
        return issued

    def client(self, own: Issued | None = None, *, newest: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """What a sender needs that believes this authority; `own`: what it shows of itself."""
        context = ssl.create_default_context(cafile=str(self.file))
        if own is not None:
            context.load_cert_chain(own.certificate, own.key)
        if newest is not None:
            context.maximum_version = newest
        return context


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: Authority, key: ec.EllipticCurvePrivateKey, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer._name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer._key.public_key()), critical=False)
    )


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
