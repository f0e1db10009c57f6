"""Pulumi's ResourceProvider protocol around `Provider`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from embedded.plugins import lean_sdk

lean_sdk.prepare()

from google.protobuf.empty_pb2 import Empty  # type: ignore[attr-defined]  # noqa: E402
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc  # noqa: E402

from embedded.plugins import serving  # noqa: E402
from embedded.plugins.answers import DetailedStatus, abort, type_token  # noqa: E402
from embedded.plugins.aws import service_model  # noqa: E402
from embedded.plugins.aws.provider import InitFailed, Provider, Refused  # noqa: E402
from embedded.plugins.marks import MARK, MARK_VALUE  # noqa: E402
from embedded.plugins.values import decode, encode, reveal  # noqa: E402

# The version of the official plugin whose types these are.
VERSION = "7.51.1"
_THREADS = 128


class AwsProvider(provider_pb2_grpc.ResourceProviderServicer):
    """Turns protobuf into plain values and back, and exceptions into what the engine understands."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider

    # -- the plugin ----------------------------------------------------------------------------------------------------

    def Handshake(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True)

    def Attach(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        return Empty()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        return plugin_pb2.PluginInfo(version=VERSION)

    def Cancel(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        self.provider.cancelled.set()
        return Empty()

    # -- configuration -------------------------------------------------------------------------------------------------

    def CheckConfig(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        values = decode(request.news)
        if not reveal(values.get("region")):
            reason = "no AWS region is set: `pulumi config set aws:region us-east-1`"
            return provider_pb2.CheckResponse(failures=[provider_pb2.CheckFailure(property="region", reason=reason)])
        return provider_pb2.CheckResponse(inputs=encode({**values, MARK: MARK_VALUE}))

    def DiffConfig(self, request: Any, context: Any) -> Any:
        old, new = decode(request.old_inputs), decode(request.news)
        if MARK not in old:
            abort(
                context,
                Refused("this stack was brought up with the official pulumi-aws plugin: the stand-in does not go on with it"),
            )
        changed = [key for key in ("region", "defaultTags", "profile") if reveal(old.get(key)) != reveal(new.get(key))]
        return _diff_response(changed, [key for key in changed if key == "region"])

    def Configure(self, request: Any, context: Any) -> Any:
        values = decode(request.args)
        if MARK not in values:
            abort(
                context,
                Refused("this stack was brought up with the official pulumi-aws plugin: the stand-in does not go on with it"),
            )
        self.provider.configure(str(reveal(values["region"])), default_tags(reveal(values.get("defaultTags"))))
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    def Invoke(self, request: Any, context: Any) -> Any:
        return _answer(
            context,
            lambda: provider_pb2.InvokeResponse(**{"return": encode(self.provider.invoke(request.tok, decode(request.args)))}),
        )

    # -- resources -----------------------------------------------------------------------------------------------------

    def Check(self, request: Any, context: Any) -> Any:
        def check() -> Any:
            inputs, problems = self.provider.check(type_token(request), decode(request.olds), decode(request.news))
            failures = [provider_pb2.CheckFailure(reason=problem) for problem in problems]
            return provider_pb2.CheckResponse(inputs=encode(inputs), failures=failures)

        return _answer(context, check)

    def Diff(self, request: Any, context: Any) -> Any:
        def diff() -> Any:
            state, old, new = decode(request.olds), decode(request.old_inputs), decode(request.news)
            found = self.provider.diff(type_token(request), state, old, new)
            return _diff_response(found.changed, found.replaces)

        return _answer(context, diff)

    def Create(self, request: Any, context: Any) -> Any:
        def create() -> Any:
            inputs = decode(request.properties)
            identifier, outputs = self.provider.create(type_token(request), request.urn, inputs, request.preview)
            return provider_pb2.CreateResponse(id=identifier, properties=encode(outputs))

        return _answer(context, create)

    def Read(self, request: Any, context: Any) -> Any:
        def read() -> Any:
            if not self.provider.read(request.id, decode(request.properties)):
                return provider_pb2.ReadResponse()
            return provider_pb2.ReadResponse(id=request.id, properties=request.properties, inputs=request.inputs)

        return _answer(context, read)

    def Update(self, request: Any, context: Any) -> Any:
        def update() -> Any:
            state, inputs = decode(request.olds), decode(request.news)
            outputs = self.provider.update(type_token(request), request.urn, request.id, state, inputs, request.preview)
            return provider_pb2.UpdateResponse(properties=encode(outputs))

        return _answer(context, update)

    def Delete(self, request: Any, context: Any) -> Any:
        def delete() -> Any:
            self.provider.delete(type_token(request), request.urn, request.id, decode(request.properties))
            return Empty()

        return _answer(context, delete)


def default_tags(given: Any) -> dict[str, str]:
    """Tags of the provider's input `defaultTags`; an explicit provider gives its nested inputs as JSON text."""
    value = json.loads(given) if isinstance(given, str) and given else given or {}
    return dict(value.get("tags") or {})


def _answer(context: Any, act: Callable[[], Any]) -> Any:
    try:
        return act()
    except InitFailed as failure:
        values = encode(failure.inputs)
        detail = provider_pb2.ErrorResourceInitFailed(
            id=failure.identifier, properties=values, inputs=values, reasons=[failure.reason]
        )
        context.abort_with_status(DetailedStatus(failure.reason, detail))
    except Refused as error:
        abort(context, error)


def _diff_response(changed: list[str], replaces: list[str]) -> Any:
    kinds = provider_pb2.DiffResponse
    return provider_pb2.DiffResponse(changes=kinds.DIFF_SOME if changed else kinds.DIFF_NONE, diffs=changed, replaces=replaces)


def main(arguments: list[str]) -> None:  # noqa: ARG001  (the engine's address; nothing is sent there)
    """Serves until the engine interrupts."""
    threading.Thread(target=service_model.load, name="service-models", daemon=True).start()
    servicer = AwsProvider(Provider())
    serving.serve(
        lambda server: provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server),
        servicer.provider.cancelled.set,
        _THREADS,
    )
