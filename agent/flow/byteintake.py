"""Take messages of a device that speaks bytes between two characters.

Secret: that such a device has no word for "not stored": the end of its connection is the only one.
Promise: what the server's answer writes back was asked for by this message and goes to nobody else. A message that is
not stored ends the connection that brought it, so that the device does not go on as if all were well; what
`autoRespond` says is said by the line, and promises nothing.
"""

from __future__ import annotations

from agent.errors import AgentError, PeerError
from agent.flow.bodies import text_of_bytes
from agent.flow.reception import Reception
from agent.flow.replies import Sender
from agent.protocol.mllp import BrokenFrame
from agent.spec import ByteStream
from agent.store.row import Content, Row


class ByteIntake(Reception):
    """The door of a byte stream."""

    @property
    def at_commit(self) -> bool:
        return False

    def receive(self, sender: Sender, frames: list[bytes]) -> None:
        lane, spool = self._lane, self._spool
        for frame in frames:
            lane.metrics.bytes_in += len(frame)
            lane.metrics.received += 1
            spec = lane.spec
            if spec is None or not isinstance(spec.wire, ByteStream):
                self._refuse(sender, PeerError("this channel is switched off"), "channel-off")
                continue
            if spool.trouble is not None:
                self._refuse(sender, spool.trouble, "disk")
                continue
            try:
                text = text_of_bytes(frame, spec.wire)
            except PeerError as error:
                self._refuse(sender, error, "charset")
                continue
            if (too_large := self._too_large(len(frame), text)) is not None:
                self._refuse(sender, too_large, "too-large-for-server")
                continue
            row = Row(
                spool.next_id(),
                lane.name,
                sender.remote,
                sender.remote.encode(),
                b"",
                b"",
                self._now_ms(),
                frame,
                content=Content.BYTES,
            )
            row.text = text
            if spec.wire.ignore_response:
                sender.waive()
            else:
                self._replies.owe(row, sender, spec.ack_timeout_s)
            self._store(row)

    def broken(self, sender: Sender, error: BrokenFrame) -> None:
        self._lane.metrics.received += 1
        self._refuse(sender, error, "broken-frame")

    def durable(self, rows: list[Row]) -> None:
        """Nobody is told: the server's answer is the first word."""

    def refused(self, rows: list[Row], error: AgentError) -> None:
        for row in rows:
            self._replies.cut(row)
            self._note_refusal("disk", error)

    def late(self, row: Row) -> bytes | None:
        self._lane.metrics.timeouts += 1
        return None

    def mended(self) -> None:
        """Nothing waits here: what could not be stored was refused."""

    def _refuse(self, sender: Sender, error: AgentError, kind: str) -> None:
        sender.waive()
        sender.close_after_reply()
        self._lane.metrics.rejected += 1
        self._note_refusal(kind, error)
