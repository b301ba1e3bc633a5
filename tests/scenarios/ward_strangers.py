"""Strangers who knock at a channel's port: raw bytes in, raw bytes out.

Secret: a plain TCP connection, closed, half-closed or reset as the scenario wants it.
Promise: `hears` gives everything that the agent wrote until it closed or fell silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

WITHIN_S = 10.0
_KNOCK_EVERY_S = 0.02


class Stranger:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def knock(cls, port: int, sends: bytes = b"", *, source: str = "127.0.0.1") -> Stranger:
        """Connect as soon as somebody listens, and send."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
                except ConnectionRefusedError:
                    await asyncio.sleep(_KNOCK_EVERY_S)
                else:
                    break
        writer.write(sends)
        return cls(reader, writer)

    async def hears_until(self, end: bytes) -> bytes:
        """Everything up to and with `end`."""
        async with asyncio.timeout(WITHIN_S):
            return await self._reader.readuntil(end)

    def sends(self, data: bytes) -> None:
        self._writer.write(data)

    async def hears(self, *, within_s: float = WITHIN_S) -> bytes:
        """Everything until the agent closes the connection; a reset ends it as well."""
        heard = b""
        async with asyncio.timeout(within_s):
            with contextlib.suppress(ConnectionError):
                while some := await self._reader.read(65_536):
                    heard += some
        return heard

    def half_close(self) -> None:
        self._writer.write_eof()

    async def leave(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    def reset(self) -> None:
        """As a machine that crashed and came back."""
        peer: socket.socket = self._writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self._writer.transport.abort()


async def s_client(port: int, *options: str, sends: bytes = b"", wants: bytes = b"\x1c\r") -> tuple[str, bytes]:
    """OpenSSL's own client: what it says of the connection (stderr), and what it received until `wants` was in it."""
    process = await asyncio.create_subprocess_exec(
        *("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-quiet", "-no_ign_eof", *options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    received = b""
    process.stdin.write(sends)
    try:
        async with asyncio.timeout(WITHIN_S):
            while wants not in received and (some := await process.stdout.read(65_536)):
                received += some
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    said = (await process.stderr.read()).decode(errors="replace")
    await process.wait()
    return said, received
