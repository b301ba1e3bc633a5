"""Answers to the server that wait for the link.

Secret: how long an answer is still worth sending. A server waits 55 s at most for the answer to an operation, and finds
whoever waits by the callback, whichever socket it comes through.
Promise: an answer given while the link is away is sent when it is back, if anybody can still be waiting for it; what is
kept is bounded; no frame leaves that is longer than the server takes, for that would cost the link.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import structlog

from agent.protocol.envelope import AgentErrorFrame, FromAgent, PushResponse, encode

log = structlog.get_logger("main")

KEEP_S: Final = 60.0
KEEP_BYTES: Final = 16 << 20


class Owed:
    """`send` writes frames to the server and may only be called while `live`. `now`: seconds, monotonic."""

    def __init__(
        self,
        *,
        live: Callable[[], bool],
        send: Callable[[list[bytes]], None],
        max_frame_bytes: Callable[[], int],
        now: Callable[[], float],
    ) -> None:
        self._live = live
        self._send = send
        self._max_frame_bytes = max_frame_bytes
        self._now = now
        self._kept: deque[tuple[float, bytes]] = deque()
        self._kept_bytes = 0

    def answer(self, frame: FromAgent) -> bool:
        """Say something to the server, now or when the link is back; whether it was now."""
        text = self._fitting(frame)
        if self._live():
            self._send([text])
            return True
        self._kept.append((self._now(), text))
        self._kept_bytes += len(text)
        while self._kept_bytes > KEEP_BYTES:
            self._drop()
        return False

    def live(self) -> None:
        """The link is back."""
        while self._kept and self._now() - self._kept[0][0] > KEEP_S:
            self._drop()
        if self._kept:
            self._send([text for _, text in self._kept])
            log.info("answers.sent-late", count=len(self._kept))
            self._kept.clear()
            self._kept_bytes = 0

    def _drop(self) -> None:
        self._kept_bytes -= len(self._kept.popleft()[1])

    def _fitting(self, frame: FromAgent) -> bytes:
        text = encode(frame)
        limit = self._max_frame_bytes()
        if len(text) <= limit:
            return text
        why = (
            f"the answer takes a frame of {len(text)} bytes, and the server takes {limit}"
            " — raise the server's limit and server.max_frame_bytes"
        )
        if isinstance(frame, PushResponse):
            return encode(
                PushResponse(frame.channel, frame.remote, frame.callback, "text/plain", status_code=400, body=why)
            )
        return encode(AgentErrorFrame(why, getattr(frame, "callback", None)))
