"""Copy what is small out of a DICOM data set, however large it is.

Secret: how elements, sequences and fragments lie one behind the other (PS3.5 §7), in every transfer syntax.
Promise: what comes out is a data set in the same encoding that any reader reads, bounded in size, with no bulk data in
it; what is left out is left out whole. Memory does not depend on the size of what goes in. Damage ends the copy before
the element of the outermost level that it is in.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO, Final

IMPLICIT: Final = "1.2.840.10008.1.2"
EXPLICIT: Final = "1.2.840.10008.1.2.1"
BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
_GE_IMPLICIT: Final = "1.2.840.113619.5.2"  # a private syntax: implicit, but for its pixels
_DEFLATED: Final = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205")

BULK_BYTES: Final = 1_024  # a longer value of one of BULK_VRS is left out
VALUE_BYTES: Final = 65_536  # a longer value of any VR is left out
ELEMENT_BYTES: Final = 512 * 1024  # of one sequence, with all that is in it
EXTRACT_BYTES: Final = 1024 * 1024  # of all together
BULK_VRS: Final = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"UN"))

_LONG_VRS: Final = BULK_VRS | {b"SQ", b"SV", b"UC", b"UR", b"UT", b"UV"}  # 32 bits of length (PS3.5 table 7.1-1)
_PIXELS: Final = ((0x7FE0, 0x0008), (0x7FE0, 0x0009), (0x7FE0, 0x0010))
_ITEM, _ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_UNDEFINED: Final = 0xFFFF_FFFF
_DEPTH: Final = 32
_PIECE_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Extract:
    """`data`: the data set without what is large, in `syntax`: IMPLICIT, EXPLICIT or BIG_ENDIAN. `whole`: it was read
    to its end."""

    data: bytes
    syntax: str
    whole: bool


def extract(file: BinaryIO, transfer_syntax: str) -> Extract:
    """Read a data set from where the file stands. Raises what reading the file raises, and nothing for its content."""
    source = _Inflated(file) if transfer_syntax in _DEFLATED else _Plain(file)
    syntax = EXPLICIT
    if transfer_syntax in (IMPLICIT, _GE_IMPLICIT):
        syntax = IMPLICIT
    elif transfer_syntax == BIG_ENDIAN:
        syntax = BIG_ENDIAN
    copy = _Copy(source, "big" if syntax == BIG_ENDIAN else "little")
    try:
        copy.data_set(implicit=syntax == IMPLICIT)
    except _Damaged:
        return Extract(bytes(copy.out[: copy.complete]), syntax, whole=False)
    return Extract(bytes(copy.out), syntax, whole=True)


class _Damaged(Exception):
    """What follows is no element, or ends too early."""


class _Plain:
    """Bytes as they lie in the file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.position = 0
        here = file.tell()
        self._size = file.seek(0, 2) - here
        file.seek(here)

    def some(self, size: int) -> bytes:
        """Up to `size` bytes; fewer at the end."""
        data = self._file.read(size)
        self.position += len(data)
        return data

    def skip(self, size: int) -> None:
        """Raises _Damaged where there is not so much."""
        if self.position + size > self._size:
            raise _Damaged
        self._file.seek(size, 1)
        self.position += size


class _Inflated:
    """The bytes that deflated ones stand for (PS3.5 annex A.5)."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self.position = 0

    def some(self, size: int) -> bytes:
        data = b""
        while len(data) < size and not self._inflate.eof:
            deflated = self._inflate.unconsumed_tail or self._file.read(_PIECE_BYTES)
            try:
                piece = self._inflate.decompress(deflated, size - len(data))
            except zlib.error as error:
                raise _Damaged from error
            if not piece and not deflated:
                break
            data += piece
        self.position += len(data)
        return data

    def skip(self, size: int) -> None:
        while size > 0:
            piece = self.some(min(size, _PIECE_BYTES))
            if not piece:
                raise _Damaged
            size -= len(piece)


class _Copy:
    """`out`: what is copied so far; `complete`: how much of it are whole elements of the outermost level."""

    def __init__(self, source: _Plain | _Inflated, order: str) -> None:
        self.out = bytearray()
        self.complete = 0
        self._source = source
        self._tag = struct.Struct(">HH" if order == "big" else "<HH")
        self._short = struct.Struct(">H" if order == "big" else "<H")
        self._long = struct.Struct(">L" if order == "big" else "<L")
        self._full = False  # what follows of this element does not fit any more

    def data_set(self, *, implicit: bool) -> None:
        """The outermost level, to the end of the file."""
        while head := self._source.some(4):
            if len(head) < 4:
                raise _Damaged
            self._element(head, implicit, 0)
            if self._full:
                del self.out[self.complete :]
                self._full = False
            self.complete = len(self.out)

    def _element(self, head: bytes, implicit: bool, depth: int) -> None:
        tag = self._tag.unpack(head)
        if tag[0] == 0xFFFE or depth > _DEPTH:
            raise _Damaged
        vr = b""
        if not implicit:
            vr = self._exactly(2)
            if not (vr.isalpha() and vr.isupper()):
                raise _Damaged
        if not implicit and vr not in _LONG_VRS:
            length_bytes = self._exactly(2)
            length: int = self._short.unpack(length_bytes)[0]
            before = head + vr
        else:
            before = head + (vr + self._exactly(2) if vr else b"")
            length_bytes = self._exactly(4)
            length = self._long.unpack(length_bytes)[0]
        if length == _UNDEFINED and tag in _PIXELS:
            self._skip_fragments()
        elif length == _UNDEFINED and vr in (b"", b"SQ", b"UN"):
            self._sequence(before, None, implicit or vr == b"UN", depth)  # UN is implicit inside (PS3.5 §6.2.2)
        elif length == _UNDEFINED:
            self._skip_fragments()
        elif vr == b"SQ":
            self._sequence(before, self._source.position + length, implicit, depth)
        elif tag in _PIXELS or length > (BULK_BYTES if vr in BULK_VRS else VALUE_BYTES):
            self._large(before, length, implicit, depth, may_be_sequence=not vr and tag not in _PIXELS)
        else:
            self._put(before + length_bytes + self._exactly(length))

    def _large(self, before: bytes, length: int, implicit: bool, depth: int, *, may_be_sequence: bool) -> None:
        """Leave a value out, unless it is a sequence: implicit VR shows that by the item that it begins with only."""
        if not may_be_sequence:
            self._source.skip(length)
            return
        end = self._source.position + length
        first = self._exactly(4)
        if self._tag.unpack(first) == _ITEM:
            self._sequence(before, end, implicit, depth, begun=first)
        else:
            self._source.skip(length - 4)

    def _sequence(self, before: bytes, end: int | None, implicit: bool, depth: int, begun: bytes = b"") -> None:
        """Its items, up to a position, or to the delimiter; all of them with delimiters in the copy."""
        if depth >= _DEPTH:
            raise _Damaged
        self._put(before + self._long.pack(_UNDEFINED))
        while end is None or self._source.position < end or begun:
            head, begun = begun or self._exactly(4), b""
            tag = self._tag.unpack(head)
            length = self._long.unpack(self._exactly(4))[0]
            if tag == _SEQUENCE_END and end is None:
                break
            if tag != _ITEM:
                raise _Damaged
            self._put(head + self._long.pack(_UNDEFINED))
            self._item(None if length == _UNDEFINED else self._source.position + length, implicit, depth + 1)
            self._put(self._tag.pack(*_ITEM_END) + bytes(4))
        self._put(self._tag.pack(*_SEQUENCE_END) + bytes(4))

    def _item(self, end: int | None, implicit: bool, depth: int) -> None:
        while end is None or self._source.position < end:
            head = self._exactly(4)
            if end is None and self._tag.unpack(head) == _ITEM_END:
                self._exactly(4)
                return
            self._element(head, implicit, depth)

    def _skip_fragments(self) -> None:
        """Encapsulated pixels (PS3.5 annex A.4)."""
        while True:
            tag = self._tag.unpack(self._exactly(4))
            length = self._long.unpack(self._exactly(4))[0]
            if tag == _SEQUENCE_END:
                return
            if tag != _ITEM or length == _UNDEFINED:
                raise _Damaged
            self._source.skip(length)

    def _exactly(self, size: int) -> bytes:
        data = self._source.some(size)
        if len(data) < size:
            raise _Damaged
        return data

    def _put(self, data: bytes) -> None:
        size = len(self.out) + len(data)
        if self._full or size > EXTRACT_BYTES or size - self.complete > ELEMENT_BYTES:
            self._full = True
        else:
            self.out += data
