"""`python -m mistral_on_l4.config.schema`: writes the stack file's JSON schema, which editors read, into docs/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mistral_on_l4.config.defaults import Entries
from mistral_on_l4.config.names import PROJECT
from mistral_on_l4.config.problems import MAPS
from mistral_on_l4.config.sections import Settings
from mistral_on_l4.config.settings import SECRET_KEYS
from mistral_on_l4.files import write_whole

SCHEMA_FILE = Path(__file__).resolve().parents[2] / "docs" / "stack.schema.json"


def schema_text() -> str:
    return json.dumps(stack_file_schema(), indent=2) + "\n"


def stack_file_schema() -> dict[str, Any]:
    """JSON schema of Pulumi.<stack>.yaml, for editors: every key of the project, described, with its default."""
    schema = Settings.model_json_schema(by_alias=True)
    sections = schema.pop("$defs")
    properties = schema.pop("properties")
    properties["services"] = _map("InferenceServices by name", MAPS["services",], sections, "ServiceSettings")
    pools = sections["PoolsSettings"]
    pools["properties"]["groups"] = _map("GPU pools by name", MAPS["pools", "groups"], sections, "PoolSettings")
    del pools["required"]
    keys = {f"{PROJECT}:{name}": value for name, value in properties.items()}
    keys |= {f"{PROJECT}:{name}": {"description": "A Pulumi secret: `pulumi config set --secret`."} for name in sorted(SECRET_KEYS)}
    config = {"type": "object", "properties": keys, "patternProperties": {f"^(?!{PROJECT}:)": {}}, "additionalProperties": False}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A stack of mistral-on-l4",
        "type": "object",
        "properties": {"config": config},
        "$defs": sections,
    }


def _map(what: str, defaults: Entries, sections: dict[str, Any], entry: str) -> dict[str, Any]:
    """A map by name: the defaults, of which any field may be changed, and new entries, which have required fields."""
    new = sections[entry]
    new["properties"].pop("name")
    new["required"].remove("name")
    changed = f"{entry}Changes"
    sections[changed] = {
        **{key: value for key, value in new.items() if key != "required"},
        "title": changed,
        "description": f"Changes of a default. {new['description']}",
    }
    shipped = {
        name: {"anyOf": [{"$ref": f"#/$defs/{changed}"}, {"type": "null"}], "default": dict(values)}
        for name, values in defaults.items()
    }
    return {
        "description": f"{what}, merged over the defaults: a given field replaces the default's, null takes a default away.",
        "type": "object",
        "properties": shipped,
        "additionalProperties": {"$ref": f"#/$defs/{entry}"},
        "default": {},
    }


if __name__ == "__main__":
    write_whole(SCHEMA_FILE, schema_text(), mode=0o644)
