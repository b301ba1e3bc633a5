"""What a certificate says of itself.

Secret: X.509 (RFC 5280), read by a library that takes a while to import, so it is imported when there is a certificate.
Promise: bytes give a certificate or None; reading one believes nothing that it says.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cryptography import x509

_NAMES_SHOWN: Final = 4


@dataclass(frozen=True, slots=True)
class Certificate:
    """`issuer` and `names` (whom it is for) in words; `since` and `until`: when it holds, in UTC."""

    issuer: str
    names: str
    vouches_for_itself: bool
    since: datetime
    until: datetime


def read_certificate(der: bytes | None) -> Certificate | None:
    """DER, as TLS carries it; None for what cannot be read."""
    from cryptography import x509

    if not der:
        return None
    # what the library raises for bytes that are none, or a certificate that somebody made to be read wrong
    unreadable = (
        *(ValueError, TypeError, OverflowError, UserWarning),  # warnings are errors where somebody wants them so
        *(x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType),
    )
    try:  # all of it at once: the library reads each field when it is asked for
        found = x509.load_der_x509_certificate(der)
        itself = found.issuer == found.subject
        since, until = found.not_valid_before_utc, found.not_valid_after_utc
        return Certificate(_name(found.issuer), _names(found), itself, since, until)
    except unreadable:
        return None


def _name(name: x509.Name) -> str:
    """What people call an authority: its common name, else its organisation."""
    from cryptography.x509.oid import NameOID

    for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME):
        for attribute in name.get_attributes_for_oid(oid):
            return f"'{str(attribute.value)[:64]}'"
    return f"'{name.rfc4514_string()[:64]}'"


def _names(certificate: x509.Certificate) -> str:
    """Whom a certificate is for (RFC 6125 §6.4: the subject's name counts only where there is no alternative)."""
    from cryptography import x509

    try:
        others = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return _name(certificate.subject)
    found = [*others.get_values_for_type(x509.DNSName), *map(str, _addresses(others))]
    more = f" and {len(found) - _NAMES_SHOWN} more" if len(found) > _NAMES_SHOWN else ""
    return ", ".join(found[:_NAMES_SHOWN]) + more


def _addresses(others: x509.SubjectAlternativeName) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    from cryptography import x509

    return [
        address
        for address in others.get_values_for_type(x509.IPAddress)
        if isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address)
    ]
