"""What the connections of a channel may do, who may make them, and which side makes them.

Secret: how parameters of an address, the certificates of this host and its defaults become a LineSpec, and which of
them go together.
Promise: a channel that asks for TLS has it or is an error; a parameter that has no effect is told.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from agent.errors import Finding, Severity
from agent.plan import tls
from agent.plan.address import Address, is_no_place
from agent.plan.catalogue import BY_PARAMETER
from agent.plan.kind import Kind
from agent.plan.subject import Family, Subject, label
from agent.settings import ChannelDefaults
from agent.spec import LineSpec, TlsSpec

_OF_A_SERVER = ("allow", "maxConnections")


def line_spec(
    channel: str, address: Address, values: Mapping[str, Any], defaults: ChannelDefaults, problems: list[Finding]
) -> LineSpec:
    """Complete even where `problems` got an error; the channel does not run then. What has no effect on addresses of
    this kind is without limit."""
    known = BY_PARAMETER[address.kind]
    if address.kind is Kind.DICOM:
        defaults = dataclasses.replace(defaults, max_message_bytes=0)  # objects of any size go to disk, not to memory

    def limit(parameter: str, default: float) -> Any:
        return values.get(parameter, default) if parameter in known else 0

    return LineSpec(
        tls=_tls(channel, address, values, defaults.tls, problems),
        allow=values.get("allow", ()),
        max_connections=limit("maxConnections", defaults.max_connections),
        max_message_bytes=limit("maxMessageBytes", defaults.max_message_bytes),
        idle_timeout_s=limit("idleTimeoutSecs", defaults.idle_timeout_s),
        frame_timeout_s=limit("frameTimeoutSecs", defaults.frame_timeout_s),
        keepalive_s=limit("tcpKeepAliveSecs", defaults.keepalive_s),
    )


def look_at_place(channel: str, address: Address, values: Mapping[str, Any]) -> list[Finding]:
    """What is wrong with host and port for a channel that listens, or dials."""
    if values.get("mode", False):
        return _dialling(channel, address, values)
    if address.port == 0 and not address.device:
        text, remedy = "port 0 takes another free port at every start", "name the port that the senders know"
        return [Finding("channel.port-any", Severity.INFO, text, remedy, f"{label(channel)}.address")]
    return []


def _dialling(channel: str, address: Address, values: Mapping[str, Any]) -> list[Finding]:
    """What is wrong with a channel that connects to its sender."""
    problems: list[Finding] = []
    where = f"{label(channel)}.address"
    if is_no_place(address.host):
        text, remedy = f"mode=client cannot connect to {address.host}", "name the host of the sender"
        problems.append(Finding("channel.dial-host", Severity.ERROR, text, remedy, where))
    if address.port == 0:
        text, remedy = "mode=client cannot connect to port 0", "name the port that the sender listens on"
        problems.append(Finding("channel.dial-port", Severity.ERROR, text, remedy, where))
    for name in _OF_A_SERVER:
        if values.get(name):
            text, remedy = f"{name} has no effect with mode=client: nobody connects to this channel", "remove it"
            where_it_stands = f"{label(channel)}.{name}"
            problems.append(Finding("channel.idle-parameter", Severity.INFO, text, remedy, where_it_stands))
    return problems


def _tls(
    channel: str, address: Address, values: Mapping[str, Any], ours: Mapping[str, TlsSpec], problems: list[Finding]
) -> TlsSpec | None:
    """The certificate that `tls=` names, else the one with the channel's name, else `default`."""
    subject = Subject(Family.CHANNEL, channel)
    named: str | None = values.get("tls")
    dials = bool(values.get("mode", False))
    spec = tls.tls_of(subject, named, (channel, tls.DEFAULT), secure=address.secure, ours=ours, problems=problems)
    if spec is None and named is None and address.secure:
        text = "mllps:// needs a [tls.NAME] of this host's configuration, and none is for this channel"
        remedy = "add tls=NAME to the address, or give this host a [tls.default]"
        if dials:
            remedy += ", which may be empty: the authorities that the host trusts are believed then"
        remedy = f"{remedy}; {tls.what_we_have(ours)}"
        problems.append(subject.finding("tls-missing", Severity.ERROR, text, remedy, "tls"))
    elif spec is not None and spec.certificate is None and not dials:
        text = f"[tls.{spec.name}] of this host has no certificate, and a channel that listens must show one"
        remedy = f"set certificate_file in [tls.{spec.name}] of this host's configuration"
        problems.append(subject.finding("tls-certificate", Severity.ERROR, text, remedy, "tls"))
    return spec
