"""The plot of the simulated hospital."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice, pairwise

from agent.ward.story import Event, Occurrence, Plot

OPENS = datetime(2026, 1, 5, 6, 0, tzinfo=UTC)


def told(seed: int, count: int, site: int = 0) -> list[Occurrence]:
    return list(islice(Plot(seed, site, OPENS).occurrences(), count))


def test_the_same_seed_tells_the_same_story() -> None:
    assert told(7, 200) == told(7, 200)
    assert told(7, 200) != told(8, 200)
    assert told(7, 200) != told(7, 200, site=1)


def test_things_happen_in_order_of_time() -> None:
    assert all(earlier.when <= later.when for earlier, later in pairwise(told(3, 3000)))


def test_every_stay_is_told_from_its_beginning_to_its_end() -> None:
    # given the stays that have ended within the first 3000 things that happen
    events: dict[int, list[Event]] = {}
    for occurrence in told(3, 3000):
        events.setdefault(occurrence.stay_number, []).append(occurrence.event)
    complete = [course for course in events.values() if course[-1] is Event.DISCHARGED]
    # then each began with an admission, or with a booking and a registration, and had everything in between
    assert len(complete) > 300
    for course in complete:
        opening = course[:2] if course[0] is Event.BOOKED else course[:1]
        assert opening in ([Event.ADMITTED], [Event.BOOKED, Event.REGISTERED])
        assert sorted(course[len(opening) : -1]) == sorted(
            [Event.ORDERED, Event.RESULTED, Event.UPDATED, Event.DOCUMENTED]
        )
        assert course.index(Event.ORDERED) < course.index(Event.RESULTED)


def test_a_person_who_comes_back_is_the_same_person_and_was_discharged_before() -> None:
    patients: dict[str, object] = {}
    staying: dict[str, int] = {}
    returned = 0
    for occurrence in told(11, 6000):
        patient = occurrence.stay.patient
        assert patients.setdefault(patient.number, patient) == patient
        if staying.setdefault(patient.number, occurrence.stay_number) != occurrence.stay_number:
            assert staying[patient.number] == -1, "a second stay began before the first had ended"
            staying[patient.number] = occurrence.stay_number
            returned += 1
        if occurrence.event is Event.DISCHARGED:
            staying[patient.number] = -1
    assert returned > 50


def test_a_short_feed_has_everything_in_it() -> None:
    assert {occurrence.event for occurrence in told(1, 40)} == set(Event)
