"""Access to an EKS cluster's API with AWS credentials: the token that EKS takes."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

from mistral_on_l4.aws.session import in_words

# EKS takes a token for 15 minutes; clients ask again a minute before.
_VALID = timedelta(minutes=14)
_SIGNED_SECONDS = 60


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
