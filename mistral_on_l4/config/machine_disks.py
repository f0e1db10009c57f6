"""Root volumes of GPU machines on OpenShift: what is declared and what is priced."""

from __future__ import annotations

# GiB by GPUs of the instance, as the source document's own cluster has them: image and weights lie there, also where the instance
# has disks of its own.
_ROOT_GIB = {1: 200}
_ROOT_GIB_OF_MORE = 500


def root_gib(gpus: int) -> int:
    return _ROOT_GIB.get(gpus, _ROOT_GIB_OF_MORE)
