"""One sender: bytes become messages, answers become bytes, and whoever is too fast is pushed back on.

Secret: transports and their buffers, and what may yet be waited for and for how long.
Promise: `take` gets whole messages in order; `reply` reaches the sender framed, many in one write; one with too many
unanswered messages, or that does not read its answers, is not read from. Why there is no message is known within two
seconds.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, cast

from agent.net.keepalive import Silence, keep_alive
from agent.net.stranger import Stranger
from agent.net.tlswire import TlsFailure
from agent.protocol.forensics import Oddity
from agent.protocol.mllp import HEAD_BYTES, BrokenFrame, FrameUnfinished, NoRoom
from agent.spec import LineSpec

if TYPE_CHECKING:
    from agent.net.inlet import Inlet

HANDSHAKE_WITHIN_S: Final = 10.0
SILENCE_S: Final = 1.0  # from then on what is missing will hardly come
SPARED_BYTES: Final = 65_536  # of an unfinished message, which no lack of room is held against
_UNTOLD_BYTES: Final = 1 << 20  # a sender that leaves so much unread is told nothing more that it did not wait for


class Connection(Stranger):
    """One sender. `oddity`: what was odd about it last."""

    __slots__ = ("_gated", "_held", "_linger", "_lingering", "_odd", "_ours", "_paused", "_unread", "oddity")

    def __init__(self, inlet: Inlet) -> None:
        super().__init__(inlet)
        self._held = 0  # what of the common room is taken by this connection
        self._linger: asyncio.TimerHandle | None = None
        self._paused = False  # we do not read from it
        self._gated = False  # … because of the disk
        self._unread = False  # it does not read from us
        self._lingering = False
        self._ours = False  # it was we who ended it
        self.oddity: Oddity | None = None
        self._odd: tuple[Oddity, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether messages can come and answers can go."""
        return self.established and not self.gone and not self._closing

    # ---- what the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        inlet = self._inlet
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by conduct, not by descent
        self.remote, self.peer = inlet.ends(transport)
        if (unwanted := inlet.admits(self.peer)) is not None:
            self.gone = self._closing = self._ours = True
            self._transport.abort()
            self._events.turned_away(self.remote, unwanted)
            return
        self._keep_alive(inlet.line)
        self._silence = Silence(time.monotonic())
        inlet.connections.add(self)
        self._wire = inlet.secure()
        self._tls = self._wire is not None
        self._events.opened(self)
        if self._wire is not None:
            self._unseal(b"")

    def data_received(self, data: bytes) -> None:
        if not self._at_ease and not (data := self._first_look(data)):
            return
        self.bytes_in += len(data)
        framer = self._framer
        frames = framer.feed(data)
        if frames:
            if not self.frames:
                self._greet(frames[0])
            count = len(frames)
            self.frames += count
            self.unanswered += count
            events = self._events
            events.take(self, frames)
            if self.unanswered >= self._inlet.unanswered_limit:
                self._regulate()
            if events.crowded() and not self._gated:
                self._gated = True
                self._inlet.gate(self)
                self._regulate()
        elif not self._looked:
            self._recognise()
        if framer.begun or self._held:
            self._weigh()

    def eof_received(self) -> bool:
        if self._unsealed:
            self._refuse_plain_text(hurry=True)
        self._eof = True
        if self.gone or (self.unanswered <= 0 and not self._out):
            return False
        if self._linger is None:
            self._linger = asyncio.get_running_loop().call_later(self._inlet.half_closed_s, self.close)
        return True  # a sender that only half-closed still wants its answers

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self._out.clear()
        if self._linger is not None:
            self._linger.cancel()
        if self not in self._inlet.connections:
            return
        if not self._ours:
            self._explain_the_end()
        self._release()
        self._inlet.forget(self)
        self._events.closed(self)

    def pause_writing(self) -> None:
        self._unread = True
        self._regulate()

    def resume_writing(self) -> None:
        self._unread = False
        self._regulate()

    # ---- what flow says

    def reply(self, message: bytes) -> None:
        """Write one framed message, at the end of this turn of the loop: the answer to one of its frames."""
        self.unanswered -= 1
        self._put(message)
        if self._paused:
            self._regulate()

    def tell(self, message: bytes) -> bool:
        """Write one framed message that answers no frame; False to a sender that does not read what it is told."""
        if self.gone or not self.established:
            return False
        if self._unread and self._transport.get_write_buffer_size() > _UNTOLD_BYTES:
            return False
        self._put(message)
        return True

    def waive(self) -> None:
        """One of its frames gets no answer."""
        self.unanswered -= 1
        self._end_if_settled()
        self._regulate()

    def expect(self, more: int) -> None:
        """One of its frames gets so many answers more than the one."""
        self.unanswered += more

    def odd(self, oddity: Oddity) -> None:
        """Something is odd about it. Told once."""
        if oddity not in self._odd:
            self._odd += (oddity,)
            self.oddity = oddity
            self._events.odd(self, oddity)

    def close_after_reply(self) -> None:
        """Take no further frame, and close once everything owed is written and what the sender still sends has ended.

        Closing on unread bytes would reset the connection, and with it the answer that is on its way (RFC 9112 §9.6).
        """
        self._stop_taking()
        self._lingering = True
        if self._linger is not None:
            self._linger.cancel()
        self._linger = asyncio.get_running_loop().call_later(self._inlet.linger_s, self.abort)
        self._regulate()
        self._end_if_settled()

    # ---- what the inlet says

    def finish(self) -> None:
        """Read no more, and close once everything owed is written."""
        self._stop_taking()
        self._regulate()
        self._end_if_settled()

    def flush(self) -> None:
        out = self._out
        if not out or self.gone:
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        if self._wire is not None:
            data = self._seal(data)
        if data and not self._transport.is_closing():
            self._transport.write(data)
        if self._eof or self._closing:
            self._end_if_settled()

    def heed(self, line: LineSpec) -> None:
        """The terms of its channel have changed."""
        self._framing.heed(line, self._inlet.wire)
        self._keep_alive(line)

    def ungate(self) -> None:
        self._gated = False
        self._regulate()

    def close(self) -> None:
        """Write what there is, and close."""
        self._ours = self._ours or not self._eof
        self.flush()
        if not self.gone:
            self.gone = True
            self._say_goodbye()
        self._transport.close()

    def abort(self) -> None:
        """Close at once, whatever is not yet written."""
        self._ours = self._ours or not self._eof
        self.gone = True
        self._transport.abort()

    def sweep(self, now: float) -> None:
        """Some time has passed: has it been silent, or busy with one message, for too long?"""
        if self._closing or self.gone:
            return
        framer, line, silence = self._framer, self._inlet.line, self._silence
        message = self.frames + framer.truncated if framer.begun else None
        silence.note(now, self.bytes_in, message, reading=self._unread or not self._paused)
        if not self.established and not self._unsealed:
            if silence.age_s(now) >= HANDSHAKE_WITHIN_S:
                hint = "check that the other side speaks TLS, and the firewalls in between"
                self._fail(TlsFailure(f"no TLS handshake within {HANDSHAKE_WITHIN_S:g} s", hint=hint))
            return
        if message is not None and 0 < line.frame_timeout_s <= silence.message_s(now):
            self._break(Oddity.TOO_SLOW, FrameUnfinished(framer.head(HEAD_BYTES), line.frame_timeout_s))
            return
        silent_s = silence.silent_s(now, self.bytes_in)
        if silent_s < SILENCE_S:
            return
        if self._unsealed:
            self._refuse_plain_text(hurry=True)
            return
        if silence.first_of_its_kind() and (not self.frames or framer.skipped or message is not None):
            self._examine(now, over=False)
        if 0 < line.idle_timeout_s <= silent_s and self.unanswered <= 0 and message is None:
            self.odd(Oddity.IDLE)
            if self._transport.get_write_buffer_size():
                self.abort()  # closing would wait for a far end that does not read
            else:
                self.close()

    # ---- what is held, and the end

    def _weigh(self) -> None:
        """Account for what is held of a message that is not complete."""
        framer, room = self._framer, self._inlet.room
        if self._closing:
            return
        if framer.oversized is not None:
            self._break(Oddity.TOO_BIG, framer.oversized)
            return
        held = framer.buffered
        room.taken_bytes += held - self._held
        self._held = held
        if held > SPARED_BYTES and room.full:
            self._break(Oddity.NO_ROOM, NoRoom(framer.head(HEAD_BYTES)))

    def _release(self) -> None:
        self._inlet.room.taken_bytes -= self._held
        self._held = 0
        self._framer.drop()

    def _break(self, oddity: Oddity, error: BrokenFrame) -> None:
        """The message that has begun is not waited for any longer: one answer, and the end."""
        self._stop_taking()
        self.odd(oddity)
        self.unanswered += 1
        if not self._framing.can_refuse:
            self.close_after_reply()  # its answer will be none, and then it is too late to linger
        self._events.broken(self, error)

    def _stop_taking(self) -> None:
        """What comes from now on is thrown away, and so is the message that has begun."""
        self._ours = self._ours or not self._eof
        self._closing = True
        self._at_ease = self._unsealed = False
        self._release()

    def _put(self, message: bytes) -> None:
        out = self._out
        out.append(self._wrap(message))
        if len(out) == 1:
            self._inlet.mark_dirty(self)

    def _end_if_settled(self) -> None:
        if not (self._eof or self._closing) or self._out or self.unanswered > 0 or self.gone:
            return
        self.gone = True
        self._say_goodbye()
        if self._lingering and not self._eof and self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _keep_alive(self, line: LineSpec) -> None:
        connection = self._transport.get_extra_info("socket")
        if connection is not None:
            keep_alive(connection, line.keepalive_s)

    def _regulate(self) -> None:
        """Read from the sender, or not."""
        inlet = self._inlet
        limit = max(1, inlet.unanswered_limit // 2) if self._paused else inlet.unanswered_limit
        held = self._gated or self._unread or self._closing or self.unanswered >= limit
        wanted = self._lingering or not held
        if wanted is not self._paused or self._transport.is_closing():
            return
        self._paused = not wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()
