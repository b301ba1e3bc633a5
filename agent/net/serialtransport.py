"""A serial port as a transport of asyncio, so that whatever speaks over a socket speaks over a line.

Secret: the two threads that wait for the port, since no event loop can on every system, and how they end.
Promise: the loop never waits for the port. Bytes arrive in order, and bytes that were read before a failure arrive
before it is told; the reader stops `AHEAD_BYTES` ahead of a loop that does not take them. A device that takes nothing
for too long, or has gone, ends the connection, and `why` says so. After `close` or `abort` both threads end, the port
is let go, and then `ended` is set.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

AHEAD_BYTES: Final = 1 << 18  # read while the loop does not take them: most lines have no way to hold back a sender
HIGH_BYTES, LOW_BYTES, MOST_BYTES = 1 << 16, 1 << 14, 1 << 24  # written and not yet taken
_PIECE_BYTES: Final = 1_024
_READ_BYTES: Final = 1 << 16


class Port(Protocol):
    """An open serial port, as pyserial has it: `read` waits a second at most, `write` for as long as the device may
    take; both raise OSError, and both end soon once they are cancelled."""

    @property
    def in_waiting(self) -> int: ...
    def read(self, size: int) -> bytes: ...
    def write(self, data: bytes) -> int | None: ...
    def cancel_read(self) -> None: ...
    def cancel_write(self) -> None: ...
    def reset_output_buffer(self) -> None: ...
    def close(self) -> None: ...


class SerialTransport(asyncio.Transport):
    """One open port. `explain` puts what went wrong into a sentence. `why`: that sentence, once something has."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        port: Port,
        protocol: asyncio.Protocol,
        *,
        name: str,
        explain: Callable[[Exception], str],
    ) -> None:
        super().__init__()
        self.why = ""
        self.ended = asyncio.Event()
        self._loop = loop
        self._port = port
        self._protocol = protocol
        self._name = name
        self._explain = explain
        # of the loop alone
        self._closing = False
        self._lost = False
        self._paused = False
        self._unread = False
        # of all threads, under the lock; `_changed` tells of each change that somebody may wait for
        self._changed = threading.Condition()
        self._arrived: deque[bytes] = deque()
        self._arrived_bytes = 0
        self._told = False  # the loop will look at what has arrived
        self._leaving: deque[bytes] = deque()
        self._leaving_bytes = 0
        self._finishing = False  # nothing more is read, and what there is to write is written
        self._stopped = threading.Event()  # … nor written
        self._threads = 2

    def begin(self) -> None:
        """Tell the protocol, and read from here on."""
        self._protocol.connection_made(self)
        for work, what in ((self._read, "reads"), (self._write, "writes")):
            threading.Thread(target=work, name=f"serial:{self._name}:{what}", daemon=True).start()

    # ---- what the protocol says

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default  # there is no socket, and nobody has an address

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            self._loop.call_soon(self._deliver)

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self._leaving_bytes

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Have it written, in order. Nothing once the transport closes."""
        if self._closing or not data:
            return
        with self._changed:
            self._leaving.append(bytes(data))
            self._leaving_bytes += len(data)
            waiting = self._leaving_bytes
            self._changed.notify_all()
        if waiting > MOST_BYTES:
            self._loop.call_soon(self._fail, TimeoutError())  # whoever writes does not expect to be lost meanwhile
        elif waiting > HIGH_BYTES and not self._unread:
            self._unread = True
            self._protocol.pause_writing()

    def close(self) -> None:
        """Read no more, write what there is, and end."""
        if not self._closing:
            self._closing = True
            self._end(at_once=False)

    def abort(self) -> None:
        """End, whatever is not yet written."""
        self._closing = True
        self._end(at_once=True)
        self._loop.call_soon(self._lose, None)

    # ---- on the loop

    def _deliver(self) -> None:
        """Give what has arrived to whoever wants it, unless that has to wait."""
        with self._changed:
            self._told = False
        if not self._paused and not self._closing:
            self._give()

    def _give(self) -> None:
        with self._changed:
            data = b"".join(self._arrived)
            self._arrived.clear()
            self._arrived_bytes = 0
            self._changed.notify_all()
        if data:
            self._protocol.data_received(data)

    def _drained(self) -> None:
        if self._unread and not self._closing and self._leaving_bytes <= LOW_BYTES:
            self._unread = False
            self._protocol.resume_writing()

    def _fail(self, error: Exception) -> None:
        """The port is of no use any more."""
        if self._lost:
            return
        self.why = self.why or self._explain(error)
        if not self._closing:
            self._give()
        self._closing = True
        self._end(at_once=True)
        self._lose(error)

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self._protocol.connection_lost(error)

    def _over(self) -> None:
        self._closing = True
        self._lose(None)
        self.ended.set()

    def _end(self, *, at_once: bool) -> None:
        with self._changed:
            self._finishing = True
            if at_once:
                self._stopped.set()
            if self._threads:
                self._port.cancel_read()
                if at_once:
                    self._port.cancel_write()
            self._changed.notify_all()

    # ---- in the threads

    def _read(self) -> None:
        port = self._port
        with self._accounted_for():
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._arrived_bytes < AHEAD_BYTES or self._finishing)
                    if self._finishing:
                        return
                data = port.read(1)
                if not data:
                    continue
                if more := port.in_waiting:
                    data += port.read(min(more, _READ_BYTES))
                with self._changed:
                    self._arrived.append(data)
                    self._arrived_bytes += len(data)
                    wake, self._told = not self._told, True
                if wake:
                    self._on_loop(self._deliver)

    def _write(self) -> None:
        with self._accounted_for():
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._leaving or self._finishing)
                    if self._stopped.is_set() or not self._leaving:
                        return
                    data = self._leaving[0]
                for at in range(0, len(data), _PIECE_BYTES):
                    if self._stopped.is_set():
                        return
                    piece = data[at : at + _PIECE_BYTES]
                    self._port.write(piece)
                    with self._changed:
                        before = self._leaving_bytes
                        self._leaving_bytes -= len(piece)
                    if before > LOW_BYTES >= before - len(piece):
                        self._on_loop(self._drained)
                with self._changed:
                    self._leaving.popleft()

    @contextlib.contextmanager
    def _accounted_for(self) -> Iterator[None]:
        """Tell what went wrong in this thread; the last one to end lets go of the port."""
        try:
            yield
        except Exception as error:  # whatever a driver comes up with: OSError, termios.error, TypeError
            if not self._stopped.is_set():
                self._on_loop(self._fail, error)
        with self._changed:
            self._threads -= 1
            last, dropping = not self._threads, self._stopped.is_set()
        if last:
            with contextlib.suppress(Exception):
                if dropping:
                    self._port.reset_output_buffer()  # else the system would wait for it to be sent
            with contextlib.suppress(Exception):
                self._port.close()
            self._on_loop(self._over)

    def _on_loop(self, call: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has gone: nobody waits any more
            self._loop.call_soon_threadsafe(call, *arguments)
