"""One more certificate authority for jobs that leave the cluster."""

from __future__ import annotations

import os
from pathlib import Path

import certifi
import pytest

from mistral_on_l4.jobs.trust import trust_extra_authority
from mistral_on_l4.manifests.scripts import sources

PEM = "-----BEGIN CERTIFICATE-----\nof a proxy\n-----END CERTIFICATE-----"


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


def test_it_travels_with_the_scripts_that_use_it() -> None:
    assert "mistral_on_l4/jobs/trust.py" in sources("seed_weights").files
    assert "mistral_on_l4/jobs/trust.py" in sources("register_model").files
