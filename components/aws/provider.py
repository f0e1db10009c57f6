"""The provider that makes and looks up everything on AWS: the stack's region, its tags, and the profile that signs."""

from __future__ import annotations

from typing import Any

import pulumi
import pulumi_aws as aws
from pydantic.alias_generators import to_snake

from components.aws.tags import stack_tags
from mistral_on_l4.config.names import PROJECT
from mistral_on_l4.config.settings import Settings

# An explicit provider does not read `aws:` keys of the stack's configuration by itself. `region` and `defaultTags` are merged with
# what the stack says; `profile` goes into the kubeconfig as well.
TEXTS = ("customCaBundle", "httpProxy", "httpsProxy", "noProxy", "profile", "retryMode")
VALUES = (
    "allowedAccountIds",
    "forbiddenAccountIds",
    "insecure",
    "maxRetries",
    "skipCredentialsValidation",
    "skipMetadataApiCheck",
    "skipRegionValidation",
    "skipRequestingAccountId",
    "useDualstackEndpoint",
    "useFipsEndpoint",
)
STATIC_KEYS = ("accessKey", "secretKey", "token")
# `demo eks-token` signs with a profile or the environment, and would be another principal than the one that made the cluster.
OTHER_PRINCIPALS = ("assumeRole", "assumeRoles", "assumeRoleWithWebIdentity", "sharedConfigFiles", "sharedCredentialsFiles")
NOT_BUILT = (
    "ec2MetadataServiceEndpoint",
    "ec2MetadataServiceEndpointMode",
    "endpoints",
    "ignoreTags",
    "s3UsEast1RegionalEndpoint",
    "s3UsePathStyle",
    "stsRegion",
    "tagPolicyCompliance",
    "tokenBucketRateLimiterCapacity",
    "userAgents",
)


def profile() -> str | None:
    """The AWS profile that the stack's configuration names; without one, credentials are the environment's."""
    return pulumi.Config("aws").get("profile")


def account_tags(settings: Settings) -> dict[str, str]:
    """The stack's tags, and those that `aws:defaultTags` asks for beside them."""
    configured = pulumi.Config("aws").get_object("defaultTags") or {}
    return {**(configured.get("tags") or {}), **stack_tags(pulumi.get_stack(), settings.tags)}


def account_provider(name: str, settings: Settings) -> aws.Provider:
    """Raises pulumi.RunError where the configuration's `aws:` keys contradict the stack, or name credentials."""
    config = pulumi.Config("aws")
    _refuse(config, settings.region)
    given: dict[str, Any] = {key: config.get(key) for key in TEXTS} | {key: config.get_object(key) for key in VALUES}
    return aws.Provider(
        name,
        region=settings.region,
        default_tags={"tags": account_tags(settings)},
        **{to_snake(key): value for key, value in given.items() if value is not None},
    )


def _refuse(config: pulumi.Config, region: str) -> None:
    def first(keys: tuple[str, ...]) -> str | None:
        return next((key for key in keys if config.get(key) is not None), None)

    if key := first(STATIC_KEYS):
        raise pulumi.RunError(
            f"aws:{key} is a credential in the stack's configuration: remove it (pulumi config rm aws:{key}) and name a profile "
            "(pulumi config set aws:profile NAME), or use the environment's credentials"
        )
    if key := first(OTHER_PRINCIPALS):
        raise pulumi.RunError(
            f"aws:{key} is not used, since the command that gets tokens for the cluster would sign as somebody else: put it into a "
            "profile of ~/.aws/config (role_arn, source_profile) and set aws:profile"
        )
    if key := first(NOT_BUILT):
        raise pulumi.RunError(f"aws:{key} is not passed on to the provider: remove it (pulumi config rm aws:{key})")
    if (configured := config.get("region")) and configured != region:
        raise pulumi.RunError(f"{PROJECT}:region is {region} and aws:region is {configured}: set one of them only, or both alike")
