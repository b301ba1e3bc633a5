"""Receive at a serial port of this host.

Secret: how the port is opened and held for us alone, when it is tried again, and what each refusal of the system means
to the person who runs the cable.
Promise: until it is told to stop the port is open or tried again, for ever; `trouble` says in one sentence why it is
not open and what to do. An adapter that was pulled out and put back is found within seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import os
import threading
from pathlib import Path
from typing import Any, Final

from agent.backoff import Backoff, pause
from agent.errors import ConfigError, Finding, Severity
from agent.net.conversing import converse
from agent.net.inlet import Inlet, Room
from agent.net.serialtransport import Port, SerialTransport
from agent.net.tlswire import TlsWire
from agent.protocol.forensics import Oddity
from agent.spec import FlowControl, LineSpec, SerialSpec, Wire

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 5.0  # asking a port of our own costs nobody anything
PROVEN_AFTER_S: Final = 10.0  # a port that was open so long, or brought a message, was a good one
STALLED_S: Final = 10.0
_LET_GO_WITHIN_S: Final = 1.0
_LOOK_AGAIN_S: Final = 1.0
_KERNEL_BYTES: Final = 4_096  # what the system may hold of what was written; it takes no more until most is sent
_BITS_A_BYTE: Final = 12  # at most: start, eight of data, parity, two of stop
_SHOWN_PORTS: Final = 8


class SerialInlet(Inlet):
    """One serial port; while it is open it is the only connection, and both its ends are named as the device.

    `stalled_s`: for how long a device may take nothing of what is written to it, beyond what that takes on the line.
    Raises ConfigError where pyserial is not installed. `run` belongs in a TaskGroup; cancelled, it leaves the
    connection to `close`.
    """

    visited = False

    def __init__(
        self,
        serial: SerialSpec,
        *,
        line: LineSpec,
        room: Room,
        wire: Wire,
        unanswered: int = 64,
        backoff: Backoff | None = None,
        stalled_s: float = STALLED_S,
    ) -> None:
        super().__init__(line=line, identity=None, room=room, wire=wire, unanswered=unanswered)
        self._library = _pyserial(serial.device)
        self._serial = serial
        self._backoff = backoff or Backoff(FIRST_WAIT_S, LONGEST_WAIT_S)
        self._stalled_s = stalled_s
        self._leaving = asyncio.Event()
        self._opening: asyncio.Future[Port] | None = None
        self._transport: SerialTransport | None = None
        self._trouble = f"the serial port {serial.device} is not open yet"

    @property
    def port(self) -> int:
        return 0

    @property
    def listening(self) -> bool:
        return any(connection.ready for connection in self.connections)

    @property
    def trouble(self) -> str:
        """Why the port is not open and what to do; empty while it is open."""
        return "" if self.listening else self._trouble

    async def run(self) -> None:
        """Open the port, and open it again, until `stop_accepting`."""
        while not self._leaving.is_set():
            port = await self._open()
            if port is not None:
                await self._serve(port)
            if not self._leaving.is_set():
                await pause(self._leaving, self._backoff.next())

    def stop_accepting(self) -> None:
        """Open it no more. A connection that is there stays."""
        self._leaving.set()
        if self._opening is not None:
            self._opening.cancel()

    async def close(self, *, drain_s: float = 0.0) -> None:
        """As every inlet; returns when the port is let go, so that somebody else can have it, or after a second."""
        await super().close(drain_s=drain_s)
        if self._transport is not None:
            await pause(self._transport.ended, _LET_GO_WITHIN_S)

    def ends(self, transport: asyncio.BaseTransport) -> tuple[str, str]:
        return self._serial.device, self._serial.device

    def secure(self) -> TlsWire | None:
        return None

    def admits(self, host: str) -> Oddity | None:
        return None

    async def _serve(self, port: Port) -> None:
        """Until the port is closed again."""
        connection = converse(self)
        transport = self._transport = SerialTransport(
            self._loop, port, connection, name=self._serial.device, explain=self._explain
        )
        begun = self._loop.time()
        transport.begin()
        while connection in self.connections:
            self._one_less.clear()
            await self._one_less.wait()
        if connection.frames or self._loop.time() - begun >= PROVEN_AFTER_S:
            self._backoff.reset()
        self._trouble = transport.why or f"the serial port {self._serial.device} was closed and is opened again shortly"
        while not (transport.ended.is_set() or self._leaving.is_set()):
            await pause(transport.ended, _LOOK_AGAIN_S)

    async def _open(self) -> Port | None:
        """One try, in a thread of its own, for a driver may take its time. None: it failed; `trouble` says why."""
        opening: asyncio.Future[Port] = self._loop.create_future()

        def done(port: Port | None, trouble: str) -> None:
            if opening.done():
                if port is not None:
                    port.close()
            elif port is not None:
                opening.set_result(port)
            else:
                self._trouble = trouble
                opening.cancel()

        def work() -> None:
            port, trouble = None, ""
            try:
                port = self._opened()
            except Exception as error:  # OSError, ValueError, termios.error: whatever the driver comes up with
                trouble = refusal(self._serial.device, error, ports=self._ports())
            try:
                self._loop.call_soon_threadsafe(done, port, trouble)
            except RuntimeError:  # the loop has gone
                if port is not None:
                    port.close()

        self._opening = opening
        threading.Thread(target=work, name=f"serial:{self._serial.device}:opens", daemon=True).start()
        try:
            await asyncio.wait({opening})
        except asyncio.CancelledError:
            if not opening.cancel() and not opening.cancelled():
                opening.result().close()
            raise
        finally:
            self._opening = None
        if opening.cancelled():
            return None
        if self._leaving.is_set():
            opening.result().close()
            return None
        return opening.result()

    def _opened(self) -> Port:
        serial = self._serial
        port: Port = self._library.Serial(
            port=serial.device,
            baudrate=serial.baud_rate,
            bytesize=serial.data_bits,
            parity=serial.parity.value,
            stopbits=serial.stop_bits,
            xonxoff=serial.flow is FlowControl.XON_XOFF,
            rtscts=serial.flow is FlowControl.RTS_CTS,
            timeout=1.0,
            write_timeout=self._stalled_s + _KERNEL_BYTES * _BITS_A_BYTE / serial.baud_rate,
            exclusive=True,
        )
        return port

    def _explain(self, error: Exception) -> str:
        """Why it is open no longer."""
        device = self._serial.device
        if isinstance(error, (TimeoutError, self._library.SerialTimeoutException)):
            return f"the device at {device} takes nothing that is written to it: look at its cable and its flow control"
        return f"the serial port {device} has gone: plug its adapter in again, or look whether its device is on"

    def _ports(self) -> list[str]:
        with contextlib.suppress(Exception):  # a list to help a person, no more
            listing = importlib.import_module("serial.tools.list_ports")
            return sorted(str(entry.device) for entry in listing.comports())[:_SHOWN_PORTS]
        return []


def refusal(device: str, error: Exception, *, ports: list[str], windows: bool = os.name == "nt") -> str:
    """Why a port cannot be opened, in a sentence. `ports`: those that this host has."""
    match _number(error):
        case errno.ENOENT | errno.ENXIO | errno.ENODEV | errno.EIO:
            there = f"this host has {', '.join(ports)}" if ports else "this host has none at present"
            return f"there is no serial port {device}: plug it in, or correct the channel's address ({there})"
        case errno.EACCES | errno.EPERM if not windows:
            return f"this agent may not open {device}: add its user to the group {_group_of(device)} and restart it"
        case errno.EBUSY | errno.EAGAIN | errno.EACCES | errno.EPERM:
            return f"another program has the serial port {device} open: close that, or use another port"
        case errno.ENOTTY:
            return f"{device} is no serial port: correct the channel's address"
        case _ if isinstance(error, ValueError):
            return f"the serial port {device} cannot be set as the channel asks: {_plain(error)}"
        case _:
            return f"the serial port {device} cannot be opened, look at it and its cable: {_plain(error)}"


def _pyserial(device: str) -> Any:
    try:
        return importlib.import_module("serial")
    except ImportError:
        text = f"the serial port {device} needs the library pyserial, which is not installed"
        remedy = "pip install onprem-agent[serial] in the agent's environment, and restart it"
        raise ConfigError([Finding("channel.extra-missing", Severity.ERROR, text, remedy)]) from None


def _number(error: Exception) -> int | None:
    """The system's number for it; pyserial keeps it inside of texts here and there, and termios in its arguments."""
    number = getattr(error, "errno", None)
    if number is None and error.args and isinstance(error.args[0], int):
        number = error.args[0]
    if number is None:
        text = str(error)
        number = next((known for known, sign in _SIGNS.items() if sign in text), None)
    return number


_SIGNS: Final = {
    errno.ENOTTY: f"({errno.ENOTTY}, ",
    errno.EIO: f"({errno.EIO}, ",
    errno.ENOENT: "FileNotFoundError",  # Windows
    errno.EACCES: "PermissionError",  # Windows says so of a port that is taken
}


def _plain(error: Exception) -> str:
    return str(error).replace("\n", " ")[:200] or type(error).__name__


def _group_of(device: str) -> str:
    with contextlib.suppress(OSError, KeyError, NotImplementedError):
        return Path(device).group()
    return "dialout"
