"""Frame forensics: what a connection did, told from its bytes, and never what it said."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from http.client import HTTPResponse

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.errors import Severity
from agent.protocol.bytestream import StreamFramer
from agent.protocol.explanations import EXPLANATIONS
from agent.protocol.forensics import (
    FIRST_BYTES,
    Evidence,
    Oddity,
    examine,
    examine_stream,
    farewell,
    frame_oddity,
    shape,
)
from agent.protocol.mllp import Framer, wrap

ADT = b"MSH|^~\\&|ADT1|WARD|LAB|HQ|20260101||ADT^A01|17|P|2.5\rPID|1||4711||EVERYMAN^ADAM\r"
LONG = ADT + b"OBX|1|TX|||" + b"long " * 100 + b"\r"
BATCH = b"FHS|^~\\&|A\rBHS|^~\\&|A\r" + ADT + b"BTS|1\rFTS|1\r"


def client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="agent.hospital.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


TLS_HELLO = client_hello()
TLS_1_0_HELLO = bytes.fromhex("16 03 01 00 2f 01 00 00 2b 03 01") + bytes(range(40))
SSL_2_HELLO = bytes.fromhex("80 2e 01 03 01 00 15 00 00 00 10 00 00 04") + bytes(34)
SSL_2_ONLY_HELLO = bytes.fromhex("80 2e 01 00 02 00 15 00 00 00 10 01 00 80") + bytes(34)
PROXY_1 = b"PROXY TCP4 10.11.11.11 10.0.0.2 56324 2575\r\n"
PROXY_1_IPV6 = b"PROXY TCP6 %b %b 56324 2575\r\n" % (
    b"2001:0db8:1111:2222:3333:4444:5555:6666",
    b"2001:0db8:" + b"a" * 29,
)
PROXY_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c" + bytes.fromhex("0a000001 0a000002 dc04 0a0f")


def hang_up(port: socket.socket, with_the_words: bytes) -> bytes:
    """Take one connection and its first bytes, say a farewell, and wait until the other side has gone."""
    connection, _ = port.accept()
    with connection, suppress(ConnectionResetError):
        first = connection.recv(1 << 16)
        connection.sendall(with_the_words)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16):
            pass
    return first


def evidence(
    stream: bytes, *, tls: bool = False, over: bool = False, silent_s: float = 1.0, unread: bool = False
) -> Evidence:
    """What a connection knows that was sent `stream`. `unread`: it came instead of TLS, or has not got through it."""
    framer = Framer()
    frames = 0 if unread else len(framer.feed(stream))
    held = bytes(framer._buffer or b"")
    return Evidence(
        first=stream[:FIRST_BYTES],
        bytes_in=len(stream),
        frames=frames,
        skipped=framer.skipped,
        open_bytes=len(held),
        open_head=held[:FIRST_BYTES],
        open_tail=held[-2:],
        age_s=silent_s + 1,
        silent_s=silent_s,
        over=over,
        tls=tls,
    )


STREAMS: dict[str, tuple[bytes, Oddity | None]] = {
    # another protocol
    "TLS 1.3 hello": (TLS_HELLO, Oddity.TLS_ON_PLAIN),
    "TLS 1.0 hello": (TLS_1_0_HELLO, Oddity.TLS_ON_PLAIN),
    "TLS hello in an SSL 2 record": (SSL_2_HELLO, Oddity.TLS_ON_PLAIN),
    "SSL 2 hello": (SSL_2_ONLY_HELLO, Oddity.TLS_ON_PLAIN),
    "TLS hello after 0x0B": (b"\x0b" + TLS_1_0_HELLO, Oddity.TLS_ON_PLAIN),
    "TLS hello behind a proxy": (PROXY_1 + TLS_1_0_HELLO, Oddity.TLS_ON_PLAIN),
    "browser": (b"GET / HTTP/1.1\r\nHost: agent.hospital.example:2575\r\n\r\n", Oddity.HTTP),
    "monitoring": (b"HEAD /health HTTP/1.0\r\n\r\n", Oddity.HTTP),
    "FHIR client": (b"POST /fhir/R4/Patient HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", Oddity.HTTP),
    "WebDAV": (b"PROPFIND /ward HTTP/1.1\r\n\r\n", Oddity.HTTP),
    "proxy client": (b"CONNECT lab.example:443 HTTP/1.1\r\n\r\n", Oddity.HTTP),
    "request in absolute form": (b"GET http://lab.example/" + b"a" * 80 + b" HTTP/1.1\r\n\r\n", Oddity.HTTP),
    "request about the server": (b"OPTIONS * HTTP/1.1\r\n\r\n", Oddity.HTTP),
    "long path": (b"GET /" + b"very-long-" * 30 + b" HTTP/1.1\r\n\r\n", Oddity.HTTP),
    "method of one's own": (b"BREW /pot-1 HTTP/1.1\r\n\r\n", Oddity.HTTP),
    "HTTP 0.9 by hand": (b"get /\r\n", Oddity.HTTP),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\4\0\0\0\0\0", Oddity.HTTP),
    "HTTP after 0x0B": (b"\x0bPOST /hl7 HTTP/1.1\r\n\r\n", Oddity.HTTP),
    "HTTP in a block after a good message": (wrap(ADT) + b"\x0bGET / HTTP/1.1\r\n\r\n", Oddity.HTTP),
    "HTTP behind a proxy": (PROXY_2 + b"GET / HTTP/1.1\r\n\r\n", Oddity.HTTP),
    "answer of a server that was dialled": (b"HTTP/1.1 408 Request Time-out\r\n\r\n", Oddity.HTTP),
    "SIP": (b"OPTIONS sip:nm SIP/2.0\r\nVia: SIP/2.0/TCP nm\r\n\r\n", Oddity.NO_START),
    "RTSP": (b"OPTIONS / RTSP/1.0\r\n\r\n", Oddity.NO_START),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", Oddity.NO_START),
    "DNS": (bytes.fromhex("001e 0006 0100 0001 0000 0000 0000 0776 6572 7369 6f6e"), Oddity.NO_START),
    "DICOM": (bytes.fromhex("0100 0000 00cd 0001 0000") + b"ANY-SCP         ", Oddity.NO_START),
    "ASTM enquiry": (b"\x05", Oddity.NO_START),
    # UTF-16
    "UTF-16 LE": (wrap(ADT).decode().encode("utf-16-le"), Oddity.UTF16),
    "UTF-16 BE": (wrap(ADT).decode().encode("utf-16-be"), Oddity.UTF16),
    "UTF-16 with its mark": (wrap(ADT).decode().encode("utf-16"), Oddity.UTF16),
    "UTF-16 between one-byte blocks": (b"\x0b" + ADT.decode().encode("utf-16-le"), Oddity.UTF16),
    "UTF-16 BE between one-byte blocks": (b"\x0b" + ADT.decode().encode("utf-16-be"), Oddity.UTF16),
    "UTF-16 with its mark inside the block": (b"\x0b" + ADT.decode().encode("utf-16"), Oddity.UTF16),
    "UTF-16 after a good message": (wrap(ADT) + b"\x0b" + ADT.decode().encode("utf-16-le"), Oddity.UTF16),
    "UTF-16 without blocks": (ADT.decode().encode("utf-16-le"), Oddity.UTF16),
    "UTF-16 BE without blocks": (ADT.decode().encode("utf-16-be"), Oddity.UTF16),
    # no start block
    "no blocks": (ADT, Oddity.NO_START),
    "no start block": (ADT + b"\x1c\r", Oddity.NO_START),
    "plain text": (b"hello, is anybody there?\r\n", Oddity.NO_START),
    "STX and ETX": (b"\x02" + ADT + b"\x03", Oddity.NO_START),
    "a second message without start block": (wrap(ADT) + LONG + b"\x1c\r", Oddity.NO_START),
    "binary with 0x0B in it": (b"\x01\x02\x03\x0b\x04\x05", Oddity.NO_START),
    "no blocks behind a proxy": (PROXY_1 + LONG, Oddity.NO_START),
    # no end block
    "no end block": (b"\x0b" + ADT, Oddity.NO_END),
    "no end block in a long message": (b"\x0b" + LONG, Oddity.NO_END),
    "cut in a field": (b"\x0b" + ADT[:40], Oddity.NO_END),
    "start block alone": (b"\x0b", Oddity.NO_END),
    "no end block but another start": (b"\x0b" + ADT + b"\x0b" + ADT, Oddity.NO_END),
    "no end block after a good message": (wrap(ADT) + b"\x0b" + ADT, Oddity.NO_END),
    "no end block after line ends": (b"\r\n\x0b" + ADT, Oddity.NO_END),
    "no end block after a UTF-8 mark": (b"\x0b\xef\xbb\xbf" + ADT, Oddity.NO_END),
    "no end block behind a proxy": (PROXY_1 + b"\x0b" + ADT, Oddity.NO_END),
    "batch without end block": (b"\x0b" + BATCH, Oddity.NO_END),
    "CR without 0x1C": (b"\x0b" + ADT + b"\r", Oddity.NO_END),
    # end block without CR
    "0x1C alone": (b"\x0b" + ADT + b"\x1c", Oddity.END_WITHOUT_CR),
    "0x1C LF": (b"\x0b" + ADT + b"\x1c\n", Oddity.END_WITHOUT_CR),
    "0x1C 0x1C": (b"\x0b" + ADT + b"\x1c\x1c", Oddity.END_WITHOUT_CR),
    "0x1C alone, twice": (b"\x0b" + ADT + b"\x1c\x0b" + ADT + b"\x1c", Oddity.END_WITHOUT_CR),
    "0x1C alone before a second message": (b"\x0bMSH|^~\\&|A\x1c" + ADT, Oddity.END_WITHOUT_CR),
    "0x1C alone after a good message": (wrap(ADT) + b"\x0b" + LONG + b"\x1c", Oddity.END_WITHOUT_CR),
    "text with 0x1C alone": (b"\x0bhello\x1c", Oddity.END_WITHOUT_CR),
    "commit block with 0x1C alone": (b"\x0b\x06\x1c", Oddity.END_WITHOUT_CR),
    # no MSH
    "XML in a block": (b"\x0b<?xml version='1.0'?><ClinicalDocument/>", Oddity.NO_MSH),
    "PID first": (b"\x0bPID|1||4711\r", Oddity.NO_MSH),
    "XML in a block after a good message": (wrap(ADT) + b"\x0b<ClinicalDocument/>", Oddity.NO_MSH),
    # nothing odd
    "silence": (b"", None),
    "one message": (wrap(ADT), None),
    "a hundred messages": (wrap(ADT) * 100, None),
    "CR LF after each message": (wrap(ADT) + b"\r\n" + wrap(LONG) + b"\r\n", None),
    "NULs that keep a line up": (wrap(ADT) + b"\0" * 30, None),
    "NULs before the first message": (b"\0\0\r\n" + wrap(ADT), None),
    "line ends alone": (b"\r\n\r\n", None),
    "batch": (wrap(BATCH), None),
    "UTF-8 mark in the block": (wrap(b"\xef\xbb\xbf" + ADT), None),
    "message behind a proxy": (PROXY_1 + wrap(ADT), None),
    "message behind a proxy in IPv6": (PROXY_1_IPV6 + wrap(ADT), None),
    "message behind a proxy, version 2": (PROXY_2 + wrap(ADT), None),
    "proxy alone": (PROXY_1, None),
    "proxy alone, version 2": (PROXY_2, None),
    "messages behind another greeting": (b"CONNECT lab.example:2575 HTTP/1.1\r\n\r\n" + wrap(ADT), None),
    "content with 0x1C": (wrap(ADT + b"\x1cx"), None),
}


@pytest.mark.parametrize(("stream", "verdict"), STREAMS.values(), ids=STREAMS)
def test_a_connection_that_has_been_silent_for_a_second(stream: bytes, verdict: Oddity | None) -> None:
    assert examine(evidence(stream)) is verdict


@pytest.mark.parametrize("name", STREAMS)
def test_the_verdict_stands_when_the_connection_ends(name: str) -> None:
    stream, verdict = STREAMS[name]
    spoke = stream.removeprefix(PROXY_1).removeprefix(PROXY_2).strip(b"\r\n")
    assert examine(evidence(stream, over=True, silent_s=0.0)) is (verdict if spoke else Oddity.PROBE)


@pytest.mark.parametrize("oddity", [Oddity.TLS_ON_PLAIN, Oddity.HTTP, Oddity.UTF16])
def test_another_protocol_is_told_at_once(oddity: Oddity) -> None:
    for stream, verdict in STREAMS.values():
        if verdict is oddity:
            assert examine(evidence(stream, silent_s=0.0)) is oddity


def test_a_message_that_is_still_arriving_is_not_odd() -> None:
    for stream, verdict in STREAMS.values():
        if verdict not in (Oddity.TLS_ON_PLAIN, Oddity.HTTP, Oddity.UTF16):
            assert examine(evidence(stream, silent_s=0.9)) is None


class TestPrefixes:
    """However little has come: what is said of it is not wrong. To say nothing yet is right as well."""

    @pytest.mark.parametrize("name", [name for name, (_, verdict) in STREAMS.items() if verdict is Oddity.TLS_ON_PLAIN])
    @pytest.mark.parametrize("over", [False, True])
    def test_of_a_tls_hello(self, name: str, over: bool) -> None:
        stream = STREAMS[name][0].removeprefix(PROXY_1)
        allowed = {None, Oddity.TLS_ON_PLAIN} | ({Oddity.NO_END} if stream[:1] == b"\x0b" else set())
        for length in range(1, len(stream)):
            assert examine(evidence(stream[:length], over=over)) in allowed

    @pytest.mark.parametrize(
        "name",
        [
            name
            for name, (_, verdict) in STREAMS.items()
            if verdict is Oddity.HTTP and not re.search("own|after a good", name)
        ],
    )
    @pytest.mark.parametrize("over", [False, True])
    def test_of_an_http_request(self, name: str, over: bool) -> None:
        stream = STREAMS[name][0].removeprefix(PROXY_2)
        allowed = {None, Oddity.HTTP} | ({Oddity.NO_END} if stream[:1] == b"\x0b" else set())
        for length in range(1, len(stream)):
            assert examine(evidence(stream[:length], over=over)) in allowed

    @pytest.mark.parametrize(
        "name", [name for name, (_, verdict) in STREAMS.items() if verdict is Oddity.UTF16 and "after" not in name]
    )
    @pytest.mark.parametrize("over", [False, True])
    def test_of_utf_16(self, name: str, over: bool) -> None:
        stream = STREAMS[name][0]
        allowed = {None, Oddity.UTF16, Oddity.NO_END} | ({Oddity.PROBE} if over and stream[:1] == b"\0" else set())
        for length in range(1, len(stream)):
            assert examine(evidence(stream[:length], over=over)) in allowed

    @pytest.mark.parametrize("name", ["proxy alone", "proxy alone, version 2"])
    def test_of_what_a_load_balancer_says(self, name: str) -> None:
        stream = STREAMS[name][0]
        for length in range(1, len(stream)):
            assert examine(evidence(stream[:length])) is None

    @pytest.mark.parametrize("over", [False, True])
    def test_of_good_messages(self, over: bool) -> None:
        for message in (ADT, LONG, BATCH, b"\xef\xbb\xbf" + ADT):
            stream = wrap(message) + b"\r\n" + wrap(message)
            first_end = len(wrap(message))
            for length in range(1, len(stream) + 1):
                verdict = examine(evidence(stream[:length], over=over))
                if length in (first_end, first_end + 1, first_end + 2, len(stream)):
                    assert verdict is None
                elif stream[:length].endswith(b"\x1c"):
                    assert verdict is Oddity.END_WITHOUT_CR
                else:
                    assert verdict in (None, Oddity.NO_END)

    def test_enough_of_a_hello_is_enough(self) -> None:
        assert examine(evidence(TLS_HELLO[:3])) is Oddity.TLS_ON_PLAIN
        assert examine(evidence(SSL_2_HELLO[:5])) is Oddity.TLS_ON_PLAIN
        assert examine(evidence(b"GET /")) is Oddity.HTTP
        assert examine(evidence(b"M\0S\0")) is Oddity.UTF16


class TestTlsPort:
    @pytest.mark.parametrize("stream", [wrap(ADT), ADT, b"hello\r\n", b"\x0b" + LONG, ADT.decode().encode("utf-16-le")])
    def test_plain_text(self, stream: bytes) -> None:
        assert examine(evidence(stream, tls=True, unread=True, silent_s=0.0)) is Oddity.PLAIN_ON_TLS
        assert examine(evidence(stream, tls=True, unread=True, over=True)) is Oddity.PLAIN_ON_TLS

    def test_an_http_client_is_not_told_to_encrypt(self) -> None:
        assert examine(evidence(b"GET / HTTP/1.1\r\n\r\n", tls=True, unread=True)) is Oddity.HTTP

    def test_an_https_client_that_got_through_the_handshake(self) -> None:
        assert examine(evidence(b"GET / HTTP/1.1\r\n\r\n", tls=True)) is Oddity.HTTP

    @pytest.mark.parametrize("hello", [TLS_HELLO, TLS_1_0_HELLO, SSL_2_HELLO])
    def test_a_handshake_has_its_own_clock_and_has_failed_when_the_client_leaves_in_it(self, hello: bytes) -> None:
        for length in (*range(1, 12), len(hello)):
            assert examine(evidence(hello[:length], tls=True, unread=True, silent_s=5.0)) is None
            assert examine(evidence(hello[:length], tls=True, unread=True, over=True)) in (None, Oddity.TLS_FAILED)
        assert examine(evidence(hello, tls=True, unread=True, over=True)) is Oddity.TLS_FAILED

    def test_too_little_to_be_told_from_another_protocol_is_not_called_tls(self) -> None:
        assert examine(evidence(b"GE", tls=True, unread=True, over=True)) is None

    @pytest.mark.parametrize("name", [name for name, (_, verdict) in STREAMS.items() if verdict is not None])
    def test_what_is_wrong_inside_tls_is_told_as_without_it(self, name: str) -> None:
        stream, verdict = STREAMS[name]
        if verdict is Oddity.TLS_ON_PLAIN:
            assert examine(evidence(stream, tls=True)) is not Oddity.TLS_ON_PLAIN
        else:
            assert examine(evidence(stream, tls=True)) is verdict

    def test_a_good_message_is_good(self) -> None:
        assert examine(evidence(wrap(ADT), tls=True)) is None

    def test_a_handshake_and_not_a_word_is_a_probe(self) -> None:
        seen = replace(evidence(b"", tls=True), bytes_in=517)
        assert examine(seen) is None
        assert examine(replace(seen, over=True)) is Oddity.PROBE


def test_to_connect_and_leave_without_a_byte_is_a_probe() -> None:
    assert examine(evidence(b"", over=True, silent_s=0.0)) is Oddity.PROBE
    assert examine(evidence(b"", silent_s=3600.0)) is None


def test_bytes_behind_many_blanks_are_looked_at() -> None:
    assert examine(evidence(b"\r\n" * 200 + b"hello")) is Oddity.NO_START
    assert examine(evidence(b"\r\n" * 20 + b"hello")) is Oddity.NO_START


@given(
    st.builds(
        Evidence,
        first=st.binary(max_size=FIRST_BYTES),
        bytes_in=st.integers(0, 1 << 40),
        frames=st.integers(0, 1 << 20),
        skipped=st.integers(0, 1 << 40),
        open_bytes=st.integers(0, 1 << 24),
        open_head=st.binary(max_size=FIRST_BYTES),
        open_tail=st.binary(max_size=2),
        age_s=st.floats(0, 1e6),
        silent_s=st.floats(0, 1e6),
        over=st.booleans(),
        tls=st.booleans(),
    )
)
def test_any_evidence_has_a_verdict_or_none(seen: Evidence) -> None:
    verdict = examine(seen)

    assert verdict is None or verdict in EXPLANATIONS


@given(st.binary(max_size=200), st.booleans(), st.booleans(), st.floats(0, 10))
def test_any_stream_has_a_verdict_or_none(stream: bytes, tls: bool, over: bool, silent_s: float) -> None:
    seen = evidence(stream, tls=tls, over=over, silent_s=silent_s)

    verdict = examine(seen)

    assert verdict is None or verdict in EXPLANATIONS
    if seen.open_bytes == seen.skipped == 0 and seen.frames:
        assert verdict is None
    if verdict is Oddity.PROBE:
        assert over
        assert not seen.frames


@given(st.lists(st.sampled_from([ADT, LONG, BATCH, b"\xef\xbb\xbf" + ADT]), min_size=1, max_size=4), st.data())
def test_good_messages_cut_anywhere_are_at_worst_unfinished(messages: list[bytes], data: st.DataObject) -> None:
    ends = data.draw(st.lists(st.sampled_from([b"", b"\r\n", b"\r", b"\n", b"\0"]), min_size=4, max_size=4))
    stream = b"".join(wrap(message) + end for message, end in zip(messages, ends, strict=False))
    seen = evidence(stream[: data.draw(st.integers(0, len(stream)))], over=data.draw(st.booleans()))

    allowed = {None, Oddity.NO_END, Oddity.END_WITHOUT_CR} if seen.open_bytes or seen.first == b"\x0b" else {None}

    assert examine(seen) in allowed | ({Oddity.PROBE} if seen.bytes_in == 0 else set())


class TestFrameOddity:
    @pytest.mark.parametrize(
        ("body", "oddity"),
        [
            (ADT, None),
            (LONG, None),
            (BATCH, None),
            (b"BHS|^~\\&|A\r" + ADT, None),
            (b"\xef\xbb\xbf" + ADT, None),
            (ADT.replace(b"\r", b"\r\n"), None),
            (b"MSH$%~\\&$A", None),
            (ADT.replace(b"\r", b"\n"), Oddity.LF_LINES),
            (BATCH.replace(b"\r", b"\n"), Oddity.LF_LINES),
            (b"\x06", Oddity.MLLP_RELEASE_2),
            (b"\x15", Oddity.MLLP_RELEASE_2),
            (ADT.decode().encode("utf-16"), Oddity.UTF16),
            (ADT.decode().encode("utf-16-le"), Oddity.UTF16),
            (ADT.decode().encode("utf-16-be"), Oddity.UTF16),
            (b"POST /hl7 HTTP/1.1\r\n\r\n" + ADT, Oddity.HTTP),
            (TLS_1_0_HELLO, Oddity.TLS_ON_PLAIN),
            (b"", Oddity.NO_MSH),
            (b"\r\n" + ADT, Oddity.NO_MSH),
            (b"PID|1||4711\r", Oddity.NO_MSH),
            (b"MSH Ward 3", Oddity.NO_MSH),
            (b"<ClinicalDocument/>", Oddity.NO_MSH),
            (b"\x06\x06", Oddity.NO_MSH),
        ],
    )
    def test_what_a_frame_holds(self, body: bytes, oddity: Oddity | None) -> None:
        assert frame_oddity(body) is oddity

    @given(st.binary())
    def test_any_bytes_are_told_without_raising(self, body: bytes) -> None:
        oddity = frame_oddity(body)

        assert oddity is None or oddity in EXPLANATIONS


class TestShape:
    @pytest.mark.parametrize(
        ("first", "shown"),
        [
            (b"", ""),
            (b"\x0bMSH|^~\\&|ADT1|WARD 3", "0B MSH|^~\\&|aaa9|aaaa 9"),
            (b"MSH|^~\\&|A\rPID|1||4711\r", "MSH|^~\\&|a 0D aaa|9||9999 0D"),
            (b"FHS|^~\\&|A\r\nBHS|^~\\&|A\nMSH|^", "FHS|^~\\&|a 0D 0A BHS|^~\\&|a 0A MSH|^"),
            (b"\x0b\xef\xbb\xbfMSH|M\xc3\xbcller", "0B EF BB BF MSH|a XX XX aaaa"),
            (b"GET /adt HTTP/1.1\r\nHost: ward", "GET /aaa HTTP/1.1 0D 0A aaaa: aaaa"),
            (b"\x0bPOST /1 HTTP/2.0", "0B POST /9 HTTP/2.0"),
            (b"HTTP/1.1 408 Request", "HTTP/1.1 999 aaaaaaa"),
            (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0-aaaaaaa_9.9 0D 0A"),
            (PROXY_1[:26], "PROXY aaa9 99.99.99.99 99."),
            (TLS_1_0_HELLO, "16 03 01 00 2F 01 …"),
            (TLS_1_0_HELLO[:4], "16 03 01 00"),
            (SSL_2_HELLO, "80 2E 01 03 01 …"),
            (ADT.decode().encode("utf-16"), "FF FE …"),
            (wrap(ADT).decode().encode("utf-16-be"), "00 0B 00 a …"),
            (b"M\0S\0", "a 00 a 00"),
            ("Иванов".encode(), "XX " * 11 + "XX"),
            (b"\0" * 64, "00 " * 26 + "…"),
            (b"a MSH|GET / MSHX HTTP/1.1x HTTP/3.7 SSH-2.0-", "a aaa|aaa / aaaa aaaa/9.9a aaaa/9.9 aaa-9.9-"),
            (b"GET WELL SOON", "aaa aaaa aaaa"),
        ],
    )
    def test_how_it_looks_and_not_what_it_says(self, first: bytes, shown: str) -> None:
        assert shape(first) == shown

    @given(
        st.one_of(
            st.binary(max_size=FIRST_BYTES),
            st.text(max_size=20).map(str.encode),
            st.tuples(
                st.sampled_from(
                    [b"", b"\x0b", b"MSH|^~\\&|", b"\x0bMSH|", b"GET /", b"SSH-2.0-", b"PROXY TCP4 ", b"BHS|"]
                ),
                st.text("abzABZMSHGETP019 |/.-\r\n\0é", max_size=40).map(str.encode),
            ).map(b"".join),
        )
    )
    @example(b"SMITH^JOHN^19800101")
    def test_no_word_and_no_number_survives(self, first: bytes) -> None:
        shown = shape(first)

        opening = (
            r"(?:(?<![^ ])(?:MSH|FHS|BHS)(?=[^0-9a-zA-Z\s])|^(?:0B )?(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|CONNECT|TRACE"
        )
        opening += r"|PATCH|PRI)(?= [/*])|(?<![^ ])HTTP/(?:1\.[01]|2\.0)|^SSH-(?:2\.0|1\.99|1\.5)-|^PROXY )"
        rest = re.sub(opening, " ", shown)
        rest = re.sub(r"(?<![^ ])(?:[0-9A-F]{2}|XX|[01])(?![^ ])", " ", rest)
        assert set(filter(str.isalnum, rest)) <= {"a", "9"}
        assert len(shown) <= 80
        assert shown.isprintable()

    @given(st.text(st.characters(min_codepoint=0x80, categories=["L"]), min_size=3, max_size=12))
    def test_a_name_in_any_script_is_not_to_be_read_from_it(self, name: str) -> None:
        for codec in ("utf-8", "cp1251", "iso8859-7", "gb18030"):
            high = [byte for byte in name.encode(codec, "ignore") if byte >= 0x80]

            shown = shape(b"PID|1||" + bytes(high))

            assert re.fullmatch(r"aaa\|9\|\|(?: XX)*(?: …)?", shown)


class TestFarewell:
    def test_http_gets_an_http_answer(self) -> None:
        head, _, body = farewell(Oddity.HTTP).partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")

        assert lines[0] == "HTTP/1.1 400 Bad Request"
        assert f"Content-Length: {len(body)}" in lines
        assert "Connection: close" in lines
        assert any(line.startswith("Content-Type: text/plain") for line in lines)
        assert b"HL7" in body
        assert body.endswith(b"\n")

    def test_an_http_client_reads_the_answer(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(farewell(Oddity.HTTP))
            ours.shutdown(socket.SHUT_WR)

            answer = HTTPResponse(theirs, method="GET")
            answer.begin()

            assert (answer.status, answer.will_close) == (400, True)
            assert b"HL7" in answer.read()

    def test_a_tls_client_of_python_reads_the_alert(self) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="agent.hospital.example")
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()

        incoming.write(farewell(Oddity.TLS_ON_PLAIN))

        with pytest.raises(ssl.SSLError, match="alert protocol version"):
            client.do_handshake()

    @pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
    def test_s_client_reads_the_alert(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as port, ThreadPoolExecutor(1) as far_end:
            address = f"127.0.0.1:{port.getsockname()[1]}"
            heard = far_end.submit(hang_up, port, farewell(Oddity.TLS_ON_PLAIN))
            said = subprocess.run(
                ["openssl", "s_client", "-connect", address], input=b"", capture_output=True, timeout=60, check=False
            )

            hello = heard.result(60)

        assert frame_oddity(hello) is Oddity.TLS_ON_PLAIN
        assert examine(evidence(hello)) is Oddity.TLS_ON_PLAIN
        assert b"alert protocol version" in said.stderr

    def test_whoever_would_not_understand_is_told_nothing(self) -> None:
        assert {oddity for oddity in Oddity if farewell(oddity)} == {Oddity.HTTP, Oddity.TLS_ON_PLAIN}


# ---- byte streams


def streamed(stream: bytes, *, start: int | None = 0x02, over: bool = False, silent_s: float = 1.0) -> Evidence:
    """What a connection of a byte stream that ends in ETX knows."""
    framer = StreamFramer(start, 0x03, 1 << 20)
    frames = framer.feed(stream)
    return Evidence(
        first=stream[:FIRST_BYTES],
        bytes_in=len(stream),
        frames=len(frames),
        skipped=framer.skipped,
        open_bytes=framer.buffered if framer.begun else 0,
        open_head=framer.head(FIRST_BYTES),
        open_tail=framer.tail(2),
        age_s=silent_s + 1,
        silent_s=silent_s,
        over=over,
        tls=False,
    )


class TestByteStreams:
    @pytest.mark.parametrize(
        ("stream", "verdict"),
        [
            (b"", None),
            (b"\x02one\x03", None),
            (b"\x02one\x03\x02two\x03\r\n", None),
            (b"\x02one\x03" + b"\0" * 80, None),
            (b"\x02one\x03" + b"\0" * 81, Oddity.OUTSIDE),
            (b"one\x03", Oddity.OUTSIDE),
            (ADT, Oddity.OUTSIDE),
            (b"GET / HTTP/1.1\r\n\r\n", Oddity.OUTSIDE),
            (b"\x02one", Oddity.UNFINISHED),
            (b"\x02one\x03\x02tw", Oddity.UNFINISHED),
        ],
    )
    def test_a_stream_is_judged_by_its_own_characters(self, stream: bytes, verdict: Oddity | None) -> None:
        assert examine_stream(streamed(stream), 0x02, 0) is verdict

    def test_what_was_answered_was_not_in_vain(self) -> None:
        assert examine_stream(streamed(b"\x05" * 9), 0x02, 9) is None
        assert examine_stream(streamed(b"\x05" * 9), 0x02, 8) is Oddity.OUTSIDE

    @pytest.mark.parametrize("hello", [TLS_HELLO, TLS_1_0_HELLO])
    def test_a_tls_client_is_known_before_anything_is_read_of_it(self, hello: bytes) -> None:
        first = replace(streamed(b"", silent_s=0.0), first=hello[:FIRST_BYTES])
        assert examine_stream(first, 0x02, 0) is Oddity.TLS_ON_PLAIN
        assert examine_stream(first, 0x16, 0) is None, "the channel's messages begin so"
        assert examine_stream(replace(first, tls=True), 0x02, 0) is None
        assert examine_stream(replace(first, frames=1), 0x02, 0) is None
        assert examine_stream(replace(first, first=hello[:5]), 0x02, 0) is None, "that may be anything"

    def test_nothing_is_said_while_more_may_come(self) -> None:
        assert examine_stream(streamed(b"\x02on", silent_s=0.5), 0x02, 0) is None
        assert examine_stream(streamed(b"noise", silent_s=0.5), 0x02, 0) is None

    def test_whoever_leaves_without_a_word_was_looking(self) -> None:
        assert examine_stream(streamed(b"", over=True), 0x02, 0) is Oddity.PROBE
        assert examine_stream(streamed(b"\x02on", over=True, silent_s=0.0), 0x02, 0) is Oddity.UNFINISHED

    @given(st.binary(max_size=200), st.none() | st.integers(0, 255), st.booleans(), st.floats(0, 9), st.integers(0, 9))
    def test_any_stream_gets_a_verdict_that_is_its_own(
        self, stream: bytes, start: int | None, over: bool, silent_s: float, answered: int
    ) -> None:
        verdict = examine_stream(streamed(stream, start=start, over=over, silent_s=silent_s), start, answered)
        assert verdict in (None, Oddity.PROBE, Oddity.TLS_ON_PLAIN, Oddity.UNFINISHED, Oddity.OUTSIDE)
        assert verdict is not Oddity.OUTSIDE or start is not None


def test_every_oddity_is_explained_and_has_a_remedy() -> None:
    assert set(EXPLANATIONS) == set(Oddity)
    for explanation in EXPLANATIONS.values():
        assert explanation.text
        assert explanation.remedy
    assert len({explanation.text for explanation in EXPLANATIONS.values()}) == len(Oddity)


def test_what_needs_nobody_is_information() -> None:
    quiet = {oddity for oddity, explanation in EXPLANATIONS.items() if explanation.severity is Severity.INFO}

    assert quiet == {Oddity.PROBE, Oddity.LF_LINES, Oddity.IDLE}
    assert "nothing is wrong" in EXPLANATIONS[Oddity.PROBE].text
