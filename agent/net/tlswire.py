"""Speak TLS without a socket: ciphertext in, plaintext out, and the other way round.

Secret: OpenSSL's memory buffers, its states and the codes of its errors.
Promise: what is fed comes out in time linear in its length, however it was cut; nothing is held but the part of a
record that is not yet complete; whatever goes wrong is one sentence that says who has to change what.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import Final, cast

from agent.errors import LinkError

_PIECE_BYTES: Final = 65_536  # OpenSSL's buffers keep the size that they once had to have
_RECORD_BYTES: Final = 16_384  # RFC 8446 §5.1


class TlsFailure(LinkError):
    """There is no TLS with this peer. What is left in `outgoing` tells it why."""


class TlsWire:
    """One end of one TLS connection. `established`: the handshake is through, the peer is who it should be. `ended`:
    the peer has said that nothing more will come (close_notify, RFC 8446 §6.1).
    """

    __slots__ = ("_incoming", "_outgoing", "_tls", "ended", "established")

    def __init__(self, context: ssl.SSLContext, server_side: bool, server_hostname: str | None = None) -> None:
        self.established = False
        self.ended = False
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side, server_hostname)

    def feed(self, ciphertext: bytes) -> bytes:
        """Take what arrived; give the plaintext that it completes. A client feeds nothing to begin. Raises TlsFailure.

        Ask for `outgoing` afterwards, also after a failure.
        """
        if len(ciphertext) <= _PIECE_BYTES:
            return self._feed(ciphertext)
        with memoryview(ciphertext) as view:
            return b"".join(
                [self._feed(view[begin : begin + _PIECE_BYTES]) for begin in range(0, len(view), _PIECE_BYTES)]
            )

    def _feed(self, piece: bytes | memoryview) -> bytes:
        if self.ended:
            return b""
        self._incoming.write(piece)
        plaintext: list[bytes] = []
        try:
            if not self.established:
                self._tls.do_handshake()
                self.established = True
            while not self.ended and (self._incoming.pending or self._tls.pending()):
                plaintext.append(self._tls.read(_RECORD_BYTES))
                self.ended = not plaintext[-1]
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # instead of an empty read, once our own close_notify has been sent
            self.ended = True
        except ssl.SSLError as error:
            raise _failure(error) from error
        return plaintext[0] if len(plaintext) == 1 else b"".join(plaintext)

    def wrap(self, plaintext: bytes) -> bytes:
        """The plaintext as records, with whatever has to go before it. Only once `established`. Raises TlsFailure."""
        if len(plaintext) <= _PIECE_BYTES:
            return self._wrap(plaintext)
        with memoryview(plaintext) as view:
            return b"".join(
                [self._wrap(view[begin : begin + _PIECE_BYTES]) for begin in range(0, len(view), _PIECE_BYTES)]
            )

    def _wrap(self, piece: bytes | memoryview) -> bytes:
        try:
            self._tls.write(cast("bytes", piece))  # the stub knows bytes only; OpenSSL takes any buffer
        except ssl.SSLError as error:
            raise _failure(error) from error
        return self._outgoing.read()

    def outgoing(self) -> bytes:
        """What the protocol itself wants to say: parts of the handshake, alerts, answers to key updates."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def close_notify(self) -> bytes:
        """The records that say that nothing more will come from us; nothing may be wrapped after them."""
        if self.established:
            with contextlib.suppress(ssl.SSLError):  # it waits for the peer's own, which need not come
                self._tls.unwrap()
        return self.outgoing()


def begins_tls(first: bytes) -> bool:
    """Whether bytes are, or may yet become, a record of TLS (RFC 8446 §5.1) or a hello of SSL 2 (RFC 5246 §E.2)."""
    if first[0] & 0x80:
        return len(first) < 3 or first[2] == 1
    return 0x14 <= first[0] <= 0x17 and first[1:2] in (b"", b"\x03")


# OpenSSL's reasons, by what a person understands: what is so, and what to do.
_NO_CERTIFICATE = (
    "the other side shows no certificate",
    "give it a certificate of an authority in ca_file of this [tls.NAME], or leave ca_file out",
)
_NOT_TRUSTED = (
    "the other side does not trust our certificate",
    "let it trust the authority of our certificate, and check that certificate_file holds the chain behind it",
)
_TOO_OLD = (
    "the two sides have no version of TLS in common; we speak 1.2 and 1.3",
    "switch TLS 1.2 on in the other system",
)
_NO_AGREEMENT = (
    "the two sides have no cipher in common",
    "allow the other system an AES-GCM or ChaCha20 cipher, and check that it can use our kind of key",
)
_NO_TLS = (
    "what the other side sends is no TLS",
    "switch TLS on there, or use an mllp:// address here",
)
_EXPIRED_HERE = ("the other side says that our certificate has expired", "renew the certificate")
_OURS_REFUSED = (
    "the other side refuses our certificate",
    "check that it is of the kind and the authority that the other system asks for",
)
_OURS_MISSING = (
    "the other side wants a certificate of us",
    "name one in certificate_file of this [tls.NAME]",
)
_DAMAGED = ("the encrypted bytes were damaged on the way", "look for a device between the two that changes them")
_WORDS: Final[dict[str, tuple[str, str]]] = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": _NO_CERTIFICATE,
    "UNSUPPORTED_PROTOCOL": _TOO_OLD,
    "VERSION_TOO_LOW": _TOO_OLD,
    "NO_PROTOCOLS_AVAILABLE": _TOO_OLD,
    "TLSV1_ALERT_PROTOCOL_VERSION": _TOO_OLD,
    "NO_SHARED_CIPHER": _NO_AGREEMENT,
    "NO_SUITABLE_SIGNATURE_ALGORITHM": _NO_AGREEMENT,
    "NO_SHARED_SIGNATURE_ALGORITHMS": _NO_AGREEMENT,
    "NO_SUITABLE_KEY_SHARE": _NO_AGREEMENT,
    "NO_SHARED_GROUPS": _NO_AGREEMENT,
    "WRONG_CIPHER_RETURNED": _NO_AGREEMENT,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": (
        "the other side finds no common ground for TLS with us",
        "check which versions, ciphers and certificates it takes",
    ),
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": _NO_AGREEMENT,
    "TLSV1_ALERT_UNKNOWN_CA": _NOT_TRUSTED,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _NOT_TRUSTED,
    "SSLV3_ALERT_BAD_CERTIFICATE": _OURS_REFUSED,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": _OURS_REFUSED,
    "SSLV3_ALERT_CERTIFICATE_REVOKED": _OURS_REFUSED,
    "TLSV1_ALERT_ACCESS_DENIED": _OURS_REFUSED,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": _EXPIRED_HERE,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _OURS_MISSING,
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "HTTP_REQUEST": _NO_TLS,
    "HTTPS_PROXY_REQUEST": _NO_TLS,
    "UNKNOWN_PROTOCOL": _NO_TLS,
    "PACKET_LENGTH_TOO_LONG": _NO_TLS,
    "RECORD_LENGTH_MISMATCH": _NO_TLS,
    "BAD_RECORD_TYPE": _NO_TLS,
    "DECRYPTION_FAILED_OR_BAD_RECORD_MAC": _DAMAGED,
    "SSLV3_ALERT_BAD_RECORD_MAC": _DAMAGED,
}

_AUTHORITY = "name its authority in ca_file of this [tls.NAME]; PEM, and the whole chain if it sends only its own"
# X509_V_ERR_… of OpenSSL's x509_vfy.h, whose texts are about X.509 and not about what to do
_UNVERIFIED: Final[dict[int, tuple[str, str]]] = {
    9: ("the other side's certificate is not valid yet", "check the clocks of both hosts"),
    10: ("the other side's certificate has expired", "renew it there, and check the clock of this host"),
    18: ("the other side's certificate is self-signed and not one that we know", _AUTHORITY),
    19: ("the other side's certificate comes from an authority that we do not know", _AUTHORITY),
    20: ("the other side's certificate comes from an authority that we do not know", _AUTHORITY),
    21: ("the other side's certificate comes from an authority that we do not know", _AUTHORITY),
    26: (
        "the other side's certificate is not made for this end of a connection",
        "have it issued for client authentication if it sends to us, for server authentication if we dial it",
    ),
    62: ("the other side's certificate is for another host name", "use the name that the certificate holds"),
    64: ("the other side's certificate is for another address", "use the name that the certificate holds"),
}


def _failure(error: ssl.SSLError) -> TlsFailure:
    reason = error.reason or ""
    words = _WORDS.get(reason)
    if isinstance(error, ssl.SSLCertVerificationError):
        words = _UNVERIFIED.get(error.verify_code)
        reason = error.verify_message
    if words is not None:
        return TlsFailure(words[0], hint=words[1])
    why = reason.replace("_", " ").lower() or "no reason given"
    return TlsFailure(f"TLS failed ({why})", hint="check certificates and TLS settings of both sides")
