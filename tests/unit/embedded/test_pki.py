"""Certificates are made once, and anew exactly when they cannot be used any more."""

from __future__ import annotations

import datetime
import stat
from pathlib import Path

import pytest
from cryptography import x509

from embedded import pki
from embedded.home import LocalHome

FIRST = "127.64.0.1"


def certificate(home: LocalHome, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((home.pki / f"{name}.crt").read_bytes())


def contents(home: LocalHome) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in home.pki.iterdir()}


def test_a_second_call_keeps_every_file(home: LocalHome) -> None:
    assert pki.ensure_pki(home, FIRST)
    before = contents(home)
    assert not pki.ensure_pki(home, FIRST)
    assert contents(home) == before


def test_no_file_can_be_read_by_others(home: LocalHome) -> None:
    pki.ensure_pki(home, FIRST)
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.pki.iterdir()} == {0o600}


def test_every_certificate_is_signed_by_the_authority_and_valid_for_years(home: LocalHome) -> None:
    pki.ensure_pki(home, FIRST)
    authority = certificate(home, "ca")
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=365)
    for name in ("apiserver", "admin", "webhook", "kubelet", "kubelet-client"):
        leaf = certificate(home, name)
        leaf.verify_directly_issued_by(authority)
        assert leaf.not_valid_after_utc > soon


def test_the_api_servers_certificate_names_where_it_is_reached(home: LocalHome) -> None:
    pki.ensure_pki(home, FIRST)
    names = certificate(home, "apiserver").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    assert addresses == {"127.0.0.1", FIRST}
    assert "kubernetes.default.svc" in names.get_values_for_type(x509.DNSName)


def test_another_service_range_renews_only_the_certificate_that_names_it(home: LocalHome) -> None:
    pki.ensure_pki(home, FIRST)
    before = contents(home)
    assert pki.ensure_pki(home, "127.65.0.1")
    changed = {name for name, data in contents(home).items() if data != before[name]}
    assert changed == {"apiserver.crt", "apiserver.key"}


def test_an_expired_certificate_is_renewed_under_the_same_authority(home: LocalHome, monkeypatch: pytest.MonkeyPatch) -> None:
    pki.ensure_pki(home, FIRST)
    before = contents(home)
    monkeypatch.setattr(pki, "VALID", datetime.timedelta(days=1))
    (home.pki / "admin.crt").unlink()
    pki.ensure_pki(home, FIRST)
    monkeypatch.undo()
    short = certificate(home, "admin")
    assert pki.ensure_pki(home, FIRST)
    assert certificate(home, "admin").serial_number != short.serial_number
    assert contents(home)["ca.crt"] == before["ca.crt"]
    assert contents(home)["webhook.crt"] == before["webhook.crt"]


@pytest.mark.parametrize("name", ["ca.crt", "ca.key", "apiserver.key", "sa.key", "sa.pub"])
def test_a_damaged_file_is_made_anew(home: LocalHome, name: str) -> None:
    pki.ensure_pki(home, FIRST)
    (home.pki / name).write_bytes(b"torn")
    assert pki.ensure_pki(home, FIRST)
    assert (home.pki / name).read_bytes() != b"torn"
    assert not pki.ensure_pki(home, FIRST)


def test_a_new_authority_signs_everything_anew(home: LocalHome) -> None:
    pki.ensure_pki(home, FIRST)
    (home.pki / "ca.key").unlink()
    pki.ensure_pki(home, FIRST)
    for name in ("apiserver", "admin", "webhook", "kubelet", "kubelet-client"):
        certificate(home, name).verify_directly_issued_by(certificate(home, "ca"))


def test_the_administrator_is_one_of_the_masters(home: LocalHome, tmp_path: Path) -> None:
    pki.ensure_pki(home, FIRST)
    groups = certificate(home, "admin").subject.get_attributes_for_oid(x509.oid.NameOID.ORGANIZATION_NAME)
    assert [group.value for group in groups] == ["system:masters"]
