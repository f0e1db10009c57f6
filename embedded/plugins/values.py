"""Property values between the engine's protobuf form and plain Python, with what Pulumi adds to JSON: secret and unknown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.struct_pb2 import Struct  # type: ignore[attr-defined]

# The engine's signatures (sdk/go/common/resource/sig and plugin/rpc.go of Pulumi 3.259).
_SIGNATURE = "4dabf18193072939515e22adb298388d"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"
_UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


class Unknown:
    """A value that is not known before the update. There is one: UNKNOWN."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = Unknown()


@dataclass(frozen=True)
class Secret:
    """A value that must stay encrypted in the state and unseen in output."""

    value: Any

    def __repr__(self) -> str:
        return "Secret([secret])"


def decode(struct: Any) -> dict[str, Any]:
    """A protobuf Struct as a dict. Whole numbers become int: protobuf knows only doubles, Kubernetes refuses them."""
    return {key: _decode(value) for key, value in struct.fields.items() if value.WhichOneof("kind") != "null_value"}


def _decode(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return UNKNOWN if value.string_value == _UNKNOWN else value.string_value
    if kind == "struct_value":
        fields = value.struct_value.fields
        if _SIGNATURE not in fields:
            return decode(value.struct_value)
        if fields[_SIGNATURE].string_value == _SECRET:
            return Secret(_decode(fields["value"]))
        raise ValueError("assets, archives and references to resources have no place in a Kubernetes object")
    if kind == "list_value":
        return [_decode(item) for item in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    if kind == "bool_value":
        return value.bool_value
    return None


def encode(values: Mapping[str, Any]) -> Any:
    """A dict as a protobuf Struct."""
    struct = Struct()
    struct.update(_encode(values))
    return struct


def _encode(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    if isinstance(value, Secret):
        return {_SIGNATURE: _SECRET, "value": _encode(value.value)}
    return _UNKNOWN if value is UNKNOWN else value


def reveal(value: Any) -> Any:
    """The value without marks of secrecy: what is sent to the API server, never to a log."""
    if isinstance(value, Secret):
        return reveal(value.value)
    if isinstance(value, dict):
        return {key: reveal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [reveal(item) for item in value]
    return value


def has_unknown(value: Any) -> bool:
    if isinstance(value, Secret):
        return has_unknown(value.value)
    if isinstance(value, dict):
        return any(has_unknown(item) for item in value.values())
    if isinstance(value, list):
        return any(has_unknown(item) for item in value)
    return value is UNKNOWN
