"""One more certificate authority for jobs that leave the cluster."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any

import certifi
import pytest

from mistral_on_l4.jobs.trust import Untrusted, tls_problem, trust_extra_authority
from mistral_on_l4.manifests.scripts import sources

_END = "-----END CERTIFICATE-----"
# Any real one does; the last of certifi's stands for a proxy's.
PEM = "-----BEGIN" + Path(certifi.where()).read_text().rpartition("-----BEGIN")[2].partition(_END)[0] + _END
BROKEN = PEM.replace("MII", "!!!", 1)
CUT = PEM.removesuffix(_END)


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Set first, so that the originals come back whatever the function does.
    for name in ("REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))


def test_the_extra_authority_is_trusted_beside_the_public_ones() -> None:
    trust_extra_authority({"EXTRA_CA_PEM": PEM})
    bundle = Path(os.environ["REQUESTS_CA_BUNDLE"]).read_text()
    assert bundle.startswith(Path(certifi.where()).read_text()[:200])
    assert PEM in bundle
    assert os.environ["AWS_CA_BUNDLE"] == os.environ["REQUESTS_CA_BUNDLE"]


def test_a_store_with_an_authority_of_its_own_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/etc/store-ca/ca.crt")
    trust_extra_authority({"EXTRA_CA_PEM": PEM})
    assert os.environ["AWS_CA_BUNDLE"] == "/etc/store-ca/ca.crt"


def test_without_one_nothing_changes() -> None:
    trust_extra_authority({})
    assert "REQUESTS_CA_BUNDLE" not in os.environ


@pytest.mark.parametrize(
    ("pem", "says"),
    [
        (f"{BROKEN}\n{PEM}\n", "certificate 1 of 2 in extraCa is broken"),
        (f"{PEM}\n{BROKEN}\n", "certificate 2 of 2 in extraCa is broken"),
        (f"{CUT}\n{PEM}\n", "certificate 1 of 2 in extraCa is broken (its END line is missing)"),
    ],
)
def test_a_broken_certificate_beside_a_good_one_is_named_and_the_good_one_is_trusted(pem: str, says: str, capsys: Any) -> None:
    trust_extra_authority({"EXTRA_CA_PEM": pem})
    assert capsys.readouterr().out.startswith(f"warning: {says}")
    # OpenSSL reads the whole file, or this raises.
    bundle = os.environ["REQUESTS_CA_BUNDLE"]
    ssl.create_default_context(cafile=bundle)
    assert Path(bundle).read_text().rstrip().endswith(PEM)


@pytest.mark.parametrize("pem", [BROKEN, CUT, "a path.pem"])
def test_an_extra_authority_without_any_good_certificate_is_refused_by_the_settings_name(pem: str) -> None:
    with pytest.raises(Untrusted, match=r"extraCa .*: set extraCa to certificates in PEM"):
        trust_extra_authority({"EXTRA_CA_PEM": pem})


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            "certificate verify failed: unable to get local issuer certificate (_ssl.c:1006)",
            "add the authority's, in PEM, to extraCa",
        ),
        ("certificate verify failed: self-signed certificate (_ssl.c:1006)", "add the authority's, in PEM, to extraCa"),
        ("certificate verify failed: certificate has expired (_ssl.c:1006)", "set the clock, or renew the certificate"),
        ("certificate verify failed: certificate is not yet valid (_ssl.c:1006)", "set the clock, or renew the certificate"),
        (
            "certificate verify failed: Hostname mismatch, certificate is not valid for 'x'. (_ssl.c:1006)",
            "use the name that is in it",
        ),
    ],
)
def test_a_certificate_that_is_refused_says_what_to_change(error: str, says: str) -> None:
    assert says in (tls_problem(ssl.SSLError(f"[SSL: CERTIFICATE_VERIFY_FAILED] {error}")) or "")


def test_a_server_without_tls_is_called_that_and_a_broken_handshake_is_no_problem_of_settings() -> None:
    assert "speaks no TLS" in (tls_problem(ssl.SSLError("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)")) or "")
    assert tls_problem(ssl.SSLError("[SSL: UNEXPECTED_EOF_WHILE_READING] EOF (_ssl.c:1006)")) is None


def test_it_travels_with_the_scripts_that_use_it() -> None:
    assert "mistral_on_l4/jobs/trust.py" in sources("seed_weights").files
    assert "mistral_on_l4/jobs/trust.py" in sources("register_model").files
