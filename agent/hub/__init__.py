"""The embedded server for one machine, for tests and the quick start; the honest far end of everything else.

`async with Hub.open(data_dir, listen=("127.0.0.1", 0)) as hub:` gives a server that speaks Medplum's wire.
"""

from __future__ import annotations

from agent.hub.hub import Hub
from agent.hub.inbox import Kept, Opened
from agent.hub.outcomes import Refused

__all__ = ["Hub", "Kept", "Opened", "Refused"]
