"""Decide what an end of the agent's socket does next: one transition table for the agent and for the server.

Secret: who may say what when: who introduces themselves, what is refused before, which heartbeats may be missed.
Promise: `on` is the only way forward and only decides; the caller performs the effects, in their order. A state
and event that are not in the table together are a mistake of the caller's and raise IllegalEvent.

Heartbeats: each end sends one at every tick of its own clock. At the third tick, after two unanswered ones, it
drops the socket (recording `heartbeat-missed`). A heartbeat response forgives all that were missed before it.
"""

from __future__ import annotations

from enum import Enum, auto

from agent.errors import AgentError


class Role(Enum):
    """Which end of the socket this is."""

    AGENT = auto()
    SERVER = auto()


class State(Enum):
    """How far the two ends have come. LIVE: messages may pass."""

    OFFLINE = auto()
    OPENING = auto()  # agent: TCP, TLS and upgrade under way
    OPEN = auto()  # server: a socket from somebody who has not said who they are
    INTRODUCED = auto()  # the connect request is sent or received, the verdict is out
    LIVE = auto()
    CLOSING = auto()  # we are done with this socket; whatever still arrives on it is ignored


class Event(Enum):
    """What happened. The last two are the session's own: TICK, when heartbeats are unanswered."""

    DIAL = auto()  # agent: it is time to try
    OPENED = auto()  # the WebSocket upgrade is through
    CONNECT_REQUEST = auto()  # server: a connect request was read
    ACCEPTED = auto()  # agent: connect response read; server: token and agent id are good
    REFUSED = auto()  # agent: an agent:error was read; server: token or agent id are not good
    TICK = auto()  # our heartbeat clock
    HEARTBEAT_REQUEST = auto()
    HEARTBEAT_RESPONSE = auto()
    FRAME = auto()  # any other frame was read
    LEAVE = auto()  # we want to close
    LOST = auto()  # the socket is gone, or never came to be
    TICK_UNANSWERED = auto()
    TICK_OVERDUE = auto()


class Effect(Enum):
    """What the caller must now do."""

    OPEN_SOCKET = auto()
    SEND_CONNECT = auto()
    JUDGE_CONNECT = auto()  # check token and agent id, then come back with ACCEPTED or REFUSED
    SEND_ACCEPTED = auto()
    SEND_REFUSED = auto()
    ANNOUNCE_LIVE = auto()
    ANNOUNCE_LOST = auto()
    NOTE_REFUSAL = auto()  # agent: say which of the configured values is wrong, try again slowly
    SEND_HEARTBEAT = auto()
    ANSWER_HEARTBEAT = auto()
    NOTE_ROUND_TRIP = auto()
    COUNT_MISSED = auto()
    DELIVER = auto()
    REFUSE_NOT_CONNECTED = auto()  # answer "Not connected"
    CLOSE = auto()  # close handshake, with a deadline
    DROP = auto()  # the far end does not listen any more: no handshake


class IllegalEvent(AgentError):
    """The caller reported something that cannot happen in this state: a bug, not trouble on the network."""

    hint = "report this as a bug, with the log lines around it"

    def __init__(self, role: Role, state: State, event: Event) -> None:
        super().__init__(f"{event.name} cannot happen to the {role.name.lower()} while {state.name}")


_TICKS = (Event.TICK, Event.TICK_UNANSWERED, Event.TICK_OVERDUE)  # by the number of heartbeats outstanding
MAX_OUTSTANDING = len(_TICKS) - 1

Transition = tuple[State, tuple[Effect, ...]]


def _heartbeats(state: State) -> dict[tuple[State, Event], Transition]:
    """What both ends do alike wherever somebody is on the other side."""
    return {
        (state, Event.TICK): (state, (Effect.SEND_HEARTBEAT,)),
        (state, Event.TICK_UNANSWERED): (state, (Effect.COUNT_MISSED, Effect.SEND_HEARTBEAT)),
        (state, Event.TICK_OVERDUE): (State.CLOSING, (Effect.COUNT_MISSED, Effect.DROP)),
        **_answers(state),
    }


def _answers(state: State) -> dict[tuple[State, Event], Transition]:
    return {
        (state, Event.HEARTBEAT_REQUEST): (state, (Effect.ANSWER_HEARTBEAT,)),
        (state, Event.HEARTBEAT_RESPONSE): (state, (Effect.NOTE_ROUND_TRIP,)),
        (state, Event.LEAVE): (State.CLOSING, (Effect.CLOSE,)),
        (state, Event.LOST): (State.OFFLINE, (Effect.ANNOUNCE_LOST,)),
    }


def _closing(*ignored: Event) -> dict[tuple[State, Event], Transition]:
    """A socket read may hold frames behind the one that made us leave, and a clock may be one tick behind."""
    deaf = [*_TICKS, Event.HEARTBEAT_REQUEST, Event.HEARTBEAT_RESPONSE, Event.FRAME]
    deaf += [Event.LEAVE, Event.ACCEPTED, Event.REFUSED, *ignored]
    return {
        **{(State.CLOSING, event): (State.CLOSING, ()) for event in deaf},
        (State.CLOSING, Event.LOST): (State.OFFLINE, (Effect.ANNOUNCE_LOST,)),
    }


TABLE: dict[Role, dict[tuple[State, Event], Transition]] = {
    Role.AGENT: {
        (State.OFFLINE, Event.DIAL): (State.OPENING, (Effect.OPEN_SOCKET,)),
        (State.OPENING, Event.OPENED): (State.INTRODUCED, (Effect.SEND_CONNECT,)),
        (State.OPENING, Event.LEAVE): (State.CLOSING, (Effect.DROP,)),
        (State.OPENING, Event.LOST): (State.OFFLINE, (Effect.ANNOUNCE_LOST,)),
        (State.INTRODUCED, Event.ACCEPTED): (State.LIVE, (Effect.ANNOUNCE_LIVE,)),
        (State.INTRODUCED, Event.REFUSED): (State.CLOSING, (Effect.NOTE_REFUSAL, Effect.CLOSE)),
        (State.INTRODUCED, Event.FRAME): (State.INTRODUCED, (Effect.REFUSE_NOT_CONNECTED,)),
        **_heartbeats(State.INTRODUCED),
        (State.LIVE, Event.ACCEPTED): (State.LIVE, ()),  # said twice (recording server-to-agent-odd-frames)
        (State.LIVE, Event.REFUSED): (State.LIVE, (Effect.DELIVER,)),  # an error about some message of ours
        (State.LIVE, Event.FRAME): (State.LIVE, (Effect.DELIVER,)),
        **_heartbeats(State.LIVE),
        **_closing(),
    },
    Role.SERVER: {
        (State.OFFLINE, Event.OPENED): (State.OPEN, ()),
        (State.OPEN, Event.CONNECT_REQUEST): (State.INTRODUCED, (Effect.JUDGE_CONNECT,)),
        (State.OPEN, Event.FRAME): (State.OPEN, (Effect.REFUSE_NOT_CONNECTED,)),
        (State.OPEN, Event.TICK): (State.OPEN, ()),  # a stranger is neither asked nor thrown out
        **_answers(State.OPEN),
        (State.INTRODUCED, Event.CONNECT_REQUEST): (State.INTRODUCED, (Effect.JUDGE_CONNECT,)),
        (State.INTRODUCED, Event.ACCEPTED): (State.LIVE, (Effect.SEND_ACCEPTED, Effect.ANNOUNCE_LIVE)),
        (State.INTRODUCED, Event.REFUSED): (State.OPEN, (Effect.SEND_REFUSED,)),
        (State.INTRODUCED, Event.FRAME): (State.INTRODUCED, (Effect.REFUSE_NOT_CONNECTED,)),
        (State.INTRODUCED, Event.TICK): (State.INTRODUCED, ()),
        **_answers(State.INTRODUCED),
        # A second connect on a live socket is judged again; a refusal does not undo the first.
        (State.LIVE, Event.CONNECT_REQUEST): (State.LIVE, (Effect.JUDGE_CONNECT,)),
        (State.LIVE, Event.ACCEPTED): (State.LIVE, (Effect.SEND_ACCEPTED, Effect.ANNOUNCE_LIVE)),
        (State.LIVE, Event.REFUSED): (State.LIVE, (Effect.SEND_REFUSED,)),
        (State.LIVE, Event.FRAME): (State.LIVE, (Effect.DELIVER,)),
        **_heartbeats(State.LIVE),
        **_closing(Event.CONNECT_REQUEST),
    },
}


class Session:
    """One end of the socket. `outstanding`: heartbeats sent and not answered. Only `on` changes anything."""

    __slots__ = ("_table", "outstanding", "role", "state")

    def __init__(self, role: Role) -> None:
        self.role = role
        self.state = State.OFFLINE
        self.outstanding = 0
        self._table = TABLE[role]

    def on(self, event: Event) -> tuple[Effect, ...]:
        """Note what happened and say what to do about it. IllegalEvent leaves everything as it was."""
        entry = _TICKS[self.outstanding] if event is Event.TICK else event
        try:
            self.state, effects = self._table[self.state, entry]
        except KeyError:
            raise IllegalEvent(self.role, self.state, event) from None
        if Effect.SEND_HEARTBEAT in effects:
            self.outstanding += 1
        elif event is Event.HEARTBEAT_RESPONSE or self.state is State.OFFLINE:
            self.outstanding = 0
        return effects
