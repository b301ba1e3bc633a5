"""Listen for modalities: a DICOM storage provider (PS3.4 annex B) that answers C-ECHO too.

Secret: that associations run on the loop, each with one thread for its disk, and how many there may be.
Promise: the address is open from `start` to `stop_accepting`; associations live on until they are done; after `close`
none of their threads is left, unless the disk holds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.net.association import Association
from agent.net.binding import BACKLOG
from agent.net.dicompeer import DicomPeer
from agent.net.inlet import Room
from agent.net.listener import Listener
from agent.net.partfile import PartWriter
from agent.net.tls import Identity
from agent.protocol.forensics import Oddity
from agent.spec import Dicom, LineSpec

MAX_ASSOCIATIONS: Final = 100  # where the channel names no number
_THREADS_END_WITHIN_S: Final = 1.0


class DicomInlet(Listener):
    """One bound address and its associations. `folder`: where parts are written, made when the first comes.
    `arriving`: connections whose association is not agreed on yet. `kept_within_s`: how long a modality waits for an
    object to be safe; then it hears that it is not. `sync` brings a file to the platter, as os.fsync;
    `spare_bytes`: what of the disk stays free for others. New settings hold from the next association on.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        *,
        line: LineSpec,
        identity: Identity | None,
        room: Room,
        wire: Dicom,
        folder: Path,
        kept_within_s: float = 120.0,
        sync: Callable[[int], None] = os.fsync,
        spare_bytes: Callable[[], int] = lambda: 0,
    ) -> None:
        super().__init__(sockets, line=line, identity=identity, room=room, wire=wire)
        self.folder = folder
        self.kept_within_s = kept_within_s
        self.sync = sync
        self.spare_bytes = spare_bytes
        self.arriving: set[DicomPeer] = set()
        self._writing: set[PartWriter] = set()

    @property
    def crowded(self) -> bool:
        """Whether so many wait to be turned away that the next one is not even told why."""
        return len(self.arriving) >= MAX_ASSOCIATIONS

    @property
    def writers(self) -> set[PartWriter]:
        """Threads that have not ended, and those that ended lately."""
        self._writing = {writer for writer in self._writing if not writer.ended.is_set()}
        return self._writing

    async def start(self) -> None:
        for listening in self._sockets:
            self._servers.append(
                await self._loop.create_server(lambda: Association(self), sock=listening, backlog=BACKLOG)
            )

    def admits(self, host: str) -> Oddity | None:
        unwanted = super().admits(host)
        limit = self.line.max_connections or MAX_ASSOCIATIONS
        if unwanted is None and len(self.connections) + len(self.arriving) >= limit:
            return Oddity.TOO_MANY
        return unwanted

    async def close(self, *, drain_s: float = 0.0) -> None:
        await super().close(drain_s=drain_s)
        self._send_off()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_THREADS_END_WITHIN_S):
                for writer in self.writers:
                    await writer.ended.wait()

    def cut(self) -> None:
        super().cut()
        self._send_off()

    def _send_off(self) -> None:
        for association in list(self.arriving):
            association.abort()
