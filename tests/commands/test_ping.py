"""A ping of the server's is one of this host's system, or a connection, and never leaves anything behind."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import stat
import sys
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.commands.ping import BadPing, Call, Host, NoEcho, Port, call, count_of, echo, ping, replied, target_of
from agent.errors import AgentError, LinkError, PeerError

T = TypeVar("T")
INVALID = 'Attempted to ping an invalid host.\n\n"{}" is not a valid IP address or a resolvable hostname'
with_ipv6 = pytest.mark.skipif(
    not socket.has_ipv6 or all(address.address != "::1" for lo in psutil.net_if_addrs().values() for address in lo),
    reason="this host has no IPv6",
)
posix = pytest.mark.skipif(sys.platform == "win32", reason="the pretended ping is a shell script")
WITHIN_S = 10.0


async def nowhere(host: str, port: int, secure: bool) -> float:
    raise AssertionError("no port was to be asked for")


def outcome(ask: Callable[[], T]) -> tuple[T | None, BadPing | None]:
    try:
        return ask(), None
    except BadPing as refused:
        return None, refused


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A program `ping` of our own in front of the system's."""

    def install(script: str) -> None:
        program = tmp_path / "ping"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(stat.S_IRWXU)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return install


class TestCount:
    @pytest.mark.parametrize(
        ("body", "count"),
        [
            ("", 1), ("PING", 1), ("PING ", 1), ("PING 1", 1), ("PING 100", 100), ("PING  5\r\n", 5), ("PING 007", 7),
            ("PING 1 2", 1), ("hello", 1), ("hello 5", 1), ("PINGabc", 1), ("ping 5", 1),
        ],
    )  # fmt: skip
    def test_the_body_says_how_often_and_what_says_nothing_is_once(self, body: str, count: int) -> None:
        assert count_of(body, "10.0.0.1") == count

    def test_what_is_no_number_is_refused_in_the_words_that_clients_know(self) -> None:
        with pytest.raises(BadPing) as refused:
            count_of("PING abc", "127.0.0.1")
        assert str(refused.value) == 'Unable to ping 127.0.0.1 "abc" times. "abc" is not a number.'

    @pytest.mark.parametrize("word", ["0", "-1", "101", "+5", "2.5", "1,5", "9" * 5_000])
    def test_a_number_that_does_not_do_is_told_which_would(self, word: str) -> None:
        with pytest.raises(BadPing, match="A whole number from 1 to 100 is expected"):
            count_of(f"PING {word}", "127.0.0.1")

    @given(st.text() | st.text().map("PING {}".format), st.text())
    def test_any_body_is_a_count_or_a_short_refusal_that_the_log_does_not_quote(self, body: str, remote: str) -> None:
        count, refused = outcome(lambda: count_of(body, remote))
        if refused is None:
            assert count is not None
            assert 1 <= count <= 100
        else:
            assert len(str(refused)) < 1_000
            assert re.fullmatch(
                r"the number of pings is (not a number|no whole number from 1 to 100)", refused.loggable
            )


class TestTarget:
    @pytest.mark.parametrize(
        ("remote", "target"),
        [
            ("10.1.2.3", Host("10.1.2.3", 4)),
            ("::1", Host("::1", 6)),
            ("[::1]", Host("::1", 6)),
            ("FE80:0::1%eth0", Host("fe80::1%eth0", 6)),
            ("[fe80::1%4]", Host("fe80::1%4", 6)),
            ("::ffff:10.1.2.3", Host("10.1.2.3", 4)),
            ("lab-1.hospital.example", Host("lab-1.hospital.example", None)),
            ("localhost", Host("localhost", None)),
            ("lab.example.", Host("lab.example.", None)),
            ("LAB_PC1", Host("LAB_PC1", None)),
            ("3com.example", Host("3com.example", None)),
            ("bücher.example", Host("xn--bcher-kva.example", None)),
            ("tcp://10.1.2.3:2575", Port("10.1.2.3", 2575, False)),
            ("MLLP://lab:2575/?encoding=utf-8&ackTimeoutMs=1", Port("lab", 2575, False)),
            ("mllps://[::1]:2576?tls=lab", Port("::1", 2576, True)),
            ("tcp://[fe80::1%25eth0]:1", Port("fe80::1%eth0", 1, False)),
            ("tcp://bücher:1#x", Port("xn--bcher-kva", 1, False)),
        ],
    )
    def test_addresses_names_and_ports_are_told_apart(self, remote: str, target: Host | Port) -> None:
        assert target_of(remote) == target

    @pytest.mark.parametrize(
        "remote",
        [
            "", " ", "not a host", " lab", "lab\n", "-f", "-c1", "lab -f", "lab;reboot", "$(reboot)", "lab-", "-lab.a",
            ".", "..", "a..b", "a" * 64, "a." * 128 + "b", "x" * 100_000, "lab" + "\xad" * 260, "1.2.3",
            "10.1", "999.1.1.1", "2130706433", "1.2.3.4.",
            "\uff11\uff12\uff17.0.0.1", "\u2100.example", "http://lab", "lab:2575", "lab/path", "user@lab",
            "[10.1.2.3]", "[lab]", "[]", "[::1", "::1%-c", "::1%", "::1% eth0", "::1%" + "e" * 40, "::g", "1::2::3",
            "mllp://", "mllp://a b:1", "tcp://-f:1", "tcp://user@lab:1", "tcp://::1:1", "tcp://[lab]:1", "udp://lab:1",
            "\x00", "\ud800",
        ],
    )  # fmt: skip
    def test_anything_else_is_refused_and_the_log_does_not_quote_it(self, remote: str) -> None:
        with pytest.raises(BadPing) as refused:
            target_of(remote)
        shown = remote if len(remote) < 256 else f"{remote[:255]}..."
        assert str(refused.value) == INVALID.format(shown) + "."
        assert refused.value.loggable == "the host to be pinged is neither an address nor a name"

    @pytest.mark.parametrize(
        "remote", ["mllp://lab", "tcp://[::1]", "mllps://lab:0?x", "TCP://lab:65536", "tcp://lab/"]
    )
    def test_a_url_without_a_port_is_told_how_one_is_written(self, remote: str) -> None:
        with pytest.raises(BadPing, match=r"names no port\. Write it as (mllps?|tcp)://host:port, port 1 to 65535\.$"):
            target_of(remote)

    @given(
        st.text()
        | st.from_regex(r"(tcp|mllps?)://[^\n]*")
        | st.ip_addresses().map(str)
        | st.text("-.a1_%:[]ü０", max_size=20)
    )
    def test_whatever_is_pinged_cannot_be_taken_for_an_option_or_for_two_words(self, remote: str) -> None:
        target, refused = outcome(lambda: target_of(remote))
        if target is None:
            assert len(str(refused)) < 1_000
            return
        text = target.text if isinstance(target, Host) else target.host
        assert re.fullmatch(r"[A-Za-z0-9_.:%@~-]+", text)
        assert not text.startswith("-")
        if isinstance(target, Host) and target.version is not None:
            assert ip_address(text).version == target.version
            assert target_of(text) == target

    @given(st.ip_addresses(v=6))
    def test_every_ipv6_address_can_be_pinged(self, address: IPv6Address) -> None:
        mapped = address.ipv4_mapped
        assert target_of(f"[{address}]") == Host(str(mapped or address), 4 if mapped else 6)


class TestCall:
    @pytest.mark.parametrize(
        ("platform", "version", "count", "argv"),
        [
            ("linux", 4, 1, "ping -4 -n -c 1 -i 1 -W 2 HOST"),
            ("linux", 6, 10, "ping -6 -n -c 10 -i 1 -W 2 HOST"),
            ("linux", 4, 11, "ping -4 -n -c 11 -i 0.2 -W 2 HOST"),
            ("linux", 4, 100, "ping -4 -n -c 100 -i 0.2 -W 2 HOST"),
            ("darwin", 4, 3, "ping -n -c 3 -i 1 -W 2000 HOST"),
            ("darwin", 6, 30, "ping6 -n -c 30 -i 0.2 HOST"),
            ("win32", 4, 1, r"D:\Win\System32\PING.EXE -4 -n 1 -w 2000 HOST"),
            ("win32", 6, 100, r"D:\Win\System32\PING.EXE -6 -n 100 -w 2000 HOST"),
        ],
    )
    def test_each_system_is_asked_in_its_own_words(self, platform: str, version: int, count: int, argv: str) -> None:
        assert list(call(platform, "HOST", version, count, windows=r"D:\Win").argv) == argv.split(" ")

    @pytest.mark.parametrize("platform", ["linux", "darwin"])
    def test_a_hundred_pings_end_before_a_server_gives_up(self, platform: str) -> None:
        assert max(call(platform, "h", 4, count).within_s for count in range(1, 101)) < 55

    @given(st.sampled_from(["linux", "darwin", "win32", "freebsd14"]), st.sampled_from([4, 6]), st.integers(1, 100))
    def test_the_program_has_the_time_that_it_needs(self, platform: str, version: int, count: int) -> None:
        made = call(platform, "h", version, count)
        slow = platform == "win32" or count <= 10
        assert made.within_s >= count * (1.0 if slow else 0.2) + 3
        assert made.argv[-1] == "h"

    def test_a_routers_no_is_no_reply_though_windows_is_content_with_it(self) -> None:
        windows = call("win32", "10.1.2.3", 4, 1).argv
        assert not replied("win32", windows, "Antwort von 10.1.2.1: Zielhost nicht erreichbar.")
        assert replied("win32", windows, "Antwort von 10.1.2.3: Bytes=32 Zeit<1ms TTL=64")
        assert replied("win32", call("win32", "::1", 6, 1).argv, "Antwort von ::1: Zeit<1ms")
        assert replied("linux", call("linux", "10.1.2.3", 4, 1).argv, "64 bytes from 10.1.2.3")


@posix
class TestEcho:
    @pytest.mark.skipif(shutil.which("ping") is None, reason="this host has no ping")
    @pytest.mark.parametrize(
        ("remote", "shown"),
        [("127.0.0.1", "127.0.0.1"), pytest.param("[::1]", "::1", marks=with_ipv6), ("localhost", "")],
    )
    async def test_this_host_answers_itself_in_the_form_that_was_recorded(self, remote: str, shown: str) -> None:
        said = await ping(remote, "PING 2", nowhere)

        assert re.match(rf"PING {re.escape(shown)}.*bytes", said)
        assert len(re.findall(r"^64 bytes from .*time=", said, re.MULTILINE)) == 2
        assert re.search(r"ping statistics ---\n2 packets transmitted, 2 received, 0% packet loss", said)
        assert said == said.strip()

    async def test_what_the_system_says_is_passed_on_in_plain_english(
        self, pretended: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
        monkeypatch.setenv("MEDPLUM_CLIENT_SECRET", "hidden")
        pretended('echo; echo "$LC_ALL" "$@" "${MEDPLUM_CLIENT_SECRET-none}"; printf "\\377"; echo ignored >&2')

        assert await ping("10.1.2.3", "PING 3", nowhere) == "C -4 -n -c 3 -i 1 -W 2 10.1.2.3 none\n\ufffd"

    async def test_no_reply_is_told_with_what_ping_saw(self, pretended: Callable[[str], None]) -> None:
        pretended('echo "2 packets transmitted, 0 received"; echo "ping: Network is unreachable" >&2; exit 1')

        with pytest.raises(NoEcho) as told:
            await ping("10.1.2.3", "PING 2", nowhere)
        assert str(told.value) == (
            "No reply from 10.1.2.3.\n\n2 packets transmitted, 0 received\nping: Network is unreachable"
        )
        assert isinstance(told.value, PeerError)
        assert told.value.loggable == "no reply to a ping"

    async def test_a_ping_that_may_not_ping_says_so_and_what_can_be_done_instead(
        self, pretended: Callable[[str], None]
    ) -> None:
        pretended('echo "ping: socket: Operation not permitted" >&2; exit 2')

        with pytest.raises(NoEcho, match=r"Operation not permitted\n\nA port can be asked for .* tcp://host:port"):
            await ping("10.1.2.3", "", nowhere)

    async def test_a_host_without_ping_is_told_what_to_install(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))

        with pytest.raises(NoEcho, match=r"no ping program: install it .*iputils-ping.* tcp://host:port"):
            await ping("127.0.0.1", "", nowhere)

    async def test_a_ping_that_does_not_end_is_ended(self, pretended: Callable[[str], None]) -> None:
        pretended("exec sleep 600")
        before = psutil.Process().children()

        async with asyncio.timeout(WITHIN_S):
            with pytest.raises(NoEcho, match=r"The ping of lab was not done within 0\.3 s and was stopped\."):
                await echo(Call(("ping", "lab"), 0.3), "lab")

        assert [child for child in psutil.Process().children() if child not in before] == []

    async def test_who_gives_up_leaves_no_process_behind(
        self, pretended: Callable[[str], None], tmp_path: Path
    ) -> None:
        pretended(f"echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 600")

        async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(ping("10.1.2.3", "", nowhere))
            while not (tmp_path / "pid").exists():
                await asyncio.sleep(0.01)
            assert alive(pid := int((tmp_path / "pid").read_text()))
            asked.cancel()

        assert not alive(pid)

    async def test_pings_run_side_by_side(self, pretended: Callable[[str], None], tmp_path: Path) -> None:
        """Each waits for the other: one after the other they would never end."""
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        pretended(f'case "$*" in *10.1.2.3) cat {fifo};; *) echo hello > {fifo}; echo sent;; esac')

        async with asyncio.timeout(WITHIN_S):
            heard = await asyncio.gather(ping("10.1.2.3", "", nowhere), ping("10.1.2.4", "", nowhere))

        assert heard == ["hello", "sent"]

    async def test_a_name_that_leads_nowhere_is_said_without_asking_ping(
        self, pretended: Callable[[str], None]
    ) -> None:
        pretended("echo pinged")

        with pytest.raises(NoEcho) as told:
            await ping("no-such-host.invalid", "", nowhere)
        assert str(told.value).startswith(
            (INVALID.format("no-such-host.invalid"), 'No name server answers for "no-such-host.invalid"')
        )


class TestPort:
    @staticmethod
    async def connect(host: str, port: int, secure: bool) -> float:
        _, writer = await asyncio.open_connection(host, port)
        writer.close()
        await writer.wait_closed()
        return 0.000_412

    async def test_each_connection_is_told_with_its_time(self) -> None:
        connections = asyncio.Semaphore(0)

        def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.release()
            writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        async with server, asyncio.timeout(WITHIN_S):
            port = server.sockets[0].getsockname()[1]
            said = await ping(f"mllp://127.0.0.1:{port}?encoding=utf-8", "PING 2", self.connect)
            for _ in range(2):
                await connections.acquire()

        where = f"127.0.0.1:{port}"
        assert re.fullmatch(
            rf"TCP {where}: connected, time=0\.412 ms\nTCP {where}: connected, time=0\.412 ms\n\n"
            rf"--- {where} tcp statistics ---\n2 connections tried, 2 made, 0% failed, time \d+ms\n"
            r"min/avg/max = 0\.412/0\.412/0\.412 ms",
            said,
        )

    async def test_tls_is_asked_for_where_the_url_says_so(self) -> None:
        asked: list[tuple[str, int, bool]] = []

        async def probe(host: str, port: int, secure: bool) -> float:
            asked.append((host, port, secure))
            return 0.001

        said = await ping("mllps://[::1]:2576", "", probe)
        await ping("tcp://lab:1", "PING", probe)

        assert asked == [("::1", 2576, True), ("lab", 1, False)]
        assert said.startswith("TLS [::1]:2576: connected, time=1.000 ms\n")

    async def test_the_first_failure_is_the_answer_in_the_probes_own_words(self) -> None:
        async def probe(host: str, port: int, secure: bool) -> float:
            raise LinkError("10.1.2.3:2575 refuses connections", hint="start the receiver")

        with pytest.raises(AgentError, match="refuses connections") as told:
            await ping("mllp://10.1.2.3:2575", "PING 5", probe)
        assert told.value.hint == "start the receiver"

    async def test_a_later_failure_is_a_line_and_counted(self) -> None:
        tries = iter([0.001, None, 0.003])

        async def probe(host: str, port: int, secure: bool) -> float:
            if (took_s := next(tries)) is None:
                raise LinkError("it was reset")
            return took_s

        said = (await ping("tcp://lab:1", "PING 3", probe)).splitlines()

        assert said[1] == "TCP lab:1: it was reset"
        assert said[-2].startswith("3 connections tried, 2 made, 33% failed, ")
        assert said[-1] == "min/avg/max = 1.000/2.000/3.000 ms"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
