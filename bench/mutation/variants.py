"""Stacks that between them use every setting, each in two spellings that have no name, size or account in common."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mistral_on_l4.aws.account import REHEARSAL_ACCOUNT

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Variant:
    """first, second: what is set beside the spellings of every stack, keys without their namespace.

    rehearsed: with the small charts of a rehearsal.
    """

    platform: str
    first: Config = field(default_factory=dict)
    second: Config = field(default_factory=dict)
    rehearsed: bool = False

    def run(self, second: bool) -> tuple[str, dict[str, str], str, str]:
        """Name of the stack, its configuration as the engine hands it over, region, number of the account."""
        base, more = (_SECOND, self.second) if second else (_FIRST, self.first)
        values: dict[str, Any] = {**base, "platform": self.platform}
        for key, value in more.items():
            known = values.get(key)
            values[key] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
        values = {key: value for key, value in values.items() if value is not None}
        region = str(values.pop("region"))
        config = {f"mistral-on-l4:{key}": value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
        stack = "stacktwo" if second else "stackone"
        number = "210987654321" if second else "109876543210"
        return stack, {**config, "aws:region": region}, region, REHEARSAL_ACCOUNT if self.rehearsed else number


_TAKEN = {"mistral-24b-full": None, "mistral-24b-fp8": None, "mistral-24b-w4a16": None}
_FIRST: Config = {
    "region": "us-west-2",
    "namespaces": {"services": "first-services", "objectStore": "first-storage", "registry": "first-registries"},
    "pools": {
        "groups": {
            "l4-1gpu": None,
            "l4-4gpu": None,
            "firstsmall": {"instanceType": "g6.2xlarge", "count": 1},
            "firstlarge": {"instanceType": "g6.12xlarge", "count": 2},
        }
    },
    "services": {
        **_TAKEN,
        "firstwhole": {
            "variant": "bf16", "prefix": "firstfull/", "pool": "firstlarge", "tensorParallelSize": 4, "maxModelLen": 7168,
            "revision": "9527884be6e5616bdd54de542f9ae13384489724",
        },
        "firsteighth": {
            "variant": "fp8", "prefix": "firstbyte/", "pool": "firstsmall", "maxNumSeqs": 16, "kvCacheDtype": "fp8",
            "cpuOffload": "auto", "revision": "0527884be6e5616bdd54de542f9ae13384489724",
        },
    },
    "objectStore": {
        "bucket": "first-artifacts", "volumeSize": "211Gi", "volumeThroughputMibps": 511, "region": "eu-west-1",
    },
    "registry": {"name": "first-index", "volumeSize": "6Gi", "owner": "first-team"},
    "hub": {"endpoint": "https://hub.first.example"},
    "tags": {"owner": "first-owner", "expires": "2027-01-31"},
    "budget": {"maxHourlyUsd": 31},
    "network": {"cidr": "10.44.0.0/16"},
    "cluster": {"version": "1.36"},
}  # fmt: skip
_SECOND: Config = {
    "region": "us-east-1",
    "namespaces": {"services": "other-serving", "objectStore": "other-buckets", "registry": "other-indexes"},
    "pools": {
        "groups": {
            "l4-1gpu": None,
            "l4-4gpu": None,
            "othertiny": {"instanceType": "g6.4xlarge", "count": 1},
            "otherhuge": {"instanceType": "g6.24xlarge", "count": 2},
        }
    },
    "services": {
        **_TAKEN,
        "othercomplete": {
            "variant": "bf16", "prefix": "othersixteen/", "pool": "otherhuge", "tensorParallelSize": 4, "maxModelLen": 6144,
            "revision": "1627884be6e5616bdd54de542f9ae13384489724",
        },
        "otherquarter": {
            "variant": "w4a16", "prefix": "otherfour/", "pool": "othertiny", "maxNumSeqs": 8, "kvCacheDtype": "fp8",
            "revision": "2727884be6e5616bdd54de542f9ae13384489724",
        },
    },
    "objectStore": {
        "bucket": "other-weights", "volumeSize": "323Gi", "volumeThroughputMibps": 623, "region": "ap-south-1",
    },
    "registry": {"name": "other-catalog", "volumeSize": "8Gi", "owner": "other-people"},
    "hub": {"endpoint": "https://mirror.other.example"},
    "tags": {"owner": "other-person", "expires": "2027-02-28"},
    "budget": {"maxHourlyUsd": 42},
    "network": {"cidr": "10.48.0.0/16"},
    "cluster": {"version": "1.35"},
}  # fmt: skip

_PEM = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"
_EXTERNAL = (
    {"kind": "external", "endpoint": "https://s3.first.example"},
    {"kind": "external", "endpoint": "https://objects.other.example"},
)
_KEYS = (
    {"storeAccessKeyId": "FIRSTKEYID0123456789", "storeSecretAccessKey": "firstsecretaccesskey"},
    {"storeAccessKeyId": "OTHERKEYID0123456789", "storeSecretAccessKey": "othersecretaccesskey"},
)
_PROXY = (
    {"http": "http://proxy.first.example:3128", "https": "http://proxy.first.example:3128", "noProxy": ["first.internal"]},
    {"http": "http://outgate.other.example:8080", "https": "http://outgate.other.example:8080", "noProxy": ["other.internal"]},
)

_AUTHORITY = (
    {"extraCa": _PEM.format("Rmlyc3Q="), "proxy": _PROXY[0], "images": {"pullSecret": "first-pull"}, "hubToken": "first-hub-token"},
    {"extraCa": _PEM.format("T3RoZXI="), "proxy": _PROXY[1], "images": {"pullSecret": "other-pull"}, "hubToken": "other-hub-token"},
)
_OPEN = (
    {"objectStore": _EXTERNAL[0], **_KEYS[0], "access": {"auth": "none"}},
    {"objectStore": _EXTERNAL[1], **_KEYS[1], "access": {"auth": "none"}},
)
_LATER = (
    {
        "pools": {
            "start": "after-seed",
            "groups": {
                name: {**pool, "capacityType": "SPOT"} if pool else None for name, pool in _FIRST["pools"]["groups"].items()
            },
        },
        "cluster": {
            "publicAccessCidrs": ["203.0.113.7/32"],
            "adminPrincipalArns": ["arn:aws:iam::109876543210:role/first", "arn:aws:iam::109876543210:user/first"],
            "gpuReleaseVersion": "1.36.1-20260714",
        },
        "network": {"natGateways": "one-per-zone"},
        "images": {"mirror": "109876543210.dkr.ecr.us-west-2.amazonaws.com/first"},
    },
    {
        "pools": {
            "start": "after-seed",
            "groups": {
                name: {**pool, "capacityType": "SPOT"} if pool else None for name, pool in _SECOND["pools"]["groups"].items()
            },
        },
        "cluster": {
            "publicAccessCidrs": ["198.51.100.9/32"],
            "adminPrincipalArns": ["arn:aws:iam::210987654321:role/other", "arn:aws:iam::210987654321:user/other"],
            "gpuReleaseVersion": "1.35.2-20260601",
        },
        "network": {"natGateways": "one-per-zone"},
        "images": {"mirror": "210987654321.dkr.ecr.us-east-1.amazonaws.com/other"},
    },
)
_OWN_NETWORK = (
    {"network": {"existingVpcId": "vpc-109876543210", "existingSubnetIds": ["subnet-0a", "subnet-0b"]}},
    {"network": {"existingVpcId": "vpc-210987654321", "existingSubnetIds": ["subnet-1a", "subnet-1b"]}},
)
_OWN_CLUSTER = ({"cluster": {"name": "adopted-one", "existing": True}}, {"cluster": {"name": "adopted-two", "existing": True}})

# What is unlike the rest in not being set at all.
_USUAL = {"hub": None}

VARIANTS: Mapping[str, tuple[Variant, ...]] = {
    "local": (Variant("local"), Variant("local", *_AUTHORITY), Variant("local", *_OPEN)),
    "eks": (
        Variant("eks"),
        Variant("eks", *_AUTHORITY),
        Variant("eks", *_OPEN),
        Variant("eks", *_LATER),
        Variant("eks", *_OWN_NETWORK),
        Variant("eks", *_OWN_CLUSTER),
        Variant("eks", _USUAL, _USUAL, rehearsed=True),
    ),
}
