"""Rules for container images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pulumi_policy import Severity

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


POLICIES = (images_are_pinned, images_have_a_digest)
