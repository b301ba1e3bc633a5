"""What is remembered of strangers, and how often the log hears of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Severity
from agent.protocol.explanations import EXPLANATIONS
from agent.protocol.forensics import Oddity
from agent.sightings import KINDS, SHOWN_FOR_S, TOLD_AGAIN_S, Sighting, Sightings


class Watch:
    """Sightings with a clock and a log that the test holds."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.told: list[tuple[Oddity, str]] = []
        self.sightings = Sightings(lambda: self.now, self._tell)

    def _tell(self, seen: Sighting) -> None:
        self.told.append((seen.oddity, seen.host))


def test_the_log_hears_once_of_each_peer_and_kind() -> None:
    watch = Watch()

    for _ in range(1_000):
        watch.sightings.note(Oddity.HTTP, "10.0.0.1", "GET /")
        watch.sightings.note(Oddity.HTTP, "10.0.0.2", "GET /")
        watch.sightings.note(Oddity.NO_MSH, "10.0.0.1", "0B aaa")
        watch.now += 1

    assert watch.told == [(Oddity.HTTP, "10.0.0.1"), (Oddity.HTTP, "10.0.0.2"), (Oddity.NO_MSH, "10.0.0.1")]
    assert watch.sightings.counts == {"http": 2_000, "no-msh": 1_000}


def test_after_an_hour_of_quiet_it_is_told_again() -> None:
    watch = Watch()
    watch.sightings.note(Oddity.HTTP, "10.0.0.1", "GET /")

    watch.now += TOLD_AGAIN_S
    watch.sightings.note(Oddity.HTTP, "10.0.0.1", "GET /")

    assert len(watch.told) == 2


def test_a_finding_says_who_how_often_what_and_what_to_do() -> None:
    watch = Watch()
    for _ in range(3):
        watch.sightings.note(Oddity.TLS_ON_PLAIN, "10.0.0.1", "16 03 01")

    [finding] = watch.sightings.findings("adt")

    assert (finding.code, finding.where) == ("wire.tls-on-plain-port", "adt")
    assert finding.text.startswith("10.0.0.1, 3 times: ")
    assert "16 03 01" in finding.text
    assert finding.remedy == EXPLANATIONS[Oddity.TLS_ON_PLAIN].remedy


def test_a_load_balancers_probe_is_no_finding_and_an_old_sighting_is_none_either() -> None:
    watch = Watch()
    watch.sightings.note(Oddity.PROBE, "10.0.0.1", "")
    watch.sightings.note(Oddity.HTTP, "10.0.0.1", "GET /")

    watch.now += SHOWN_FOR_S

    assert list(watch.sightings.findings("adt")) == []
    assert {seen.oddity for seen in watch.sightings.all} == {Oddity.PROBE, Oddity.HTTP}


def test_a_hundred_strangers_do_not_fill_the_screen() -> None:
    watch = Watch()
    for number in range(100):
        watch.sightings.note(Oddity.HTTP, f"10.0.0.{number}", "GET /")

    findings = list(watch.sightings.findings("adt"))

    assert len(findings) == 9
    assert findings[0].text.startswith("10.0.0.99")
    assert findings[-1].code == "wire.more"
    assert all(finding.severity is not Severity.ERROR for finding in findings)


@given(st.lists(st.tuples(st.sampled_from(Oddity), st.integers(0, 10_000)), max_size=2_000))
def test_memory_is_bounded_and_the_counts_are_true(seen: list[tuple[Oddity, int]]) -> None:
    watch = Watch()

    for oddity, host in seen:
        watch.sightings.note(oddity, f"10.0.{host // 256}.{host % 256}", "")

    assert len(watch.sightings.all) <= KINDS
    assert len(watch.sightings._told) <= KINDS
    assert sum(watch.sightings.counts.values()) == len(seen)
