"""Read a message as text, or say where that fails.

Secret: how the declared character set, a byte order mark and the channel's `invalidBytes` decide together how bytes
become characters.
Promise: no byte is replaced or dropped silently. A message is read whole in the set that it declares, or whole in the
fallback that a person chose for its channel, or refused with the place of the byte and what to do. Escape sequences
(§2.7) and control characters stay as they are.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from agent.errors import PeerError
from agent.protocol.charset import codec_of, first_flaw, name_of, read, reads_by_bytes
from agent.protocol.hl7 import Header, normalize

_MARK: Final = b"\xef\xbb\xbf"
_MARKED: Final = tuple(_MARK + segment for segment in (b"MSH", b"FHS", b"BHS"))
_EMPTY_LINES: Final = re.compile(r"\r\r+")
_SEGMENT_NAME: Final = re.compile(r"[A-Z][A-Z0-9]{2}", re.ASCII)


class InvalidBytes(PeerError):
    """A byte that has no meaning in the declared character set.

    `position` counts the bytes of the frame's content from 1; `place` is the field, as PID-5, empty where none can be
    told; `charset` is the set's name for people. The byte itself is for the sender only, never for a log.
    """

    def __init__(
        self, text: str, *, position: int, charset: str, place: str = "", hint: str = "", loggable: str = ""
    ) -> None:
        super().__init__(text, hint=hint, loggable=loggable)
        self.position = position
        self.charset = charset
        self.place = place


class Text(msgspec.Struct, frozen=True, gc=False):  # eight times as fast to make as a frozen dataclass: one a message
    """A message as text, its lines ended as `normalize` makes them.

    `codec`: the Python codec that its bytes are in. `fell_back`: that is the channel's fallback, not what the message
    declares.
    """

    text: str
    codec: str
    fell_back: bool


def without_mark(body: bytes) -> bytes:
    """A message or batch without the UTF-8 byte order mark before it; the same object if there is none."""
    return body[len(_MARK) :] if body.startswith(_MARKED) else body


def decode(body: bytes, header: Header, encoding: str | None, fallback: str | None, *, marked: bool = False) -> Text:
    """Read a message. Raises UnknownCharset, InvalidBytes.

    `encoding`: the channel's own, which wins over MSH-18. `fallback`: the Python codec for messages that the declared
    one cannot read; None refuses them. `marked`: a byte order mark stood before `body`, so its sender writes UTF-8.
    """
    codec = codec_of(header, encoding)
    if marked and codec != "utf-8":
        raise _contradiction(codec)
    message = normalize(body)
    try:
        return Text(message.decode() if codec == "utf-8" else _lines(message, codec), codec, False)
    except UnicodeDecodeError:
        pass
    if fallback is None:
        raise _invalid(body, header, codec, None, marked=marked)
    try:
        return Text(_lines(message, fallback), fallback, True)
    except UnicodeDecodeError:
        raise _invalid(body, header, codec, fallback, marked=marked) from None


def legible(body: bytes, codec: str) -> str:
    """What `decode` reads, with U+FFFD where it would refuse: for an answer, or for a person's eyes."""
    return _lines(normalize(body), codec, "replace")


def _lines(message: bytes, codec: str, errors: str = "strict") -> str:
    """The text of a normalized message. An ISO 2022 escape between two line ends is no line."""
    text = read(message, codec, errors)
    return _EMPTY_LINES.sub("\r", text) if "\r\r" in text else text


def _contradiction(codec: str) -> InvalidBytes:
    charset = name_of(codec)
    return InvalidBytes(
        f"the message begins with a UTF-8 byte order mark, but its character set is {charset}",
        position=1,
        charset=charset,
        hint="let the sender declare UNICODE UTF-8 in MSH-18 or leave the mark out; "
        "if this channel has an `encoding`, set it to utf-8",
    )


def _invalid(body: bytes, header: Header, codec: str, fallback: str | None, *, marked: bool) -> InvalidBytes:
    """Why bytes were refused. Looks at them as they came: positions must not count what `normalize` took away."""
    flaw = first_flaw(body, codec)
    before = len(_MARK) if marked else 0
    place = _place(body, flaw, header, codec)
    charset = name_of(codec)
    position = flaw + before + 1
    value = f"0x{body[flaw : flaw + 1].hex()}"
    told = f"{value}, in {place}" if place else value
    verdict = f"is not valid {charset}"
    hint = "declare in MSH-18 what the sender writes, or set invalidBytes=fallback:windows-1252 for this channel"
    if fallback is not None:
        verdict += f", and byte {first_flaw(body, fallback) + before + 1} is not valid {name_of(fallback)}"
        hint = "declare in MSH-18 what the sender writes, or name that set in invalidBytes=fallback:… of this channel"
    return InvalidBytes(
        f"byte {position} ({told}) {verdict}",
        position=position,
        charset=charset,
        place=place,
        hint=hint,
        loggable=f"byte {position} (in {place}) {verdict}" if place else f"byte {position} {verdict}",
    )


def _place(body: bytes, flaw: int, header: Header, codec: str) -> str:
    """The field in which the byte at `flaw` stands, as PID-5."""
    start = max(body.rfind(b"\r", 0, flaw), body.rfind(b"\n", 0, flaw)) + 1
    before, separator = body[start:flaw], header.separator
    if not reads_by_bytes(codec):
        before = read(before, codec, "replace").encode()
    name = before[:3].decode("ascii", "replace")
    if before[3:4] != separator or not _SEGMENT_NAME.fullmatch(name):
        return ""
    return f"{name}-{before.count(separator) + (name == 'MSH')}"
