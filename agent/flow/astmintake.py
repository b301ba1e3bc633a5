"""Take the sessions of an analyser, frame by frame.

Secret: that an analyser may forget each frame that was acknowledged (ASTM E1394 §6: what was sent before the record
level went down counts as saved), so that each has to be on the platter before its ACK, long before there is a message.
Promise: a frame is acknowledged only once it is on disk. What was acknowledged becomes one message when the session
ends, however it ends: by EOT, by silence, by a lost line, by a crash of ours; twice never, for the message bears the
name of its draft.

Power loss leaves drafts on the disk: `recover` makes messages of them at the next start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from agent.errors import AgentError, PeerError
from agent.flow.bodies import text_of_records
from agent.flow.lanes import Lane
from agent.flow.reception import Means, Reception
from agent.flow.replies import Sender
from agent.protocol.mllp import BrokenFrame
from agent.spec import Astm
from agent.store.drafts import Draft, Drafts, LeftDraft
from agent.store.row import Content, Row

UNFINISHED = "the analyser's session had no end"


@dataclass(slots=True)
class _Kept:
    """A message that is to be stored, and what the disk has of it already."""

    message: bytes
    remote: str
    name: str
    reason: str
    discard: Callable[[], None]


class AstmIntake(Reception):
    """The door of an analyser, or of several."""

    def __init__(self, lane: Lane, means: Means, drafts: Drafts) -> None:
        super().__init__(lane, means)
        self._drafts = drafts
        self._open: dict[Sender, Draft] = {}
        self._storing: dict[int, _Kept] = {}  # by row id
        self._waiting: list[_Kept] = []  # for a disk that takes them

    @property
    def at_commit(self) -> bool:
        return True

    def recover(self, left: Iterable[LeftDraft]) -> None:
        """Make messages of what an earlier process has acknowledged and not finished."""
        for draft in left:
            discard = partial(self._drafts.discard, draft)
            self._put(_Kept(draft.message, draft.remote, draft.name, UNFINISHED, discard))

    def keep(self, sender: Sender, piece: bytes, kept: Callable[[bool], None]) -> None:
        """Have one frame on the platter."""
        draft = self._open.get(sender)
        if draft is None:
            draft = self._open[sender] = self._drafts.begin(self._lane.name, sender.remote)
        draft.add(piece, kept)

    def receive(self, sender: Sender, frames: list[bytes]) -> None:
        for message in frames:
            self._take(sender, message, "")

    def remains(self, sender: Sender, message: bytes) -> None:
        """What was acknowledged of a session whose end will not come."""
        self._take(sender, message, UNFINISHED)

    def closed(self, sender: Sender) -> None:
        """Nothing more comes from it. A draft that is left holds no frame that was acknowledged; if it does hold
        anything, the next start makes a message of it."""
        self._open.pop(sender, None)

    def broken(self, sender: Sender, error: BrokenFrame) -> None:
        self._note_refusal("broken-frame", error)
        sender.close_after_reply()

    def durable(self, rows: list[Row]) -> None:
        for row in rows:
            kept = self._storing.pop(row.id, None)
            if kept is not None:
                self._lane.metrics.acknowledged += 1  # frame by frame, and it is one message now
                kept.discard()

    def refused(self, rows: list[Row], error: AgentError) -> None:
        for row in rows:
            kept = self._storing.pop(row.id, None)
            if kept is not None:
                self._waiting.append(kept)

    def mended(self) -> None:
        waiting, self._waiting = self._waiting, []
        for kept in waiting:
            self._put(kept)

    def late(self, row: Row) -> bytes | None:
        return None

    def _take(self, sender: Sender, message: bytes, reason: str) -> None:
        draft = self._open.pop(sender, None)
        if draft is None:
            return  # a session without a frame says nothing
        metrics = self._lane.metrics
        metrics.received += 1
        metrics.bytes_in += len(message)
        self._put(_Kept(message, sender.remote, draft.name, reason, draft.discard))

    def _put(self, kept: _Kept) -> None:
        spool, lane = self._spool, self._lane
        name = kept.name.encode()
        if spool.trouble is not None:
            self._waiting.append(kept)
            return
        known = spool.known(lane.name, name)
        if known is not None:
            if known.durable:
                kept.discard()
            return
        row = Row(
            spool.next_id(),
            lane.name,
            kept.remote,
            kept.remote.rpartition(":")[0].encode(),
            name,
            b"",
            self._now_ms(),
            kept.message,
            content=Content.ASTM,
        )
        row.reason = kept.reason
        self._storing[row.id] = kept
        self._warn_if_unreadable(row)
        self._store(row)

    def _warn_if_unreadable(self, row: Row) -> None:
        """It is stored all the same, as its frames are acknowledged; a person will find it held."""
        spec = self._lane.spec
        if spec is None or not isinstance(spec.wire, Astm):
            return
        try:
            row.text = text_of_records(row.body, spec.wire)
        except PeerError as error:
            self._note_refusal("charset", error)
