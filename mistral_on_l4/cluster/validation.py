"""The validation list of the source demo, as checks of a running stack: services, GPUs, registry, chat, keys, metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import requests

from mistral_on_l4.cluster import metrics
from mistral_on_l4.cluster.chat import ChatError, ask
from mistral_on_l4.cluster.client import ApiError
from mistral_on_l4.cluster.connection import Connection
from mistral_on_l4.cluster.endpoints import Endpoint
from mistral_on_l4.cluster.registered import NoRegistry, RegistryReader, registry_of

# What an entry in the registry must say of its checkpoint: precision, where it came from, its digest and whether it fits.
FACTS = ("precision", "source_model", "weights_digest", "fits")
_QUESTION, _MAX_TOKENS = "Say hello.", 8


@dataclass(frozen=True)
class Check:
    """check: what was looked at; service: of which, None for the stack; why: what was seen, for every result."""

    check: str
    service: str | None
    result: Literal["pass", "fail", "skip"]
    why: str


def validate(connection: Connection, endpoints: Sequence[Endpoint]) -> Iterator[Check]:
    """Every check, as it ends. Raises ApiError where the cluster itself does not respond; all else is a failed check."""
    wanted = [service.name for service in connection.settings.enabled_services]
    for name in wanted:
        if name not in {endpoint.name for endpoint in endpoints}:
            yield Check("ready", name, "fail", "there is no such InferenceService: `pulumi up` makes it")
    for endpoint in endpoints:
        yield _ready(endpoint)
    for endpoint in endpoints:
        yield _gpus(endpoint)
    yield from _registered(connection, endpoints)
    for endpoint in endpoints:
        yield _chats(endpoint)
    if connection.settings.access.auth == "token":
        for endpoint in endpoints:
            yield _refuses_strangers(endpoint)
    for endpoint in endpoints:
        yield _engine_metrics(endpoint)
    yield _gpu_metrics(connection)


def _ready(endpoint: Endpoint) -> Check:
    state = endpoint.state
    restarts = f", restarted {state.restarts} times" if state.restarts else ""
    if state.ready:
        return Check("ready", state.name, "pass", f"READY True on {state.node}{restarts}")
    return Check("ready", state.name, "fail", f"{state.problem}{restarts}")


def _gpus(endpoint: Endpoint) -> Check:
    state, plan = endpoint.state, endpoint.plan
    if plan is None:
        return Check("GPU limit", state.name, "skip", "not of this stack file")
    right = state.gpus == plan.gpus
    why = f"nvidia.com/gpu: {state.gpus}" + ("" if right else f", and the stack file asks for {plan.gpus}")
    return Check("GPU limit", state.name, "pass" if right else "fail", why if state.pod else "it has no pod")


def _registered(connection: Connection, endpoints: Sequence[Endpoint]) -> Iterator[Check]:
    try:
        with registry_of(connection) as registry:
            for endpoint in endpoints:
                yield _entry(registry, endpoint)
    except NoRegistry as error:
        yield Check("registry", None, "fail", str(error))


def _entry(registry: RegistryReader, endpoint: Endpoint) -> Check:
    check = Check("registry", endpoint.name, "fail", "")
    entry = registry.version_of(endpoint.state)
    if entry is None:
        tied = endpoint.state.version_id is not None
        return replace(check, why="the registry has no entry with its ids" if tied else "it carries no ids of a registry entry")
    said = f"{entry.model} {entry.version}, {entry.facts.get('precision', 'no precision')}, {entry.uri}"
    if entry.state == "ARCHIVED":
        return replace(check, why=f"{said}: is archived")
    if absent := [name for name in FACTS if name not in entry.facts]:
        return replace(check, why=f"{said}: says nothing of {', '.join(absent)}")
    return replace(check, result="pass", why=said)


def _chats(endpoint: Endpoint) -> Check:
    try:
        answer = ask(endpoint.url, endpoint.name, _QUESTION, endpoint.key, _MAX_TOKENS)
    except ChatError as error:
        return Check("chat", endpoint.name, "fail", str(error))
    return Check("chat", endpoint.name, "pass", f"{answer.tokens} tokens, first after {answer.ttft_ms or 0:.0f} ms")


def _refuses_strangers(endpoint: Endpoint) -> Check:
    check = Check("key", endpoint.name, "pass", "401 without the key")
    if endpoint.key is None:
        return replace(
            check, result="skip", why="the platform's proxy asks for a token at the Route, which this does not go through"
        )
    try:
        status = status_without_key(endpoint.url)
    except requests.RequestException as error:
        return replace(check, result="fail", why=f"it does not answer: {type(error).__name__}")
    return check if status == 401 else replace(check, result="fail", why=f"answers {status} without the key: anybody may ask")


def status_without_key(url: str) -> int:
    """What a stranger who asks for the models is answered. Raises requests.RequestException."""
    with requests.Session() as session:
        session.trust_env = False  # no proxy stands between this machine and itself
        return session.get(f"{url}/v1/models", timeout=10).status_code


def _engine_metrics(endpoint: Endpoint) -> Check:
    check = Check("engine metrics", endpoint.name, "fail", "")
    try:
        scrape = metrics.engine_metrics(endpoint.url)
    except (requests.RequestException, ValueError) as error:
        return replace(check, why=f"/metrics: {type(error).__name__}")
    if absent := metrics.missing_samples(scrape):
        return replace(check, why=f"/metrics lacks {', '.join(absent)}")
    tokens = metrics.total(scrape, "vllm:generation_tokens_total") or 0
    return replace(check, result="pass", why=f"{tokens:.0f} tokens since it started")


def _gpu_metrics(connection: Connection) -> Check:
    check = Check("GPU metrics", None, "fail", "")
    if connection.settings.traits.embedded:
        return replace(check, result="skip", why="nodes are simulated: there is no GPU")
    try:
        scrape = metrics.gpu_metrics(connection.client)
    except (ApiError, ValueError) as error:
        return replace(check, why=f"the DCGM exporter does not answer: {error}")
    if not scrape:
        return replace(check, why="no DCGM exporter runs: `kubectl get pods -A -l app.kubernetes.io/name=dcgm-exporter`")
    if absent := [name for name in metrics.GPU_SAMPLES if name not in scrape]:
        return replace(check, why=f"the DCGM exporter lacks {', '.join(absent)}")
    cards = {(sample.labels.get("Hostname"), sample.labels.get("gpu")) for sample in scrape["DCGM_FI_DEV_GPU_UTIL"]}
    return replace(check, result="pass", why=f"{len(cards)} GPUs seen")
