"""Mistral-Small-24B on NVIDIA L4: the whole demo stack, top to bottom in the order of its graph.

GPU nodes || (object store -> weights per checkpoint) || (registry -> registration per service) -> service per plan
"""

from pulumi import ResourceOptions

from components.exposure import Exposure
from components.inference_service import InferenceService, InferenceServiceArgs, Serving
from components.model_registry import ModelRegistry
from components.namespaces import Namespaces
from components.object_store import ObjectStore
from components.platforms import platform_for
from components.registration import Registrar, Registration, RegistrationArgs
from components.stack import StackInputs
from components.weights import Weights, WeightsArgs, WeightsSeeder

stack = StackInputs()
platform = platform_for(stack)
cluster = platform.provider

namespaces = Namespaces(
    "namespaces", stack.namespaces(platform), ResourceOptions(provider=cluster, depends_on=[*platform.cluster_ready])
)
prepared = [*namespaces.all, *platform.prepare_namespaces(namespaces.all)]
in_namespaces = ResourceOptions(provider=cluster, depends_on=prepared)

store = ObjectStore("store", stack.object_store(platform), in_namespaces)
seeder = WeightsSeeder("seeder", stack.seeder(platform, store), in_namespaces)
weights = {
    checkpoint.prefix: Weights(
        checkpoint.name,
        WeightsArgs(checkpoint.repository, checkpoint.revision, checkpoint.prefix, seeder),
        ResourceOptions(provider=cluster),
    )
    for checkpoint in stack.checkpoints()
}
seeded = [checkpoint.complete for checkpoint in weights.values()]

registry = ModelRegistry("registry", stack.registry(platform), in_namespaces)
registrar = Registrar("registrar", stack.registrar(platform, store, registry), in_namespaces)

serving = Serving(
    "serving",
    stack.serving(platform, store),
    ResourceOptions(provider=cluster, depends_on=[*namespaces.all, *platform.serving_ready]),
)
served = {}
for service, plan in stack.services():
    complete = weights[service.prefix].complete
    registration = Registration(
        service.name,
        RegistrationArgs(service.name, stack.registry_entry(service, plan), service.prefix, registrar),
        ResourceOptions(provider=cluster, depends_on=[complete]),
    )
    spec = stack.service_spec(service, plan, registration.ids, platform)
    after = [complete, registration.complete, *platform.nodes(service.pool, seeded)]
    served[service.name] = InferenceService(
        service.name, InferenceServiceArgs(spec, serving), ResourceOptions(provider=cluster, depends_on=after)
    )

exposed = {name: Exposure(name, exposure, ResourceOptions(provider=cluster)) for name, exposure in stack.exposures(served).items()}
stack.export(platform, store, registry, served, exposed)
