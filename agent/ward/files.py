"""Read HL7 messages out of whatever people keep them in.

Secret: the forms in which files hold messages: one or many, segments ended by CR, LF or CRLF, MLLP frames or none,
batch envelopes (HL7 v2.5.1 §2.10.3), byte order marks, folders.
Promise: every message comes out once and in order, in memory bounded by one message; whatever in a file is no message
is named by file and place, never by content, and stops nothing.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from agent.protocol.hl7 import normalize
from agent.protocol.mllp import END, START

CHUNK_BYTES = 1024 * 1024
LIMIT_BYTES = 64 * 1024 * 1024
# How far a file is searched for its first message before its form is decided.
HEAD_BYTES = 64 * 1024

_LINE_ENDS = b"\r\n"
_ENVELOPE = re.compile(rb"(?:FHS|BHS|BTS|FTS)(?![A-Za-z0-9])")
_ENVELOPE_AFTER_MESSAGE = re.compile(rb"[\r\n](?=(?:FHS|BHS|BTS|FTS)(?![A-Za-z0-9]))")
_LINE = re.compile(rb"[^\r\n]+")


@dataclass(frozen=True, slots=True)
class Found:
    """A message and where it stands: `offset` in bytes from the start of the file (of its UTF-8 form, for UTF-16)."""

    path: Path
    offset: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is no message. `text` continues the sentence "<file> at byte <offset>: …"."""

    path: Path
    offset: int
    text: str

    def __str__(self) -> str:
        return f"{self.path} at byte {self.offset}: {self.text}"


def read_messages(
    paths: Iterable[Path], *, limit_bytes: int = LIMIT_BYTES, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[Found | Problem]:
    """All messages of these files and, recursively and in order of name, folders (hidden files left out).

    A framed message comes out as the bytes in its frame. An unframed one has its segment ends turned into CR, the last
    one included, because editors and transfers change them. A message above `limit_bytes` is a problem.
    """
    for path in paths:
        if path.is_dir():
            files = [found for found in sorted(path.rglob("*")) if found.is_file() and not _is_hidden(found, path)]
            if not files:
                yield Problem(path, 0, "the folder holds no files")
        else:
            files = [path]
        for file in files:
            try:
                yield from _read_file(file, limit_bytes, chunk_bytes)
            except OSError as error:
                yield Problem(file, 0, f"cannot be read: {error.strerror or error}")


def recode(body: bytes, codec: str) -> bytes:
    """The message in another character set. It is read as UTF-8, or as Latin-1 where it is not; MSH-18 stays as it is.

    Raises UnicodeEncodeError where `codec` lacks a character.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        text = body.decode("latin-1")
    return text.encode(codec)


def with_control_id(body: bytes, control_id: bytes) -> bytes:
    """The message with MSH-10 replaced, missing fields padded. What has no MSH comes back as it is."""
    end = len(body)
    for line_end in (b"\r", b"\n"):
        place = body.find(line_end, 0, end)
        end = place if place >= 0 else end
    separator = body[3:4]
    if body[:3] != b"MSH" or not separator or end < 5:
        return body
    fields = body[:end].split(separator)
    fields += [b""] * (10 - len(fields))
    fields[9] = control_id
    return separator.join(fields) + body[end:]


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _read_file(path: Path, limit: int, chunk_bytes: int) -> Iterator[Found | Problem]:
    start, chunks = _open(path, chunk_bytes)
    head, framed = b"", False
    for chunk in chunks:
        head += chunk
        first = _next_message(head, 0)
        frame = head.find(START)
        framed = 0 <= frame < (first if first >= 0 else len(head))
        if first >= 0 or framed or len(head) >= HEAD_BYTES:
            break
    cut = _framed if framed else _unframed
    seen = False
    for item in cut(path, start, chain((head,), chunks), limit):
        seen = True
        yield item
    if not seen:
        yield Problem(path, start, "holds no HL7 message (no line begins with MSH)")


def _open(path: Path, chunk_bytes: int) -> tuple[int, Iterator[bytes]]:
    """Where the text begins, and the text in pieces without a byte order mark; UTF-16 as UTF-8."""
    with path.open("rb") as file:
        mark = file.read(3)
    if mark[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return 0, _utf16(path, chunk_bytes)
    start = 3 if mark == codecs.BOM_UTF8 else 0
    return start, _chunks(path, start, chunk_bytes)


def _chunks(path: Path, start: int, chunk_bytes: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(chunk_bytes):
            yield chunk


def _utf16(path: Path, chunk_bytes: int) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder("utf-16")("replace")
    for chunk in _chunks(path, 0, chunk_bytes):
        yield decoder.decode(chunk).encode()


def _next_message(buffer: bytes | bytearray, begin: int) -> int:
    """Where, from `begin` on, a line starts with MSH and a separator; -1 if that is not (yet) to be seen."""
    place = buffer.find(b"MSH", begin)
    while place >= 0:
        follower = buffer[place + 3 : place + 4]
        at_line_start = place == 0 or buffer[place - 1] in _LINE_ENDS
        if at_line_start and follower and not follower.isalnum() and follower not in _LINE_ENDS:
            return place
        place = buffer.find(b"MSH", place + 1)
    return -1


def _unframed(path: Path, base: int, chunks: Iterable[bytes], limit: int) -> Iterator[Found | Problem]:
    """Cut at every line that begins with MSH. `base`: the offset in the file of the buffer's first byte."""
    buffer = bytearray()
    searched = 0
    inside = too_long = False
    for chunk in chunks:
        buffer += chunk
        begin = 0
        while (place := _next_message(buffer, searched)) >= 0:
            if not too_long:
                yield from _cut_piece(path, base + begin, bytes(buffer[begin:place]), inside)
            inside, too_long = True, False
            begin, searched = place, place + 1
        # A start that is cut by the end of the chunk is found with the next one; its line end must still be there then.
        searched = max(searched, len(buffer) - 3) - begin
        del buffer[:begin]
        base += begin
        if len(buffer) > limit or too_long:
            if not too_long:
                yield Problem(path, base, f"more than {limit} bytes without the end of a message; left out")
            too_long = True
            dropped = max(len(buffer) - 4, 0)
            del buffer[:dropped]
            base += dropped
            searched = min(1, len(buffer))
    if not too_long:
        yield from _cut_piece(path, base, bytes(buffer), inside)


def _cut_piece(path: Path, offset: int, piece: bytes, is_message: bool) -> Iterator[Found | Problem]:
    """A message and the envelope lines behind it; before the first message there can only be envelope lines."""
    if not is_message:
        yield from _stray(path, offset, piece)
        return
    envelope = _ENVELOPE_AFTER_MESSAGE.search(piece)
    end = envelope.start() if envelope else len(piece)
    yield Found(path, offset, normalize(piece[:end]).rstrip(b"\r") + b"\r")
    yield from _stray(path, offset + end, piece[end:])


def _stray(path: Path, offset: int, text: bytes) -> Iterator[Problem]:
    """Name the first line that is neither blank nor part of a batch envelope."""
    for line in _LINE.finditer(text):
        # 0x1A closes files that came from DOS; NUL pads those that came from tapes and mainframes.
        if line[0].strip(b" \t\x00\x1a") and not _ENVELOPE.match(line[0]):
            yield Problem(path, offset + line.start(), "text that belongs to no message; left out")
            return


def _framed(path: Path, base: int, chunks: Iterable[bytes], limit: int) -> Iterator[Found | Problem]:
    """Take the MLLP frames. 0x1C may be followed by LF or the end of the file: editors change line ends there too."""
    buffer = bytearray()
    searched = 0
    inside = skipping = False
    for chunk in chain(chunks, (None,)):
        last = chunk is None
        buffer += chunk or b""
        begin = 0
        while True:
            if not inside:
                start = buffer.find(START, begin)
                if start < 0:
                    break
                if not skipping:
                    yield from _stray(path, base + begin, bytes(buffer[begin:start]))
                inside, skipping, begin = True, False, start + 1
                searched = begin
            end = _frame_end(buffer, searched, last)
            if end < 0:
                searched = max(len(buffer) - 1, begin)
                break
            yield from _frame(path, base + begin, bytes(buffer[begin:end]))
            inside, begin = False, end + 1
            if buffer[begin : begin + 1] and buffer[begin] in _LINE_ENDS:
                begin += 1
        del buffer[:begin]
        base += begin
        searched = max(searched - begin, 0)
        if last:
            if inside:
                yield Problem(path, base, "the last frame has no end block (0x1C 0x0D); left out")
            elif not skipping:
                yield from _stray(path, base, bytes(buffer))
        elif skipping or len(buffer) > limit:
            if not skipping:
                what = "a frame" if inside else "text outside frames"
                yield Problem(path, base, f"{what} of more than {limit} bytes; left out")
            base += len(buffer)
            buffer.clear()
            searched = 0
            inside, skipping = False, True


def _frame_end(buffer: bytearray, begin: int, last: bool) -> int:
    """Where the end block of the open frame stands, -1 if it has not come yet."""
    end = buffer.find(END, begin)
    while 0 <= end < len(buffer) - 1:
        if buffer[end + 1] in _LINE_ENDS:
            return end
        end = buffer.find(END, end + 1)
    return end if last else -1


def _frame(path: Path, offset: int, content: bytes) -> Iterator[Found | Problem]:
    """A frame's message; a start block inside means that the writer gave up on what stands before it."""
    restart = content.rfind(b"\x0bMSH")
    if restart >= 0:
        yield Problem(path, offset, "a frame without an end block (0x1C 0x0D); left out")
        offset, content = offset + restart + 1, content[restart + 1 :]
    if content:
        yield Found(path, offset, content)
    else:
        yield Problem(path, offset, "an empty frame; left out")
