"""Tell why bytes are no message.

Secret: how other protocols, half-right senders and load balancers look from the receiving end of an MLLP connection.
Promise: `examine` names what is wrong with a connection or finds nothing odd; `shape` shows what came first without
showing what it said, so that neither can carry patient data to a screen or a log.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from agent.protocol.mllp import END

FIRST_BYTES: Final = 64

_SILENCE_S = 1.0  # what came before so long a silence came whole
_STRAY_BYTES, _STRAY_BYTES_A_FRAME = (
    64,
    2,
)  # outside of messages that are taken: CR LF after each, NULs to keep a line up
_STREAM_STRAY_BYTES_A_FRAME = 16  # of a byte stream: checksums and line ends behind each, enquiries and ends around it
_BLANK = b"\0\t\n\r "
_UTF8_MARK = b"\xef\xbb\xbf"
_HEADS = (b"MSH", b"FHS", b"BHS")
_HL7 = re.compile(rb"(?:\xef\xbb\xbf)?(?:MSH|FHS|BHS)[!-/:-@\[-`{-~]")
_COMMIT_BLOCKS = (b"\x06", b"\x15")

# RFC 8446 §5.1 and §4: a handshake record with a ClientHello. Old clients wrap it for SSLv2 (RFC 5246 appendix E.2).
_TLS_HELLO = re.compile(rb"\x16\x03[\x00-\x04](?:\Z|[\x00-\x48](?:\Z|.(?:\Z|\x01)))", re.DOTALL)
_SSL2_HELLO = re.compile(rb"[\x80-\xff].\x01(?:\x00\x02|\x03[\x00-\x04])", re.DOTALL)
_TLS_PROOF_BYTES = 6  # record type, version, length, and that it is a ClientHello
_TLS_BEGUN = re.compile(rb"\x16\x03?\Z|[\x80-\xff](?:.(?:\x01[\0\x03]?)?)?\Z", re.DOTALL)

# IANA's registry of HTTP methods, a PURGE that caches know, and the first word of an answer.
_METHODS = (
    b"ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DELETE GET HEAD LABEL LINK LOCK MERGE MKACTIVITY "
    b"MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE OPTIONS ORDERPATCH PATCH POST PRI PROPFIND PROPPATCH PURGE PUT "
    b"QUERY REBIND REPORT SEARCH TRACE UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL"
).split()
_HTTP_OPENINGS = (
    *(b"%b %b" % (method, target) for method in _METHODS for target in (b"/", b"*", b"HTTP:", b"HTTPS:")),
    b"CONNECT ",
    b"HTTP/1.",
    b"HTTP/2",
)
_HTTP_LINE = re.compile(rb"[A-Z][A-Z_-]{0,30} \S+ HTTP/\d")
_OTHER_LINE = re.compile(rb"\S+ \S+ (?!HTTP/)[A-Z]+/")  # SIP and RTSP have OPTIONS too

# A byte order mark, or two characters of ASCII in two bytes each, one-byte 0x0B before them or not.
_WIDE = re.compile(rb"\x0b?(?:\xff\xfe|\xfe\xff|(?:[\n\v\r -~]\0){2}|(?:\0[\n\v\r -~]){2})")
_WIDE_BEGUN = re.compile(rb"\x0b?(?:[\n\v\r -~]\0[\n\v\r -~]?|\0[\n\v\r -~]\0?)\Z")

# What a load balancer may put before the sender's own bytes (HAProxy's PROXY protocol, 1 and 2).
_PROXY_1, _PROXY_2 = b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"
_PROXY_BYTES = 232


class Oddity(StrEnum):
    """What is wrong with a connection, as its code in status, statistics and log."""

    TLS_ON_PLAIN = "tls-on-plain-port"
    PLAIN_ON_TLS = "plain-on-tls-port"
    TLS_FAILED = "tls-failed"  # a TLS client with which no agreement was found
    HTTP = "http"
    UTF16 = "utf-16"
    MLLP_RELEASE_2 = "mllp-release-2"
    NO_START = "no-start-block"
    NO_END = "no-end-block"
    END_WITHOUT_CR = "end-block-without-cr"
    LF_LINES = "lf-line-ends"  # taken all the same
    NO_MSH = "no-msh"
    TOO_BIG = "too-big"
    TOO_SLOW = "too-slow"  # begun and not ended in frameTimeoutSecs
    NO_ROOM = "no-room"
    IDLE = "half-open-and-idle"
    NOT_ALLOWED = "not-allowed"
    TOO_MANY = "too-many-connections"
    PROBE = "connect-and-close"  # a load balancer's look: nothing is wrong
    # byte streams
    OUTSIDE = "outside-of-messages"
    UNFINISHED = "no-end-character"
    # ASTM E1381
    ASTM_CHECKSUM = "astm-checksum"  # repeated until it is right: the line is noisy, or they count differently
    ASTM_NUMBER = "astm-frame-number"
    ASTM_UNFINISHED = "astm-unfinished"
    ASTM_NOT_TAKEN = "astm-not-taken"  # by the analyser, of what the server answered
    NOT_ASTM = "not-astm"
    AE_TITLE = "ae-title"
    NOT_DICOM = "not-dicom"
    UNREADABLE_OBJECT = "unreadable-object"  # kept all the same


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one connection has done so far. Times in seconds.

    `first`: its first bytes (decrypted, if it speaks TLS), FIRST_BYTES at most. `open_head` and `open_tail`: the first
    FIRST_BYTES and the last two bytes of the message that has begun and not ended; empty between messages. `skipped`:
    bytes that came outside of messages. `over`: the connection has ended, by whomever. `tls`: the port takes TLS; bytes
    that came in plain text all the same stand in `first`, and are counted in `bytes_in` and nowhere else.
    """

    first: bytes
    bytes_in: int
    frames: int
    skipped: int
    open_bytes: int
    open_head: bytes
    open_tail: bytes
    age_s: float
    silent_s: float
    over: bool
    tls: bool


def examine(evidence: Evidence) -> Oddity | None:
    """Why has this connection given no message, or no further one? None: nothing odd, or too early to tell.

    It is asked when the connection has been silent for a second, and when it ends. What another protocol's first bytes
    prove is said without waiting.
    """
    return next((oddity for holds, oddity in _PRECEDENCE if holds(evidence)), None)


def examine_stream(evidence: Evidence, start: int | None, answered_bytes: int) -> Oddity | None:
    """The same of a byte stream, in which any byte may be content. `start`: the character that begins a message, if one
    does; `answered_bytes`: how much of what came was answered at once, inside of messages or outside."""
    if not evidence.bytes_in and not evidence.first:
        return Oddity.PROBE if evidence.over else None
    if _greets_in_tls(evidence, start):
        return Oddity.TLS_ON_PLAIN
    if not evidence.over and evidence.silent_s < _SILENCE_S:
        return None
    if evidence.open_bytes:
        return Oddity.UNFINISHED
    strays = _STRAY_BYTES + _STREAM_STRAY_BYTES_A_FRAME * evidence.frames if evidence.frames else 0
    return Oddity.OUTSIDE if evidence.skipped > strays + answered_bytes else None


def _greets_in_tls(evidence: Evidence, start: int | None) -> bool:
    first = evidence.first
    proven = len(first) >= _TLS_PROOF_BYTES and _TLS_HELLO.match(first) is not None
    return proven and not evidence.tls and not evidence.frames and first[0] != start


def frame_oddity(body: bytes) -> Oddity | None:
    """What is odd about the content of one complete frame; None for a message or a batch as it should be."""
    if _HL7.match(body):
        return Oddity.LF_LINES if b"\n" in body and b"\r" not in body else None
    if body in _COMMIT_BLOCKS:
        return Oddity.MLLP_RELEASE_2
    if _is_http(body):
        return Oddity.HTTP
    if _is_tls(body):
        return Oddity.TLS_ON_PLAIN
    return Oddity.UTF16 if _WIDE.match(body) else Oddity.NO_MSH


def farewell(oddity: Oddity) -> bytes:
    """What the other side understands in its own protocol before we close; empty where it would understand nothing."""
    match oddity:
        case Oddity.HTTP:
            return _BAD_REQUEST
        case Oddity.TLS_ON_PLAIN:
            return _NO_TLS_HERE
        case _:
            return b""


_SENTENCE = b"This port speaks HL7 v2 over MLLP, not HTTP. Send each message as 0x0B, message, 0x1C 0x0D.\n"
_BAD_REQUEST = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(_SENTENCE), _SENTENCE)
)
# Fatal alert protocol_version (RFC 8446 §6.2). OpenSSL shows handshake_failure as one of "sslv3", which leads astray.
_NO_TLS_HERE = b"\x15\x03\x01\x00\x02\x02\x46"


def _said(evidence: Evidence) -> bytes:
    """What a connection without messages said first, without the words of the load balancer before it."""
    if evidence.frames:
        return b""
    first = evidence.first
    if first.startswith(_PROXY_1):
        return first.partition(b"\r\n")[2]
    if first.startswith(_PROXY_2):
        return first[16 + int.from_bytes(first[14:16], "big") :]
    return b"" if _PROXY_2.startswith(first) else first


def _said_nothing(evidence: Evidence) -> bool:
    short = len(evidence.first) < FIRST_BYTES or evidence.bytes_in <= _PROXY_BYTES
    return not evidence.frames and not evidence.open_bytes and not _said(evidence).strip(_BLANK) and short


def _left_without_a_word(evidence: Evidence) -> bool:
    return evidence.over and _said_nothing(evidence)


def _speaks_http(evidence: Evidence) -> bool:
    return _is_http(_said(evidence)) or _is_http(evidence.open_head)


def _is_unread(evidence: Evidence) -> bool:
    """Whether the framer has seen none of it, as TLS has not let it through. One 0x0B leaves no trace in a framer."""
    return evidence.tls and not (
        evidence.frames or evidence.skipped or evidence.open_bytes or evidence.first == b"\x0b"
    )


def _speaks_plain(evidence: Evidence) -> bool:
    first = _said(evidence)
    return _is_unread(evidence) and not _is_tls(first) and not _is_too_short(first)


def _left_in_handshake(evidence: Evidence) -> bool:
    return evidence.over and _is_unread(evidence) and _is_tls(_said(evidence))


def _speaks_tls(evidence: Evidence) -> bool:
    return not evidence.tls and (_is_tls(_said(evidence)) or _is_tls(evidence.open_head))


def _speaks_wide(evidence: Evidence) -> bool:
    return bool(_WIDE.match(_said(evidence)) or _WIDE.match(evidence.open_head))


def _may_yet_tell(evidence: Evidence) -> bool:
    """Whether more may be on its way, or so little came that it could be the beginning of anything."""
    arriving = not evidence.over and evidence.silent_s < _SILENCE_S
    return arriving or _is_too_short(_said(evidence)) or _is_too_short(evidence.open_head)


def _is_open(evidence: Evidence) -> bool:
    return evidence.open_bytes > 0 or (not evidence.frames and evidence.first[evidence.skipped :] == b"\x0b")


def _is_open_without_msh(evidence: Evidence) -> bool:
    head = evidence.open_head.lstrip(_BLANK).removeprefix(_UTF8_MARK)
    return _is_open(evidence) and not any(segment.startswith(head[:3]) for segment in _HEADS)


def _is_open_by_chance(evidence: Evidence) -> bool:
    """Whether 0x0B came somewhere in bytes that are no MLLP at all."""
    return _said(evidence).lstrip(_BLANK)[:1] not in (b"", b"\x0b") and _is_open_without_msh(evidence)


def _has_half_an_end(evidence: Evidence) -> bool:
    return END in evidence.open_tail or END in evidence.open_head


def _is_outside(evidence: Evidence) -> bool:
    strays = _STRAY_BYTES + _STRAY_BYTES_A_FRAME * evidence.frames if evidence.frames else 0
    if evidence.first.startswith((_PROXY_1, _PROXY_2)):
        strays += _PROXY_BYTES
    return evidence.skipped > strays


# The first row that holds decides. Whoever speaks another protocol is not helped by a word about blocks, and an end
# block that lacks its CR is nearer to the remedy than the content or the end that is missing because of it.
_PRECEDENCE: Final[tuple[tuple[Callable[[Evidence], bool], Oddity | None], ...]] = (
    (_left_without_a_word, Oddity.PROBE),
    (_said_nothing, None),  # for how long it may be idle is the clock's business
    (_speaks_http, Oddity.HTTP),  # on a TLS port too: encrypted HTTP would be no better
    (_speaks_plain, Oddity.PLAIN_ON_TLS),
    (_left_in_handshake, Oddity.TLS_FAILED),
    (_speaks_tls, Oddity.TLS_ON_PLAIN),
    (_speaks_wide, Oddity.UTF16),
    (_may_yet_tell, None),
    (_is_open_by_chance, Oddity.NO_START),
    (_has_half_an_end, Oddity.END_WITHOUT_CR),
    (_is_open_without_msh, Oddity.NO_MSH),
    (_is_open, Oddity.NO_END),
    (_is_outside, Oddity.NO_START),
)


def _is_http(start: bytes) -> bool:
    line = start[:FIRST_BYTES].removeprefix(b"\x0b").upper()
    return bool(line.startswith(_HTTP_OPENINGS) or _HTTP_LINE.match(line)) and not _OTHER_LINE.match(line)


def _is_tls(start: bytes) -> bool:
    return bool(_TLS_HELLO.match(start) or _SSL2_HELLO.match(start))


def _is_too_short(start: bytes) -> bool:
    """Whether these few bytes may be the beginning of another protocol."""
    if not start or len(start) >= FIRST_BYTES:
        return False
    opening = start.removeprefix(b"\x0b").upper()
    spoken = bool(opening) and any(whole.startswith(opening) for whole in (*_HTTP_OPENINGS, _PROXY_1))
    return spoken or bool(_TLS_BEGUN.match(start) or _WIDE_BEGUN.match(start))


_SHAPE_CHARS = 80
_CUT_WORD = re.compile(r"(?<= )[0-9A-Z/.]+\Z")
_PIECE = re.compile(
    rb"(?P<word>(?:\A|(?<=[\x0b\n\r\xbf]))(?:MSH|FHS|BHS)(?=[!-/:-@\[-`{-~])"
    rb"|(?:\A|(?<=\x0b))(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|CONNECT|TRACE|PATCH|PRI)(?= [/*])"
    rb"|(?:\A|(?<= ))HTTP/(?:1\.[01]|2\.0)(?![0-9A-Za-z.])"
    rb"|\ASSH-(?:2\.0|1\.99|1\.5)(?=-)|\APROXY(?= (?:TCP|UNKNOWN)))"
    rb"|(?P<mark>\A\x0b?(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff))"
    rb"|(?P<letter>[A-Za-z])|(?P<digit>[0-9])|(?P<control>[\0-\x1f\x7f])|(?P<high>[\x80-\xff])"
)


def shape(first: bytes) -> str:
    """How first bytes look, without what they say, in 80 characters at most: `0B MSH|^~\\&|aaa 9|aa`.

    A letter becomes `a`, a digit `9`, but for the words that open a protocol; a control stands in hexadecimal. A byte
    above 0x7F is `XX`, as a name may be made of nothing else, but for a byte order mark or the head of a TLS hello.
    """
    first = first[:FIRST_BYTES]
    if known := _TLS_HELLO.match(first) or _SSL2_HELLO.match(first):
        shown = known.group().hex(" ").upper()
    else:
        known = _WIDE.match(first)  # half of each further character may be a control
        veiled = _PIECE.sub(_veil, known.group() if known else first)
        shown = " ".join(veiled.decode("ascii").split())
    if len(shown) > _SHAPE_CHARS:
        return _CUT_WORD.sub("", shown[: _SHAPE_CHARS - 2]).rstrip() + " …"
    return f"{shown} …" if known and known.end() < len(first) else shown


def _veil(piece: re.Match[bytes]) -> bytes:
    match piece.lastgroup:
        case "letter":
            return b"a"
        case "digit":
            return b"9"
        case "high":
            return b" XX "
        case "word":
            return piece.group()
        case _:
            return b" %b " % piece.group().hex(" ").upper().encode()
