"""Receive messages over MLLP as the system behind an interface would, on its good and on its bad days.

Secret: how an answer is made late, wrong or not at all.
Promise: every message is reported once, kept (if it is to be kept) before it is acknowledged, and answered as told.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import assert_never

from agent.errors import LinkError
from agent.protocol.hl7 import Header, NotHl7, build_ack
from agent.protocol.mllp import Framer, wrap
from agent.ward.files import with_control_id
from agent.ward.tally import POSITIVE, printable

CLOSE_TIMEOUT_S = 1.0
ERROR_OF = {"AA": "AE", "CA": "CE"}
REJECTION_OF = {"AA": "AR", "AE": "AR", "CA": "CR", "CE": "CR"}


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer with this code (table 0008) after a delay; with an MSA-2 that nobody sent if `wrong_id`.

    `then`: a second answer of this code as much later again, as the application's answer after a CA.
    """

    code: str = "AA"
    delay_s: float = 0.0
    wrong_id: bool = False
    then: str = ""


@dataclass(frozen=True, slots=True)
class Silence:
    """Take the message and never answer."""


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close the connection instead of answering."""


Manner = Reply | Silence | HangUp


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What to do with each message, and otherwise with every `every`-th one (0 = never otherwise)."""

    manner: Manner = Reply()
    every: int = 0
    otherwise: Manner = Reply("AE")

    def of(self, number: int) -> Manner:
        """The manner for message `number`, counted from 1."""
        return self.otherwise if self.every and number % self.every == 0 else self.manner


@dataclass(frozen=True, slots=True)
class Received:
    """One message as it came, and what is done about it.

    `kind`: MSH-9.1^MSH-9.2, as ADT^A01; empty, like `control_id`, without an MSH; both fit for a terminal. `problem`:
    why it is refused, or empty.
    """

    number: int
    at: datetime
    remote: str
    kind: str
    control_id: str
    body: bytes
    manner: Manner
    problem: str = ""


class Receiver:
    """A listener at `host` and `port`. `received`: messages so far. `done`: set when `count` of them are dealt with."""

    def __init__(
        self,
        behaviour: Behaviour,
        *,
        report: Callable[[Received], None],
        save_to: Path | None = None,
        count: int | None = None,
    ) -> None:
        self._behaviour = behaviour
        self._report = report
        self._save_to = save_to
        self._count = count
        self._connections: set[_Connection] = set()
        self._owed = 0
        self.host = ""
        self.port = 0
        self.received = 0
        self.done = asyncio.Event()

    def take(self, body: bytes, remote: str, problem: str = "") -> tuple[Received, Header | None]:
        """Enter a message in the books: number it, keep it, report it. One that comes with a problem is refused."""
        self.received += 1
        self._owed += 1
        at = datetime.now(UTC)
        header: Header | None = None
        kind = control_id = ""
        try:
            header = Header.of(body)
        except NotHl7 as error:
            problem = problem or str(error)
        else:
            kind = printable(b"^".join(filter(None, (header.code, header.trigger))))
            control_id = printable(header.control_id)
        manner = self._behaviour.of(self.received)
        if problem:
            manner = _turned(manner, REJECTION_OF)
        elif self._save_to is not None:
            try:
                _save(body, self._save_to, at, self.received, kind, control_id)
            except OSError as error:
                problem = f"not saved: {error.strerror or error}"
                manner = _turned(manner, ERROR_OF)
        received = Received(self.received, at, remote, kind, control_id, body, manner, problem)
        self._report(received)
        return received, header

    def settled(self) -> None:
        """A message was dealt with: answered, passed over, or its sender is gone."""
        self._owed -= 1
        if self._count is not None and self.received >= self._count and not self._owed:
            self.done.set()

    @property
    def full(self) -> bool:
        """Whether as many messages came as were asked for."""
        return self._count is not None and self.received >= self._count

    def connected(self, connection: _Connection) -> None:
        self._connections.add(connection)

    def disconnected(self, connection: _Connection) -> None:
        self._connections.discard(connection)

    async def close(self) -> None:
        """Close all connections, the stubborn ones by force."""
        connections = tuple(self._connections)
        for connection in connections:
            connection.close()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                for connection in connections:
                    await connection.closed.wait()
        except TimeoutError:
            for connection in connections:
                connection.abort()


@asynccontextmanager
async def open_receiver(
    host: str,
    port: int,
    behaviour: Behaviour,
    *,
    report: Callable[[Received], None] = lambda received: None,
    save_to: Path | None = None,
    count: int | None = None,
) -> AsyncIterator[Receiver]:
    """A receiver that is listening; port 0 takes a free one. Leaving the context closes it and its connections.

    Raises LinkError if the address cannot be listened on.
    """
    receiver = Receiver(behaviour, report=report, save_to=save_to, count=count)
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(lambda: _Connection(receiver), host, port, backlog=1024)
    except OSError as error:
        raise LinkError(
            f"cannot listen on {host} port {port}: {error.strerror or error}",
            hint="choose another port or address, or stop the program that holds it",
        ) from error
    receiver.host, receiver.port = server.sockets[0].getsockname()[:2]
    try:
        yield receiver
    finally:
        server.close()
        await receiver.close()


class _Connection(asyncio.Protocol):
    """One sender."""

    _transport: asyncio.Transport

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._framer = Framer()
        self._remote = ""
        self._pending: set[asyncio.TimerHandle] = set()
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        address = transport.get_extra_info("peername") or ("", 0)
        self._remote = f"{address[0]}:{address[1]}"
        self._receiver.connected(self)

    def data_received(self, data: bytes) -> None:
        for body in self._framer.feed(data):
            if self._receiver.full or self._transport.is_closing():
                return
            self._deal_with(*self._receiver.take(body, self._remote))
        too_long = self._framer.oversized
        if too_long is not None and not self._transport.is_closing():
            received, header = self._receiver.take(too_long.head, self._remote, str(too_long))
            self._answer(received, header, Reply("AR"))
            self.close()

    def pause_writing(self) -> None:
        # A sender that does not read its answers gets no further messages in.
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in self._pending:
            timer.cancel()
            self._receiver.settled()
        self._pending.clear()
        self._receiver.disconnected(self)
        self.closed.set()

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def _deal_with(self, received: Received, header: Header | None) -> None:
        match received.manner:
            case Reply() as reply:
                self._answer_after(reply.delay_s, received, header, reply)
            case Silence():
                self._receiver.settled()
            case HangUp():
                self.close()
                self._receiver.settled()
            case _:
                assert_never(received.manner)

    def _answer_after(self, delay_s: float, received: Received, header: Header | None, reply: Reply) -> None:
        if not delay_s:
            self._answer(received, header, reply)
            return

        def answer() -> None:
            self._pending.discard(timer)
            self._answer(received, header, reply)

        timer = asyncio.get_running_loop().call_later(delay_s, answer)
        self._pending.add(timer)

    def _answer(self, received: Received, header: Header | None, reply: Reply) -> None:
        if reply.wrong_id and header is not None:
            header = Header.of(with_control_id(received.body, b"NOT-" + header.control_id))
        ack = build_ack(
            header,
            reply.code,
            text=received.problem or ("" if reply.code in POSITIVE else "this receiver was told to answer so"),
            control_id=f"ACK{received.number:010d}".encode(),
            when=datetime.now(UTC).strftime("%Y%m%d%H%M%S+0000"),
        )
        self._transport.write(wrap(ack))
        if reply.then:
            self._answer_after(reply.delay_s, received, header, Reply(reply.then, reply.delay_s))
        else:
            self._receiver.settled()


def _turned(manner: Manner, codes: Mapping[str, str]) -> Manner:
    """The same manner with a worse answer; who is silent stays silent."""
    if isinstance(manner, Reply):
        return Reply(codes.get(manner.code, manner.code), manner.delay_s)
    return manner


def _save(body: bytes, folder: Path, at: datetime, number: int, kind: str, control_id: str) -> None:
    """Keep the message as a file of its own, never over another one."""
    parts = (at.strftime("%Y%m%dT%H%M%S"), f"{number:06d}", _harmless(kind) or "unknown", _harmless(control_id))
    with (folder / f"{'-'.join(filter(None, parts))}.hl7").open("xb") as file:
        file.write(body)


def _harmless(text: str) -> str:
    """A sender's text as part of a file name."""
    return re.sub(r"[^A-Za-z0-9._]+", "_", text)[:40].strip("._")
