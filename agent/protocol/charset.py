"""Tell which characters the bytes of a message stand for.

Secret: what people call character sets (HL7 table 0211 in MSH-18, the `encoding` of an address, IANA, DICOM and vendor
names), which of them MLLP can carry, and in which of them a part of a character may look like a delimiter.
Promise: a name gives the codec that reads it strictly, or an error that says what to write instead; nobody guesses.
What `write` wrote, `read` reads.
"""

from __future__ import annotations

import re
from codecs import lookup
from encodings.aliases import aliases
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from agent.errors import PeerError

if TYPE_CHECKING:
    from agent.protocol.hl7 import Header

# The rows of table 0211 (v2.8.2, and two Japanese ones that other versions have) but for those that _NOT_CARRIED
# refuses; then what imaging systems write into MSH-18: DICOM's own terms (PS3.3 §C.12.1.1.2).
_NAMES: Final = {
    "UNICODE": "utf_8",  # deprecated by v2.5 for want of an encoding; the senders that are left write UTF-8
    "UNICODE UTF-8": "utf_8",
    "ASCII": "ascii",
    **{f"8859/{part}": f"iso8859_{part}" for part in (2, 3, 4, 5, 6, 7, 8, 9, 15)},
    "8859/1": "latin_1",
    "ISO IR6": "ascii",
    "ISO IR14": "shift_jis",  # JIS X 0201, one byte a character
    "ISO IR87": "iso2022_jp_ext",  # JIS X 0208, reached by escape sequences
    "ISO IR159": "iso2022_jp_ext",  # JIS X 0212, likewise
    "JAS2020": "iso2022_jp_ext",
    "JIS X 0202": "iso2022_jp_ext",
    "GB 18030-2000": "gb18030",
    "KS X 1001": "euc_kr",
    "BIG-5": "big5",
    "ISO_IR 192": "utf_8",
    "ISO_IR 13": "shift_jis",
    "ISO_IR 203": "iso8859_15",
    "ISO 2022 IR 6": "ascii",
    "ISO 2022 IR 13": "shift_jis",
    "ISO 2022 IR 87": "iso2022_jp_ext",
    "ISO 2022 IR 159": "iso2022_jp_ext",
}
# ASCII reads the same in each of these, so the delimiters and the beginning of MSH can be read before it is known which
# one it is.
_CARRIED: Final = frozenset(
    (
        *("ascii", "utf_8", "latin_1", "tis_620", "koi8_r", "koi8_t", "koi8_u", "kz1048", "ptcp154"),
        *("mac_roman", "mac_latin2", "mac_cyrillic", "mac_greek", "mac_turkish"),
        *(f"iso8859_{part}" for part in (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16)),
        *(f"cp{page}" for page in (437, 720, 737, 775, 850, 852, 855, 857, 858, 860, 861, 862, 863, 865, 866, 869)),
        *(f"cp{page}" for page in (874, 1125, *range(1250, 1259))),
        *("big5", "big5hkscs", "cp950", "gb2312", "gbk", "gb18030", "euc_kr", "cp949"),
        *("shift_jis", "cp932", "euc_jp", "iso2022_jp", "iso2022_jp_1", "iso2022_jp_2", "iso2022_jp_ext"),
    )
)
_ISO_2022: Final = frozenset(("iso2022_jp", "iso2022_jp_1", "iso2022_jp_2", "iso2022_jp_ext"))
_BY_CHARACTER: Final = _ISO_2022 | {"big5", "big5hkscs", "cp950", "gbk", "gb18030", "shift_jis", "cp932"}
_TO_ASCII: Final = b"\x1b(B"
_TO_JIS_ROMAN: Final = b"\x1b(J"
_NOT_RETURNED: Final = re.compile(rb"\x1b(?!\(B)[^\r\n\x1b]*[\r\n]")  # the end of a segment that is not in ASCII
_LONE_ESCAPE: Final = re.compile(rb"\x1b(?![$().&N])")  # Python's decoders would pass it and overlook the next one

_LABEL_CHARS: Final = 40
_FIELD_BYTES: Final = 400  # of MSH-18, more than all of table 0211: what a peer writes must not fill the cache
_FIELDS_BEYOND: Final = 64  # how far characters that hold a separator may push MSH-18 to the right
_UTF_8_INSTEAD: Final = "let the sender write UTF-8 and name it UNICODE UTF-8"
_TOO_WIDE: Final = ("cannot travel in MLLP, whose frames are made of single bytes", _UTF_8_INSTEAD)
_NOT_CARRIED: Final = {
    **dict.fromkeys(("UTF16", "UTF32", "UNICODEUTF16", "UNICODEUTF32", "UCS", "ISO10646"), _TOO_WIDE),
    # A set of sixteen planes, not an encoding: EUC-TW, ISO-2022-CN and Big5 all write it, each with other bytes.
    **dict.fromkeys(
        ("CNS11643", "EUCTW", "ISO2022CN"),
        (
            "numbers characters in planes that no codec here can read",
            "let the sender write UNICODE UTF-8 or BIG-5; if its bytes are Big5, set encoding=big5 for this channel",
        ),
    ),
}


class UnknownCharset(PeerError):
    """A name that stands for no character set, or for one that MLLP cannot carry."""

    hint = "write a code of HL7 table 0211 such as UNICODE UTF-8 or 8859/1, or set `encoding` for this channel"


def _squash(label: str) -> str:
    """The letters and digits of a name: people agree on no more of it."""
    return "".join(filter(str.isalnum, label)).upper()


# A table of our own instead of codecs.lookup: that imports what a peer names, and remembers every failure for ever.
_CODECS: Final = {
    **{_squash(module): module for module in _CARRIED},
    **{_squash(alias): module for alias, module in aliases.items() if module in _CARRIED},
    **{_squash(label): module for label, module in _NAMES.items()},
}


@lru_cache(maxsize=64)
def codec_for(label: str) -> str:
    """The Python codec for a name: HL7 table 0211, IANA, DICOM, or vendor's; case and punctuation do not matter.

    ASCII means ASCII: a byte above 0x7F will not decode. Raises UnknownCharset.
    """
    squashed = _squash(label[:_LABEL_CHARS])
    module = _CODECS.get(squashed)
    if module is not None and len(label) <= _LABEL_CHARS:  # a longer one would only fill the cache
        return lookup(module).name
    name = ascii(label[:_LABEL_CHARS])
    for beginning, (reason, remedy) in _NOT_CARRIED.items():
        if squashed.startswith(beginning):
            raise UnknownCharset(
                f"the character set {name} {reason}", hint=remedy, loggable=f"the declared character set {reason}"
            )
    # a sender whose segments run together has other fields where MSH-18 should be
    raise UnknownCharset(f"the character set {name} is unknown", loggable="the declared character set is unknown")


def codec_of(header: Header, channel_encoding: str | None) -> str:
    """The Python codec of a message: the channel's `encoding`, else (None, `auto`) MSH-18, else UTF-8.

    MSH-18 may repeat (§2.15.9.18): the first is the message's own set, the others are reached from it by ISO 2022
    escapes, so one of those decides for all. Raises UnknownCharset.
    """
    if header.transcoded:
        return header.transcoded
    if channel_encoding and channel_encoding.lower() != "auto":
        return codec_for(channel_encoding)
    declared = header.charset
    if not declared and len(header.fields) <= 18:
        return "utf-8"
    try:
        codec = _declared(declared[:_FIELD_BYTES], header.encoding_characters[1:2])
    except UnknownCharset:
        if (pushed := _pushed_aside(header)) is None:
            raise
        return pushed
    return codec or _pushed_aside(header) or "utf-8"


@lru_cache(maxsize=64)
def _declared(field: bytes, repetition: bytes) -> str | None:
    """The codec that MSH-18 declares, None if it holds no word. Raises UnknownCharset."""
    labels = field.split(repetition) if repetition else [field]
    codecs = [codec_for(label.decode("ascii", "replace")) for label in labels if label.strip()]
    return next((codec for codec in codecs if codec in _ISO_2022), codecs[0] if codecs else None)


def _pushed_aside(header: Header) -> str | None:
    """The codec of an MSH-18 that bytes like separators inside characters before it have pushed to the right.

    Such a declaration proves itself: read in the set that it names, it stands in MSH-18.
    """
    segment = header.separator.join(header.fields)
    tried = set()
    for field in header.fields[18 : 18 + _FIELDS_BEYOND]:
        try:
            codec = _declared(field[:_FIELD_BYTES], header.encoding_characters[1:2])
        except UnknownCharset:
            continue
        if codec is None or codec in tried or reads_by_bytes(codec):
            continue
        tried.add(codec)
        try:
            fields = read(segment, codec).split(header.separator.decode())
        except UnicodeDecodeError:
            continue
        if len(fields) > 17 and fields[17].encode() == field:
            return codec
    return None


def reads_by_bytes(codec: str) -> bool:
    """Whether a byte that looks like a delimiter is one; else a part of a character may look so, as in Shift JIS, and a
    message must be decoded before it is split."""
    return codec not in _BY_CHARACTER


def name_of(codec: str) -> str:
    """The name of a codec as people know it; `codec_for` takes it back."""
    if codec.startswith("cp125"):
        return f"windows-{codec[2:]}"
    for family, name in (("iso8859", "iso-8859"), ("iso2022", "iso-2022")):
        codec = codec.replace(family, name)
    return codec.replace("_", "-").upper()


def read(content: bytes, codec: str, errors: str = "strict") -> str:
    """The characters of `content`; `errors` as in bytes.decode. Raises UnicodeDecodeError.

    ISO 2022: every segment begins in ASCII (v2.5.1 §2.15.9.18, RFC 1468), also after a sender that forgot to return to
    it. JIS X 0201 Roman, to which some return instead, shows a yen sign and an overline for the bytes that HL7 names in
    MSH-2 as escape character and repetition separator; those are delimiters, so they are read as ASCII.
    """
    if codec not in _ISO_2022:
        return content.decode(codec, errors)
    if lone := _LONE_ESCAPE.search(content):
        if errors != "strict":
            return "\ufffd".join([read(piece, codec, errors) for piece in _LONE_ESCAPE.split(content)])
        read(content[: lone.start()], codec)
        raise UnicodeDecodeError(codec, content, lone.start(), lone.end(), "an escape that leads nowhere")
    content = content.replace(_TO_JIS_ROMAN, _TO_ASCII)
    if _NOT_RETURNED.search(content):
        for end in (b"\r", b"\n"):
            content = content.replace(end, _TO_ASCII + end)
    return content.decode(codec, errors)


def first_flaw(content: bytes, codec: str) -> int:
    """Where the first bytes stand that `read` refuses; the length of `content` if there are none."""
    try:
        read(content, codec)
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        mended = len(error.object) > len(content)
        return error.start - mended * len(_TO_ASCII) * (before.count(b"\r") + before.count(b"\n"))
    return len(content)


def write(text: str, codec: str) -> bytes:
    """`text` in a codec, with `?` for every character that `read` would not give back: one that the set does not have,
    and one that would turn into a delimiter, as the yen sign does in Shift JIS."""
    written = text.encode(codec, "replace")
    if _reads_as(written, codec, text):
        return written
    kept = (char if _reads_as(char.encode(codec, "replace"), codec, char) else "?" for char in text)
    return "".join(kept).encode(codec)


def write_exactly(text: str, codec: str) -> bytes:
    """`text` in a codec. Raises UnicodeEncodeError for a character that `read` would not give back."""
    written = text.encode(codec)
    if not _reads_as(written, codec, text):
        raise UnicodeEncodeError(codec, text, 0, len(text), "a character reads back as another one")
    return written


def _reads_as(content: bytes, codec: str, text: str) -> bool:
    try:
        return read(content, codec) == text
    except UnicodeDecodeError:
        return False
