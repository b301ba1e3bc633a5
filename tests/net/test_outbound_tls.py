"""Connections to remotes through TLS: who is believed, what is shown, and how every disagreement is told."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from certificates import TODAY, Authority, Issued
from net_far_ends import WITHIN_S, on_both_loops
from outbound_far_ends import LINGER_0, Caller, Script, Wire, door, office, remote, spec_of

from agent.errors import Severity
from agent.failures import Failure, Kind
from agent.net.line import Line, _certified_name
from agent.net.outbound import Outbound
from agent.net.tls import Identity
from agent.net.tlswire import TlsWire
from agent.protocol.mllp import wrap
from agent.spec import TlsSpec

ADT = b"MSH|^~\\&|AGENT|||LAB|20260101||ADT^A01|1|P|2.5\r"
ACK = b"MSH|^~\\&|LAB|||AGENT|20260101||ACK^A01|2|P|2.5\rMSA|AA|1\r"
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]

at_both_versions = pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def context_of(
    issued: Issued, *, asks_for: Authority | None = None, version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    """A system with this certificate. `asks_for`: it wants to see one of that authority's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    if asks_for is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(asks_for.file)
    if version is not None:
        context.maximum_version = context.minimum_version = version
    return context


def through(context: ssl.SSLContext, then: Callable[[ssl.SSLSocket], object] = lambda tls: None) -> Script:
    """A system that shakes hands, does `then`, and says goodbye."""

    def script(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False) as tls:
            then(tls)
            tls.unwrap()

    return script


def answers(tls: ssl.SSLSocket) -> None:
    """Reads one message and acknowledges it."""
    came = b""
    while not came.endswith(b"\x1c\r"):
        came += tls.recv(100_000)
    tls.sendall(wrap(ACK))


async def failure_at(
    script: Script, tls: TlsSpec | None, *, told: str, host: str = "localhost", within_s: float = 8.0
) -> Failure:
    """Why there is no TLS with such a system; a message is sent as soon as there seems to be."""
    async with door(script) as port, office(connect_within_s=within_s) as here:

        def reacts(name: str) -> None:
            if name == "opened":
                caller.send(ADT)

        caller = here.dial(spec_of(port, host, secure=True, tls=tls), reacts)
        failure = await caller.failure_of(told)
        assert failure.kind is Kind.TLS
        assert failure.text.startswith(f"no TLS with {host}:{port}: ")
        assert failure.remedy
        return failure


# ---- while it goes well


@at_both_versions
@on_both_loops
async def test_messages_and_answers_go_through_tls(authority: Authority, version: ssl.TLSVersion) -> None:
    tls = TlsSpec("main", client_ca=authority.file)
    async with (
        remote(tls=context_of(authority.issue("lab"), version=version)) as system,
        office() as here,
    ):
        caller = await here.connected(spec_of(system.port, "localhost", tls=tls))
        far_end = await system.called()
        for number in (1, 2):
            caller.send(ADT)
            assert await far_end.hears() == ADT
            far_end.send(ACK, ACK)
            await caller.until(lambda wanted=2 * number: caller.line.frames == wanted)  # type: ignore[misc]
        assert caller.frames == 4 * [ACK]
        assert caller.line.connect_s > 0


@on_both_loops
async def test_long_messages_and_long_answers_go_through_tls(authority: Authority) -> None:
    tls = TlsSpec("main", client_ca=authority.file)
    long = bytes(range(0x20, 0x7F)) * 50_000
    async with remote(tls=context_of(authority.issue("lab"))) as system, office() as here:
        caller = await here.connected(spec_of(system.port, "localhost", tls=tls))
        far_end = await system.called()
        caller.send(long)
        assert await far_end.hears() == long
        far_end.send(long)
        await caller.is_told("heard")
        assert caller.frames == [long]


@on_both_loops
async def test_an_answer_in_pieces_and_noise_are_told_apart_through_tls(authority: Authority) -> None:
    async with remote(tls=context_of(authority.issue("lab"))) as system, office() as here:
        caller = await here.connected(spec_of(system.port, "localhost", tls=TlsSpec("main", client_ca=authority.file)))
        far_end = await system.called()
        caller.send(ADT)
        far_end.writer.write(b"\x0bMSA")
        await caller.until(lambda: caller.line.begun == 4)
        far_end.writer.write(b"\x1c\r\r\nHTTP/1.1")
        await caller.is_told("noisy")
        assert caller.frames == [b"MSA"]
        assert caller.line.noise == b"HTTP/1.1"


@on_both_loops
async def test_without_files_of_its_own_a_remote_is_believed_by_the_authorities_of_this_host(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    async with remote(tls=context_of(authority.issue("lab"))) as system, office() as here:
        for host in ("localhost", "127.0.0.1"):
            caller = await here.connected(spec_of(system.port, host, secure=True))
            (await system.called()).send(ACK)
            await caller.is_told("heard")
        assert here.outbound.findings(TODAY) == []


@at_both_versions
@on_both_loops
async def test_our_certificate_is_shown_to_who_asks(authority: Authority, version: ssl.TLSVersion) -> None:
    own = authority.issue("agent", client=True)
    context = context_of(authority.issue("lab"), asks_for=authority, version=version)
    async with remote(tls=context) as system, office() as here:
        await here.connected(spec_of(system.port, "localhost", tls=own.spec(client_ca=authority.file)))
        shown = (await system.called()).writer.get_extra_info("ssl_object").getpeercert()
        assert (("commonName", "agent"),) in shown["subject"]


@pytest.mark.parametrize("name", ["lab.example", "LAB.example."])
def test_a_certificate_calls_a_host_neither_by_its_last_dot_nor_by_its_zone(name: str) -> None:
    assert _certified_name(name).lower() == "lab.example"
    assert _certified_name("fe80::1%eth0") == "fe80::1"


# ---- whom we do not believe


@at_both_versions
@on_both_loops
async def test_a_system_of_an_unknown_authority(authority: Authority, tmp_path: Path, version: ssl.TLSVersion) -> None:
    script = through(context_of(Authority(tmp_path, "Elsewhere").issue("lab"), version=version))
    for tls in (TlsSpec("main", client_ca=authority.file), None):
        failure = await failure_at(script, tls, told="failed")
        assert failure.text.endswith(": the other side's certificate comes from an authority that we do not know")
        assert "ca_file" in failure.remedy


@on_both_loops
async def test_a_system_hears_why_it_is_not_believed(authority: Authority, tmp_path: Path) -> None:
    heard: list[str] = []

    def script(connection: socket.socket) -> None:
        try:
            through(context_of(Authority(tmp_path, "Elsewhere").issue("lab")))(connection)
        except ssl.SSLError as error:
            heard.append(error.reason)

    await failure_at(script, TlsSpec("main", client_ca=authority.file), told="failed")

    assert heard == ["TLSV1_ALERT_UNKNOWN_CA"]


@on_both_loops
async def test_a_system_whose_certificate_has_expired(authority: Authority) -> None:
    script = through(context_of(authority.issue("lab", days=-1)))
    failure = await failure_at(script, TlsSpec("main", client_ca=authority.file), told="failed")
    assert failure.text.endswith(": the other side's certificate has expired")


@on_both_loops
async def test_a_system_of_another_name_or_address(authority: Authority) -> None:
    script = through(context_of(authority.issue("lab", hosts=("elsewhere",), addresses=("127.0.0.2",))))
    tls = TlsSpec("main", client_ca=authority.file)
    failure = await failure_at(script, tls, told="failed")
    assert failure.text.endswith(": the other side's certificate is for another host name")
    failure = await failure_at(script, tls, told="failed", host="127.0.0.1")
    assert failure.text.endswith(": the other side's certificate is for another address")


@on_both_loops
async def test_a_system_that_speaks_only_tls_1_1(authority: Authority) -> None:
    issued = authority.issue("lab")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(issued.certificate, issued.key)
    for edge in ("minimum_version", "maximum_version"):
        with pytest.warns(DeprecationWarning, match="TLSVersion"):
            setattr(context, edge, ssl.TLSVersion.TLSv1_1)

    failure = await failure_at(through(context), TlsSpec("main", client_ca=authority.file), told="failed")

    assert failure.text.endswith(": the two sides have no version of TLS in common; we speak 1.2 and 1.3")


# ---- who does not believe us

WANTS = ": the other side wants a certificate of us"
DISTRUSTS = ": the other side does not trust our certificate"
EXPIRED = ": the other side says that our certificate has expired"


def own_certificate(kind: str, authority: Authority, folder: Path) -> TlsSpec:
    match kind:
        case "none":
            return TlsSpec("main", client_ca=authority.file)
        case "elsewhere":
            return Authority(folder, "Elsewhere").issue("agent", client=True).spec(client_ca=authority.file)
        case _:
            return authority.issue("agent", client=True, days=-1).spec(client_ca=authority.file)


@pytest.mark.parametrize(
    ("kind", "version", "told", "text"),
    [
        # under 1.3 we are through before the system has looked at what we show (RFC 8446 §2, figure 1)
        ("none", ssl.TLSVersion.TLSv1_3, "closed", WANTS),
        ("elsewhere", ssl.TLSVersion.TLSv1_3, "closed", DISTRUSTS),
        ("expired", ssl.TLSVersion.TLSv1_3, "closed", EXPIRED),
        ("none", ssl.TLSVersion.TLSv1_2, "failed", ": the other side finds no common ground for TLS with us"),
        ("elsewhere", ssl.TLSVersion.TLSv1_2, "failed", DISTRUSTS),
        ("expired", ssl.TLSVersion.TLSv1_2, "failed", EXPIRED),
    ],
)
@on_both_loops
async def test_a_system_that_refuses_what_we_show_says_why(
    authority: Authority, tmp_path: Path, kind: str, version: ssl.TLSVersion, told: str, text: str
) -> None:
    script = through(context_of(authority.issue("lab"), asks_for=authority, version=version), answers)

    failure = await failure_at(script, own_certificate(kind, authority, tmp_path), told=told)

    assert failure.text.endswith(text)


# ---- what is no TLS


@on_both_loops
async def test_a_system_that_answers_in_plain_text(authority: Authority) -> None:
    def script(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(wrap(ACK))
        connection.recv(100)

    failure = await failure_at(script, TlsSpec("main", client_ca=authority.file), told="failed")

    assert failure.text.endswith(": what the other side sends is no TLS")
    assert "mllp://" in failure.remedy


@on_both_loops
async def test_a_system_that_waits_for_plain_text(authority: Authority) -> None:
    def script(connection: socket.socket) -> None:
        while connection.recv(10_000):
            pass

    failure = await failure_at(
        script, TlsSpec("main", client_ca=authority.file), told="failed", host="127.0.0.1", within_s=2
    )

    assert failure.text.endswith(": no end of the handshake within 2 s")


@pytest.mark.parametrize("politely", [True, False])
@on_both_loops
async def test_a_system_that_goes_in_the_middle_of_the_handshake(authority: Authority, politely: bool) -> None:
    def script(connection: socket.socket) -> None:
        connection.recv(10_000)
        if not politely:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)

    failure = await failure_at(script, TlsSpec("main", client_ca=authority.file), told="failed")

    did = "closed by it" if politely else "lost (ECONNRESET)"
    assert failure.text.endswith(f": the connection was {did} in the middle of the handshake")


@on_both_loops
async def test_a_handshake_can_be_given_up(authority: Authority) -> None:
    tls = TlsSpec("main", client_ca=authority.file)
    async with remote() as system, office() as here:
        for end in ("close", "abort"):
            caller = here.dial(spec_of(system.port, "localhost", tls=tls))
            far_end = await system.called()
            await far_end.reader.readexactly(5)
            getattr(caller, end)()
            assert (await caller.failure_of("failed")).kind is Kind.STOPPING


@pytest.mark.parametrize("well", [True, False])
async def test_a_handshake_may_end_in_the_very_turn_in_which_its_time_is_up(authority: Authority, well: bool) -> None:
    # given a line that shakes hands with a system
    caller = Caller(Outbound())
    line = caller.line = Line(spec_of(1, "localhost", secure=True), caller, lambda _: None)
    line._wire = TlsWire(
        Identity.load(TlsSpec("main", client_ca=authority.file), dials=True).context, False, "localhost"
    )
    system, wire = TlsWire(context_of(authority.issue("lab")), True), Wire()

    async def waits() -> Failure | None:
        await line._settled
        return None

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(waits())
        line.begin(waiting)
        await asyncio.sleep(0)
        line.connection_made(wire)
        system.feed(wire.written)

        # when the deadline cancels the wait, and the end of the handshake is read before anybody hears of that
        waiting.cancel()
        if well:
            line.data_received(system.outgoing())
        else:
            line.connection_lost(None)

    assert caller.told == (["opened"] if well else ["failed"])


@on_both_loops
async def test_what_is_damaged_later_ends_the_connection(authority: Authority) -> None:
    def damages(tls: ssl.SSLSocket) -> None:
        answers(tls)
        with socket.socket(fileno=os.dup(tls.fileno())) as below:
            below.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            below.settimeout(WITHIN_S)
            while below.recv(100):
                pass
            ended.append(True)

    ended: list[bool] = []
    script = through(context_of(authority.issue("lab")), damages)
    failure = await failure_at(script, TlsSpec("main", client_ca=authority.file), told="closed")

    assert "damaged" in failure.text
    assert ended == [True], "it is we who end what cannot be understood any more"


# ---- the end


@at_both_versions
@on_both_loops
async def test_we_say_goodbye(authority: Authority, version: ssl.TLSVersion) -> None:
    goodbyes: list[bytes] = []

    def listens(tls: ssl.SSLSocket) -> None:
        answers(tls)
        goodbyes.append(tls.recv(100))  # without close_notify this is an error

    context = context_of(authority.issue("lab"), version=version)
    async with door(through(context, listens)) as port, office() as here:
        caller = await here.connected(spec_of(port, "localhost", tls=TlsSpec("main", client_ca=authority.file)))
        caller.send(ADT)
        await caller.is_told("heard")
        caller.close()
        await caller.is_told("closed")
        assert caller.failure is None
    assert goodbyes == [b""]


@pytest.mark.parametrize("says_goodbye", [True, False])
@at_both_versions
@on_both_loops
async def test_a_remote_may_go_with_or_without_a_goodbye(
    authority: Authority, version: ssl.TLSVersion, says_goodbye: bool
) -> None:
    def goes(connection: socket.socket) -> None:
        with context_of(issued, version=version).wrap_socket(connection, server_side=True) as tls:
            answers(tls)
            if says_goodbye:
                tls.unwrap()

    issued = authority.issue("lab")
    async with door(goes) as port, office() as here:
        caller = await here.connected(spec_of(port, "localhost", tls=TlsSpec("main", client_ca=authority.file)))
        caller.send(ADT)
        await caller.is_told("closed")
        assert caller.told == ["opened", "heard", "closed"]
        assert caller.failure is None
        caller.send(ADT)


@on_both_loops
async def test_a_remote_that_resets_is_told_as_that(authority: Authority) -> None:
    async with remote(tls=context_of(authority.issue("lab"))) as system, office() as here:
        caller = await here.connected(spec_of(system.port, "localhost", tls=TlsSpec("main", client_ca=authority.file)))
        far_end = await system.called()
        far_end.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        far_end.writer.transport.abort()
        failure = await caller.failure_of("closed")
        assert failure.kind is Kind.RESET
        assert failure.remedy == "look into its log why; it may not accept our certificate"


@on_both_loops
async def test_a_remote_that_does_not_read_its_tls_holds_nobody_up(authority: Authority) -> None:
    async with remote(tls=context_of(authority.issue("lab"))) as system, office() as here:
        caller = await here.connected(spec_of(system.port, "localhost", tls=TlsSpec("main", client_ca=authority.file)))
        (await system.called()).writer.transport.pause_reading()
        caller.send(b"x" * (64 << 20))
        caller.abort()
        await caller.is_told("closed")
        assert caller.failure is None


# ---- our files


def replace(issued: Issued, by: Issued) -> None:
    by.certificate.rename(issued.certificate)
    by.key.rename(issued.key)


@on_both_loops
async def test_a_renewed_certificate_is_shown_from_the_next_connection_on(authority: Authority) -> None:
    own = authority.issue("agent", client=True, days=10)
    tls = own.spec(client_ca=authority.file)
    serials: list[str] = []
    async with (
        remote(tls=context_of(authority.issue("lab"), asks_for=authority)) as system,
        office() as here,
    ):
        for _ in range(2):
            await here.connected(spec_of(system.port, "localhost", tls=tls))
            shown = (await system.called()).writer.get_extra_info("ssl_object").getpeercert()
            serials.append(shown["serialNumber"])
            codes = [finding.code for finding in here.outbound.findings(TODAY)]
            assert codes == (["tls.expiring"] if len(serials) == 1 else [])
            replace(own, authority.issue("renewed", client=True, days=300))
    assert len(set(serials)) == 2


@on_both_loops
async def test_half_of_a_renewal_changes_nothing_but_is_found(authority: Authority) -> None:
    own = authority.issue("agent", client=True)
    tls = own.spec(client_ca=authority.file)
    async with (
        remote(tls=context_of(authority.issue("lab"), asks_for=authority)) as system,
        office() as here,
    ):
        await here.connected(spec_of(system.port, "localhost", tls=tls))
        authority.issue("renewed", client=True).certificate.rename(own.certificate)
        await here.connected(spec_of(system.port, "localhost", tls=tls))
        await system.called()
        await system.called()
        [finding] = here.outbound.findings(TODAY)
        assert (finding.code, finding.severity) == ("tls.not-reloaded", Severity.ERROR)


@on_both_loops
async def test_each_certificate_that_was_shown_is_watched(authority: Authority) -> None:
    async with remote(tls=context_of(authority.issue("lab"))) as system, office() as here:
        for name in ("one", "two"):
            own = authority.issue(name, client=True, days=5)
            tls = TlsSpec(name, own.certificate, own.key, client_ca=authority.file)
            for _ in range(2):
                await here.connected(spec_of(system.port, "localhost", tls=tls))
        found = here.outbound.findings(TODAY + timedelta(days=1))
        assert [finding.where for finding in found] == ["tls.one.certificate_file", "tls.two.certificate_file"]


@on_both_loops
async def test_files_that_cannot_be_used_are_named_and_tried_again(authority: Authority, tmp_path: Path) -> None:
    own = authority.issue("agent", client=True)
    tls = own.spec(client_ca=authority.file)
    away = own.key.rename(tmp_path / "away")
    async with remote(tls=context_of(authority.issue("lab"))) as system, office() as here:
        failure = await here.dial(spec_of(system.port, "localhost", tls=tls)).failure_of("failed")
        assert failure.kind is Kind.TLS
        assert re.fullmatch(
            rf"no TLS with localhost:{system.port}: tls\.main\.key_file: .*agent\.key cannot be read: .*", failure.text
        )
        assert failure.remedy
        away.rename(own.key)
        await here.connected(spec_of(system.port, "localhost", tls=tls))
