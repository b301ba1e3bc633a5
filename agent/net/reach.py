"""Reach a remote over TCP, or say in words why that does not go.

Secret: how a name becomes addresses and addresses are tried in turn (RFC 8305), and what the operating system means by
its refusals.
Promise: of all addresses the first that answers is taken, and no other leaves a socket behind; each Failure names the
remote, the cause with the name of its errno, and the remedy, and none of them quotes what a remote sent.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque
from enum import Enum, auto
from itertools import chain, zip_longest
from typing import Any, Final, assert_never, cast

from agent.errors import ConfigError
from agent.failures import Failure, Kind
from agent.net.keepalive import keep_alive
from agent.net.tlswire import TlsFailure
from agent.spec import RemoteSpec

NEXT_ADDRESS_AFTER_S: Final = 0.25  # RFC 8305 §5
KEEPALIVE_S: Final = 60


# ---- names and addresses


async def resolve(host: str, port: int) -> list[str]:
    """Addresses in the order in which they are to be tried. Raises OSError, or UnicodeError for what is no name."""
    host.encode("idna")  # uvloop would ask a name server for it
    try:
        # an address must not wait behind names whose servers are silent: those hold the few threads that resolve
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    first = [_written(address) for family, _, _, _, address in found if family == found[0][0]]
    others = [_written(address) for family, _, _, _, address in found if family != found[0][0]]
    return list(dict.fromkeys(filter(None, chain.from_iterable(zip_longest(first, others)))))


def _written(address: tuple[Any, ...]) -> str:
    """With its zone, where it holds in one only (RFC 4007 §11)."""
    return f"{address[0]}%{address[3]}" if len(address) == 4 and address[3] else str(address[0])


class Knock(asyncio.Protocol):
    """A connection that has just been made: what comes on it is kept until somebody takes it over."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._came: list[bytes] = []
        self._ended = False
        self._lost: tuple[Exception | None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by conduct, not by descent
        keep_alive(transport.get_extra_info("socket"), KEEPALIVE_S)

    def data_received(self, data: bytes) -> None:
        self._came.append(data)

    def eof_received(self) -> bool:
        self._ended = True
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = (exc,)

    def abort(self) -> None:
        """Nobody takes it over."""
        self._transport.abort()

    def hand_over(self, to: asyncio.Protocol) -> None:
        """From now on `to` is told, first of all what came until now."""
        self._transport.set_protocol(to)
        to.connection_made(self._transport)
        for data in self._came:
            to.data_received(data)
        if self._lost is not None:
            to.connection_lost(self._lost[0])
        elif self._ended and not to.eof_received():
            self._transport.close()


async def race(addresses: list[str], port: int) -> Knock:
    """The first address that answers. The next one is tried when one before it has failed, or has said nothing for
    NEXT_ADDRESS_AFTER_S. Raises OSError when all have failed: the one that tells most.
    """
    ahead = deque(addresses)
    made: list[Knock] = []
    errors: list[OSError] = []
    try:
        async with asyncio.TaskGroup() as tries:
            running: set[asyncio.Task[None]] = set()
            while not made and (ahead or running):
                if ahead:
                    running.add(tries.create_task(_try(ahead.popleft(), port, made, errors)))
                patience_s = NEXT_ADDRESS_AFTER_S if ahead else None
                _, running = await asyncio.wait(running, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            for task in running:
                task.cancel()
        if not made:
            raise min(errors, key=_vagueness)
        return made.pop(0)
    finally:
        for knock in made:
            knock.abort()


async def _try(address: str, port: int, made: list[Knock], errors: list[OSError]) -> None:
    # the loop makes the socket: handed over to uvloop, one that is lost at once would have its descriptor closed twice
    try:
        _, knock = await asyncio.get_running_loop().create_connection(Knock, address, port)
    except OSError as error:
        errors.append(error)
    else:
        made.append(knock)


_NO_SUCH_FAMILY: Final = (errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def _vagueness(error: OSError) -> int:
    """A refusal says that somebody is there; that a family of addresses leads nowhere is often so and means little."""
    if isinstance(error, ConnectionRefusedError):
        return 0
    return 2 if error.errno in _NO_SUCH_FAMILY else 1


# ---- what did not go, in words


class Stage(Enum):
    """What connecting waits for."""

    NAME = auto()
    ADDRESS = auto()
    HANDSHAKE = auto()


_ON_THE_WAY: Final = "check the address, and the routes and firewalls on the way"
_DROPPED: Final = "check the address and that the system is on; a firewall may drop the packets"
_HANDLES: Final = "raise the limit of open files of the agent's service (LimitNOFILE), or lower maxClients"
_NAMES: Final = "check the host in the remote's address and the name servers of this host, or use an IP address"
_SPEAKS_TLS: Final = "check that it speaks TLS on this port, and whether it asks for a certificate of ours"
_MAYBE: Final = "; it may have received the message"
_ITS_LOG: Final = "look into its log why"

_CAUSES: Final[dict[int, tuple[Kind, str, str]]] = {
    errno.ECONNREFUSED: (Kind.REFUSED, "connection refused", "check that the system runs and listens there"),
    errno.ECONNRESET: (
        Kind.RESET,
        "the connection was reset",
        "check that the system takes connections from this host, and the firewalls on the way",
    ),
    errno.EHOSTUNREACH: (Kind.UNREACHABLE, "there is no way to this host", _ON_THE_WAY),
    errno.ENETUNREACH: (Kind.UNREACHABLE, "there is no way to this network", _ON_THE_WAY),
    errno.ENETDOWN: (Kind.UNREACHABLE, "the network is down", "check the network of this host"),
    errno.ETIMEDOUT: (Kind.UNREACHABLE, "no answer", _DROPPED),
    errno.EADDRNOTAVAIL: (
        Kind.UNREACHABLE,
        "this host has no address of that kind, or no free port",
        "check the network of this host; keepAlive=true opens fewer connections",
    ),
    errno.EACCES: (Kind.UNREACHABLE, "this host does not allow it", "check the firewall and the policies of this host"),
    errno.EPERM: (Kind.UNREACHABLE, "this host does not allow it", "check the firewall and the policies of this host"),
    errno.EMFILE: (Kind.UNREACHABLE, "too many files and connections of this agent are open", _HANDLES),
    errno.ENFILE: (Kind.UNREACHABLE, "too many files and connections of this host are open", _HANDLES),
}
_CLASSES: Final = (  # Windows has other numbers for what Python knows by a class
    (ConnectionRefusedError, errno.ECONNREFUSED),
    (ConnectionResetError, errno.ECONNRESET),
    (ConnectionAbortedError, errno.ECONNABORTED),
    (BrokenPipeError, errno.EPIPE),
    (TimeoutError, errno.ETIMEDOUT),
)
_RESOLVER_CODES: Final = {getattr(socket, name): name for name in dir(socket) if name.startswith("EAI_")}


def late(stage: Stage, spec: RemoteSpec, within_s: float) -> Failure:
    """All the time was used up."""
    match stage:
        case Stage.NAME:
            text = f"no name server has said within {within_s:g} s which address {spec.host} has"
            return Failure(Kind.DNS, text, _NAMES)
        case Stage.ADDRESS:
            text = f"cannot connect to {spec.where}: no answer within {within_s:g} s"
            return Failure(Kind.UNREACHABLE, text, _DROPPED)
        case Stage.HANDSHAKE:
            text = f"no TLS with {spec.where}: no end of the handshake within {within_s:g} s"
            return Failure(Kind.TLS, text, _SPEAKS_TLS)
        case _:
            assert_never(stage)


def not_connected(spec: RemoteSpec, error: OSError | UnicodeError, addresses: list[str]) -> Failure:
    """There was no connection. `addresses`: those of its name, as far as they are known."""
    if isinstance(error, UnicodeError):
        return Failure(Kind.DNS, f"the name {spec.host} has no address (it is no valid host name)", _NAMES)
    if isinstance(error, socket.gaierror):
        code = _RESOLVER_CODES.get(error.errno, str(error.errno))
        return Failure(Kind.DNS, f"the name {spec.host} has no address ({error.strerror}, {code})", _NAMES)
    number, name = _number(error)
    known = _CAUSES.get(number)
    kind, cause, remedy = known or (Kind.UNREACHABLE, _in_its_own_words(error), _ON_THE_WAY)
    tried = ", ".join(addresses[:4])
    if tried and tried != spec.host and kind in (Kind.REFUSED, Kind.UNREACHABLE):
        remedy += f" ({spec.host} is {tried})"
    return Failure(kind, f"cannot connect to {spec.where}: {cause} ({name})", remedy)


def lost(spec: RemoteSpec, error: Exception) -> Failure:
    """An open connection has ended otherwise than politely."""
    if not isinstance(error, OSError):
        text = f"a fault in this agent has ended the connection to {spec.where}{_MAYBE}"
        return Failure(Kind.CLOSED, text, "look into the log of this agent")
    number, name = _number(error)
    match number:
        case errno.ECONNRESET | errno.EPIPE | errno.ECONNABORTED:
            remedy = f"{_ITS_LOG}; it may not accept our certificate" if spec.secure else _ITS_LOG
            return Failure(Kind.RESET, f"{spec.where} reset the connection ({name}){_MAYBE}", remedy)
        case errno.ETIMEDOUT | errno.EHOSTUNREACH | errno.ENETUNREACH | errno.ENETDOWN:
            text = f"{spec.where} can no longer be reached ({name}){_MAYBE}"
            return Failure(Kind.UNREACHABLE, text, "check that the system is on, and the network in between")
        case _:
            text = f"the connection to {spec.where} broke: {_in_its_own_words(error)} ({name}){_MAYBE}"
            return Failure(Kind.RESET, text, _ITS_LOG)


def lost_in_handshake(spec: RemoteSpec, error: Exception | None) -> Failure:
    """The connection has ended before TLS was agreed upon."""
    did = f"was lost ({_number(error)[1]})" if isinstance(error, OSError) else "was closed by it"
    text = f"no TLS with {spec.where}: the connection {did} in the middle of the handshake"
    return Failure(Kind.TLS, text, _SPEAKS_TLS)


def no_tls(spec: RemoteSpec, failure: TlsFailure) -> Failure:
    """The two sides have not agreed, or do no longer."""
    return Failure(Kind.TLS, f"no TLS with {spec.where}: {failure}", failure.hint)


def unusable(spec: RemoteSpec, error: ConfigError) -> Failure:
    """Our own certificate files are not as they should be."""
    problems = "; ".join(f"{finding.where}: {finding.text}" for finding in error.findings)
    return Failure(Kind.TLS, f"no TLS with {spec.where}: {problems}", error.findings[0].remedy)


def too_long(spec: RemoteSpec, limit_bytes: int) -> Failure:
    """An answer that is none."""
    text = f"{spec.where} sends an answer that is longer than {limit_bytes >> 20} MiB"
    remedy = "look into that system: an acknowledgement is short, and ends with 0x1C 0x0D"
    return Failure(Kind.TOO_LONG, text, remedy)


def given_up(spec: RemoteSpec) -> Failure:
    """We did not want the connection any more."""
    return Failure(Kind.STOPPING, f"this agent gave up connecting to {spec.where}", "push the message again")


def _number(error: OSError) -> tuple[int, str]:
    """The errno and its name."""
    number = error.errno or 0
    if type(OSError(number, "")) is not type(error):
        number = next((own for kind, own in _CLASSES if isinstance(error, kind)), number)
    return number, errno.errorcode.get(number, type(error).__name__)


def _in_its_own_words(error: OSError) -> str:
    # asyncio's own text would repeat the address
    return os.strerror(error.errno).lower() if error.errno else "no reason given"
