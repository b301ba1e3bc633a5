"""Open what a channel receives by: a port, a connection that we make, a serial line, a DICOM server.

Secret: which kind of inlet a spec asks for, and which optional library that needs.
Promise: `open_inlet` gives an inlet that holds its port and takes nothing yet, or says in one sentence why not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.net.binding import bind
from agent.net.dialer import Dialer
from agent.net.inlet import Inlet, Room
from agent.net.listener import Listener
from agent.net.tls import Identity
from agent.spec import ChannelSpec, Dicom


@dataclass(frozen=True, slots=True)
class Openings:
    """What all inlets of this process share. `unanswered`: messages of one connection whose answer is owed, at most;
    `objects`: the folder that DICOM objects are written to; `spare_bytes`: what of its disk they leave to messages."""

    room: Room
    unanswered: int
    objects: Path
    spare_bytes: Callable[[], int] = lambda: 0


async def open_inlet(spec: ChannelSpec, identity: Identity | None, openings: Openings) -> Inlet:
    """Raises ConfigError; Unbindable where the port cannot be had."""
    line, room, unanswered, wire = spec.line, openings.room, openings.unanswered, spec.wire
    if spec.serial is not None:
        from agent.net.serialport import SerialInlet  # an extra: most hosts have no serial line

        return SerialInlet(spec.serial, line=line, room=room, unanswered=unanswered, wire=wire)
    if spec.dials:
        return Dialer(spec.host, spec.port, line=line, identity=identity, room=room, unanswered=unanswered, wire=wire)
    if isinstance(wire, Dicom):
        from agent.net.dicom import DicomInlet  # an extra, and a large one

        sockets = await bind(spec.host, spec.port, spec.name)
        folder, spare = openings.objects, openings.spare_bytes
        return DicomInlet(sockets, line=line, identity=identity, room=room, wire=wire, folder=folder, spare_bytes=spare)
    sockets = await bind(spec.host, spec.port, spec.name)
    return Listener(sockets, line=line, identity=identity, room=room, unanswered=unanswered, wire=wire)
