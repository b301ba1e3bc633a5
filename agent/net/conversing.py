"""Choose what a new connection speaks.

Secret: which class knows which wire.
Promise: `converse` gives a connection that is ready to be handed to a transport.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from agent.net.connection import Connection
from agent.net.inlet import Inlet
from agent.spec import Astm, ByteStream, Dicom, Mllp

if TYPE_CHECKING:
    from agent.net.astmline import AstmConnection


def converse(inlet: Inlet) -> Connection | AstmConnection:
    """One more connection of this inlet. Dicom brings its own."""
    match inlet.wire:
        case Mllp() | ByteStream():
            return Connection(inlet)
        case Astm():
            from agent.net.astmline import AstmConnection  # most hosts have no analyser

            return AstmConnection(inlet)
        case Dicom():
            raise TypeError("associations are made by the DICOM server itself")
        case _ as never:
            assert_never(never)
