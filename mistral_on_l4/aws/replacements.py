"""Inputs of AWS resources whose change makes a new one, for the types of this stack.

Source: what has ForceNew in terraform-provider-aws (internal/service/{ec2,eks,iam}), which pulumi-aws bridges. The stand-in
provider of rehearsals goes by this table, and so does a pull request's comment where no provider can be asked.
"""

from __future__ import annotations

from collections.abc import Mapping

REPLACED_BY: Mapping[str, frozenset[str]] = {
    "aws:ec2/eip:Eip": frozenset({"domain"}),
    "aws:ec2/internetGateway:InternetGateway": frozenset(),
    "aws:ec2/launchTemplate:LaunchTemplate": frozenset({"name", "namePrefix"}),
    "aws:ec2/natGateway:NatGateway": frozenset({"subnetId", "allocationId"}),
    "aws:ec2/routeTable:RouteTable": frozenset({"vpcId"}),
    "aws:ec2/routeTableAssociation:RouteTableAssociation": frozenset({"subnetId"}),
    "aws:ec2/subnet:Subnet": frozenset({"vpcId", "cidrBlock", "availabilityZone"}),
    "aws:ec2/vpc:Vpc": frozenset({"cidrBlock"}),
    "aws:ec2/vpcEndpoint:VpcEndpoint": frozenset({"vpcId", "serviceName", "vpcEndpointType"}),
    "aws:eks/accessEntry:AccessEntry": frozenset({"clusterName", "principalArn"}),
    "aws:eks/accessPolicyAssociation:AccessPolicyAssociation": frozenset(
        {"clusterName", "principalArn", "policyArn", "accessScope", "region"}
    ),
    "aws:eks/addon:Addon": frozenset({"addonName", "clusterName"}),
    "aws:eks/cluster:Cluster": frozenset({"name", "roleArn", "bootstrapSelfManagedAddons"}),
    "aws:eks/nodeGroup:NodeGroup": frozenset(
        {
            "amiType",
            "capacityType",
            "clusterName",
            "instanceTypes",
            "nodeGroupName",
            "nodeGroupNamePrefix",
            "nodeRoleArn",
            "subnetIds",
        }
    ),
    "aws:iam/role:Role": frozenset({"name", "namePrefix"}),
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": frozenset({"role", "policyArn"}),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": frozenset({"securityGroupId"}),
}
