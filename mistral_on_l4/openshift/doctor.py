"""An OpenShift cluster, looked at before a stack comes to it: what would be refused, what is adopted, what its nodes will need."""

from __future__ import annotations

from collections.abc import Iterator

from mistral_on_l4.cluster.client import ApiError
from mistral_on_l4.manifests.openshift.machine_sets import gpus_of
from mistral_on_l4.openshift.reading import all_of, found
from mistral_on_l4.openshift.refusals import Finding, inspect
from mistral_on_l4.openshift.site import Site
from mistral_on_l4.planner.catalogue import Catalogue

# Pulls what Red Hat publishes, on every node of the cluster.
PULL_SECRET, PULL_SECRET_NAMESPACE = "pull-secret", "openshift-config"


def examine(site: Site, catalogue: Catalogue) -> list[Finding]:
    """Every check of the program, and what only a person can act on."""
    engine = catalogue.engine(catalogue.engine_of(site.settings.traits.engine_images))
    findings = inspect(site, engine)
    if any(finding.check in ("cluster", "cloud") and finding.state == "fail" for finding in findings):
        return findings
    for name, check in (("gpu nodes", _gpu_nodes), ("pull secret", _pull_secret)):
        try:
            findings += check(site, catalogue)
        except ApiError as error:
            findings.append(Finding(name, "warn", f"cannot be looked at: {error}"))
    return findings


def _gpu_nodes(site: Site, catalogue: Catalogue) -> Iterator[Finding]:
    pools = site.settings.pools.groups
    vcpus = sum(pool.count * catalogue.instance(pool.instance_type).vcpus for pool in pools)
    there = [node for node in all_of(site.reader, "v1", "Node") if gpus_of(node)]
    total = sum(gpus_of(node) for node in there)
    yield Finding("gpu nodes", "ok", f"{len(there)} nodes offer {total} GPU now; the stack's own pools come beside them")
    yield Finding(
        "quota",
        "warn",
        f"the pools need {vcpus} vCPU of 'Running On-Demand G and VT instances' (L-DB2E81BA), which the cluster does not tell",
        f"look with `aws service-quotas get-service-quota --service-code ec2 --quota-code L-DB2E81BA --region {site.region}`",
    )


def _pull_secret(site: Site, _: Catalogue) -> Iterator[Finding]:
    named = site.settings.images.pull_secret
    if found(site.reader, "v1", "Secret", PULL_SECRET, PULL_SECRET_NAMESPACE) is not None:
        yield Finding("pull secret", "ok", "the cluster has one for registry.redhat.io")
    elif not named:
        yield Finding(
            "pull secret",
            "warn",
            f"Secret {PULL_SECRET_NAMESPACE}/{PULL_SECRET} is not there, or not yours to read: the engine's image is Red Hat's",
            "name one in mistral-on-l4:images.pullSecret, in every namespace of the stack",
        )
    spaces = site.settings.namespaces
    for space in (spaces.services, spaces.object_store, spaces.registry) if named else ():
        if site.namespace(space) is not None and found(site.reader, "v1", "Secret", str(named), space) is None:
            yield Finding("pull secret", "fail", f"namespace {space} has no Secret {named}", "make it there")
