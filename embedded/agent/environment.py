"""What a container finds in its environment: values, references and the Services of its namespace, as kubelet resolves them."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from embedded.agent import quantities
from mistral_on_l4.cluster.client import Object

_KEYED_FIELD = re.compile(r"^metadata\.(labels|annotations)\['(.+)'\]$")
_NAME = re.compile(r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")


class ConfigProblem(Exception):
    """A reference that cannot be resolved, in kubelet's words: the container waits with CreateContainerConfigError."""


# (kind, name) -> the object of the pod's namespace, None if there is none.
Lookup = Callable[[str, str], Object | None]


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replaces $(NAME); $$ is a dollar sign; names without a value stay as they are written."""
    out: list[str] = []
    position = 0
    while position < len(text):
        if text[position] != "$" or position + 1 == len(text):
            out.append(text[position])
            position += 1
        elif text[position + 1] == "$":
            out.append("$")
            position += 2
        elif text[position + 1] == "(" and (end := text.find(")", position)) > 0:
            name = text[position + 2 : end]
            out.append(values.get(name, text[position : end + 1]))
            position = end + 1
        else:
            out.append(text[position : position + 2])
            position += 2
    return "".join(out)


def resolve(
    container: Mapping[str, Any], pod: Object, lookup: Lookup, services: Mapping[str, str], node: Object | None = None
) -> dict[str, str]:
    """envFrom, then env in order with $(NAME) of what came before, then Services for names that are still free.

    `pod` must carry status.podIP and status.hostIP. Raises ConfigProblem.
    """
    values: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        values |= _all_of(source, lookup)
    for entry in container.get("env") or []:
        name = entry["name"]
        if "valueFrom" in entry:
            value = _reference(entry["valueFrom"], container, pod, lookup, node)
            if value is not None:
                values[name] = value
        else:
            values[name] = expand(entry.get("value") or "", {**services, **values})
    return {**services, **values}


def _all_of(source: Mapping[str, Any], lookup: Lookup) -> dict[str, str]:
    kind = "ConfigMap" if "configMapRef" in source else "Secret"
    reference = source.get("configMapRef") or source.get("secretRef") or {}
    obj = lookup(kind, reference.get("name", ""))
    if obj is None:
        if reference.get("optional"):
            return {}
        raise ConfigProblem(f'{kind.lower()} "{reference.get("name", "")}" not found')
    prefix = source.get("prefix") or ""
    data = text_data(obj)
    return {prefix + key: value for key, value in data.items() if _NAME.match(prefix + key)}


def text_data(obj: Object) -> dict[str, str]:
    """The data of a ConfigMap or Secret as text."""
    data = obj.get("data") or {}
    if obj.get("kind") == "Secret":
        return {key: base64.b64decode(value).decode(errors="replace") for key, value in data.items()}
    return dict(data)


def _reference(
    source: Mapping[str, Any], container: Mapping[str, Any], pod: Object, lookup: Lookup, node: Object | None
) -> str | None:
    for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
        if (reference := source.get(field)) is None:
            continue
        name, key, optional = reference.get("name", ""), reference["key"], bool(reference.get("optional"))
        obj = lookup(kind, name)
        if obj is None:
            if optional:
                return None
            raise ConfigProblem(f'{kind.lower()} "{name}" not found')
        data = text_data(obj)
        if key not in data:
            if optional:
                return None
            raise ConfigProblem(f"couldn't find key {key} in {kind} {pod['metadata']['namespace']}/{name}")
        return data[key]
    if (reference := source.get("fieldRef")) is not None:
        return field_value(pod, reference["fieldPath"])
    if (reference := source.get("resourceFieldRef")) is not None:
        return resource_value(reference, container, pod, node)
    raise ConfigProblem(f"a value from {', '.join(sorted(source))} is not supported by the local node agent")


def field_value(pod: Object, path: str) -> str:
    """What the downward API says for a field path. Raises ConfigProblem for one it does not know."""
    metadata, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    if keyed := _KEYED_FIELD.match(path):
        return str((metadata.get(keyed[1]) or {}).get(keyed[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        items = sorted((metadata.get(path.removeprefix("metadata.")) or {}).items())
        return "\n".join(f"{key}={_quoted(value)}" for key, value in items)
    simple: dict[str, Any] = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata.get("namespace", ""),
        "metadata.uid": metadata.get("uid", ""),
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": status.get("podIP", ""),
        "status.podIPs": status.get("podIP", ""),
        "status.hostIP": status.get("hostIP", ""),
        "status.hostIPs": status.get("hostIP", ""),
    }
    if path not in simple:
        raise ConfigProblem(f"unsupported fieldPath: {path}")
    return str(simple[path])


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def resource_value(reference: Mapping[str, Any], container: Mapping[str, Any], pod: Object, node: Object | None) -> str:
    """A container's request or limit in divisors, rounded up; a missing limit is the node's allocatable amount."""
    if (name := reference.get("containerName")) and name != container.get("name"):
        every = [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]
        container = next((each for each in every if each["name"] == name), container)
    which, _, resource = reference["resource"].partition(".")
    resources = container.get("resources") or {}
    amount = (resources.get(which) or {}).get(resource)
    if amount is None and which == "limits" and node is not None:
        amount = (node.get("status", {}).get("allocatable") or {}).get(resource)
    divisor = reference.get("divisor") or "1"
    return str(quantities.in_units(amount or 0, "1" if divisor == "0" else divisor))


def service_variables(services: Iterable[Object], namespace: str, links: bool) -> dict[str, str]:
    """NAME_SERVICE_HOST and the older forms for the Services of a namespace; the API server's own always."""
    values: dict[str, str] = {}
    for service in services:
        metadata, spec = service["metadata"], service["spec"]
        address = spec.get("clusterIP")
        if not address or address == "None":
            continue
        api_server = metadata["namespace"] == "default" and metadata["name"] == "kubernetes"
        if not api_server and not (links and metadata["namespace"] == namespace):
            continue
        prefix = metadata["name"].upper().replace("-", "_")
        ports = spec.get("ports") or []
        if not ports:
            continue
        values[f"{prefix}_SERVICE_HOST"] = address
        values[f"{prefix}_SERVICE_PORT"] = str(ports[0]["port"])
        values[f"{prefix}_PORT"] = f"{ports[0].get('protocol', 'TCP').lower()}://{address}:{ports[0]['port']}"
        for port in ports:
            protocol = port.get("protocol", "TCP")
            if port.get("name"):
                values[f"{prefix}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = str(port["port"])
            link = f"{prefix}_PORT_{port['port']}_{protocol}"
            values[link] = f"{protocol.lower()}://{address}:{port['port']}"
            values[f"{link}_PROTO"] = protocol.lower()
            values[f"{link}_PORT"] = str(port["port"])
            values[f"{link}_ADDR"] = address
    return values
