"""Which sockets an address means.

Secret: families, name resolution, the options of a listening socket, and what the operating system's refusals mean.
Promise: `bind` gives sockets that listen, or says in one sentence who or what is in the way and what to do; `attempt`
finds out the same, and lets no sender in.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Final

from agent.errors import ConfigError, Finding, Severity

BACKLOG: Final = 1_024


class Unbindable(ConfigError):
    """Nobody can listen on this address now. `taken`: because somebody does already."""

    def __init__(self, finding: Finding, *, taken: bool) -> None:
        super().__init__([finding])
        self.taken = taken


async def bind(host: str, port: int, where: str) -> list[socket.socket]:
    """Listening sockets for an address: `0.0.0.0` all of IPv4, `::` both families, a name all its addresses.

    Raises Unbindable, which says who could hold the port or what is wrong with the address.
    """
    return await _open(host, port, where, listen=True)


async def attempt(host: str, port: int, where: str) -> None:
    """Whether `bind` would go: bound, not listened on, and let go of. Raises Unbindable as it would."""
    for held in await _open(host, port, where, listen=False):
        held.close()


async def _open(host: str, port: int, where: str, *, listen: bool) -> list[socket.socket]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "it is no host name"
        raise _unbindable(where, host, port, f"the address cannot be resolved ({why})", "correct the host") from error
    sockets: list[socket.socket] = []
    absent = OSError()
    for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
        try:
            free = sockets[0].getsockname()[1] if sockets and not port else port
            sockets.append(bound(family, (address[0], free, *address[2:]), both=host == "::", listen=listen))
        except OSError as error:
            absent = error
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                break
            # a name may have an address of a family that this host does not speak
    else:
        if sockets:
            return sockets
    for held in sockets:
        held.close()
    text, remedy = _why(absent, port)
    raise _unbindable(where, host, port, text, remedy, taken=absent.errno == errno.EADDRINUSE) from absent


def bound(family: int, address: tuple[object, ...], *, both: bool, listen: bool) -> socket.socket:
    """One socket that has this address. `both`: `::` is all of IPv4 too. Raises OSError."""
    # the protocol is named because asyncio sets TCP_NODELAY only then: 447 against 7,230 answers a second
    held = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            held.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        held.bind(address)
        if listen:
            held.listen(BACKLOG)
        held.setblocking(False)
    except OSError:
        held.close()
        raise
    return held


def _why(error: OSError, port: int) -> tuple[str, str]:
    """What is wrong with an address, and the remedy."""
    match error.errno:
        case errno.EADDRINUSE:
            return "the port is taken by another program", "stop that program or give the channel another port"
        case errno.EACCES if port >= 1024:
            return "the operating system does not give this port out", "choose a port that it does not reserve"
        case errno.EACCES:
            return "ports below 1024 need a privilege", "choose a higher port or grant CAP_NET_BIND_SERVICE"
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            remedy = "use 0.0.0.0, ::, or an address of this machine"
            return "this address is not one of this machine's", remedy
        case _:
            return f"cannot listen ({error.strerror or error})", "check the address"


def _unbindable(where: str, host: str, port: int, text: str, remedy: str, *, taken: bool = False) -> Unbindable:
    finding = Finding("channel.cannot-listen", Severity.ERROR, f"{host}:{port}: {text}", remedy, where)
    return Unbindable(finding, taken=taken)
