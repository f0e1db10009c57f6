"""Names and API versions of OpenShift and OpenShift AI that objects, commands and rehearsals spell alike."""

from __future__ import annotations

MACHINE_API = "machine.openshift.io/v1beta1"
MACHINE_NAMESPACE = "openshift-machine-api"
CONFIG_API = "config.openshift.io/v1"
ROUTE_API = "route.openshift.io/v1"
SUBSCRIPTION_API = "operators.coreos.com/v1alpha1"
OPERATOR_GROUP_API = "operators.coreos.com/v1"
NFD_API = "nfd.openshift.io/v1"
GPU_API = "nvidia.com/v1"
DATA_SCIENCE_CLUSTER_API = "datasciencecluster.opendatahub.io/v2"
HARDWARE_PROFILE_API = "infrastructure.opendatahub.io/v1"
MODEL_REGISTRY_API = "modelregistry.opendatahub.io/v1beta1"

# Of OpenShift AI: its own workloads and profiles lie here.
APPLICATIONS_NAMESPACE = "redhat-ods-applications"
DATA_SCIENCE_CLUSTER = "default-dsc"

# From this range OpenShift gives the pods of a namespace their user; without it no pod of it is admitted.
UID_RANGE_ANNOTATION = "openshift.io/sa.scc.uid-range"
# On namespaces whose workloads Kueue queues, in both spellings.
KUEUE_LABELS = ("kueue.openshift.io/managed", "kueue-managed")
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
DEFAULT_CLASS_ANNOTATION = "storageclass.kubernetes.io/is-default-class"

# OpenShift AI's labels and annotations of an InferenceService.
EXPOSED_LABEL = "networking.kserve.io/visibility"
AUTH_ANNOTATION = "security.opendatahub.io/enable-auth"
ROUTE_TIMEOUT_ANNOTATION = "haproxy.router.openshift.io/timeout"
PROFILE_ANNOTATION = "opendatahub.io/hardware-profile-name"
PROFILE_NAMESPACE_ANNOTATION = "opendatahub.io/hardware-profile-namespace"
CONNECTIONS_ANNOTATION = "opendatahub.io/connections"
