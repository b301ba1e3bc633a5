"""Keep the content of Binary resources as files.

Secret: where the bytes lie, and that they pass in pieces whatever their size.
Promise: a file is whole or not there (written beside, synced, renamed); memory use does not depend on its
size.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

from agent.hub.outcomes import Outcome, Refused

MAX_BYTES = 2 * 1024 * 1024 * 1024
TOO_LARGE = Outcome(413, "", "too-long", f"Content is larger than {MAX_BYTES} bytes")


class Binaries:
    """Files by id of the Binary."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in folder.glob("*.part"):
            leftover.unlink(missing_ok=True)

    def path(self, binary_id: str) -> Path:
        """Where the content is, if there is any."""
        return self._folder / f"{binary_id}.bin"

    async def receive(self, binary_id: str, pieces: AsyncIterator[bytes]) -> None:
        """Keep the content, in place of what was there. Raises Refused (413)."""
        part = self._folder / f"{uuid4()}.part"
        try:
            with await asyncio.to_thread(part.open, "wb") as file:
                size_bytes = 0
                async for piece in pieces:
                    size_bytes += len(piece)
                    if size_bytes > MAX_BYTES:
                        raise Refused(TOO_LARGE)
                    await asyncio.to_thread(file.write, piece)
                file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())
            part.replace(self.path(binary_id))
        finally:
            part.unlink(missing_ok=True)

    def forget(self, binary_id: str) -> None:
        """The Binary was deleted."""
        self.path(binary_id).unlink(missing_ok=True)
