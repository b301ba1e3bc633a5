"""Send a file as the body of a request, in pieces.

Secret: that reading happens in threads, and how trouble with the file is told apart from trouble with the network.
Promise: exactly the bytes that it had when it was opened, or OSError; memory does not depend on its size.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO, Final, Self

from agent.errors import AgentError

PIECE_BYTES: Final = 262_144


class FileBody:
    """`trouble`: why it could not be read to its end."""

    def __init__(self, path: Path, file: BinaryIO, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.trouble: AgentError | None = None
        self._path = path
        self._file = file

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Raises AgentError when the file is not there or cannot be read."""
        try:
            file = await asyncio.to_thread(path.open, "rb")
            return cls(path, file, await asyncio.to_thread(file.seek, 0, 2))
        except OSError as error:
            raise _unreadable(path, error) from error

    async def pieces(self, moved: Callable[[], None]) -> AsyncIterator[bytes]:
        """All of it, once; `moved` hears of each piece that the network took. Raises OSError."""
        try:
            await asyncio.to_thread(self._file.seek, 0)
            left = self.size_bytes
            while left > 0:
                piece = await asyncio.to_thread(self._file.read, min(left, PIECE_BYTES))
                if not piece:
                    raise OSError("it has become shorter")
                left -= len(piece)
                yield piece
                moved()
        except OSError as error:
            self.trouble = _unreadable(self._path, error)
            raise

    async def close(self) -> None:
        await asyncio.to_thread(self._file.close)


def _unreadable(path: Path, error: OSError) -> AgentError:
    hint = "check the disk and the rights of the folder"
    return AgentError(f"{path} cannot be read: {error.strerror or error}", hint=hint)
