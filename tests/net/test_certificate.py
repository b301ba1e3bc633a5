"""What a certificate says of itself, and what none says."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from certificates import Authority
from hypothesis import example, given
from hypothesis import strategies as st

from agent.net.certificate import read_certificate


@pytest.fixture(scope="module")
def spoilable(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    return ssl.PEM_cert_to_DER_cert(authority.issue().certificate.read_text())


def test_whom_it_is_for_who_issued_it_and_until_when(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "HOSPITAL CA")
    issued = authority.issue(hosts=("lab.example",))

    read = read_certificate(ssl.PEM_cert_to_DER_cert(issued.certificate.read_text()))

    assert read is not None
    assert (read.issuer, read.vouches_for_itself) == ("'HOSPITAL CA'", False)
    assert "lab.example" in read.names
    assert read.since < datetime.now(UTC) < read.until - timedelta(hours=1)


@given(st.none() | st.binary(max_size=300))
def test_any_other_bytes_are_no_certificate(der: bytes | None) -> None:
    assert read_certificate(der) is None


@given(at=st.integers(0, 5_000), byte=st.integers(0, 255))
@example(at=12, byte=1)  # a version that there is not
@example(at=58, byte=3)  # a name that is a bit string
def test_a_spoilt_certificate_is_read_as_one_or_not_at_all(spoilable: bytes, at: int, byte: int) -> None:
    der = bytearray(spoilable)
    der[at % len(der)] = byte

    read = read_certificate(bytes(der))

    assert read is None or (read.issuer[0], read.issuer[-1], read.since.tzinfo) == ("'", "'", UTC)
