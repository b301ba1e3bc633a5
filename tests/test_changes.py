"""What another configuration would do to each channel."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.changes import Action, Change, Running, compare
from agent.channel import place_of
from agent.spec import AckMode, Astm, ByteStream, ChannelSpec, LineSpec, Mllp, SerialSpec, TlsSpec


def spec(name: str, port: int = 2575, host: str = "127.0.0.1", **more: object) -> ChannelSpec:
    return dataclasses.replace(ChannelSpec(name, f"mllp://{host}:{port}", host, port), **more)  # type: ignore[arg-type]


def only(now: Running | None, wanted: ChannelSpec | None) -> Change:
    """The change of one channel by itself."""
    running = {now.spec.name: now} if now is not None else {}
    [change] = compare(running, [wanted] if wanted is not None else [])
    return change


def test_the_same_is_kept_with_its_connections() -> None:
    change = only(Running(spec("adt"), 3), spec("adt"))
    assert (change.action, change.kept, change.dropped, change.fields) == (Action.KEEP, 3, 0, ())


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"ack_mode": AckMode.ENHANCED}, "ack_mode"),
        ({"line": LineSpec(max_connections=3)}, "line"),
        ({"address": "mllp://127.0.0.1:2575?encoding=latin1", "encoding": "latin-1"}, "encoding"),
    ],
)
def test_other_parameters_keep_the_connections(more: dict[str, object], field: str) -> None:
    change = only(Running(spec("adt"), 3), spec("adt", **more))
    assert (change.action, change.kept, change.dropped) == (Action.REPARAMETER, 3, 0)
    assert field in change.fields


@pytest.mark.parametrize(
    "wanted",
    [
        spec("adt", 2576),
        spec("adt", host="0.0.0.0"),
        spec("adt", wire=ByteStream(end=13)),
        spec("adt", wire=Astm()),
        spec("adt", dials=True),
        spec("adt", line=LineSpec(tls=TlsSpec("lab"))),
        spec("adt", 0, host="/dev/ttyUSB0", wire=Astm(), serial=SerialSpec("/dev/ttyUSB0")),
    ],
)
def test_another_door_drops_them(wanted: ChannelSpec) -> None:
    change = only(Running(spec("adt"), 3), wanted)
    assert (change.action, change.kept, change.dropped) == (Action.REBIND, 0, 3)
    assert change.was == "mllp://127.0.0.1:2575"


def test_other_settings_of_a_serial_line_are_another_door() -> None:
    slow = spec("lab", 0, host="/dev/ttyUSB0", wire=Astm(), serial=SerialSpec("/dev/ttyUSB0"))
    fast = dataclasses.replace(slow, serial=SerialSpec("/dev/ttyUSB0", baud_rate=19_200))
    assert only(Running(slow, 1), fast).action is Action.REBIND


def test_what_is_new_starts_and_what_is_not_wanted_stops() -> None:
    assert only(None, spec("adt")) == Change("adt", Action.START, "mllp://127.0.0.1:2575")
    assert only(Running(spec("adt"), 2), None) == Change("adt", Action.STOP, "", was="mllp://127.0.0.1:2575", dropped=2)


def test_a_channel_that_never_opened_starts_whatever_it_was() -> None:
    assert only(Running(spec("adt"), open=False), spec("adt")).action is Action.START


def test_a_channel_that_cannot_be_had_loses_nothing() -> None:
    running = {"adt": Running(spec("adt"), 2), "lab": Running(spec("lab", 2576), 1)}
    changes = compare(running, [spec("adt", 2580)], failed={"adt"}, unreadable={"lab": "carrier-pigeon://roof"})
    assert [(each.channel, each.action, each.kept, each.dropped) for each in changes] == [
        ("adt", Action.FAILED, 2, 0),
        ("lab", Action.FAILED, 1, 0),
    ]
    assert changes[1].address == "carrier-pigeon://roof"


NAMES = st.sampled_from("abcdef")
SPECS = st.builds(
    spec,
    NAMES,
    st.sampled_from([0, 2575, 2576, 2577]),
    st.sampled_from(["127.0.0.1", "0.0.0.0"]),
    ack_mode=st.sampled_from(AckMode),
    wire=st.sampled_from([Mllp(), Astm()]),
    dials=st.booleans(),
)
CONFIGURATIONS = st.lists(SPECS, max_size=6, unique_by=lambda each: each.name)


@given(CONFIGURATIONS, CONFIGURATIONS, st.dictionaries(NAMES, st.integers(0, 9)), st.sets(NAMES))
def test_every_channel_has_one_change_and_every_connection_one_fate(
    before: list[ChannelSpec], after: list[ChannelSpec], connections: dict[str, int], failed: set[str]
) -> None:
    running = {each.name: Running(each, connections.get(each.name, 0)) for each in before}
    changes = {change.channel: change for change in compare(running, after, failed)}
    assert changes.keys() == running.keys() | {each.name for each in after}
    for name, change in changes.items():
        had = running[name].connections if name in running else 0
        assert change.kept + change.dropped == had
        kept = change.action in (Action.KEEP, Action.REPARAMETER, Action.FAILED)
        assert (change.dropped == 0) if kept else (change.kept == 0)


@given(CONFIGURATIONS, CONFIGURATIONS)
def test_only_those_keep_their_connections_whose_place_stays(
    before: list[ChannelSpec], after: list[ChannelSpec]
) -> None:
    running = {each.name: Running(each, 1) for each in before}
    wanted = {each.name: each for each in after}
    for change in compare(running, after):
        stays = (
            change.channel in running
            and change.channel in wanted
            and place_of(running[change.channel].spec) == place_of(wanted[change.channel])
        )
        assert bool(change.kept) == stays
        assert (change.action is Action.KEEP) == (stays and running[change.channel].spec == wanted[change.channel])
