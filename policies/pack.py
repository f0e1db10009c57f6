"""All policies of the pack, in the order in which a person meets their subjects."""

from __future__ import annotations

from collections.abc import Iterator

from pulumi_policy import Policy

from policies import (
    answering,
    aws,
    confidential,
    conformity,
    consistency,
    exposure,
    images,
    openshift,
    serving,
    stackfile,
    workloads,
)

NAME = "mistral-on-l4"

POLICIES: tuple[Policy, ...] = (
    *serving.POLICIES,
    *consistency.POLICIES,
    *answering.POLICIES,
    *workloads.POLICIES,
    *images.POLICIES,
    *confidential.POLICIES,
    *exposure.POLICIES,
    *aws.POLICIES,
    *openshift.POLICIES,
    *stackfile.POLICIES,
    *conformity.POLICIES,
)


def names() -> Iterator[str]:
    return (policy.name for policy in POLICIES)
