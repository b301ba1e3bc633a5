"""The bare limit: what the daemon's loop could carry if it had no layers.

usage: python benchmarks/bare.py --server-port PORT --spool FILE [--no-uvloop]

Secret: the least that still keeps the central promise, with the libraries that the daemon uses. Frames are cut
out of socket reads, go into SQLite (WAL, synchronous=FULL) with one fsync for all that arrived during the last
one, then to the server in one write a batch, and its answers back to the senders in one write a connection. No
settings, log, order, retry, duplicates, deadlines, charsets, statistics or recovery.
Promise: no acknowledgement leaves before its message's COMMIT has returned. Prints the port that it listens on as
its only line; ends with the first lost connection to the server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import queue
import socket
import threading
from pathlib import Path
from typing import cast

import apsw
import msgspec
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.http11 import Response
from websockets.uri import parse_uri

TOKEN = "bench." + "0" * 200  # as long as the one that the stub gives to the daemon
IN_FLIGHT = 2_000  # the daemon's default window
SETTLE_LAG_S = 0.05


class Transmit(msgspec.Struct, tag_field="type", tag="agent:transmit:request", rename="camel", gc=False):
    access_token: str
    channel: str
    remote: str
    content_type: str
    body: str
    callback: str


class Answer(msgspec.Struct, tag_field="type", tag="agent:transmit:response", gc=False):
    callback: str
    body: str


class Welcome(msgspec.Struct, tag_field="type", tag="agent:connect:response", gc=False):
    pass


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Answer | Welcome).decode


class Loop:
    """The way of a message: arrived → committing → stored → asked (on the socket) → finished."""

    def __init__(self, spool: Path) -> None:
        self.loop = asyncio.get_running_loop()
        self.asked: dict[int, Sender] = {}
        self.next_id = 1
        self.link: Link
        self._arrived: list[tuple[int, Sender, bytes, bytes]] = []
        self._committing: list[tuple[int, Sender, bytes, bytes]] = []
        self._stored: list[tuple[int, Sender, bytes, bytes]] = []
        self._finished: list[tuple[int]] = []
        self._busy = False
        self._due = False
        self._lag: asyncio.TimerHandle | None = None
        self._database = apsw.Connection(str(spool))
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=2000", "cache_spill=OFF"):
            self._database.execute(f"PRAGMA {pragma}").fetchall()
        self._database.execute(
            "CREATE TABLE message(id INTEGER PRIMARY KEY, remote TEXT, control_id BLOB, body BLOB, done INTEGER)"
        )
        self._orders: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._returned = threading.Event()
        threading.Thread(target=self._commit_forever, daemon=True).start()

    def take(self, sender: Sender, body: bytes) -> None:
        control_id = body[: body.find(b"\r")].split(b"|", 10)[9]
        self._arrived.append((self.next_id, sender, control_id, body))
        self.next_id += 1
        if not self._due:
            self._due = True
            self.loop.call_soon(self._commit)

    def finish(self, row_id: int) -> None:
        self._finished.append((row_id,))
        if not self._busy and not self._due and self._lag is None:
            self._lag = self.loop.call_later(SETTLE_LAG_S, self._commit)

    def _commit(self) -> None:
        self._due = False
        if self._busy or not (self._arrived or self._finished):
            return
        if self._lag is not None:
            self._lag.cancel()
            self._lag = None
        rows, self._arrived = self._arrived, []
        done, self._finished = self._finished, []
        database = self._database
        database.execute("BEGIN IMMEDIATE")
        insert = "INSERT INTO message VALUES(?,?,?,?,0)"
        database.executemany(insert, [(row_id, sender.remote, name, body) for row_id, sender, name, body in rows])
        database.executemany("UPDATE message SET done=1 WHERE id=?", done)
        self._committing = rows
        self._busy = True
        self._returned.clear()
        self._orders.put(None)
        self.loop.call_later(0.002, self._let_it_return)

    def _let_it_return(self) -> None:
        # a busy loop can keep the interpreter lock from the commit thread for up to a second; the daemon does the same
        if self._busy and not self._returned.wait(0.0005):
            self.loop.call_later(0.002, self._let_it_return)

    def _commit_forever(self) -> None:
        while True:
            self._orders.get()
            self._database.execute("COMMIT")
            self._returned.set()
            self.loop.call_soon_threadsafe(self._on_disk)

    def _on_disk(self) -> None:
        rows = self._committing
        self._busy = False
        if not self._due:
            self._commit()
        self._stored += rows
        self.send()

    def send(self) -> None:
        room = IN_FLIGHT - len(self.asked)
        if not self._stored or room <= 0:
            return
        rows, self._stored = self._stored[:room], self._stored[room:]
        frames = []
        for row_id, sender, _, body in rows:
            self.asked[row_id] = sender
            text = body.decode()
            frames.append(
                encode(Transmit(TOKEN, "hl7", sender.remote, "x-application/hl7-v2+er7", text, f"{row_id:x}"))
            )
        self.link.send(frames)


class Sender(asyncio.Protocol):
    """One MLLP connection: frames in, acknowledgements out."""

    __slots__ = ("_core", "_rest", "out", "remote", "transport")

    def __init__(self, core: Loop) -> None:
        self._core = core
        self._rest = b""
        self.out: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        host, port = transport.get_extra_info("peername")[:2]
        self.remote = f"{host}:{port}"

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        start = 0
        while (end := data.find(28, start)) >= 0 and end + 1 < len(data):
            self._core.take(self, data[start + 1 : end])
            start = end + 2
        self._rest = data[start:]

    def flush(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(b"".join(self.out))
        self.out.clear()


class Link(asyncio.Protocol):
    """The WebSocket to the server, without the library's I/O layer. `live` is done once the server has said welcome."""

    def __init__(self, core: Loop, port: int) -> None:
        self._core = core
        self._frames = ClientProtocol(parse_uri(f"ws://127.0.0.1:{port}/ws/agent"), max_size=None)
        self.live: asyncio.Future[None] = core.loop.create_future()
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._frames.send_request(self._frames.connect())
        self._flush()

    def send(self, texts: list[bytes]) -> None:
        for text in texts:
            self._frames.send_text(text)
        self._flush()

    def _flush(self) -> None:
        self._transport.write(b"".join(self._frames.data_to_send()))

    def data_received(self, data: bytes) -> None:
        self._frames.receive_data(data)
        touched: list[Sender] = []
        for event in self._frames.events_received():
            if isinstance(event, Response):
                self.send([b'{"type":"agent:connect:request","accessToken":"bench","agentId":"bench"}'])
            elif isinstance(event, Frame):
                answer = decode(event.data)
                if isinstance(answer, Answer):
                    self._answered(answer, touched)
                else:
                    self.live.set_result(None)
        for sender in touched:
            sender.flush()
        self._core.send()

    def _answered(self, answer: Answer, touched: list[Sender]) -> None:
        row_id = int(answer.callback, 16)
        sender = self._core.asked.pop(row_id)
        self._core.finish(row_id)
        if not sender.out:
            touched.append(sender)
        sender.out.append(b"\x0b%b\x1c\r" % answer.body.encode())

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


async def serve(server_port: int, spool: Path) -> None:
    core = Loop(spool)
    core.link = Link(core, server_port)
    await core.loop.create_connection(lambda: core.link, "127.0.0.1", server_port)
    await core.link.live
    # the protocol is named because asyncio sets TCP_NODELAY on accepted connections only then
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    await core.loop.create_server(lambda: Sender(core), sock=listening, backlog=1024)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    print(listening.getsockname()[1], flush=True)
    await core.link.lost.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server-port", type=int, required=True, help="port of a Medplum-compatible server here")
    parser.add_argument("--spool", type=Path, required=True, help="file for the messages; it must not exist")
    parser.add_argument("--no-uvloop", action="store_true", help="the standard event loop")
    args = parser.parse_args()
    runner = asyncio.run
    if not args.no_uvloop:
        with contextlib.suppress(ImportError):  # the daemon goes without it too
            from uvloop import run as runner
    runner(serve(args.server_port, args.spool))


if __name__ == "__main__":
    main()
