"""The stack file's JSON schema, which editors read, and the keys that Pulumi itself is told of."""

from __future__ import annotations

from pathlib import Path

import yaml

from mistral_on_l4.config.schema import SCHEMA_FILE, schema_text
from mistral_on_l4.config.settings import Settings

PROJECT = Path(__file__).resolve().parents[3]


def test_the_published_schema_is_the_one_of_the_settings() -> None:
    assert SCHEMA_FILE.read_text() == schema_text(), "run `make schema`"


def test_every_key_that_pulumi_is_told_of_is_one_of_the_settings() -> None:
    declared = yaml.safe_load((PROJECT / "Pulumi.yaml").read_text())["config"]
    known = {field.alias for field in Settings.model_fields.values()}
    assert set(declared) <= known
    # Pulumi refuses a stack that gives a declared key neither a value nor a default.
    assert [key for key, value in declared.items() if "default" not in value] == ["platform"]
