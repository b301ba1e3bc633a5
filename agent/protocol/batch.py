"""Take a batch apart, and answer it as one.

Secret: the batch protocol (HL7 v2.5.1 §2.10.3): what FHS, BHS, BTS and FTS enclose, which of them may be missing, and
what they count.
Promise: the messages come out exactly as they were sent, in order, each with a readable MSH, or the batch is refused
whole with a sentence; time and memory are linear in its bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agent.errors import PeerError
from agent.protocol.charset import read, reads_by_bytes, write
from agent.protocol.hl7 import DELIMITERS, NotHl7

MOST_SEGMENTS: Final = 100_000  # headers, messages and trailers of one frame: more would hold up everybody else

_SEGMENT: Final = re.compile(rb"[\r\n](MSH|FHS|BHS|BTS|FTS)(?=[\r\n!-/:-@\[-`{-~]|\Z)")
_LINE_END: Final = re.compile(rb"[\r\n]")
_COUNT: Final = re.compile(rb"\+?0*([0-9]{1,9})(?:\.0*)?")
# v2.6 and later let these segments follow FHS and BHS
_BEHIND_HEADER: Final = re.compile(rb"(?:[\r\n]+(?:SFT|UAC)[^\r\n]*)*")


class BadBatch(PeerError):
    """A batch that does not say what it holds, or holds something else than it says."""


class EmptyBatch(BadBatch):
    """A batch without messages. §2.10.3 lets a sender that must report regularly say so that there is nothing: it has
    `said` so, then, by a trailer. One without a trailer may have lost its messages on the way."""

    hint = "let the sender leave out batches that hold no message, or end them with BTS and the count 0"

    def __init__(self, *, said: bool) -> None:
        super().__init__("the batch holds no message")
        self.said = said


@dataclass(frozen=True, slots=True)
class Group:
    """The messages from one BHS to its BTS, either of which may be missing.

    `header` is BHS without its line end, with the segments SFT and UAC that follow it.
    """

    header: bytes | None
    messages: tuple[bytes, ...]
    trailer: bytes | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything in one frame. `file_header`: FHS, if the groups stand in a file."""

    file_header: bytes | None
    groups: tuple[Group, ...]

    @property
    def messages(self) -> tuple[bytes, ...]:
        """All messages in order, with the line ends that they came with."""
        return tuple(message for group in self.groups for message in group.messages)


def is_batch(body: bytes) -> bool:
    """Whether this begins as a batch does."""
    return body[:3] in (b"FHS", b"BHS") and body[3:4] in DELIMITERS


def split(body: bytes) -> Batch:
    """Take a batch apart. Raises BadBatch, EmptyBatch if it holds no message, NotHl7 if a header is unreadable."""
    if not is_batch(body):
        raise NotHl7(
            "the batch does not begin with an FHS or BHS segment",
            hint="let the sender begin each batch with FHS or BHS and its field separator, usually |",
        )
    splitter = _Splitter(body[3:4])
    start, name, taken = 0, body[:3], 0
    for segment in _SEGMENT.finditer(body, 3):
        if splitter.begins(body, segment.start(1), segment[1]):
            splitter.take(name, body[start : segment.start(1)])
            start, name, taken = segment.start(1), segment[1], taken + 1
            if taken > MOST_SEGMENTS:
                raise BadBatch(
                    f"the batch holds more than {MOST_SEGMENTS} messages and headers",
                    hint="let the sender divide it into several batches",
                )
    splitter.take(name, body[start:])
    return splitter.batch()


class _Splitter:
    """Follows the segments of a batch in their order."""

    def __init__(self, separator: bytes) -> None:
        self._separators = separator  # of the headers so far
        self._trailed = False
        self._file_header: bytes | None = None
        self._ended = False
        self._groups: list[Group] = []
        # the group that is open
        self._header: bytes | None = None
        self._messages: list[bytes] = []
        self._count = 0

    def begins(self, body: bytes, at: int, name: bytes) -> bool:
        """Whether a line that looks like a segment is one, not free text such as `MSH-3 is empty`.

        A segment has a separator of the headers so far, which are noted here; MSH, FHS and BHS may have delimiters of
        their own instead.
        """
        separator, behind = body[at + 3 : at + 4], body[at + 4 : at + 5]
        if name in (b"BTS", b"FTS"):
            return separator in b"\r\n" + self._separators
        if separator not in DELIMITERS:
            return False
        if separator not in self._separators:
            if behind not in DELIMITERS:
                return False
            if name != b"MSH":
                self._separators += separator
        return True

    def take(self, name: bytes, content: bytes) -> None:
        """One segment with all that follows it up to the next."""
        if self._ended:
            raise BadBatch("the batch goes on behind its FTS segment", hint="let the sender write FTS once, at the end")
        match name:
            case b"MSH":
                self._count += 1
                _check_delimiters(content, f"message {self._count} of the batch")
                self._messages.append(content)
            case b"FHS":
                if self._file_header is not None or self._groups or self._header is not None or self._messages:
                    raise BadBatch(
                        "an FHS segment stands in the middle of the batch",
                        hint="let the sender write FHS once, at the beginning, and one frame for each file",
                    )
                self._file_header = self._read_header(content, "FHS")
            case b"BHS":
                self._close(None)
                self._header = self._read_header(content, "BHS")
            case b"BTS":
                self._close(self._read_trailer(content, "BTS", self._header, (len(self._messages),), "messages"))
            case _:
                self._close(None)
                headed = sum(group.header is not None for group in self._groups)
                # Without a BHS there is one batch by the grammar, and none by the count of headers.
                expected = (headed, len(self._groups) or 1)
                self._read_trailer(content, "FTS", self._file_header, expected, "batches")
                self._ended = True

    def batch(self) -> Batch:
        """What was taken, checked as a whole."""
        self._close(None)
        if not self._count:
            raise EmptyBatch(said=self._trailed)
        return Batch(self._file_header, tuple(self._groups))

    def _close(self, trailer: bytes | None) -> None:
        if self._header is not None or self._messages:
            self._groups.append(Group(self._header, tuple(self._messages), trailer))
        self._header, self._messages = None, []

    def _read_header(self, content: bytes, name: str) -> bytes:
        _check_delimiters(content, name)
        end = _line_end(content)
        behind = _BEHIND_HEADER.match(content, end)
        end = behind.end() if behind else end
        _refuse_text_outside(content[end:], name)
        return content[:end]

    def _read_trailer(
        self, content: bytes, name: str, header: bytes | None, expected: tuple[int, ...], counted: str
    ) -> bytes:
        if header is None:
            raise BadBatch(
                f"the batch has a {name} segment without {name[0]}HS",
                hint=f"let the sender begin with {name[0]}HS what it ends with {name}",
            )
        end = _line_end(content)
        _refuse_text_outside(content[end:], name)
        self._trailed = True
        trailer = content[:end]
        fields = trailer.split(trailer[3:4], 2) if trailer[3:] else []
        if len(fields) > 1 and (count := fields[1].strip()):
            number = _COUNT.fullmatch(count)
            place = f"{name}-1 of batch {len(self._groups) + 1}" if name == "BTS" else f"{name}-1"
            hint = f"let the sender count the {counted} in {name}-1, or leave it empty"
            if number is None:
                raise BadBatch(f"{place} is no number", hint=hint)
            if int(number[1]) not in expected:
                raise BadBatch(f"{place} says {int(number[1])} {counted}, but {expected[-1]} came", hint=hint)
        return trailer


def build_batch_ack(
    batch: Batch, answers: Sequence[bytes], *, control_id: bytes, when: str, codec: str = "utf-8"
) -> bytes:
    """The answer to a batch: as many files and groups, with acknowledgements where messages were, in their order.

    `answers` belong to `batch.messages` one by one; one that is empty is not owed and left out (§2.10.3: a batch of no
    acknowledgements accepts all that it is the answer to). `control_id`: FHS-11 and BHS-11; where there are several
    groups, each BHS-11 has the group's number behind it. `when`: an HL7 time stamp. `codec`: the one of the answers.
    """
    pieces: list[bytes] = []
    taken = 0
    headed = sum(group.header is not None for group in batch.groups)
    if batch.file_header is not None:
        pieces.append(_answer_header(batch.file_header, control_id, when, codec))
    for number, group in enumerate(batch.groups, 1):
        if group.header is not None:
            own_id = control_id + b"%04d" % number if headed > 1 else control_id
            pieces.append(_answer_header(group.header, own_id, when, codec))
        owed = [answer for answer in answers[taken : taken + len(group.messages)] if answer]
        taken += len(group.messages)
        pieces += [answer if answer.endswith(b"\r") else answer + b"\r" for answer in owed]
        if group.header is not None:
            pieces.append(b"BTS%b%d\r" % (group.header[3:4], len(owed)))
    if batch.file_header is not None:
        pieces.append(b"FTS%b%d\r" % (batch.file_header[3:4], headed or 1))
    return b"".join(pieces)


def _answer_header(header: bytes, control_id: bytes, when: str, codec: str) -> bytes:
    """FHS or BHS back to where it came from: names swapped, field 11 our id, field 12 the one that is answered."""
    segment = header[: _line_end(header)]
    separator = segment[3:4]
    by_bytes = reads_by_bytes(codec)
    fields = (segment if by_bytes else read(segment, codec, "replace").encode()).split(separator)
    fields += [b""] * (11 - len(fields))
    back = [fields[0], fields[1], fields[4], fields[5], fields[2], fields[3], when.encode(), b"", b"", b""]
    answer = separator.join((*back, control_id, fields[10])).rstrip(b"\x1c")  # 0x1C and a CR would end the frame
    return (answer if by_bytes else write(answer.decode(), codec)) + b"\r"


def _check_delimiters(content: bytes, what: str) -> None:
    """MSH, FHS or BHS must name its encoding characters, or nobody can read or answer it."""
    if content[4:5] in (b"", b"\r", b"\n", content[3:4]):
        raise NotHl7(
            f"{what} names no encoding characters",
            hint="let the sender fill FHS-2, BHS-2 and MSH-2, usually with ^~\\&",
        )


def _refuse_text_outside(rest: bytes, name: str) -> None:
    if rest.strip():
        raise BadBatch(
            f"something that is no message stands behind {name}",
            hint="let the sender begin each message of the batch with MSH, and write nothing else between them",
        )


def _line_end(content: bytes) -> int:
    end = _LINE_END.search(content)
    return end.start() if end else len(content)
