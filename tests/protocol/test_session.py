"""The uplink as one transition table: what each end does next, and what cannot happen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.protocol.session import (
    MAX_OUTSTANDING,
    TABLE,
    Effect,
    Event,
    IllegalEvent,
    Role,
    Session,
    State,
)

OWN = {Event.TICK_UNANSWERED, Event.TICK_OVERDUE}
PAIRS = [(role, state, event) for role in Role for state in State for event in Event]
LEGAL = [pair for pair in PAIRS if pair[1:] in TABLE[pair[0]]]
ILLEGAL = [pair for pair in PAIRS if pair[1:] not in TABLE[pair[0]] and pair[2] not in OWN]


def name(value: object) -> str:
    return getattr(value, "name", "")


def session(role: Role, *events: Event) -> Session:
    end = Session(role)
    for event in events:
        end.on(event)
    return end


# The agent's life, as recorded


def test_an_agent_introduces_itself_as_soon_as_the_socket_is_open() -> None:
    agent = Session(Role.AGENT)

    assert agent.on(Event.DIAL) == (Effect.OPEN_SOCKET,)
    assert agent.on(Event.OPENED) == (Effect.SEND_CONNECT,)
    assert agent.on(Event.ACCEPTED) == (Effect.ANNOUNCE_LIVE,)
    assert agent.state is State.LIVE


def test_an_agent_that_is_refused_leaves_and_remembers_why() -> None:
    agent = session(Role.AGENT, Event.DIAL, Event.OPENED)

    assert agent.on(Event.REFUSED) == (Effect.NOTE_REFUSAL, Effect.CLOSE)
    assert agent.on(Event.LOST) == (Effect.ANNOUNCE_LOST,)
    assert agent.state is State.OFFLINE


def test_an_error_on_a_live_socket_is_about_a_message_and_ends_nothing() -> None:
    agent = session(Role.AGENT, Event.DIAL, Event.OPENED, Event.ACCEPTED)

    assert agent.on(Event.REFUSED) == (Effect.DELIVER,)
    assert agent.state is State.LIVE


def test_the_third_tick_after_two_unanswered_heartbeats_drops_the_socket() -> None:
    agent = session(Role.AGENT, Event.DIAL, Event.OPENED, Event.ACCEPTED)

    assert agent.on(Event.TICK) == (Effect.SEND_HEARTBEAT,)
    assert agent.on(Event.TICK) == (Effect.COUNT_MISSED, Effect.SEND_HEARTBEAT)
    assert agent.on(Event.TICK) == (Effect.COUNT_MISSED, Effect.DROP)
    assert agent.on(Event.LOST) == (Effect.ANNOUNCE_LOST,)


def test_one_answer_forgives_every_heartbeat_before_it() -> None:
    agent = session(Role.AGENT, Event.DIAL, Event.OPENED, Event.ACCEPTED, Event.TICK, Event.TICK)

    agent.on(Event.HEARTBEAT_RESPONSE)

    assert agent.outstanding == 0
    assert agent.on(Event.TICK) == (Effect.SEND_HEARTBEAT,)


def test_a_new_socket_owes_nothing_for_the_old_one() -> None:
    agent = session(Role.AGENT, Event.DIAL, Event.OPENED, Event.ACCEPTED, Event.TICK, Event.TICK, Event.LOST)

    assert agent.outstanding == 0


def test_frames_behind_the_one_that_made_us_leave_are_ignored() -> None:
    agent = session(Role.AGENT, Event.DIAL, Event.OPENED, Event.ACCEPTED, Event.LEAVE)

    for event in (Event.FRAME, Event.HEARTBEAT_REQUEST, Event.HEARTBEAT_RESPONSE, Event.TICK, Event.ACCEPTED):
        assert agent.on(event) == ()
    assert agent.state is State.CLOSING


# The server's, as recorded in client-to-server-odd-frames


def test_a_stranger_may_beat_but_not_transmit() -> None:
    server = session(Role.SERVER, Event.OPENED)

    assert server.on(Event.HEARTBEAT_REQUEST) == (Effect.ANSWER_HEARTBEAT,)
    assert server.on(Event.FRAME) == (Effect.REFUSE_NOT_CONNECTED,)


def test_a_stranger_who_says_nothing_is_left_alone() -> None:
    server = session(Role.SERVER, Event.OPENED)

    assert [server.on(Event.TICK) for _ in range(9)] == [()] * 9


def test_a_refused_connect_may_be_tried_again_on_the_same_socket() -> None:
    server = session(Role.SERVER, Event.OPENED)

    assert server.on(Event.CONNECT_REQUEST) == (Effect.JUDGE_CONNECT,)
    assert server.on(Event.REFUSED) == (Effect.SEND_REFUSED,)
    assert server.on(Event.CONNECT_REQUEST) == (Effect.JUDGE_CONNECT,)
    assert server.on(Event.ACCEPTED) == (Effect.SEND_ACCEPTED, Effect.ANNOUNCE_LIVE)
    assert server.on(Event.FRAME) == (Effect.DELIVER,)


def test_a_second_connect_on_a_live_socket_is_accepted_again() -> None:
    server = session(Role.SERVER, Event.OPENED, Event.CONNECT_REQUEST, Event.ACCEPTED)

    assert server.on(Event.CONNECT_REQUEST) == (Effect.JUDGE_CONNECT,)
    assert server.on(Event.FRAME) == (Effect.DELIVER,)
    assert server.on(Event.ACCEPTED) == (Effect.SEND_ACCEPTED, Effect.ANNOUNCE_LIVE)


# The table as a whole


@pytest.mark.parametrize(("role", "state", "event"), LEGAL, ids=name)
def test_a_legal_pair_leads_where_the_table_says(role: Role, state: State, event: Event) -> None:
    end = Session(role)
    end.state = state
    if event in OWN:
        end.outstanding, event = (1, Event.TICK) if event is Event.TICK_UNANSWERED else (MAX_OUTSTANDING, Event.TICK)
        expected = TABLE[role][state, Event.TICK_UNANSWERED if end.outstanding == 1 else Event.TICK_OVERDUE]
    else:
        expected = TABLE[role][state, event]

    effects = end.on(event)

    assert (end.state, effects) == expected


@pytest.mark.parametrize(("role", "state", "event"), ILLEGAL, ids=name)
def test_an_illegal_pair_is_named_and_changes_nothing(role: Role, state: State, event: Event) -> None:
    end = Session(role)
    end.state = state

    with pytest.raises(IllegalEvent, match=f"{event.name} cannot happen to the {role.name.lower()} while {state.name}"):
        end.on(event)

    assert (end.state, end.outstanding) == (state, 0)


@pytest.mark.parametrize("role", Role, ids=name)
def test_every_state_that_can_be_reached_can_be_lost_and_begun_again(role: Role) -> None:
    reachable = {State.OFFLINE}
    while more := {to for (at, _), (to, _) in TABLE[role].items() if at in reachable} - reachable:
        reachable |= more

    for state in reachable - {State.OFFLINE}:
        assert TABLE[role][state, Event.LOST] == (State.OFFLINE, (Effect.ANNOUNCE_LOST,))


@given(role=st.sampled_from(Role), events=st.lists(st.sampled_from([e for e in Event if e not in OWN]), max_size=60))
def test_no_sequence_of_events_breaks_the_promises(role: Role, events: list[Event]) -> None:
    end = Session(role)
    announced = False
    for event in events:
        before = end.state
        try:
            effects = end.on(event)
        except IllegalEvent:
            continue
        assert end.outstanding <= MAX_OUTSTANDING
        assert end.state is not State.OFFLINE or end.outstanding == 0
        assert Effect.DELIVER not in effects or before is State.LIVE
        assert Effect.SEND_CONNECT not in effects or before is State.OPENING
        assert Effect.ANNOUNCE_LOST not in effects or before is not State.OFFLINE
        assert (Effect.DROP in effects or Effect.CLOSE in effects) <= (end.state is State.CLOSING)
        announced = (announced or Effect.ANNOUNCE_LIVE in effects) and end.state is not State.OFFLINE
        assert announced >= (end.state is State.LIVE)
