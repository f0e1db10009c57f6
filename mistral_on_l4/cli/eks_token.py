"""`demo eks-token`: what Kubernetes clients run to get a token for EKS; a profile or its caller's AWS credentials sign it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from embedded.plugins.aws import LEDGER_VARIABLE
from mistral_on_l4.aws.session import AwsTrouble, session
from mistral_on_l4.aws.token import token_status
from mistral_on_l4.cli import Failure

app = typer.Typer()

API_VERSION = "client.authentication.k8s.io/v1"


@app.command()
def eks_token(
    cluster: Annotated[str, typer.Option(help="Name of the EKS cluster.")],
    region: Annotated[str, typer.Option(help="Its region.")],
    profile: Annotated[str | None, typer.Option(help="AWS profile that signs, in place of the caller's credentials.")] = None,
) -> None:
    """Print an ExecCredential for an EKS cluster."""
    ledger = os.environ.get(LEDGER_VARIABLE)
    try:
        status = rehearsal_status(Path(ledger), cluster) if ledger else token_status(session(region, profile), cluster, region)
    except AwsTrouble as error:
        raise Failure(str(error)) from None
    print(json.dumps({"apiVersion": API_VERSION, "kind": "ExecCredential", "spec": {}, "status": status}))


def rehearsal_status(ledger: Path, cluster: str) -> dict[str, str]:
    """On the stand-in account the cluster is the embedded one, which takes its administrator's certificate. Raises AwsTrouble."""
    from embedded.home import LocalHome

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
