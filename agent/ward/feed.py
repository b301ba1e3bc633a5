"""A hospital's HL7 traffic without a hospital.

Secret: how the story of `story.py` is worded in HL7 v2.5.1.
Promise: every message is valid, every MSH-10 is unique (against another seed's: practically so), each system tells of a
patient in the order in which things happened, and the same seed gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count

from agent.ward.document import pdf
from agent.ward.story import TELLER, Event, Occurrence, Plot, Stay, System

OPENS = datetime(2026, 1, 5, 6, 0, tzinfo=UTC)
# MSH-18 (table 0211) by Python codec; others cannot hold the names in the story.
CHARSETS = {"utf-8": "UNICODE UTF-8", "iso8859-1": "8859/1", "iso8859-15": "8859/15"}


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it goes out. `kind`: MSH-9.1^MSH-9.2, as ADT^A01; `body`: segments ended by CR, no framing."""

    kind: str
    control_id: str
    body: bytes


class Hospital:
    """One simulated hospital. Several with one seed and different `site` numbers are different hospitals of one feed.

    `codec`: what the text is encoded in, one of CHARSETS.
    """

    def __init__(self, seed: int, *, site: int = 0, opens: datetime = OPENS, codec: str = "utf-8") -> None:
        self._plot = Plot(seed, site, opens)
        self._tag = hashlib.blake2s(f"{seed}/{site}".encode(), digest_size=4).hexdigest().upper()
        self._facility = "EXAMPLE HOSPITAL" if site == 0 else f"EXAMPLE HOSPITAL {site + 1}"
        self._codec = codec
        self._charset = CHARSETS[codec]

    def messages(self, *systems: System) -> Iterator[Message]:
        """What these systems send (all of them, if none is named), in order of time, without end."""
        wanted: Collection[System] = systems or tuple(System)
        told: Counter[System] = Counter()
        for occurrence in self._plot.occurrences():
            system = TELLER[occurrence.event]
            if system in wanted:
                told[system] += 1
                yield self._message(system, told[system], occurrence)

    def _message(self, system: System, number: int, occurrence: Occurrence) -> Message:
        control_id = f"{system.name[:3]}{self._tag}{number:08d}"
        kind, wording = _WORDINGS[occurrence.event]
        header = (
            f"MSH|^~\\&|{system}SYS|{self._facility}|INTEGRATION|{self._facility}|{_time(occurrence.when)}||{kind}|{control_id}"
            f"|P|2.5.1||||||{self._charset}"
        )
        text = "\r".join((header, *wording(occurrence), ""))
        return Message(occurrence.event, control_id, text.encode(self._codec))


def feeds(seed: int, lanes: int, *, codec: str = "utf-8") -> list[Iterator[Message]]:
    """One feed for each of `lanes` connections, as a hospital would open them: no system speaks on two of them.

    More lanes than systems make more hospitals.
    """
    systems = tuple(System)
    if lanes < len(systems):
        hospital = Hospital(seed, codec=codec)
        return [hospital.messages(*systems[lane::lanes]) for lane in range(lanes)]
    return [
        Hospital(seed, site=lane // len(systems), codec=codec).messages(systems[lane % len(systems)])
        for lane in range(lanes)
    ]


def load(seed: int, size_bytes: int = 1024) -> Iterator[Message]:
    """Admissions of exactly `size_bytes` each, without end and cheap to make: only MSH-10 differs between them.

    Raises ValueError, before the first message, if the size is too small for an admission.
    """
    tag = hashlib.blake2s(f"load/{seed}".encode(), digest_size=4).hexdigest().upper()
    occurrence = next(o for o in Plot(0, 0, OPENS).occurrences() if o.event is Event.ADMITTED)
    addresses = "LOADSYS|EXAMPLE HOSPITAL|INTEGRATION|EXAMPLE HOSPITAL"
    before = f"MSH|^~\\&|{addresses}|{_time(occurrence.when)}||ADT^A01^ADT_A01|{tag}".encode()
    after = "\r".join(("|P|2.5.1||||||UNICODE UTF-8", *_admission(occurrence), "")).encode()
    note = b"OBX|1|TX|48767-8^Annotation comment^LN||%b||||||F\r"
    room = size_bytes - len(b"%b%010d%b" % (before, 0, after + note % b""))
    if room < 0:
        raise ValueError(f"{size_bytes} bytes are too few: an admission takes {size_bytes - room}")
    after += note % (b"padding " * (room // 8 + 1))[:room]

    def admissions() -> Iterator[Message]:
        for number in count(1):
            yield Message("ADT^A01", f"{tag}{number:010d}", b"%b%010d%b" % (before, number, after))

    return admissions()


def _time(when: datetime) -> str:
    return when.strftime("%Y%m%d%H%M%S+0000")


def _person(stay: Stay) -> str:
    patient = stay.patient
    sex = "F" if patient.female else "M"
    return (
        f"PID|1||{patient.number}^^^EXAMPLE^MR||{patient.family}^{patient.given}||{patient.born:%Y%m%d}|{sex}"
        f"|||{patient.street}^^TESTVILLE^EX^00000||{patient.phone}"
    )


def _visit(stay: Stay, *, bed: str, discharged: str = "") -> str:
    kind, place = ("I", f"{stay.place}^{bed}") if stay.inpatient else ("O", stay.place)
    visit = (
        f"PV1|1|{kind}|{place}||||{_doctor(stay)}|||MED|||||||||V{stay.number + 1:07d}^^^EXAMPLE^VN"
        f"|||||||||||||||||||||||||{_time(stay.arrives)}"
    )
    return f"{visit}|{discharged}" if discharged else visit


def _doctor(stay: Stay) -> str:
    return "^".join(stay.doctor)


def _admission(occurrence: Occurrence) -> list[str]:
    stay = occurrence.stay
    code, name = stay.reason
    when = _time(occurrence.when)
    return [
        f"EVN||{when}",
        _person(stay),
        f"NK1|1|{stay.patient.kin}|EMC",
        _visit(stay, bed=stay.bed),
        f"DG1|1||{code}^{name}^I10||{when}|A",
    ]


def _update(occurrence: Occurrence) -> list[str]:
    stay = occurrence.stay
    return [
        f"EVN||{_time(occurrence.when)}",
        _person(stay),
        _visit(stay, bed=stay.later_bed),
        "AL1|1|DA|^Penicillin (reported by the patient)|MI",
    ]


def _discharge(occurrence: Occurrence) -> list[str]:
    stay, when = occurrence.stay, _time(occurrence.when)
    code, name = stay.reason
    return [
        f"EVN||{when}",
        _person(stay),
        _visit(stay, bed=stay.later_bed, discharged=when),
        f"DG1|1||{code}^{name}^I10||{when}|F",
    ]


def _order_numbers(stay: Stay) -> str:
    return f"ORD{stay.number + 1:07d}^ADTSYS|LAB{stay.number + 1:07d}^LABSYS"


def _request(stay: Stay) -> str:
    return f"OBR|1|{_order_numbers(stay)}|{stay.panel.code}^{stay.panel.name}^LN"


def _order(occurrence: Occurrence) -> list[str]:
    stay, when = occurrence.stay, _time(occurrence.when)
    return [
        _person(stay),
        _visit(stay, bed=stay.bed),
        f"ORC|NW|{_order_numbers(stay)}||SC||||{when}|||{_doctor(stay)}",
        f"{_request(stay)}||{when}||||||||||{_doctor(stay)}",
    ]


def _result(occurrence: Occurrence) -> list[str]:
    stay, when = occurrence.stay, _time(occurrence.when)
    rows = []
    for number, (analyte, value) in enumerate(zip(stay.panel.analytes, stay.values, strict=True), 1):
        flag = "L" if value < analyte.low else "H" if value > analyte.high else "N"
        rows.append(
            f"OBX|{number}|NM|{analyte.code}^{analyte.name}^LN||{value:.{analyte.decimals}f}|{analyte.unit}"
            f"|{analyte.low:g}-{analyte.high:g}|{flag}|||F|||{when}"
        )
    return [
        _person(stay),
        _visit(stay, bed=stay.bed),
        f"ORC|RE|{_order_numbers(stay)}||CM||||{when}|||{_doctor(stay)}",
        f"{_request(stay)}|||{when}|||||||||{_doctor(stay)}||||||{when}||LAB|F",
        *rows,
        "NTE|1||Simulated result, not for clinical use",
    ]


def _booking(occurrence: Occurrence) -> list[str]:
    stay = occurrence.stay
    number = f"APT{stay.number + 1:07d}"
    starts = _time(stay.arrives)
    schedule = (
        f"SCH|{number}^SCHEDSYS|||||ROUTINE^Routine appointment|CHECKUP^Check-up|NORMAL|30|min"
        f"|^^^{starts}|||||{_doctor(stay)}||||{_doctor(stay)}|||||Booked"
    )
    return [
        schedule,
        _person(stay),
        f"PV1|1|O|{stay.place}",
        "RGS|1|A",
        f"AIS|1|A|CONSULT^Consultation^L|{starts}|||30|min",
        f"AIL|1|A|{stay.place}",
        f"AIP|1|A|{_doctor(stay)}",
    ]


def _letter(occurrence: Occurrence) -> list[str]:
    stay, when = occurrence.stay, _time(occurrence.when)
    encoded = base64.b64encode(pdf(_letter_lines(occurrence))).decode()
    return [
        f"EVN||{when}",
        _person(stay),
        _visit(stay, bed=stay.later_bed),
        f"TXA|1|DS|AP|{when}|{_doctor(stay)}|{when}||{when}|{_doctor(stay)}|||DOC{stay.number + 1:07d}^DOCSYS|||||AU",
        f"OBX|1|ED|18842-5^Discharge summary^LN||DOCSYS^AP^PDF^Base64^{encoded}||||||F",
    ]


def _letter_lines(occurrence: Occurrence) -> Iterator[str]:
    stay = occurrence.stay
    patient = stay.patient
    yield "EXAMPLE HOSPITAL - DISCHARGE SUMMARY - SIMULATED, NOT FOR CLINICAL USE"
    yield ""
    yield f"Patient    {patient.family}, {patient.given}    born {patient.born:%d %b %Y}    {patient.number}"
    yield f"Stay       {stay.place}, {stay.arrives:%d %b %Y %H:%M} to {occurrence.when:%d %b %Y %H:%M} UTC"
    yield f"Diagnosis  {stay.reason[1]} ({stay.reason[0]})"
    yield ""
    for analyte, value in zip(stay.panel.analytes, stay.values, strict=True):
        measured = f"{value:>8.{analyte.decimals}f} {analyte.unit:<10}"
        yield f"{analyte.name:<20}{measured} normal {analyte.low:g} to {analyte.high:g}"
    yield ""
    for paragraph in range(1, 18):
        yield f"{paragraph:>2}. This paragraph is here so that the document has the length of a real letter."
        yield "    The patient was seen, examined and sent home in good condition."
    yield ""
    yield f"Signed: {stay.doctor[2]} {stay.doctor[1]}"


_WORDINGS = {
    Event.BOOKED: ("SIU^S12^SIU_S12", _booking),
    Event.ADMITTED: ("ADT^A01^ADT_A01", _admission),
    Event.REGISTERED: ("ADT^A04^ADT_A01", _admission),
    Event.UPDATED: ("ADT^A08^ADT_A01", _update),
    Event.DISCHARGED: ("ADT^A03^ADT_A03", _discharge),
    Event.ORDERED: ("ORM^O01^ORM_O01", _order),
    Event.RESULTED: ("ORU^R01^ORU_R01", _result),
    Event.DOCUMENTED: ("MDM^T02^MDM_T02", _letter),
}
