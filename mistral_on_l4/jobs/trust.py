"""Lets a job trust one more certificate authority beside the public ones: of a proxy that opens TLS, or of an external store."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path


def trust_extra_authority(environment: Mapping[str, str] = os.environ) -> None:
    """EXTRA_CA_PEM holds certificates in PEM. requests and boto3 take one file each, so the public ones are joined to it.

    A store with an authority of its own (AWS_CA_BUNDLE is set) keeps that one.
    """
    pem = environment.get("EXTRA_CA_PEM")
    if not pem:
        return
    from requests.certs import where  # type: ignore[attr-defined]

    bundle = Path(tempfile.gettempdir(), "ca-bundle.pem")
    bundle.write_text(f"{Path(where()).read_text()}\n{pem}\n")
    os.environ["REQUESTS_CA_BUNDLE"] = str(bundle)
    os.environ.setdefault("AWS_CA_BUNDLE", str(bundle))
