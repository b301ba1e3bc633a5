"""Tell which characters the bytes of a message stand for.

Secret: what people call character sets (HL7 table 0211 in MSH-18, the `encoding` of an address, IANA and vendor
names) and which of them MLLP can carry. Promise: a name gives the codec that reads it strictly, or an error that
says what to write instead; nobody guesses.
"""

from __future__ import annotations

from codecs import lookup
from encodings.aliases import aliases
from functools import lru_cache

from agent.errors import PeerError
from agent.protocol.hl7 import Header

_TABLE_0211 = {
    "UNICODE": "utf_8",  # kept by the standard for old senders; those that are left write UTF-8
    "UNICODE UTF-8": "utf_8",
    **{f"8859/{part}": f"iso8859_{part}" for part in (2, 3, 4, 5, 6, 7, 8, 9, 15)},
    "8859/1": "latin_1",
    "ISO IR6": "ascii",
    "ISO IR14": "shift_jis",  # JIS X 0201, one byte a character
    "ISO IR87": "iso2022_jp_2",  # JIS X 0208, reached by escape sequences
    "ISO IR159": "iso2022_jp_2",  # JIS X 0212, likewise
    "ISO IR192": "utf_8",  # a DICOM term, which imaging systems write into MSH-18 as well
    "JAS2020": "iso2022_jp_2",
    "JIS X 0202": "iso2022_jp_2",
    "GB 18030-2000": "gb18030",
    "KS X 1001": "euc_kr",
    "BIG-5": "big5",
}
# ASCII reads the same in each of these, so MSH can be read before it is known which one it is.
_CARRIED = frozenset(
    (
        *("ascii", "utf_8", "latin_1", "koi8_r", "koi8_u", "mac_roman", "tis_620"),
        *(f"iso8859_{part}" for part in (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16)),
        *(f"cp{page}" for page in (437, 850, 852, 855, 857, 858, 860, 861, 862, 863, 865, 866, 869, 874)),
        *(f"cp{page}" for page in range(1250, 1259)),
        *("big5", "big5hkscs", "cp950", "gb2312", "gbk", "gb18030", "euc_kr", "cp949"),
        *("shift_jis", "cp932", "euc_jp", "iso2022_jp", "iso2022_jp_2"),
    )
)
_LABEL_CHARS = 40
_ISO_2022 = frozenset(("iso2022_jp", "iso2022_jp_2"))
_TOO_WIDE = ("UTF16", "UTF32", "UNICODEUTF16", "UNICODEUTF32", "UCS", "ISO10646")


class UnknownCharset(PeerError):
    """A name that stands for no character set, or for one that MLLP cannot carry."""

    hint = "write a code of HL7 table 0211 such as UNICODE UTF-8 or 8859/1, or set `encoding` for this channel"


def _squash(label: str) -> str:
    """The letters and digits of a name: people agree on no more of it."""
    return "".join(filter(str.isalnum, label)).upper()


# A table of our own instead of codecs.lookup: that imports what a peer names, and remembers every failure for ever.
_CODECS = {
    **{_squash(module): module for module in _CARRIED},
    **{_squash(alias): module for alias, module in aliases.items() if module in _CARRIED},
    **{_squash(label): module for label, module in _TABLE_0211.items()},
}


@lru_cache(maxsize=64)
def codec_for(label: str) -> str:
    """The Python codec for a name: HL7 table 0211, IANA, or vendor's; case and punctuation do not matter.

    ASCII means ASCII: a byte above 0x7F will not decode. Raises UnknownCharset.
    """
    squashed = _squash(label[:_LABEL_CHARS])
    module = _CODECS.get(squashed)
    if module is not None and len(label) <= _LABEL_CHARS:  # a longer one would only fill the cache
        return lookup(module).name
    name = ascii(label[:_LABEL_CHARS])
    if squashed.startswith(_TOO_WIDE):
        raise UnknownCharset(
            f"the character set {name} cannot travel in MLLP, whose frames are made of single bytes",
            hint="let the sender write UTF-8 and name it UNICODE UTF-8",
            loggable="the declared character set cannot travel in MLLP",
        )
    # a sender whose segments run together has other fields where MSH-18 should be
    raise UnknownCharset(f"the character set {name} is unknown", loggable="the declared character set is unknown")


def codec_of(header: Header, channel_encoding: str | None) -> str:
    """The Python codec of a message: the channel's `encoding`, else (None, `auto`) MSH-18, else UTF-8.

    MSH-18 may repeat (§2.15.9.18): the first is the message's own set, the others are reached from it by ISO 2022
    escapes, so one of those decides for all. Raises UnknownCharset.
    """
    if channel_encoding and channel_encoding.lower() != "auto":
        return codec_for(channel_encoding)
    declared = header.charset
    if not declared:
        return "utf-8"
    repetition = header.encoding_characters[1:2]
    labels = declared.split(repetition) if repetition else [declared]
    codecs = [codec_for(label.decode("ascii", "replace")) for label in labels if label.strip()]
    return next((codec for codec in codecs if codec in _ISO_2022), codecs[0] if codecs else "utf-8")
