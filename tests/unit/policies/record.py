"""Makes the recordings that the policy tests run on.

    python tests/unit/policies/record.py local

writes tests/unit/policies/recorded/local.json from the program on mocks, with the edges of its graph and its secrets marked, as the
engine shows both to policies. With an event stream of a real preview as a second argument and the home as a third, from that one:

    PULUMI_DEBUG_COMMANDS=true pulumi preview -s local --event-log events.jsonl
    python tests/unit/policies/record.py local events.jsonl "$PWD/.local"

An event stream has neither edges nor marks. Values that Pulumi knows to be secret are already hidden in the stream. Only what
belongs to the machine that recorded (folders, the fingerprint of a home) is replaced, and the keys of Secrets are put back: the
stream hides a Secret's whole map, while policies see its keys.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(PROJECT))

import yaml  # noqa: E402

from policies.offline import Declared, Recording  # noqa: E402

RECORDED = Path(__file__).with_name("recorded")
_S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
# Resource -> keys of its stringData, as components/ declares them.
HIDDEN_KEYS = {
    "serving-api-key": ("api-key",),
    "serving-storage-config": ("minio",),
    "serving-connection": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_S3_ENDPOINT", "AWS_S3_BUCKET", "AWS_DEFAULT_REGION"),
    "registry-database-secret": ("dsn", "password"),
    "store-weights-reader": _S3_KEYS,
    "store-weights-writer": _S3_KEYS,
    "registrar-store-keys": _S3_KEYS,
    "store-root": ("mc-host", "password", "user"),
}


def recording_of(stack: str, events: Path) -> Recording:
    """The resources that a preview wanted to exist, in the order of their registration."""
    resources: dict[str, Declared] = {}
    for line in events.read_text().splitlines():
        metadata = (json.loads(line).get("resourcePreEvent") or {}).get("metadata") or {}
        new = metadata.get("new")
        if not new or metadata["op"] in ("delete", "delete-replaced", "discard-replaced"):
            continue
        urn = new["urn"]
        provider = new.get("provider") or metadata.get("provider") or ""
        resources[urn] = Declared(
            new["type"],
            urn.rpartition("::")[2],
            urn,
            _with_keys(urn.rpartition("::")[2], without_secrets(new.get("inputs") or {})),
            new.get("parent") or "",
            provider.rpartition("::")[0],
        )
    document = yaml.safe_load((PROJECT / f"Pulumi.{stack}.yaml").read_text())["config"]
    config = {key: value if isinstance(value, str) else json.dumps(value) for key, value in document.items()}
    return Recording(stack, tuple(resources.values()), config, f"pulumi preview -s {stack}")


def with_declaration(recording: Recording) -> Recording:
    """A recording of an older preview with what the program hands over of its settings and plan since."""
    from mistral_on_l4.config.names import DECLARATION
    from mistral_on_l4.config.settings import settings_of_config
    from mistral_on_l4.planner import plan_stack

    settings = settings_of_config(recording.config, recording.stack)
    plan = plan_stack(settings, stack=recording.stack)
    inputs = {
        "stack": recording.stack,
        "settings": settings.model_dump(mode="json", by_alias=True),
        "plan": {"services": {service.name: list(service.args) for service in plan.services}},
        "kept": [],
    }
    urn = f"urn:pulumi:{recording.stack}::mistral-on-l4::{DECLARATION}::declaration"
    declared = tuple(found for found in recording.resources if found.token != DECLARATION)
    return dataclasses.replace(recording, resources=(*declared, Declared(DECLARATION, "declaration", urn, inputs)))


def _with_keys(name: str, inputs: dict[str, Any]) -> dict[str, Any]:
    if inputs.get("stringData") != "[secret]":
        return inputs
    return {**inputs, "stringData": dict.fromkeys(HIDDEN_KEYS[name], "[secret]")}


def without_secrets(value: Any) -> Any:
    """The stream holds "[secret]" in an envelope that policies never see: to them a secret is a plain value."""
    if isinstance(value, dict):
        return "[secret]" if "ciphertext" in value else {key: without_secrets(item) for key, item in value.items()}
    return [without_secrets(item) for item in value] if isinstance(value, list) else value


def without_machine(document: dict[str, Any], home: str) -> str:
    text = json.dumps(document, indent=1, ensure_ascii=False)
    return re.sub(re.escape(home), "/home/user/mistral-on-l4/.local", text) if home else text


def main() -> None:
    stack = sys.argv[1]
    home = sys.argv[3] if len(sys.argv) > 3 else ""
    RECORDED.mkdir(exist_ok=True)
    target = RECORDED / f"{stack}.json"
    if len(sys.argv) > 2:
        recording = recording_of(stack, Path(sys.argv[2]))
    else:
        from bench.mutation.preview import record, shipped

        recording = record(stack, shipped(stack))
    target.write_text(without_machine(recording.document(), home) + "\n")
    print(f"{target}: {len(recording.resources)} resources")


if __name__ == "__main__":
    main()
