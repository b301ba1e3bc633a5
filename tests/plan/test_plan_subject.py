"""How a finding names what it is about."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Finding, Severity
from agent.plan.subject import Family, Subject, label, strictly

LAB = Subject(Family.REMOTE, "lab.example:2575")


def test_a_channel_is_named_with_the_parameter_and_a_remote_by_host_and_port_alone() -> None:
    channel = Subject(Family.CHANNEL, "adt").finding("odd", Severity.INFO, "it is odd", "mend it", "tls")
    remote = LAB.finding("odd", Severity.INFO, "it is odd", "mend it", "tls")

    assert str(channel) == "adt.tls: it is odd — mend it"
    assert str(remote) == "remote lab.example:2575: tls: it is odd — mend it"
    assert (channel.code, remote.code) == ("channel.odd", "remote.odd")


def test_a_finding_may_be_about_the_whole_address() -> None:
    assert Subject(Family.CHANNEL, "adt").finding("odd", Severity.INFO, "odd", "").where == "adt.address"
    assert (LAB.finding("odd", Severity.INFO, "odd", "").where, LAB.finding("odd", Severity.INFO, "odd", "").text) == (
        "remote lab.example:2575", "odd",
    )  # fmt: skip
    assert Subject(Family.REMOTE, "").finding("odd", Severity.INFO, "odd", "").where == "remote"


@given(st.text(), st.text(), st.sampled_from(Family))
def test_no_name_upsets_a_terminal(name: str, parameter: str, family: Family) -> None:
    subject = Subject(family, name if family is Family.CHANNEL else "h:1")

    assert str(subject.finding("odd", Severity.INFO, "odd", "mend it", parameter)).isprintable()
    assert len(label(name)) <= 60


@pytest.mark.parametrize(
    ("severity", "strict"),
    [
        (Severity.INFO, Severity.INFO),
        (Severity.WARNING, Severity.ERROR),
        (Severity.ERROR, Severity.ERROR),
    ],
)
def test_strictly_a_warning_is_an_error_and_nothing_else_changes(severity: Severity, strict: Severity) -> None:
    finding = Finding("channel.odd", severity, "odd", "mend it", "adt.tls")

    assert strictly(finding) == Finding("channel.odd", strict, "odd", "mend it", "adt.tls")
