"""Rules for container images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pulumi_policy import Severity

from mistral_on_l4.planner.catalogue import Catalogue, load_catalogue
from policies.pods import pod_of
from policies.reading import at, items
from policies.rule import ADVISORY, Resource, Stack, StackFinding, resource_rule, stack_rule

# Tags that are moved by their publishers. A tag counts as one of them also with a suffix, such as latest-cuda.
_MOVING = re.compile(r"^(latest|main|master|edge|nightly|stable|dev|devel|head|rolling)\b", re.IGNORECASE)


def images_of(resource: Resource) -> Iterator[tuple[str, str]]:
    """(container, image reference) of everything that an object runs, Helm charts' objects included."""
    pod = pod_of(resource)
    if pod is None:
        return
    for container in pod.containers:
        image: Any = at(container.spec, "image")
        if isinstance(image, str):
            yield container.name, image
    for volume in items(pod.spec, "volumes"):
        reference = at(volume, "image", "reference")
        if isinstance(reference, str):
            yield f"volume {at(volume, 'name')}", reference


@resource_rule(
    "images-are-pinned",
    why="A moving tag makes two updates of the same commit run different programs, and nobody reviews the second one.",
    fix="name a release tag, better with its digest (mistral_on_l4/config/images.py), and an exact chart version",
    severity=Severity.HIGH,
)
def images_are_pinned(resource: Resource) -> Iterator[str]:
    if resource.kind in ("Chart", "Release") and "kubernetes:helm.sh/" in resource.token:
        version = at(resource.props, "version")
        if version is None or (isinstance(version, str) and not re.fullmatch(r"v?\d+\.\d+\.\d+([-+][0-9A-Za-z.-]+)?", version)):
            yield f"{resource.label}: chart {at(resource.props, 'chart')} is not pinned to one version"
    for container, image in images_of(resource):
        name, _, digest = image.partition("@")
        tag = name.rpartition("/")[2].partition(":")[2]
        if digest:
            if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
                yield f"{resource.label}: image of {container} has a digest that is none: {image}"
        elif not tag:
            yield f"{resource.label}: image of {container} has no tag, which means latest: {image}"
        elif _MOVING.match(tag):
            yield f"{resource.label}: image of {container} has the moving tag {tag}: {image}"


@stack_rule(
    "images-have-a-digest",
    why="A release tag can still be pushed again; a digest cannot.",
    fix="add @sha256:... to the reference in mistral_on_l4/config/images.py or mistral-on-l4:images.overrides",
    severity=Severity.LOW,
    level=ADVISORY,
)
def images_have_a_digest(stack: Stack) -> Iterator[StackFinding]:
    # One finding for each image, however many pods run it.
    first: dict[str, str] = {}
    for resource in stack.resources:
        for _, image in images_of(resource):
            if "@sha256:" not in image:
                first.setdefault(image, resource.urn)
    for image, urn in first.items():
        yield f"{image} is pinned by tag only", urn


@stack_rule(
    "engine-has-no-known-advisories",
    why="A published fault of the engine is open to everyone who may send it a request.",
    fix="serve a version with the fixes (mistral-on-l4:images.overrides.engine), or let trusted clients in only",
    severity=Severity.MEDIUM,
    level=ADVISORY,
)
def engine_has_no_known_advisories(stack: Stack) -> Iterator[StackFinding]:
    catalogue = load_catalogue()
    first: dict[str, str] = {}
    for resource in stack.resources:
        for _, image in images_of(resource):
            first.setdefault(image, resource.urn)
    for image, urn in first.items():
        version = _engine_version(image, catalogue)
        known = {advisory.id: advisory.fixed_in for engine in catalogue.engines.values() for advisory in engine.advisories}
        if version and (lacking := [f"{name} (fixed in {fix})" for name, fix in known.items() if _order(fix) > _order(version)]):
            yield f"{image} is vLLM {version}, which lacks fixes of {', '.join(lacking)}", urn


def _engine_version(image: str, catalogue: Catalogue) -> str | None:
    """vLLM's version in an image: of the catalogue's own images, and by the tag of upstream's; None for others."""
    for engine in catalogue.engines.values():
        if any(image.endswith(known.reference.partition("/")[2]) for known in engine.images.values()):
            return engine.version
    found = re.search(r"/vllm-openai:v(\d+\.\d+\.\d+)", image)
    return found[1] if found else None


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


POLICIES = (images_are_pinned, images_have_a_digest, engine_has_no_known_advisories)
