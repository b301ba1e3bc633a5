"""What the address of a remote says: where to push messages, and how.

Secret: how a Device's URL, the agent-wide settings and this host's defaults become a RemoteSpec, for HL7 in MLLP and
for analysers; which spellings of an address mean the same remote; and which parameters have no effect beside others.
Promise: any text becomes a `Remote`, or a ConfigError with every problem (what is no address at all is one). `spec.url`
is one spelling of what was read: of two addresses that differ in spelling alone it is the same, and reading it gives
the same spec. It holds what was understood and nothing else, so no pool and no metric is named after a mistake.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final
from urllib.parse import quote, urlencode

from agent.errors import ConfigError, Finding, Severity
from agent.plan import tls as tables
from agent.plan.address import Address, BadAddress, Flaw, is_no_place, read_address
from agent.plan.agentwide import AgentSettings
from agent.plan.kind import Kind
from agent.plan.options import read_parameters
from agent.plan.retry import PARAMETERS, RetryWish
from agent.plan.subject import Family, Subject, label, strictly
from agent.plan.wire import analyser
from agent.settings import OutboundDefaults
from agent.spec import RemoteSpec, ReturnAck, TlsSpec

LONGEST_CHARACTERS: Final = 2_000  # of an address: far beyond all parameters, and short enough to read for each push
CLIENTS: Final = 5
CLIENTS_KEPT_ALIVE: Final = 1
_LONGEST_NAME: Final = 254  # with a final dot (RFC 1035 §2.3.4)
# Letters, digits and hyphens (RFC 1123 §2.1), the underscores of Windows, and whatever IDNA makes of the rest.
_NAME: Final = re.compile(r"[0-9A-Za-z_\-\x80-\U0010FFFF]{1,63}(\.[0-9A-Za-z_\-\x80-\U0010FFFF]{1,63})*\.?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_ZONE: Final = re.compile(r"[0-9A-Za-z._~-]{1,40}")  # RFC 6874 §2, unreserved


@dataclass(frozen=True, slots=True)
class Remote:
    """`findings`: what has no effect, or is not as it was meant; it does not stop a push."""

    spec: RemoteSpec
    findings: tuple[Finding, ...]


def read_remote(text: str, settings: AgentSettings, defaults: OutboundDefaults, tls: Mapping[str, TlsSpec]) -> Remote:
    """`text`: the `remote` of a push. `tls`: the tables of this host, by their names.

    A parameter wins over the agent-wide setting, which wins over `defaults`. Raises ConfigError, its errors first.
    """
    address = _address(text)
    host = "" if address.channel else _host(address.host)
    subject = Subject(Family.REMOTE, _where(address, host))
    problems = _place(subject, address, host)
    given = read_parameters(subject, address, problems)
    table = tables.tls_of(
        subject, given.get("tls"), (tables.DEFAULT,), secure=address.secure, ours=tls, problems=problems
    )
    durable = given.get("durable", settings.outbound_durable)
    problems += _without_effect(subject, address, given, durable=durable)
    retry = RetryWish.of(given).over(settings.retry).policy(subject, problems if durable else [])
    if settings.strict:
        problems = [strictly(finding) for finding in problems]
    if host is None or any(finding.severity is Severity.ERROR for finding in problems):
        raise ConfigError(_errors_first(problems))
    values = _settled(given, table)
    spec = RemoteSpec(
        url=_url(address, host, values),
        host=host,
        port=address.port,
        keep_alive=values.get("keepAlive", settings.keep_alive),
        ack_timeout_s=values["ackTimeoutMs"] / 1_000 if "ackTimeoutMs" in values else defaults.ack_timeout_s,
        secure=address.secure,
        tls=table,
        durable=durable,
        retry=retry,
        line=address.channel,
    )
    if address.kind is Kind.ASTM_REMOTE:  # the standard has one session at a time
        return Remote(dataclasses.replace(spec, wire=analyser(values), max_clients=1), tuple(problems))
    clients = settings.max_clients_per_remote or (CLIENTS_KEPT_ALIVE if spec.keep_alive else CLIENTS)
    spec = dataclasses.replace(
        spec,
        encoding=values.get("encoding"),
        max_clients=values.get("maxClients", clients),
        in_flight=values.get("inFlight", 1),
        serialize=values.get("serialize", False),
        return_ack=values.get("returnAck", ReturnAck.APPLICATION),
    )
    return Remote(spec, tuple(problems))


def _address(text: str) -> Address:
    """Raises ConfigError, with what is wrong with the parameters where these could be read."""
    nobody = Subject(Family.REMOTE, "")
    problems: list[Finding] = []
    try:
        if len(text) > LONGEST_CHARACTERS:
            text = f"the address is longer than {LONGEST_CHARACTERS} characters"
            remedy = "write mllp://host:port with as many parameters as are needed"
            raise BadAddress([Flaw("address-long", text, remedy)])
        address = read_address(text, Family.REMOTE)
        if not all(parameter.name.isprintable() and parameter.value.isprintable() for parameter in address.parameters):
            text = "a parameter has a control character in it"
            raise BadAddress([Flaw("address-unreadable", text, "remove it")])
    except BadAddress as bad:
        problems += [nobody.finding(flaw.code, Severity.ERROR, flaw.text, flaw.remedy) for flaw in bad.flaws]
        if bad.rest is not None:
            read_parameters(nobody, bad.rest, problems)
        raise ConfigError(_errors_first(problems)) from None
    return address


def _where(address: Address, host: str | None) -> str:
    if host is None:
        return ""
    return label(RemoteSpec("", host, address.port, line=address.channel).where)


def _host(host: str) -> str | None:
    """In one spelling; None where no system can have it. A last label of digits makes it an IPv4 address, as whoever
    looks it up would have it too: 010.0.0.1 is 8.0.0.1 to some and 10.0.0.1 to others."""
    try:
        if ":" in host:
            return _ipv6(host)
        if _NUMBER.fullmatch(host.removesuffix(".").rpartition(".")[2]):
            return str(IPv4Address(host))
    except ValueError:
        return None
    return host if len(host) <= _LONGEST_NAME and _NAME.fullmatch(host) else None


def _ipv6(host: str) -> str | None:
    bare, percent, zone = host.partition("%")
    address = IPv6Address(bare)
    if address.ipv4_mapped is not None:  # what it leads to, whichever way it is written (RFC 4291 §2.5.5.2)
        return str(address.ipv4_mapped)
    if not percent:
        return str(address)
    if zone.startswith("25") and len(zone) > 2:  # the percent sign of a zone is encoded in a URL (RFC 6874 §2)
        zone = zone[2:]
    return f"{address}%{zone}" if _ZONE.fullmatch(zone) else None


def _place(subject: Subject, address: Address, host: str | None) -> list[Finding]:
    """What is wrong with all that stands before the parameters."""
    problems: list[Finding] = []
    if host is None:
        text = "the host is neither a name nor an address"
        remedy = "correct it; an IPv4 address has four numbers from 0 to 255, without zeros before them"
        problems.append(subject.finding("host-bad", Severity.ERROR, text, remedy))
    elif is_no_place(host):
        text = f"{host} is every address of the host that listens, and nobody can be reached there"
        problems.append(subject.finding("host-any", Severity.ERROR, text, "name the host of the remote"))
    if address.port == 0 and not address.channel:
        text, remedy = "nobody can be reached at port 0", "name the port that the remote listens on"
        problems.append(subject.finding("port-bad", Severity.ERROR, text, remedy))
    if address.ignored:
        text, remedy = "what follows host and port is ignored", "put parameters after a '?'"
        problems.append(subject.finding("address-rest", Severity.WARNING, text, remedy))
    return problems


def _without_effect(subject: Subject, address: Address, given: Mapping[str, Any], *, durable: bool) -> list[Finding]:
    idle: list[tuple[str, str, str]] = []
    if address.channel and "keepAlive" in given:
        idle.append(("keepAlive", "it has no effect: the connection is that of our channel", "remove it"))
    if given.get("serialize"):
        text = "it has no effect with serialize=true: one message at a time is under way"
        idle += [(name, text, "remove one of the two") for name in ("maxClients", "inFlight") if given.get(name, 1) > 1]
    if "returnAck" in given and "defaultReturnAck" in given:
        idle.append(("defaultReturnAck", "it has no effect beside returnAck", "remove it"))
    if not durable:
        text = "it has no effect without durable=true: no other message is tried again"
        idle += [(name, text, "remove it, or add durable=true") for name in PARAMETERS.values() if name in given]
    return [subject.finding("idle-parameter", Severity.INFO, text, remedy, name) for name, text, remedy in idle]


def _errors_first(problems: list[Finding]) -> list[Finding]:
    order = (Severity.ERROR, Severity.WARNING)
    return sorted((each for each in problems if each.severity in order), key=lambda each: order.index(each.severity))


def _settled(given: Mapping[str, Any], table: TlsSpec | None) -> dict[str, Any]:
    """Each parameter under one name and in one spelling."""
    values = dict(given)
    older = values.pop("defaultReturnAck", None)
    if older is not None:
        values.setdefault("returnAck", older)
    if values.get("encoding") is not None:
        values["encoding"] = values["encoding"].lower()
    if values.pop("tls", None) is not None and table is not None:
        values["tls"] = table.name
    return values


def _url(address: Address, host: str, values: Mapping[str, Any]) -> str:
    place = quote(address.channel, safe="") if address.channel else f"{_authority(host)}:{address.port}"
    query = urlencode(sorted((name, _spelt(value)) for name, value in values.items()), safe="", quote_via=quote)
    return f"{address.scheme}://{place}{'?' if query else ''}{query}"


def _authority(host: str) -> str:
    return f"[{host.replace('%', '%25')}]" if ":" in host else host


def _spelt(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case None:
            return "auto"
        case float() if value.is_integer():
            return str(int(value))
        case _:
            return str(value)
