"""`python -m mistral_on_l4.config.schema`: writes the stack file's JSON schema, which editors read, into docs/."""

from __future__ import annotations

import json
from pathlib import Path

from mistral_on_l4.config.settings import stack_file_schema
from mistral_on_l4.files import write_whole

SCHEMA_FILE = Path(__file__).resolve().parents[2] / "docs" / "stack.schema.json"


def schema_text() -> str:
    return json.dumps(stack_file_schema(), indent=2) + "\n"


if __name__ == "__main__":
    write_whole(SCHEMA_FILE, schema_text(), mode=0o644)
