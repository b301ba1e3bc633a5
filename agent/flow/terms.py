"""Who hears what about a message, and when.

Secret: how a channel's mode becomes terms for one message, and what MSH-15 and MSH-16 mean (HL7 v2.5.1 §2.9.2, §2.9.3,
table 0155).
Promise: every message has terms, whatever it asks for. A condition that is none counts as "always": a sender that waits
in vain is worse off than one that hears too much.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, assert_never

from agent.protocol.hl7 import Header
from agent.spec import AckMode, AppAck, ChannelSpec

_POSITIVE: Final = ("AA", "CA")
_CONDITIONS: Final = {condition.value.encode(): condition for condition in AppAck}


def is_positive(code: str) -> bool:
    """Whether an MSA-1 says yes."""
    return code in _POSITIVE


def forwards(wanted: AppAck, code: str) -> bool:
    """Whether a sender with this condition hears an acknowledgement with this code (table 0155)."""
    match wanted:
        case AppAck.ALWAYS:
            return True
        case AppAck.NEVER:
            return False
        case AppAck.ERROR:
            return code not in _POSITIVE
        case AppAck.SUCCESS:
            return code in _POSITIVE
        case _ as never:
            assert_never(never)


@dataclass(frozen=True, slots=True)
class Terms:
    """`commit`: when we say that a message is stored or is not; None: we say nothing, the server's answer says all.

    `letter` begins the codes of what we say then (C or A); `application`: which of the server's answers are passed on.
    """

    commit: AppAck | None
    letter: str
    application: AppAck

    @property
    def stored(self) -> str:
        """MSA-1 for a message that is on the platter; empty: the sender does not want to hear it from us."""
        code = self.letter + "A"
        return code if self.commit is not None and forwards(self.commit, code) else ""

    def refused(self, letter: str) -> str:
        """MSA-1 for a message that is not taken, E or R; empty for a sender that wants to hear of no failure at all."""
        if self.commit is None or forwards(self.commit, self.letter + letter):
            return self.letter + letter
        return "A" + letter if forwards(self.application, "A" + letter) else ""


ORIGINAL: Final = Terms(None, "A", AppAck.ALWAYS)


@lru_cache(maxsize=64)
def _enhanced(commit: AppAck, letter: str, application: AppAck) -> Terms:
    return Terms(commit, letter, application)


def terms_of(spec: ChannelSpec | None, header: Header | None) -> Terms:
    """The terms of a message with this MSH; None: it has none that can be read, or there is no channel any more."""
    if spec is None:
        return ORIGINAL
    match spec.ack_mode:
        case AckMode.ORIGINAL:
            return ORIGINAL
        case AckMode.ENHANCED:
            return _enhanced(AppAck.ALWAYS, "C", spec.app_ack)
        case AckMode.ENHANCED_AA:
            return _enhanced(AppAck.ALWAYS, "A", AppAck.NEVER)
        case AckMode.AUTO:
            return _asked_for(header)
        case _ as never:
            assert_never(never)


def _asked_for(header: Header | None) -> Terms:
    if header is None or not (header.accept_ack or header.application_ack):
        return ORIGINAL
    return _enhanced(_condition(header.accept_ack), "C", _condition(header.application_ack))


def _condition(value: bytes) -> AppAck:
    """One of the two is there: then one that is missing means "never" (§2.9.3.1)."""
    if not value:
        return AppAck.NEVER
    return _CONDITIONS.get(value.strip().upper(), AppAck.ALWAYS)
