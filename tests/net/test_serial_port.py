"""Serial lines over pairs of pseudo-terminals: the device is at the other end of the cable."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import sys
import termios
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from net_far_ends import WITHIN_S, Ward, on_both_loops

from agent.backoff import Backoff
from agent.errors import ConfigError
from agent.net.inlet import Room
from agent.protocol.forensics import Oddity
from agent.protocol.mllp import BrokenFrame, FrameTooLong
from agent.spec import ByteStream, FlowControl, LineSpec, Parity, SerialSpec, Wire

if sys.platform == "win32":
    pytest.skip("there are no pseudo-terminals", allow_module_level=True)

import pty

from agent.net.connection import Connection
from agent.net.serialport import SerialInlet, refusal
from agent.net.serialtransport import AHEAD_BYTES, HIGH_BYTES, MOST_BYTES

FRAMED = ByteStream(start=0x02, end=0x03, responses=((b"\x05", b"\x06"),))


class Cable:
    """A serial port at `path`, as udev would name it, and the device at its other end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plug_in()

    def plug_in(self) -> None:
        self.device, port = pty.openpty()
        os.set_blocking(self.device, False)
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(port))
        self._port = port  # open, so that the device is not told that nobody is there yet

    def pull_out(self) -> None:
        self.path.unlink()
        os.close(self.device)
        os.close(self._port)
        self.device = -1

    def send(self, data: bytes) -> None:
        assert os.write(self.device, data) == len(data)

    def read(self) -> bytes:
        try:
            return os.read(self.device, 1 << 16)
        except BlockingIOError:
            return b""

    async def hears(self, size: int) -> bytes:
        """So many bytes, looked for a hundred times a second."""
        heard = b""
        async with asyncio.timeout(WITHIN_S):
            while len(heard) < size:
                heard += self.read()
                await asyncio.sleep(0.01)
        return heard

    def is_free(self) -> bool:
        port = os.open(self.path, os.O_RDWR | os.O_NOCTTY)
        try:
            fcntl.flock(port, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(port)
        return True

    def settings(self) -> list[int | list[bytes | int]]:
        return termios.tcgetattr(self._port)


@pytest.fixture
def cable(tmp_path: Path) -> Iterator[Cable]:
    cable = Cable(tmp_path / "ttyLAB")
    yield cable
    if cable.device >= 0:
        cable.pull_out()


class LineWard(Ward):
    """A ward whose senders know no refusal."""

    def _broken(self, connection: Connection, error: BrokenFrame) -> None:
        self.broken.append(error)
        connection.waive()
        connection.close_after_reply()


def spec_of(cable: Cable) -> SerialSpec:
    return SerialSpec(str(cable.path), baud_rate=115_200)


def threads_of(spec: SerialSpec) -> list[str]:
    return [thread.name for thread in threading.enumerate() if spec.device in thread.name]


@asynccontextmanager
async def at_the_port(
    spec: SerialSpec,
    wire: Wire = FRAMED,
    *,
    line: LineSpec | None = None,
    unanswered: int = 64,
    stalled_s: float = 10.0,
    wait_s: float = 0.01,
) -> AsyncIterator[tuple[LineWard, SerialInlet]]:
    ward = LineWard()
    ward.inlet = inlet = SerialInlet(
        spec,
        line=line or LineSpec(),
        room=Room(1 << 26),
        wire=wire,
        unanswered=unanswered,
        backoff=Backoff(wait_s, wait_s),
        stalled_s=stalled_s,
    )
    inlet.events = ward.events
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(inlet.run())
        try:
            yield ward, inlet
        finally:
            await inlet.close()
    await ward.until(lambda: not threads_of(spec))


# ---- messages and answers


@on_both_loops
async def test_messages_come_and_answers_go(cable: Cable) -> None:
    async with at_the_port(spec_of(cable)) as (ward, inlet):
        ward.answers = lambda message: b"<" + message + b">"
        await ward.until(lambda: inlet.listening)
        cable.send(b"\x02one\x03\x02tw")
        assert await cable.hears(7) == b"<\x02one\x03>"
        cable.send(b"o\x03")
        assert await cable.hears(7) == b"<\x02two\x03>"
        assert ward.frames == [b"\x02one\x03", b"\x02two\x03"]
        assert (inlet.trouble, inlet.port) == ("", 0)
        [connection] = inlet.connections
        assert (connection.remote, connection.peer) == (str(cable.path),) * 2
        assert not ward.oddities


@on_both_loops
async def test_what_is_answered_at_once_is_and_any_bytes_travel_as_they_are(cable: Cable) -> None:
    # given every byte that a terminal would make something of
    every = bytes(range(256)).translate(None, b"\x02\x03\x05")
    async with at_the_port(spec_of(cable)) as (ward, inlet):
        ward.answers = lambda message: message
        await ward.until(lambda: inlet.listening)
        cable.send(b"\x05\x02" + every + b"\x03")
        assert await cable.hears(len(every) + 3) == b"\x06\x02" + every + b"\x03"


@on_both_loops
async def test_many_messages_keep_their_order_both_ways(cable: Cable) -> None:
    async with at_the_port(spec_of(cable)) as (ward, inlet):
        ward.answers = lambda message: message
        await ward.until(lambda: inlet.listening)
        heard = b""
        for first in range(0, 500, 20):
            sent = b"".join(b"\x02%d\x03" % number for number in range(first, first + 20))
            cable.send(sent)
            heard += await cable.hears(len(sent))
        assert heard == b"".join(b"\x02%d\x03" % number for number in range(500))


@on_both_loops
async def test_the_settings_of_the_line_reach_the_port(cable: Cable) -> None:
    spec = SerialSpec(
        str(cable.path), baud_rate=19_200, data_bits=7, parity=Parity.EVEN, stop_bits=2, flow=FlowControl.XON_XOFF
    )
    async with at_the_port(spec) as (ward, inlet):
        await ward.until(lambda: inlet.listening)
        iflag, _, cflag, lflag, input_speed, output_speed, _ = cable.settings()
        assert isinstance(iflag, int)
        assert isinstance(cflag, int)
        assert isinstance(lflag, int)
        assert input_speed == output_speed == termios.B19200
        # a pseudo-terminal has no wires, so Linux keeps eight bits and no parity whatever is asked; stop bits it keeps
        assert cflag & termios.CSTOPB
        assert iflag & termios.IXON
        assert iflag & termios.IXOFF
        assert not lflag & (termios.ICANON | termios.ECHO | termios.ISIG)


def test_all_settings_are_asked_of_the_library(tmp_path: Path) -> None:
    asked: dict[str, object] = {}

    class Library:
        def Serial(self, **settings: object) -> None:
            asked.update(settings)

    async def ask() -> None:
        spec = SerialSpec("COM3", 4_800, 7, Parity.MARK, 1.5, FlowControl.RTS_CTS)
        inlet = SerialInlet(spec, line=LineSpec(), room=Room(0), wire=FRAMED)
        inlet._library = Library()
        inlet._opened()

    asyncio.run(ask())
    assert {**asked, "timeout": 0, "write_timeout": 0} == {
        "port": "COM3",
        "baudrate": 4_800,
        "bytesize": 7,
        "parity": "M",
        "stopbits": 1.5,
        "xonxoff": False,
        "rtscts": True,
        "timeout": 0,
        "write_timeout": 0,
        "exclusive": True,
    }
    # what is in the system's own buffer needs so long on the line, and that is no stall
    assert asked["write_timeout"] == pytest.approx(20.24)


# ---- an adapter that comes and goes


@on_both_loops
async def test_an_adapter_that_is_pulled_out_and_put_back_is_found_again(cable: Cable) -> None:
    async with at_the_port(spec_of(cable)) as (ward, inlet):
        for number in range(3):
            await ward.until(lambda: inlet.listening)
            cable.send(b"\x02%d\x03" % number)
            await ward.until(lambda number=number: len(ward.frames) == number + 1)  # type: ignore[misc]
            cable.pull_out()
            await ward.until(lambda number=number: len(ward.closed) == number + 1)  # type: ignore[misc]
            assert not inlet.listening
            await ward.until(lambda: inlet.trouble.startswith(f"there is no serial port {cable.path}: plug it"))
            cable.plug_in()
        await ward.until(lambda: inlet.listening)
        assert ward.frames == [b"\x020\x03", b"\x021\x03", b"\x022\x03"]


@on_both_loops
async def test_what_was_read_before_an_adapter_went_is_taken(cable: Cable) -> None:
    async with at_the_port(spec_of(cable)) as (ward, inlet):
        await ward.until(lambda: inlet.listening)
        [connection] = ward.connections
        connection._transport.pause_reading()
        cable.send(b"\x02one\x03\x02half")
        await ward.until(lambda: inlet._transport is not None and inlet._transport._arrived_bytes == 10)
        assert not ward.frames
        cable.pull_out()
        await ward.until(lambda: ward.closed)
        assert ward.frames == [b"\x02one\x03"]
        assert ward.oddities == [Oddity.UNFINISHED]


@on_both_loops
async def test_why_a_port_went_is_told_until_it_is_open_again(cable: Cable) -> None:
    async with at_the_port(spec_of(cable), wait_s=600) as (ward, inlet):
        await ward.until(lambda: inlet.listening)
        cable.pull_out()
        await ward.until(lambda: ward.closed)
        await ward.until(lambda: inlet.trouble.startswith(f"the serial port {cable.path} has gone: plug its adapter"))
        assert not ward.oddities, "a cable that says nothing is no load balancer"


@on_both_loops
async def test_a_port_that_is_not_there_yet_is_opened_when_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ttyLAB"
    async with at_the_port(SerialSpec(str(path))) as (ward, inlet):
        assert inlet.trouble == f"the serial port {path} is not open yet"
        await ward.until(lambda: "there is no serial port" in inlet.trouble)
        cable = Cable(path)
        await ward.until(lambda: inlet.listening)
        cable.pull_out()


# ---- ports that cannot be had


@on_both_loops
async def test_a_port_that_another_program_has_is_taken_once_that_has_gone(cable: Cable) -> None:
    other = os.open(cable.path, os.O_RDWR | os.O_NOCTTY)
    fcntl.flock(other, fcntl.LOCK_EX)
    async with at_the_port(spec_of(cable)) as (ward, inlet):
        await ward.until(lambda: "another program has" in inlet.trouble)
        os.close(other)
        await ward.until(lambda: inlet.listening)


@on_both_loops
async def test_two_channels_never_share_a_port(cable: Cable) -> None:
    async with at_the_port(spec_of(cable)) as (ward, first):
        await ward.until(lambda: first.listening)
        async with at_the_port(spec_of(cable)) as (_, second):
            await ward.until(lambda: "another program has" in second.trouble)
            # and one that is closed has let go of it
            await first.close()
            await ward.until(lambda: second.listening)


@on_both_loops
async def test_what_is_no_serial_port_is_told(tmp_path: Path) -> None:
    (file := tmp_path / "notes.txt").write_text("x")
    async with at_the_port(SerialSpec(str(file))) as (ward, inlet):
        await ward.until(lambda: inlet.trouble == f"{file} is no serial port: correct the channel's address")


@pytest.mark.parametrize(
    ("error", "windows", "said"),
    [
        (OSError(errno.ENOENT, "x"), False, "there is no serial port P"),
        (OSError(errno.ENXIO, "x"), False, "there is no serial port P"),
        (OSError(errno.EACCES, "x"), False, "this agent may not open P: add its user to the group dialout"),
        (OSError(errno.EBUSY, "x"), False, "another program has the serial port P open"),
        (OSError(errno.EAGAIN, "x"), False, "another program has the serial port P open"),
        (OSError("Could not configure port: (25, 'Inappropriate ioctl')"), False, "P is no serial port"),
        (OSError("Could not configure port: (5, 'Input/output error')"), False, "there is no serial port P"),
        (termios.error(errno.ENOTTY, "x"), False, "P is no serial port"),
        (OSError("could not open port 'P': FileNotFoundError(2, '')"), True, "there is no serial port P"),
        (OSError("could not open port 'P': PermissionError(13, '')"), True, "another program has the serial port P"),
        (
            ValueError("Invalid baud rate: 7"),
            False,
            "the serial port P cannot be set as the channel asks: Invalid baud",
        ),
        (OSError(errno.EMFILE, "too many open files"), False, "the serial port P cannot be opened, look at it"),
    ],
)
def test_each_refusal_says_what_to_do(error: Exception, windows: bool, said: str) -> None:
    assert refusal("P", error, ports=[], windows=windows).startswith(said)


def test_a_missing_port_is_told_with_those_that_there_are() -> None:
    missing = OSError(errno.ENOENT, "x")
    assert refusal("COM9", missing, ports=["COM3", "COM4"]).endswith("(this host has COM3, COM4)")
    assert refusal("COM9", missing, ports=[]).endswith("(this host has none at present)")


def test_without_the_library_a_person_is_told_what_to_install() -> None:
    # given a Python that does not find it
    async def build() -> None:
        SerialInlet(SerialSpec("COM3"), line=LineSpec(), room=Room(0), wire=FRAMED)

    known = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "serial"}
    sys.modules.update(dict.fromkeys(known, None))  # type: ignore[arg-type]
    sys.modules["serial"] = None  # type: ignore[assignment]
    try:
        with pytest.raises(ConfigError) as caught:
            asyncio.run(build())
    finally:
        del sys.modules["serial"]
        sys.modules.update(known)
    [finding] = caught.value.findings
    assert finding.code == "channel.extra-missing"
    assert "onprem-agent[serial]" in finding.remedy


# ---- too much


@on_both_loops
async def test_a_sender_that_is_not_answered_is_not_read_from_beyond_a_bound_and_loses_nothing_below_it(
    cable: Cable,
) -> None:
    async with at_the_port(spec_of(cable), unanswered=1) as (ward, inlet):
        await ward.until(lambda: inlet.listening)
        message = b"\x02" + b"x" * 1_000 + b"\x03"
        cable.send(message)
        await ward.until(lambda: ward.frames)
        # when the device sends on and on
        sent, full = 1, 0
        while full < 100:
            try:
                rest = message[os.write(cable.device, message) :]
                sent, full = sent + 1, 0
            except BlockingIOError:
                full += 1
                await asyncio.sleep(0.01)
                continue
            while rest:
                await asyncio.sleep(0)
                with suppress(BlockingIOError):
                    rest = rest[os.write(cable.device, rest) :]
                if inlet._transport is not None and inlet._transport._arrived_bytes >= AHEAD_BYTES:
                    break
            if rest:
                break
        # then reading has stopped
        assert len(ward.frames) == 1
        assert inlet._transport is not None
        assert AHEAD_BYTES <= inlet._transport._arrived_bytes < AHEAD_BYTES + (1 << 16)
        # and once it is answered it goes on where it was
        ward.answers = lambda frame: b""
        ward.connections[0].reply(b"")
        while rest:
            with suppress(BlockingIOError):
                rest = rest[os.write(cable.device, rest) :]
            await asyncio.sleep(0.001)
        await ward.until(lambda: len(ward.frames) >= sent)
        assert ward.frames == [message] * sent
        assert not ward.oddities


@on_both_loops
async def test_a_device_that_takes_nothing_is_closed_and_opened_again(cable: Cable) -> None:
    async with at_the_port(spec_of(cable), stalled_s=0.2, wait_s=600) as (ward, inlet):
        await ward.until(lambda: inlet.listening)
        [connection] = ward.connections
        for _ in range(1_000):
            connection.tell(b"x" * 1_000)
        await ward.until(lambda: connection._unread)
        await ward.until(lambda: ward.closed)
        await ward.until(lambda: "takes nothing that is written to it" in inlet.trouble)
        assert ward.connections[0].gone


@on_both_loops
async def test_what_waits_to_be_written_is_bounded(cable: Cable) -> None:
    async with at_the_port(spec_of(cable), wait_s=600) as (ward, inlet):
        await ward.until(lambda: inlet.listening)
        ward.connections[0].tell(b"x" * (MOST_BYTES + 1))
        await ward.until(lambda: ward.closed)
        await ward.until(lambda: "takes nothing" in inlet.trouble)


@on_both_loops
async def test_a_device_that_reads_slowly_gets_everything(cable: Cable) -> None:
    async with at_the_port(spec_of(cable)) as (ward, inlet):
        await ward.until(lambda: inlet.listening)
        [connection] = ward.connections
        everything = bytes(number % 251 for number in range(4 * HIGH_BYTES))
        for at in range(0, len(everything), 4_096):
            connection.tell(everything[at : at + 4_096])
        await ward.until(lambda: connection._unread)
        assert await cable.hears(len(everything)) == everything
        await ward.until(lambda: not connection._unread)
        assert connection._transport.get_write_buffer_size() == 0


@on_both_loops
async def test_a_message_that_is_too_long_closes_the_port_and_the_next_one_is_taken(cable: Cable) -> None:
    async with at_the_port(spec_of(cable), line=LineSpec(max_message_bytes=10)) as (ward, inlet):
        await ward.until(lambda: inlet.listening)
        cable.send(b"\x020123456789abcdef")
        await ward.until(lambda: ward.closed)
        assert isinstance(ward.broken[0], FrameTooLong)
        await ward.until(lambda: len(ward.connections) == 2 and inlet.listening)
        cable.send(b"\x02ok\x03")
        await ward.until(lambda: ward.frames == [b"\x02ok\x03"])


# ---- the end


@on_both_loops
async def test_a_close_writes_what_is_owed_and_lets_go_of_the_port(cable: Cable) -> None:
    async with at_the_port(spec_of(cable)) as (ward, inlet):
        await ward.until(lambda: inlet.listening)
        cable.send(b"\x02one\x03")
        await ward.until(lambda: ward.frames)
        inlet.stop_accepting()
        asyncio.get_running_loop().call_soon(ward.connections[0].reply, b"fine")
        await inlet.close(drain_s=WITHIN_S)
        assert await cable.hears(4) == b"fine"
        assert not inlet.connections
        assert cable.is_free()


@on_both_loops
async def test_a_stop_ends_a_long_wait(tmp_path: Path) -> None:
    async with asyncio.timeout(WITHIN_S), at_the_port(SerialSpec(str(tmp_path / "no")), wait_s=600) as (ward, inlet):
        await ward.until(lambda: "there is no serial port" in inlet.trouble)
        inlet.stop_accepting()


@on_both_loops
async def test_a_stop_while_the_port_is_being_opened_opens_nothing(cable: Cable) -> None:
    spec = spec_of(cable)
    async with at_the_port(spec) as (ward, inlet):
        await asyncio.sleep(0)
        assert inlet._opening is not None
        inlet.stop_accepting()
        await ward.until(lambda: not threads_of(spec))
        await ward.until(cable.is_free)
        assert not ward.connections


@on_both_loops
async def test_a_cut_ends_a_connection_that_still_has_much_to_write(cable: Cable) -> None:
    async with at_the_port(spec_of(cable), stalled_s=600) as (ward, inlet):
        await ward.until(lambda: inlet.listening)
        [connection] = ward.connections
        connection.tell(b"x" * 500_000)
        await ward.until(lambda: connection._unread)
        inlet.cut()
        await ward.until(lambda: ward.closed)


@on_both_loops
async def test_settings_of_the_stream_change_on_a_line_that_is_open(cable: Cable) -> None:
    async with at_the_port(spec_of(cable)) as (ward, inlet):
        await ward.until(lambda: inlet.listening)
        inlet.wire = replace(FRAMED, end=0x04)
        cable.send(b"\x02one\x03\x04")
        await ward.until(lambda: ward.frames == [b"\x02one\x03\x04"])
        assert len(ward.connections) == 1
