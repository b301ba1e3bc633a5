"""What happens in the simulated hospital, before any of it is written as HL7.

Secret: the people, the plot and the timing of their stays.
Promise: the same seed tells the same story on every machine; a person keeps name, number and birthday over all stays;
nobody in it could be mistaken for a real person.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from random import Random

# Arrivals are this far apart, so that a few hundred messages hold whole stays of every kind.
ARRIVAL_GAP = timedelta(minutes=9)
# A person may come back this many arrivals later (27 hours): by then every earlier stay has ended.
RETURN_AFTER = 180

FAMILIES = ("TESTPATIENT", "EXAMPLE", "SAMPLE", "SPECIMEN", "FICTITIOUS", "PLACEHOLDER", "MUSTERMANN", "BEISPIEL")
FEMALE = ("ANNA", "BEA", "CHLOÉ", "DORA", "ELLA", "FRIDA", "GRETA", "ZOË", "IRÈNE", "JANE")
MALE = ("ADAM", "BRUNO", "CARL", "DAN", "ERIK", "FRANÇOIS", "GUS", "HUGO", "JOHN", "JÜRGEN")
DOCTORS = (
    ("1001", "DEMODOCTOR", "ALICE"),
    ("1002", "DEMODOCTOR", "BORIS"),
    ("1003", "DEMODOCTOR", "CÉLINE"),
    ("1004", "DEMODOCTOR", "DIETER"),
    ("1005", "DEMODOCTOR", "ESTHER"),
)
WARDS = ("2NORTH", "3EAST", "4WEST", "ICU")
CLINICS = ("CARDIO CLINIC", "ENDO CLINIC", "ORTHO CLINIC")
REASONS = (
    ("R07.9", "Chest pain, unspecified"),
    ("J18.9", "Pneumonia, unspecified"),
    ("E11.9", "Type 2 diabetes mellitus"),
    ("S82.90", "Fracture of lower leg"),
    ("R10.9", "Abdominal pain, unspecified"),
)


class Event(StrEnum):
    """What a system tells the others, by its HL7 name (MSH-9.1^MSH-9.2)."""

    BOOKED = "SIU^S12"
    ADMITTED = "ADT^A01"
    REGISTERED = "ADT^A04"
    UPDATED = "ADT^A08"
    DISCHARGED = "ADT^A03"
    ORDERED = "ORM^O01"
    RESULTED = "ORU^R01"
    DOCUMENTED = "MDM^T02"


class System(StrEnum):
    """The senders: one system of the hospital each, one connection each in real life."""

    ADT = "ADT"
    LAB = "LAB"
    SCHEDULING = "SCHED"
    DOCUMENTS = "DOC"


TELLER = {
    Event.BOOKED: System.SCHEDULING,
    Event.ADMITTED: System.ADT,
    Event.REGISTERED: System.ADT,
    Event.UPDATED: System.ADT,
    Event.DISCHARGED: System.ADT,
    Event.ORDERED: System.LAB,
    Event.RESULTED: System.LAB,
    Event.DOCUMENTED: System.DOCUMENTS,
}


@dataclass(frozen=True, slots=True)
class Analyte:
    """One measurable thing: LOINC code, name, unit (UCUM), and the range that counts as normal."""

    code: str
    name: str
    unit: str
    low: float
    high: float
    decimals: int


@dataclass(frozen=True, slots=True)
class Panel:
    """What a lab is asked for in one go."""

    code: str
    name: str
    analytes: tuple[Analyte, ...]


PANELS = (
    Panel("51990-0", "Basic metabolic panel", (
        Analyte("2951-2", "Sodium", "mmol/L", 135, 145, 0),
        Analyte("2823-3", "Potassium", "mmol/L", 3.5, 5.1, 1),
        Analyte("2160-0", "Creatinine", "mg/dL", 0.6, 1.2, 2),
        Analyte("2345-7", "Glucose", "mg/dL", 70, 110, 0),
        Analyte("3094-0", "Urea nitrogen", "mg/dL", 7, 20, 0),
    )),
    Panel("58410-2", "Complete blood count", (
        Analyte("6690-2", "Leukocytes", "10*3/uL", 4.5, 11.0, 1),
        Analyte("718-7", "Hemoglobin", "g/dL", 12.0, 17.5, 1),
        Analyte("4544-3", "Hematocrit", "%", 36, 50, 0),
        Analyte("777-3", "Platelets", "10*3/uL", 150, 400, 0),
    )),
    Panel("24331-1", "Lipid panel", (
        Analyte("2093-3", "Cholesterol", "mg/dL", 120, 200, 0),
        Analyte("2085-9", "HDL cholesterol", "mg/dL", 40, 80, 0),
        Analyte("2571-8", "Triglyceride", "mg/dL", 50, 150, 0),
    )),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Patient:
    """A made-up person. The street and the telephone number exist nowhere."""

    number: str
    family: str
    given: str
    female: bool
    born: date
    street: str
    phone: str
    kin: str


@dataclass(frozen=True, slots=True)
class Stay:
    """One stay or visit: who, why, where, with whom."""

    number: int
    patient: Patient
    inpatient: bool
    place: str
    bed: str
    later_bed: str
    doctor: tuple[str, str, str]
    reason: tuple[str, str]
    opens: datetime
    arrives: datetime
    panel: Panel
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True, order=True)
class Occurrence:
    """Something happens: when, in which stay (and there as the how many-th thing), and what."""

    when: datetime
    stay_number: int
    step: int
    event: Event
    stay: Stay


class Plot:
    """The story of one hospital. `seed` and `site` decide it; `opens` is when its first patient is heard of."""

    def __init__(self, seed: int, site: int, opens: datetime) -> None:
        self._name = f"{seed}/{site}"
        self._opens = opens

    def occurrences(self) -> Iterator[Occurrence]:
        """Everything that ever happens, in order of time, without end."""
        pending: list[Occurrence] = []
        number = 0
        while True:
            stay = self._stay(number)
            # A stay begins no earlier than the one before it, so whatever lies before this one is settled.
            while pending and pending[0].when <= stay.opens:
                yield heapq.heappop(pending)
            for occurrence in _course(stay):
                heapq.heappush(pending, occurrence)
            number += 1

    def _random(self, what: str, number: int) -> Random:
        return Random(f"{self._name}/{what}/{number}")

    def _person_of(self, stay: int) -> int:
        while stay >= RETURN_AFTER and self._random("return", stay).random() < 0.3:
            stay -= RETURN_AFTER
        return stay

    def _patient(self, number: int) -> Patient:
        chance = self._random("patient", number)
        female = chance.random() < 0.5
        family = chance.choice(FAMILIES)
        return Patient(
            number=f"MRN{number + 1:07d}",
            family=family,
            given=chance.choice(FEMALE if female else MALE),
            female=female,
            born=date(1930, 1, 1) + timedelta(days=chance.randrange(33_000)),
            street=f"{chance.randrange(1, 200)} EXAMPLE STREET",
            phone=f"555-01{chance.randrange(100):02d}",
            kin=f"{family}^{chance.choice(MALE if female else FEMALE)}",
        )

    def _stay(self, number: int) -> Stay:
        chance = self._random("stay", number)
        inpatient = chance.random() < 0.5
        opens = self._opens + number * ARRIVAL_GAP + timedelta(seconds=chance.randrange(300))
        panel = chance.choice(PANELS)
        return Stay(
            number=number,
            patient=self._patient(self._person_of(number)),
            inpatient=inpatient,
            place=chance.choice(WARDS if inpatient else CLINICS),
            bed=f"{chance.randrange(1, 40)}^A",
            later_bed=f"{chance.randrange(1, 40)}^B",
            doctor=chance.choice(DOCTORS),
            reason=chance.choice(REASONS),
            opens=opens,
            arrives=opens if inpatient else opens + timedelta(minutes=chance.randrange(15, 40)),
            panel=panel,
            # A tenth beyond either end of the normal range: most results are normal and some are not.
            values=tuple(
                chance.uniform(a.low - 0.1 * (a.high - a.low), a.high + 0.1 * (a.high - a.low)) for a in panel.analytes
            ),
        )


def _course(stay: Stay) -> Iterator[Occurrence]:
    """One stay from the first word to the last, less than a day."""
    if stay.inpatient:
        steps = ((0, Event.ADMITTED), (12, Event.ORDERED), (40, Event.RESULTED), (75, Event.UPDATED),
                 (150, Event.DOCUMENTED), (170, Event.DISCHARGED))  # fmt: skip
    else:
        steps = ((0, Event.REGISTERED), (5, Event.UPDATED), (10, Event.ORDERED), (35, Event.RESULTED),
                 (60, Event.DOCUMENTED), (65, Event.DISCHARGED))  # fmt: skip
        yield Occurrence(stay.opens, stay.number, 0, Event.BOOKED, stay)
    for step, (minutes, event) in enumerate(steps, 1):
        yield Occurrence(stay.arrives + timedelta(minutes=minutes), stay.number, step, event, stay)
