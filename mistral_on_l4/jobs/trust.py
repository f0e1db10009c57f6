"""What a job trusts: one more certificate authority beside the public ones, of a proxy that opens TLS or of an external store."""

from __future__ import annotations

import os
import re
import ssl
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.*?(?:-----END CERTIFICATE-----|(?=-----BEGIN)|\Z)", re.DOTALL)


class Untrusted(Exception):
    """One sentence: what of extraCa cannot be used."""


def trust_extra_authority(environment: Mapping[str, str] = os.environ) -> None:
    """EXTRA_CA_PEM holds certificates in PEM. requests and boto3 take one file each, so the public ones are joined to it.

    A store with an authority of its own (AWS_CA_BUNDLE is set) keeps that one. OpenSSL reads a file up to the first certificate
    that is broken: such a one is named and left out. Raises Untrusted when none is left.
    """
    pem = environment.get("EXTRA_CA_PEM")
    if not pem:
        return
    from requests.certs import where  # type: ignore[attr-defined]

    blocks = _BLOCK.findall(pem)
    broken = {number: problem for number, block in enumerate(blocks, 1) if (problem := _block_problem(block))}
    good = [block for number, block in enumerate(blocks, 1) if number not in broken]
    named = [f"certificate {number} of {len(blocks)} in extraCa is broken ({problem})" for number, problem in broken.items()]
    if not good:
        why = named[0] if named else "extraCa holds no -----BEGIN CERTIFICATE-----"
        raise Untrusted(f"{why}: set extraCa to certificates in PEM, each with its BEGIN and END line")
    for sentence in named:
        print(f"warning: {sentence} and is left out: write it again from its source", flush=True)
    bundle = Path(tempfile.gettempdir(), "ca-bundle.pem")
    bundle.write_text("\n".join([Path(where()).read_text(), *good, ""]))
    os.environ["REQUESTS_CA_BUNDLE"] = str(bundle)
    os.environ.setdefault("AWS_CA_BUNDLE", str(bundle))


def _block_problem(block: str) -> str | None:
    if not block.endswith("-----END CERTIFICATE-----"):
        return "its END line is missing"
    try:
        ssl.create_default_context(cadata=block)
    except (ssl.SSLError, ValueError) as error:
        return (error.reason if isinstance(error, ssl.SSLError) else None) or "it is no PEM"
    return None


def tls_problem(error: BaseException) -> str | None:
    """What a peer's TLS lacks and what to change, to follow the peer's name; None for an error of another kind."""
    text = str(error)
    if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text:
        return "speaks no TLS: write its address with http://"
    if "CERTIFICATE_VERIFY_FAILED" not in text:
        return None
    found = re.search(r"certificate verify failed: (.+?)\.? \(_ssl", text)
    detail = found[1] if found else "it cannot be verified"
    if "expired" in detail or "not yet valid" in detail:
        return (
            f"shows a certificate that is not valid by this node's clock, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC ({detail}): "
            "set the clock, or renew the certificate"
        )
    if "mismatch" in detail:
        return f"shows a certificate of another name ({detail}): use the name that is in it"
    return f"shows a certificate of an authority that is not known here ({detail}): add the authority's, in PEM, to extraCa"
