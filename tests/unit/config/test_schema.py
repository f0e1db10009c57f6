"""The stack file's JSON schema, which editors read, and the keys that Pulumi itself is told of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from mistral_on_l4.config.schema import SCHEMA_FILE, schema_text, stack_file_schema
from mistral_on_l4.config.settings import Settings, settings_of_config
from mistral_on_l4.planner import plan_stack

PROJECT = Path(__file__).resolve().parents[3]


def test_the_published_schema_is_the_one_of_the_settings() -> None:
    assert SCHEMA_FILE.read_text() == schema_text(), "run `make schema`"


def test_every_key_that_pulumi_is_told_of_is_one_of_the_settings() -> None:
    declared = yaml.safe_load((PROJECT / "Pulumi.yaml").read_text())["config"]
    known = {field.alias for field in Settings.model_fields.values()}
    assert set(declared) <= known
    # Pulumi refuses a stack that gives a declared key neither a value nor a default.
    assert [key for key, value in declared.items() if "default" not in value] == ["platform"]


@pytest.mark.parametrize("path", sorted(PROJECT.glob("Pulumi.*.yaml")), ids=lambda path: path.name)
def test_a_shipped_stack_file_is_valid_by_the_schema(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text()), stack_file_schema())


def test_the_keys_that_a_shipped_file_shows_commented_out_are_valid_as_they_stand() -> None:
    # They stand at the line's beginning, where Pulumi leaves them when it writes the file.
    lines = (PROJECT / "Pulumi.dev.yaml").read_text().splitlines()
    document = yaml.safe_load("\n".join(line.removeprefix("# ") if line.startswith("#   ") else line for line in lines))
    assert len(document["config"]) >= 9
    jsonschema.validate(document, stack_file_schema())
    settings = settings_of_config(document["config"], "Pulumi.dev.yaml")
    assert len(settings.enabled_services) == 3
    assert plan_stack(settings).misfits == ()


@pytest.mark.parametrize(
    ("services", "valid"),
    [
        ({"mistral-24b-w4a16": {"enabled": True}}, True),
        ({"mistral-24b-full": None}, True),
        ({"new": {"variant": "fp8", "prefix": "new/", "pool": "l4-1gpu"}}, True),
        ({"mistral-24b-fp8": {"maxModelLength": 4096}}, False),
        ({"new": {"enabled": True}}, False),
        ({"new": {"name": "new", "variant": "fp8", "prefix": "new/", "pool": "l4-1gpu"}}, False),
    ],
)
def test_the_schema_knows_changes_of_defaults_from_entries_of_ones_own(services: dict[str, Any], valid: bool) -> None:
    document = {"config": {"mistral-on-l4:platform": "local", "mistral-on-l4:services": services}}
    assert jsonschema.Draft202012Validator(stack_file_schema()).is_valid(document) is valid
