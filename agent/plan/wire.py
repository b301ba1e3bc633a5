"""What a channel speaks, and over which serial port.

Secret: how the kind of an address and its parameters become a Wire and a SerialSpec, and which of them go together.
Promise: a byte stream whose messages have no end is an error; a parameter that has no effect beside others is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agent.errors import Finding, Severity
from agent.plan.address import Address
from agent.plan.kind import ANALYSERS, STREAMS, Kind
from agent.plan.subject import Subject
from agent.spec import Astm, ByteStream, Dicom, Mllp, SerialSpec, Wire

_SERIAL: Final = {
    "baudRate": "baud_rate",
    "dataBits": "data_bits",
    "parity": "parity",
    "stopBits": "stop_bits",
    "flowControl": "flow",
}


def wire_of(subject: Subject, address: Address, values: Mapping[str, Any], problems: list[Finding]) -> Wire:
    """`values` by the names of the parameters; complete even where `problems` got an error."""
    if address.kind in STREAMS:
        return _byte_stream(subject, address, values, problems)
    if address.kind in ANALYSERS:
        return analyser(values)
    if address.kind is Kind.DICOM:
        return Dicom(values.get("aeTitle"), values.get("callingAeTitles", ()))
    return Mllp()


def analyser(values: Mapping[str, Any]) -> Astm:
    silent = Astm()
    return Astm(
        values.get("encoding", silent.codec),
        values.get("frameBytes", silent.frame_bytes),
        values.get("ignoreResponse", silent.ignore_response),
    )


def serial_of(address: Address, values: Mapping[str, Any]) -> SerialSpec | None:
    if not address.device:
        return None
    return SerialSpec(address.device, **{field: values[name] for name, field in _SERIAL.items() if name in values})


def _byte_stream(subject: Subject, address: Address, values: Mapping[str, Any], problems: list[Finding]) -> ByteStream:
    start, end = values.get("startChar"), values.get("endChar")
    responses: tuple[tuple[bytes, bytes], ...] = values.get("autoRespond", ())
    strips: bool = values.get("stripControlChars", False)
    given = {parameter.name for parameter in address.parameters}
    if "mode" in given and "mode" not in values:  # perhaps it is to be no byte stream at all
        given |= {"startChar", "endChar"}
    if "endChar" not in given:
        text, remedy = "nothing says where a message ends", "add endChar, like endChar=%03 for the character ETX"
        problems.append(subject.finding("parameter-missing", Severity.ERROR, text, remedy, "endChar"))
    if "startChar" not in given:
        text = "without startChar a message is all since the last endChar, whatever was between two messages"
        remedy = "add startChar, like startChar=%02, if the sender begins its messages with a character"
        problems.append(subject.finding("no-start", Severity.INFO, text, remedy, "startChar"))
    if end is not None and start == end:
        text = "a message cannot begin and end with the same character"
        remedy = "correct one of the two, or remove startChar if the character only separates messages"
        problems.append(subject.finding("same-characters", Severity.ERROR, text, remedy, "endChar"))
    if len({sequence for sequence, _ in responses}) < len(responses):
        text, remedy = "one sequence has two answers", "keep one of them"
        problems.append(subject.finding("bad-value", Severity.ERROR, text, remedy, "autoRespond"))
    if "keepControlChars" in values and not strips:
        text, remedy = "it has no effect without stripControlChars=true", "remove it, or add stripControlChars=true"
        problems.append(subject.finding("idle-parameter", Severity.INFO, text, remedy, "keepControlChars"))
    return ByteStream(
        end=end or 0,
        start=start,
        responses=responses,
        strip=values.get("stripSequence", ()),
        strip_controls=strips,
        keep_controls=frozenset(values.get("keepControlChars", ())),
        body_codec=values.get("bodyEncoding"),
        ignore_response=values.get("ignoreResponse", False),
    )
