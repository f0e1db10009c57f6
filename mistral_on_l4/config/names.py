"""Names, labels and tags that several parts of a stack must spell alike. Everything may import it; it imports nothing of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

PROJECT = "mistral-on-l4"

# Type token of the resource by which the program hands its settings and its plan over to the policies.
DECLARATION = f"{PROJECT}:policies:Declaration"

# Whose an object in a shared cluster is, and whose a thing in an account is: the stack's name is the value.
STACK_LABEL = "mistral-on-l4/stack"
STACK_TAG = f"{PROJECT}:stack"
# On a namespace that was there before the stack, which labels it and leaves it.
ADOPTED_LABEL = "mistral-on-l4/adopted"

# On claims: which data of the stack they keep, a `Kept`.
DATA_LABEL = "mistral-on-l4/data"
Kept = Literal["store", "registry"]

# Where checkpoints come from unless the configuration names another hub.
PUBLIC_HUB = "https://huggingface.co"

# The pool that a node belongs to, and that a pod asks for.
POOL_LABEL = "mistral-on-l4/pool"
# On nodes that are imitations: of the embedded cluster, and of rehearsals on it.
SIMULATED_LABEL = "mistral-on-l4/simulated"
# The device plugin's chart schedules only where this label is; up to Kubernetes 1.34 no node sets it by itself.
GPU_PRESENT_LABEL = "nvidia.com/gpu.present"
GPU_RESOURCE = "nvidia.com/gpu"
# The taint of GPU nodes has the resource's name as its key.
GPU_TAINT: Mapping[str, str] = {"key": GPU_RESOURCE, "value": "present", "effect": "NoSchedule"}
GPU_TOLERATION: Mapping[str, str] = {"key": GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"}

# Pods that may call the inference services carry this label; NetworkPolicies admit them by it.
CLIENT_LABEL = "mistral-on-l4/inference-client"

# Secrets with the object store's keys, under the same name in every namespace that needs them.
WRITER_SECRET = "weights-writer"
READER_SECRET = "weights-reader"

# How a preview begins a warning of what an `up` is refused for; the comment on a pull request repeats such lines.
UP_STOPS = "`pulumi up` will be refused: "
# Stands for a secret of the configuration where its passphrase is not at hand.
UNREADABLE_SECRET = "not-decrypted-in-this-preview"

# Set by the environment of a local stack or a rehearsal: the version of the Kubernetes provider that lies there, if it is not the
# SDK's own.
KUBERNETES_PROVIDER_VARIABLE = "MISTRAL_ON_L4_KUBERNETES_PROVIDER"
# Set by a rehearsal, which has no network: the folder of its own small charts, one folder each. Nothing else may set it.
REHEARSAL_CHARTS = "MISTRAL_ON_L4_REHEARSAL_CHARTS"
# Set by a preview without a cluster: the file with the objects that an OpenShift cluster is assumed to have. Nothing else may set
# it.
ASSUMED_CLUSTER = "MISTRAL_ON_L4_ASSUMED_CLUSTER"
