"""Resources and lookups of the aws provider: the same types and inputs as pulumi_aws' own classes.

Those are generated for everything that AWS has, and importing the four modules that this stack uses takes longer than running the
whole program. Here a resource is its type's name and what is read back from it; what it was given goes to the provider as it is.
The provider, which does the work, is pulumi_aws', and tests hold every name used here against its classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, ClassVar

import pulumi
from pydantic.alias_generators import to_camel

# The plugin that belongs to the locked package, as its own classes ask for it.
VERSION = version("pulumi-aws")


class AwsResource(pulumi.CustomResource):
    """Inputs by keyword in snake_case, as pulumi_aws has them; what lies inside one is in the provider's camelCase.

    type_token: module, file and name of the type; the annotations of a subclass are the outputs that can be read from it.
    """

    type_token: ClassVar[str]

    def __init__(self, resource_name: str, /, *, opts: pulumi.ResourceOptions | None = None, **inputs: Any) -> None:
        # Translated here, since the SDK's own translation reaches into values: a tag called as an input would change its key.
        properties = {**dict.fromkeys(map(to_camel, type(self).__annotations__)), **_in_camel_case(inputs)}
        opts = pulumi.ResourceOptions.merge(pulumi.ResourceOptions(version=VERSION), opts)
        super().__init__(self.type_token, resource_name, properties, opts)

    def __getattr__(self, name: str) -> Any:
        """An output by its name in snake_case; asked for only where there is no attribute of that name."""
        if (theirs := to_camel(name)) != name and theirs in self.__dict__:
            return self.__dict__[theirs]
        raise AttributeError(f"{type(self).__name__} has no output {name!r}")


def lookup(function: str, **arguments: Any) -> Mapping[str, Any]:
    """The answer of one of the provider's functions, such as "aws:eks/getCluster:getCluster", in camelCase."""
    found: Mapping[str, Any] = pulumi.runtime.invoke(
        function, _in_camel_case(arguments), pulumi.InvokeOptions(version=VERSION)
    ).value
    return found


def _in_camel_case(named: Mapping[str, Any]) -> dict[str, Any]:
    return {to_camel(key): value for key, value in named.items()}


# -- ec2 -------------------------------------------------------------------------------------------------------------------


class Eip(AwsResource):
    type_token = "aws:ec2/eip:Eip"


class InternetGateway(AwsResource):
    type_token = "aws:ec2/internetGateway:InternetGateway"


class LaunchTemplate(AwsResource):
    type_token = "aws:ec2/launchTemplate:LaunchTemplate"
    latest_version: pulumi.Output[float]


class NatGateway(AwsResource):
    type_token = "aws:ec2/natGateway:NatGateway"


class RouteTable(AwsResource):
    type_token = "aws:ec2/routeTable:RouteTable"


class RouteTableAssociation(AwsResource):
    type_token = "aws:ec2/routeTableAssociation:RouteTableAssociation"


class SecurityGroupIngressRule(AwsResource):
    type_token = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"


class Subnet(AwsResource):
    type_token = "aws:ec2/subnet:Subnet"


class Vpc(AwsResource):
    type_token = "aws:ec2/vpc:Vpc"


class VpcEndpoint(AwsResource):
    type_token = "aws:ec2/vpcEndpoint:VpcEndpoint"


# -- eks -------------------------------------------------------------------------------------------------------------------


class AccessEntry(AwsResource):
    type_token = "aws:eks/accessEntry:AccessEntry"
    principal_arn: pulumi.Output[str]


class AccessPolicyAssociation(AwsResource):
    type_token = "aws:eks/accessPolicyAssociation:AccessPolicyAssociation"


class Addon(AwsResource):
    type_token = "aws:eks/addon:Addon"


class EksCluster(AwsResource):
    type_token = "aws:eks/cluster:Cluster"
    arn: pulumi.Output[str]
    certificate_authority: pulumi.Output[Any]
    created_at: pulumi.Output[str]
    endpoint: pulumi.Output[str]
    name: pulumi.Output[str]
    vpc_config: pulumi.Output[Any]


class NodeGroup(AwsResource):
    type_token = "aws:eks/nodeGroup:NodeGroup"


# -- iam -------------------------------------------------------------------------------------------------------------------


class Role(AwsResource):
    type_token = "aws:iam/role:Role"
    arn: pulumi.Output[str]
    name: pulumi.Output[str]


class RolePolicyAttachment(AwsResource):
    type_token = "aws:iam/rolePolicyAttachment:RolePolicyAttachment"
