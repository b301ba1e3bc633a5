"""Find out whether a remote can be reached, and how fast.

Secret: that a look is a dial which sends nothing.
Promise: the answer is the time of the connection alone, or the Failure that a message would have met; the remote sees a
connection that is closed politely, without a byte of HL7.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from agent.errors import LinkError
from agent.failures import Failure
from agent.net.line import Line
from agent.net.outbound import Outbound
from agent.spec import RemoteSpec


class ProbeFailed(LinkError):
    """There is no connection. `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text, hint=failure.remedy)
        self.failure = failure


async def probe(host: str, port: int, *, spec: RemoteSpec | None = None, within_s: float = 5.0) -> float:
    """Seconds that TCP took, with TLS if `spec` is secure; the time for resolving a name is not in it.

    `within_s` holds for name, TCP and TLS together. Raises ProbeFailed.
    """
    look = _Look()
    spec = RemoteSpec("", host, port) if spec is None else replace(spec, host=host, port=port)
    async with Outbound(connect_within_s=within_s) as outbound:
        line = outbound.dial(spec, look)
        if (failure := await look.answer) is None:
            line.close()
            await look.gone.wait()
    if failure is not None:
        raise ProbeFailed(failure)
    return line.connect_s


class _Look:
    def __init__(self) -> None:
        self.answer: asyncio.Future[Failure | None] = asyncio.get_running_loop().create_future()
        self.gone = asyncio.Event()

    def opened(self, line: Line) -> None:
        self._answer(None)

    def failed(self, line: Line, failure: Failure) -> None:
        self._answer(failure)

    def heard(self, line: Line, frames: list[bytes]) -> None:
        pass  # it is none of ours: nothing was asked

    def noisy(self, line: Line) -> None:
        pass

    def closed(self, line: Line, failure: Failure | None) -> None:
        self.gone.set()

    def _answer(self, failure: Failure | None) -> None:
        if not self.answer.done():  # whoever asked may have been cancelled
            self.answer.set_result(failure)
