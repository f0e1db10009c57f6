"""What a pool of several instance types has to have in common: a plan is made for its first."""

from __future__ import annotations

from collections.abc import Iterator

from mistral_on_l4.config.settings import PoolSettings, Settings
from mistral_on_l4.planner.catalogue import Catalogue


def same_gpus(pool: PoolSettings, instance_type: str, catalogue: Catalogue) -> bool:
    """Whether a type has the GPUs of the pool's first one, and no less of CPU, memory and disk, so that its pods fit as well."""
    first, other = catalogue.instance(pool.instance_type), catalogue.instance(instance_type)
    return (
        (other.gpu, other.gpus) == (first.gpu, first.gpus)
        and other.vcpus >= first.vcpus
        and other.memory_gib >= first.memory_gib
        and (other.nvme_gb > 0) == (first.nvme_gb > 0)
    )


def mixtures(settings: Settings, catalogue: Catalogue) -> Iterator[str]:
    """Why a pool's further types do not go with its first, one line each. Raises CatalogueError for a type that is not known."""
    for pool in settings.pools.groups:
        for name in pool.also_instance_types:
            if not same_gpus(pool, name, catalogue):
                fit = [other for other in catalogue.instances if other != pool.instance_type and same_gpus(pool, other, catalogue)]
                yield (
                    f"pool {pool.name}: alsoInstanceTypes {name} has other GPUs, less memory or no disk where {pool.instance_type} "
                    f"has them; with it go {', '.join(fit) or 'no other types of the catalogue'}"
                )
