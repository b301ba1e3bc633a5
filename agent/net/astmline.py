"""One connection to an analyser: its sessions become messages, and our messages sessions.

Secret: transports and timers of an ASTM link (E1381), and what waits for the line to be free.
Promise: a frame is acknowledged only after `keep` has it on the platter; a session is taken whole, or what was kept of
it is told as its remains, before the connection is told to be closed; whoever posts a message hears of it exactly once,
later, whatever happens to the line.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, assert_never, cast

from agent.failures import Failure, Kind
from agent.net.keepalive import Silence, keep_alive
from agent.protocol.astm import Link
from agent.protocol.astmevents import Event, Keep, NotSent, Odd, Reason, Remains, Say, Sent, Session, State
from agent.protocol.astmframe import Fault
from agent.protocol.forensics import FIRST_BYTES, Evidence, Oddity, examine, shape
from agent.spec import Astm, LineSpec

if TYPE_CHECKING:
    from agent.net.inlet import Inlet

MOST_WAITING: Final = 100
TRIES: Final = 3  # of a message that the analyser interrupts, or that nobody would miss
SILENCE_S: Final = 1.0
SPARED_BYTES: Final = 65_536  # of an unfinished message, which no lack of room is held against

Done = Callable[[Failure | None], None]

_ODDITIES: Final = {
    Fault.CHECKSUM: Oddity.ASTM_CHECKSUM,
    Fault.NUMBER: Oddity.ASTM_NUMBER,
    Fault.MALFORMED: Oddity.NOT_ASTM,
    Fault.TOO_LONG: Oddity.TOO_BIG,
    Fault.TOO_BIG: Oddity.TOO_BIG,
    Fault.UNFINISHED: Oddity.ASTM_UNFINISHED,
    Fault.STRANGE: Oddity.NOT_ASTM,
}
_OTHER_PROTOCOLS: Final = (Oddity.HTTP, Oddity.TLS_ON_PLAIN)


@dataclass(slots=True, eq=False)
class _Post:
    """A message that waits for the line, or has it. `done` None: nobody asks what becomes of it."""

    message: bytes
    done: Done | None
    tries: int = 0
    in_doubt: bool = False


class AstmConnection(asyncio.Protocol):
    """One analyser. `frames`: sessions that came whole. Nothing is ever owed to it: `unanswered` stays 0."""

    def __init__(self, inlet: Inlet) -> None:
        self.remote = self.peer = self.failure = ""
        self.gone = False
        self.frames = self.unanswered = self.bytes_in = 0
        self.oddity: Oddity | None = None
        self._odd: tuple[Oddity, ...] = ()
        self._inlet = inlet
        self._events = inlet.events  # whoever takes over the inlet takes over no connection with it
        self._link = Link(max_bytes=inlet.line.max_message_bytes)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._silence: Silence
        self._first = b""
        self._posts: deque[_Post] = deque()  # the first one is under way if the link is sending
        self._leaving = False  # no further session begins
        self._ours = False  # it was we who ended it
        self._held = 0  # what of the common room is taken by this connection
        self._timer: asyncio.TimerHandle | None = None

    @property
    def established(self) -> bool:
        """There is no handshake."""
        return True

    @property
    def ready(self) -> bool:
        """Whether messages can come and go."""
        return not self.gone and not self._leaving

    @property
    def first_shape(self) -> str:
        """How its first bytes looked, without what they said."""
        return shape(self._first)

    def evidence(self, now: float, over: bool) -> Evidence:
        """What it has done so far. `now` is of `time.monotonic`."""
        return Evidence(
            first=self._first,
            bytes_in=self.bytes_in,
            frames=self.frames,
            skipped=self._link.skipped,
            open_bytes=self._link.buffered,
            open_head=b"",
            open_tail=b"",
            age_s=self._silence.age_s(now),
            silent_s=self._silence.silent_s(now, self.bytes_in),
            over=over,
            tls=False,
        )

    # ---- what the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        inlet = self._inlet
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by conduct, not by descent
        self.remote, self.peer = inlet.ends(transport)
        if (unwanted := inlet.admits(self.peer)) is not None:
            self.gone = self._leaving = self._ours = True
            self._transport.abort()
            self._events.turned_away(self.remote, unwanted)
            return
        self._keep_alive(inlet.line)
        self._silence = Silence(time.monotonic())
        inlet.connections.add(self)
        self._events.opened(self)

    def data_received(self, data: bytes) -> None:
        if self.gone:
            return
        self.bytes_in += len(data)
        if len(self._first) < FIRST_BYTES:
            self._first += data[: FIRST_BYTES - len(self._first)]
        self._perform(self._link.received(data, self._loop.time()))

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        if self not in self._inlet.connections:
            return
        if not self._ours:
            self._recognise(time.monotonic(), over=True)
        self._end()
        self._inlet.forget(self)
        self._events.closed(self)

    # ---- what flow says

    def tell(self, message: bytes) -> bool:
        """Send these records as a session of their own, when the line is free; False where too many wait for it."""
        if not self.ready or len(self._posts) >= MOST_WAITING:
            return False
        self._queue(_Post(message, None))
        return True

    def post(self, message: bytes, done: Done) -> None:
        """The same. `done` hears on the loop, later and once: None when every frame was acknowledged, else why not."""
        if not self.ready:
            self._loop.call_soon(done, self._stopping())
        elif len(self._posts) >= MOST_WAITING:
            text = f"{MOST_WAITING} messages already wait for the analyser at {self.remote}, and no more may"
            self._loop.call_soon(done, Failure(Kind.QUEUE_FULL, text, "push more slowly, or look why it takes so long"))
        else:
            self._queue(_Post(message, done))

    def reply(self, message: bytes) -> None:
        """An analyser waits for no answer: it gets it in a session of its own."""
        self.tell(message)

    def waive(self) -> None:
        """Nothing was owed."""

    def expect(self, more: int) -> None:
        """Nothing is owed."""

    def odd(self, oddity: Oddity) -> None:
        """Something is odd about it. Told once."""
        if oddity not in self._odd:
            self._odd += (oddity,)
            self.oddity = oddity
            self._events.odd(self, oddity)

    def close_after_reply(self) -> None:
        """Close once the session under way is over."""
        self.finish()

    # ---- what the inlet says

    def finish(self) -> None:
        """Let no further session begin, and close once the one under way is over."""
        if self._leaving:
            return
        self._leaving = True
        self._perform(self._link.stop(self._loop.time()))

    def flush(self) -> None:
        """Nothing gathers."""

    def heed(self, line: LineSpec) -> None:
        """The terms of its channel have changed."""
        self._link.max_bytes = line.max_message_bytes
        self._keep_alive(line)

    def ungate(self) -> None:
        """The disk holds an analyser back by its ACK alone."""

    def close(self) -> None:
        """Write what there is, and close."""
        if not self.gone:
            self.gone = self._leaving = self._ours = True
            self._end()
        self._transport.close()

    def abort(self) -> None:
        """Close at once, whatever is not yet written."""
        self._ours = self.gone = self._leaving = True
        self._transport.abort()

    def sweep(self, now: float) -> None:
        """Some time has passed: has it been silent for too long?"""
        if self.gone:
            return
        self._silence.note(now, self.bytes_in, None, reading=True)
        silent_s = self._silence.silent_s(now, self.bytes_in)
        if silent_s < SILENCE_S:
            return
        if self._silence.first_of_its_kind():
            self._recognise(now, over=False)
        idle_s = self._inlet.line.idle_timeout_s
        if 0 < idle_s <= silent_s and self._link.state is State.NEUTRAL and not self._posts:
            self.odd(Oddity.IDLE)
            self.close()

    # ---- the link

    def _perform(self, events: list[Event]) -> None:
        """Do what the link says, give it the next message if it is free for it, and wake up when it has to."""
        while events:
            for event in events:
                self._do(event)
            events = self._next()
        if self.gone:
            return
        self._weigh()
        if self._leaving and self._link.state is State.NEUTRAL:
            self.close()
        else:
            self._wake_by()

    def _do(self, event: Event) -> None:
        match event:
            case Say(data):
                if not self.gone and not self._transport.is_closing():
                    self._transport.write(data)
            case Keep(piece):
                self._keep(piece)
            case Session(message):
                self.frames += 1
                self._events.take(self, [message])
            case Remains(message):
                self._events.remains(self, message)
            case Sent():
                self._hear(self._posts.popleft(), None)
            case NotSent(reason, in_doubt):
                self._not_sent(reason, in_doubt)
            case Odd(what):
                self._fault(what)
            case _ as never:
                assert_never(never)

    def _keep(self, piece: bytes) -> None:
        if self._link.buffered > SPARED_BYTES and self._inlet.room.full:
            self.odd(Oddity.NO_ROOM)
            self._loop.call_soon(self._kept, False)
        else:
            self._events.keep(self, piece, self._kept)

    def _kept(self, ok: bool) -> None:
        self._perform(self._link.kept(ok, self._loop.time()))

    def _queue(self, post: _Post) -> None:
        self._posts.append(post)
        self._perform(self._next())

    def _next(self) -> list[Event]:
        if self.gone or self._leaving or self._link.sending or not self._posts:
            return []
        wire = self._inlet.wire
        if isinstance(wire, Astm):
            self._link.frame_bytes = wire.frame_bytes
        self._posts[0].tries += 1
        return self._link.send(self._posts[0].message, self._loop.time())

    def _not_sent(self, reason: Reason, in_doubt: bool) -> None:
        """The first of the posts had no luck."""
        post = self._posts[0]
        post.in_doubt = post.in_doubt or in_doubt
        hopeless = self._leaving or self.gone or reason in (Reason.RESTRICTED, Reason.EMPTY, Reason.CLOSED)
        if not hopeless and post.tries < TRIES and (post.done is None or reason is Reason.INTERRUPTED):
            return  # it is still the first
        self._posts.popleft()
        if post.done is None and not self._leaving:
            self.odd(Oddity.ASTM_NOT_TAKEN)
        self._hear(post, failure_of(reason, self.remote, post.in_doubt))

    def _hear(self, post: _Post, failure: Failure | None) -> None:
        if post.done is not None:
            self._loop.call_soon(post.done, failure)

    def _fault(self, fault: Fault) -> None:
        if fault is not Fault.STRANGE or not self._recognise(time.monotonic(), over=False):
            self.odd(_ODDITIES[fault])

    def _recognise(self, now: float, *, over: bool) -> bool:
        """Tell who speaks there instead of an analyser, and send it away if that is certain."""
        if self._link.called:
            return False
        verdict = examine(self.evidence(now, over))
        if verdict in _OTHER_PROTOCOLS:
            self.odd(verdict)
            self._loop.call_soon(self.close)
        elif verdict is Oddity.PROBE and self._inlet.visited and not self._posts:
            self.odd(verdict)
        elif self._link.skipped:
            self.odd(Oddity.NOT_ASTM)
        return verdict in _OTHER_PROTOCOLS

    def _wake_by(self) -> None:
        """One timer, at the link's deadline or before."""
        deadline = self._link.deadline
        if deadline is None:
            return
        if self._timer is not None:
            if self._timer.when() <= deadline:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._perform(self._link.tick(self._loop.time()))

    def _weigh(self) -> None:
        held = self._link.buffered
        self._inlet.room.taken_bytes += held - self._held
        self._held = held

    def _end(self) -> None:
        """Nothing more is said or heard here; everybody who waits is told."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for event in self._link.close(self._loop.time()):
            self._do(event)
        while self._posts:
            self._not_sent(Reason.CLOSED, in_doubt=False)
        self._weigh()

    def _stopping(self) -> Failure:
        return Failure(
            Kind.STOPPING, f"the connection to the analyser at {self.remote} is being closed", "push it again later"
        )

    def _keep_alive(self, line: LineSpec) -> None:
        connection = self._transport.get_extra_info("socket")
        if connection is not None:
            keep_alive(connection, line.keepalive_s)


def failure_of(reason: Reason, where: str, in_doubt: bool) -> Failure:
    """Why a message did not reach the analyser, for the person who pushed it."""
    match reason:
        case Reason.BUSY:
            kind, text = Kind.BUSY, f"the analyser at {where} was busy whenever it was asked to take something"
            remedy = "push again when it is idle, or look at its screen for why it is not"
        case Reason.NO_ANSWER:
            kind, text = Kind.SILENT, f"the analyser at {where} does not answer"
            remedy = "look whether its host interface is switched on and set to ASTM in both directions"
        case Reason.REFUSED:
            kind, text = Kind.NOT_TAKEN, f"the analyser at {where} refused one frame as often as it was sent"
            remedy = "look into its log for what it does not like; it may want shorter frames, or another charset"
        case Reason.INTERRUPTED:
            kind, text = Kind.INTERRUPTED, f"the analyser at {where} interrupted the message, and wants to send itself"
            remedy = "push again when it has sent its results"
        case Reason.RESTRICTED:
            kind, text = Kind.BAD_MESSAGE, "the records hold control characters that ASTM E1381 keeps for itself"
            remedy = "leave out 0x01 to 0x06 and 0x10 to 0x17"
        case Reason.EMPTY:
            kind, text, remedy = Kind.BAD_MESSAGE, "the message holds no record", "begin it with a header record H"
        case Reason.CLOSED:
            kind, text = Kind.CLOSED, f"the connection to the analyser at {where} was closed before it had everything"
            remedy = "push again when it is connected"
        case _ as never:
            assert_never(never)
    return Failure(kind, text, remedy, in_doubt=in_doubt)
