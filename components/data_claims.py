"""Claims with data of the stack: they grow in place, and nothing else happens to them without leave (manifests/kept_data.py)."""

from __future__ import annotations

import pulumi
from pulumi_kubernetes.core.v1 import PersistentVolumeClaim

from components.objects import body
from mistral_on_l4.config.names import Kept
from mistral_on_l4.manifests.kept_data import Place, place_of, shrinks
from mistral_on_l4.manifests.volumes import data_claim as manifest

_SIZE = "spec.resources.requests.storage"


def data_claim(
    name: str,
    key: Kept,
    namespace: str,
    storage_class: pulumi.Input[str],
    size: str,
    recorded: Place | None,
    opts: pulumi.ResourceOptions,
) -> PersistentVolumeClaim:
    """recorded: where the last `pulumi up` left these data. A smaller volume, once it is allowed, is another one."""
    claim = manifest(key, namespace, storage_class, size)
    wanted = place_of("kubernetes:core/v1:PersistentVolumeClaim", claim)
    smaller = recorded is not None and wanted is not None and shrinks(recorded, wanted)
    another = pulumi.ResourceOptions(replace_on_changes=[_SIZE]) if smaller else None
    return PersistentVolumeClaim(name, **body(claim), opts=pulumi.ResourceOptions.merge(opts, another))
