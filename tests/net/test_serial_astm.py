"""An analyser at a serial line: the same link as over a socket, through a pseudo-terminal."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from astm_instrument import ACK, ENQ, EOT, RESULT, frames_of
from net_far_ends import WITHIN_S, Ward, on_both_loops

from agent.backoff import Backoff
from agent.net.inlet import Conversation, InletEvents, Room
from agent.spec import Astm, LineSpec, SerialSpec

if sys.platform == "win32":
    pytest.skip("there are no pseudo-terminals", allow_module_level=True)

import pty

from agent.net.astmline import AstmConnection
from agent.net.serialport import SerialInlet


class Bench(Ward):
    """A ward that keeps pieces in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[bytes] = []
        self.left: list[bytes] = []

    @property
    def events(self) -> InletEvents:
        return replace(super().events, keep=self._keep, remains=self._remains)

    def _keep(self, conversation: Conversation, piece: bytes, kept: Callable[[bool], None]) -> None:
        self.kept.append(piece)
        asyncio.get_running_loop().call_soon(kept, True)

    def _remains(self, conversation: Conversation, message: bytes) -> None:
        self.left.append(message)


@asynccontextmanager
async def analyser(path: Path) -> AsyncIterator[tuple[Bench, int]]:
    """A port that is open, and the analyser's end of its cable."""
    device, port = pty.openpty()
    os.set_blocking(device, False)
    path.symlink_to(os.ttyname(port))
    ward = Bench()
    ward.inlet = inlet = SerialInlet(
        SerialSpec(str(path)), line=LineSpec(), room=Room(1 << 26), wire=Astm(), backoff=Backoff(0.01, 0.01)
    )
    inlet.events = ward.events
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(inlet.run())
        await ward.until(lambda: inlet.listening)
        try:
            yield ward, device
        finally:
            await inlet.close()
            path.unlink()
            for end in (device, port):
                os.close(end)


async def hears(device: int, expected: bytes) -> None:
    heard = b""
    async with asyncio.timeout(WITHIN_S):
        while heard != expected:
            assert expected.startswith(heard)
            try:
                heard += os.read(device, len(expected) - len(heard))
            except BlockingIOError:
                await asyncio.sleep(0.01)


@on_both_loops
async def test_a_session_of_an_analyser_is_one_message(tmp_path: Path) -> None:
    async with analyser(tmp_path / "ttyLAB") as (ward, device):
        os.write(device, ENQ)
        await hears(device, ACK)
        for frame in frames_of(RESULT):
            os.write(device, frame)
            await hears(device, ACK)
        os.write(device, EOT)
        message = b"".join(record + b"\r" for record in RESULT)
        await ward.until(lambda: ward.frames == [message])
        assert b"".join(ward.kept) == message
        [connection] = ward.connections
        assert connection.remote == connection.peer == str(tmp_path / "ttyLAB")
        assert not ward.oddities


@on_both_loops
async def test_an_analyser_is_sent_what_is_for_it(tmp_path: Path) -> None:
    async with analyser(tmp_path / "ttyLAB") as (ward, device):
        [connection] = ward.connections
        assert isinstance(connection, AstmConnection)
        heard: list[object] = []
        connection.post(b"H|\\^&\rL|1|N\r", heard.append)
        await hears(device, ENQ)
        for frame in frames_of([b"H|\\^&", b"L|1|N"]):
            os.write(device, ACK)
            await hears(device, frame)
        os.write(device, ACK)
        await hears(device, EOT)
        await ward.until(lambda: heard == [None])


@on_both_loops
async def test_what_was_kept_of_a_session_is_told_when_the_cable_is_pulled_out(tmp_path: Path) -> None:
    device, port = pty.openpty()
    (path := tmp_path / "ttyLAB").symlink_to(os.ttyname(port))
    os.set_blocking(device, False)
    ward = Bench()
    ward.inlet = inlet = SerialInlet(
        SerialSpec(str(path)), line=LineSpec(), room=Room(1 << 26), wire=Astm(), backoff=Backoff(0.01, 0.01)
    )
    inlet.events = ward.events
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(inlet.run())
        await ward.until(lambda: inlet.listening)
        os.write(device, ENQ)
        await hears(device, ACK)
        os.write(device, frames_of(RESULT)[0])
        await hears(device, ACK)
        path.unlink()
        os.close(device)
        os.close(port)
        await ward.until(lambda: ward.left == [RESULT[0] + b"\r"])
        await ward.until(lambda: ward.closed)
        await inlet.close()
