"""One recording mock engine for program tests: what was registered, with which inputs, in which order of dependence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi.runtime import mocks as pulumi_mocks
from pulumi.runtime import resource as pulumi_resource
from pulumi.runtime.proto import source_pb2

from mistral_on_l4.config.settings import SECRET_KEYS

# How Pulumi marks special values on the wire, and a secret among them.
SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"

# The end of a name that a provider draws.
DRAWN = "-0a1b2c3"

_STATE = "pulumi:pulumi:readStackResourceOutputs"


@dataclass(frozen=True)
class Registered:
    """A resource as the program declared it.

    token: of its type; inputs: unwrapped; depends_on, parent, provider, aliases: URNs, "" for the default provider; secrets:
    paths of secret inputs; error_hooks: names; read: whether it is somebody else's, which the program only looks at.
    """

    token: str
    name: str
    inputs: Mapping[str, Any]
    depends_on: tuple[str, ...] = ()
    parent: str = ""
    secrets: frozenset[str] = frozenset()
    urn: str = ""
    provider: str = ""
    aliases: tuple[str, ...] = ()
    delete_before_replace: bool = False
    error_hooks: tuple[str, ...] = ()
    protect: bool = False
    read: bool = False


@dataclass
class Engine(pulumi_mocks.Mocks):
    """Answers every registration with its inputs and an id.

    calls: what answers an invoke, by its token; outputs: what only the provider knows, by type; arguments: (token, arguments) of
    every invoke, and asked_of: the URN of the provider that it went to; recorded: outputs that the state holds of an earlier
    `pulumi up`, by URN.
    """

    calls: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = field(default_factory=dict)
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    resources: list[Registered] = field(default_factory=list)
    invoked: list[str] = field(default_factory=list)
    arguments: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    asked_of: list[str] = field(default_factory=list)
    error_hooks: dict[str, pulumi.ErrorHook] = field(default_factory=dict)
    recorded: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def new_resource(self, args: pulumi_mocks.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        state = {**args.inputs, **self.outputs.get(args.typ, {})}
        if args.typ == "pulumi:index:Stash":
            state["output"] = args.inputs.get("input")
        if args.typ.startswith("kubernetes:"):
            # What is declared without a name is given one.
            given = {"uid": f"uid-of-{args.name}", "name": f"{args.name}{DRAWN}"}
            state["metadata"] = {**given, **(state.get("metadata") or {})}
        return args.resource_id or f"{args.name}-id", state

    def call(self, args: pulumi_mocks.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        if args.token == _STATE:
            return {"outputs": {urn: {"outputs": dict(outputs)} for urn, outputs in self.recorded.items()}}, []
        self.invoked.append(args.token)
        self.arguments.append((args.token, args.args))
        self.asked_of.append((args.provider or "").rpartition("::")[0])
        if args.token not in self.calls:
            raise AssertionError(f"the program asked for {args.token}, which this test does not answer")
        return dict(self.calls[args.token](args.args)), []

    def of(self, token: str) -> list[Registered]:
        """Everything of a type, by token or by its last part (`Job`, `InferenceService`); components only by their whole token."""
        if ":" in token:
            return [found for found in self.resources if found.token == token]
        objects = [found for found in self.resources if not found.token.startswith("mistral-on-l4:")]
        return [found for found in objects if found.token.rpartition(":")[2] == token]

    def named(self, kind: str, name: str) -> Registered:
        """The Kubernetes object of a kind with this metadata.name."""
        for found in self.of(kind):
            if (found.inputs.get("metadata") or {}).get("name") == name:
                return found
        known = [(found.inputs.get("metadata") or {}).get("name") for found in self.of(kind)]
        raise AssertionError(f"no {kind} named {name}; there are {known}")


class _Monitor(pulumi_mocks.MockMonitor):
    """The SDK's mock monitor, which also keeps what it is told of dependencies and parents."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._engine = engine

    def ReadResource(self, request: Any) -> Any:
        answer = super().ReadResource(request)  # type: ignore[no-untyped-call]
        self._keep(request, request.type, request.properties, answer.urn, read=True)
        return answer

    def RegisterResource(self, request: Any) -> Any:
        answer = super().RegisterResource(request)  # type: ignore[no-untyped-call]
        self._keep(request, request.type, request.object, answer.urn)
        return answer

    def _keep(self, request: Any, token: str, properties: Any, urn: str, read: bool = False) -> None:
        if token == "pulumi:pulumi:Stack":
            return  # registered whenever the SDK's loop first gets to it
        inputs = pulumi.runtime.rpc.deserialize_properties(properties)
        secrets: set[str] = set()
        plain = _unwrapped(inputs, "", secrets)
        self._engine.resources.append(
            Registered(
                token,
                request.name,
                plain,
                tuple(request.dependencies),
                request.parent,
                frozenset(secrets),
                urn,
                request.provider.rpartition("::")[0],
                tuple(alias.urn for alias in getattr(request, "aliases", ())),
                getattr(request, "deleteBeforeReplace", False),
                tuple(request.hooks.on_error) if hasattr(request, "hooks") else (),
                getattr(request, "protect", False),
                read,
            )
        )


def _unwrapped(value: Any, path: str, secrets: set[str]) -> Any:
    """The plain value; paths of what was a secret on the wire are collected, such as `stringData` or `spec.env[0].value`."""
    if isinstance(value, dict):
        if value.get(SIGNATURE) == SECRET:
            secrets.add(path)
            return _unwrapped(value["value"], path, secrets)
        return {key: _unwrapped(item, f"{path}.{key}".lstrip("."), secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [_unwrapped(item, f"{path}[{index}]", secrets) for index, item in enumerate(value)]
    return value


class _Callbacks:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def register_error_hook(self, hook: pulumi.ErrorHook) -> None:
        self._engine.error_hooks[hook.name] = hook


def run(
    program: Callable[[], None],
    engine: Engine,
    stack: str = "local",
    config: Mapping[str, str] | None = None,
    preview: bool = False,
    in_clear: Collection[str] = (),
) -> Engine:
    """Runs a program against the engine until nothing is left to register, and returns the engine.

    in_clear: those of the project's secrets that Pulumi does not keep encrypted.
    """
    whole = {key if ":" in key else f"mistral-on-l4:{key}": value for key, value in (config or {}).items()}
    secret = [f"mistral-on-l4:{key}" for key in SECRET_KEYS if key not in in_clear]
    pulumi.runtime.set_all_config(whole, secret)

    asyncio.set_event_loop(asyncio.new_event_loop())
    pulumi.runtime.set_mocks(engine, project="mistral-on-l4", stack=stack, preview=preview, monitor=_Monitor(engine))
    # The SDK's mocks have nowhere to register hooks; the engine keeps them, to be called by a test.
    pulumi.runtime.settings.SETTINGS.callbacks = _Callbacks(engine)
    # Where in the program a resource was declared: nothing here reads it, and it was a fifth of each run.
    pulumi_resource._get_stack_trace = source_pb2.StackTrace

    @pulumi.runtime.test  # type: ignore[untyped-decorator]
    def body() -> None:
        program()

    body()
    return engine
