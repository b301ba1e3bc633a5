"""An analyser with a host interface (ASTM E1381), written from the standard and from nothing of ours: plain sockets,
and a checksum of its own. It does as it is told, also wrongly."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from types import TracebackType

STX, ETX, EOT, ENQ, ACK, NAK, ETB = b"\x02", b"\x03", b"\x04", b"\x05", b"\x06", b"\x15", b"\x17"
WITHIN_S = 10.0

RESULT = [
    b"H|\\^&|||Analyser^1|||||Host||P|1|20240101120000",
    b"P|1||PID1||Doe^Jane",
    b"O|1|SAMPLE1||^^^GLU|R",
    b"R|1|^^^GLU|5.4|mmol/L||N||F",
    b"L|1|N",
]
QUERY = [b"H|\\^&|||Analyser", b"Q|1|^SAMPLE1||ALL", b"L|1|N"]


def two_digits(covered: bytes) -> bytes:
    """The checksum: the low byte of the sum, in upper case."""
    total = 0
    for byte in covered:
        total = (total + byte) % 256
    high, low = divmod(total, 16)
    return bytes((b"0123456789ABCDEF"[high], b"0123456789ABCDEF"[low]))


def frame(
    number: int, text: bytes, end: bytes = ETX, *, digits: bytes | None = None, trailer: bytes = b"\r\n"
) -> bytes:
    """One frame; `digits`: another checksum than the right one."""
    covered = str(number % 8).encode() + text + end
    return STX + covered + (two_digits(covered) if digits is None else digits) + trailer


def frames_of(records: Iterable[bytes], text_bytes: int | None = None) -> list[bytes]:
    """A record a frame; one longer than `text_bytes` in several, ETB after all but the last."""
    whole: list[bytes] = []
    for record in records:
        text = record + b"\r"
        size = text_bytes or len(text)
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        for index, piece in enumerate(pieces):
            whole.append(frame(len(whole) + 1, piece, ETX if index == len(pieces) - 1 else ETB))
    return whole


class Instrument:
    """An analyser at its end of the cable: one that called (`connect`), or that waits to be called (`listen`)."""

    def __init__(self) -> None:
        self.port = 0
        self._server: asyncio.Server | None = None
        self._calls: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._writers: list[asyncio.StreamWriter] = []

    @classmethod
    async def connect(cls, host: str, port: int) -> Instrument:
        instrument = cls()
        instrument._reader, instrument._writer = await asyncio.open_connection(host, port)
        instrument._writers.append(instrument._writer)
        return instrument

    @classmethod
    async def listen(cls, host: str = "127.0.0.1", port: int = 0) -> Instrument:
        """At `port`; `called` waits for the next connection, which is then used."""
        instrument = cls()
        instrument._server = await asyncio.start_server(instrument._answer, host, port)
        instrument.port = instrument._server.sockets[0].getsockname()[1]
        return instrument

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self._calls.put_nowait((reader, writer))

    async def called(self) -> Instrument:
        """Wait for the next caller, and speak with that one from now on."""
        async with asyncio.timeout(WITHIN_S):
            self._reader, self._writer = await self._calls.get()
        return self

    async def __aenter__(self) -> Instrument:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hang_up()
        if self._server is not None:
            self._server.close()

    def hang_up(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def go(self) -> None:
        """Close the connection politely."""
        assert self._writer is not None
        self._writer.close()

    # ---- bytes

    def write(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write(data)

    async def read(self, count: int = 1) -> bytes:
        """Exactly so many bytes."""
        assert self._reader is not None
        async with asyncio.timeout(WITHIN_S):
            return await self._reader.readexactly(count)

    async def hears(self, expected: bytes) -> None:
        heard = await self.read(len(expected))
        assert heard == expected, f"{heard!r} instead of {expected!r}"

    async def hears_the_end(self) -> bytes:
        """What comes until the connection ends."""
        assert self._reader is not None
        async with asyncio.timeout(WITHIN_S):
            try:
                return await self._reader.read()
            except ConnectionResetError:
                return b""

    # ---- sessions

    async def send_session(
        self,
        records: Iterable[bytes],
        *,
        frame_bytes: int | None = None,
        damaged: Collection[int] = (),
        repeated: Collection[int] = (),
        trailer: bytes = b"\r\n",
        eot: bool = True,
    ) -> list[bytes]:
        """Send records as the standard says, and give the answers that came to the frames.

        `damaged`: frames, counted from 0, whose checksum is wrong the first time; `repeated`: those sent once more
        though they were acknowledged. A frame is sent six times at most.
        """
        self.write(ENQ)
        await self.hears(ACK)
        answers: list[bytes] = []
        for index, whole in enumerate(frames_of(records, frame_bytes)):
            right = whole[:-2] + trailer
            wrong = whole[:-4] + (b"00" if whole[-4:-2] != b"00" else b"01") + trailer
            self.write(wrong if index in damaged else right)
            answer = await self.read()
            answers.append(answer)
            for _ in range(5):
                if answer != NAK:
                    break
                self.write(right)
                answer = await self.read()
                answers.append(answer)
            if answer != ACK:
                break
            if index in repeated:
                self.write(right)
                answers.append(await self.read())
        if eot:
            self.write(EOT)
        return answers

    async def expect_session(
        self,
        *,
        busy: int = 0,
        refuse: Mapping[int, int] | None = None,
        interrupt_at: int | None = None,
        mute_at: int | None = None,
        text_bytes: int = 240,
    ) -> list[bytes]:
        """Take a session, insist on everything that the standard says of it, and give its records.

        `busy`: NAK to so many ENQ. `refuse`: NAK to a frame, counted from 0, so many times. `interrupt_at`: EOT instead
        of ACK to that frame; `mute_at`: no answer to it. Where the host ends the session before its last frame, the
        records that came.
        """
        for _ in range(busy):
            await self.hears(ENQ)
            self.write(NAK)
        await self.hears(ENQ)
        self.write(ACK)
        refusals = dict(refuse or {})
        content, index = b"", 0
        while (first := await self.read()) != EOT:
            assert first == STX, f"{first!r} instead of STX or EOT"
            assert self._reader is not None
            async with asyncio.timeout(WITHIN_S):
                rest = await self._reader.readuntil(b"\n")
            number, text, end, digits, trailer = rest[:1], rest[1:-5], rest[-5:-4], rest[-4:-2], rest[-2:]
            assert trailer == b"\r\n"
            assert end in (ETX, ETB)
            assert len(text) <= text_bytes
            assert digits == two_digits(number + text + end)
            assert number == str((index + 1) % 8).encode()
            assert not any(byte in b"\x01\x02\x03\x04\x05\x06\n\x10\x11\x12\x13\x14\x15\x16\x17" for byte in text)
            assert text.endswith(b"\r") == (end == ETX), "a record a frame"
            if index == mute_at:
                continue
            if refusals.get(index, 0) > 0:
                refusals[index] -= 1
                self.write(NAK)
                continue
            content += text
            self.write(EOT if index == interrupt_at else ACK)
            index += 1
        return content.split(b"\r")[:-1]
