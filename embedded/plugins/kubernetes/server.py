"""Pulumi's ResourceProvider protocol around `Provider`: one process per operation of the CLI and provider resource."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from embedded.plugins import lean_sdk

lean_sdk.prepare()

import grpc  # noqa: E402
from google.protobuf.empty_pb2 import Empty  # type: ignore[attr-defined]  # noqa: E402
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc  # noqa: E402

from embedded.plugins import serving  # noqa: E402
from embedded.plugins.answers import DetailedStatus, abort, type_token  # noqa: E402
from embedded.plugins.kubernetes import configuration, objects, releases  # noqa: E402
from embedded.plugins.kubernetes.configuration import BadConfiguration  # noqa: E402
from embedded.plugins.kubernetes.differences import compare  # noqa: E402
from embedded.plugins.kubernetes.objects import Unsupported  # noqa: E402
from embedded.plugins.kubernetes.provider import InitFailed, Provider, Refused  # noqa: E402
from embedded.plugins.kubernetes.waiting import Reporter  # noqa: E402
from embedded.plugins.marks import MARK, MARK_VALUE  # noqa: E402
from embedded.plugins.values import Secret, decode, encode, reveal  # noqa: E402
from mistral_on_l4.cluster.client import ApiError  # noqa: E402

# The version of the official plugin whose behaviour this one has.
VERSION = "4.34.2"
# More waits at once than any program of ours has resources.
_THREADS = 512

_ANOTHER = (
    "this stack was brought up with the official pulumi-kubernetes plugin, and the stand-in does not go on with it: "
    "use the official plugin, or destroy the stack first"
)


class KubernetesProvider(provider_pb2_grpc.ResourceProviderServicer):
    """Turns protobuf into plain values and back, and exceptions into what the engine understands."""

    def __init__(self, engine_address: str) -> None:
        self._engine = Engine(engine_address)
        self.provider = Provider()

    # -- the plugin ----------------------------------------------------------------------------------------------------

    def Handshake(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        self._engine.address = request.engine_address or self._engine.address
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True, supports_autonaming_configuration=True)

    def Attach(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        self._engine.address = request.address
        return Empty()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        return plugin_pb2.PluginInfo(version=VERSION)

    def Cancel(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        self.provider.cancelled.set()
        return Empty()

    def Parameterize(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        abort(context, Unsupported("a parameterized package"))

    def Invoke(self, request: Any, context: Any) -> Any:
        abort(context, Unsupported(f"the function {request.tok}"))

    def Call(self, request: Any, context: Any) -> Any:
        abort(context, Unsupported(f"the method {request.tok}"))

    def Construct(self, request: Any, context: Any) -> Any:
        abort(context, Unsupported(f"the component {request.type}"))

    # -- configuration -------------------------------------------------------------------------------------------------

    def CheckConfig(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        values = decode(request.news)
        try:
            configuration.read(values)
        except Unsupported as error:
            return provider_pb2.CheckResponse(failures=[provider_pb2.CheckFailure(reason=str(error))])
        return provider_pb2.CheckResponse(inputs=encode({**values, MARK: MARK_VALUE}))

    def DiffConfig(self, request: Any, context: Any) -> Any:
        old, new = decode(request.old_inputs), decode(request.news)
        if MARK not in old:
            abort(context, Refused(_ANOTHER))
        changes = compare(old, new, self.provider.configuration.mutability)
        identifiers = [reveal(values.get("clusterIdentifier")) for values in (old, new)]
        if any(identifiers):
            replaces = ["clusterIdentifier"] if identifiers[0] != identifiers[1] else []
        else:
            servers = configuration.server_of(old), configuration.server_of(new)
            # An unknown kubeconfig may be another cluster's: pulumi-kubernetes plans a replacement, too.
            replaces = ["kubeconfig"] if servers[0] != servers[1] else []
        return _diff_response([change.text for change in changes], replaces)

    def Configure(self, request: Any, context: Any) -> Any:
        values = decode(request.args)
        if MARK not in values:
            abort(context, Refused(_ANOTHER))
        try:
            self.provider.configure(configuration.read(values))
        except (BadConfiguration, Unsupported) as error:
            abort(context, error)
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True, supports_autonaming_configuration=True)

    # -- resources -----------------------------------------------------------------------------------------------------

    def Check(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        def check() -> Any:
            old, new = decode(request.olds), decode(request.news)
            kind = objects.kind_of(type_token(request), new)
            if kind.release:
                failures = [provider_pb2.CheckFailure(reason=problem) for problem in releases.check(new)]
                return provider_pb2.CheckResponse(inputs=encode(new), failures=failures)
            proposed = None
            if request.HasField("autonaming"):
                modes = provider_pb2.CheckRequest.AutonamingOptions
                proposed = request.autonaming.proposed_name or None
                if request.autonaming.mode == modes.DISABLE and not (reveal(new.get("metadata")) or {}).get("name"):
                    raise Refused("metadata.name must be given: this project's configuration turns auto-naming off")
            inputs = self.provider.check(kind, request.name or _name(request.urn), old, new, request.randomSeed, proposed)
            if kind.kind == "Secret" and kind.api_version == "v1":
                for key in ("data", "stringData"):
                    if key in inputs and not isinstance(inputs[key], Secret):
                        inputs[key] = Secret(inputs[key])
            return provider_pb2.CheckResponse(inputs=_changed_struct(request.news, new, inputs))

        try:
            return check()
        except (Refused, Unsupported, ValueError) as error:
            return provider_pb2.CheckResponse(failures=[provider_pb2.CheckFailure(reason=str(error))])

    def Diff(self, request: Any, context: Any) -> Any:
        if request.old_inputs == request.news and _goes_on(request):
            # Nearly every resource of nearly every preview; the rest of the work would be taking it apart.
            return _diff_response([], [])

        def diff() -> Any:
            state, old, new = decode(request.olds), decode(request.old_inputs), decode(request.news)
            if type_token(request) == releases.TOKEN:
                changed = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
                return _diff_response(changed, [key for key in changed if key in ("name", "namespace", "chart")])
            found = self.provider.diff(objects.kind_of(type_token(request), new), state, old, new)
            response = _diff_response(
                [change.text for change in found.changes],
                [change.text for change in found.changes if change.replaces],
            )
            response.deleteBeforeReplace = found.delete_first and bool(response.replaces)
            response.hasDetailedDiff = True
            for change in found.changes:
                kind = provider_pb2.PropertyDiff.Kind.Value(change.kind + ("_REPLACE" if change.replaces else ""))
                response.detailedDiff[change.text].CopyFrom(provider_pb2.PropertyDiff(kind=kind, inputDiff=True))
            return response

        return _answer(context, diff)

    def Create(self, request: Any, context: Any) -> Any:
        def create() -> Any:
            inputs = decode(request.properties)
            kind = objects.kind_of(type_token(request), inputs)
            if kind.release:
                client = self.provider.client if self.provider.configuration.known else None
                identifier, outputs = releases.create(client, inputs, request.preview)
                return provider_pb2.CreateResponse(id=identifier, properties=encode({**outputs, MARK: MARK_VALUE}))
            reporter = self._reporter(request.urn)
            identifier, outputs = self.provider.create(kind, inputs, request.timeout, request.preview, reporter)
            return provider_pb2.CreateResponse(id=identifier, properties=encode(outputs))

        return _answer(context, create)

    def Read(self, request: Any, context: Any) -> Any:
        def read() -> Any:
            state, inputs = decode(request.properties), decode(request.inputs)
            kind = objects.kind_of(type_token(request), inputs or state)
            if kind.release:
                if not releases.exists(self.provider.client, request.id):
                    return provider_pb2.ReadResponse()
                return provider_pb2.ReadResponse(id=request.id, properties=request.properties, inputs=request.inputs)
            found = self.provider.read(kind, request.id, state, inputs)
            if found is None:
                return provider_pb2.ReadResponse()
            identifier, outputs, inputs = found
            return provider_pb2.ReadResponse(id=identifier, properties=encode(outputs), inputs=encode(inputs))

        return _answer(context, read)

    def Update(self, request: Any, context: Any) -> Any:
        def update() -> Any:
            state, inputs = decode(request.olds), decode(request.news)
            if type_token(request) == releases.TOKEN:
                outputs = releases.update(self.provider.client, request.id, inputs, request.preview)
                return provider_pb2.UpdateResponse(properties=encode({**outputs, MARK: MARK_VALUE}))
            reporter = self._reporter(request.urn)
            outputs = self.provider.update(request.id, state, inputs, request.timeout, request.preview, reporter)
            return provider_pb2.UpdateResponse(properties=encode(outputs))

        return _answer(context, update)

    def Delete(self, request: Any, context: Any) -> Any:
        def delete() -> Any:
            state, inputs = decode(request.properties), decode(request.old_inputs)
            kind = objects.kind_of(type_token(request), inputs or state)
            if kind.release:
                releases.delete(self.provider.client, request.id, inputs or state)
                return Empty()
            self.provider.delete(kind, request.id, state, inputs, request.timeout, self._reporter(request.urn))
            return Empty()

        return _answer(context, delete)

    def _reporter(self, urn: str) -> Reporter:
        return Reporter(lambda text: self._engine.log(urn, text, "INFO", True), lambda text: self._engine.log(urn, text, "WARNING"))


class Engine:
    """The engine's side channel for messages about a resource."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._stub: Any = None

    def log(self, urn: str, text: str, severity: str, ephemeral: bool = False) -> None:
        """Shows a line with a resource; an ephemeral one only as its status. A lost line is no reason to fail."""
        from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc

        if self._stub is None:
            open_channel: Any = grpc.insecure_channel
            channel = open_channel(self.address, options=serving.OPTIONS)
            self._stub = engine_pb2_grpc.EngineStub(channel)
        request = engine_pb2.LogRequest(severity=engine_pb2.LogSeverity.Value(severity), message=text, urn=urn, ephemeral=ephemeral)
        try:
            self._stub.Log(request, timeout=5.0)
        except grpc.RpcError:
            return


def _answer(context: Any, act: Callable[[], Any]) -> Any:
    try:
        return act()
    except InitFailed as failure:
        detail = provider_pb2.ErrorResourceInitFailed(
            id=failure.identifier,
            properties=encode(failure.outputs),
            inputs=encode(failure.inputs),
            reasons=[failure.reason],
        )
        context.abort_with_status(DetailedStatus(f"resource {failure.identifier} was created but did not become ready", detail))
    except (Refused, Unsupported, ApiError, ValueError, releases.ReleaseFailed) as error:
        abort(context, error)


def _diff_response(changed: list[str], replaces: list[str]) -> Any:
    kinds = provider_pb2.DiffResponse
    return provider_pb2.DiffResponse(
        changes=kinds.DIFF_SOME if changed or replaces else kinds.DIFF_NONE, diffs=changed, replaces=replaces
    )


def _changed_struct(struct: Any, before: dict[str, Any], after: dict[str, Any]) -> Any:
    """`after` as a Struct, made from that of `before` by the properties that are other objects now."""
    changed = {key: value for key, value in after.items() if value is not before.get(key)}
    answer = encode(changed)
    for key in before.keys() & after.keys() - changed.keys():
        answer.fields[key].CopyFrom(struct.fields[key])
    return answer


def _goes_on(request: Any) -> bool:
    """Whether equal inputs are the whole answer: the state is ours, and no failed Job asks to be made anew."""
    return MARK in request.olds.fields and not type_token(request).endswith(":Job")


def _name(urn: str) -> str:
    return urn.split("::", 3)[3]


def main(arguments: list[str]) -> None:
    """Serves until the engine interrupts."""
    servicer = KubernetesProvider(serving.engine_address(arguments))
    serving.serve(
        lambda server: provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server),
        servicer.provider.cancelled.set,
        _THREADS,
    )
