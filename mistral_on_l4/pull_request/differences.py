"""What changed in a resource, in words short enough for a list: `instanceTypes[0] g6.xlarge → g6.2xlarge`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mistral_on_l4.pull_request.events import Change
from mistral_on_l4.pull_request.redaction import HIDDEN, is_secret, is_unknown, names_a_secret, redacted

# Values are shown where a person decides by them, and nowhere else: everything not named here is only called changed. What is shown
# still goes through `redacted`.
_SHOWN = re.compile(
    r"(^|\.)(replicas|count|minReplicas|maxReplicas|image|storage|cpu|memory|nvidia\.com/gpu|ephemeral-storage|version|releaseVersion"
    r"|instanceTypes?|capacityType|amiType|desiredSize|minSize|maxSize|type|throughput|iops|volumeSize|encrypted|httpTokens"
    r"|endpointPublicAccess|publicAccessCidrs|cidrBlock|path|storageUri|storageClassName|sizeLimit|activeDeadlineSeconds|backoffLimit"
    r"|ttlSecondsAfterFinished|failureThreshold|periodSeconds|runAsUser|runAsNonRoot|privileged|allowPrivilegeEscalation"
    r"|readOnlyRootFilesystem|hostNetwork|whenDeleted|whenScaled|reclaimPolicy|runtime|chart|nodeSelector\.[^.]+|expires|owner"
    r"|pod-security\.kubernetes\.io/[a-z]+|schedule|port|targetPort|values|key|region|clusterIdentifier)(\[\d+\])?$"
)
_ARGUMENTS = re.compile(r"(^|\.)(args|command)$")
# Follows from the rest: fingerprints, predictions, and what every change of a pod changes.
_DERIVED = re.compile(r"mistral-on-l4/(revision|predicted-[a-z-]+|store|registry|store-uid|capacity)$|pulumi\.com/[A-Za-z]+$")
_LONGEST_VALUE = 60
_NOTHING = object()


def differences(change: Change) -> list[str]:
    """One phrase per changed property, the telling ones first. Empty for creations and deletions."""
    if change.op in ("create", "delete", "import") or not change.before or not change.after:
        return []
    shown: list[str] = []
    named: list[str] = []
    for path, old, new in _walk(change.before, change.after, ""):
        if _ARGUMENTS.search(path) and isinstance(old, list) and isinstance(new, list):
            shown += _arguments(old, new)
        elif _DERIVED.search(path):
            continue
        elif _SHOWN.search(path) and not names_a_secret(path):
            shown.append(f"{_short(path)} {_value(old)} → {_value(new)}")
        else:
            named.append(_short(path))
    if change.kept[0] != change.kept[1]:
        shown.insert(0, f"on destroy: {change.kept[0] or 'deleted'} → {change.kept[1] or 'deleted'}")
    if not shown and not named:
        named = [_short(path) for path in change.paths if not _DERIVED.search(path)]
    return list(dict.fromkeys((*shown, *named)))


def _walk(old: Any, new: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """(path, old, new) of every leaf that differs; lists of arguments stay whole."""
    if old is not _NOTHING and new is not _NOTHING and old == new:
        return
    # A list that comes or goes as a whole is told by its items.
    if old is _NOTHING and isinstance(new, list) and new:
        old = []
    elif new is _NOTHING and isinstance(old, list) and old:
        new = []
    both_mappings = isinstance(old, Mapping) and isinstance(new, Mapping) and not is_secret(old) and not is_secret(new)
    if both_mappings:
        for key in sorted({*old, *new}, key=str):
            if str(key) != "__defaults":
                yield from _walk(old.get(key, _NOTHING), new.get(key, _NOTHING), f"{path}.{key}".lstrip("."))
    elif isinstance(old, list) and isinstance(new, list) and not _ARGUMENTS.search(path):
        if all(isinstance(item, Mapping) and "name" in item for item in (*old, *new)):
            before, after = {item["name"]: item for item in old}, {item["name"]: item for item in new}
            for name in dict.fromkeys((*before, *after)):
                yield from _walk(before.get(name, _NOTHING), after.get(name, _NOTHING), f"{path}[{name}]")
        else:
            for index in range(max(len(old), len(new))):
                pair = (old[index] if index < len(old) else _NOTHING, new[index] if index < len(new) else _NOTHING)
                yield from _walk(*pair, f"{path}[{index}]")
    else:
        yield path, old, new


def _arguments(old: list[Any], new: list[Any]) -> Iterator[str]:
    """`--max-model-len 8192 → 16384`, whatever the order of the flags."""
    before, after = _flags(old), _flags(new)
    for flag in dict.fromkeys((*before, *after)):
        was, now = before.get(flag), after.get(flag)
        if was == now:
            continue
        if names_a_secret(flag) and not _is_shown(flag):
            yield f"{flag}: changed"
        elif was is None:
            yield f"+ {flag} {_flag_value(flag, now or '')}".rstrip()
        elif now is None:
            yield f"- {flag} {_flag_value(flag, was)}".rstrip()
        elif _is_shown(flag):
            yield f"{flag} {_flag_value(flag, was)} → {_flag_value(flag, now)}"
        else:
            yield f"{flag}: changed"


# Flags of vLLM by whose values a person decides. Of any other the value may be a secret, whatever it is called.
_DECIDING = re.compile(
    r"--((tensor|pipeline|data)-parallel-size|max-[a-z-]+|kv-cache-dtype|gpu-memory-utilization|cpu-offload-gb|dtype|quantization|seed"
    r"|swap-space|block-size|load-format|served-model-name|port|model|(no-)?enable-[a-z-]+|enforce-eager|tool-call-parser|tokenizer-mode"
    r"|config-format|language-model-only|generation-config|limit-mm-per-prompt|uvicorn-log-level|trust-remote-code)"
)


def _is_shown(flag: str) -> bool:
    return _DECIDING.fullmatch(flag) is not None


def _flag_value(flag: str, value: str) -> str:
    if not value or _is_shown(flag):
        return redacted(value)
    return HIDDEN


def _flags(arguments: list[Any]) -> dict[str, str]:
    flags: dict[str, str] = {}
    name = ""
    for argument in (str(item) for item in arguments):
        if argument.startswith("-"):
            name, _, value = argument.partition("=")
            flags[name] = value
        elif name:
            flags[name] = f"{flags[name]} {argument}".strip()
    return flags


def _value(value: Any) -> str:
    if value is _NOTHING or value is None:
        return "(none)"
    if is_secret(value):
        return HIDDEN
    if is_unknown(value):
        return "(known after up)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, (Mapping, list)):
        return f"({len(value)} entries)"
    text = redacted(str(value)).replace("\n", " ")
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _short(path: str) -> str:
    """The last two parts of a path are what a person recognises."""
    parts = re.split(r"\.(?![a-z]+\.(?:io|com)/|io/|com/)", path)
    return ".".join(parts[-2:]) if len(parts) > 2 else path
