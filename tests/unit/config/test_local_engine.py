"""`local.engine: vllm` is other defaults of two settings, and nothing more."""

from __future__ import annotations

from typing import Any

import pytest

from mistral_on_l4.config.local_engine import IMAGE, REVISION, is_real
from mistral_on_l4.config.settings import Settings, SettingsError, settings_from

VLLM = {"platform": "local", "local": {"engine": "vllm"}}


def settings(**values: Any) -> Settings:
    return settings_from({**VLLM, **values}, "Pulumi.x.yaml")


def test_the_real_engine_serves_the_small_model_from_an_image_of_its_own() -> None:
    found = settings()
    assert found.images.overrides == {"engine": IMAGE}
    assert {service.revision for service in found.services} == {REVISION}


def test_beside_image_and_revision_the_stack_is_the_same() -> None:
    plain = settings_from({"platform": "local"}, "Pulumi.x.yaml")
    found = settings()
    same = {"images": plain.images, "local": plain.local, "services": plain.services}
    assert found.model_copy(update=same) == plain
    assert [service.model_copy(update={"revision": "main"}) for service in found.services] == list(plain.services)


def test_what_the_file_says_of_image_and_revision_wins() -> None:
    found = settings(images={"overrides": {"engine": "docker.io/me/engine:v1"}}, services={"mistral-24b-fp8": {"revision": "abc"}})
    assert found.images.overrides == {"engine": "docker.io/me/engine:v1"}
    assert {service.name: service.revision for service in found.services}["mistral-24b-fp8"] == "abc"


def test_a_misspelt_engine_is_named_with_those_that_there_are() -> None:
    with pytest.raises(SettingsError, match=r"local\.engine: input should be 'simulator' or 'vllm', got 'vlm'"):
        settings(local={"engine": "vlm"})


def test_an_account_has_no_local_engine() -> None:
    with pytest.raises(SettingsError, match="only for platform 'local': on eks vLLM itself serves"):
        settings(platform="eks")


@pytest.mark.parametrize(
    ("image", "real"),
    [(IMAGE, True), ("mirror.example.org/a/vllm/vllm-openai-cpu:v0.32.0", True), ("docker.io/vllm/vllm-openai:v0.33.0", False), (None, False)],
)  # fmt: skip
def test_an_image_tells_the_real_engine_from_its_simulation(image: str | None, real: bool) -> None:
    assert is_real(image) is real
