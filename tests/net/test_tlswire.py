"""TLS without a socket: both ends in one process, and the network between them cuts as it likes."""

from __future__ import annotations

import contextlib
import itertools
import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from certificates import Authority
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.net.tls import Identity
from agent.net.tlswire import TlsFailure, TlsWire, begins_tls


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server(authority: Authority) -> ssl.SSLContext:
    return Identity.load(authority.issue("server").spec(), dials=False).context


@pytest.fixture(scope="module")
def asking(authority: Authority) -> ssl.SSLContext:
    """A server that wants to see a certificate."""
    return Identity.load(authority.issue("asking").spec(client_ca=authority.file), dials=False).context


def met(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "localhost") -> tuple[TlsWire, TlsWire]:
    """Both ends after the handshake, or TlsFailure of the first that finds something wrong."""
    ours, theirs = TlsWire(server, True), TlsWire(client, False, name)
    shake(ours, theirs)
    return ours, theirs


def shake(ours: TlsWire, theirs: TlsWire) -> None:
    said = b""
    for _ in range(10):
        theirs.feed(said)
        ours.feed(theirs.outgoing())
        said = ours.outgoing()
        if ours.established and theirs.established and not said:
            return


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """In pieces of these sizes, round and round."""
    pieces: list[bytes] = []
    begin = 0
    for size in itertools.cycle(sizes):
        if begin >= len(data):
            return pieces
        pieces.append(data[begin : begin + size])
        begin += size
    raise AssertionError


# ---- what is said arrives


@settings(max_examples=50)
@given(
    texts=st.lists(st.binary(min_size=1, max_size=40_000), min_size=1, max_size=4),
    sizes=st.lists(st.integers(1, 70_000), min_size=1, max_size=5),
    newest=st.sampled_from([ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]),
)
def test_what_is_wrapped_comes_out_however_it_was_cut(
    server: ssl.SSLContext, authority: Authority, texts: list[bytes], sizes: list[int], newest: ssl.TLSVersion
) -> None:
    ours, theirs = met(server, authority.client(newest=newest))

    there = b"".join(theirs.wrap(text) for text in texts)
    back = b"".join(ours.wrap(text) for text in texts)

    assert b"".join(ours.feed(piece) for piece in cut(there, sizes)) == b"".join(texts)
    assert b"".join(theirs.feed(piece) for piece in cut(back, sizes)) == b"".join(texts)


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(sizes=st.lists(st.integers(1, 2_000), min_size=1, max_size=6))
def test_a_handshake_may_come_in_any_pieces(server: ssl.SSLContext, authority: Authority, sizes: list[int]) -> None:
    ours, theirs = TlsWire(server, True), TlsWire(authority.client(), False, "localhost")
    theirs.feed(b"")
    for _ in range(6):
        for piece in cut(theirs.outgoing(), sizes):
            ours.feed(piece)
        for piece in cut(ours.outgoing(), sizes):
            theirs.feed(piece)

    assert ours.established
    assert theirs.established


@pytest.mark.parametrize("size", [1_000, 16_384, 16_406, 65_536, 262_144, 1 << 25])
def test_sixteen_mebibytes_go_through_at_every_size_of_read(
    server: ssl.SSLContext, authority: Authority, size: int
) -> None:
    ours, theirs = met(server, authority.client())
    message = bytes(range(256)) * 65_536

    sealed = theirs.wrap(message)

    assert b"".join(ours.feed(piece) for piece in cut(sealed, [size])) == message


def test_nothing_but_the_beginning_of_a_record_is_held(server: ssl.SSLContext, authority: Authority) -> None:
    ours, theirs = met(server, authority.client())
    sealed = theirs.wrap(b"x" * 100_000)

    came = 0
    for position, byte in enumerate(cut(sealed, [1_000])):
        came += len(ours.feed(byte))
        assert (position + 1) * 1_000 - came < 16_384 + 1_000 + 500, "a record, a read, and the records' own bytes"
        assert ours._incoming.pending == 0


def test_one_byte_at_a_time_is_enough(server: ssl.SSLContext, authority: Authority) -> None:
    ours, theirs = met(server, authority.client())

    assert b"".join(ours.feed(piece) for piece in cut(theirs.wrap(b"MSH|"), [1])) == b"MSH|"


# ---- the end


def test_the_end_of_one_side_is_told_after_what_came_before_it(server: ssl.SSLContext, authority: Authority) -> None:
    ours, theirs = met(server, authority.client())

    plaintext = ours.feed(theirs.wrap(b"the last words") + theirs.close_notify())

    assert plaintext == b"the last words"
    assert ours.ended
    assert ours.feed(b"whatever comes now") == b""


def test_answers_still_go_to_a_side_that_has_said_its_last(server: ssl.SSLContext, authority: Authority) -> None:
    ours, theirs = met(server, authority.client())
    ours.feed(theirs.close_notify())

    assert theirs.feed(ours.wrap(b"answer") + ours.close_notify()) == b"answer"
    assert theirs.ended


def test_a_close_before_the_handshake_says_nothing(server: ssl.SSLContext) -> None:
    assert TlsWire(server, True).close_notify() == b""


def test_no_session_is_given_out_to_resume(server: ssl.SSLContext, authority: Authority) -> None:
    for newest in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        _, theirs = met(server, authority.client(newest=newest))

        session = theirs._tls.session
        assert session is None or not session.has_ticket


# ---- what goes wrong, in words


def failure(ours: TlsWire, theirs: TlsWire) -> TlsFailure:
    with pytest.raises(TlsFailure) as failed:
        shake(ours, theirs)
    assert failed.value.hint
    return failed.value


def failure_of_server(server: ssl.SSLContext, client: ssl.SSLContext) -> TlsFailure:
    return failure(TlsWire(server, True), TlsWire(client, False, "localhost"))


def unsuspecting(newest: ssl.TLSVersion | None = None, ciphers: str = "") -> ssl.SSLContext:
    """A client that believes everybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if newest is not None:
        context.maximum_version = newest
    if ciphers:
        context.set_ciphers(ciphers)
    return context


def test_a_client_without_a_certificate(asking: ssl.SSLContext, authority: Authority) -> None:
    told = failure_of_server(asking, authority.client())

    assert str(told) == "the other side shows no certificate"
    assert "ca_file" in told.hint


def test_a_client_of_an_unknown_authority(asking: ssl.SSLContext, authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "Elsewhere").issue("stranger", client=True)

    assert "an authority that we do not know" in str(failure_of_server(asking, authority.client(stranger)))


def test_a_client_whose_certificate_has_expired(asking: ssl.SSLContext, authority: Authority) -> None:
    expired = authority.issue("expired", client=True, days=-1)

    assert "certificate has expired" in str(failure_of_server(asking, authority.client(expired)))


def test_a_client_whose_certificate_is_not_valid_yet(asking: ssl.SSLContext, authority: Authority) -> None:
    early = authority.issue("early", client=True, began=timedelta(days=-1))

    assert "not valid yet" in str(failure_of_server(asking, authority.client(early)))


def test_a_client_with_a_servers_certificate(asking: ssl.SSLContext, authority: Authority) -> None:
    told = failure_of_server(asking, authority.client(authority.issue("wrong-purpose")))

    assert "not made for this end" in str(told)


def test_an_issuing_authority_will_do_without_its_root(tmp_path: Path) -> None:
    root = Authority(tmp_path, "Root")
    issuing = Authority(tmp_path, "Issuing", above=root)
    asking = Identity.load(root.issue("server").spec(client_ca=issuing.file), dials=False).context

    ours, _ = met(asking, root.client(issuing.issue("device", client=True)))

    assert ours.established


def test_a_client_that_speaks_only_tls_1_1(server: ssl.SSLContext) -> None:
    old = unsuspecting(ciphers="ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSVersion"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning, match="TLSVersion"):
        old.minimum_version = ssl.TLSVersion.TLSv1_1
    ours, theirs = TlsWire(server, True), TlsWire(old, False, "localhost")

    assert "no version of TLS in common" in str(failure(ours, theirs))
    assert "no version of TLS in common" in str(told_by(theirs, ours.outgoing()))


def test_a_client_without_a_cipher_of_ours(server: ssl.SSLContext) -> None:
    # given a client with RSA only, where the key is an elliptic curve
    client = unsuspecting(ssl.TLSVersion.TLSv1_2, "AES128-GCM-SHA256")

    assert "no cipher in common" in str(failure_of_server(server, client))


def told_by(wire: TlsWire, alert: bytes) -> TlsFailure:
    with pytest.raises(TlsFailure) as failed:
        wire.feed(alert)
    return failed.value


def test_a_client_that_does_not_trust_us_says_so(server: ssl.SSLContext, tmp_path: Path) -> None:
    ours, theirs = TlsWire(server, True), TlsWire(Authority(tmp_path, "Other").client(), False, "localhost")
    assert "an authority that we do not know" in str(failure(ours, theirs))

    told = told_by(ours, theirs.outgoing())

    assert str(told) == "the other side does not trust our certificate"
    assert "chain" in told.hint


def test_a_server_of_another_name(server: ssl.SSLContext, authority: Authority) -> None:
    ours, theirs = TlsWire(server, True), TlsWire(authority.client(), False, "elsewhere")

    assert "another host name" in str(failure(ours, theirs))


def test_a_server_that_wants_to_see_a_certificate_says_so(asking: ssl.SSLContext, authority: Authority) -> None:
    ours, theirs = TlsWire(asking, True), TlsWire(authority.client(), False, "localhost")
    failure(ours, theirs)

    assert str(told_by(theirs, ours.outgoing())) == "the other side wants a certificate of us"


def test_what_is_no_tls(server: ssl.SSLContext) -> None:
    assert str(told_by(TlsWire(server, True), b"GET / HTTP/1.1\r\n\r\n")) == "what the other side sends is no TLS"


def test_bytes_that_were_changed_on_the_way(server: ssl.SSLContext, authority: Authority) -> None:
    ours, theirs = met(server, authority.client())
    sealed = bytearray(theirs.wrap(b"MSH|"))
    sealed[-1] ^= 1

    assert "damaged on the way" in str(told_by(ours, bytes(sealed)))


@given(st.binary(min_size=1, max_size=2_000))
def test_whatever_comes_first_is_taken_or_a_failure_in_words(server: ssl.SSLContext, data: bytes) -> None:
    wire = TlsWire(server, True)
    with contextlib.suppress(TlsFailure):
        assert wire.feed(data) == b""
    wire.outgoing()
    assert not wire.established


@given(st.data())
def test_a_conversation_damaged_anywhere_never_gives_other_bytes(
    server: ssl.SSLContext, authority: Authority, data: st.DataObject
) -> None:
    ours, theirs = met(server, authority.client())
    sealed = bytearray(theirs.wrap(b"MSH|^~\\&|" * 10))
    position = data.draw(st.integers(0, len(sealed) - 1))
    sealed[position] ^= data.draw(st.integers(1, 255))

    with contextlib.suppress(TlsFailure):
        assert ours.feed(bytes(sealed)) == b"", "it waits for the rest of what seems a longer record"


# ---- is it TLS at all?


def test_a_hello_is_recognised_at_each_of_its_lengths(authority: Authority) -> None:
    wire = TlsWire(authority.client(), False, "localhost")
    wire.feed(b"")
    hello = wire.outgoing()

    assert all(begins_tls(hello[:size]) for size in range(1, len(hello)))


@pytest.mark.parametrize("first", [b"\x80\x2e\x01\x00\x02", b"\x80", b"\x15\x03\x03\x00\x02\x02\x28"])
def test_old_hellos_and_alerts_are_tls(first: bytes) -> None:
    assert begins_tls(first)


@pytest.mark.parametrize(
    "first", [b"\x0b", b"\x0bMSH", b"MSH|", b"GET / ", b"\x00\x0b", b"\xff\xfe\x0b", b"\xef\xbb\xbfMSH", b"\x16M"]
)
def test_messages_and_other_text_are_not(first: bytes) -> None:
    assert not begins_tls(first)
