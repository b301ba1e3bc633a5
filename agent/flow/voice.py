"""What we say to a sender in our own name.

Secret: how an acknowledgement of ours is dressed: its time stamp, its own control id, the reference by which a person
finds the message again.
Promise: every acknowledgement has a control id of its own and speaks the sender's delimiters, version and charset.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from agent.protocol.batch import Batch, build_batch_ack
from agent.protocol.charset import UnknownCharset, codec_of, reads_by_bytes
from agent.protocol.hl7 import Header, NotHl7, build_ack
from agent.protocol.text import legible
from agent.store.row import Row


class Voice:
    """Builds acknowledgements. `now_s` gives seconds since the epoch."""

    def __init__(self, now_s: Callable[[], float] = time.time) -> None:
        self._now_s = now_s
        self._first = self._last = int(now_s() * 1000)
        self._second = -1
        self._stamp = ""

    def say(self, header: Header | None, code: str, text: str, codec: str = "utf-8") -> bytes:
        """An acknowledgement: MSA-1 `code`, MSA-3 `text`."""
        self._last += 1
        return build_ack(header, code, text=text, control_id=b"%d" % self._last, when=self._when(), encoding=codec)

    def say_all(self, batch: Batch, answers: list[bytes], codec: str) -> bytes:
        """The answers to the messages of a batch, as one batch."""
        self._last += 1
        return build_batch_ack(batch, answers, control_id=b"%d" % self._last, when=self._when(), codec=codec)

    def is_ours(self, control_id: bytes) -> bool:
        """Whether this is the MSH-10 of an acknowledgement that we built since the process began."""
        return control_id.isdigit() and len(control_id) < 20 and self._first < int(control_id) <= self._last

    def answer(self, row: Row, code: str, text: str, encoding: str | None) -> bytes:
        """An acknowledgement of a stored message, with a reference by which a person finds it again."""
        header, codec = header_of(row, encoding)
        return self.say(header, code, f"{text} (ref {row.id})", codec)

    def _when(self) -> str:
        """HL7 time stamp with seconds and offset (v2.5.1 §2.A.77), one rendering a second."""
        second = int(self._now_s())
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y%m%d%H%M%S+0000", time.gmtime(second))
        return self._stamp


def header_of(row: Row, encoding: str | None) -> tuple[Header | None, str]:
    """MSH of a stored message and the codec its sender speaks (`encoding`: the channel's); UTF-8 where unreadable."""
    header: Header | None = row.header
    if header is not None and header.transcoded:
        return header, header.transcoded
    try:
        if header is None:
            header = Header.of(row.body)
        codec = codec_of(header, encoding)
    except NotHl7:
        return None, "utf-8"
    except UnknownCharset:
        return header, "utf-8"
    if not reads_by_bytes(codec):
        header = Header.of_text(legible(row.body, codec), codec)
    return header, codec
