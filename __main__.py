"""Mistral-Small-24B on NVIDIA L4: the whole demo stack, top to bottom in the order of its graph.

GPU nodes || (object store -> weights per checkpoint) || (registry -> registration per service) -> service per plan
"""

from pulumi import ResourceOptions

from components.inference_service import InferenceService, Serving
from components.model_registry import ModelRegistry
from components.namespaces import Namespaces
from components.object_store import ObjectStore
from components.platforms import platform_for
from components.registration import Registrar, Registration
from components.stack import StackInputs
from components.weights import Weights, WeightsSeeder

stack = StackInputs()
platform = platform_for(stack)
kubernetes = platform.provider

namespaces = Namespaces("namespaces", stack.settings.namespaces, kubernetes, ResourceOptions(depends_on=[*platform.cluster_ready]))
inside = ResourceOptions(depends_on=[*namespaces.all, *platform.prepare_namespaces(namespaces.all)])

store = ObjectStore("store", stack.object_store(platform), kubernetes, inside)
seeder = WeightsSeeder("seeder", stack.seeder(platform), store, kubernetes, inside)
weights = {
    checkpoint.prefix: Weights(checkpoint.name, checkpoint.repository, checkpoint.revision, checkpoint.prefix, seeder)
    for checkpoint in stack.checkpoints()
}
seeded = [checkpoint.complete for checkpoint in weights.values()]

registry = ModelRegistry("registry", stack.registry(platform), kubernetes, inside)
registrar = Registrar("registrar", stack.registrar(platform, registry), kubernetes, inside)

serving = Serving("serving", stack.serving(platform, store), kubernetes, [*namespaces.all, *platform.serving_ready])
urls = {}
for service, plan in stack.services():
    complete = weights[service.prefix].complete
    entry = stack.registry_entry(service, plan)
    registration = Registration(service.name, service.name, entry, service.prefix, store, registrar, [complete, *registry.ready])
    spec = stack.service_spec(service, plan, registration.ids, platform)
    after = [complete, registration.complete, *platform.nodes(service.pool, seeded)]
    urls[service.name] = InferenceService(service.name, spec, serving, after).url

stack.export(platform, store, registry, urls)
