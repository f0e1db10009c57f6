"""Whether an AWS account and the hub can carry a stack, asked before anything is created. Reads only; every check stands alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal

from mistral_on_l4.aws import quotas
from mistral_on_l4.aws.account import ZONES_WITHOUT_EKS
from mistral_on_l4.aws.nodegroup_problems import explain
from mistral_on_l4.aws.session import AwsTrouble, in_words
from mistral_on_l4.config.names import PROJECT, PUBLIC_HUB, STACK_TAG
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.planner import StackPlan
from mistral_on_l4.planner.catalogue import Catalogue, Engine

State = Literal["ok", "warn", "fail"]

_NAMES: Mapping[quotas.Kind, str] = {"ON_DEMAND": "quota on demand", "SPOT": "quota spot", "STANDARD": "quota system nodes"}
# Drivers of EKS's AL2023 NVIDIA images: 580, and since v20260917 580 or 595, chosen at first boot (amazon-eks-ami#2819, #2768).
AMI_DRIVERS = (580, 595)
# The smaller of the shipped GPU nodes holds two interfaces of 15 addresses when it starts.
_ADDRESSES = 32
_OPEN_TO_ME = f"{PROJECT}:cluster.publicAccessCidrs: [YOUR-ADDRESS/32] (`curl https://checkip.amazonaws.com` tells it)"


@dataclass(frozen=True)
class Finding:
    """One line of the report. fix: a command or setting, for what is not well."""

    check: str
    state: State
    says: str
    fix: str = ""


@dataclass(frozen=True)
class Doctor:
    """client: service -> boto3 client; hub: endpoint, token -> client with `model_info` as huggingface_hub's HfApi has it."""

    stack: str
    cluster: str
    settings: Settings
    plan: StackPlan
    catalogue: Catalogue
    client: Callable[[str], Any]
    hub: Callable[[str], Any]
    today: date

    def run(self) -> list[Finding]:
        """All findings, in the order of the checks. Checks run beside each other; one that breaks is a finding itself."""
        checks: list[tuple[str, Callable[[], list[Finding]]]] = [
            ("account", self._account),
            ("instance types", self._offerings),
            ("network", self._network),
            *(
                (f"quota {kind}", lambda kind=kind: self._quota(kind))
                for kind in sorted(quotas.needed(self.settings, self.catalogue))
            ),
            ("kubernetes version", self._version),
            ("cluster", self._cluster),
            ("add-ons", self._addons),
            ("access", self._access),
            ("engine image", self._driver),
            ("engine advisories", self._advisories),
            ("weights", self._weights),
            ("tags", self._tags),
        ]
        with ThreadPoolExecutor(len(checks)) as pool:
            return [finding for found in pool.map(lambda check: _settled(*check), checks) for finding in found]

    # -- the account ---------------------------------------------------------------------------------------------------

    def _account(self) -> list[Finding]:
        who = self.client("sts").get_caller_identity()
        return [Finding("account", "ok", f"{who['Account']} as {who['Arn']}, region {self.settings.region}")]

    def _offerings(self) -> list[Finding]:
        """Zones by type; a new cluster needs two with all of them, an adopted one has its zones."""
        adopted = self.settings.cluster.existing
        system = set() if adopted else {self.catalogue.system_nodes.instance}
        wanted = sorted({name for pool in self.settings.pools.groups for name in pool.instance_types} | system)
        usable = self._zones()
        filters = [{"Name": "instance-type", "Values": wanted}]
        pages = self.client("ec2").get_paginator("describe_instance_type_offerings")
        zones: dict[str, set[str]] = {name: set() for name in wanted}
        for page in pages.paginate(LocationType="availability-zone", Filters=filters):
            for offering in page["InstanceTypeOfferings"]:
                if offering["Location"] in usable:
                    zones[offering["InstanceType"]].add(offering["Location"])
        says = "; ".join(f"{name} in {', '.join(sorted(found)) or 'no zone'}" for name, found in zones.items())
        enough = all(zones.values()) if adopted else len(set.intersection(*zones.values())) >= 2
        if enough:
            return [Finding("instance types", "ok", says)]
        needs = "every type is needed in one zone" if adopted else "EKS needs two zones that offer all of them"
        fix = "another region (`pulumi config set aws:region us-east-1`), or other types (mistral-on-l4:pools.groups)"
        return [Finding("instance types", "fail", f"{says}: {needs}", fix)]

    def _zones(self) -> set[str]:
        """Names of the region's zones that can hold an EKS cluster."""
        filters = [{"Name": "zone-type", "Values": ["availability-zone"]}, {"Name": "state", "Values": ["available"]}]
        found = self.client("ec2").describe_availability_zones(Filters=filters)["AvailabilityZones"]
        return {zone["ZoneName"] for zone in found if zone["ZoneId"] not in ZONES_WITHOUT_EKS}

    def _network(self) -> list[Finding]:
        """An existing network: that its subnets belong to it, and that nodes in it find the cluster by its name."""
        network, ec2 = self.settings.network, self.client("ec2")
        if not network.existing_vpc_id:
            return []
        findings = []
        subnets = ec2.describe_subnets(SubnetIds=list(network.existing_subnet_ids))["Subnets"]
        for subnet in subnets:
            name, free = subnet["SubnetId"], subnet["AvailableIpAddressCount"]
            if subnet["VpcId"] != network.existing_vpc_id:
                fix = f"correct {PROJECT}:network.existingSubnetIds"
                findings.append(Finding("network", "fail", f"{name} is in {subnet['VpcId']}, not {network.existing_vpc_id}", fix))
            if free < _ADDRESSES:
                fix = f"another subnet ({PROJECT}:network.existingSubnetIds): nodes take addresses for their pods in advance"
                findings.append(Finding("network", "warn", f"{name} has {free} free addresses", fix))
        for attribute in ("enableDnsSupport", "enableDnsHostnames"):
            found = ec2.describe_vpc_attribute(VpcId=network.existing_vpc_id, Attribute=attribute)
            if not found[attribute[0].upper() + attribute[1:]]["Value"]:
                option = "--enable-dns-support" if attribute == "enableDnsSupport" else "--enable-dns-hostnames"
                fix = f"`aws ec2 modify-vpc-attribute --vpc-id {network.existing_vpc_id} {option}`"
                says = f"{network.existing_vpc_id} has {attribute} off: nodes do not find the cluster's private endpoint"
                findings.append(Finding("network", "fail", says, fix))
        return findings or [Finding("network", "ok", f"{network.existing_vpc_id} with {len(subnets)} subnets")]

    def _quota(self, kind: quotas.Kind) -> list[Finding]:
        asked = quotas.needed(self.settings, self.catalogue)[kind]
        grant = quotas.granted(self.client, self.stack, [kind])[kind]
        words = f"{asked} vCPU asked + {grant.in_use} in use of {grant.limit:.0f} ({quotas.CODES[kind]})"
        if quotas.shortage(kind, asked, grant, self.settings.region) is None:
            return [Finding(_NAMES[kind], "ok", words)]
        fix = quotas.increase(kind, asked + grant.in_use, self.settings.region)
        return [Finding(_NAMES[kind], "fail", f"{words}: these nodes would not start", fix)]

    def _version(self) -> list[Finding]:
        eks, version = self.client("eks"), self.settings.cluster.version
        fix = f"{PROJECT}:cluster.version: one of `aws eks describe-cluster-versions --query clusterVersions[].clusterVersion`"
        if self.settings.cluster.existing:
            try:
                version = eks.describe_cluster(name=self.cluster)["cluster"]["version"]
            except eks.exceptions.ResourceNotFoundException:
                # The check of the cluster says so.
                return []
            fix = f"`aws eks update-cluster-version --name {self.cluster} --kubernetes-version VERSION`, by the cluster's owner"
        found = eks.describe_cluster_versions(clusterVersions=[version])["clusterVersions"]
        if not found:
            return [Finding("kubernetes version", "fail", f"EKS has no Kubernetes {version}", fix)]
        until = found[0].get("endOfStandardSupportDate")
        status = found[0].get("versionStatus") or found[0].get("status", "")
        if str(status).upper().replace("-", "_") != "STANDARD_SUPPORT":
            return [Finding("kubernetes version", "fail", f"{version} is out of standard support ({status})", fix)]
        days = (until.date() - self.today).days if isinstance(until, datetime) else None
        if days is not None and days < 30:
            return [Finding("kubernetes version", "warn", f"{version} leaves standard support in {days} days", fix)]
        return [
            Finding("kubernetes version", "ok", f"{version}, standard support until {until.date() if days is not None else '?'}")
        ]

    def _cluster(self) -> list[Finding]:
        """Whether the name is free, ours, or the one to adopt; and what is wrong with node groups that are there."""
        eks = self.client("eks")
        adopted = self.settings.cluster.existing
        try:
            found = eks.describe_cluster(name=self.cluster)["cluster"]
        except eks.exceptions.ResourceNotFoundException:
            if adopted:
                return [Finding("cluster", "fail", f"there is no cluster {self.cluster}", "correct mistral-on-l4:cluster.name")]
            return [Finding("cluster", "ok", f"the name {self.cluster} is free"), *self._nobody_inside()]
        owner = (found.get("tags") or {}).get(STACK_TAG)
        if not adopted and owner != self.stack:
            whose = f"stack {owner!r}" if owner else "somebody else"
            fix = "another name (mistral-on-l4:cluster.name), or adopt it (mistral-on-l4:cluster.existing: true)"
            return [Finding("cluster", "fail", f"{self.cluster} exists and belongs to {whose}", fix)]
        says = f"{self.cluster} is {found['status']}, Kubernetes {found['version']}"
        if found["status"] in ("FAILED", "DELETING") or (adopted and found["status"] != "ACTIVE"):
            fix = "wait until it is gone" if found["status"] == "DELETING" else f"`aws eks describe-cluster --name {self.cluster}`"
            return [Finding("cluster", "fail", says, fix)]
        findings = [Finding("cluster", "ok", says)]
        for name in eks.list_nodegroups(clusterName=self.cluster)["nodegroups"]:
            group = eks.describe_nodegroup(clusterName=self.cluster, nodegroupName=name)["nodegroup"]
            for issue in (group.get("health") or {}).get("issues") or []:
                text = f"{issue['code']}: {issue['message']}"
                findings.append(Finding(f"node group {name}", "fail", text, explain(text) or "`kubectl describe nodes` says more"))
        return findings

    def _addons(self) -> list[Finding]:
        """What an adopted cluster has to bring; only warned of, since it may have it by other means than EKS's add-ons."""
        if not self.settings.cluster.existing:
            return []
        eks = self.client("eks")
        try:
            pages = eks.get_paginator("list_addons").paginate(clusterName=self.cluster)
            names = {name for page in pages for name in page["addons"]}
        except eks.exceptions.ResourceNotFoundException:
            # The check of the cluster says so.
            return []
        findings = []
        if "aws-ebs-csi-driver" not in names:
            says = f"{self.cluster} has no add-on aws-ebs-csi-driver: unless the driver is installed otherwise, no volume is made"
            fix = f"`aws eks create-addon --cluster-name {self.cluster} --addon-name aws-ebs-csi-driver`, with a role for it"
            findings.append(Finding("add-ons", "warn", says, fix))
        found = eks.describe_addon(clusterName=self.cluster, addonName="vpc-cni")["addon"] if "vpc-cni" in names else {}
        if not re.search(r"""["']?enableNetworkPolicy["']?\s*:\s*["']?true""", found.get("configurationValues") or ""):
            says = f"{self.cluster}'s add-on vpc-cni lacks enableNetworkPolicy: unless another does it, NetworkPolicies are ignored"
            fix = (
                f"`aws eks update-addon --cluster-name {self.cluster} --addon-name vpc-cni --configuration-values "
                """'{"enableNetworkPolicy": "true"}'`"""
            )
            findings.append(Finding("add-ons", "warn", says, fix))
        return findings or [Finding("add-ons", "ok", "EBS driver and enforced NetworkPolicies are there")]

    def _nobody_inside(self) -> list[Finding]:
        """A network that is still to be made holds nobody who could reach an API that answers inside it only."""
        if self.settings.cluster.public_access_cidrs or self.settings.network.existing_vpc_id:
            return []
        says = "the cluster's API would answer only inside a network that nobody is in yet, so an `up` would stop at it"
        return [Finding("access", "fail", says, _OPEN_TO_ME)]

    # -- without the account -------------------------------------------------------------------------------------------

    def _access(self) -> list[Finding]:
        if self.settings.cluster.existing or self.settings.cluster.public_access_cidrs:
            return []
        says = "the cluster's API will answer inside its VPC only, so `pulumi up` must run there"
        return [Finding("access", "warn", says, _OPEN_TO_ME)]

    def _driver(self) -> list[Finding]:
        """Whether the engine's image runs on the driver of the node image."""
        image = self._engine.images[self.settings.traits.engine_images]
        low, high = image.driver
        wants = f"{low}{f' to {high}' if high else ' or newer'}"
        have = " or ".join(map(str, AMI_DRIVERS))
        words = f"{image.reference} (CUDA {image.cuda}) wants driver {wants}, the nodes have {have}, chosen at their first boot"
        if all(low <= driver and (not high or high >= driver) for driver in AMI_DRIVERS):
            return [Finding("engine image", "ok", words)]
        return [Finding("engine image", "fail", words, f"{PROJECT}:images.overrides.engine: an image for driver {have}")]

    def _advisories(self) -> list[Finding]:
        """Known faults of the engine's version that a newer one has a fix for."""
        engine = self._engine
        if not engine.advisories:
            return [Finding("engine advisories", "ok", f"none is known of vLLM {engine.version}")]
        known = ", ".join(f"{advisory.id} (fixed in {advisory.fixed_in})" for advisory in engine.advisories)
        fix = "let nobody but trusted clients reach it (no exposure), or plan for another engine: `demo plan --engine vllm-0.33`"
        return [
            Finding(
                "engine advisories", "warn", f"vLLM {engine.version} has fixes up to {engine.fixed_until} and lacks: {known}", fix
            )
        ]

    @property
    def _engine(self) -> Engine:
        return self.catalogue.engines[self.catalogue.engine_of(self.settings.platform.value)]

    def _weights(self) -> list[Finding]:
        """Whether every checkpoint can be fetched from here, and how large it is."""
        endpoint = self.settings.hub.endpoint or PUBLIC_HUB
        api = self.hub(endpoint)
        # Checkpoint -> the first service that loads it.
        asked: dict[tuple[str, str], str] = {}
        for service in self.settings.enabled_services:
            asked.setdefault((self.plan.service(service.name).checkpoint, service.revision), service.name)
        return [_checkpoint(api, endpoint, *checkpoint, f"{PROJECT}:services.{name}") for checkpoint, name in asked.items()]

    def _tags(self) -> list[Finding]:
        expires = self.settings.tags.expires
        if expires is None:
            return [Finding("tags", "warn", "nothing says until when this stack may bill", f"{PROJECT}:tags.expires: a date")]
        if date.fromisoformat(expires) < self.today:
            return [Finding("tags", "fail", f"expires {expires} is over", f"{PROJECT}:tags.expires: a later date")]
        return [Finding("tags", "ok", f"owner {self.settings.tags.owner}, expires {expires}")]


def _checkpoint(api: Any, endpoint: str, repository: str, revision: str, key: str) -> Finding:
    """key: of the service in the stack file."""
    from huggingface_hub import errors

    name = f"weights {repository}"
    page = f"{endpoint.rstrip('/')}/{repository}"
    try:
        found = api.model_info(repository, revision=revision, files_metadata=True)
    except errors.GatedRepoError:
        fix = f"accept the licence at {page}, then `pulumi config set --secret hubToken` (and HF_TOKEN for this command)"
        return Finding(name, "fail", "the model is gated and this token may not read it", fix)
    except errors.RevisionNotFoundError:
        return Finding(name, "fail", f"it has no revision {revision!r}", f"correct {key}.revision; {page}/commits lists them")
    except errors.RepositoryNotFoundError:
        return Finding(name, "fail", "the hub knows no such repository, or not for this token", f"correct {key}.repository")
    except Exception as error:
        # Whatever HTTP client this version of huggingface_hub stands on: its errors share no class with those of others.
        said = (str(error).splitlines() or [type(error).__name__])[0]
        return Finding(name, "fail", f"the hub at {endpoint} does not answer: {said}", f"{PROJECT}:hub.endpoint, or HTTPS_PROXY")
    shards = [
        file for file in found.siblings or [] if file.rfilename.endswith(".safetensors") and "consolidated" not in file.rfilename
    ]
    size = sum(file.size or 0 for file in shards) / 1e9
    gated = " (gated; this token may read it)" if getattr(found, "gated", False) else ""
    return Finding(name, "ok", f"{size:.1f} GB in {len(shards)} files at {str(found.sha)[:12]}{gated}")


def _settled(name: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        with in_words():
            return check()
    except AwsTrouble as trouble:
        return [Finding(name, "fail", trouble.what, trouble.fix)]
    except Exception as error:
        # One check that is wrong itself must not keep the others from being told.
        return [Finding(name, "fail", f"the check itself broke: {type(error).__name__}: {error}", "please report it")]


def counts(findings: Sequence[Finding]) -> Mapping[State, int]:
    return Counter(finding.state for finding in findings)


def today() -> date:
    return datetime.now(UTC).date()
