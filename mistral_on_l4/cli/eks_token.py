"""`demo eks-token`: what Kubernetes clients run to get a token for EKS; its caller's AWS credentials sign it, nothing is stored."""

from __future__ import annotations

import base64
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from mistral_on_l4.aws_session import AwsTrouble, in_words, session
from mistral_on_l4.cli import Failure
from mistral_on_l4.embedded.plugins.aws import LEDGER_VARIABLE

app = typer.Typer()

API_VERSION = "client.authentication.k8s.io/v1"
# EKS takes a token for 15 minutes; clients ask again a minute before.
_VALID = timedelta(minutes=14)
_SIGNED_SECONDS = 60


@app.command()
def eks_token(
    cluster: Annotated[str, typer.Option(help="Name of the EKS cluster.")],
    region: Annotated[str, typer.Option(help="Its region.")],
) -> None:
    """Print an ExecCredential for an EKS cluster."""
    ledger = os.environ.get(LEDGER_VARIABLE)
    try:
        status = rehearsal_status(Path(ledger), cluster) if ledger else token_status(session(region), cluster, region)
    except AwsTrouble as error:
        raise Failure(str(error)) from None
    print(json.dumps({"apiVersion": API_VERSION, "kind": "ExecCredential", "spec": {}, "status": status}))


def token_status(of: Any, cluster: str, region: str, now: datetime | None = None) -> dict[str, str]:
    """A token: a signed question to STS, who am I, that only this cluster may ask. Raises AwsTrouble."""
    from botocore.signers import RequestSigner

    with in_words():
        credentials = of.get_credentials()
        if credentials is None:
            from botocore.exceptions import NoCredentialsError

            raise NoCredentialsError
        sts = of.client("sts", region_name=region)
        signer = RequestSigner(sts.meta.service_model.service_id, region, "sts", "v4", credentials, of.events)
        question = {
            "method": "GET",
            "url": f"{sts.meta.endpoint_url}/?Action=GetCallerIdentity&Version=2011-06-15",
            "body": {},
            "headers": {"x-k8s-aws-id": cluster},
            "context": {},
        }
        url = signer.generate_presigned_url(question, region_name=region, expires_in=_SIGNED_SECONDS, operation_name="")
    until = (now or datetime.now(UTC)) + _VALID
    token = base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")
    return {"token": f"k8s-aws-v1.{token}", "expirationTimestamp": until.strftime("%Y-%m-%dT%H:%M:%SZ")}


def rehearsal_status(ledger: Path, cluster: str) -> dict[str, str]:
    """On the stand-in account the cluster is the embedded one, which takes its administrator's certificate. Raises AwsTrouble."""
    from mistral_on_l4.embedded.home import LocalHome

    try:
        known = json.loads(ledger.read_text())["resources"]
    except (FileNotFoundError, ValueError, KeyError):
        known = {}
    if known.get(cluster, {}).get("kind") != "cluster":
        raise AwsTrouble(f"the rehearsed account in {ledger} has no cluster {cluster!r}")
    pki = LocalHome.default().pki
    return {
        "clientCertificateData": (pki / "admin.crt").read_text(),
        "clientKeyData": (pki / "admin.key").read_text(),
    }
