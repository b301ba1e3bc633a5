"""Whose certificates we believe, and which we show."""

from __future__ import annotations

import os
import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from certificates import TODAY, Authority, Issued

from agent.errors import ConfigError, Finding, Severity
from agent.net.tls import HostTrust, Identity, client_context
from agent.net.tlswire import TlsWire
from agent.spec import TlsSpec


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def refused(spec: TlsSpec, *, dials: bool = False) -> list[Finding]:
    with pytest.raises(ConfigError) as error:
        Identity.load(spec, dials=dials)
    for finding in error.value.findings:
        assert finding.severity is Severity.ERROR
        assert finding.remedy
        assert finding.where.startswith("tls.main.")
    return list(error.value.findings)


def shown_to(client: ssl.SSLContext, identity: Identity) -> bytes:
    """The certificate that a client sees."""
    ours, theirs = TlsWire(identity.context, True), TlsWire(client, False, "localhost")
    said = b""
    while not theirs.established:
        theirs.feed(said)
        ours.feed(theirs.outgoing())
        said = ours.outgoing()
    seen = theirs._tls.getpeercert(binary_form=True)
    assert seen is not None
    return seen


# ---- servers that we call


def test_servers_are_verified_and_old_versions_refused(certificate: tuple[Path, Path]) -> None:
    context = client_context(certificate[0])

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_ca_file_that_is_missing_or_no_pem_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("no certificate")
    for unfit in (tmp_path / "missing.pem", tmp_path / "text.pem", tmp_path):
        with pytest.raises(ConfigError, match="BEGIN CERTIFICATE") as refused:
            client_context(unfit)
        assert str(unfit) in str(refused.value)
        assert refused.value.findings[0].where == "server.ca_file"


def test_the_hosts_authorities_are_read_once_and_again_when_they_change(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(authority.file.read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    trust = HostTrust()
    first = trust.context

    assert trust.context is first
    assert first.verify_mode is ssl.CERT_REQUIRED
    assert first.check_hostname
    assert first.minimum_version is ssl.TLSVersion.TLSv1_2
    assert len(first.get_ca_certs()) == 1

    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    bundle.write_bytes(authority.file.read_bytes() + other.file.read_bytes())
    assert len(trust.context.get_ca_certs()) == 2


# ---- what a channel shows


def test_a_listening_channel_asks_for_no_certificate_unless_it_has_an_authority(authority: Authority) -> None:
    own = authority.issue()

    asking = Identity.load(own.spec(client_ca=authority.file), dials=False).context
    trusting = Identity.load(own.spec(), dials=False).context

    assert asking.verify_mode is ssl.CERT_REQUIRED
    assert trusting.verify_mode is ssl.CERT_NONE
    assert asking.minimum_version is trusting.minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_dialling_channel_verifies_the_far_end_with_or_without_files(authority: Authority) -> None:
    for spec in (TlsSpec("main"), TlsSpec("main", client_ca=authority.file), authority.issue(client=True).spec()):
        context = Identity.load(spec, dials=True).context

        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_certificate_and_key_may_stand_in_one_file(authority: Authority) -> None:
    own = authority.issue()
    own.certificate.write_bytes(own.key.read_bytes() + own.certificate.read_bytes())

    assert Identity.load(TlsSpec("main", own.certificate), dials=False).not_after == TODAY + timedelta(days=365)


def test_an_encrypted_key_is_opened_by_the_password_in_its_file(authority: Authority, tmp_path: Path) -> None:
    own = authority.issue(password="open sesame")
    password = tmp_path / "password"
    password.write_text("open sesame\n")

    Identity.load(own.spec(key_password_file=password), dials=False)


def test_the_chain_behind_the_certificate_is_shown(tmp_path: Path) -> None:
    root = Authority(tmp_path, "Root")
    own = Authority(tmp_path, "Issuing", above=root).issue()
    chain = own.certificate.read_bytes() + (tmp_path / "Issuing.pem").read_bytes()

    own.certificate.write_bytes(chain)

    # the client knows the root only
    assert shown_to(root.client(), Identity.load(own.spec(), dials=False))


# ---- what is wrong with the files


def test_a_missing_file_is_named_and_every_other_problem_with_it(authority: Authority, tmp_path: Path) -> None:
    absent = tmp_path / "absent.crt"
    spec = TlsSpec("main", absent, tmp_path / "absent.key", tmp_path / "absent.txt", tmp_path / "absent.pem")

    found = refused(spec)

    assert [finding.where for finding in found] == [
        "tls.main.certificate_file",
        "tls.main.key_file",
        "tls.main.key_password_file",
        "tls.main.ca_file",
    ]
    assert all("cannot be read: No such file" in finding.text for finding in found)


def test_a_file_that_cannot_be_read_is_named(authority: Authority, tmp_path: Path) -> None:
    [finding] = refused(Issued(authority.issue().certificate, tmp_path).spec())

    assert finding.where == "tls.main.key_file"
    assert finding.text.startswith(f"{tmp_path} cannot be read: ")


def test_a_listening_channel_needs_a_certificate() -> None:
    assert [finding.code for finding in refused(TlsSpec("main"))] == ["tls.certificate"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "holds no PEM certificate"),
        (b"\x30\x82\x01\x02binary", "holds no PEM certificate"),
        (b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "holds a damaged certificate"),
        (b"-----BEGIN CERTIFICATE-----\n\xff\xfe\n-----END CERTIFICATE-----\n", "holds a damaged certificate"),
    ],
)
@pytest.mark.parametrize("leaf", ["certificate_file", "ca_file"])
def test_a_file_that_is_no_certificate_is_named_with_what_it_lacks(
    authority: Authority, content: bytes, says: str, leaf: str
) -> None:
    own = authority.issue()
    unfit = own.certificate if leaf == "certificate_file" else authority.file
    unfit.write_bytes(content)

    [finding] = refused(own.spec(client_ca=authority.file))

    assert finding.where == f"tls.main.{leaf}"
    assert says in finding.text


def test_a_key_that_is_no_key_or_of_another_certificate_is_told_apart(authority: Authority) -> None:
    own, other = authority.issue("agent"), authority.issue("other")

    [mismatch] = refused(Issued(own.certificate, other.key).spec())
    [no_key] = refused(Issued(own.certificate, own.certificate).spec())
    [missing] = refused(TlsSpec("main", own.certificate))

    assert "is not the key of" in mismatch.text
    assert "holds no PEM private key" in no_key.text
    assert missing.where == "tls.main.key_file"


def test_an_encrypted_key_without_its_password_never_asks_the_terminal(authority: Authority, tmp_path: Path) -> None:
    own = authority.issue(password="open sesame")
    wrong = tmp_path / "password"
    wrong.write_text("sesame")

    [without] = refused(own.spec())
    [with_another] = refused(own.spec(key_password_file=wrong))

    assert (without.code, "is encrypted" in without.text) == ("tls.key", True)
    assert (with_another.code, "does not open" in with_another.text) == ("tls.key-password", True)
    assert "sesame" not in str(without) + str(with_another)


# ---- dates


def test_a_certificate_is_announced_thirty_days_before_its_end_and_named_after_it(authority: Authority) -> None:
    identity = Identity.load(authority.issue(days=40).spec(), dials=False)

    def codes(days: float) -> list[tuple[str, Severity]]:
        return [(finding.code, finding.severity) for finding in identity.findings(TODAY + timedelta(days=days))]

    assert identity.not_after == TODAY + timedelta(days=40)
    assert codes(9) == []
    assert codes(11) == [("tls.expiring", Severity.WARNING)]
    assert codes(39.9) == [("tls.expiring", Severity.WARNING)]
    assert codes(40) == [("tls.expired", Severity.ERROR)]
    assert codes(-500) == [("tls.not-yet-valid", Severity.ERROR)]
    [finding] = identity.findings(TODAY + timedelta(days=30))
    assert "in 10 days" in finding.text


def test_an_expired_certificate_is_a_finding_and_does_not_stop_the_channel(authority: Authority) -> None:
    identity = Identity.load(authority.issue(days=-1).spec(), dials=False)

    assert [finding.code for finding in identity.findings(TODAY)] == ["tls.expired"]


def test_the_end_of_a_chain_is_the_end_of_its_first_certificate_to_end(tmp_path: Path) -> None:
    issuing = Authority(tmp_path, "Issuing", days=20, above=Authority(tmp_path, "Root"))
    own = issuing.issue(days=365)
    own.certificate.write_bytes(own.certificate.read_bytes() + issuing.pem)

    assert Identity.load(own.spec(), dials=False).not_after == TODAY + timedelta(days=20)


def test_authorities_expire_when_the_last_of_them_does(tmp_path: Path) -> None:
    old, young = Authority(tmp_path, "Old", days=-5), Authority(tmp_path, "Young", days=10)
    both = tmp_path / "both.pem"
    both.write_bytes(old.pem + young.pem)

    identity = Identity.load(young.issue(days=365).spec(client_ca=both), dials=False)

    [finding] = identity.findings(TODAY)
    assert (finding.code, finding.where) == ("tls.expiring", "tls.main.ca_file")


# ---- files that change


def replace(issued: Issued, by: Issued) -> None:
    """As certbot and its like do: a rename, the certificate first."""
    by.certificate.rename(issued.certificate)
    by.key.rename(issued.key)


def test_files_that_did_not_change_are_not_read_again(authority: Authority) -> None:
    identity = Identity.load(authority.issue().spec(), dials=False)
    before = identity.context

    assert not identity.refresh()
    assert identity.context is before


def test_files_that_changed_make_a_context_for_later_connections(authority: Authority) -> None:
    own = authority.issue("agent", days=10)
    identity = Identity.load(own.spec(), dials=False)
    before, shown = identity.context, shown_to(authority.client(), identity)

    replace(own, authority.issue("renewed", days=300))

    assert identity.refresh()
    assert identity.context is not before
    assert identity.not_after == TODAY + timedelta(days=300)
    assert shown_to(authority.client(), identity) != shown


def test_half_of_a_renewal_changes_nothing_until_the_other_half_is_there(authority: Authority) -> None:
    own, renewed = authority.issue("agent"), authority.issue("renewed")
    identity = Identity.load(own.spec(), dials=False)
    before = identity.context

    renewed.certificate.rename(own.certificate)
    assert not identity.refresh()
    assert identity.context is before
    [finding] = identity.findings(TODAY)
    assert (finding.code, finding.severity) == ("tls.not-reloaded", Severity.ERROR)
    assert str(own.key) in finding.text

    renewed.key.rename(own.key)
    assert identity.refresh()
    assert identity.context is not before
    assert identity.findings(TODAY) == []


def test_files_that_vanish_and_come_back_leave_no_finding(authority: Authority, tmp_path: Path) -> None:
    own = authority.issue()
    identity = Identity.load(own.spec(), dials=False)

    away = own.key.rename(tmp_path / "away")
    identity.refresh()
    assert [finding.code for finding in identity.findings(TODAY)] == ["tls.not-reloaded"]

    away.rename(own.key)
    assert identity.refresh()
    assert identity.findings(TODAY) == []


def test_what_could_not_be_used_is_tried_again_even_if_it_looks_the_same(authority: Authority, tmp_path: Path) -> None:
    # given a disk whose clock is too coarse to tell two writes apart
    password = tmp_path / "password"
    password.write_text("sesame")
    own = authority.issue(password="sesame")
    identity = Identity.load(own.spec(key_password_file=password), dials=False)

    for content, reloaded in (("sesamo", False), ("sesame", True)):
        password.write_text(content)
        os.utime(password, ns=(1, 1))
        assert identity.refresh() is reloaded

    assert identity.findings(TODAY) == []
