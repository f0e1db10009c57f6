"""`demo eks-token`: what Kubernetes clients run to get a token for EKS; a profile or its caller's AWS credentials sign it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from mistral_on_l4.aws.session import AwsTrouble, session
from mistral_on_l4.aws.token import token_status
from mistral_on_l4.cli import Failure
from mistral_on_l4.cluster.local import NoLocalStack, rehearsed_credential

app = typer.Typer(add_completion=False)

API_VERSION = "client.authentication.k8s.io/v1"


@app.command()
def eks_token(
    cluster: Annotated[str, typer.Option(help="Name of the EKS cluster.")],
    region: Annotated[str, typer.Option(help="Its region.")],
    profile: Annotated[str | None, typer.Option(help="AWS profile that signs, in place of the caller's credentials.")] = None,
) -> None:
    """Print an ExecCredential for an EKS cluster."""
    try:
        status = rehearsed_credential(cluster) or token_status(session(region, profile), cluster, region)
    except (AwsTrouble, NoLocalStack) as error:
        raise Failure(str(error)) from None
    print(json.dumps({"apiVersion": API_VERSION, "kind": "ExecCredential", "spec": {}, "status": status}))
